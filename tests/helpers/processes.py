"""Commands of a copy of the project as processes that tests disturb, and look after."""

import fcntl
import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

from helpers import fork_server
from helpers.fork_server import BIN
from helpers.project import PATIENCE, checkpoints, living, sepablate, wait_for


def start(
    project: Path, *command: str, slow: bool = False, before: str = "", **environment: str
) -> fork_server.Command:
    """`python -m` that command, in a process group of its own, as a terminal starts it.

    slow: on a disk that takes 0.3 s for each flush, so that there is time to disturb it.
    before: code that comes first.
    """
    own, before = {**os.environ, **environment}, before + SLOW_DISK * slow
    request = fork_server.request(project, *command, environment=own, group=True, before=before)
    ours, its = os.pipe()
    with open(os.devnull) as nothing:
        started = fork_server.Command(fork_server.address(), request, nothing.fileno(), its, its)
    os.close(its)
    started.stdout = os.fdopen(ours)
    return started


def start_dvc(
    project: Path, terminal: int | None = None, **environment: str
) -> subprocess.Popen[str]:
    """Real DVC that trains Xception, by `python`, to be killed, on a slow disk.

    terminal: the open terminal that it belongs to.
    """

    def begin() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests: `nohup`
        if terminal is not None:
            fcntl.ioctl(terminal, termios.TIOCSCTTY)

    assert sepablate(project, "fetch").returncode == 0  # else a stage of its own
    hook = project / "slow-disk"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(SLOW_DISK)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "--single-item", "train@xception"],
        cwd=project,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(hook), **environment},
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


def ended(process: subprocess.Popen[str] | fork_server.Command) -> tuple[int, str]:
    """Exit status and output of a process that `start` started, when nothing of it is left."""
    output, _ = process.communicate(timeout=PATIENCE)
    wait_for(lambda: not living(process.pid))
    return process.returncode, output


def dvc(project: Path, *arguments: str) -> str:
    """Run DVC in the project; a server forks it and its stages."""
    status, output = ended(start(project, "dvc", *arguments, **forking()))
    assert status == 0, output
    return output


def forking() -> dict[str, str]:
    """The environment in which `python -m sepablate` is forked by the server of this process."""
    path = f"{BIN}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    server = {fork_server.SERVER: fork_server.address()}
    return {"PATH": path, "SEPABLATE_TESTS_PYTHON": sys.executable, **server}


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
