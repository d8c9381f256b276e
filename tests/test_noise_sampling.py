"""With many identities, n_drm is estimated from some of them: without bias, and with the standard error stated."""

import numpy as np
import pytest

from cion_jax.correlation import correlate_to, entries, noise
from cion_jax.reporting.correlation_report import print_summary
from cion_jax.samples import SampleTable, write_samples

IDENTITIES, ROWS, SIGMA = 900, 300, 0.12


def crowd(seed, dim=6):
    """One image per identity, around centers of which some are much closer to others, and n_drm by brute force."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(IDENTITIES, dim)) + np.eye(dim)[0] * random.exponential(2, (IDENTITIES, 1))
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32), (1 - units @ units.T <= SIGMA).sum(1) - 1


def test_the_estimate_has_no_bias_and_the_standard_error_is_its_spread():
    scores, ratios = [], []
    for seed in range(60):
        features, close = crowd(seed)
        found = noise(features, np.arange(IDENTITIES), sigma_cst=0.2, sigma_drm=SIGMA, most_rows=ROWS)
        assert found.total == found.consistency + found.discrimination and found.identities == IDENTITIES
        scores.append((found.discrimination - close.mean()) / found.standard_error)
        ratios.append(found.standard_error / (close.std(ddof=1) / ROWS**0.5))
    # A third of all identities without replacement: the spread is sqrt(1 - 1/3) = 0.82 of the stated, safe error.
    assert abs(np.mean(scores)) < 3 * 0.82 / 60**0.5 and 0.6 < np.std(scores) < 1.05
    assert np.mean(ratios) == pytest.approx(1, abs=0.05)


def test_with_few_identities_every_pair_is_compared():
    features, close = crowd(0)
    for most_rows in (None, IDENTITIES):
        found = noise(features, np.arange(IDENTITIES), sigma_cst=0.2, sigma_drm=SIGMA, most_rows=most_rows)
        assert found.standard_error == 0 and found.discrimination == pytest.approx(close.mean(), rel=1e-12)


def test_the_report_and_its_summary_state_the_error(tmp_path, monkeypatch, capsys):
    features, close = crowd(1)
    paths = [f"{row}.jpg" for row in range(IDENTITIES)]
    table = SampleTable.from_columns(file_path=paths, video=np.arange(IDENTITIES), tracklet=np.arange(IDENTITIES))
    write_samples(table, tmp_path / "s.parquet")
    np.save(tmp_path / "f.npy", features)
    settings = {"sigma_drm": SIGMA, "levels": 1}
    print_summary(correlate_to(tmp_path / "all", tmp_path / "s.parquet", tmp_path / "f.npy", **settings))
    assert "standard error" not in capsys.readouterr().out
    monkeypatch.setattr(entries, "NOISE_ROWS", ROWS)
    report = correlate_to(tmp_path / "some", tmp_path / "s.parquet", tmp_path / "f.npy", **settings)
    first = report["levels"][0]
    assert abs(first["noise_discrimination"] - close.mean()) < 4 * first["noise_standard_error"]
    assert first["noise_rows"] == ROWS
    print_summary(report)
    stated = f"from {ROWS} identities; standard error {first['noise_standard_error']:.2g} at level 0"
    assert stated in " ".join(capsys.readouterr().out.split())
