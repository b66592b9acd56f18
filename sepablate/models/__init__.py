"""The networks: one file each, listed in `registry`."""

from sepablate.models.registry import DETECTORS, MODELS, build, defaults, source

__all__ = ["DETECTORS", "MODELS", "build", "defaults", "source"]
