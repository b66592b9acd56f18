"""What a command needs of its environment: short sockets, a cache, an output. Imports no torch."""

import io
import multiprocessing.util
import os
import sys
import tempfile
from pathlib import Path

from sepablate.errors import UserError
from sepablate.execution import cgroup
from sepablate.store import layout

SOCKET_NAME = len("/pymp-xxxxxxxx/listener-xxxxxxxx")
MAX_FOLDER = 107 - SOCKET_NAME  # Linux allows a socket 107 bytes
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
LITTLE = 1 << 30  # bytes that a command takes that imports PyTorch in several processes
TABLE_WIDTH = 200  # columns: a narrow terminal wraps the lines of a table, and no name is cut


class OutputLost(Exception):  # noqa: N818 (names what is missing)
    """Standard output cannot be written any more. No OSError, which libraries swallow."""


class Output(io.TextIOWrapper):
    """Standard output that never fails for a character, and names its own failures.

    Raises OutputLost, with the error number, when its reader is gone or its disk is full, unless
    the command goes on without it.
    """

    needed = True

    def write(self, text: str) -> int:
        """Write a text."""
        try:
            return super().write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            super().flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        discard_output()
        if self.needed:
            raise OutputLost(error.errno) from error


def prepare_output() -> None:
    """Let an encoding without a character show its code, and a lost output raise OutputLost."""
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        lines = out.line_buffering
        sys.stdout = Output(out.buffer, out.encoding, "backslashreplace", line_buffering=lines)


def go_on_without_output() -> None:
    """Let a command that writes its results into files not end with its output."""
    if isinstance(sys.stdout, Output):
        sys.stdout.needed = False


def discard_output() -> None:
    """Let what is still in the output's buffers vanish: flushing it at exit would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def warn_of_little_memory() -> None:
    """Say before PyTorch is imported that this container may not have the memory for it."""
    free = cgroup.memory_free()
    if free is not None and free < LITTLE:
        line = f"{free >> 20} MiB of memory are free, of about {LITTLE >> 20} that this takes"
        print(f"sepablate: {line}; it may be killed", file=sys.stderr, flush=True)


def use_writable_cache() -> None:
    """Keep compiled kernels in .sepablate/ where this user has no home folder to write to."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = cache / "sepablate"
        while not folder.exists():
            folder = folder.parent
        usable = os.access(folder, os.W_OK | os.X_OK) and folder.is_dir()
    except (OSError, RuntimeError):  # RuntimeError: Python knows no home folder
        usable = False
    if not usable:
        cache = (layout.STATE / "cache").absolute()
        os.environ["XDG_CACHE_HOME"] = str(cache)
        os.environ.setdefault("TRITON_CACHE_DIR", str(cache / "triton"))
        os.environ.setdefault("MPLCONFIGDIR", str(cache / "matplotlib"))


def use_short_socket_folder() -> None:
    """Let processes talk where TMPDIR is too long for a socket's address.

    Raises UserError if no shorter folder can be written.
    """
    before = tempfile.gettempdir()
    if len(os.fsencode(before)) <= MAX_FOLDER:
        return
    for folder in SHORT_FOLDERS:
        if os.access(folder, os.W_OK | os.X_OK):
            tempfile.tempdir = folder
            try:
                multiprocessing.util.get_temp_dir()  # makes it, and remembers it
            finally:
                tempfile.tempdir = before
            return
    raise UserError(f"TMPDIR: {before}: choose a folder of at most {MAX_FOLDER} characters")
