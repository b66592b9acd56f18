"""Runs side by side on the workers of a dask cluster that is there already: a task for each run.

Each task starts the usual trainer on its worker, in the project's folder, which all machines share.
Whoever reaches a scheduler of dask may run anything on its workers: keep it in a trusted network.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sepablate.errors import UserError
from sepablate.execution import dask_task, pool
from sepablate.execution.job import FOLDER, Job
from sepablate.store import checkpoint
from sepablate.store.files import write_atomically

POLL = 0.5  # seconds between looks at the tasks
TIMEOUT = 10  # seconds to reach the scheduler


def train(address: str, jobs: list[Job], observe: Callable[[pool.Progress], None]) -> pool.Progress:
    """Train every job that is not finished on the cluster whose scheduler has this address.

    Raises UserError without the library, the cluster or a shared folder, Stopped after SIGINT or
    SIGTERM. A run that fails is named in the returned progress, and does not stop the others.
    """
    steps = [job.run.scale.steps if job.finished else 0 for job in jobs]
    progress = pool.Progress(steps, sum(map(bool, steps)))
    with pool.stop_requests() as stops, _client(address) as client, _token() as token:
        _check_shared(client, token)
        futures = {
            index: _submitted(client, job, token)
            for index, job in enumerate(jobs)
            if not steps[index]
        }
        while futures and not stops:
            time.sleep(POLL)
            for index, future in list(futures.items()):
                steps[index] = checkpoint.newest_step(jobs[index].folder)
                if future.done():
                    _note(progress, jobs[index], index, _reason(future))
                    del futures[index]
            observe(progress)
        if futures:
            client.cancel(list(futures.values()))
            raise pool.Stopped
    return progress


def _note(progress: pool.Progress, job: Job, index: int, reason: str) -> None:
    """Take in how a run ended."""
    if reason:
        progress.failures[f"{job.run.variant} seed {job.run.seed}"] = reason
    else:
        progress.finished += 1
        progress.steps[index] = job.run.scale.steps


def _submitted(client: Any, job: Job, token: Path) -> Any:
    """The future of a run, under a new name each time: dask remembers how an old one ended."""
    run = job.run
    arguments = ["train", run.variant, "--scale", run.scale_name, "--only", job.key, "--no-mlflow"]
    name = f"{run.variant}-seed-{run.seed}-{job.key}-{token.name}"
    lock = (job.folder / "lock").absolute()
    return client.submit(dask_task.train, token, lock, arguments, key=name, pure=False)


def _reason(future: Any) -> str:
    """Why a task failed, in one line; nothing if it did not."""
    if future.status == "finished":
        return future.result()
    if future.status == "error":
        return " ".join(str(future.exception()).split())
    return "the scheduler has lost it; the same command resumes it"


@contextmanager
def _client(address: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError:
        raise UserError("--cluster needs dask: pip install 'sepablate[cluster]'") from None
    try:
        client = Client(address, timeout=TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"--cluster {address}: choose the address of a dask scheduler, such as "
            f"tcp://host:8786 ({reason})"
        ) from None
    with client:
        yield client


@contextmanager
def _token() -> Iterator[Path]:
    """A file in .sepablate/ that a machine finds only if it shares the folder."""
    path = (FOLDER.parent / f"cluster-{secrets.token_hex(8)}").absolute()
    write_atomically(path, "")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _check_shared(client: Any, token: Path) -> None:
    """UserError names the workers that do not see the project's folder, or lack sepablate."""
    for address, answer in client.run(dask_task.unseen, token, on_error="return").items():
        if isinstance(answer, BaseException):
            raise UserError(f"worker {address}: {' '.join(str(answer).split())}")
        if answer:
            raise UserError(
                f"worker {address} does not see {token.parent}: share the project's folder between "
                f"the machines, at the same path"
            )
