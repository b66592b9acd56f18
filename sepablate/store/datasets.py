"""The data sets that a scale may name: those of the package, and those in the folder datasets/.

`sepablate new dataset NAME FOLDER` registers images of the user's own: datasets/NAME.json says
where they lie and what was found, datasets/NAME.csv lists them.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from sepablate.errors import UserError
from sepablate.store import layout
from sepablate.store.files import is_regular, read_json, refuse_endless, write_atomically

SINGLE_LABEL = ("cifar10", "fashion_mnist", "imagenet")
MULTI_LABEL = ("garment_scenes", "labelled_images")
NAME = re.compile(r"[a-z][a-z0-9_]*")
SPLITS = ("train", "validation", "test")
DIGITS = 16  # of a SHA-256 in hexadecimal


class Limits(NamedTuple):
    """The size of a data set's images, None where the scale chooses it, and how many it has."""

    image_size: int | None
    images: int
    validation_images: int
    test_images: int


IN_MEMORY = {
    "cifar10": Limits(32, 45_000, 5_000, 10_000),
    "fashion_mnist": Limits(28, 50_000, 10_000, 10_000),
    "garment_scenes": Limits(28, 50_000, 10_000, 10_000),
    "garment_boxes": Limits(None, 20_000, 1_000, 4_000),  # the scale's image size is of others
}


class Row(NamedTuple):
    """An image of a registered data set: its path below the folder, label, split and digest."""

    image: str
    label: str
    split: str
    digest: str


@dataclass(frozen=True)
class Registered:
    """A registered data set.

    Args:
        folder: that the images lie below; absolute, or relative to the project's root folder.
        classes: the labels, in the order of their numbers.
        channels: 1 for grey images, 3 for colour.
        image_size: the height and width of images that are held in memory; None for those that
            stay in their files.
        images: how many each split has.
        splits: in words, where the splits come from.
        list_digest: of the list of images, which has the digest of each.
    """

    folder: str
    classes: Sequence[str]
    channels: int
    image_size: int | None
    images: Mapping[str, int]
    splits: str
    list_digest: str

    @property
    def digest(self) -> str:
        """A hash of all but the folder: 16 hexadecimal digits."""
        return digest(_as_json({**asdict(self), "folder": ""}).encode())

    @property
    def limits(self) -> Limits:
        """The size of the images and how many each split has."""
        return Limits(self.image_size, *(self.images[split] for split in SPLITS))


def digest(content: bytes) -> str:
    """Return the first digits of the SHA-256."""
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def path(name: str) -> Path:
    """Return the file of a registered data set."""
    return layout.DATASETS / f"{name}.json"


def list_path(name: str) -> Path:
    """Return the file that lists the images of a registered data set."""
    return layout.DATASETS / f"{name}.csv"


def registered_names() -> list[str]:
    """Return the names of the registered data sets."""
    names = sorted(file.stem for file in layout.DATASETS.glob("*.json"))
    return [name for name in names if NAME.fullmatch(name)]


def limits(name: str) -> Limits | None:
    """Return the limits of a data set; None where only the user's files tell."""
    if name in IN_MEMORY:
        return IN_MEMORY[name]
    return read(name).limits if name in registered_names() else None


def read(name: str) -> Registered:
    """Return a registered data set; UserError if its file is missing or was edited."""
    is_regular(path(name))
    content = read_json(path(name), dict)
    recorded = content.pop("digest", None)
    try:
        registered = Registered(**content)
        whole = isinstance(registered.folder, str) and registered.digest == recorded
    except TypeError:
        whole = False
    if not whole:
        raise UserError(
            f"{path(name)}: changed after `sepablate new dataset` wrote it: restore it; only "
            '"folder" may be edited'
        )
    return registered


def read_rows(name: str, registered: Registered) -> list[Row]:
    """Return the images of a registered data set; UserError if their list is missing or edited."""
    file = list_path(name)
    content = b""
    if is_regular(file):
        refuse_endless(file)
        content = file.read_bytes()
    if digest(content) != registered.list_digest:
        state = "changed after" if content else "missing or empty;"
        raise UserError(f"{file}: {state} `sepablate new dataset` wrote it: restore it")
    reader = csv.reader(io.StringIO(content.decode(), newline=""))
    return [Row(*fields) for fields in list(reader)[1:]]


def rows_text(rows: Sequence[Row]) -> str:
    """Return the CSV file that lists these images."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([Row._fields, *rows])
    return text.getvalue()


def write(name: str, registered: Registered, rows: Sequence[Row]) -> list[Path]:
    """Write the two files of a data set, the one that registers it last; return their paths."""
    write_atomically(list_path(name), rows_text(rows))
    content = {**asdict(registered), "digest": registered.digest}
    write_atomically(path(name), _as_json(content) + "\n")
    return [list_path(name), path(name)]


def _as_json(content: Mapping[str, object]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False)
