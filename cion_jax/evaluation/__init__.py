"""Evaluation: retrieval scores, benchmark layouts, and the pictures of a report."""

from cion_jax.evaluation.benchmark import Benchmark, LabelledImages
from cion_jax.evaluation.figures import contact_sheet, curve, histograms
from cion_jax.evaluation.market1501 import read_market1501, read_market1501_training
from cion_jax.evaluation.msmt17 import read_msmt17, read_msmt17_training
from cion_jax.evaluation.reranking import KReciprocal, reranked_distances
from cion_jax.evaluation.retrieval import RetrievalScores, retrieval_scores

__all__ = [
    "Benchmark",
    "KReciprocal",
    "LabelledImages",
    "RetrievalScores",
    "contact_sheet",
    "curve",
    "histograms",
    "read_market1501",
    "read_market1501_training",
    "read_msmt17",
    "read_msmt17_training",
    "reranked_distances",
    "retrieval_scores",
]
