"""Processes that do not outlive the one that started them. Light: called before torch is there."""

import ctypes
import multiprocessing
import os
import signal
from pathlib import Path

SHELLS = {"sh", "dash", "bash", "ash", "zsh", "ksh"}

_line: tuple[int, ...] = ()  # who had started this process when it asked not to outlive them


def die_with_parent() -> None:
    """Ask Linux for a signal when the parent process ends, however it ends.

    A worker is killed, at once and whatever it is doing: it loses the steps since its checkpoint. A
    trainer gets SIGTERM, and has time to tell MLflow.
    """
    global _line
    _line = _ancestors()
    number = signal.SIGTERM if multiprocessing.parent_process() is None else signal.SIGKILL
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(1, number)  # PR_SET_PDEATHSIG
    adopted = _line[-1] == 1 and os.getsid(1) != os.getsid(0)
    if adopted or orphaned():  # it had ended already
        os.kill(os.getpid(), number)


def orphaned() -> bool:
    """Whether the process that started this one is gone: DVC, or a worker's trainer.

    To be asked now and then: DVC's end leaves a shell between the two alive, so no signal comes.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        return not parent.is_alive()
    return bool(_line) and _ancestors() != _line


def _ancestors() -> tuple[int, ...]:
    """The parent; and if that is a shell, its parent, which DVC is where its shell stays."""
    parent = os.getppid()
    try:
        stat = Path(f"/proc/{parent}/stat").read_text()
    except OSError:
        return (parent,)
    name, _, rest = stat.partition("(")[2].rpartition(")")
    return (parent, int(rest.split()[1])) if name in SHELLS else (parent,)
