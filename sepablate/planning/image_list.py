"""The images of a folder or a CSV file with their labels, as `sepablate new dataset` lists them.

A folder has a folder for each class; or folders train, validation (or val) and test, with a folder
for each class in each. A CSV file has the columns image, label and, if wanted, split; its images
lie below its own folder.
"""

import csv
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from sepablate.data import image_files, refuse_large
from sepablate.errors import UserError, choices
from sepablate.store.datasets import SPLITS
from sepablate.store.files import is_regular

SPLIT_FOLDERS = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}
COLUMNS = ("image", "label", "split")
ENDINGS = " or ".join(image_files.EXTENSIONS)
FORMATS = " or ".join(image_files.FORMATS)


class Entry(NamedTuple):
    """An image: its path below the root folder, its label, its split if one is given."""

    image: str
    label: str
    split: str | None


@dataclass(frozen=True)
class ImageList:
    """Labelled images below a folder.

    Args:
        root: the folder.
        entries: the images, in the order of their paths or of the CSV file.
        classes: the labels; in the order of classes.txt if that is in the folder, else sorted, by
            number if all are numbers.
        skipped: how many files and folders are no images, or belong to a system.
    """

    root: Path
    entries: Sequence[Entry]
    classes: tuple[str, ...]
    skipped: int = 0


def collect(source: Path) -> ImageList:
    """Return the images of a folder or a CSV file.

    Raises UserError for anything that is missing, empty, listed twice, outside of the folder, or
    ambiguous.
    """
    if source.is_dir():
        try:
            return _from_folder(source)
        except UserError as error:
            found = sorted(source.glob("*.[cC][sS][vV]"))
            if not found or not str(found[0]).isprintable():
                raise
            given = f"for the images that a CSV file lists, give that: {found[0]}"
            raise UserError(f"{error}; {given}") from None
    if source.suffix.lower() == ".csv" and is_regular(source):
        refuse_large(source)
        entries = list(_from_csv(source))
        return ImageList(source.parent, entries, _class_order(entries, source.parent))
    state = "neither a folder nor a .csv file" if source.exists() else "there is no such folder"
    raise UserError(f"{source}: {state}: choose a folder of class folders, or a CSV file")


def _from_folder(root: Path) -> ImageList:
    names, skipped = _folders(root)
    entries: list[Entry] = []
    visited: dict[tuple[int, int], str] = {}
    for split, base, classes in _layout(root, names):
        for label in classes:
            images, others = _images_below(root, base / label, visited)
            if not images:
                files = "files" if others else "file"
                held = f" ({others} other {files})" if others else ""
                raise UserError(f"{base / label}: no {ENDINGS} file in this class{held}")
            entries += [Entry(image, label, split) for image in images]
            skipped += others
    return ImageList(root, entries, _class_order(entries, root), skipped)


def _layout(root: Path, names: list[str]) -> Iterator[tuple[str | None, Path, list[str]]]:
    """Yield the folders that hold class folders: the root, or one for each split.

    A folder `train` is a split if there is no other folder, or another split.
    """
    splits = [name for name in names if name in SPLIT_FOLDERS]
    if "train" not in splits or (len(splits) == 1 and len(names) > 1):
        yield None, root, names
        return
    if others := [name for name in names if name not in SPLIT_FOLDERS]:
        raise UserError(
            f"{root}: {' and '.join(splits)} are splits, but {others[0]!r} is none: move it away, "
            "or list the images in a CSV file"
        )
    if len({SPLIT_FOLDERS[name] for name in splits}) < len(splits):
        raise UserError(f"{root}: {', '.join(splits)}: choose one folder for validation")
    for name in splits:
        yield SPLIT_FOLDERS[name], root / name, _folders(root / name)[0]


def _folders(folder: Path) -> tuple[list[str], int]:
    """Return the folders in a folder, sorted, and how many other entries it has."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from None
    skipped = [entry for entry in entries if image_files.is_skipped(entry.name)]
    names = [entry.name for entry in entries if entry.is_dir() and entry not in skipped]
    if not names:
        if any(entry.name.lower().endswith(image_files.EXTENSIONS) for entry in entries):
            raise UserError(
                f"{folder}: images lie in it directly: put those of each class into a folder of "
                "their own, or list them in a CSV file"
            )
        raise UserError(f"{folder}: no class folders in it; each holds {ENDINGS} files")
    known = {image_files.CLASS_NAMES}
    others = [entry for entry in entries if entry.name not in names and entry.name not in known]
    return names, len(others)


def _images_below(
    root: Path, folder: Path, visited: dict[tuple[int, int], str]
) -> tuple[list[str], int]:
    """Return the images below a folder, links followed, and how many other entries it has.

    Args:
        root: the folder that the paths of the images are relative to.
        folder: the folder.
        visited: the folders that were read before, by device and inode.

    Raises UserError for what cannot be read, and for a folder that a link leads to a second time.
    """
    images, skipped = [], 0
    for current, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        status = os.stat(current)
        before = visited.setdefault((status.st_dev, status.st_ino), current)
        if before != current:
            raise UserError(f"{current}: the same folder as {before}: delete the link")
        hidden = [name for name in folders if image_files.is_skipped(name)]
        folders[:] = sorted(set(folders) - set(hidden))
        skipped += len(hidden)
        for name in files:
            path = os.path.join(current, name)
            if image_files.is_skipped(name) or not name.lower().endswith(image_files.EXTENSIONS):
                skipped += 1
            elif not os.path.isfile(path):
                raise UserError(f"{path}: not a regular file")
            else:
                images.append(os.path.relpath(path, root))
    return sorted(images), skipped


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename}: {error.strerror}")


def _from_csv(path: Path) -> Iterator[Entry]:
    """Yield the rows of a CSV file; UserError names the line of a bad one."""
    lines: dict[str, int] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)  # an unclosed quote is an error
            columns = _columns(path, next(reader, []))
            for fields in filter(None, reader):
                place = f"{path}:{reader.line_num}"
                if len(fields) != len(columns):
                    raise UserError(f"{place}: {len(fields)} fields: choose {', '.join(columns)}")
                entry = _entry(place, path.parent, dict(zip(columns, fields, strict=True)))
                if (first := lines.setdefault(entry.image, reader.line_num)) != reader.line_num:
                    raise UserError(f"{place}: {entry.image!r}: duplicate of line {first}")
                yield entry
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: no CSV file in UTF-8: {error}") from None
    if not lines:
        raise UserError(f"{path}: lists no image")


def _columns(path: Path, header: list[str]) -> list[str]:
    columns = [name.strip() for name in header]
    for name in columns:
        if name not in COLUMNS:
            raise UserError(f"{path}:1: column {name!r}: {choices(name, COLUMNS)}")
        if columns.count(name) > 1:
            raise UserError(f"{path}:1: column {name!r}: twice: choose each once")
    for name in COLUMNS[:2]:
        if name not in columns:
            raise UserError(f"{path}:1: column {name!r}: missing: choose {', '.join(COLUMNS)}")
    return columns


def _entry(place: str, root: Path, fields: dict[str, str]) -> Entry:
    """Return a row of a CSV file; UserError unless its image is a file below the root folder."""
    image, label = fields["image"].strip(), fields["label"].strip()
    path = PurePosixPath(image)
    if not image or path.is_absolute() or ".." in path.parts:
        raise UserError(f"{place}: {image!r}: choose a path relative to {root}, without ..")
    if not image.isprintable() or not (root / path).is_file():
        raise UserError(f"{place}: {image!r}: there is no such file in {root}")
    if not label:
        raise UserError(f"{place}: {image!r} has no label")
    split = fields.get("split")
    if split is not None and split.strip() not in SPLITS:
        raise UserError(f"{place}: split {split!r}: {choices(split, SPLITS)}")
    return Entry(str(path), label, split and split.strip())


def _class_order(entries: Sequence[Entry], root: Path) -> tuple[str, ...]:
    """Return the labels in order; UserError for fewer than two, or two that look alike."""
    names = sorted({entry.label for entry in entries})
    alike: dict[str, str] = {}
    for name in names:
        if not name.isprintable():
            raise UserError(f"{root}: class {name!r}: choose a name of printable characters")
        key = unicodedata.normalize("NFC", " ".join(name.split()))
        key = _number(key)[1] if _is_number(key) else key
        if (other := alike.setdefault(key, name)) != name:
            raise UserError(f"{root}: classes {other!r} and {name!r}: rename one, or join them")
    if len(names) < 2:
        raise UserError(f"{root}: only the class {names[0]!r}: choose two classes or more")
    listed = root / image_files.CLASS_NAMES
    if is_regular(listed):
        refuse_large(listed)
        lines = tuple(image_files.read_lines(listed))
        if wrong := sorted(set(lines) ^ set(names)):
            state = "has no image" if wrong[0] in lines else "has images, but is not listed"
            raise UserError(f"{listed}: {wrong[0]!r} {state}")
        return lines
    if all(map(_is_number, names)):
        names.sort(key=_number)
    return tuple(names)


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def _number(name: str) -> tuple[int, str]:
    """Return a key that sorts numbers of any length, without int, which refuses long ones."""
    digits = name.lstrip("0") or "0"
    return len(digits), digits
