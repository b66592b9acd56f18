"""Train a variant: side by side here, on all the processes of torchrun, or on a cluster."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from sepablate import scales
from sepablate.errors import UserError
from sepablate.execution import dask_task, process_lifetime

TORCHRUN = "TORCHELASTIC_RUN_ID"
LEASHES = {"DVC_STAGE", TORCHRUN, dask_task.LEASH}  # of a parent that must not be outlived


def train(
    variant: str,
    scale: str,
    *,
    processes: int | None = None,
    mlflow: bool = True,
    only: str | None = None,
    cluster: str | None = None,
) -> list[str]:
    """Train the runs of a variant that are not trained yet, or `only` one; a line for each failure.

    Raises UserError for what is unknown or does not go together, KeyboardInterrupt when stopped.
    Of the processes of torchrun, only the leading one comes back; the others exit.
    """
    by_torchrun = TORCHRUN in os.environ
    if processes and (cluster or by_torchrun):
        raise UserError(f"--processes {processes}: leave it out where others start the processes")
    if cluster and by_torchrun:
        raise UserError(f"--cluster {cluster}: leave it out under torchrun")
    if LEASHES & os.environ.keys():
        process_lifetime.die_with_parent()
    stage = functools.partial(_stage, variant, scale, only, mlflow)
    if by_torchrun:
        return _together(scale, stage)
    if cluster:
        from sepablate.execution import dask_cluster as machines

        return stage(functools.partial(machines.train, cluster))
    from sepablate.execution import pool

    pool.warm_up()
    return stage(
        lambda jobs, observe: pool.train(jobs, processes or pool.default_processes(jobs), observe)
    )


def untrained(variant: str, scale: str) -> list[str]:
    """The keys of the runs of a variant that can be trained now."""
    from sepablate.execution import train_variant

    return [job.key for job in train_variant.known_jobs(variant, scale) if not job.finished]


def _together(scale: str, stage: Callable[[Any], list[str]]) -> list[str]:
    """The stage on all processes of torchrun, which all exit with the same status."""
    from sepablate.execution import torchrun

    team = torchrun.join()
    if not team.ranks.leads:
        sys.exit(team.follow())
    status = 1
    try:
        torchrun.check(scale, scales.load(scale)[0], team.ranks.world)
        failures = stage(team.train)
        status = 1 if failures else 0
        return failures
    except KeyboardInterrupt:
        status = os.EX_TEMPFAIL
        raise
    except UserError:
        status = 2
        raise
    finally:
        team.dismiss(status)


def _stage(variant: str, scale: str, only: str | None, mlflow: bool, train_with: Any) -> list[str]:
    """All runs, or one. train_with: a function of jobs and of what observes their progress."""
    from sepablate.execution import pool, progress, train_variant
    from sepablate.execution.job import Job

    def train_jobs(jobs: list[Job]) -> pool.Progress:
        with progress.shown(variant, scale, jobs, live=mlflow) as observe:
            return train_with(jobs, observe)

    if only:
        done = train_variant.train_only(variant, scale, only, train_jobs)
    else:
        done = train_variant.train(variant, scale, train_jobs)
    return [progress.explain(name, reason) for name, reason in done.failures.items()]
