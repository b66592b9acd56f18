"""ImageNet of ILSVRC 2012, or other images in its layout: 1,281,167 and 50,000 images.

Put them into data/imagenet/train and data/imagenet/validation: either a folder for each class, or
WebDataset shards (*.tar of KEY.jpg and KEY.cls). The label of a class folder is its position among
the sorted names, or numbers if all names are numbers; or in data/imagenet/classes.txt if that list
of the names is there.

The official validation images give the numbers, as in the paper: they are the split `test`. The
split `validation`, for curves and choices, is held out of the training images: 10,000 of them, or a
tenth if that is less. The order of each split is drawn once, with a fixed seed, so that the first
few images of a split are of all classes. Unlike the paper, about 1,800 blacklisted validation
images are not left out.
"""

from pathlib import Path

import torch

from sepablate.data import image_files, references
from sepablate.data.image_files import ImageFiles
from sepablate.data.shards import from_shards
from sepablate.errors import UserError

CLASSES = None
CHANNELS = 3
IMAGE_SIZE = None
SOURCES = ("data/imagenet.py", "data/image_files.py", "data/shards.py")
REFERENCES = references.IMAGENET
HELD_OUT = 10_000
HOW_TO_GET = (
    "ImageNet needs a registration at image-net.org; put a folder of JPEG files for each class, or "
    "WebDataset shards (*.tar), there, and run the same command again"
)


def fetch(folder: Path) -> None:
    """Check that `folder`/imagenet is complete, and the header of every image.

    Raises UserError that says how to get the images, or that names bad ones.
    """
    splits = load(folder)
    image_files.check_headers(splits)
    print(f"ImageNet: {image_files.summary(splits)}; headers checked")


def load(folder: Path, test: bool = True) -> dict[str, ImageFiles]:
    """Return the splits train, validation (held out of train) and test (the official validation).

    Without `test` there is no such split, but its files are listed as well.

    Raises UserError if a folder is missing or malformed, or if the two differ in their classes.
    """
    root = folder / "imagenet"
    train, official = images(root / "train"), images(root / "validation")
    if odd := sorted(set(train.classes) ^ set(official.classes)):
        where = "train" if odd[0] in train.classes else "validation"
        raise UserError(
            f"{root}: {len(train.classes)} classes in train and {len(official.classes)} in "
            f"validation: {odd[0]!r} is only in {where}"
        )
    held_out = max(1, min(HELD_OUT, len(train) // 10))
    splits = {"train": train[held_out:], "validation": train[:held_out]}
    return {**splits, "test": official} if test else splits


def images(folder: Path) -> ImageFiles:
    """Return the images of one folder, in class folders or shards, in an order with a fixed seed.

    Raises UserError if it holds neither of the two, or both.
    """
    entries = [path for path in _entries(folder) if not image_files.is_skipped(path.name)]
    shards = [entry for entry in entries if entry.suffix == ".tar"]
    classes = [entry for entry in entries if entry.is_dir()]
    if not shards and not classes:
        raise UserError(f"{folder}: {_what_is_missing(folder, entries)}")
    if shards and classes:
        raise UserError(
            f"{folder}: has shards ({shards[0].name}) and class folders ({classes[0].name}): "
            "choose one of them"
        )
    split = from_shards(folder) if shards else image_files.from_class_folders(folder)
    return split[torch.randperm(len(split), generator=torch.Generator().manual_seed(0))]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from None


def _what_is_missing(folder: Path, entries: list[Path]) -> str:
    """Return what to do about a folder without class folders and shards."""
    if any(path.name.lower().endswith(image_files.EXTENSIONS) for path in entries):
        return "images lie in it directly; put those of each class into a folder of its own"
    val = folder.with_name("val")
    if not folder.exists() and folder.name == "validation" and val.is_dir():
        return f"missing, but there is {val}: rename it, or link it (ln -s val validation)"
    missing = "neither class folders nor shards are in it" if entries else "missing"
    return f"{missing}; {HOW_TO_GET}"


def digest(folder: Path) -> str:
    """Hash the names and sizes of all images: 16 hexadecimal digits."""
    return image_files.digest(load(folder))
