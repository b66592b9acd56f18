"""The runs of a stage: which are finished, which have begun, which are still to do."""

from dataclasses import dataclass

from sepablate.execution import train_variant
from sepablate.execution.job import Job
from sepablate.store import checkpoint


@dataclass(frozen=True)
class Work:
    """rounds: runs that may go side by side; the trials of a learning rate come before the rest."""

    rounds: list[list[Job]]

    @property
    def finished(self) -> list[Job]:
        """Runs whose result is on disk."""
        return [job for jobs in self.rounds for job in jobs if job.finished]

    @property
    def half(self) -> dict[str, int]:
        """Each run that has begun, by what tells it from the others, and the step it is at."""
        return {_name(job): steps_done(job) for job in self.left if steps_done(job)}

    @property
    def left(self) -> list[Job]:
        """Runs that are not finished, begun or not."""
        return [job for jobs in self.rounds for job in jobs if not job.finished]


def of(variant: str, scale: str) -> Work:
    """The runs that the stage of `variant` needs; UserError if it would refuse to train."""
    return Work(train_variant.job_rounds(variant, scale))


def steps_done(job: Job) -> int:
    """The step that the run would go on from."""
    return checkpoint.newest_step(job.folder)


def _name(job: Job) -> str:
    rate = f" at {job.run.recipe.learning_rate}" if job.run.learning_rates else ""
    return f"seed {job.run.seed}{rate}"
