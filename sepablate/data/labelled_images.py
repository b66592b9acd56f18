"""Images with any number of labels each, listed by the user: data/labelled_images/{train,...}.csv.

train.csv, validation.csv and test.csv each have the columns image and labels:

    image,labels
    train/000060e3121c7305.jpg,/m/01g317;/m/09j2d

The image's path is relative to data/labelled_images; its labels are separated by ";" and may be
none. The classes are the sorted labels of train.csv, or the lines of classes.txt if there is one.
A scale with fewer images than a file lists gets the first ones.

From Open Images: take the rows of its image-level labels (ImageID, Source, LabelName, Confidence)
whose Confidence is 1, and list for each ImageID its file and its LabelNames. A label that is not
listed counts as absent. The labels take a byte for each image and class of the set.
"""

import csv
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from sepablate.data import image_files
from sepablate.data.image_files import ImageFiles
from sepablate.data.references import Reference
from sepablate.errors import UserError
from sepablate.store.files import is_regular

CLASSES = None
CHANNELS = 3
IMAGE_SIZE = None
SOURCES = ("data/labelled_images.py", "data/image_files.py")
REFERENCES: tuple[Reference, ...] = ()
SPLITS = ("train", "validation", "test")
HEADER = ["image", "labels"]
SEPARATOR = ";"

Row = tuple[str, str, list[str]]  # file and line, image, labels


def fetch(folder: Path) -> None:
    """Check the three lists, and the header of every image; UserError names the bad ones."""
    splits = load(folder)
    image_files.check_headers(splits)
    print(f"labelled images: {image_files.summary(splits)}; headers checked")


def load(folder: Path, test: bool = True) -> dict[str, ImageFiles]:
    """Return the splits train, validation and test, with labels (N, classes) uint8 of 0 and 1.

    Without `test` there is no such split, but its list is checked as well.

    Raises UserError with file and line for a missing or malformed list, an image that is missing,
    is listed twice or lies outside of the folder, or an unknown label.
    """
    root = folder / "labelled_images"
    seen: dict[str, str] = {}
    rows = {name: list(_rows(root / f"{name}.csv", seen)) for name in SPLITS}
    classes = _classes(root, rows["train"])
    names = [name for name in SPLITS if test or name != "test"]
    return {name: _split(root, rows[name], classes) for name in names}


def digest(folder: Path) -> str:
    """Hash the lists, and the names and sizes of all images: 16 hexadecimal digits."""
    root = folder / "labelled_images"
    lists = (root / f"{name}.csv" for name in SPLITS)
    return image_files.digest(load(folder), *(path.read_bytes() for path in lists))


def _rows(path: Path, seen: dict[str, str]) -> Iterator[Row]:
    """Yield the rows of one list; `seen` maps the images of all lists so far to file and line."""
    if not is_regular(path):
        raise UserError(f"{path}: missing; it lists images and their labels")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)  # an unclosed quote is an error
            if (header := next(reader, [])) != HEADER:
                raise UserError(f"{path}:1: {header!r}: the columns must be {HEADER}")
            for row in filter(None, reader):
                yield _check_row(row, f"{path}:{reader.line_num}", path.parent, seen)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: no CSV file in UTF-8: {error}") from None


def _check_row(row: list[str], line: str, root: Path, seen: dict[str, str]) -> Row:
    if len(row) != len(HEADER):
        raise UserError(f"{line}: {len(row)} fields: must be {len(HEADER)}, {HEADER}")
    if any("\n" in field or "\r" in field for field in row):
        raise UserError(f"{line}: a field goes over several lines; is a quote not closed?")
    image, labels = row[0], [label.strip() for label in row[1].split(SEPARATOR) if label.strip()]
    path = PurePosixPath(image)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{line}: {image!r}: choose a path relative to {root}, without ..")
    if str(path) in seen:
        raise UserError(f"{line}: {image!r}: duplicate of {seen[str(path)]}")
    if not (root / path).is_file():
        raise UserError(f"{line}: {image!r}: there is no such file in {root}")
    if len(set(labels)) < len(labels):
        raise UserError(f"{line}: {row[1]!r}: duplicate label")
    seen[str(path)] = line
    return line, str(path), labels


def _classes(root: Path, train: list[Row]) -> tuple[str, ...]:
    chosen = root / "classes.txt"
    if not is_regular(chosen):
        return tuple(sorted({label for _, _, labels in train for label in labels}))
    lines = tuple(image_files.read_lines(chosen))
    for number, line in enumerate(lines, start=1):
        if SEPARATOR in line:
            raise UserError(f"{chosen}:{number}: {line!r}: choose a label without {SEPARATOR!r}")
    return lines


def _split(root: Path, rows: list[Row], classes: tuple[str, ...]) -> ImageFiles:
    index = {label: number for number, label in enumerate(classes)}
    hot = np.zeros((len(rows), len(classes)), np.uint8)
    for number, (line, _, labels) in enumerate(rows):
        for label in labels:
            if label not in index:
                known = "classes.txt" if (root / "classes.txt").exists() else "train.csv"
                raise UserError(f"{line}: label {label!r}: unknown: {known} does not have it")
            hot[number, index[label]] = 1
    files = [image for _, image, _ in rows]
    return image_files.from_files(root, files, torch.from_numpy(hot), classes)
