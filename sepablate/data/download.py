"""Fetch and verify a data set's files: from the user, or from the first origin that has them.

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sepablate.errors import UserError
from sepablate.store.files import NoSpace, is_regular, write_atomically

TIMEOUT = 20  # seconds without an answer from the data set's site

Files = Iterator[tuple[str, bytes]]  # names and contents


@dataclass(frozen=True)
class Origin:
    """A place that files come from.

    Args:
        words: where that is, for messages, such as "from Debian's archive".
        files: yields the files of these names, decompressed; it may write to the given folder.
    """

    words: str
    files: Callable[[list[str], Path], Files]


@dataclass(frozen=True)
class Source:
    """The files of a data set, and where they come from.

    Args:
        name: of the data set, for messages.
        command: the command that fetches it.
        expected: the SHA-256 of the decompressed bytes, by file name.
        unpack: yields those of the named files that the user put into a folder in another form:
            the path, for messages, name and content. UserError for a damaged file.
        forms: what the user may put there, for messages; {name} is a missing file.
        origins: are tried one after the other.
    """

    name: str
    command: str
    expected: dict[str, str]
    unpack: Callable[[Path, list[str]], Iterator[tuple[str, str, bytes]]]
    forms: str
    origins: tuple[Origin, ...]


def fetch(source: Source, folder: Path, say: Callable[[str], None] = print) -> None:
    """Make every file of `source` exist in `folder`, decompressed and verified.

    Args:
        source: the files and their origins.
        folder: where they are written; what the user put there is used.
        say: called with a line for each file that was downloaded.

    Raises UserError naming the file, what was expected and what to do, if a file that the user put
    there is wrong or if no origin has it.
    """
    missing = _take_from_user(source, folder)
    failures: list[str] = []
    for origin in source.origins:
        if not missing:
            break
        with tempfile.TemporaryDirectory() as scratch:
            try:
                for name, content in origin.files(missing, Path(scratch)):
                    _verify(source, name, content)
                    write_atomically(folder / name, content)
                    say(f"{source.name}: {name} verified, {origin.words}")
            except NoSpace:
                raise
            except Exception as error:  # a damaged container makes decoders raise nearly anything
                failures.append(f"{origin.words}: {_one_line(error)}")
        missing = [name for name in missing if not (folder / name).exists()]
    if missing:
        raise UserError(
            f"{source.name}: {', '.join(missing)} not found anywhere ({'; '.join(failures)}). "
            f"Put {source.forms.format(name=missing[0])} (content of SHA-256 "
            f"{source.expected[missing[0]]}) into {folder}/ and run the same command again"
        )


def verified(source: Source, folder: Path, name: str) -> bytes:
    """Return the bytes of a fetched file; UserError if it is absent or not the expected one."""
    path = folder / name
    if not is_regular(path):
        raise UserError(f"{path} is missing; run: {source.command}")
    content = path.read_bytes()
    _verify(source, name, content, str(path))
    return content


def _take_from_user(source: Source, folder: Path) -> list[str]:
    """Verify, or unpack and verify, the user's files in `folder`; return the names of the rest."""
    missing = []
    for name in source.expected:
        if is_regular(folder / name):
            _verify(source, name, (folder / name).read_bytes(), str(folder / name))
        else:
            missing.append(name)
    for path, name, content in source.unpack(folder, missing):
        _verify(source, name, content, path)
        write_atomically(folder / name, content)
    return [name for name in missing if not (folder / name).exists()]


def _verify(source: Source, name: str, content: bytes, path: str = "") -> None:
    actual, expected = hashlib.sha256(content).hexdigest(), source.expected[name]
    if actual != expected:
        raise UserError(
            f"{path or name} ({len(content)} bytes decompressed) has SHA-256 {actual}, expected "
            f"{expected}; delete it to fetch it again, or replace it"
        )


@contextmanager
def named_if_damaged(path: Path) -> Iterator[None]:
    """Raise UserError, which names the user's file, for any error that its decoder raises."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"{path} is damaged ({_one_line(error)}); delete it or replace it"
        ) from None


def gunzip_each(folder: Path, names: list[str]) -> Iterator[tuple[str, str, bytes]]:
    """Yield path, name and content of the user's files NAME.gz."""
    for name in names:
        path = folder / f"{name}.gz"
        if is_regular(path):
            with named_if_damaged(path):
                content = gzip.decompress(path.read_bytes())
            yield str(path), name, content


def debian_folder(folder: str) -> Origin:
    """Return the folder that Debian's package installs its files NAME.gz into."""

    def files(names: list[str], _: Path) -> Files:
        for name in names:
            yield name, gzip.decompress((Path(folder) / f"{name}.gz").read_bytes())

    return Origin("from Debian's installed package", files)


def site(url: str) -> Origin:
    """Return the folder of the data set's own site that has files NAME.gz."""

    def files(names: list[str], _: Path) -> Files:
        for name in names:
            yield name, gzip.decompress(download(f"{url}/{name}.gz"))

    return Origin("from the data set's own site", files)


def download(url: str) -> bytes:
    """Return what is at a URL."""
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        content: bytes = answer.read()
    return content


def debian_archive(package: str, folder: str) -> Origin:
    """Return the package in Debian's archive that would install files NAME.gz into `folder`."""

    def files(names: list[str], scratch: Path) -> Files:
        if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
            raise FileNotFoundError("apt-get and dpkg-deb are not installed")
        deb = _download_package(package, scratch)
        subprocess.run(["dpkg-deb", "-x", deb, scratch / "files"], check=True, capture_output=True)
        unpacked = scratch / "files" / folder.lstrip("/")
        for name in names:
            yield name, gzip.decompress((unpacked / f"{name}.gz").read_bytes())

    return Origin("from Debian's archive", files)


def _download_package(package: str, scratch: Path) -> Path:
    command = ["apt-get", "download", package]
    if subprocess.run(command, cwd=scratch, capture_output=True).returncode:
        # No package lists on this machine, or old ones: download fresh ones without being root.
        (scratch / "lists/partial").mkdir(parents=True)
        private = ["-o", f"Dir::State::Lists={scratch}/lists", "-o", f"Dir::Cache={scratch}/cache"]
        (scratch / "cache/archives/partial").mkdir(parents=True)
        for each in (["apt-get", *private, "update"], ["apt-get", *private, *command[1:]]):
            subprocess.run(each, cwd=scratch, capture_output=True, check=True, timeout=120)
    (deb,) = scratch.glob("*.deb")
    return deb


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
