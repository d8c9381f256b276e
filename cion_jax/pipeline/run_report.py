"""The report of a run: `report.json`, the page `report.html`, pictures, and a summary on the terminal."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from cion_jax.pipeline.report_page import network_names, write_page
from cion_jax.pipeline.settings import remembered
from cion_jax.pipeline.workdir import Workdir
from cion_jax.reporting.correlation_report import identities_sheet, print_summary
from cion_jax.reporting.figures import curve
from cion_jax.reporting.rounds import print_rounds
from cion_jax.runtime.config import Config
from cion_jax.runtime.files import read_json, write_json
from cion_jax.runtime.metrics import read_metrics
from cion_jax.samples import read_samples


def write_report(config: Config, workdir: Workdir) -> None:
    """Writes the results of all stages to `report.json`, `report.html` and pictures, and prints a summary."""
    report: dict[str, Any] = {"seconds": read_json(workdir.seconds) if workdir.seconds.exists() else {}}
    if "rounds" in config.stages:
        report["rounds"] = read_json(workdir.rounds_report)
    if {"correlate", "rounds"} & {*config.stages}:
        report["correlation"] = read_json(workdir.correlation_report)
        identified = read_samples(workdir.identities)
        identities_sheet(identified, workdir.images, workdir.root / "identities.png")
    if "pretrain" in config.stages:
        loss_curve(config, workdir)
    if "evaluate" in config.stages:
        report["retrieval"] = read_json(workdir.scores)
    if "export" in config.stages:
        report["checkpoint"] = str(workdir.checkpoint)
    write_json(workdir.report, report)
    write_page(reopened(workdir.root))
    print_report(report, workdir)


def reopened(root: Path) -> Workdir:
    """The workdir of an earlier run in `root`, with the config of that run."""
    return Workdir(root, remembered(root))


def print_report(report: dict[str, Any], workdir: Workdir) -> None:
    """Prints the tables of correlation and retrieval, and the files written."""
    if "rounds" in report:
        print_rounds(report["rounds"])
    if "correlation" in report:
        print_summary(report["correlation"])
    console = Console()
    if "retrieval" in report:
        table = Table("network", "mAP", "Rank-1", title="Retrieval on the benchmark")
        for name, scores in report["retrieval"].items():
            table.add_row(network_names(workdir.config)[name], f"{scores['mAP']:.1%}", f"{scores['rank1']:.1%}")
        console.print(table)
    if "checkpoint" in report:
        console.print(f"Checkpoint (PyTorch, as in ReIDZoo): {report['checkpoint']}", highlight=False)
    pictures = ", ".join(sorted(p.name for p in workdir.root.glob("*.png")))
    console.print(f"In {workdir.root}: report.html, report.json, {pictures}", highlight=False)


def loss_curve(config: Config, workdir: Workdir) -> None:
    """Draws `loss.png`: the loss of every pre-training run."""
    lines = {}
    for by in config.pretrain.group_by:
        log = read_metrics(workdir.metrics(by))
        lines[network_names(config)[by]] = tuple(np.asarray([line[name] for line in log]) for name in ("step", "loss"))
    curve(lines, workdir.root / "loss.png", x_label="step", y_label="loss", title="Self-distillation (Eq. 9)")
