"""Identity correlation: the noise of Sec. 3.1 and the progressive multi-level denoising of Sec. 3.2."""

from cion_jax.correlation.growing.extend import extend_to
from cion_jax.correlation.levels import Correlation, LevelResult, correlate
from cion_jax.correlation.noise import Noise, noise
from cion_jax.correlation.results import correlate_to
from cion_jax.correlation.scoring import PairwiseScores, pairwise_scores

__all__ = [
    "Correlation",
    "LevelResult",
    "Noise",
    "PairwiseScores",
    "correlate",
    "correlate_to",
    "extend_to",
    "noise",
    "pairwise_scores",
]
