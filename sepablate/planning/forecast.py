"""Time, memory and disk of the stages that would run, from what a short calibration measures."""

import dataclasses
import heapq
import json
import resource
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sepablate.execution import pool
from sepablate.execution.job import Job
from sepablate.planning import calibration, work
from sepablate.planning.calibration import Cost
from sepablate.planning.pipeline import RUNS, Stage
from sepablate.planning.work import Work
from sepablate.store import checkpoint
from sepablate.store.run_files import format_rows

COPIES = 3  # of a result: in .sepablate, in results, in DVC's cache


@dataclass(frozen=True)
class Row:
    """A stage, its runs if it trains, and the seconds it would take; None: it does not run, or
    nobody can tell."""

    stage: Stage
    work: Work | None
    seconds: float | None


@dataclass(frozen=True)
class Forecast:
    """What the rows need together, in seconds and bytes, and what is free; None: unknown."""

    rows: list[Row]
    processes: int
    seconds: float
    memory: int
    disk: int
    memory_free: int | None
    disk_free: int


def forecast(stages: list[Stage], scale: str, tell: Callable[[str], None]) -> Forecast:
    """Calibrate the networks of `stages` that have something to do, and add up.

    On a GPU it counts one run at a time, though small ones share it: it forecasts too much there.
    tell is given a line before the calibration. Raises UserError where a stage would refuse.
    """
    pool.warm_up()
    processes = pool.default_processes([])
    works = {stage: work.of(stage.variant, scale) for stage in stages if stage.variant}
    left = {stage: each.left for stage, each in works.items() if stage.state == RUNS and each.left}
    stages = mark_dependents(stages, {stage.variant for stage in left})
    networks = {_network(jobs[0]): jobs for jobs in sorted(left.values(), key=len)}
    if networks:
        tell(f"calibrating {len(networks)} networks on this machine")
    begins = _beginnings([stage for stage in stages if stage.state == RUNS])
    costs = {network: calibration.calibrate(jobs[:processes]) for network, jobs in networks.items()}
    rows = []
    for stage in stages:
        each = works.get(stage)
        seconds = None if stage.state != RUNS or stage.name == "fetch" else begins[each is None]
        if seconds is not None and each and stage in left:
            seconds += training_seconds(each, costs[_network(left[stage][0])], processes)
        if seconds is not None:
            seconds += stage.measuring(scale)
        rows.append(Row(stage, each, seconds))
    return _added_up(rows, processes, list(costs.values()), left.values())


def mark_dependents(stages: list[Stage], trained: set[str | None]) -> list[Stage]:
    """With new runs of `trained`, what reads them runs as well: DVC cannot foresee that."""
    found, pipelines = [], set()
    for stage in stages:
        if stage.reads & trained or (stage.reports and stage.pipeline in pipelines):
            stage = dataclasses.replace(stage, state=RUNS)
        if stage.compares and stage.state == RUNS:
            pipelines.add(stage.pipeline)
        found.append(stage)
    return found


def _beginnings(running: list[Stage]) -> tuple[float, float]:
    """Seconds before a stage trains, and before one analyses; 0 if no stage does."""
    trains = any(stage.variant for stage in running)
    analyses = any(stage.compares or stage.reports for stage in running)
    return (
        calibration.begin(calibration.BEGIN_TRAINING) if trains else 0.0,
        calibration.begin(calibration.BEGIN_ANALYSIS) if analyses else 0.0,
    )


def _network(job: Job) -> str:
    """What the time of a step depends on: variants may share a network."""
    run = job.run
    return json.dumps(
        [run.model, run.options, run.precision, run.kernels, job.device.partition(":")[0]]
    )


def training_seconds(each: Work, cost: Cost, processes: int) -> float:
    """Seconds of all rounds, each dealt out to processes in order."""
    total = 0.0
    for jobs in each.rounds:
        free = [0.0] * processes
        for job in jobs:
            if not job.finished:
                heapq.heapreplace(free, free[0] + cost.seconds(job.run, work.steps_done(job)))
        total += max(free)
    return total


def _added_up(
    rows: list[Row], processes: int, costs: list[Cost], left: Iterable[list[Job]]
) -> Forecast:
    side_by_side = min(processes, max((len(jobs) for jobs in left), default=0))
    checkpoints = max((cost.checkpoint_bytes for cost in costs), default=0)
    trainer = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    results = sum(COPIES * _result_bytes(job) for jobs in left for job in jobs)
    return Forecast(
        rows=rows,
        processes=side_by_side,
        seconds=sum(row.seconds or 0.0 for row in rows),
        memory=trainer + side_by_side * max((cost.memory_bytes for cost in costs), default=0),
        disk=results + side_by_side * checkpoint.KEPT * checkpoints,
        memory_free=_memory_free(),
        disk_free=shutil.disk_usage(Path()).free,
    )


def _result_bytes(job: Job) -> int:
    """Of the curve, the correctness of each test image, and the config."""
    scale = job.run.scale
    row = (scale.steps, "validation/accuracy_averaged", 1 / 3)
    rows = [row] * (4 * scale.evaluations + 2)
    curve = format_rows(rows, job.key, job.run.variant, job.run.seed)
    return len(curve) + scale.test_images // 8 + len(json.dumps(job.run.config))


def _memory_free() -> int | None:
    path = Path("/proc/meminfo")
    lines = path.read_text().splitlines() if path.exists() else []
    found = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    return found[0] if found else None
