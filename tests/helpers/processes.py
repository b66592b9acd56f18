"""Commands of a copy of the project as processes that tests disturb, and look after."""

import fcntl
import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

from helpers.project import PATIENCE, checkpoints, living, wait_for


def start(
    project: Path,
    *command: str,
    slow: bool = False,
    terminal: int | None = None,
    **environment: str,
) -> subprocess.Popen[str]:
    """`python -m` that command, in a process group of its own, as a terminal starts it.

    slow: on a disk that takes 0.3 s for each flush, so that there is time to disturb it.
    terminal: the open terminal that it belongs to.
    """

    def begin() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests: `nohup`
        if terminal is not None:
            fcntl.ioctl(terminal, termios.TIOCSCTTY)

    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {**os.environ, "PATH": path, **environment}
    if slow:
        hook = project / "slow-disk"
        hook.mkdir(exist_ok=True)
        (hook / "sitecustomize.py").write_text(SLOW_DISK)
        own["PYTHONPATH"] = str(hook)
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=project,
        env=own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=begin,
    )


SLOW_DISK = """
import os, time
fsync = os.fsync
os.fsync = lambda file: (fsync(file), time.sleep(0.3))
"""


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and output of a process that `start` started, when nothing of it is left."""
    output, _ = process.communicate(timeout=PATIENCE)
    wait_for(lambda: not living(process.pid))
    return process.returncode, output


def dvc(project: Path, *arguments: str) -> str:
    """Run real DVC in the project, this environment's Python first on the path."""
    status, output = ended(start(project, "dvc", *arguments))
    assert status == 0, output
    return output


def holders(project: Path, group: int) -> list[int]:
    """The processes of the group that hold the lock of a run: its workers."""
    locks = {path.resolve() for path in (project / ".sepablate/runs").glob("*/lock")}
    return [pid for pid in living(group) if locks & opened(pid)]


def opened(pid: int) -> set[Path]:
    """The files that a process has open."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            found.add(link.readlink())
        except OSError:
            continue
    return found


def interrupt(project: Path, variant: str, number: int = signal.SIGTERM) -> int:
    """Train a variant until there is a checkpoint; the exit status."""
    process = start(project, "sepablate", "train", variant, "--no-mlflow", slow=True)
    wait_for(lambda: checkpoints(project))
    process.send_signal(number)
    return ended(process)[0]
