"""A run as a piece of work: where its files are, and how a process that trains it ends.

Free of what trains: a command that only starts workers need not wait for those imports.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from sepablate.runs.run import Run
from sepablate.store.files import corrupt_files, verify_manifest

FOLDER = Path(".sepablate/runs")
DONE, FAILED, NO_SPACE, INTERRUPTED, BUSY = 0, 1, os.EX_IOERR, os.EX_TEMPFAIL, 76


@dataclass(frozen=True)
class Job:
    """A run and how its files call it. beside: other runs of its process."""

    run: Run
    label: str
    key: str
    device: str
    commit: str
    processes: int = 1  # that train it together
    beside: int = 0

    @property
    def folder(self) -> Path:
        """Where the run keeps its state until, and after, it is finished."""
        return FOLDER / self.key

    @property
    def finished(self) -> bool:
        """Whether the run's result is on disk, and every byte of it as it was written."""
        return verify_manifest(self.folder)

    @property
    def corrupt_files(self) -> list[str]:
        """The files of a finished run that are no longer as they were written."""
        return corrupt_files(self.folder)
