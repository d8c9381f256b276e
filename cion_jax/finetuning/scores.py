"""Scores of a run's network after its epochs, and the weight files of the last and the best epoch."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from cion_jax.conversion.card import card_path
from cion_jax.conversion.finetuned import write_finetuned
from cion_jax.evaluation import Benchmark, KReciprocal
from cion_jax.evaluation.run import evaluate
from cion_jax.finetuning.method import FineTunedNetwork, Method
from cion_jax.runtime.config import Config
from cion_jax.runtime.files import read_json
from cion_jax.runtime.progress import console

LAST, BEST = "last.pth", "best.pth"
LOGGED = ("mAP", "rank1", "rank5", "rank10", "mINP")


class Scores:
    """Evaluates and writes networks.

    Args:
        config: a config of configs/finetune.
        method: says how images are prepared.
        benchmark: None scores nothing; the last network is written all the same.
        workdir: where `last.pth` and `best.pth` go; a `best.pth` that is there is the best so far.
        meta: the run's provenance, for the cards.
    """

    def __init__(
        self, config: Config, method: Method, benchmark: Benchmark | None, workdir: Path, meta: dict[str, Any]
    ):
        self._config, self._method, self._benchmark = config.evaluate, method, benchmark
        self._workdir = workdir
        self._about = {
            **method.preprocessing._asdict(),
            "input_size": list(method.preprocessing.size),
            "model": meta["model"],
            "data": meta["data"],
            "config": json.loads(meta["config"]),
            "weights": f"fine-tuned ({config.method}) from {config.weights or config.init or 'scratch'}",
        }
        del self._about["size"]

    @property
    def best(self) -> dict[str, Any] | None:
        """Epoch and scores of `best.pth`, if it is there."""
        card = card_path(self._workdir / BEST)
        return read_json(card)["evaluation"] if card.exists() else None

    def due(self, epoch: int) -> bool:
        """True if networks are scored after `epoch` epochs, before the end of training."""
        every = self._config.every_epochs
        return self._benchmark is not None and every > 0 and epoch > 0 and epoch % every == 0

    def after_epoch(self, epoch: int, network: FineTunedNetwork) -> dict[str, float]:
        """Scores the network after `epoch` epochs and keeps it if it has the best mAP so far; returns its scores."""
        report = {"epoch": epoch} | self._evaluate(network)
        if self.best is None or report["mAP"] > self.best["mAP"]:
            self._write(network, BEST, report)
        return {name: report[name] for name in LOGGED}

    def at_the_end(self, epoch: int, network: FineTunedNetwork) -> dict[str, Any]:
        """Scores the last network, writes it, and returns the reports of the last and the best."""
        last = {"epoch": epoch} | (self._evaluate(network) if self._benchmark is not None else {})
        if self._config.every_epochs and last.get("mAP", 0) > (self.best or {"mAP": 0})["mAP"]:
            self._write(network, BEST, last)
        self._write(network, LAST, last)
        return {"last": last} | ({"best": self.best} if self.best else {})

    def _evaluate(self, network: FineTunedNetwork) -> dict[str, Any]:
        """Scores in float32, as `cion_jax.evaluate` gives them for the written weights."""
        assert self._benchmark is not None
        network.set_attributes(dtype=jnp.float32, raise_if_not_found=False)
        rerank = KReciprocal() if self._config.rerank else None
        report = evaluate(
            network,
            self._benchmark,
            **self._method.preprocessing._asdict(),
            batch_size=self._config.batch_size,
            rerank=rerank,
        )
        console.print(f"mAP {report['mAP']:.1%}, Rank-1 {report['rank1']:.1%}", highlight=False)
        return report

    def _write(self, network: FineTunedNetwork, name: str, evaluation: dict[str, Any]) -> None:
        write_finetuned(network, self._workdir / name, about=self._about | {"evaluation": evaluation})
