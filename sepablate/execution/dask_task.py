"""A task on a worker of a dask cluster: one trainer, that ends with its task. Imports no torch."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sepablate.store.files import locked

ENDS_WITH_PARENT = "SEPABLATE_ENDS_WITH_PARENT"  # set for a trainer
POLL = 0.2  # seconds between checks of the trainer
PATIENCE = 60.0  # seconds for the trainer of a lost worker to release its run


def is_missing(token: Path) -> bool:
    """Return whether this machine lacks a file that another one has just written."""
    return not token.exists()


def run_trainer(token: Path, lock: Path, arguments: list[str]) -> str:
    """Run `sepablate` with these arguments in the folder of `token`; return why it failed, or "".

    For a worker of dask: the trainer is asked to stop when the task is no longer wanted.
    """
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state == "executing"

    if is_missing(token):
        return f"{worker.address} does not see {token.parent}: share the project's folder"
    _wait_until_free(lock, wanted)
    return _run([sys.executable, "-m", "sepablate", *arguments], token.parents[1], wanted)


def _wait_until_free(lock: Path, wanted: Callable[[], bool]) -> None:
    """Wait for the run's lock: dask reassigns the run of a lost worker at once."""
    deadline = time.monotonic() + PATIENCE
    while lock.exists() and wanted() and time.monotonic() < deadline:
        try:
            with locked(lock, wait=False):
                return
        except BlockingIOError:
            time.sleep(POLL)


def _run(command: list[str], folder: Path, wanted: Callable[[], bool]) -> str:
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {ENDS_WITH_PARENT: "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        while process.poll() is None:
            if not wanted():
                process.terminate()
            time.sleep(POLL)
        errors.seek(0)
        lines = errors.read().strip().splitlines()
    if process.returncode < 0:
        return f"ended by {signal.Signals(-process.returncode).name}"
    return (lines or ["failed"])[-1].removeprefix("sepablate: ") if process.returncode else ""
