"""Adaptation of features against the definition, and what it must not depend on."""

import json

import numpy as np
import pytest
from sklearn.decomposition import PCA

from cion_jax.features import adaptation
from cion_jax.features.adaptation import adapt_to, fit
from cion_jax.features.store import aligned_samples
from cion_jax.samples import SampleTable, read_samples


def crawl(seed, rows=400, dim=6, videos=5):
    """Features in a narrow cone, with an offset for each video and tracklet."""
    random = np.random.default_rng(seed)
    tracklets = np.unique(random.integers(0, 40, rows), return_inverse=True)[1]
    video = np.unique(tracklets % videos, return_inverse=True)[1]
    offsets = random.normal(size=(videos, dim))[video] + random.normal(size=(40, dim))[tracklets]
    features = 9 + offsets + 0.3 * random.normal(size=(rows, dim)) * np.arange(1, dim + 1)
    return features.astype(np.float32), video, tracklets


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_features_are_centered_by_video_and_whitened_as_defined(monkeypatch):
    features, videos, tracklets = crawl(0)
    monkeypatch.setattr(adaptation, "SHRINKAGE", 0)
    monkeypatch.setattr(adaptation, "_ROWS_AT_ONCE", 37)
    x = unit(features.astype(np.float64))
    means = {t: x[tracklets == t].mean(0) for t in np.unique(tracklets)}
    overall = np.mean(list(means.values()), axis=0)
    centered = np.empty_like(x)
    for video in np.unique(videos):
        own = [means[t] for t in np.unique(tracklets[videos == video])]
        centered[videos == video] = x[videos == video] - np.mean([*own, overall, overall], axis=0)
    # PCA centers once more; its whitening is Sigma^(-1/2) up to a rotation, which leaves all cosines alone.
    pca = PCA(whiten=True).fit(np.concatenate([centered, -centered]))
    expected = unit(pca.transform(centered))
    found = fit(features, videos, tracklets)(features, videos)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)


def test_a_video_of_one_tracklet_keeps_its_person_apart():
    features, videos, tracklets = crawl(1)
    alone = videos.max() + 1
    videos[tracklets == 0] = alone
    adapted = fit(features, videos, tracklets)(features, videos)
    centroid = adapted[videos == alone].mean(0)
    assert np.linalg.norm(centroid) > 0.5  # centered on itself, its images would point anywhere


def test_rows_in_another_order_are_adapted_alike():
    features, videos, tracklets = crawl(2)
    order = np.random.default_rng(0).permutation(len(features))
    there = fit(features, videos, tracklets)(features, videos)
    again = fit(features[order], videos[order], tracklets[order])(features[order], videos[order])
    np.testing.assert_allclose(again, there[order], atol=1e-5)


def test_files_are_those_of_an_extraction(tmp_path):
    features, videos, tracklets = crawl(3)
    table = SampleTable.from_columns(file_path=[f"{i}.jpg" for i in range(400)], video=videos, tracklet=tracklets)
    adapt_to(tmp_path / "a.npy", features, table, {"model": "m", "weights_sha256": "0"})
    written = np.load(tmp_path / "a.npy")
    assert written.dtype == np.float16
    np.testing.assert_allclose(written, fit(features, videos, tracklets)(features, videos), atol=1e-3)
    assert read_samples(aligned_samples(tmp_path / "a.npy")).arrow.equals(table.arrow)
    about = json.loads((tmp_path / "a.json").read_text())
    assert about["weights_sha256"] == "0" and about["adaptation"]["centered_by"] == "video"


def test_features_that_cannot_be_adapted_are_refused(tmp_path):
    features, videos, tracklets = crawl(4)
    table = SampleTable.from_columns(file_path=[f"{i}.jpg" for i in range(400)], video=videos, tracklet=tracklets)
    with pytest.raises(ValueError, match=r"variance of .* within their videos.*collapsed"):
        adapt_to(tmp_path / "a.npy", np.ones_like(features), table, {})
    features[7] = 0
    with pytest.raises(ValueError, match="variance of nan"):
        adapt_to(tmp_path / "a.npy", features, table, {})
    assert not list(tmp_path.iterdir())
