"""The tables and figures of the paper as rows of configs/ablation.py."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from cion_jax.pipeline.experiments.paper import TABLE4


class Experiment(NamedTuple):
    """Rows that are compared, by the names that table and plot give them.

    With `timed` the time that training takes is compared, and nothing is scored; without it, retrieval scores.
    `ordered` rows are points of a curve. `paper` has the paper's mAP and Rank-1 (%) of some rows, on Market-1501 after
    fine-tuning with MGN.
    """

    title: str
    compared: str
    rows: dict[str, str]
    ordered: bool = True
    timed: bool = False
    paper: Mapping[str, tuple[float, float]] = MappingProxyType({})


_RATIOS = {f"data{percent}": f"{percent} %" for percent in range(10, 101, 10)}

EXPERIMENTS = {
    "table4": Experiment(
        "Table 4: what is taken for one identity",
        "one identity is",
        {
            "moco": "an image (MoCo v2, LUP)",
            "instance": "an image (DINO)",
            "tracklet": "a tracklet",
            "identity": "an identity (CION)",
        },
        ordered=False,
        paper=TABLE4,
    ),
    "fig5": Experiment(
        "Fig. 5: levels of denoising",
        "denoising",
        {"level0": "none", "level1": "single tracklet", "level2": "+ single video", "level3": "+ cross video"},
    ),
    "fig6": Experiment("Fig. 6: share of the identities that is trained on", "identities used", _RATIOS),
    "fig7": Experiment("Fig. 7: training time against data size", "identities used", _RATIOS, timed=True),
}
