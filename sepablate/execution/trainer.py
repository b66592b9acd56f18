"""The interface of everything that trains jobs, and how far it is."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from sepablate.execution.job import DONE, Job
from sepablate.execution.process_lifetime import stop_signals

T = TypeVar("T")


class Stopped(KeyboardInterrupt):
    """The user asked to stop, or DVC is gone; the same command resumes from the checkpoints."""


@dataclass
class Progress:
    """How far the training of some jobs is.

    Args:
        steps: done of each run.
        finished: how many runs are.
        failures: by a run's name, the exit status of its process, or the reason.
    """

    steps: list[int]
    finished: int = 0
    failures: dict[str, int | str] = field(default_factory=dict)

    @classmethod
    def of(cls, jobs: list[Job], finished: list[bool]) -> "Progress":
        """Return the progress before anything is trained."""
        steps = [job.run.scale.steps * done for job, done in zip(jobs, finished, strict=True)]
        return cls(steps, sum(finished))

    def record(self, job: Job, status: int | str) -> None:
        """Take note of how a run ended."""
        if status == DONE:
            self.finished += 1
        else:
            self.failures[job.name] = status


Observer = Callable[[Progress], None]


class Trainer(Protocol):
    """Trains jobs on some processes. Of several processes that do the same, one is the main one."""

    @property
    def is_main(self) -> bool:
        """Return whether this process speaks to the user and writes the files."""

    def resolve(self, make_jobs: Callable[[], list[Job]]) -> list[Job]:
        """Return the jobs that `make_jobs` makes, the same on all processes, or raise UserError."""

    def agree(self, value: T) -> T:
        """Return the main process's value on all processes."""

    def train(self, jobs: list[Job], observe: Observer) -> Progress:
        """Train every job that is not finished.

        A run that fails is named in the returned progress and does not stop the others. Raises
        Stopped after SIGINT or SIGTERM.
        """


class LocalTrainer:
    """The part of a Trainer that is trivial where only one process resolves jobs."""

    is_main = True

    def resolve(self, make_jobs: Callable[[], list[Job]]) -> list[Job]:
        """Return the jobs."""
        return make_jobs()

    def agree(self, value: T) -> T:
        """Return the value."""
        return value


@contextlib.contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Yield a list that fills with signals when the user asks to stop."""
    stops: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: stops.append(number))
        for number in stop_signals()
    }
    try:
        yield stops
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
