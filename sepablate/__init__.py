"""Re-run the ablations of the Xception paper; `sepablate.load` returns a run's trained network."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sepablate.pretrained.run_weights import load

__all__ = ["load"]
__version__ = "0.2.0"


def __getattr__(name: str) -> object:
    """Import torch only for those who load a network."""
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sepablate.pretrained.run_weights import load

    return load
