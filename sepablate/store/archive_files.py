"""Archives of runs as files: a tar.gz, the same bytes each time, and verified when it is read."""

import functools
import gzip
import hashlib
import io
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from sepablate.errors import UserError
from sepablate.store import layout
from sepablate.store.files import DISK_FULL, NoSpace, refuse_endless, verify_manifest

LARGEST = 1 << 29  # bytes of an archive's files together


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return a tar.gz of files by name: sorted, without times or owners."""
    content = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=content, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            archive.addfile(member, io.BytesIO(files[name]))
    return content.getvalue()


def read(source: Path) -> dict[str, bytes]:
    """Return the files of an archive by name; UserError for another file, or a damaged one."""
    files = {}
    try:
        refuse_endless(source)
        with gzip.open(source) as packed:
            content = packed.read(LARGEST)
            if packed.read(1):  # at the end, where there is nothing, gzip compares the checksum
                raise UserError(f"{source}: holds more than {LARGEST} bytes")
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for member in archive:
                if member.isdir():
                    continue
                if not (member.isreg() and _is_run_file(PurePosixPath(member.name).parts)):
                    raise UserError(f"{source}: {member.name[:100]!r} is no file of a run")
                file = archive.extractfile(member)
                assert file is not None, "a regular file has content"
                files[member.name] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise _refusal(source, error) from None
    return files


def _refusal(source: Path, error: Exception) -> UserError:
    return UserError(f"{source}: not an archive of runs: {error}; restore it, or remove it")


def unpacked(source: Path) -> Path:
    """Return a folder with an archive's files, which stands for results/.

    It lies in .sepablate/, named by the archive's digest, and is verified once in each process.

    Raises UserError for another file, or a damaged one.
    """
    try:
        refuse_endless(source)
        state = source.stat()
        digest = _digest(source.absolute(), state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise _refusal(source, error) from None
    folder = layout.UNPACKED / digest
    if folder.is_dir() and _is_whole(folder.absolute()):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    _is_whole.cache_clear()
    try:
        _unpack(source, read(source), folder)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise NoSpace(f"{folder}: no room for the runs in {source}") from error
        raise
    return folder


def _unpack(source: Path, files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files below a temporary folder, which is renamed when they are verified."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as temporary:
        root = Path(temporary, folder.name)
        for name, content in files.items():
            path = root.joinpath(*PurePosixPath(name).parts[1:])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        variants = run_folders(root)
        if not variants:
            raise UserError(f"{source}: has no runs; choose a file of `sepablate export-runs`")
        for variant in variants:
            if not verify_manifest(variant):
                scale, _, name = layout.run_place(variant.relative_to(root))
                raise UserError(f"{source}: {scale}/{name}: files are not those of its manifest")
        try:
            root.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another command was faster
                raise


@functools.cache
def _digest(source: Path, _modified: int, _size: int) -> str:
    return hashlib.sha256(source.read_bytes()).hexdigest()[:16]


@functools.cache
def _is_whole(folder: Path) -> bool:
    return all(verify_manifest(variant) for variant in run_folders(folder))


def run_folders(root: Path) -> list[Path]:
    """Return the folders of runs in an unpacked archive: of scales, and of their settings."""
    patterns = (f"*/{layout.RUNS}/*", f"*/{layout.SETTINGS}/*/{layout.RUNS}/*")
    return sorted(folder for pattern in patterns for folder in root.glob(pattern))


def _is_run_file(parts: tuple[str, ...]) -> bool:
    """Return whether these are results, a scale, runs or measured, a variant and a file's name.

    Between the scale and the runs may be "settings" and a setting.
    """
    if any(part.startswith(".") for part in parts):
        return False
    if len(parts) == 7 and parts[2] == layout.SETTINGS:
        parts = (*parts[:2], *parts[4:])
    results, kinds = layout.RESULTS.name, (layout.RUNS, layout.MEASUREMENTS)
    return len(parts) == 5 and parts[0] == results and parts[2] in kinds
