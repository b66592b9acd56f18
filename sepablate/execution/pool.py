"""Many runs side by side: each in a process of one thread; on a GPU, small ones share a process."""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

from sepablate.execution import hardware, process_lifetime
from sepablate.execution.job import DONE, INTERRUPTED, Job

POLL = 0.1  # seconds between looks at the processes
SMALL = 1_000_000  # pixels of a forward pass that fill a GPU
TOGETHER = 6  # small runs that share one
UNKNOWN = -1000  # how a run ended that shared its process and did not tell
STOPPED = (INTERRUPTED, -signal.SIGTERM, -signal.SIGKILL)  # how a worker obeys


class Stopped(KeyboardInterrupt):
    """The user asked to stop, or DVC is gone; the same command goes on from the checkpoints."""


@dataclass
class Progress:
    """What a bar shows: steps done of each run, and how many runs are finished."""

    steps: list[int]
    finished: int = 0
    failures: dict[str, int | str] = field(default_factory=dict)  # run -> exit status, or reason


@dataclass(frozen=True)
class Group:
    """The runs of one process, by their places among all jobs."""

    indices: list[int]
    process: ForkServerProcess

    def __len__(self) -> int:
        return len(self.indices)


def warm_up() -> ForkServerContext:
    """Start, in the background, the server that forks workers with torch already imported.

    A forked worker starts in milliseconds, and a worker that crashes takes no other with it. (Runs
    that share one crash together, and go on from their checkpoints when they are started again.)
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sepablate.execution.preload"])
    os.environ["OMP_NUM_THREADS"] = "1"
    forkserver.ensure_running()
    return context


def train(
    jobs: list[Job],
    processes: int,
    observe: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Train every job that is not finished, `processes` at a time; the others are left as they are.

    Raises Stopped after SIGINT or SIGTERM, when every process has left a checkpoint; without one,
    at once, if DVC is gone. A run that fails is named in the returned progress, and does not stop
    the others.
    """
    context = warm_up()
    shared, ended = (context.Array("q", len(jobs), lock=False) for _ in range(2))
    progress = Progress(steps=[job.run.scale.steps if job.finished else 0 for job in jobs])
    for index, steps in enumerate(progress.steps):
        shared[index], ended[index] = steps, UNKNOWN
    waiting = [index for index, job in enumerate(jobs) if not job.finished]
    progress.finished = len(jobs) - len(waiting)
    running: list[Group] = []
    with stop_requests() as stops:
        while waiting or running:
            while waiting and not stops and (room := processes - sum(map(len, running))) > 0:
                group = _next_group(jobs, waiting, room)
                running.append(Group(group, _start(context, jobs, group, shared, ended)))
            if stops:
                waiting.clear()
                for each in running:
                    each.process.kill() if process_lifetime.orphaned() else each.process.terminate()
            time.sleep(POLL)
            if process_lifetime.orphaned() and not stops:
                stops.append(signal.SIGTERM)
            running = _collect(jobs, running, ended, progress, stopping=bool(stops))
            progress.steps = list(shared)
            observe(progress)
        if stops and progress.finished + len(progress.failures) < len(jobs):
            raise Stopped
    return progress


def jobs_for(runs: list[Any], label: str) -> list[Job]:
    """A job per run, dealt out over the devices of this machine."""
    devices, commit = hardware.devices(), hardware.commit()
    return [
        Job(run, label, run.key, devices[index % len(devices)], commit)
        for index, run in enumerate(runs)
    ]


def default_processes(jobs: list[Job]) -> int:
    """How many runs at a time: one a core; or on each GPU one, or several that are small."""
    devices = hardware.devices()
    if devices == ["cpu"]:
        return len(os.sched_getaffinity(0))
    return len(devices) * min((_together(job.run) for job in jobs), default=1)


def _together(run: Any) -> int:
    """How many runs like this one share a GPU; only recorded steps can take turns on it."""
    pixels = (run.scale.micro_batch or run.scale.batch_size) * run.image_size**2
    return max(1, min(TOGETHER, SMALL // pixels)) if run.kernels == "triton" else 1


def _next_group(jobs: list[Job], waiting: list[int], room: int) -> list[int]:
    """Take the jobs of one process out of `waiting`: one, or on a GPU several that share it."""
    first = jobs[waiting[0]]
    size = min(room, _together(first.run)) if first.device != "cpu" else 1
    group = [index for index in waiting if jobs[index].device == first.device][:size]
    for index in group:
        waiting.remove(index)
    return group


def _start(
    context: ForkServerContext, jobs: list[Job], group: list[int], shared: Any, ended: Any
) -> ForkServerProcess:
    beside = len(group) - 1
    own = {index: dataclasses.replace(jobs[index], beside=beside) for index in group}
    process = context.Process(target=_work, args=(own, shared, ended), name=jobs[group[0]].key)
    process.start()
    return process


def _work(jobs: dict[int, Job], progress: Any, ended: Any) -> None:
    from sepablate.execution import worker  # only a worker trains

    if len(jobs) > 1:
        return worker.work_together(jobs, progress, ended)
    ((index, job),) = jobs.items()
    return worker.work(job, progress, index)


def _collect(
    jobs: list[Job], running: list[Group], ended: Any, progress: Progress, stopping: bool
) -> list[Group]:
    """Note how the runs of ended processes ended; the processes that go on."""
    alive = [group for group in running if group.process.is_alive()]
    for group in running:
        if group in alive:
            continue
        for index in group.indices:
            status = ended[index]
            if status == UNKNOWN:
                status = group.process.exitcode or 0
            if status == DONE:
                progress.finished += 1
            elif not (stopping and status in STOPPED):
                progress.failures[f"{jobs[index].run.variant} seed {jobs[index].run.seed}"] = status
    return alive


@contextlib.contextmanager
def stop_requests() -> Iterator[list[int]]:
    """A list that fills when the user asks to stop."""
    stops: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: stops.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stops
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
