"""Evaluation: retrieval scores, benchmark layouts, and the pictures of a report."""

from cion_jax.evaluation.figures import contact_sheet, curve, histograms
from cion_jax.evaluation.market1501 import Benchmark, LabelledImages, read_market1501
from cion_jax.evaluation.retrieval import RetrievalScores, retrieval_scores

__all__ = [
    "Benchmark",
    "LabelledImages",
    "RetrievalScores",
    "contact_sheet",
    "curve",
    "histograms",
    "read_market1501",
    "retrieval_scores",
]
