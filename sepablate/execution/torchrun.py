"""Runs one after the other, each on all the processes that torchrun has started, on any machines.

Single program, multiple data: every process resolves the same jobs, which is checked by their keys,
and trains them in the same order. The main process holds the locks and reads and writes the files.
A process that fails leaves, and torchrun ends the others.
"""

import contextlib
import dataclasses
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from sepablate import scales
from sepablate.errors import UserError
from sepablate.execution import environment, hardware, process_lifetime, worker
from sepablate.execution.job import BUSY, DONE, INTERRUPTED, Job
from sepablate.execution.trainer import Observer, Progress, Stopped, stop_requests
from sepablate.scales import Scale
from sepablate.training.process_group import World

PATIENCE = timedelta(minutes=30)  # with another process: one may list a million files, say
T = TypeVar("T")


@dataclass
class TorchrunTrainer:
    """Trains each job on all processes of torchrun.

    Args:
        device: this process's.
        in_step: whether all processes make the same calls; not after a run has failed.
    """

    world: World
    device: str
    in_step: bool = True

    @classmethod
    @contextlib.contextmanager
    def connect(cls, scale: str) -> Iterator["TorchrunTrainer"]:
        """Connect the processes; at the end they wait for the main one.

        Raises UserError if this machine has fewer accelerators than processes, or the scale's
        batches cannot be divided between them.
        """
        environment.use_short_socket_folder()
        trainer = cls(*_connect())
        try:
            check_batches(scale, scales.load(scale)[0], trainer.world.size)
            yield trainer
        except (UserError, Stopped):  # raised by all processes
            raise
        except BaseException:
            trainer.in_step = False
            raise
        finally:
            trainer.wait_for_main()

    @property
    def is_main(self) -> bool:
        """Return whether this process writes the files."""
        return self.world.is_main

    def resolve(self, make_jobs: Callable[[], list[Job]]) -> list[Job]:
        """Return the jobs that all processes make; UserError if one cannot, or their keys differ.

        Only the main process says why; the others exit.
        """
        jobs, reason = [], ""
        try:
            jobs = make_jobs()
        except UserError as error:
            reason = str(error)
        answers = self.world.gather((reason, [job.key for job in jobs]))
        for rank, (rank_reason, keys) in enumerate(answers):
            if rank_reason:
                raise UserError(rank_reason if rank == 0 else f"process {rank}: {rank_reason}")
            if keys != answers[0][1]:
                raise UserError(
                    f"process {rank} resolves other run keys than process 0: use the same code, "
                    f"data, params.yaml and torch on all machines"
                )
        return jobs

    def agree(self, value: T) -> T:
        """Return the main process's value on all processes."""
        return self.world.broadcast(value)

    def train(self, jobs: list[Job], observe: Observer) -> Progress:
        """Train every job that is not finished, one after the other, on all processes together.

        Raises Stopped after SIGINT or SIGTERM to any process. After a run that fails in its midst
        no other begins.
        """
        finished = self.agree([job.finished for job in jobs])
        progress = Progress.of(jobs, finished)
        with stop_requests() as stops:
            for index, job in enumerate(jobs):
                if finished[index] or not self.in_step:
                    continue
                if any(self.world.totals(bool(stops))):
                    raise Stopped
                job = dataclasses.replace(job, device=self.device, processes=self.world.size)
                steps = ObservedSteps(progress, observe)
                monitor = worker.RunMonitor(job, stops, steps, index, self.is_main)
                status = worker.run_job(job, monitor, self.world)
                if status == INTERRUPTED:
                    raise Stopped
                self.in_step = status in (DONE, BUSY)
                progress.record(job, status)
        observe(progress)
        return progress

    def wait_for_main(self) -> None:
        """Wait until the main process is done.

        Where one process ends, torchrun stops the others: it must not interrupt the main process.
        """
        for number in process_lifetime.stop_signals():
            signal.signal(number, signal.SIG_IGN)
        if self.in_step:
            with contextlib.suppress(RuntimeError):  # the main process is gone
                self.agree(None)


@dataclass
class ObservedSteps:
    """The steps done of each run, shown as they change."""

    progress: Progress
    observe: Observer

    def __getitem__(self, index: int) -> int:
        return self.progress.steps[index]

    def __setitem__(self, index: int, step: int) -> None:
        self.progress.steps[index] = step
        self.observe(self.progress)


def check_batches(name: str, scale: Scale, processes: int) -> None:
    """Raise UserError unless each process gets whole parts of a batch.

    The size of a part decides the numbers. The number of processes is not in a run's key and must
    not change what is computed.
    """
    if processes == 1:
        return
    place = f"params.yaml: scales.{name}"
    if not scale.micro_batch:
        raise UserError(
            f"{place}.micro_batch: 0: choose the images of one forward pass, a divisor of "
            f"{scale.batch_size / processes:g} (batch_size {scale.batch_size} over {processes} "
            f"processes)"
        )
    if scale.batch_size % (processes * scale.micro_batch):
        raise UserError(
            f"{place}.batch_size: {scale.batch_size}: choose a multiple of {processes} processes x "
            f"micro_batch {scale.micro_batch}"
        )


def _connect() -> tuple[World, str]:
    """Initialise torch's process group; return it with this process's device."""
    local_rank, local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    count, device = sum(name != "cpu" for name in hardware.devices()), "cpu"
    if 0 < count < local_size:
        raise UserError(
            f"torchrun --nproc-per-node {local_size}: choose at most the {count} accelerators"
        )
    worker.tune_allocator()
    # It is the same as long as no buffer is sent at all, but has its new name only in newer torch.
    warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
    if count:
        device = f"cuda:{local_rank}"
        torch.cuda.set_device(local_rank)
    # Gloo as well: losses and scores that the processes exchange lie on the CPU.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if count else "gloo", timeout=PATIENCE)
    return World(distributed.get_rank(), distributed.get_world_size()), device
