"""Images that stay in their files: a split of a large data set holds paths and byte offsets.

Nothing is kept open between two reads, so a split can be pickled, and read after a fork.
"""

import hashlib
import io
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import track

from sepablate.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png")
FORMATS = ("JPEG", "PNG")  # by content, not by name; PIL's other readers are not used
HEADER = 1 << 16  # bytes that hold the header of nearly every image
THREADS, CHUNK = 16, 500
NAMED = 5  # bad images that an error names

Bytes = npt.NDArray[np.bytes_]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """A split on disk, in arrays: a million Python objects would be copied into each worker.

    Args:
        folder: the folder that the files lie below.
        files: (N,), the path of each image's file, relative to `folder`.
        members: (N,), the image's name in the shard; empty if the file is the image.
        offsets, sizes: (N,), where the image begins in the file and how long it is, in bytes.
        labels: (N,) int64, or (N, classes) uint8 of 0 and 1.
        classes: their names, in the order of the labels.
    """

    folder: Path
    files: Bytes
    members: Bytes
    offsets: Integers
    sizes: Integers
    labels: torch.Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, part: slice | torch.Tensor) -> "ImageFiles":
        """Return the images of a slice, or those at the indices, in their order."""
        rows = part if isinstance(part, slice) else part.numpy()
        return ImageFiles(
            self.folder,
            self.files[rows],
            self.members[rows],
            self.offsets[rows],
            self.sizes[rows],
            self.labels[part],
            self.classes,
        )

    def first(self, count: int) -> "ImageFiles":
        """Return the first `count` images and their labels."""
        return self[:count]

    def name(self, index: int) -> str:
        """Return the image's name for a message: its path, or the shard's path and its member."""
        path = self.folder / os.fsdecode(self.files[index])
        member = self.members[index].decode(errors="replace")
        return f"{path}: {member}" if member else str(path)

    def read(self, index: int) -> Image.Image:
        """Decode an image and convert it to RGB; UserError names a bad one."""
        try:
            return _open(self._bytes(index)).convert("RGB")
        except Exception as error:  # a damaged file makes a decoder raise nearly anything
            raise UserError(f"{self.name(index)}: {_reason(error)}") from None

    def bad_header(self, index: int) -> str | None:
        """Return a line on what is wrong with the image's header; None if nothing is."""
        reason = ""
        for limit in (HEADER, None):  # again, for a header longer than most
            try:
                _open(self._bytes(index, limit))
                return None
            except Exception as error:
                reason = _reason(error)
        return f"{self.name(index)}: {reason}"

    def _bytes(self, index: int, limit: int | None = None) -> bytes:
        size = int(self.sizes[index])
        with (self.folder / os.fsdecode(self.files[index])).open("rb") as file:
            file.seek(int(self.offsets[index]))
            return file.read(size if limit is None else min(size, limit))


def _open(content: bytes) -> Image.Image:
    """Read the header of an image; PIL refuses one of more than 178,956,970 pixels here."""
    if not content:
        raise UserError("empty")
    return Image.open(io.BytesIO(content), formats=FORMATS)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"no {' or '.join(FORMATS)} image"
    return " ".join(str(error).split()) or type(error).__name__


def from_files(
    folder: Path, files: list[str], labels: torch.Tensor, classes: tuple[str, ...]
) -> ImageFiles:
    """Return a split of one file an image. OSError if one is missing.

    Args:
        folder: the folder that the files lie below.
        files: their paths, relative to `folder`.
        labels: as in `ImageFiles`.
        classes: as in `ImageFiles`.
    """
    names = np.array([os.fsencode(file) for file in files], dtype=np.bytes_)
    sizes = np.array([(folder / file).stat().st_size for file in files], dtype=np.int64)
    empty, offsets = np.zeros(len(files), np.bytes_), np.zeros(len(files), np.int64)
    return ImageFiles(folder, names, empty, offsets, sizes, labels, classes)


def from_class_folders(folder: Path) -> ImageFiles:
    """Return a split of one folder a class, read as torchvision's ImageFolder does.

    The position of a folder among the sorted names is the label. Raises UserError for a class
    without a JPEG or PNG file.
    """
    from torchvision.datasets.folder import find_classes, make_dataset  # a second to import

    classes, indices = find_classes(folder)
    try:
        samples = make_dataset(folder, indices, EXTENSIONS)
    except FileNotFoundError as error:
        raise UserError(f"{folder}: {error}") from None
    files = [os.path.relpath(path, folder) for path, _ in samples]
    return from_files(folder, files, torch.tensor([label for _, label in samples]), tuple(classes))


def check_headers(splits: Mapping[str, ImageFiles]) -> None:
    """Read the header of every image; UserError names the first few that are bad, and counts them.

    A damaged body shows only when the image is decoded: `read` raises UserError then.
    """
    console, bad = Console(stderr=True), []
    for name, split in splits.items():
        with ThreadPoolExecutor(THREADS) as pool:
            starts = range(0, len(split), CHUNK)
            results = pool.map(partial(_bad_headers, split), starts)
            chunks = track(results, f"{name} images", len(starts), console=console, transient=True)
            bad += [line for chunk in chunks for line in chunk]
    if bad:
        total = sum(map(len, splits.values()))
        rest = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise UserError(f"{len(bad)} of {total} images are bad: {'; '.join(bad[:NAMED])}{rest}")


def _bad_headers(split: ImageFiles, start: int) -> list[str]:
    indices = range(start, min(start + CHUNK, len(split)))
    return [line for index in indices if (line := split.bad_header(index)) is not None]


def check_classes(splits: Mapping[str, ImageFiles], classes: int) -> None:
    """Raise UserError, with both numbers, unless every split has so many classes."""
    for name, split in splits.items():
        if len(split.classes) != classes:
            raise UserError(
                f"{split.folder}: {len(split.classes)} classes in the {name} images, but {classes} "
                "in the network"
            )


def digest(splits: Mapping[str, ImageFiles], *texts: bytes) -> str:
    """Hash the names and sizes of all images, in any order, and `texts`: 16 hexadecimal digits."""
    total = hashlib.sha256()
    for name, split in splits.items():
        order = np.lexsort((split.members, split.files))
        total.update(f"{name} {len(split)} {split.classes}\n".encode())
        for array in (split.files, split.members, split.sizes):
            total.update(np.ascontiguousarray(array[order]).tobytes())
    for text in texts:
        total.update(text)
    return total.hexdigest()[:16]
