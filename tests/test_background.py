"""Identities without a person: found on worlds where slipped boxes are known, and dropped with the rest unchanged."""

import json

import numpy as np
import pytest

from cion_jax.correlation import correlate_to
from cion_jax.correlation.background import find_background
from cion_jax.correlation.results import IDENTITIES
from cion_jax.samples import SampleTable, read_samples, write_samples


def slipped(seed, people=30, images=10):
    """Tracklets of one person each, three per person; the last image of every second tracklet shows the background."""
    random = np.random.default_rng(seed)
    tracklets = np.repeat(np.arange(3 * people), images)
    person = tracklets % people
    person[(tracklets % 2 == 0) & (np.arange(len(tracklets)) % images == images - 1)] = -1
    return tracklets, person, random


def test_few_images_of_many_tracklets_are_background():
    tracklets, person, random = slipped(0)
    identities = np.where(person < 0, 30, person)
    identities = random.permutation(31)[identities]
    found = find_background(identities, tracklets)
    assert found.identities.tolist() == np.unique(identities[person < 0]).tolist()
    np.testing.assert_array_equal(found.rows, person < 0)
    after = found.dropped(identities)
    assert (after[person < 0] == -1).all() and after.max() == 29
    assert len({*zip(after[person >= 0].tolist(), person[person >= 0].tolist())}) == 30


def test_whole_tracklets_and_parts_of_few_are_people():
    tracklets, person, _ = slipped(1)
    assert not find_background(tracklets % 30, tracklets).rows.any()
    discarded = np.where(person < 0, -1, person)
    assert not find_background(discarded, tracklets).rows.any()
    half = np.where(tracklets < 4, 30 + np.arange(len(tracklets)) % 10 // 8, tracklets % 30)  # parts of four tracklets
    assert not find_background(half, tracklets).rows.any()
    assert not find_background(np.full(len(tracklets), -1), tracklets).rows.any()


@pytest.mark.parametrize("drop", [False, True])
def test_correlation_reports_background_and_drops_it_on_demand(tmp_path, drop):
    tracklets, person, random = slipped(2)
    looks = random.normal(size=(31, 48))
    features = looks[person] + 0.05 * random.normal(size=(len(person), 48))
    ghost = np.full(10, -1)  # a tracklet of background in every video, which Eq. 5 adds the slipped images to
    rows = [(features, tracklets, tracklets % 3, person)]
    for video in range(3):
        images = looks[ghost] + 0.05 * random.normal(size=(10, 48))
        rows.append((images[:2], np.full(2, 90 + video), np.full(2, video), ghost[:2]))
    x, tracklets, videos, person = (np.concatenate(parts) for parts in zip(*rows))
    names = [f"{i}.jpg" for i in range(len(x))]
    table = SampleTable.from_columns(file_path=names, video=videos, tracklet=tracklets, person=person)
    write_samples(table, tmp_path / "s.parquet")
    np.save(tmp_path / "f.npy", x.astype(np.float32))
    report = correlate_to(
        tmp_path / "out",
        tmp_path / "s.parquet",
        tmp_path / "f.npy",
        sigma_cst=0.4,
        sigma_drm=0.3,
        drop_background=drop,
    )
    assert json.loads((tmp_path / "out/report.json").read_text()) == report
    background = report["background"]
    assert background["identities"] == 1 and background["images"] == (person < 0).sum() == background["without_person"]
    assert background["dropped"] == drop
    before, after = report["levels"][-1]["pairwise"]["precision"], background["pairwise"]["precision"]
    assert before < after == 1
    identities = read_samples(tmp_path / "out" / IDENTITIES)["identity"]
    assert (identities[person < 0] < 0).all() == drop and len(np.unique(identities)) == 31
    assert (tmp_path / "out/index").exists() != drop
