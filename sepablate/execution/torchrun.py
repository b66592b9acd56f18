"""One run after the other, each on all the processes that torchrun has started, on any machines.

The leading process does what a trainer does alone, and tells the others which run to train with it;
they read no parameters and write no files. One that fails leaves, and torchrun ends the others.
"""

import contextlib
import dataclasses
import os
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from torch import distributed

from sepablate import data
from sepablate.errors import UserError
from sepablate.execution import pool, process_lifetime, worker
from sepablate.execution.job import DONE, INTERRUPTED, Job
from sepablate.scales import Scale
from sepablate.store import checkpoint
from sepablate.training import engine, process_group

PATIENCE = timedelta(minutes=30)  # with another process: one may list a million files, say
STOPPED = INTERRUPTED
SHARED_WITHIN = 60.0  # seconds until what one machine has written is seen on the others


@dataclass
class Team:
    """The processes that torchrun has started. device: this one's; parted: they no longer talk."""

    ranks: process_group.Ranks
    device: str
    parted: bool = False

    def train(self, jobs: list[Job], observe: Callable[[pool.Progress], None]) -> pool.Progress:
        """Train every job that is not finished, one after the other, on all processes together.

        For the leading process. Raises Stopped after SIGINT or SIGTERM to any process. After a run
        that fails in its midst no other begins.
        """
        done = [job.finished for job in jobs]
        steps = [job.run.scale.steps * whole for job, whole in zip(jobs, done, strict=True)]
        progress = pool.Progress(steps, sum(done))

        def tell(index: int, step: int) -> None:
            steps[index] = step
            observe(progress)

        with pool.stop_requests() as stops:
            for index, job in enumerate(jobs):
                if done[index] or self.parted:
                    continue
                if stops or (status := self._lead(job, partial(tell, index), stops)) == STOPPED:
                    raise pool.Stopped
                if status == DONE:
                    progress.finished += 1
                else:
                    progress.failures[f"{job.run.variant} seed {job.run.seed}"] = status
        observe(progress)
        return progress

    def _lead(self, job: Job, tell: Callable[[int], None], stops: list[int]) -> int:
        job = dataclasses.replace(job, device=self.device, processes=self.ranks.world)

        def begin() -> None:
            checkpoint.load(job.folder)  # deletes what is damaged, before the others look
            _say((job, checkpoint.newest_step(job.folder)))
            self.parted = True

        train = partial(worker.train, job, tell, stops, self.ranks, begin)
        status = worker.run_locked(job, train)
        if status in (DONE, STOPPED):
            self.parted = False
        return status

    def follow(self) -> int:
        """Train what the leading process says, until it gives the exit status for all."""
        stops: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: stops.append(number))
        while not isinstance(told := _say(None), int):
            job, step = told
            self._train_along(job, step, stops)
        return told

    def _train_along(self, job: Job, step: int, stops: list[int]) -> None:
        deadline = time.monotonic() + SHARED_WITHIN
        while not (job.folder / "run.json").exists() or checkpoint.newest_step(job.folder) != step:
            if time.monotonic() > deadline:
                raise UserError(
                    f"{job.folder.absolute()}: no checkpoint of step {step} as on the leading "
                    f"machine: share the project's folder between the machines"
                )
            time.sleep(0.1)
        if job.run.key != job.key:
            raise UserError(f"run {job.key}: other code, data or torch on the leading machine")
        with contextlib.suppress(engine.Interrupted):  # the leading process says what is next
            engine.fit(
                job.run,
                data.dataset(job.run.dataset).load(data.FOLDER),
                job.folder,
                device=self.device,
                ranks=self.ranks,
                stopping=lambda: bool(stops) or process_lifetime.orphaned(),
            )

    def dismiss(self, status: int) -> None:
        """End the other processes with that exit status, the last thing that the leading one does.

        Where one of them ends, torchrun stops the rest: it must not hit this one's last words.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if not self.parted:
            _say(status)


def join() -> Team:
    """Connect the processes; UserError if this machine has fewer accelerators than processes."""
    local, here = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    count, device = torch.cuda.device_count(), "cpu"
    if 0 < count < here:
        raise UserError(
            f"torchrun --nproc-per-node {here}: choose at most the {count} accelerators"
        )
    worker.tune_allocator()
    # It is the same as long as no buffer is sent at all, but has its new name only in newer torch.
    warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
    if count:
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    # Gloo as well: what the processes tell each other of losses and scores lies on the CPU.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if count else "gloo", timeout=PATIENCE)
    return Team(process_group.join(), device)


def check(name: str, scale: Scale, world: int) -> None:
    """UserError unless each process gets whole parts of a batch, whose size decides the numbers.

    The number of processes is not in a run's key, and must not change what is computed.
    """
    if world == 1:
        return
    place = f"params.yaml: scales.{name}"
    if not scale.micro_batch:
        raise UserError(
            f"{place}.micro_batch: 0: choose the images of one forward pass, a divisor of "
            f"{scale.batch_size / world:g} (batch_size {scale.batch_size} over {world} processes)"
        )
    if scale.batch_size % (world * scale.micro_batch):
        raise UserError(
            f"{place}.batch_size: {scale.batch_size}: choose a multiple of {world} processes x "
            f"micro_batch {scale.micro_batch}"
        )


def _say(message: Any) -> Any:
    """What the leading process says, on every process."""
    box = [message]
    distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]
