"""The folder of a run: the path of every file that the stages read and write."""

import dataclasses
from pathlib import Path

from cion_jax.runtime.config import Config


@dataclasses.dataclass(frozen=True)
class Workdir:
    """Where everything of a run lies. Inputs are the config's, or the street's where that is built."""

    root: Path
    config: Config

    @property
    def street(self) -> Path:
        return self.root / "street"

    @property
    def ingested(self) -> Path:
        return self.root / "ingest"

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
    def features(self) -> Path:
        return self.root / "features.npy"

    @property
    def correlation(self) -> Path:
        return self.root / "correlation"

    @property
    def training_samples(self) -> Path:
        correlated = "correlate" in self.config.stages
        return self.correlation / "identities.parquet" if correlated else self.samples

    @property
    def runs(self) -> Path:
        return self.root / "pretrain"

    @property
    def seconds(self) -> Path:
        """What every stage has taken so far."""
        return self.root / "seconds.json"

    @property
    def scores(self) -> Path:
        return self.root / "evaluation.json"

    def evidence(self, network: str) -> Path:
        """What the report shows of a network's retrieval."""
        return self.root / "evaluation" / f"{network}.npz"

    @property
    def checkpoint(self) -> Path:
        return self.root / f"{self.config.model}.pth"

    def _input(self, given: str | None, in_street: str) -> Path:
        return Path(given) if given else self.street / in_street
