"""Images that stay in their files: a split of a large data set holds paths and byte offsets.

Nothing is kept open between two reads, so a split can be pickled, and read after a fork.
"""

import dataclasses
import hashlib
import io
import os
import stat
import warnings
from collections.abc import Iterator, Mapping
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
from sepablate.store.files import is_regular

EXTENSIONS = (".jpg", ".jpeg", ".png")
FORMATS = ("JPEG", "PNG")  # by content, not by name; PIL's other readers are not used
HEADER = 1 << 16  # bytes that hold the header of nearly every image
THREADS, CHUNK = 16, 500
NAMED = 5  # bad images that an error names
CLASS_NAMES = "classes.txt"
SYSTEM_NAMES = ("@eaDir", "__MACOSX", "Thumbs.db", "desktop.ini", "lost+found")
SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L")  # modes of a grey PNG; convert("RGB") clips them

warnings.filterwarnings("ignore", "Corrupt EXIF", module="PIL")  # metadata, which nothing reads

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
        skipped: how many files and folders `is_skipped` left out, or are no JPEG or PNG files.
    """

    folder: Path
    files: Bytes
    members: Bytes
    offsets: Integers
    sizes: Integers
    labels: torch.Tensor
    classes: tuple[str, ...]
    skipped: int = 0

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
            self.skipped,
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
            return _to_rgb(_open(self._bytes(index)))
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


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB of 8 bits; 16 bits of grey are scaled, 65535 to 255."""
    if image.mode in SIXTEEN_BITS:
        grey = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


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
    """Return a split of one folder a class, of the JPEG and PNG files in it and its subfolders.

    Files come in the order of torchvision's ImageFolder. See `class_order` for the labels, and
    `is_skipped` for what is left out.

    Raises UserError for a class without an image, and for what cannot be read.
    """
    classes, files, labels, skipped = class_order(folder), [], [], 0
    visited: dict[tuple[int, int], Path] = {}
    _visit(folder, visited)
    for label, name in enumerate(classes):
        found, others = _walk(folder / name, visited)
        if not found:
            raise UserError(f"{folder / name}: no {' or '.join(EXTENSIONS)} file in this class")
        files += [os.path.relpath(path, folder) for path in sorted(found, key=os.path.split)]
        labels += [label] * len(found)
        skipped += others
    skipped += sum(is_skipped(entry) for entry in os.listdir(folder))
    split = from_files(folder, files, torch.tensor(labels), classes)
    return dataclasses.replace(split, skipped=skipped)


def is_skipped(name: str) -> bool:
    """Return whether a file or folder of that name belongs to a system, not to a data set."""
    return name.startswith(".") or name.endswith("~") or name in SYSTEM_NAMES


def class_order(folder: Path) -> tuple[str, ...]:
    """Return the class folders in the order of the labels.

    It is that of the lines of classes.txt, if that lies next to `folder`; else of the numbers, if
    all names are numbers, so that folder 10 is class 10 of 0, 1, ... and not the third; else of the
    sorted names.

    Raises UserError if classes.txt does not list exactly the folders.
    """
    names = sorted(
        entry.name for entry in os.scandir(folder) if entry.is_dir() and not is_skipped(entry.name)
    )
    listed = folder.parent / CLASS_NAMES
    if is_regular(listed):
        lines = tuple(read_lines(listed))
        if wrong := sorted(set(lines) ^ set(names)):
            where = "has no folder in" if wrong[0] in lines else "is not listed, but is a folder of"
            raise UserError(f"{listed}: {wrong[0]!r} {where} {folder}")
        return lines
    if all(name.isascii() and name.isdecimal() for name in names):
        names.sort(key=lambda name: (int(name), name))
    return tuple(names)


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a list of classes; UserError for an empty line or one that comes twice."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no text file in UTF-8: {error}") from None
    known: set[str] = set()
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line in known:
            raise UserError(
                f"{path}:{number}: {line!r}: choose one name, different from the others"
            )
        known.add(line)
        yield line


def _walk(folder: Path, visited: dict[tuple[int, int], Path]) -> tuple[list[str], int]:
    """Return the images below a folder, links followed, and how many other entries it has.

    Args:
        folder: the folder.
        visited: the folders that were read before, by device and inode.

    Raises UserError for what cannot be read, or is no regular file but named as an image; and for a
    folder that a link leads to a second time.
    """
    images, skipped, folders = [], 0, [folder]
    while folders:
        current = folders.pop()
        try:
            _visit(current, visited)
            for entry in os.scandir(current):
                if is_skipped(entry.name):
                    skipped += 1
                elif entry.is_dir():
                    folders.append(Path(entry.path))
                elif not entry.name.lower().endswith(EXTENSIONS):
                    skipped += 1
                elif not stat.S_ISREG(entry.stat().st_mode):
                    raise UserError(f"{entry.path}: not a regular file")
                else:
                    images.append(entry.path)
        except OSError as error:
            raise UserError(f"{error.filename or current}: {error.strerror}") from None
    return images, skipped


def _visit(folder: Path, visited: dict[tuple[int, int], Path]) -> None:
    status = folder.stat()
    before = visited.setdefault((status.st_dev, status.st_ino), folder)
    if before is not folder:
        raise UserError(f"{folder}: the same folder as {before}; delete the link")


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


def summary(splits: Mapping[str, ImageFiles]) -> str:
    """Return what was found, in a line: images by split, classes, and what was skipped."""
    counts = ", ".join(f"{len(split)} {name}" for name, split in splits.items())
    folders = {split.folder: split.skipped for split in splits.values()}  # two splits may share one
    others = sum(folders.values())
    rest = f"; {others} other files or folders skipped" if others else ""
    return f"{counts} images of {len(splits['test'].classes)} classes{rest}"


def check_counts(splits: Mapping[str, ImageFiles], counts: Mapping[str, tuple[str, int]]) -> None:
    """Raise UserError unless every split has as many images as a scale asks for.

    Args:
        splits: by name.
        counts: for each split, the place of the number, for the error, and the number.
    """
    for name, split in splits.items():
        place, count = counts[name]
        if count > len(split):
            raise UserError(
                f"{place}: {count}: choose at most {len(split)}, the {name} images of "
                f"{split.folder}"
            )


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
