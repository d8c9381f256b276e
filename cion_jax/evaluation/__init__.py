"""Evaluation: benchmark layouts, retrieval scores, re-ranking and probes."""

from cion_jax.evaluation.benchmark import Benchmark, LabelledImages
from cion_jax.evaluation.market1501 import read_market1501
from cion_jax.evaluation.msmt17 import read_msmt17
from cion_jax.evaluation.probes import ProbeScores, probe
from cion_jax.evaluation.reranking import KReciprocal, reranked_distances
from cion_jax.evaluation.retrieval import RetrievalScores, retrieval_scores

__all__ = [
    "Benchmark",
    "KReciprocal",
    "LabelledImages",
    "ProbeScores",
    "RetrievalScores",
    "probe",
    "read_market1501",
    "read_msmt17",
    "reranked_distances",
    "retrieval_scores",
]
