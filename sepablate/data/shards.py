"""WebDataset shards: uncompressed tar files of KEY.jpg (or .jpeg, .png) and KEY.cls, its label.

Shards are not unpacked: an image is read from its offset in the shard.
"""

import io
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from sepablate.data.image_files import EXTENSIONS, ImageFiles, is_skipped
from sepablate.errors import UserError

LABEL = ".cls"
READ = (LABEL, *EXTENSIONS)  # other files in a shard are ignored
LONGEST_LABEL = 6  # digits
LONGEST_NAME = 4096  # bytes, as of a path
LARGEST_HEADER = 1 << 20  # bytes; a hostile one claims gigabytes, which reading would allocate

Member = tuple[str, int, int, int]  # name in the shard, offset and size in bytes, label


def from_shards(folder: Path) -> ImageFiles:
    """Return the images of every shard in `folder`, in the order of names. Classes are numbers.

    Raises UserError for a damaged shard, an image without label, or a label that is no number.
    """
    shards = sorted(path for path in folder.glob("*.tar") if not is_skipped(path.name))
    for shard in shards:
        if not shard.is_file():
            raise UserError(f"{shard}: not a regular file")
    with ThreadPoolExecutor() as pool:  # one seek for each image
        indices = list(pool.map(_index, shards))
    files = [
        shard.name.encode() for shard, index in zip(shards, indices, strict=True) for _ in index
    ]
    entries = [member for index in indices for member in index]
    if not entries:
        raise UserError(f"{folder}: no images in {len(shards)} shards")
    members, offsets, sizes, labels = zip(*entries, strict=True)
    return ImageFiles(
        folder,
        np.array(files, dtype=np.bytes_),
        np.array([name.encode(errors="surrogateescape") for name in members], dtype=np.bytes_),
        np.array(offsets, dtype=np.int64),
        np.array(sizes, dtype=np.int64),
        torch.tensor(labels),
        tuple(map(str, range(max(labels) + 1))),
    )


def _index(shard: Path) -> list[Member]:
    """List the labelled images of a shard, sorted by key."""
    images: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with _Headers(io.FileIO(shard)) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if len(member.name) > LONGEST_NAME or member.size < 0:
                    raise UserError(f"{shard}: {member.name[:50]!r}...: no file that a person made")
                key, extension = _split(shard, member.name)
                if extension not in READ or not member.isreg() or member.issparse():
                    continue
                if key in (labels if extension == LABEL else images):
                    raise UserError(f"{shard}: {member.name!r}: {key!r} is there twice")
                if extension == LABEL:
                    labels[key] = _label(shard, archive, member)
                else:
                    images[key] = member.name, member.offset_data, member.size
    except UserError:
        raise
    except Exception as error:  # of hostile headers tarfile raises nearly anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{shard}: no whole, uncompressed tar file: {reason}") from None
    if odd := sorted(images.keys() ^ labels.keys()):
        advice = (
            "" if labels else "; unpack tar files of one class each into a folder for each class"
        )
        raise UserError(f"{shard}: {odd[0]!r} needs an image and a {LABEL} file{advice}")
    return [(*images[key], labels[key]) for key in sorted(images)]


class _Headers(io.BufferedReader):
    """The file of an archive, from which only headers and labels are read."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


def _split(shard: Path, name: str) -> tuple[str, str]:
    """Split a file's name at its first dot into key and extension, as WebDataset does."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{shard}: {name!r}: choose names without / at the start and without ..")
    stem, dot, extension = path.name.partition(".")
    return str(path.with_name(stem)) if stem else "", (dot + extension).lower()


def _label(shard: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    file = archive.extractfile(member)
    text = b"" if file is None else file.read(LONGEST_LABEL + 1).strip()
    if not text.isdigit() or len(text) > LONGEST_LABEL:
        raise UserError(f"{shard}: {member.name!r}: {text!r}: must be a class, counted from 0")
    return int(text)
