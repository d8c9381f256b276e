"""Ingestion settings, and the detector, tracks and face blur that they configure."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cion_jax.samples.ingest.byte_track import ByteTrack
from cion_jax.samples.ingest.decoding import frame_rate
from cion_jax.samples.ingest.detectors import MotionDetector, PeopleDetector
from cion_jax.samples.ingest.faces import FaceBlur
from cion_jax.samples.ingest.onnx_detector import OnnxDetector
from cion_jax.samples.ingest.optional import needed
from cion_jax.samples.ingest.tracks import DetectedTracks, Detector, KnownTracks, Tracks
from cion_jax.samples.ingest.video import Change, CropSettings

_DETECTORS = {"people": PeopleDetector, "motion": MotionDetector}


@dataclasses.dataclass(frozen=True)
class IngestSettings:
    """Settings for detecting and cropping people; the same for all videos of a folder.

    Attributes:
        detector: "people", "motion", or the path of an ONNX file.
        person_class: Index of the person class in an ONNX detector.
        detect_every: Interval between detections, in frames. Tracking needs a person's successive boxes to overlap.
        tracks: Folder of MOTChallenge files, `<video>.txt`, used instead of detection and tracking.
        classes, first_frame: Classes of people in these files, None where they have no classes, and the number of the
            first frame in them, as for `read_mot`.
        crops: Selection of the boxes that become crops.
        blur_faces: True to blur faces in all crops.

    Raises:
        ValueError: Crops would be taken from frames without detection, or settings of track files without any.
    """

    detector: str = "people"
    person_class: int = 0
    detect_every: int = 1
    tracks: Path | None = None
    classes: Sequence[int] | None = None
    first_frame: int = 1
    crops: CropSettings = dataclasses.field(default_factory=CropSettings)
    blur_faces: bool = False

    def __post_init__(self) -> None:
        if self.detect_every < 1 or (self.tracks is None and self.crops.every % self.detect_every):
            raise ValueError(
                f"a crop every {self.crops.every} frames, of people looked for every {self.detect_every}; "
                "expected a multiple"
            )
        if self.tracks is None and (self.classes is not None or self.first_frame != 1):
            raise ValueError(
                "classes and first_frame describe the files of tracks; give their folder, or leave them out"
            )

    def check(self) -> None:
        """Raises `ValueError` for problems that would affect every video: missing files or packages."""
        needed("av")
        self.change()
        if self.tracks is None:
            self.make_detector()
            ByteTrack(rate=1)
        elif not self.tracks.is_dir():
            raise ValueError(f"{self.tracks}: no such folder of tracks")

    def described(self) -> dict[str, Any]:
        """Returns the settings that determine the result, JSON-serialisable and without file locations."""
        crops = {"crops": dataclasses.asdict(self.crops), "faces": "blurred" if self.blur_faces else "as they are"}
        if self.tracks is not None:
            classes = {} if self.classes is None else {"classes": list(self.classes)}
            first = {} if self.first_frame == 1 else {"first_frame": self.first_frame}
            return {"tracks": "from files", **classes, **first, **crops}
        detector = self.detector if self.detector in _DETECTORS else f"ONNX {_sha256(self.detector)[:16]}"
        return {
            "tracks": "ByteTrack",
            "detector": detector,
            "person_class": self.person_class,
            "detect_every": self.detect_every,
            **crops,
        }

    def sources(self, name: str, path: Path) -> dict[str, Any]:
        """Returns a fingerprint of a video's input files, to detect when one of them is replaced."""
        fingerprint: dict[str, Any] = {"bytes": path.stat().st_size}
        if self.tracks is not None and (file := self._file(name)).is_file():
            fingerprint["tracks_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        return fingerprint

    def open_tracks(self, name: str, path: Path) -> Tracks:
        """Returns the tracklets of one video.

        Raises:
            BrokenVideo: The video cannot be opened.
            ValueError: Its track file is missing or invalid.
        """
        if self.tracks is not None:
            return KnownTracks(self._file(name), classes=self.classes, first_frame=self.first_frame)
        tracker = ByteTrack(frame_rate(path) / self.detect_every)
        return DetectedTracks(self.make_detector(), tracker, self.detect_every)

    def make_detector(self) -> Detector:
        """Returns a new detector for each video, because some detectors keep state from earlier frames.

        Raises:
            ValueError: An unknown name, a file that is not an ONNX model, or a missing package.
        """
        if self.detector in _DETECTORS:
            return _DETECTORS[self.detector]()
        if not self.detector.lower().endswith(".onnx"):
            raise ValueError(
                f"detector {self.detector!r}: expected {', '.join(_DETECTORS)} or the path of an .onnx file"
            )
        return OnnxDetector(Path(self.detector), self.person_class)

    def change(self) -> Change | None:
        """Returns the function applied to every crop, or None."""
        return FaceBlur() if self.blur_faces else None

    def _file(self, name: str) -> Path:
        assert self.tracks is not None
        return self.tracks / f"{name}.txt"


@functools.cache
def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
