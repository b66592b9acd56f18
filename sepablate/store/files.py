"""Read files strictly, write them whole or not at all, list a finished folder's in a manifest."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from sepablate.errors import UserError
from sepablate.store.layout import WEIGHTS_ENDING

T = TypeVar("T", dict[str, Any], list[Any])
MANIFEST = "done.json"
DISK_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
NO_FOLDER_FLUSH = (errno.EINVAL, errno.EOPNOTSUPP)  # on some network disks
LARGEST = 1 << 29  # bytes of a file that is read whole; COCO's list of boxes has 470 million
LARGEST_HASHED = 1 << 32  # bytes of any other file of a run or a report: seconds of work
ABSENT, TOO_LARGE = "absent", "too large"  # in the place of a digest
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # a file system without flock


class NoSpace(OSError):  # noqa: N818 (names what is missing)
    """A file had no room; the file in its place is untouched."""


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
        if error.errno in DISK_FULL:
            raise NoSpace(_no_space(path, len(data))) from error
        if error.filename == str(temporary):
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):  # it may be its folder that is wrong
            temporary.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in NO_FOLDER_FLUSH:
            raise
    finally:
        os.close(folder)


def is_regular(path: Path) -> bool:
    """Return whether there is a file; UserError for a folder, pipe or device of that name.

    To open a pipe would wait for ever.
    """
    if path.is_file():
        return True
    if path.exists() or path.is_symlink():
        raise UserError(f"{path}: not a regular file; move it away")
    return False


def refuse_pipe(path: Path) -> None:
    """Raise UserError for a pipe, a device or a socket: to read one might never end."""
    if path.is_fifo() or path.is_char_device() or path.is_socket():
        raise UserError(f"{path}: a pipe, device or socket, not a regular file; move it away")


def refuse_endless(path: Path) -> None:
    """Raise UserError for a pipe, a device, or a file of more bytes than any that is read whole."""
    refuse_pipe(path)
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path}: holds more than {LARGEST} bytes, as no file of its kind")


def read_text(path: Path) -> str:
    """Return the content of a text file; UserError if it is not UTF-8, a pipe, or far too large."""
    refuse_endless(path)
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error})") from None


def read_json(path: Path, kind: type[T]) -> T:
    """Return the content of a JSON file; UserError if it is invalid or not of that kind.

    Args:
        path: the file.
        kind: dict for an object, list for an array.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # also a number too long, too deep a nest
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(content, kind):
        raise UserError(f"{path}: must hold a JSON {'object' if kind is dict else 'array'}")
    return content


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock, which ends with the process that holds it, however it ends.

    Raises BlockingIOError if another process holds it and this one does not wait, UserError where
    the file system has no locks. (Not `filelock`: there it falls back to a lock file that outlives
    a killed process.)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_pipe(path)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise UserError(
                f"{path}: this file system has no locks ({error.strerror}), without which two "
                f"commands would damage each other's runs: work on another disk"
            ) from None
        yield


def write_manifest(folder: Path, names: Iterable[str]) -> None:
    """Write done.json, the SHA-256 of these files: the last file of a finished folder."""
    write_atomically(folder / MANIFEST, manifest_text(folder, names))


def verify_manifest(folder: Path, required: Iterable[str] = ()) -> bool:
    """Return whether `folder` is finished and each file is as it was then.

    Args:
        folder: a folder with a manifest, if it is finished.
        required: names that the manifest must list.
    """
    if not (folder / MANIFEST).is_file() or corrupt_files(folder):
        return False
    return set(required) <= json.loads(read_text(folder / MANIFEST)).keys()


def corrupt_files(folder: Path) -> list[str]:
    """Return the files of a finished folder that have changed; none if it is not finished.

    Weights may be absent: they need not travel with the rest.
    """
    try:
        text = read_text(folder / MANIFEST)
        digests = json.loads(text)
        needed = {
            name: digest
            for name, digest in digests.items()
            if not _is_absent_weights(folder / name)
        }
        changed = [name for name, digest in needed.items() if sha256(folder / name) != digest]
        outside = any(Path(name).name != name for name in digests)
        sorted_text = json.dumps(digests, indent=1, sort_keys=True) + "\n"
        digested = not any(digest in (ABSENT, TOO_LARGE) for digest in digests.values())
        whole = needed and digested and not outside and text == sorted_text
        return changed or ([] if whole else [MANIFEST])
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (ValueError, AttributeError, OSError, RecursionError):
        return [MANIFEST]


def _is_absent_weights(path: Path) -> bool:
    return path.name.endswith(WEIGHTS_ENDING) and not os.path.lexists(path)


def manifest_text(folder: Path, names: Iterable[str]) -> str:
    """Return the SHA-256 of these files of a folder, as in its manifest."""
    return json.dumps({name: sha256(folder / name) for name in sorted(names)}, indent=1) + "\n"


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, or why it has none: it is none, or far too large."""
    if not path.is_file():
        return ABSENT
    if path.stat().st_size > LARGEST_HASHED:
        return TOO_LARGE
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _no_space(path: Path, size: int) -> str:
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    return f"{path}: no room for its {size} bytes ({free} bytes are free on that disk)"
