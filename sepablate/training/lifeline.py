"""Processes that do not outlive the one that started them. Light: called before torch is there."""

import ctypes
import multiprocessing
import os
import signal

_parent = 0  # of this process when it asked not to outlive it


def die_with_parent() -> None:
    """Ask Linux for a signal when the parent process ends, however it ends.

    A worker is killed, at once and whatever it is doing: it loses the steps since its checkpoint. A
    trainer gets SIGTERM, and has time to tell MLflow.
    """
    global _parent
    _parent = os.getppid()
    number = signal.SIGTERM if multiprocessing.parent_process() is None else signal.SIGKILL
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(1, number)  # PR_SET_PDEATHSIG
    adopted = _parent == 1 and os.getsid(1) != os.getsid(0)
    if adopted or orphaned():  # it had ended already
        os.kill(os.getpid(), number)


def orphaned() -> bool:
    """Whether the process that started this one is gone: DVC, or a worker's trainer."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        return not parent.is_alive()
    return bool(_parent) and os.getppid() != _parent
