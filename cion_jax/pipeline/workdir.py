"""The folder of a run: the path of every file that the stages read and write."""

import dataclasses
from pathlib import Path

from cion_jax.correlation.results import IDENTITIES, REPORT
from cion_jax.reporting.calibration import CALIBRATION
from cion_jax.runtime.config import Config


def config_file(root: Path) -> Path:
    """The settings that the results in `root` were made with."""
    return root / "config.json"


@dataclasses.dataclass(frozen=True)
class Workdir:
    """Paths of a run's files. Inputs are the config's, or the rendered street's if the config renders one."""

    root: Path
    config: Config

    @property
    def street(self) -> Path:
        return self.root / "street"

    @property
    def ingested(self) -> Path:
        return self.root / "ingest"

    @property
    def ingest_report(self) -> Path:
        return self.ingested / "report.json"

    @property
    def samples(self) -> Path:
        if "ingest" in self.config.stages:
            return self.ingested / "samples.parquet"
        return self._input(self.config.data.samples, "crawl/crawl.parquet")

    @property
    def images(self) -> Path:
        if "ingest" in self.config.stages:
            return self.ingested / "crops"
        return self._input(self.config.data.images, "crawl")

    @property
    def benchmark(self) -> Path:
        return self._input(self.config.evaluate.root, "benchmark")

    @property
    def extractor(self) -> Path:
        trained = "extractor" in self.config.stages
        return self.root / "extractor.pth" if trained else Path(self.config.extractor.weights)

    @property
    def labelled(self) -> Path:
        """The sample table that the extractor is trained on."""
        return self._input(self.config.extractor.labelled, "labelled/labelled.parquet")

    @property
    def labelled_images(self) -> Path:
        return self.images if self.config.extractor.labelled else self.street / "labelled"

    @property
    def features(self) -> Path:
        """Features as the extractor gives them."""
        return self.root / "features.npy"

    @property
    def adapted(self) -> Path:
        return self.root / "adapted.npy"

    @property
    def correlated(self) -> Path:
        """The features that are calibrated and correlated."""
        return self.adapted if "adapt" in self.config.stages else self.features

    @property
    def calibration(self) -> Path:
        return self.root / "calibration" / CALIBRATION

    @property
    def rounds(self) -> Path:
        """One folder per bootstrapped round, named by its number."""
        return self.root / "rounds"

    @property
    def rounds_report(self) -> Path:
        return self.root / "rounds.json"

    @property
    def correlation(self) -> Path:
        return self.root / "correlation"

    @property
    def correlation_report(self) -> Path:
        return self.correlation / REPORT

    @property
    def identities(self) -> Path:
        """The sample table with the identities that correlation found."""
        return self.correlation / IDENTITIES

    @property
    def training_samples(self) -> Path:
        return self.identities if {"correlate", "rounds"} & {*self.config.stages} else self.samples

    @property
    def runs(self) -> Path:
        """One folder per pre-training run, named by its grouping."""
        return self.root / "pretrain"

    def teacher(self, grouping: str) -> Path:
        """The pre-trained weights of a run; their card is the last file that a run writes."""
        return self.runs / grouping / "teacher.pth"

    def metrics(self, grouping: str) -> Path:
        return self.runs / grouping / "metrics.jsonl"

    @property
    def seconds(self) -> Path:
        """Time spent in each stage so far, interrupted attempts included."""
        return self.root / "seconds.json"

    @property
    def scores(self) -> Path:
        return self.root / "evaluation.json"

    def evidence(self, network: str) -> Path:
        """Ranked lists and features of one network's retrieval, for the report."""
        return self.root / "evaluation" / f"{network}.npz"

    @property
    def checkpoint(self) -> Path:
        return self.root / f"{self.config.model}.pth"

    @property
    def report(self) -> Path:
        return self.root / "report.json"

    @property
    def page(self) -> Path:
        return self.root / "report.html"

    def _input(self, given: str | None, in_street: str) -> Path:
        return Path(given) if given else self.street / in_street
