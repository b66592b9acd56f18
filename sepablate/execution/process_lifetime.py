"""Processes that do not outlive the one that started them. Imported before torch: keep it light."""

import ctypes
import multiprocessing
import os
import signal
from pathlib import Path

SHELLS = {"sh", "dash", "bash", "ash", "zsh", "ksh"}
PR_SET_PDEATHSIG = 1

_ancestors_at_start: tuple[int, ...] = ()  # set by `die_with_parent`


def die_with_parent() -> None:
    """Ask Linux for a signal when the parent process ends, however it ends.

    A worker is killed, at once and whatever it is doing: it loses the steps since its checkpoint. A
    trainer gets SIGTERM, and has time to update MLflow.
    """
    global _ancestors_at_start
    _ancestors_at_start = _ancestors()
    number = signal.SIGTERM if multiprocessing.parent_process() is None else signal.SIGKILL
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, number)
    adopted = _ancestors_at_start[-1] == 1 and os.getsid(1) != os.getsid(0)
    if adopted or orphaned():  # the parent had ended already
        os.kill(os.getpid(), number)


def orphaned() -> bool:
    """Return whether the process that started this one is gone: DVC, or a worker's trainer.

    To be called now and then: DVC's end leaves a shell between the two running, so no signal comes.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        return not parent.is_alive()
    return bool(_ancestors_at_start) and _ancestors() != _ancestors_at_start


def _ancestors() -> tuple[int, ...]:
    """Return the parent; if that is a shell, its parent too: DVC, where its shell stays."""
    parent = os.getppid()
    try:
        stat = Path(f"/proc/{parent}/stat").read_text()
    except OSError:
        return (parent,)
    name, _, rest = stat.partition("(")[2].rpartition(")")
    return (parent, int(rest.split()[1])) if name in SHELLS else (parent,)
