"""The data sets, by name, and what each must have."""

# The members of `DataSet` are constants of modules:
# ruff: noqa: N802

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from sepablate.data import (
    cifar10,
    coco,
    fashion_mnist,
    garment_boxes,
    garment_scenes,
    imagenet,
    labelled_images,
)
from sepablate.data.references import Reference
from sepablate.data.registered_images import RegisteredImages
from sepablate.data.split import Split
from sepablate.errors import UserError, choices
from sepablate.store import datasets


class DataSet(Protocol):
    """A module of this package that reads one data set, or a registered one."""

    @property
    def CHANNELS(self) -> int:
        """1 for grey images, 3 for colour."""

    @property
    def CLASSES(self) -> int | None:
        """The number of classes; None where the user's files decide it and the scale states it."""

    @property
    def IMAGE_SIZE(self) -> int | None:
        """Height and width in pixels; None where the scale chooses them."""

    @property
    def SOURCES(self) -> tuple[str, ...]:
        """The files below the package's folder that decide what `load` returns."""

    @property
    def REFERENCES(self) -> tuple[Reference, ...]:
        """Published accuracies on the data set."""

    def fetch(self, folder: Path, /) -> None:
        """Make the data exist below `folder` and verify it; UserError says what to do if not."""

    def load(self, folder: Path, /, test: bool = True) -> Mapping[str, Split]:
        """Return the splits "train", "validation" and, if asked for, "test".

        Without `test`, no test image is read. Raises UserError if the data are not fetched.
        """

    def digest(self, folder: Path, /) -> str:
        """Return a hash of what `load` returns: 16 hexadecimal digits."""


class DetectionDataSet(DataSet, Protocol):
    """A data set whose labels are boxes.

    They are (N, most boxes, 6) float32: the class, or -1 for none; the left, upper, right and lower
    edge in pixels; and 1 for a crowd, which is not learned and not counted, else 0.
    """

    @property
    def AREAS(self) -> tuple[float, float]:
        """The largest area of a small box and the smallest of a large one, in pixels."""


DETECTION: dict[str, DetectionDataSet] = {"coco": coco, "garment_boxes": garment_boxes}
DATASETS: dict[str, DataSet] = {
    "cifar10": cifar10,
    "coco": coco,
    "fashion_mnist": fashion_mnist,
    "garment_boxes": garment_boxes,
    "garment_scenes": garment_scenes,
    "imagenet": imagenet,
    "labelled_images": labelled_images,
}


def dataset(name: str) -> DataSet:
    """Return the module of a data set, or a registered one; UserError if the name is unknown."""
    if name in DATASETS:
        return DATASETS[name]
    names = datasets.registered_names()
    if name not in names:
        raise UserError(f"data set {name!r}: {choices(name, [*DATASETS, *names])}")
    return RegisteredImages(name, datasets.read(name))


def detection_dataset(name: str) -> DetectionDataSet:
    """Return the module of a data set for detection; UserError for another name."""
    if name not in DETECTION:
        raise UserError(f"data set {name!r}: {choices(name, DETECTION)}")
    return DETECTION[name]
