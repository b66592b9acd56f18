"""Data sets: fetched, verified and loaded. One file per data set."""

from pathlib import Path
from types import ModuleType

from sepablate.data import fashion_mnist, garment_scenes, imagenet, labelled_images

FOLDER = Path("data")
DATASETS: dict[str, ModuleType] = {
    "fashion_mnist": fashion_mnist,
    "garment_scenes": garment_scenes,
    "imagenet": imagenet,
    "labelled_images": labelled_images,
}


def dataset(name: str) -> ModuleType:
    """The module of that data set; ValueError if unknown.

    It has fetch(folder), load(folder) -> splits by name, digest(folder), CHANNELS, CLASSES and
    IMAGE_SIZE (None where the scale says it), and SOURCES: the files that decide what it loads.
    """
    if name not in DATASETS:
        raise ValueError(f"data set {name!r}: choose {', '.join(DATASETS)}")
    return DATASETS[name]
