"""Tiny data sets of coloured JPEG files, made of Fashion-MNIST, in the layouts of large ones."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from sepablate.data import fashion_mnist
from sepablate.data.split import TensorSplit

CLASSES = ("n01", "n02", "n03")


def picture(split: TensorSplit, index: int, height: int = 40) -> Image.Image:
    """A garment in colour, wider than high."""
    grey = split.images[index].numpy()
    pixels = np.stack([grey, 255 - grey, np.roll(grey, index % 28, axis=1)], axis=-1)
    return Image.fromarray(pixels).resize((height + index % 9, height), Image.Resampling.BICUBIC)


def class_folders(
    root: Path,
    data: Path,
    train: int = 30,
    validation: int = 12,
    classes: tuple[str, ...] = CLASSES,
) -> Path:
    """`root`/{train,validation}/<class>/<number>.JPEG, classes in turn; gives `root`."""
    splits = fashion_mnist.load(data)
    for name, count, source in (
        ("train", train, splits["train"]),
        ("validation", validation, splits["test"]),
    ):
        for index in range(count):
            folder = root / name / classes[index % len(classes)]
            folder.mkdir(parents=True, exist_ok=True)
            picture(source, index).save(folder / f"{index:04}.JPEG", quality=90)
    return root


def shards(folders: Path, root: Path, per_shard: int = 7) -> Path:
    """The same files as WebDataset shards in `root`/{train,validation}; gives `root`."""
    for name in ("train", "validation"):
        files = sorted((folders / name).glob("*/*.JPEG"), key=lambda path: path.name)
        (root / name).mkdir(parents=True)
        for start in range(0, len(files), per_shard):
            with tarfile.open(root / name / f"{name}-{start:06}.tar", "w") as archive:
                for path in files[start : start + per_shard]:
                    label = str(CLASSES.index(path.parent.name)).encode()
                    add(archive, f"{path.stem}.jpg", path.read_bytes())
                    add(archive, f"{path.stem}.cls", label)
                    add(archive, f"{path.stem}.json", b"{}")
    return root


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Put a regular file into the archive."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
