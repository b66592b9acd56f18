"""Fashion-MNIST: 70,000 grey images of 28 x 28 pixels in ten classes (arXiv:1708.07747, MIT).

The official test set gives the numbers; the last 10,000 training images are the validation split,
for curves and for any choice; training draws from the first 50,000.
"""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from sepablate.data import download, references
from sepablate.data.download import Source, verified
from sepablate.data.split import TensorSplit

CLASSES = 10
CHANNELS = 1
IMAGE_SIZE = 28
# The files that decide the numbers, below the package's folder
SOURCES = ("data/fashion_mnist.py", "data/split.py")
REFERENCES = references.FASHION_MNIST
TRAINING_POOL = 50_000

DEBIAN_PACKAGE, DEBIAN_FOLDER = "dataset-fashion-mnist", "/usr/share/datasets/fashion-mnist"
SOURCE = Source(
    name="Fashion-MNIST",
    command="sepablate fetch fashion_mnist",
    expected={
        f"{name}-ubyte": digest
        for name, digest in {
            "train-images-idx3": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        }.items()
    },
    unpack=download.gunzip_each,
    forms="{name}.gz",
    origins=(
        download.debian_folder(DEBIAN_FOLDER),
        download.site("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"),
        download.debian_archive(DEBIAN_PACKAGE, DEBIAN_FOLDER),
    ),
)
DIGEST = hashlib.sha256("".join(SOURCE.expected.values()).encode()).hexdigest()[:16]


def digest(_: Path) -> str:
    """Return a hash of the only bytes that `load` accepts: 16 hexadecimal digits."""
    return DIGEST


def fetch(folder: Path) -> None:
    """Fetch and verify the four files into `folder`/fashion-mnist."""
    download.fetch(SOURCE, folder / "fashion-mnist")


def load(folder: Path, test: bool = True) -> dict[str, TensorSplit]:
    """Return the splits train (50,000), validation (10,000) and, if asked for, test (10,000).

    The files' SHA-256 are verified as they are read: UserError if one is absent or wrong.
    """
    train = _read(folder, "train")
    splits = {"train": train.first(TRAINING_POOL), "validation": train[TRAINING_POOL:]}
    return {**splits, "test": _read(folder, "t10k")} if test else splits


def _read(folder: Path, prefix: str) -> TensorSplit:
    images = _idx(verified(SOURCE, folder / "fashion-mnist", f"{prefix}-images-idx3-ubyte"))
    labels = _idx(verified(SOURCE, folder / "fashion-mnist", f"{prefix}-labels-idx1-ubyte"))
    return TensorSplit(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))


def _idx(content: bytes) -> npt.NDArray[np.uint8]:
    """Parse the IDX format of LeCun's MNIST, for unsigned bytes.

    It is the big-endian magic number 0x000008DD (DD dimensions), DD sizes of four bytes, the bytes.
    """
    magic, dimensions = int.from_bytes(content[:3], "big"), content[3]
    sizes = np.frombuffer(content, ">u4", dimensions, offset=4).astype(int)
    assert magic == 8, "verified files have the magic number of unsigned bytes"
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(sizes).copy()
