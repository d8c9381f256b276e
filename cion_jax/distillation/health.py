"""Signs of collapse and divergence in a run's metrics, each with a remedy."""

import math
from collections.abc import Mapping

# Fractions of ln(prototypes): the entropy of a uniform distribution, and the loss of a student at chance.
_UNIFORM = 0.99
_ONE_PROTOTYPE = 0.05
# Also fractions of ln(prototypes): distance of the loss from it, and loss above it.
_CHANCE, _WORSE = 0.005, 1.1
# Fraction of the teacher's entropy: below it, student and teacher agree on every image, so nothing is left to learn.
_AGREED = 0.01
# Fraction of 1 / sqrt(dim), the feature_std of embeddings that are spread evenly over all directions.
_SPREAD = 0.02


def concerns(metrics: Mapping[str, float], *, prototypes: int, embed_dim: int) -> dict[str, str]:
    """Signs of collapse or divergence in one line of metrics.

    Args:
        metrics: `loss`, `teacher_entropy`, `mean_entropy` (both in nats), `kl` (of student from teacher, in nats) and
            `feature_std`, as defined in `cion_jax.distillation.step._metrics`. They are meaningful only after the
            learning rate's warm-up; before that everything is near uniform.
        prototypes: outputs of the head.
        embed_dim: dimension of the embeddings.

    Returns:
        Description and remedy of each sign by its name; empty if the run is healthy.
    """
    chance = math.log(prototypes)
    signs = {}
    if metrics["mean_entropy"] < _ONE_PROTOTYPE * chance:
        signs["collapse to one prototype"] = (
            f"the teacher gives nearly all images the same prototype (entropy of its mean "
            f"{metrics['mean_entropy']:.3f} of {chance:.2f} nats). Raise "
            f"loss.teacher_temperature or lower loss.center_momentum"
        )
    elif metrics["teacher_entropy"] > _UNIFORM * chance:
        signs["collapse to uniform"] = (
            f"the teacher prefers no prototype (entropy {metrics['teacher_entropy']:.3f} of {chance:.2f} nats). Lower "
            f"loss.teacher_temperature or raise loss.center_momentum"
        )
    elif metrics["kl"] < _AGREED * metrics["teacher_entropy"]:
        signs["nothing left to learn"] = (
            f"the student gives what the teacher gives whatever the view (KL {metrics['kl']:.4f} nats). Make views "
            f"harder (views.local_scale, views.global_scale) or lower loss.teacher_temperature"
        )
    if abs(metrics["loss"] - chance) < _CHANCE * chance:
        signs["loss at chance"] = (
            f"the loss {metrics['loss']:.3f} is ln({prototypes}), what a student that knows nothing has. Raise "
            f"optimizer.learning_rate, or lower it and lengthen optimizer.warmup_epochs if the loss was lower before"
        )
    elif metrics["loss"] > _WORSE * chance:
        signs["divergence"] = (
            f"the loss {metrics['loss']:.3f} is above ln({prototypes}) = {chance:.2f}, worse than a student that knows "
            f"nothing. Lower optimizer.learning_rate, lengthen optimizer.warmup_epochs, or go back to an older "
            f"checkpoint"
        )
    if metrics["feature_std"] < _SPREAD / math.sqrt(embed_dim):
        signs["features collapsed"] = (
            f"embeddings of different images are nearly the same (feature_std {metrics['feature_std']:.2e}, spread "
            f"evenly {1 / math.sqrt(embed_dim):.2e}). Lower optimizer.learning_rate, or go back to an older checkpoint"
        )
    return signs
