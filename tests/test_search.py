"""Search is exact: the ranking of float64 distances by brute force; and the command refuses other extractors."""

import json

import numpy as np
import pytest
from PIL import Image

from cion_jax.conversion import write_weights
from cion_jax.correlation import correlate_to, extend_to
from cion_jax.correlation.engine.centroids import Groups
from cion_jax.correlation.searching import nearest, search
from cion_jax.features.store import aligned_samples, extract
from cion_jax.finetuning.extractor import create_extractor, load_extractor
from cion_jax.runtime.arrays import StackedArray
from cion_jax.samples import SampleTable, read_rows, read_samples, write_samples
from tests.commands import run_command
from tests.correlation_oracle import make_world

SIZE = 64, 32


def unit(rows):
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def by_brute_force(queries, features, labels):
    """Labels ascending, and distances `[queries, labels]` to their centroids."""
    names = np.unique(labels[labels >= 0])
    centroids = np.stack([unit(features)[labels == name].mean(0) for name in names])
    return names, 1 - unit(queries) @ unit(centroids).T


@pytest.fixture
def correlated(tmp_path):
    features, videos, tracklets = make_world(9, images=300, videos=5, tracklets=8, people=12)
    order = np.argsort(videos, kind="stable")
    features, videos, tracklets = features[order], videos[order], tracklets[order]
    names = [f"{row}.jpg" for row in range(300)]
    write_samples(SampleTable.from_columns(file_path=names, video=videos, tracklet=tracklets), tmp_path / "s.parquet")
    np.save(tmp_path / "f.npy", features)
    correlate_to(tmp_path / "A", tmp_path / "s.parquet", tmp_path / "f.npy", half_width="all", sigma_drm=0.1)
    return tmp_path, features


def test_matches_are_those_of_brute_force(correlated):
    folder, features = correlated
    table = read_samples(folder / "A/identities.parquet")
    identities, groups = table["identity"], np.load(folder / "A/index/groups.npy")
    queries = np.random.default_rng(0).normal(size=(7, features.shape[1])).astype(np.float32)
    found = search(folder / "A", queries, top=5)
    for kind, labels in (("identities", identities), ("tracklets", groups)):
        names, distances = by_brute_force(queries, features, labels)
        for query, match in enumerate(found):
            expected = np.argsort(distances[query])[:5]
            assert [one["distance"] for one in match[kind]] == pytest.approx(distances[query][expected], abs=2e-6)
            for one, name in zip(match[kind], names[expected]):
                rows = np.flatnonzero(labels == name)
                assert one["images"] == len(rows) and one["identity"] == identities[rows[0]]
                assert set(one["examples"]) <= set(table["file_path"][rows])
                assert one["videos"] == sorted(set(map(str, table["video"][rows])))


def test_a_set_that_has_shrunk_is_searched_by_its_own_features(correlated):
    folder, features = correlated
    extend_to(folder / "B", folder / "A", remove=["2"])
    found = search(folder / "B", features[:3], top=300)
    assert all("2" not in match["videos"] for query in found for match in query["tracklets"])
    kept = ~np.isin(np.arange(300), np.flatnonzero(read_samples(folder / "A/identities.parquet")["video"] == 2))
    _, distances = by_brute_force(features[:3], features[kept], np.load(folder / "B/index/groups.npy"))
    got = [[match["distance"] for match in query["tracklets"]] for query in found]
    np.testing.assert_allclose(got, np.sort(distances, axis=1), atol=2e-6)


def test_of_equally_near_groups_the_lowest_is_named_and_near_ties_are_decided_in_float64():
    random = np.random.default_rng(1)
    row = random.normal(size=64)
    # Differences that float32 cannot see, in an order that only float64 gets right; the last two are equal.
    away = unit(np.stack([row + scale * 1e-4 * random.normal(size=64) for scale in (3, 1, 2, 0, 0)]))
    features = away.astype(np.float32)
    groups = Groups(np.arange(5), features.copy())
    found = nearest(row[None].astype(np.float32), groups, StackedArray([features]), 5)
    expected = 1 - unit(features) @ unit(row.astype(np.float32))
    np.testing.assert_allclose(found.distances[0], np.sort(expected), atol=1e-12)
    assert found.groups[0].tolist()[:2] == [3, 4]


def test_queries_that_do_not_fit_are_refused(correlated):
    folder, features = correlated
    with pytest.raises(ValueError, match="queries of dimension 5, the index has 8"):
        search(folder / "A", features[:2, :5])
    with pytest.raises(ValueError, match="NaN, infinite or all zero"):
        search(folder / "A", np.zeros((1, 8), np.float32))
    with pytest.raises(ValueError, match="no index; give the --out of"):
        search(folder, features[:1])
    with pytest.raises(ValueError, match="top=0"):
        search(folder / "A", features[:1], top=0)


def test_rows_are_read_from_the_row_groups_that_hold_them(tmp_path):
    import pyarrow.parquet

    table = SampleTable.from_columns(file_path=[f"{row}.jpg" for row in range(50)])
    pyarrow.parquet.write_table(table.arrow, tmp_path / "s.parquet", row_group_size=7)
    rows = np.array([0, 6, 7, 20, 49])
    assert read_rows(tmp_path / "s.parquet", rows)["file_path"].to_pylist() == [f"{row}.jpg" for row in rows]
    assert len(read_rows(tmp_path / "s.parquet", rows[:0])) == 0


@pytest.mark.slow
def test_the_command_finds_the_image_it_is_given(tmp_path):
    random = np.random.default_rng(0)
    names = [f"{row}.png" for row in range(12)]
    colours = np.repeat(random.integers(0, 255, (4, 1, 1, 3)), 3, axis=0)  # of four people, three images each
    for name, image in zip(names, colours + random.integers(0, 8, (12, *SIZE, 3))):
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(tmp_path / name)
    table = SampleTable.from_columns(file_path=names, video=np.arange(12) // 3, tracklet=np.arange(12) // 3)
    write_weights(create_extractor("resnet_test"), tmp_path / "w.pth")
    model, about = load_extractor("resnet_test", tmp_path / "w.pth")
    extract(model, table, tmp_path, tmp_path / "f.npy", about={"model": "resnet_test", **about}, size=SIZE)
    correlate_to(tmp_path / "A", aligned_samples(tmp_path / "f.npy"), tmp_path / "f.npy", sigma_drm=0.0, sigma_cst=2.0)
    flags = [f"--index={tmp_path / 'A'}", f"--out={tmp_path / 'found'}", f"--images={tmp_path}"]
    images = [f"--image={tmp_path / '4.png'}", f"--image={tmp_path / '9.png'}"]
    done = run_command("cion_jax.search", *flags, *images, f"--weights={tmp_path / 'w.pth'}", "--top=2")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found/matches.json").read_text())
    identities = read_samples(tmp_path / "A/identities.parquet")["identity"]
    assert [query["identities"][0]["identity"] for query in found] == [identities[4], identities[9]]
    assert (tmp_path / "found/matches.png").exists()

    write_weights(create_extractor("resnet_test", seed=1), tmp_path / "other.pth")
    done = run_command("cion_jax.search", *flags, *images, f"--weights={tmp_path / 'other.pth'}")
    assert done.returncode == 2 and "another extractor than that of the correlated features" in done.stderr
