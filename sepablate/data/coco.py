"""COCO 2017, or other images in its layout: 118,287 and 5,000 images with boxes of 80 classes.

Put them into data/coco as they are published (cocodataset.org): train2017/*.jpg, val2017/*.jpg,
annotations/instances_train2017.json and annotations/instances_val2017.json.

The images of val2017 give the numbers, as the split `test`. The split `validation`, for curves and
choices, is held out of the training images: 5,000 of them, or a tenth if that is less. (The
MobileNets paper leaves 8,000 images of val2014 out of train and val, a split of its own.) The order
of each split is drawn once, with a fixed seed.

Boxes are scaled with their images, to IMAGE_SIZE pixels. They are cut at the border; those without
an area are left out. Regions that are marked as crowds are not learned, and not counted as misses.
"""

import math
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sepablate.data import image_files
from sepablate.data.image_files import ImageFiles
from sepablate.data.references import Reference
from sepablate.errors import UserError
from sepablate.store.files import is_regular, read_json

CLASSES = 80
CHANNELS = 3
IMAGE_SIZE = 300
SOURCES = ("data/coco.py", "data/image_files.py")
REFERENCES: tuple[Reference, ...] = ()
HELD_OUT = 5_000
FILES = {"train": "train2017", "test": "val2017"}
# COCO's limits of 32 and 96 pixels, which are of images of 640 x 480.
SCALED = IMAGE_SIZE**2 / (640 * 480)
AREAS = 32**2 * SCALED, 96**2 * SCALED
LARGEST = 10.0**9  # of a number in a list
HOW_TO_GET = "get COCO 2017 from cocodataset.org, put it there, and run the same command again"


class Listed(NamedTuple):
    """An image of a list: the name of its file, its width and height in pixels."""

    file: str
    width: float
    height: float


class Box(NamedTuple):
    """A box of an image: its class, its edges as fractions of the image, whether it is a crowd."""

    kind: float
    left: float
    top: float
    right: float
    bottom: float
    crowd: float


def fetch(folder: Path) -> None:
    """Check both lists, and the header of every image; UserError names the bad ones."""
    splits = load(folder)
    image_files.check_headers(splits)
    print(f"COCO: {image_files.summary(splits)}; headers checked")


def load(folder: Path, test: bool = True) -> dict[str, ImageFiles]:
    """Return the splits train, validation (held out of train) and test (val2017).

    Labels are (N, most boxes, 6) as of `DetectionDataSet`. Without `test` there is no such split,
    but its list is checked as well.

    Raises UserError with file and entry for a list that is missing or malformed, and for an image
    that is missing.
    """
    train, official = (_split(folder / "coco", name) for name in FILES.values())
    if train.classes != official.classes:
        names = " and ".join(FILES.values())
        raise UserError(f"{folder / 'coco'}: the categories of {names} differ")
    held_out = max(1, min(HELD_OUT, len(train) // 10))
    splits = {"train": train[held_out:], "validation": train[:held_out]}
    return {**splits, "test": official} if test else splits


def digest(folder: Path) -> str:
    """Hash the lists, and the names and sizes of all images: 16 hexadecimal digits."""
    lists = (_list_path(folder / "coco", name).read_bytes() for name in FILES.values())
    return image_files.digest(load(folder), *lists)


def _list_path(root: Path, name: str) -> Path:
    return root / "annotations" / f"instances_{name}.json"


def _split(root: Path, name: str) -> ImageFiles:
    path = _list_path(root, name)
    if not is_regular(path):
        raise UserError(f"{path}: missing; {HOW_TO_GET}")
    content = read_json(path, dict)
    classes = _classes(content, path)
    images = _images(content, root / name, path)
    boxes: dict[float, list[Box]] = {number: [] for number in images}
    for entry, place in _entries(content, "annotations", path):
        number = _number(entry, "image_id", place)
        if number not in images:
            raise UserError(f"{place}: there is no image with the id {number:g}")
        if (box := _box(entry, [*classes], images[number], place)) is not None:
            boxes[number].append(box)
    files = [f"{name}/{image.file}" for image in images.values()]
    labels = _pack([*boxes.values()])
    split = image_files.from_files(root, files, labels, tuple(classes.values()))
    return split[torch.randperm(len(split), generator=torch.Generator().manual_seed(0))]


def _classes(content: Mapping[str, Any], path: Path) -> dict[float, str]:
    """Return the names of the categories by their ids, which leave out some numbers."""
    names = {}
    for entry, place in _entries(content, "categories", path):
        names[_number(entry, "id", place)] = str(entry.get("name"))
    if len(names) != CLASSES:
        raise UserError(f"{path}: {len(names)} categories: COCO has {CLASSES}")
    return dict(sorted(names.items()))


def _images(content: Mapping[str, Any], folder: Path, path: Path) -> dict[float, Listed]:
    """Return the images by their ids."""
    images: dict[float, Listed] = {}
    for entry, place in _entries(content, "images", path):
        number = _number(entry, "id", place)
        if number in images:
            raise UserError(f"{place}: duplicate id {number:g}")
        width, height = (_number(entry, key, place) for key in ("width", "height"))
        if min(width, height) < 1:
            raise UserError(f"{place}: choose a width and a height of at least 1")
        file = entry.get("file_name")
        if not isinstance(file, str) or PurePosixPath(file).name != file:
            raise UserError(f"{place}: file_name {file!r}: choose the name of a file in {folder}")
        if not is_regular(folder / file):
            raise UserError(f"{folder / file}: missing, but {path} lists it")
        images[number] = Listed(file, width, height)
    if not images:
        raise UserError(f"{path}: lists no images")
    return images


def _box(entry: Mapping[str, Any], kinds: list[float], image: Listed, place: str) -> Box | None:
    """Return the box of an annotation as far as it is in its image; None if nothing is."""
    kind = _number(entry, "category_id", place)
    if kind not in kinds:
        raise UserError(f"{place}: category_id {kind:g}: not among the categories")
    corners = entry.get("bbox")
    if not isinstance(corners, list) or len(corners) != 4:
        raise UserError(f"{place}: bbox {corners!r}: choose [left, top, width, height]")
    left, top, width, height = (
        _number({f"bbox[{i}]": number}, f"bbox[{i}]", place) for i, number in enumerate(corners)
    )
    if min(width, height) < 0:
        raise UserError(f"{place}: bbox {corners!r}: choose a width and height of at least 0")
    across = [min(max(x / image.width, 0.0), 1.0) for x in (left, left + width)]
    down = [min(max(y / image.height, 0.0), 1.0) for y in (top, top + height)]
    if across[0] == across[1] or down[0] == down[1]:
        return None
    crowd = float(bool(entry.get("iscrowd", 0)))
    return Box(kinds.index(kind), across[0], down[0], across[1], down[1], crowd)


def _entries(
    content: Mapping[str, Any], key: str, path: Path
) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield the entries of a list of the file, and the place of each for an error."""
    entries = content.get(key)
    if not isinstance(entries, list):
        raise UserError(f"{path}: {key}: choose a list")
    for index, entry in enumerate(entries):
        place = f"{path}: {key}[{index}]"
        if not isinstance(entry, dict):
            raise UserError(f"{place}: {reprlib.repr(entry)}: choose an object")
        yield entry, place


def _number(entry: Mapping[str, Any], key: str, place: str) -> float:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST:
        raise UserError(f"{place}: {key} {reprlib.repr(value)}: choose a number")
    if not math.isfinite(value):
        raise UserError(f"{place}: {key} {value}: choose a finite number")
    return float(value)


def _pack(boxes: list[list[Box]]) -> Tensor:
    """Return the labels of all images, (N, most boxes, 6), in pixels of the scaled images."""
    most = max(1, *map(len, boxes))
    labels = torch.full((len(boxes), most, len(Box._fields)), -1.0)
    for row, image in zip(labels, boxes, strict=True):
        if image:
            row[: len(image)] = torch.tensor(image)
    labels[:, :, 1:5] *= IMAGE_SIZE
    return labels
