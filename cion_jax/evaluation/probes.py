"""Probes of frozen features: accuracy of a kNN and a linear classifier of identities across cameras.

Both are fitted on labelled training images with one camera of each person held out, and tested on the held-out images.
A network fine-tuned on the same images has seen their labels, so probes are meaningful for pre-training only.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from cion_jax.evaluation.distances import blocks, cosine_distances, unit_rows


class ProbeScores(NamedTuple):
    """Accuracies of the two probes.

    Attributes:
        knn: accuracy of the kNN classifier, in [0, 1].
        linear: accuracy of the linear classifier, in [0, 1].
        fitted: number of images fitted on.
        tested: number of held-out images.
        people: number of identities.
    """

    knn: float
    linear: float
    fitted: int
    tested: int
    people: int


def probe(features: np.ndarray, ids: np.ndarray, cameras: np.ndarray, *, seed: int = 0) -> ProbeScores:
    """Evaluates features `[images, dim]` of labelled images with the kNN and the linear probe, on one random split."""
    fitted, tested = hold_out_cameras(ids, cameras, seed=seed)
    known, labels = np.unique(ids[fitted], return_inverse=True)
    correct = [
        np.mean(known[predict(features[fitted], labels, features[tested])] == ids[tested])
        for predict in (knn_predict, linear_predict)
    ]
    return ProbeScores(float(correct[0]), float(correct[1]), len(fitted), len(tested), len(known))


def hold_out_cameras(ids: np.ndarray, cameras: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Splits rows into fitted and tested: one random camera of each person seen by several cameras is held out.

    People seen by a single camera are fitted as well, since others can be mistaken for them.

    Raises:
        ValueError: No person was seen by two cameras.
    """
    random = np.random.default_rng(seed)
    held_out = np.zeros(len(ids), bool)
    for identity in np.unique(ids):
        rows = np.flatnonzero(ids == identity)
        seen_by = np.unique(cameras[rows])
        if len(seen_by) > 1:
            held_out[rows] = cameras[rows] == random.choice(seen_by)
    if not held_out.any():
        raise ValueError("no person was seen by two cameras: there is nothing to hold out; probes need such images")
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def knn_predict(
    fitted: np.ndarray, labels: np.ndarray, tested: np.ndarray, *, k: int = 20, temperature: float = 0.07
) -> np.ndarray:
    """Predicts labels of `tested` `[m, dim]` by weighted kNN on `fitted` `[n, dim]` with `labels` `[n]`, from 0 up.

    A neighbour at cosine similarity s votes with weight exp(s / temperature) (Wu et al., CVPR 2018; Caron et al.,
    ICCV 2021); ties go to the lowest label.
    """
    fitted_unit, tested_unit = unit_rows(fitted), unit_rows(tested)
    predicted = np.empty(len(tested), np.int64)
    for rows in blocks(len(tested), len(fitted)):
        similarity = 1 - cosine_distances(tested_unit[rows], fitted_unit)
        nearest, indices = (np.asarray(part) for part in jax.lax.top_k(similarity, min(k, len(fitted))))
        votes = np.zeros((len(rows), labels.max() + 1))
        np.add.at(
            votes, (np.arange(len(rows))[:, None], labels[indices]), np.exp(nearest.astype(np.float64) / temperature)
        )
        predicted[rows] = votes.argmax(axis=1)
    return predicted


def linear_predict(
    fitted: np.ndarray, labels: np.ndarray, tested: np.ndarray, *, strength: float = 1.0, steps: int = 300
) -> np.ndarray:
    """Predicts labels of `tested` `[m, dim]` by logistic regression on `fitted` `[n, dim]` with `labels` `[n]`.

    Minimises strength * sum of cross-entropies + |W|^2 / 2 over weights W and unpenalised biases by at most `steps`
    steps of L-BFGS. Features are standardised by mean and standard deviation over `fitted`.
    """
    mean, spread = (np.float32(of(fitted, axis=0, dtype=np.float64)) for of in (np.mean, np.std))
    train, test = (jnp.asarray((side - mean) / np.where(spread > 0, spread, 1)) for side in (fitted, tested))
    weights = np.zeros((fitted.shape[1] + 1, int(labels.max()) + 1))  # the last row holds the biases

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        current = jnp.asarray(flat.reshape(weights.shape), jnp.float32)
        value, gradient = _loss_and_gradient(current, train, jnp.asarray(labels), strength)
        return float(value), np.asarray(gradient, np.float64).ravel()

    result: Any = optimize.minimize(objective, weights.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": steps})
    best = jnp.asarray(result.x.reshape(weights.shape), jnp.float32)
    return np.asarray(_logits(best, test).argmax(axis=1))


def _penalised_loss(weights: jax.Array, features: jax.Array, labels: jax.Array, strength: float) -> jax.Array:
    likelihood = jnp.take_along_axis(jax.nn.log_softmax(_logits(weights, features)), labels[:, None], axis=1)
    return -strength * jnp.sum(likelihood) + jnp.sum(jnp.square(weights[:-1])) / 2


_loss_and_gradient = jax.jit(jax.value_and_grad(_penalised_loss))


def _logits(weights: jax.Array, features: jax.Array) -> jax.Array:
    return jnp.matmul(features, weights[:-1], precision=jax.lax.Precision.HIGHEST) + weights[-1]
