"""Many runs at a time: each in a process of one thread; on a GPU, small ones share a process.

Not `concurrent.futures`: there, one killed worker breaks the whole pool, and workers cannot be sent
a signal on which they save a checkpoint.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess

from sepablate.errors import UserError
from sepablate.execution import cgroup, environment, hardware, process_lifetime, worker
from sepablate.execution.job import (
    DONE,
    INTERRUPTED,
    Job,
    Outcomes,
    SharedInts,
    SharedOutcomes,
)
from sepablate.execution.trainer import LocalTrainer, Observer, Progress, Stopped, stop_requests
from sepablate.runs.run import Run

POLL = 0.1  # seconds between checks of the processes
FULL_GPU_PIXELS = 1_000_000  # input pixels of a forward pass that saturates a GPU
MAX_RUNS_PER_GPU = 6  # small runs that share one
SERVER_GONE = 255  # what multiprocessing gives as a worker's exit status then
KILLED = "a process was killed, perhaps for lack of memory: free some, or raise its limit"
NOT_REPORTED = -1000  # initial status of a run; it stays if its process dies
STOPPED = (INTERRUPTED, -signal.SIGTERM, -signal.SIGKILL)  # how a worker that is stopped ends


@dataclass(frozen=True)
class Group:
    """The runs of one process, by their indices in the list of all jobs."""

    indices: list[int]
    process: ForkServerProcess

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Pool(LocalTrainer):
    """Trains jobs on this machine, `processes` runs at a time; None for as many as fit."""

    processes: int | None = None

    def train(self, jobs: list[Job], observe: Observer = lambda progress: None) -> Progress:
        """Train every job that is not finished; a finished one is left as it is.

        Raises Stopped when every process has left a checkpoint after SIGINT or SIGTERM, and at
        once, without checkpoints, if the parent process (DVC) has exited.
        """
        context, size = start_forkserver(), self.processes or default_processes(jobs)
        progress = Progress.of(jobs, [job.finished for job in jobs])
        steps = context.Array("q", progress.steps, lock=False)
        outcomes = SharedOutcomes(context, [NOT_REPORTED] * len(jobs))
        waiting = [index for index, done in enumerate(progress.steps) if not done]
        running: list[Group] = []
        with stop_requests() as stops, _stopped_by_error(running):
            while waiting or running:
                while waiting and not stops and (free_slots := size - sum(map(len, running))) > 0:
                    group = pop_next_group(jobs, waiting, free_slots)
                    process = _start(context, {i: jobs[i] for i in group}, steps, outcomes)
                    running.append(Group(group, process))
                if stops:
                    waiting.clear()
                    _stop(running)
                time.sleep(POLL)
                if process_lifetime.orphaned() and not stops:
                    stops.append(signal.SIGTERM)
                running[:] = reap_workers(jobs, running, outcomes, progress, bool(stops))
                progress.steps = list(steps)
                observe(progress)
            if stops and progress.finished + len(progress.failures) < len(jobs):
                raise Stopped
        return progress


def start_forkserver() -> ForkServerContext:
    """Start, in the background, the server that forks workers with torch already imported.

    A forked worker starts in milliseconds, and one that crashes does not crash the others. (Runs
    that share a process crash together, and resume from their checkpoints.)
    """
    environment.use_short_socket_folder()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sepablate.execution.preload"])
    os.environ["OMP_NUM_THREADS"] = "1"
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the server, while it imports
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, handler)
    return context


def default_processes(jobs: list[Job]) -> int:
    """Return how many runs fit at a time: one a core; on each GPU one, or several small ones."""
    devices = hardware.devices()
    if devices == ["cpu"]:
        return cgroup.cores()
    return len(devices) * min((_runs_per_gpu(job.run) for job in jobs), default=1)


def pop_next_group(jobs: list[Job], waiting: list[int], free_slots: int) -> list[int]:
    """Take the jobs of one process out of `waiting`: one, or on a GPU several that share it."""
    first = jobs[waiting[0]]
    size = min(free_slots, _runs_per_gpu(first.run)) if first.device != "cpu" else 1
    group = [index for index in waiting if jobs[index].device == first.device][:size]
    for index in group:
        waiting.remove(index)
    return group


def reap_workers(
    jobs: list[Job],
    running: list[Group],
    outcomes: Outcomes,
    progress: Progress,
    stopping: bool,
) -> list[Group]:
    """Record how the runs of ended processes ended; return the groups that go on."""
    alive = [group for group in running if group.process.is_alive()]
    for group in (group for group in running if group not in alive):
        for index in group.indices:
            status = outcomes[index]
            if status == NOT_REPORTED:
                status = group.process.exitcode or DONE
                status = KILLED if status == SERVER_GONE else status
            if not (stopping and status in STOPPED):
                progress.record(jobs[index], status)
    return alive


def _runs_per_gpu(run: Run) -> int:
    """Return how many runs like this one share a GPU; only CUDA graphs can take turns on it."""
    pixels = (run.scale.micro_batch or run.scale.batch_size) * run.image_size**2
    fit = max(1, min(MAX_RUNS_PER_GPU, FULL_GPU_PIXELS // pixels))
    return fit if run.kernels == "triton" else 1


def _start(
    context: ForkServerContext, group: dict[int, Job], steps: SharedInts, outcomes: Outcomes
) -> ForkServerProcess:
    others = len(group) - 1
    jobs = {i: dataclasses.replace(job, co_located_runs=others) for i, job in group.items()}
    name = next(iter(jobs.values())).key
    process = context.Process(target=worker.run_jobs, args=(jobs, steps, outcomes), name=name)
    try:
        process.start()
    except (EOFError, ConnectionError):  # of the server, while it forks
        raise UserError(KILLED) from None
    return process


@contextlib.contextmanager
def _stopped_by_error(running: list[Group]) -> Iterator[None]:
    """Stop the workers if an exception ends the training: at exit, Python would wait for them."""
    try:
        yield
    except BaseException:
        _stop(running)
        raise


def _stop(running: list[Group]) -> None:
    for group in running:
        if process_lifetime.orphaned():
            group.process.kill()
        else:
            group.process.terminate()
