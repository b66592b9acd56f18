"""Data sets: fetched, verified and loaded. One file per data set."""

import functools
from pathlib import Path
from types import ModuleType

from sepablate.data import fashion_mnist, garment_scenes, image_files, imagenet, labelled_images
from sepablate.errors import UserError

FOLDER = Path("data")
DATASETS: dict[str, ModuleType] = {
    "fashion_mnist": fashion_mnist,
    "garment_scenes": garment_scenes,
    "imagenet": imagenet,
    "labelled_images": labelled_images,
}


def dataset(name: str) -> ModuleType:
    """The module of that data set; UserError if unknown.

    It has fetch(folder), load(folder) -> splits by name, digest(folder), CHANNELS, CLASSES and
    IMAGE_SIZE (None where the scale says it), and SOURCES: the files that decide what it loads.
    """
    if name not in DATASETS:
        raise UserError(f"data set {name!r}: choose {', '.join(DATASETS)}")
    return DATASETS[name]


def digest(name: str) -> str:
    """A hash of what the data set holds; files of images are listed once."""
    return _digest(name, FOLDER.absolute())


@functools.cache
def _digest(name: str, folder: Path) -> str:
    return dataset(name).digest(folder)


def check_classes(name: str, classes: int) -> None:
    """UserError unless the data set has so many classes; for those whose files decide it."""
    if dataset(name).CLASSES is None:
        image_files.check_classes(dataset(name).load(FOLDER), classes)
