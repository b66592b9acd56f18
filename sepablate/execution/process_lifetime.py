"""Processes that do not outlive the one that started them. Imported before torch: keep it light."""

import contextlib
import ctypes
import multiprocessing
import os
import select
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHELLS = {"sh", "dash", "bash", "ash", "zsh", "ksh", "fish", "tcsh", "csh", "nu", "env"}
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Ancestor:
    """A process above this one. Its start, in clock ticks, tells it from a later one's pid."""

    pid: int
    name: str
    parent: int
    start: int


_parent = 0  # set by `die_with_parent`, as is the next
_guardian: Ancestor | None = None  # DVC, or what else started this process


def stop_signals() -> list[signal.Signals]:
    """Return the signals that ask to stop. `nohup` has SIGHUP ignored, and so it stays."""
    hang_up = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []
    return [signal.SIGINT, signal.SIGTERM, *hang_up]


def die_with_parent() -> None:
    """Ask for a signal when the process that started this one ends, however it ends.

    A worker is killed, at once and whatever it is doing: it loses the steps since its checkpoint. A
    trainer gets SIGTERM, and has time to update MLflow. Linux signals the end of the parent; where
    a shell stands between DVC and this process, a thread waits for the end of DVC.
    """
    global _parent, _guardian
    is_trainer = multiprocessing.parent_process() is None
    number = signal.SIGTERM if is_trainer else signal.SIGKILL
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, number)
    _parent = os.getppid()
    ancestors = list(_ancestors()) if is_trainer else []
    _guardian = _choose_guardian(ancestors)
    adopted = is_trainer and _guardian is None and 1 in (_parent, *(a.pid for a in ancestors))
    if (adopted and os.getsid(1) != os.getsid(0)) or orphaned():  # the parent had ended already
        os.kill(os.getpid(), number)
    elif _guardian is not None and _guardian.pid != _parent:
        _signal_at_end(_guardian, number)


def be_killed_first() -> None:
    """Let Linux kill this process and its children where memory lacks, not those that started it.

    A command of which only a worker is killed can say so.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")  # of 1000


def orphaned() -> bool:
    """Return whether the process that started this one is gone: DVC, or a worker's trainer."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        return not parent.is_alive()
    if not _parent:
        return False
    gone = _guardian is not None and _find(_guardian.pid) != _guardian
    return gone or os.getppid() != _parent


def _choose_guardian(ancestors: list[Ancestor]) -> Ancestor | None:
    """Return DVC, if it is among them, or the nearest that is no shell; None if all are gone."""
    others = [each for each in ancestors if each.name not in SHELLS and each.pid != 1]
    return next((each for each in ancestors if _is_dvc(each.pid)), [*others, None][0])


def _ancestors() -> Iterator[Ancestor]:
    """Yield the parent, its parent, and so on."""
    pid = os.getppid()
    while (found := _find(pid)) is not None:
        yield found
        pid = found.parent


def _find(pid: int) -> Ancestor | None:
    """Return a process; None if it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    name, _, rest = stat.partition("(")[2].rpartition(")")
    fields = rest.split()
    state, parent, start = fields[0], int(fields[1]), int(fields[19])
    return None if state in "ZX" else Ancestor(pid, name, parent, start)


def _is_dvc(pid: int) -> bool:
    """Return whether a command line is that of `dvc` or `python -m dvc`, with options or not."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(os.path.basename(word) == b"dvc" for word in words[:4])


def _signal_at_end(process: Ancestor, number: int) -> None:
    """Send this process a signal when that one ends, from a thread that waits for it."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except (OSError, AttributeError):  # an old kernel: `orphaned` is asked now and then
        return

    def wait() -> None:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll()
        signal.pthread_kill(threading.main_thread().ident or 0, number)

    threading.Thread(target=wait, name="parent", daemon=True).start()
