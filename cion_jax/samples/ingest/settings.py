"""What decides what becomes of a video, and what is made of it for one."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from cion_jax.samples.ingest.tracks import KnownTracks, Tracks
from cion_jax.samples.ingest.video import Change, CropSettings


@dataclasses.dataclass(frozen=True)
class IngestSettings:
    """How people are found and cut out; the same for all videos of a folder.

    tracks: a folder of MOTChallenge files, `<video>.txt`; the rest of the next three is then not used.
    crops: which boxes become crops.
    """

    tracks: Path | None = None
    crops: CropSettings = dataclasses.field(default_factory=CropSettings)

    def described(self) -> dict[str, Any]:
        """What decides the result, as JSON; where files are is no part of it."""
        return {"tracks": "files", "crops": dataclasses.asdict(self.crops)}

    def sources(self, name: str, path: Path) -> dict[str, Any]:
        """What tells the files that a video is made from from later ones of the same name."""
        found: dict[str, Any] = {"bytes": path.stat().st_size}
        if self.tracks is not None and (file := self._file(name)).is_file():
            found["tracks_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        return found

    def open_tracks(self, name: str, path: Path) -> Tracks:
        """The tracklets of one video."""
        return KnownTracks(self._file(name))

    def change(self) -> Change | None:
        """What is done to every crop."""
        return None

    def _file(self, name: str) -> Path:
        assert self.tracks is not None
        return self.tracks / f"{name}.txt"
