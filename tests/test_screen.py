"""Bounds on similarities hold for any data, and no close pair is screened out."""

import jax.numpy as jnp
import numpy as np
import pytest

from cion_jax.correlation import correlate
from cion_jax.correlation.engine import linking, screen, tiles
from cion_jax.correlation.engine.centroids import Vectors
from cion_jax.correlation.engine.screen import Screen
from cion_jax.runtime.platform import traced_for
from cion_jax.runtime.progress import silent
from tests.correlation_oracle import wide_world


def vectors(rows):
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return Vectors(rows.astype(np.float32), np.ones(len(rows), np.float32), np.full(len(rows), 1e-5, np.float32))


def bounds(chosen, unit):
    factors = np.asarray(chosen.factors(unit, room=3), np.float64)
    assert not factors[len(unit) :].any()
    return factors[: len(unit)] @ factors[: len(unit)].T - screen.CONSTANT


def families(random):
    """Rows whose remaining dimensions are zero, almost zero, parallel (where the bound is tight), or random."""
    alike = np.repeat(random.normal(size=(1, 96)), 40, 0)
    short = random.normal(size=(40, 96))
    short[:, 29:] = 0
    nearly = short + 1e-4 * random.normal(size=(40, 96))
    tight = np.concatenate([random.normal(size=(40, 29)), alike[:, 29:]], 1)
    return {"alike": alike, "short": short, "nearly": nearly, "tight": tight, "any": random.normal(size=(40, 96))}


@pytest.mark.parametrize("family", ["alike", "short", "nearly", "tight", "any"])
@pytest.mark.parametrize("kept", [1, 29, 95, 96])
def test_products_of_the_factors_are_never_below_the_similarity(family, kept):
    random = np.random.default_rng(0)
    unit = vectors(families(random)[family])
    similarity = unit.rows.astype(np.float64) @ unit.rows.T.astype(np.float64)
    bound = bounds(Screen(np.arange(kept)), unit)
    assert (bound >= similarity + 2e-5).all()  # the slack of both is on top
    if kept == 96 or (family == "short" and kept >= 29):
        np.testing.assert_allclose(bound, similarity, atol=1e-3)


def test_bfloat16_factors_bound_the_similarity_too():
    for rows in families(np.random.default_rng(0)).values():
        unit = vectors(rows)
        similarity = unit.rows.astype(np.float64) @ unit.rows.T.astype(np.float64)
        with traced_for("cuda"):
            factors = Screen(np.arange(29)).factors(unit)
            assert factors.dtype == jnp.bfloat16 and factors.shape[1] % 32 == 0
            for kept in (29, 96):  # 32 and 98 columns, of which the latter are filled up
                assert (bounds(Screen(np.arange(kept)), unit) >= similarity + 2e-5).all()


@pytest.mark.parametrize("share", [0, 0.001, 0.2, 1])
def test_words_are_picked_on_the_device_as_on_the_host(monkeypatch, share):
    random = np.random.default_rng(0)
    words = random.integers(1, 2**32, (5, 64, 40), np.uint32) * (random.random((5, 64, 40)) < share)
    monkeypatch.setattr(tiles, "scale", lambda: tiles.Scale(32, 64, 4096, 8, True))
    place, word = tiles._nonzero(jnp.asarray(words))
    np.testing.assert_array_equal(place, np.flatnonzero(words))
    np.testing.assert_array_equal(word, words.reshape(-1)[place])


def test_a_zero_vector_passes_every_screen():
    nowhere = Vectors(np.zeros((1, 96), np.float32), np.ones(1, np.float32), np.array([np.inf], np.float32))
    bound = bounds(Screen(np.arange(29)), nowhere)
    assert np.isfinite(bound).all() and bound[0, 0] > 2


def test_the_nearer_vectors_are_the_more_of_their_numbers_are_needed():
    random = np.random.default_rng(0)
    sizes = []
    for similarity in (0, 0.6, 0.8):  # of which 0.82 would be links
        rows = similarity**0.5 + (1 - similarity) ** 0.5 * random.normal(size=(300, 768))
        sizes.append(len(screen.choose(vectors(rows), vectors(rows), 0.18).head))
    assert sizes[0] < 768 / 2 < sizes[1] < sizes[2] == 768


def test_the_numbers_with_the_most_energy_are_multiplied():
    scale = np.ones(768)
    scale[500:700] = 10
    spread = vectors(scale * np.random.default_rng(0).normal(size=(300, 768)))
    assert set(screen.choose(spread, spread, 0.18).head) <= set(range(500, 700))


@pytest.mark.parametrize("kept, picked", [(3, False), pytest.param(11, True, marks=pytest.mark.slow)])
def test_the_screen_never_changes_the_result(monkeypatch, kept, picked):
    inputs, oracle = wide_world(7, images=120, videos=3, tracklets=7)
    dim = inputs[0].shape[1]
    monkeypatch.setattr(screen, "choose", lambda *_: Screen(np.arange(min(kept, dim))))
    monkeypatch.setattr(tiles, "scale", lambda: tiles.Scale(32, 64, 4096, 8, picked))
    found = correlate(*inputs, half_width=None)
    for level, expected in zip(found.levels, oracle.identities, strict=True):
        np.testing.assert_array_equal(level.identities, expected)


@pytest.mark.parametrize("half_width", [5, 40, 1000])
def test_compare_yields_every_close_pair_of_the_band_once(half_width):
    random = np.random.default_rng(half_width)
    people = random.normal(size=(30, 96))
    unit = vectors(people[random.integers(0, 30, 700)] + 0.25 * random.normal(size=(700, 96)))
    lengths = np.array([400, 0, 300])
    windows = tiles.Windows.within(lengths, half_width)
    track = lambda total: silent("", total, "")  # noqa: E731
    pairs = linking.pairs_of(tiles.compare(unit, unit, windows, lengths, 0.18, track))
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    similarity = unit.rows.astype(np.float64) @ unit.rows.T.astype(np.float64)
    i, j = np.nonzero(similarity >= 1 - 0.18)
    band = (i < j) & (j - i <= half_width) & ((i < 400) == (j < 400))
    expected = set(zip(i[band].tolist(), j[band].tolist(), strict=True))
    assert len(expected) > 10 and expected <= set(map(tuple, pairs.tolist()))
    assert (pairs[:, 1] > pairs[:, 0]).all() and (pairs[:, 1] - pairs[:, 0] <= half_width).all()
