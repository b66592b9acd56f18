"""A run as a piece of work: where its files are, and how a process that trains it ends."""

import os
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Protocol

from sepablate.execution import hardware
from sepablate.runs.run import Run
from sepablate.store.files import corrupt_files
from sepablate.store.layout import run_folder
from sepablate.store.run_files import is_finished

# Exit statuses of a worker.
DONE, FAILED, NO_SPACE, INTERRUPTED, BUSY = 0, 1, os.EX_IOERR, os.EX_TEMPFAIL, 76
REFUSED = os.EX_NOPERM  # with a reason in words
REASON_BYTES = 500


@dataclass(frozen=True)
class Job:
    """A run to train.

    Args:
        label: the variant's name in tables and legends.
        key: the run key.
        commit: the code that is checked out.
        processes: how many train it together.
        co_located_runs: other runs that its process trains at the same time.
        raw_weights: keep those of the last step as well as the averaged ones.
    """

    run: Run
    label: str
    key: str
    device: str
    commit: str
    processes: int = 1
    co_located_runs: int = 0
    raw_weights: bool = False

    @property
    def name(self) -> str:
        """Return the job's name in messages; it names the setting of a robustness study."""
        run = self.run
        setting = run.scale_name.partition(".")[2]
        name = f"{run.variant} seed {run.seed}" + (f" at {setting}" if setting else "")
        if not run.trial_images:
            return name
        recipe, size = run.recipe, run.scale.batch_size
        return f"{name} at rate {recipe.learning_rate:g}, {recipe.decays} decays, batch {size}"

    @property
    def folder(self) -> Path:
        """Return the folder of the run's state until, and its files after, it is finished."""
        return run_folder(self.key)

    @property
    def finished(self) -> bool:
        """Return whether the run's result is on disk, every byte as it was written."""
        return is_finished(self.folder, self.key)

    @property
    def corrupt_files(self) -> list[str]:
        """Return the files of a finished run that are no longer as they were written."""
        return corrupt_files(self.folder)


def make_jobs(runs: list[Run], label: str) -> list[Job]:
    """Return a job per run, dealt out over the devices of this machine."""
    devices, commit = hardware.devices(), hardware.commit()
    return [
        Job(run, label, run.key, devices[index % len(devices)], commit)
        for index, run in enumerate(runs)
    ]


class SharedInts(Protocol):
    """An array of numbers that processes share."""

    def __getitem__(self, index: int) -> int: ...

    def __setitem__(self, index: int, value: int) -> None: ...


class Outcomes(Protocol):
    """How each run ended: a status, or the reason in words why it could not be trained."""

    def __getitem__(self, index: int) -> int | str: ...

    def __setitem__(self, index: int, outcome: int | str) -> None: ...


class SharedOutcomes:
    """Outcomes in memory that processes share; a long reason is cut."""

    def __init__(self, context: BaseContext, initial: list[int]) -> None:
        self.statuses = context.Array("q", initial, lock=False)
        self.reasons = context.Array("c", len(initial) * REASON_BYTES, lock=False)

    def __getitem__(self, index: int) -> int | str:
        status = int(self.statuses[index])
        if status != REFUSED:
            return status
        reason = self.reasons[index * REASON_BYTES : (index + 1) * REASON_BYTES]
        return reason.rstrip(b"\0").decode(errors="ignore")

    def __setitem__(self, index: int, outcome: int | str) -> None:
        if isinstance(outcome, str):
            reason = outcome.encode()[:REASON_BYTES].ljust(REASON_BYTES, b"\0")
            self.reasons[index * REASON_BYTES : (index + 1) * REASON_BYTES] = reason
            outcome = REFUSED
        self.statuses[index] = outcome
