"""Files that are whole or absent, and folders that can tell that they are."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

MANIFEST = "done.json"
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class NoSpace(OSError):  # noqa: N818 (what is missing)
    """A file had no room; what stood in its place is untouched."""


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write under a temporary name, flush to disk, rename, flush the folder.

    Raises NoSpace, with the bytes needed, on a full disk.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno in FULL:
            raise NoSpace(_no_space(path, len(data))) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other process is within; a lock ends with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_manifest(folder: Path, names: Iterable[str]) -> None:
    """Write done.json, the SHA-256 of these files of `folder`: the last file of a finished one."""
    write_atomically(folder / MANIFEST, _sealed(folder, names))


def verify_manifest(folder: Path) -> bool:
    """Whether `folder` is sealed and each file is as it was then."""
    return (folder / MANIFEST).exists() and not corrupt_files(folder)


def corrupt_files(folder: Path) -> list[str]:
    """The files of a sealed folder that are not as they were; none if it is not sealed."""
    try:
        text = (folder / MANIFEST).read_text()
        digests = json.loads(text)
        found = [name for name, digest in digests.items() if _digest(folder / name) != digest]
        return found or ([] if digests and text == _sealed(folder, digests) else [MANIFEST])
    except FileNotFoundError:
        return []
    except (ValueError, AttributeError, OSError):
        return [MANIFEST]


def _sealed(folder: Path, names: Iterable[str]) -> str:
    return json.dumps({name: _digest(folder / name) for name in sorted(names)}, indent=1) + "\n"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "absent"


def _no_space(path: Path, size: int) -> str:
    folder = next(each for each in path.absolute().parents if each.exists())
    free = shutil.disk_usage(folder).free
    return f"{path}: no room for its {size} bytes ({free} bytes are free on that disk)"
