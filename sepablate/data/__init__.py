"""Data sets: fetched, verified and loaded. One file per data set."""

from pathlib import Path
from types import ModuleType

from sepablate.data import fashion_mnist

FOLDER = Path("data")
DATASETS: dict[str, ModuleType] = {"fashion_mnist": fashion_mnist}


def dataset(name: str) -> ModuleType:
    """The module of that data set: fetch(folder), load(folder, ...); ValueError if unknown."""
    if name not in DATASETS:
        raise ValueError(f"data set {name!r}: choose {', '.join(DATASETS)}")
    return DATASETS[name]
