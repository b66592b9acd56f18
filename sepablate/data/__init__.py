"""Data sets: fetched, verified and loaded. `registry` lists them: a file for each."""

import contextlib
import functools
import gzip
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from sepablate.data import image_files
from sepablate.data.image_files import ImageFiles
from sepablate.data.registered_images import RegisteredImages
from sepablate.data.registry import (
    DATASETS,
    DETECTION,
    DataSet,
    DetectionDataSet,
    dataset,
    detection_dataset,
)
from sepablate.data.split import Split
from sepablate.errors import UserError
from sepablate.store import datasets, layout

__all__ = [
    "DATASETS",
    "DETECTION",
    "DataSet",
    "DetectionDataSet",
    "check_files",
    "check_registered",
    "dataset",
    "detection_dataset",
    "digest",
    "fetch",
    "load",
    "refuse_large",
    "refuse_large_images",
]

# Pillow warns in many ways of damage beyond the pixels: in EXIF data, of further images in a file.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

GARMENTS = dict.fromkeys(("fashion_mnist", "garment_boxes", "garment_scenes"), "fashion-mnist")
DOWNLOADED = {"cifar10": "cifar-10", **GARMENTS}  # by name, the folder
LISTS = (image_files.CLASS_NAMES, *(f"{split}.csv" for split in datasets.SPLITS))
LARGEST_DOWNLOAD = 1 << 29  # bytes of a file, unpacked; all of CIFAR-10 are 184 million
# Bytes of an image, as many as the most pixels that Pillow accepts need uncompressed, or of a list
LARGEST_FILE = 1 << 30


def fetch(name: str) -> None:
    """Make a data set exist and verify it; UserError says what to do if not.

    Files that are far larger than any of their kind are refused before one is read whole.
    """
    source = _bounded(name, unpacked=True)
    if isinstance(source, RegisteredImages):
        refuse_large_images(source.files())
    elif name not in DOWNLOADED:
        refuse_large_images(source.load(layout.DATA))
    source.fetch(layout.DATA)


def load(name: str, test: bool = True) -> Mapping[str, Split]:
    """Return the splits of a data set, as `DataSet.load` does, within the bounds of `fetch`."""
    source = _bounded(name)
    if isinstance(source, RegisteredImages) and source.IMAGE_SIZE is not None:
        refuse_large_images(source.files(test))  # which are read whole now, others later
    splits = source.load(layout.DATA, test)
    refuse_large_images(splits)
    return splits


def refuse_large(path: Path, most: int = LARGEST_FILE, unpacked: bool = False) -> None:
    """Raise UserError for a file of more bytes than any of its kind has.

    Args:
        path: the file, if it is there.
        most: the bytes of the largest.
        unpacked: whether the content of a .gz file counts.
    """
    if path.is_file() and (_unpacked(path, most) if unpacked else path.stat().st_size) > most:
        _refuse(str(path), most)


def refuse_large_images(splits: Mapping[str, Split]) -> None:
    """Raise UserError for an image that stays in its file and is far larger than any is."""
    for split in splits.values():
        if isinstance(split, ImageFiles) and split.sizes.max(initial=0) > LARGEST_FILE:
            _refuse(split.name(int(split.sizes.argmax())), LARGEST_FILE)


def _bounded(name: str, unpacked: bool = False) -> DataSet:
    """Return a data set of which no list and no downloaded file is too large; UserError names it.

    Args:
        name: of the data set.
        unpacked: whether what the user put there packed counts as well: only `fetch` reads it.
    """
    if name in DOWNLOADED:
        folder = layout.DATA / DOWNLOADED[name]
        for path in sorted(folder.rglob("*")):
            if unpacked or path.suffix != ".gz":
                refuse_large(path, LARGEST_DOWNLOAD, unpacked)
    elif name in DATASETS:
        for each in LISTS:
            refuse_large(layout.DATA / name / each)
    return dataset(name)


def _unpacked(path: Path, most: int) -> int:
    """Return the size of a file's content, as far as it is needed to refuse it."""
    size = path.stat().st_size
    if path.suffix == ".gz" and size <= most:
        size = 0
        with contextlib.suppress(OSError, EOFError, zlib.error), gzip.open(path) as file:
            while size <= most and (chunk := file.read(1 << 20)):
                size += len(chunk)
    return size


def _refuse(name: str, most: int) -> NoReturn:
    raise UserError(f"{name}: holds more than {most} bytes, as no file of its kind; remove it")


def digest(name: str) -> str:
    """Return a hash of the data set's content. Folders of images are listed once a process."""
    return _digest(name, layout.DATA.absolute())


@functools.cache
def _digest(name: str, folder: Path) -> str:
    return _bounded(name).digest(folder)


def check_files(name: str, classes: int, counts: Mapping[str, tuple[str, int]]) -> None:
    """Raise UserError unless a data set has so many images, and of the user's files, classes.

    Images of a registered data set that are held in memory are read and verified, once a process.

    Args:
        name: of the data set.
        classes: of the network.
        counts: for each split that is used, the place of the number of images, for the error, and
            the number.
    """
    source = _bounded(name)
    if isinstance(source, RegisteredImages):
        if classes != source.CLASSES:
            raise UserError(
                f"data set {name}: {source.CLASSES} classes, but {classes} in the network: leave "
                "out `classes` in the scale"
            )
        _check_once(name, source.registered.digest, Path.cwd())
    elif source.CLASSES is None:
        splits = source.load(layout.DATA, test="test" in counts)
        refuse_large_images(splits)
        files = {name: split for name, split in splits.items() if isinstance(split, ImageFiles)}
        image_files.check_classes(files, classes)
        image_files.check_counts(files, counts)
    elif known := datasets.limits(name):  # the scale may have more images of another task's
        most = dict(zip(datasets.SPLITS, known[1:], strict=True))
        for split, (place, count) in counts.items():
            if count > most[split]:
                raise UserError(f"{place}: {count}: choose at most {most[split]} for {name}")


@functools.cache
def _check_once(name: str, digest: str, project: Path) -> None:
    """Check a registered data set with that digest in that project, once a process."""
    check_registered(name)


def check_registered(name: str) -> None:
    """Raise UserError unless the images of a registered data set are there; see its `check`."""
    source = RegisteredImages(name, datasets.read(name))
    refuse_large_images(source.files())
    source.check()
