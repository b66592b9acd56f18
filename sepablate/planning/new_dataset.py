"""A data set of one's own: list the images, read each once, draw the splits, register the list."""

import io
import keyword
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import NamedTuple

import torch
from PIL import Image

from sepablate.data import DATASETS, image_files, refuse_large_images
from sepablate.data.image_files import ImageFiles
from sepablate.data.registered_images import for_each_image, refuse_bad, upright
from sepablate.errors import UserError
from sepablate.planning.image_list import ImageList, collect
from sepablate.rng import generator
from sepablate.store import datasets
from sepablate.store.datasets import SPLITS, Registered, Row

SMALL = 96  # pixels of the longer side of images that are held in memory
MOST_BYTES = 1 << 30  # of the images that are held in memory, which each training process holds
SHARE = 10  # one in so many images of a class is held out for validation, and for test
FEW_TESTED = 100  # test images, below which a user is warned
GREY = ("1", "L", "LA", *image_files.SIXTEEN_BITS)  # modes of Pillow


class Probe(NamedTuple):
    """An image that was read: its digest, the pixels of its upright sides, whether it is grey."""

    digest: str
    width: int
    height: int
    grey: bool


@dataclass(frozen=True)
class NewDataset:
    """A data set to be registered.

    Args:
        registered: what its file will say.
        rows: the images, in the order of their splits.
        notes: lines for the user.
    """

    registered: Registered
    rows: Sequence[Row]
    notes: Sequence[str]


def examine(name: str, source: Path) -> NewDataset:
    """Read all images of a folder or a CSV file and return them as a data set; write nothing.

    Args:
        name: of the data set.
        source: see `image_list`.

    Raises UserError for a bad name, for whatever `collect` refuses, for images that cannot be read,
    and for a class with too few images.
    """
    check_name(name)
    images = collect(source)
    probes = _probe(images)
    splits, words = draw_splits(images, [probe.digest for probe in probes])
    rows = [
        Row(entry.image, entry.label, split, probe.digest)
        for entry, split, probe in zip(images.entries, splits, probes, strict=True)
    ]
    channels, image_size = _form(probes)
    ordered = [row for split in SPLITS for row in _mixed(rows, split)]
    registered = Registered(
        folder=_from_project(images.root),
        classes=images.classes,
        channels=channels,
        image_size=image_size,
        images={split: splits.count(split) for split in SPLITS},
        splits=words,
        list_digest=datasets.digest(datasets.rows_text(ordered).encode()),
    )
    notes = _notes(images, rows, probes, image_size)
    return NewDataset(registered, ordered, notes)


def summary(name: str, made: NewDataset) -> list[str]:
    """Return the lines that say what was found."""
    registered, named = made.registered, 12
    counts = ", ".join(f"{count} {split}" for split, count in registered.images.items())
    classes = ", ".join(registered.classes[:named])
    more = f", and {len(registered.classes) - named} more" * (len(registered.classes) > named)
    size = registered.image_size
    colour = "grey" if registered.channels == 1 else "colour"
    place = f"held in memory, {size} x {size} in {colour}" if size else "read from their files"
    return [
        f"{name}: {counts} images ({place}), digest {registered.digest}",
        f"splits: {registered.splits}",
        f"{len(registered.classes)} classes: {classes}{more}",
        *(f"note: {note}" for note in made.notes),
    ]


def check_name(name: str) -> None:
    """Raise UserError unless it is an identifier that no data set has."""
    if not datasets.NAME.fullmatch(name) or keyword.iskeyword(name):
        valid = "choose lower-case letters, digits and _, with a letter first"
        raise UserError(f"data set {name!r}: {valid}")
    if name in DATASETS:
        raise UserError(f"data set {name!r}: sepablate has one of that name: choose another")
    if name in datasets.registered_names():
        raise UserError(
            f"data set {name!r}: {datasets.path(name)} exists already: choose another name, or "
            "delete the file to register the images again"
        )


def draw_splits(images: ImageList, digests: Sequence[str]) -> tuple[list[str], str]:
    """Return the split of each image, and in words where the splits come from.

    A split that is not given is a tenth of each class's training images, at least one, drawn with a
    fixed seed; equal files stay together.

    Args:
        images: the images.
        digests: of the images' bytes.

    Raises UserError for a class with too few images.
    """
    splits = [entry.split or "train" for entry in images.entries]
    given = {entry.split for entry in images.entries}
    drawn = [split for split in ("test", "validation") if split not in given]
    by_class: dict[str, dict[str, list[int]]] = {label: {} for label in images.classes}
    for index, entry in enumerate(images.entries):
        if splits[index] == "train":
            by_class[entry.label].setdefault(digests[index], []).append(index)
    for label, members in by_class.items():
        if len(members) <= len(drawn):
            wanted = ", ".join(split for split in SPLITS if split == "train" or split in drawn)
            raise UserError(
                f"{images.root}: class {label!r} has too few different images, {len(members)}: "
                f"choose at least {len(drawn) + 1}, for {wanted}"
            )
        order = torch.randperm(len(members), generator=generator("splits", label)).tolist()
        groups = list(members.values())
        held_out = max(1, len(groups) // SHARE)
        for number, split in enumerate(drawn):
            for group in order[number * held_out : (number + 1) * held_out]:
                for index in groups[group]:
                    splits[index] = split
    named = " and ".join(split for split in SPLITS if split in drawn)
    tenth = f"a tenth of each class for {named}, drawn with a fixed seed"
    return splits, tenth if drawn else "given"


def _probe(images: ImageList) -> list[Probe]:
    """Read and decode every image; UserError names the first few that are bad, and counts them."""
    names = [entry.image for entry in images.entries]
    if bad := [name for name in (str(images.root), *names) if not _is_unicode(name)]:
        raise UserError(f"{bad[0]!r}: no file name in UTF-8: rename it")
    try:
        files = image_files.from_files(images.root, names, torch.zeros(len(names)), images.classes)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None

    refuse_large_images({"all": files})
    results = for_each_image(lambda index: _probe_one(files, index), len(files), "reading images")
    refuse_bad([result for result in results if isinstance(result, str)], len(files))
    return [result for result in results if isinstance(result, Probe)]


def _probe_one(files: ImageFiles, index: int) -> Probe | str:
    """Return what an image is, or a line on what is wrong with it."""
    try:
        width, height = upright(files.read(index)).size
        content = (files.folder / os.fsdecode(files.files[index])).read_bytes()
        with Image.open(io.BytesIO(content), formats=image_files.FORMATS) as image:
            return Probe(datasets.digest(content), width, height, image.mode in GREY)
    except (UserError, OSError) as error:
        return str(error)


def _is_unicode(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def _form(probes: Sequence[Probe]) -> tuple[int, int | None]:
    """Return the channels, and the height and width of images that are held in memory, else None.

    Of sides that differ, the median of the shorter ones.
    """
    size = median_low([min(probe.width, probe.height) for probe in probes])
    channels = 1 if all(probe.grey for probe in probes) else 3
    longest = max(max(probe.width, probe.height) for probe in probes)
    if longest > SMALL or len(probes) * channels * size**2 > MOST_BYTES:
        return 3, None
    return channels, size


def _mixed(rows: Iterable[Row], split: str) -> list[Row]:
    """Return the rows of a split in an order that mixes its classes: the first few are of all."""
    chosen = [row for row in rows if row.split == split]
    order = torch.randperm(len(chosen), generator=generator("order of a split", split))
    return [chosen[index] for index in order.tolist()]


def _from_project(root: Path) -> str:
    """Return the path of a folder relative to the project's root folder, if it lies in it."""
    absolute = Path(os.path.abspath(root))
    here = Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


def _notes(
    images: ImageList, rows: Sequence[Row], probes: Sequence[Probe], size: int | None
) -> list[str]:
    """Return lines on what a user should know of the images."""
    notes = []
    if images.skipped:
        others = "other file or folder" if images.skipped == 1 else "other files or folders"
        notes.append(f"{images.skipped} {others} skipped")
    colours = Counter(probe.grey for probe in probes)
    if len(colours) == 2:
        notes.append(f"{colours[True]} of {len(probes)} images are grey: taken as colour")
    resized = sum((probe.width, probe.height) != (size, size) for probe in probes)
    if size is not None and resized:
        notes.append(
            f"{resized} of {len(probes)} images are not {size} x {size}: scaled and cropped to it"
        )
    training = {row.digest: row.image for row in rows if row.split == "train"}
    copies = [row for row in rows if row.split != "train" and row.digest in training]
    if copies:
        pair = f"{copies[0].image} = {training[copies[0].digest]}"
        which = "image that is not trained on equals a training image"
        if len(copies) > 1:
            which = "images that are not trained on equal training images"
        notes.append(f"{len(copies)} {which} ({pair})")
    tested = sum(row.split == "test" for row in rows)
    if tested < FEW_TESTED:
        plural = "s" * (tested > 1)
        notes.append(f"{tested} test image{plural}: intervals over test images will be wide")
    folded: dict[str, str] = {}
    for name in images.classes:
        if (other := folded.setdefault(name.casefold(), name)) != name:
            notes.append(f"classes {other!r} and {name!r} differ only in case: both are kept")
    return notes
