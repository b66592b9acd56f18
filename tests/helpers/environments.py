"""Unlucky environments for real commands: no rights, no locks, no room for a character."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

from helpers.project import ROOT

PR_CAPBSET_DROP = 24
RIGHTS_OF_ROOT = (1, 2, 3)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER


def as_a_user() -> None:
    """Take from a process, before it begins, what lets root write a read-only file."""
    for right in RIGHTS_OF_ROOT:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, right, 0, 0, 0)


def command(
    folder: Path, *arguments: str, **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """Run `python -m sepablate` in a folder, as `python` does."""
    return python(folder, "-m", "sepablate", *arguments, **environment)


def python(
    folder: Path, *arguments: str, **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, as a user; a variable that is None is unset."""
    own = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={name: value for name, value in own.items() if value is not None},
        preexec_fn=as_a_user,
        capture_output=True,
        text=True,
        errors="replace",
    )


def refused(done: subprocess.CompletedProcess[str], *words: str, status: int = 2) -> bool:
    """Whether a command ended in one line with these words and that status; else fail."""
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stderr.startswith("sepablate: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    return True
