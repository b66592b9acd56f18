"""What a command needs of its environment: short sockets, a cache, an output. Imports no torch."""

import io
import multiprocessing.util
import os
import sys
import tempfile
from pathlib import Path

from sepablate.errors import UserError
from sepablate.store import layout

SOCKET_NAME = len("/pymp-xxxxxxxx/listener-xxxxxxxx")
MAX_FOLDER = 107 - SOCKET_NAME  # Linux allows a socket 107 bytes
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


class OutputLost(Exception):  # noqa: N818 (names what is missing)
    """Standard output cannot be written any more. No OSError, which libraries swallow."""


class Output(io.TextIOWrapper):
    """Standard output that never fails for a character, and names its own failures.

    Raises OutputLost, with the error number, when its reader is gone or its disk is full.
    """

    def write(self, text: str) -> int:
        """Write a text."""
        try:
            return super().write(text)
        except OSError as error:
            raise OutputLost(error.errno) from error

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            super().flush()
        except OSError as error:
            raise OutputLost(error.errno) from error


def prepare_output() -> None:
    """Let an encoding without a character show its code, and a lost output raise OutputLost."""
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        lines = out.line_buffering
        sys.stdout = Output(out.buffer, out.encoding, "backslashreplace", line_buffering=lines)


def discard_output() -> None:
    """Let what is still in the output's buffers vanish: flushing it at exit would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


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
        os.environ["XDG_CACHE_HOME"] = str((layout.STATE / "cache").absolute())


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
