"""Many runs side by side: a process of one thread for each, as many as cores or accelerators."""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

from sepablate.training import lifeline, machine
from sepablate.training.job import DONE, INTERRUPTED, Job

POLL = 0.1  # seconds between looks at the processes
STOPPED = (INTERRUPTED, -signal.SIGTERM, -signal.SIGKILL)  # how a worker obeys


class Stopped(KeyboardInterrupt):
    """The user asked to stop, or DVC is gone; the same command goes on from the checkpoints."""


@dataclass
class Progress:
    """What a bar shows: steps done of each run, and how many runs are finished."""

    steps: list[int]
    finished: int = 0
    failures: dict[str, int | str] = field(default_factory=dict)  # run -> exit status, or reason


def warm_up() -> ForkServerContext:
    """Start, in the background, the server that forks workers with torch already imported.

    A forked worker starts in milliseconds, and a worker that crashes takes no other with it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sepablate.training.preload"])
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
    shared = context.Array("q", len(jobs), lock=False)
    progress = Progress(steps=[job.run.scale.steps if job.finished else 0 for job in jobs])
    for index, steps in enumerate(progress.steps):
        shared[index] = steps
    waiting = [index for index, job in enumerate(jobs) if not job.finished]
    progress.finished = len(jobs) - len(waiting)
    running: dict[int, ForkServerProcess] = {}
    with stop_requests() as stops:
        while waiting or running:
            while waiting and len(running) < processes and not stops:
                index = waiting.pop(0)
                running[index] = _start(context, jobs[index], shared, index)
            if stops:
                waiting.clear()
                for process in running.values():
                    process.kill() if lifeline.orphaned() else process.terminate()
            time.sleep(POLL)
            if lifeline.orphaned() and not stops:
                stops.append(signal.SIGTERM)
            _collect(jobs, running, progress, stopping=bool(stops))
            progress.steps = list(shared)
            observe(progress)
        if stops and progress.finished + len(progress.failures) < len(jobs):
            raise Stopped
    return progress


def jobs_for(runs: list[Any], label: str) -> list[Job]:
    """A job per run, dealt out over the devices of this machine."""
    devices, commit = machine.devices(), machine.commit()
    return [
        Job(run, label, run.key, devices[index % len(devices)], commit)
        for index, run in enumerate(runs)
    ]


def default_processes() -> int:
    """One a core, or one an accelerator where there is one."""
    devices = machine.devices()
    return len(os.sched_getaffinity(0)) if devices == ["cpu"] else len(devices)


def _start(context: ForkServerContext, job: Job, shared: Any, index: int) -> ForkServerProcess:
    process = context.Process(target=_work, args=(job, shared, index), name=job.key)
    process.start()
    return process


def _work(job: Job, progress: Any, index: int) -> None:
    from sepablate.training import worker  # only a worker trains

    worker.work(job, progress, index)


def _collect(
    jobs: list[Job], running: dict[int, ForkServerProcess], progress: Progress, stopping: bool
) -> None:
    """Take the ended processes out of `running` and note how they ended."""
    for index, process in list(running.items()):
        if process.is_alive():
            continue
        del running[index]
        status = process.exitcode or 0
        if status == DONE:
            progress.finished += 1
        elif not (stopping and status in STOPPED):
            progress.failures[f"{jobs[index].run.variant} seed {jobs[index].run.seed}"] = status


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
