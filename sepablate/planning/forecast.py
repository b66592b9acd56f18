"""Time, memory and disk of the stages that would run, from a short calibration."""

import dataclasses
import heapq
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sepablate.execution import cgroup, pool
from sepablate.execution.job import Job
from sepablate.planning import calibration
from sepablate.planning.calibration import Cost
from sepablate.planning.pipeline import RUNS, Stage
from sepablate.planning.work import StageRuns, settings_runs, stage_runs, steps_done
from sepablate.store import checkpoint
from sepablate.store.run_files import format_rows

COPIES = 3  # of a result: in .sepablate, in results, in DVC's cache


@dataclass(frozen=True)
class Row:
    """The forecast for one stage.

    Args:
        stage: the stage.
        runs: what it trains, if it trains.
        seconds: None if it does not run, or if its time is unknown.
    """

    stage: Stage
    runs: StageRuns | None
    seconds: float | None


@dataclass(frozen=True)
class Forecast:
    """The forecast for all stages: seconds and bytes, needed and free. None: unknown.

    Args:
        processes: runs that train in parallel.
    """

    rows: list[Row]
    processes: int
    seconds: float
    memory: int
    disk: int
    memory_free: int | None
    disk_free: int


def forecast(stages: list[Stage], scale: str, say: Callable[[str], None]) -> Forecast:
    """Calibrate the networks that would train, and sum up the time, memory and disk.

    On a GPU it counts one run at a time, though small ones share it: it forecasts too much there.

    Args:
        stages: of the pipelines, in an order in which a stage follows those that it reads.
        scale: the scale's name.
        say: called with a line before the calibration.

    Raises UserError if a stage would refuse to run.
    """
    pool.start_forkserver()
    processes = pool.default_processes([])
    stages, runs = mark_running(stages, scale)
    to_train = {
        stage: runs[stage].unfinished
        for stage in stages
        if stage in runs and stage.state == RUNS and runs[stage].unfinished
    }
    networks = networks_of(to_train.values())
    if networks:
        plural = "s" * (len(networks) > 1)
        say(f"calibrating {len(networks)} network{plural} on this machine{busy(cgroup.cores())}")
    startups = _startup_seconds([stage for stage in stages if stage.state == RUNS])
    costs = {network: calibration.calibrate(jobs[:processes]) for network, jobs in networks.items()}

    def seconds(stage: Stage) -> float | None:
        if stage.state != RUNS or stage.name == "fetch":
            return None
        total = startups[stage not in runs] + stage.layer_timing_seconds(scale)
        if stage in to_train:
            total += training_seconds(runs[stage], lambda job: costs[network_of(job)], processes)
        return total

    rows = [Row(stage, runs.get(stage), seconds(stage)) for stage in stages]
    return _sum_up(rows, processes, list(costs.values()), to_train.values())


def mark_running(stages: list[Stage], scale: str) -> tuple[list[Stage], dict[Stage, StageRuns]]:
    """Return the stages, dependents marked, and the runs of those that train.

    A stage that DVC leaves as it is trains nothing, also where its runs came from elsewhere and are
    not in `.sepablate/`: it is left out.
    """
    runs = {stage: stage_runs(stage.variant, scale) for stage in stages if stage.variant}
    runs |= {stage: settings_runs(stage.settings, scale) for stage in stages if stage.settings}
    to_do = {stage for stage, trains in runs.items() if trains.unfinished}
    idle = {stage for stage in to_do if stage.state != RUNS}
    trained = {stage.variant or stage.settings for stage in to_do - idle}
    runs = {stage: trains for stage, trains in runs.items() if stage not in idle}
    return mark_dependents(stages, trained), runs


def mark_dependents(stages: list[Stage], trained: set[str | None]) -> list[Stage]:
    """Mark as running what reads new runs of the variants `trained`, which DVC cannot foresee."""
    marked, pipelines = [], set()
    for stage in stages:
        if stage.compared_variants & trained or (stage.reports and stage.pipeline in pipelines):
            stage = dataclasses.replace(stage, state=RUNS)
        if stage.compares and stage.state == RUNS:
            pipelines.add(stage.pipeline)
        marked.append(stage)
    return marked


def _startup_seconds(running: list[Stage]) -> tuple[float, float]:
    """Return the seconds before a stage trains, and before one analyses; 0 if no stage does."""
    trains = any(stage.variant or stage.settings for stage in running)
    analyses = any(stage.compares or stage.reports for stage in running)
    return (
        calibration.time_startup(calibration.TRAINING_STARTUP) if trains else 0.0,
        calibration.time_startup(calibration.ANALYSIS_STARTUP) if analyses else 0.0,
    )


def network_of(job: Job) -> str:
    """Return all that decides the time of a step: variants may share a network."""
    run = job.run
    shape = [run.image_size, run.scale.batch_size]
    device = job.device.partition(":")[0]
    return json.dumps([run.model, run.options, *shape, run.precision, run.kernels, device])


def networks_of(to_train: Iterable[list[Job]]) -> dict[str, list[Job]]:
    """Return the jobs of each network, of the stage that trains most of it."""
    networks: dict[str, list[Job]] = {}
    for jobs in sorted(to_train, key=len):
        own: dict[str, list[Job]] = {}
        for job in jobs:
            own.setdefault(network_of(job), []).append(job)
        networks |= own
    return networks


def training_seconds(runs: StageRuns, cost_of: Callable[[Job], Cost], processes: int) -> float:
    """Return the seconds of a stage's training, where each free process takes the next run."""
    total = 0.0
    for jobs in runs.rounds:
        free_at = [0.0] * processes
        for job in jobs:
            if not job.finished:
                done = free_at[0] + cost_of(job).seconds(job.run, steps_done(job))
                heapq.heapreplace(free_at, done)
        total += max(free_at)
    return total


def _sum_up(
    rows: list[Row], processes: int, costs: list[Cost], to_train: Iterable[list[Job]]
) -> Forecast:
    parallel = min(processes, max((len(jobs) for jobs in to_train), default=0))
    checkpoints = max((cost.checkpoint_bytes for cost in costs), default=0)
    trainer = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    results = sum(COPIES * _result_bytes(job) for jobs in to_train for job in jobs)
    return Forecast(
        rows=rows,
        processes=parallel,
        seconds=sum(row.seconds or 0.0 for row in rows),
        memory=trainer + parallel * max((cost.memory_bytes for cost in costs), default=0),
        disk=results + parallel * checkpoint.KEPT * checkpoints,
        memory_free=cgroup.memory_free(),
        disk_free=shutil.disk_usage(Path()).free,
    )


def busy(cores: int) -> str:
    """Return a remark if other programs use more than half of this machine's cores, else ""."""
    load, _, _ = os.getloadavg()
    if load <= cores / 2:
        return ""
    return f", which is busy (load average {load:.1f}, {cores} cores): the times will be too long"


def _result_bytes(job: Job) -> int:
    """Return the size of the curve, the correctness of each test image, config and weights."""
    scale = job.run.scale
    row = (scale.steps, "validation/accuracy_averaged", 1 / 3)
    rows = [row] * (4 * scale.evaluations + 2)
    curve = format_rows(rows, job.key, job.run.variant, job.run.seed)
    weights = 4 * job.run.parameters
    return len(curve) + scale.test_images // 8 + len(json.dumps(job.run.config)) + weights
