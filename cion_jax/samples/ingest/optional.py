"""Packages that only videos need."""

import importlib
from types import ModuleType


def needed(module: str) -> ModuleType:
    """Imports `module`; where that fails, a `ValueError` says what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"videos need the Python package {module!r}, which cannot be imported ({error}); "
            "pip install -r requirements-ingest.txt"
        ) from error
