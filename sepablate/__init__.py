"""Re-run the ablations of the Xception paper.

In Python: `build` makes a network, `load` returns a run's trained one, `results` all runs of a
scale as a table, `figure` the figure of a study, and `Study` declares one.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sepablate.analysis.run_table import results
    from sepablate.models import build
    from sepablate.plots.from_disk import figure
    from sepablate.pretrained.run_weights import load
    from sepablate.study import Study

__all__ = ["Study", "__version__", "build", "figure", "load", "results"]
__version__ = "0.2.0"

# What is imported when it is asked for: torch, pandas and matplotlib are of no use to the others.
_MODULES = {
    "Study": "sepablate.study",
    "build": "sepablate.models",
    "figure": "sepablate.plots.from_disk",
    "load": "sepablate.pretrained.run_weights",
    "results": "sepablate.analysis.run_table",
}


def __getattr__(name: str) -> object:
    """Import what `__all__` names."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
