"""The exceptions for bad input, and words for what the environment refuses."""

import difflib
import errno
import os
import re
from collections.abc import Iterable

# Errors that the user can put right; any other kind is a bug.
HINTS = {
    errno.EACCES: "change its owner or its mode",
    errno.EPERM: "change its owner or its mode",
    errno.EROFS: "work in a folder that can be written",
    errno.ENOTDIR: "a file stands where a folder is needed: move it away",
    errno.EEXIST: "a file stands where a folder is needed: move it away",
    errno.ENOTEMPTY: "a folder stands where a file is needed: move it away",
    errno.EISDIR: "a folder stands where a file is needed: move it away",
    errno.ENAMETOOLONG: "choose a shorter name or folder",
    errno.ELOOP: "its links lead in a circle: remove one",
    errno.ENOLCK: "work on a disk with file locks",
    errno.ETXTBSY: "another process uses it: wait for that",
    errno.EIO: "the disk fails: look at the system's log",
    errno.ESTALE: "the network disk has lost it: mount it again",
    errno.EMFILE: "too many files are open: raise `ulimit -n`",
    errno.ENFILE: "too many files are open: raise `ulimit -n`",
}
FEW = 10  # choices that are read at a glance


class UserError(ValueError):
    """Bad input: the value, the place and the valid choices, in one line.

    The command line prints it as one line with exit status 2. Any other exception is a bug and
    shows its traceback, except those that `explain` knows.
    """

    def __init__(self, message: str) -> None:
        super().__init__(re.sub(r"\s*[\r\n]+\s*", " ", message.strip()))


def choices(value: object, valid: Iterable[str]) -> str:
    """Return the valid choices for a message, and the one that a wrong value is most like.

    Where they are many, that one comes first.
    """
    names = list(valid)
    like = "".join(f"did you mean {n}?" for n in difflib.get_close_matches(str(value), names, 1))
    parts = [f"choose {', '.join(names)}", like]
    return "; ".join(filter(None, parts if len(names) <= FEW else reversed(parts)))


def command(words: str, scale: str) -> str:
    """Return a command as a remedy names it: always with its scale, which may not be selected."""
    return f"`sepablate {words} --scale {scale}`"


def explain(error: OSError) -> str | None:
    """Return path, reason and remedy where the environment refuses a file; None for a bug."""
    name = error.filename2 or error.filename
    if not isinstance(name, str | bytes):
        # Python's words where no folder for temporary files can be written.
        return f"TMPDIR: {error.strerror}" if "No usable temporary" in str(error) else None
    path = os.fsdecode(name)
    shown = path if len(path) < 200 else f"{path[:80]}...{path[-80:]}"
    if error.errno in (errno.ENOENT, errno.EEXIST) and os.path.islink(path):
        return f"{shown}: its link leads to nothing; remove it, or restore {os.readlink(path)}"
    if error.errno not in HINTS:
        return None
    return f"{shown}: {error.strerror}; {HINTS[error.errno]}"


def explain_memory(error: Exception) -> str | None:
    """Return what to do where a process gets no more memory; None for another error."""
    words = ("failed to map segment", "Cannot allocate memory")  # of the linker, of the system
    if not isinstance(error, MemoryError) and not any(each in str(error) for each in words):
        return None
    reason = str(error) or "MemoryError"
    return f"no memory left for this process ({reason}); free some, or raise `ulimit -v`"
