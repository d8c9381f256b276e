"""The noise of identities against the oracle; pairwise scores against counting every pair."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cion_jax.correlation import noise, pairwise_scores, reference
from tests.correlation_oracle import WIDE, make_world, noise_oracle

# Noise


@pytest.mark.parametrize("seed", range(8))
def test_noise_matches_the_oracle(seed):
    features, _, tracklets = make_world(seed, images=30)
    identities = tracklets.astype(np.int64) - 2  # -2 and -1 count as discarded
    identities[identities < 0] = -1
    *expected, margin = noise_oracle(features, identities, 0.2, 0.18)
    if margin > WIDE:
        found = noise(features, identities, sigma_cst=0.2, sigma_drm=0.18)
        assert (found.total, found.consistency, found.discrimination) == pytest.approx(expected, rel=1e-12)
        assert reference.noise(features, identities, 0.2, 0.18) == pytest.approx(expected, rel=1e-12)
        assert found.identities == len(set(identities) - {-1})


def test_noise_counts_ordered_pairs_and_both_thresholds_inclusively():
    features, identities = np.eye(3, dtype=np.float32)[[0, 1, 2, 2]], np.array([0, 3, 7, -1])
    measured = noise(features, identities, sigma_cst=0.0, sigma_drm=1.0)
    assert (measured.consistency, measured.discrimination, measured.total) == (1.0, 2.0, 3.0)
    assert noise(features, identities, sigma_cst=0.1, sigma_drm=0.999).total == 0


# Scores


def brute_force_scores(identities, persons):
    claimed = true = correct = 0
    for i in range(len(identities)):
        for j in range(i):
            same_identity = identities[i] == identities[j] and identities[i] >= 0
            same_person = persons[i] == persons[j] and persons[i] >= 0
            claimed, true, correct = (
                claimed + same_identity,
                true + same_person,
                correct + (same_identity and same_person),
            )
    precision, recall = (correct / whole if whole else 1.0 for whole in (claimed, true))
    majority = [
        max([1, *(np.sum((identities == k) & (persons == p)) for p in set(persons) - {-1})])
        for k in set(identities) - {-1}
    ]
    kept = np.sum(identities >= 0)
    purity = sum(majority) / kept if kept else 1.0
    harmonic = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return precision, recall, harmonic, purity


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), min_size=1, max_size=25))
def test_pairwise_scores_match_counting_pairs(rows):
    identities, persons = np.array(rows).T
    found = pairwise_scores(identities, persons)
    expected = brute_force_scores(identities, persons)
    assert (found.precision, found.recall, found.f1, found.purity) == pytest.approx(expected)


def test_pairwise_scores_are_exact_for_millions():
    persons = np.repeat([5, 9], 3_000_000)  # 2 * C(3e6, 2) true pairs
    found = pairwise_scores(np.zeros(6_000_000, np.int64), persons)
    assert found.recall == 1
    assert found.precision == (3_000_000 * 2_999_999) / (6_000_000 * 5_999_999 // 2)
    assert found.purity == 0.5
