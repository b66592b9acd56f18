"""Processes that do not outlive the one that started them. Light: called before torch is there."""

import ctypes
import multiprocessing
import os
import signal


def die_with_parent() -> None:
    """Ask Linux for SIGTERM when the parent process ends, however it ends."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() == 1 and os.getsid(1) != os.getsid(0):  # it had ended already
        os.kill(os.getpid(), signal.SIGTERM)


def orphaned() -> bool:
    """Whether the trainer that started this worker is gone."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()
