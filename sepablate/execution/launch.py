"""Select what trains a variant: this machine's processes, those of torchrun, or a dask cluster.

Nothing heavy is imported before it is needed: a trainer starts its workers at once.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sepablate.errors import UserError
from sepablate.execution import dask_task, process_lifetime
from sepablate.store import layout

if TYPE_CHECKING:
    from sepablate.execution.trainer import Trainer

TORCHRUN = "TORCHELASTIC_RUN_ID"
# What torchrun tells each process that it starts.
PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
MUST_NOT_OUTLIVE = {"DVC_STAGE", TORCHRUN, dask_task.ENDS_WITH_PARENT}  # set by such a parent


@dataclass(frozen=True)
class TrainRequest:
    """A variant to train, or all settings of a robustness study.

    Args:
        variant: the name of either.
        processes: runs at a time; None for as many as fit.
        mlflow: show the runs in MLflow.
        only: the key of the one run to train.
        cluster: the address of a dask scheduler.
        pipeline: the variants that are trained by and by, if this is one of several.
        raw_weights: keep them as well as the averaged ones.
    """

    variant: str
    scale: str
    processes: int | None = None
    mlflow: bool = True
    only: str | None = None
    cluster: str | None = None
    pipeline: tuple[str, ...] = ()
    raw_weights: bool = False


def is_main_process() -> bool:
    """Return whether this process speaks to the user: the only one, or torchrun's rank 0."""
    return TORCHRUN not in os.environ or os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def select_trainer(request: TrainRequest) -> Iterator["Trainer"]:
    """Yield what trains the request's runs: this machine, torchrun's processes, or a cluster.

    Under torchrun every process trains each run together with the others. Raises UserError for
    options that do not go together.
    """
    # The compiler's cache stays with the project; a user may have chosen a place for it.
    os.environ.setdefault("TRITON_CACHE_DIR", str((layout.STATE / "triton").absolute()))
    torchrun = TORCHRUN in os.environ
    missing = [name for name in PLACE if name not in os.environ]
    if torchrun and missing:
        raise UserError(
            f"environment: {TORCHRUN} is set, but not {missing[0]}: start this by torchrun, or "
            f"`unset {TORCHRUN}`"
        )
    if request.processes and (request.cluster or torchrun):
        raise UserError(
            f"--processes {request.processes}: leave it out where others start the processes"
        )
    if request.cluster and torchrun:
        raise UserError(f"--cluster {request.cluster}: leave it out under torchrun")
    if MUST_NOT_OUTLIVE & os.environ.keys():
        process_lifetime.die_with_parent()
    if torchrun:
        from sepablate.execution.torchrun import TorchrunTrainer

        with TorchrunTrainer.connect(request.scale) as trainer:
            yield trainer
    elif request.cluster:
        from sepablate.execution.dask_cluster import DaskTrainer

        yield DaskTrainer(request.cluster)
    else:
        from sepablate.execution import pool

        pool.start_forkserver()
        yield pool.Pool(request.processes)


def untrained(variant: str, scale: str) -> list[str]:
    """Return the keys of the runs of a variant that can be trained now."""
    from sepablate.execution.train_variant import known_jobs

    return [job.key for job in known_jobs(variant, scale) if not job.finished]
