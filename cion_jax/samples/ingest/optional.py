"""Optional packages, needed only for video ingestion."""

import importlib
from types import ModuleType
from typing import Any


def needed(module: str) -> ModuleType:
    """Imports `module`; if that fails, raises a `ValueError` that says what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"videos need the Python package {module!r}, which cannot be imported ({error}); "
            "pip install -r requirements-ingest.txt"
        ) from error


def opencv(*parts: str) -> Any:
    """Imports OpenCV, set to one thread because parallelism is across videos.

    Raises:
        ValueError: OpenCV is not installed or lacks one of `parts`.
    """
    cv2: Any = needed("cv2")
    for part in parts:
        if not hasattr(cv2, part):
            raise ValueError(f"OpenCV {cv2.__version__} has no {part}; pip install -r requirements-ingest.txt")
    cv2.setNumThreads(1)
    return cv2
