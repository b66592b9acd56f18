"""Data sets: fetched, verified and loaded. One file per data set; one for all registered ones."""

# The members of `DataSet` are constants of modules:
# ruff: noqa: N802

import contextlib
import functools
import gzip
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn, Protocol

from sepablate.data import (
    cifar10,
    coco,
    fashion_mnist,
    garment_boxes,
    garment_scenes,
    image_files,
    imagenet,
    labelled_images,
)
from sepablate.data.image_files import ImageFiles
from sepablate.data.references import Reference
from sepablate.data.registered_images import RegisteredImages
from sepablate.data.split import Split
from sepablate.errors import UserError, choices
from sepablate.store import datasets, layout

# Pillow warns in many ways of damage beyond the pixels: in EXIF data, of further images in a file.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

GARMENTS = dict.fromkeys(("fashion_mnist", "garment_boxes", "garment_scenes"), "fashion-mnist")
DOWNLOADED = {"cifar10": "cifar-10", **GARMENTS}  # by name, the folder
LARGEST_DOWNLOAD = 1 << 29  # bytes of a file, unpacked; all of CIFAR-10 are 184 million
LARGEST_IMAGE = 1 << 30  # bytes; the most pixels that Pillow accepts need as many, uncompressed


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


def fetch(name: str) -> None:
    """Make a data set exist and verify it; UserError says what to do if not.

    Files that are far larger than any of their kind are refused before one is read whole.
    """
    source = dataset(name)
    if name in DOWNLOADED:
        for path in sorted((layout.DATA / DOWNLOADED[name]).rglob("*")):
            if path.is_file() and _unpacked(path) > LARGEST_DOWNLOAD:
                _refuse(str(path), LARGEST_DOWNLOAD)
    else:
        splits: Mapping[str, Split]
        splits = (
            source.files() if isinstance(source, RegisteredImages) else source.load(layout.DATA)
        )
        for split in splits.values():
            if isinstance(split, ImageFiles) and split.sizes.max(initial=0) > LARGEST_IMAGE:
                _refuse(split.name(int(split.sizes.argmax())), LARGEST_IMAGE)
    source.fetch(layout.DATA)


def _unpacked(path: Path) -> int:
    """Return the size of a file's content, as far as it is needed to refuse it."""
    size = path.stat().st_size
    if path.suffix == ".gz" and size <= LARGEST_DOWNLOAD:
        size = 0
        with contextlib.suppress(OSError, EOFError, zlib.error), gzip.open(path) as file:
            while size <= LARGEST_DOWNLOAD and (chunk := file.read(1 << 20)):
                size += len(chunk)
    return size


def _refuse(name: str, most: int) -> NoReturn:
    raise UserError(f"{name}: holds more than {most} bytes, as no file of its kind; remove it")


def detection_dataset(name: str) -> DetectionDataSet:
    """Return the module of a data set for detection; UserError for another name."""
    if name not in DETECTION:
        raise UserError(f"data set {name!r}: {choices(name, DETECTION)}")
    return DETECTION[name]


def digest(name: str) -> str:
    """Return a hash of the data set's content. Folders of images are listed once a process."""
    return _digest(name, layout.DATA.absolute())


@functools.cache
def _digest(name: str, folder: Path) -> str:
    return dataset(name).digest(folder)


def check_files(name: str, classes: int, counts: Mapping[str, tuple[str, int]]) -> None:
    """Raise UserError unless a data set has so many images, and of the user's files, classes.

    Images of a registered data set that are held in memory are read and verified, once a process.

    Args:
        name: of the data set.
        classes: of the network.
        counts: for each split that is used, the place of the number of images, for the error, and
            the number.
    """
    source = dataset(name)
    if isinstance(source, RegisteredImages):
        if classes != source.CLASSES:
            raise UserError(
                f"data set {name}: {source.CLASSES} classes, but {classes} in the network: leave "
                "out `classes` in the scale"
            )
        _check_registered(name, source.registered.digest, Path.cwd())
    elif source.CLASSES is None:
        splits = source.load(layout.DATA, test="test" in counts).items()
        files = {split: images for split, images in splits if isinstance(images, ImageFiles)}
        image_files.check_classes(files, classes)
        image_files.check_counts(files, counts)
    elif known := datasets.limits(name):  # the scale may have more images of another task's
        most = dict(zip(datasets.SPLITS, known[1:], strict=True))
        for split, (place, count) in counts.items():
            if count > most[split]:
                raise UserError(f"{place}: {count}: choose at most {most[split]} for {name}")


@functools.cache
def _check_registered(name: str, digest: str, project: Path) -> None:
    """Check a registered data set with that digest in that project, once a process."""
    RegisteredImages(name, datasets.read(name)).check()
