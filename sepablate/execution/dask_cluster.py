"""Runs on the workers of a dask cluster that is there already: a task for each run.

Each task starts the usual trainer on its worker, in the project's folder, which all machines share.
Whoever reaches a scheduler of dask may run anything on its workers: keep it in a trusted network.
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sepablate.errors import UserError
from sepablate.execution import dask_task
from sepablate.execution.job import DONE, Job
from sepablate.execution.trainer import LocalTrainer, Observer, Progress, Stopped, stop_requests
from sepablate.store import checkpoint, layout
from sepablate.store.files import write_atomically

POLL = 0.5  # seconds between checks of the tasks
TIMEOUT = 10  # seconds to reach the scheduler


@dataclass(frozen=True)
class DaskTrainer(LocalTrainer):
    """Trains jobs on the cluster whose scheduler has this address."""

    address: str

    def train(self, jobs: list[Job], observe: Observer) -> Progress:
        """Train every job that is not finished.

        Raises UserError without the library, the cluster or a shared folder, Stopped after SIGINT
        or SIGTERM.
        """
        progress = Progress.of(jobs, [job.finished for job in jobs])
        with stop_requests() as stops, connect(self.address) as client, _token() as token:
            check_shared_folder(client, token)
            futures = {
                index: _submit(client, job, token)
                for index, job in enumerate(jobs)
                if not progress.steps[index]
            }
            while futures and not stops:
                time.sleep(POLL)
                for index, future in list(futures.items()):
                    progress.steps[index] = checkpoint.newest_step(jobs[index].folder)
                    if future.done():
                        progress.record(jobs[index], _failure(future) or DONE)
                        if jobs[index].name not in progress.failures:
                            progress.steps[index] = jobs[index].run.scale.steps
                        del futures[index]
                observe(progress)
            if futures:
                client.cancel(list(futures.values()))
                raise Stopped
        return progress


def _submit(client: Any, job: Job, token: Path) -> Any:
    """Return a run's future, under a new name each time: dask remembers how an old one ended."""
    run = job.run
    arguments = ["train", run.variant, "--scale", run.scale_name, "--only", job.key, "--no-mlflow"]
    arguments += ["--raw-weights"] * job.raw_weights
    name = f"{run.variant}-seed-{run.seed}-{job.key}-{token.name}"
    lock = (job.folder / layout.LOCK).absolute()
    return client.submit(dask_task.run_trainer, token, lock, arguments, key=name, pure=False)


def _failure(future: Any) -> str:
    """Return why a task failed, in one line; "" if it did not."""
    if future.status == "finished":
        return str(future.result())
    if future.status == "error":
        return " ".join(str(future.exception()).split())
    return "lost by the scheduler; the same command resumes it"


@contextmanager
def connect(address: str) -> Iterator[Any]:
    """Yield a client of the scheduler; UserError without dask or an answer."""
    try:
        from distributed import Client
    except ImportError:
        raise UserError("--cluster needs dask: pip install 'sepablate[cluster]'") from None
    try:
        client = Client(address, timeout=TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:  # dask's words for no answer, and for no address
        reason = " ".join(str(error).split())
        raise UserError(
            f"--cluster {address}: choose the address of a dask scheduler, such as "
            f"tcp://host:8786 ({reason})"
        ) from None
    with client:
        yield client


@contextmanager
def _token() -> Iterator[Path]:
    """Yield a file in .sepablate/ that a machine sees only if it shares the folder."""
    path = (layout.STATE / f"cluster-{secrets.token_hex(8)}").absolute()
    write_atomically(path, "")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def check_shared_folder(client: Any, token: Path) -> None:
    """Raise UserError for a worker that does not see the project's folder, or lacks sepablate."""
    for address, answer in client.run(dask_task.is_missing, token, on_error="return").items():
        if isinstance(answer, BaseException):
            raise UserError(f"worker {address}: {' '.join(str(answer).split())}")
        if answer:
            raise UserError(
                f"worker {address} does not see {token.parent}: share the project's folder between "
                f"the machines, at the same path"
            )
