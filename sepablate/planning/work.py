"""The runs of a stage: finished, started and still to do."""

from dataclasses import dataclass

from sepablate.execution import train_settings, train_variant
from sepablate.execution.job import Job
from sepablate.store import checkpoint


@dataclass(frozen=True)
class StageRuns:
    """The runs that a stage trains.

    Args:
        rounds: lists of runs that may train in parallel; each list waits for the one before it.
            The trials of a learning rate come first.
    """

    rounds: list[list[Job]]

    @property
    def finished(self) -> list[Job]:
        """Runs whose result is on disk."""
        return [job for jobs in self.rounds for job in jobs if job.finished]

    @property
    def unfinished(self) -> list[Job]:
        """Runs whose result is not on disk, started or not."""
        return [job for jobs in self.rounds for job in jobs if not job.finished]

    @property
    def started(self) -> dict[str, int]:
        """The step of the newest checkpoint of each unfinished run that has one, by its label."""
        return {_label(job): steps_done(job) for job in self.unfinished if steps_done(job)}

    @property
    def steps(self) -> dict[str, int]:
        """The gradient steps of each unfinished run, by its label."""
        return {_label(job): job.run.scale.steps for job in self.unfinished}


def stage_runs(variant: str, scale: str) -> StageRuns:
    """Return the runs that the stage of `variant` trains; UserError if it would refuse to."""
    return StageRuns(train_variant.job_rounds(variant, scale))


def settings_runs(study: str, scale: str) -> StageRuns:
    """Return the runs of all departures of a robustness study; UserError if it is confounded."""
    jobs = train_settings.setting_jobs(study, scale).values()
    return StageRuns([[job for each in jobs for job in each]])


def steps_done(job: Job) -> int:
    """Return the step that the run would resume from."""
    return checkpoint.newest_step(job.folder)


def _label(job: Job) -> str:
    run = job.run
    rate = f" at {run.recipe.learning_rate}" if run.learning_rates else ""
    if run.scale_name.partition(".")[2]:
        return job.name
    return f"seed {run.seed}{rate}"
