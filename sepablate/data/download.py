"""Download and verify files: from the user, Debian's package, the data set's site or Debian.

A file is accepted only if the SHA-256 of its decompressed bytes is the expected one; the containers
differ between origins. It is written under a temporary name and renamed, so that it is complete or
absent.
"""

import gzip
import hashlib
import shutil
import subprocess
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sepablate.errors import UserError
from sepablate.store.files import write_atomically

TIMEOUT = 20  # seconds without an answer from the data set's site


@dataclass(frozen=True)
class Source:
    """The origins of a data set's files.

    Args:
        name: of the data set, for messages.
        expected: the SHA-256 of the decompressed bytes, by file name.
        site: the URL of the folder that has the files with the suffix .gz.
        debian_package: the package that has them.
        debian_folder: the folder that the package installs them into.
    """

    name: str
    expected: dict[str, str]
    site: str
    debian_package: str
    debian_folder: str


def fetch(source: Source, folder: Path, say: Callable[[str], None] = print) -> None:
    """Make every file of `source` exist in `folder`, decompressed and verified.

    Args:
        source: the files and their origins.
        folder: where they are written; NAME or NAME.gz that the user put there is used.
        say: called with a line for each file that was downloaded.

    Raises UserError naming the file, what was expected and what to do, if a file that the user put
    there is wrong or if no origin has it.
    """
    missing = [name for name in source.expected if not _take_from_user(source, folder, name)]
    failures: list[str] = []
    for origin in (_from_debian_folder, _from_site, _from_debian_archive):
        if not missing:
            break
        with tempfile.TemporaryDirectory() as scratch:
            try:
                for name, content in origin(source, missing, Path(scratch)):
                    _verify(source, name, content)
                    write_atomically(folder / name, content)
                    say(f"{source.name}: {name} verified, {origin.__doc__}")
            except (OSError, EOFError, zlib.error, UserError, subprocess.SubprocessError) as error:
                failures.append(f"{origin.__doc__}: {_one_line(error)}")
        missing = [name for name in missing if not (folder / name).exists()]
    if missing:
        raise UserError(
            f"{source.name}: {', '.join(missing)} not found anywhere ({'; '.join(failures)}). "
            f"Put {missing[0]}.gz (content of SHA-256 {source.expected[missing[0]]}) into "
            f"{folder}/ and run the same command again"
        )


def verified(source: Source, folder: Path, name: str) -> bytes:
    """Return the bytes of a fetched file; UserError if it is absent or not the expected one."""
    path = folder / name
    if not path.exists():
        raise UserError(f"{path} is missing; run: sepablate fetch")
    content = path.read_bytes()
    _verify(source, name, content, path)
    return content


def _take_from_user(source: Source, folder: Path, name: str) -> bool:
    """Verify, or unpack and verify, the user's file in `folder`; False if there is none."""
    plain, packed = folder / name, folder / f"{name}.gz"
    if plain.exists():
        _verify(source, name, plain.read_bytes(), plain)
        return True
    if not packed.exists():
        return False
    try:
        content = gzip.decompress(packed.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{packed} is damaged ({error}); delete it or replace it") from None
    _verify(source, name, content, packed)
    write_atomically(plain, content)
    return True


def _verify(source: Source, name: str, content: bytes, path: Path | None = None) -> None:
    actual, expected = hashlib.sha256(content).hexdigest(), source.expected[name]
    if actual != expected:
        raise UserError(
            f"{path or name} ({len(content)} bytes decompressed) has SHA-256 {actual}, expected "
            f"{expected}; delete it to fetch it again, or replace it"
        )


def _from_debian_folder(source: Source, names: list[str], _: Path) -> Iterator[tuple[str, bytes]]:
    """from Debian's installed package"""
    for name in names:
        yield name, gzip.decompress((Path(source.debian_folder) / f"{name}.gz").read_bytes())


def _from_site(source: Source, names: list[str], _: Path) -> Iterator[tuple[str, bytes]]:
    """from the data set's own site"""
    for name in names:
        with urllib.request.urlopen(f"{source.site}/{name}.gz", timeout=TIMEOUT) as answer:
            yield name, gzip.decompress(answer.read())


def _from_debian_archive(
    source: Source, names: list[str], scratch: Path
) -> Iterator[tuple[str, bytes]]:
    """from Debian's archive"""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise FileNotFoundError("apt-get and dpkg-deb are not installed")
    download = ["apt-get", "download", source.debian_package]
    if subprocess.run(download, cwd=scratch, capture_output=True).returncode:
        # No package lists on this machine, or old ones: download fresh ones without being root.
        (scratch / "lists/partial").mkdir(parents=True)
        private = ["-o", f"Dir::State::Lists={scratch}/lists", "-o", f"Dir::Cache={scratch}/cache"]
        (scratch / "cache/archives/partial").mkdir(parents=True)
        for command in (["apt-get", *private, "update"], ["apt-get", *private, *download[1:]]):
            subprocess.run(command, cwd=scratch, capture_output=True, check=True, timeout=120)
    (package,) = scratch.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package, scratch / "files"], check=True, capture_output=True)
    unpacked = scratch / "files" / source.debian_folder.lstrip("/")
    for name in names:
        yield name, gzip.decompress((unpacked / f"{name}.gz").read_bytes())


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
