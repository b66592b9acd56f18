"""A forecast as a table, and as JSON."""

import dataclasses
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from sepablate.execution.environment import TABLE_WIDTH
from sepablate.planning.forecast import Forecast, Row
from sepablate.planning.pipeline import RUNS
from sepablate.planning.work import StageRuns
from sepablate.store import layout
from sepablate.store.files import read_json

TRAINED = "trained"  # instead of RUNS, where no run is missing


def show(forecast: Forecast) -> None:
    """Print a line per stage, the totals, and a warning if memory or disk do not suffice."""
    console = Console(highlight=False, width=TABLE_WIDTH)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    table.add_column("state")
    for name in ("finished", "half", "to do", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in forecast.rows:
        table.add_row(*_cells(row))
    console.print(table)
    for row in forecast.rows:
        for name, step in (row.runs.started if row.runs else {}).items():
            steps = row.runs.steps[name] if row.runs else 0
            print(f"{row.stage.name}: {name} resumes from step {step} of {steps}")
        if changed := _changed_source(row):
            print(f"{row.stage.name}: {changed}")
    if any(_is_trained(row) for row in forecast.rows):
        print(f"{TRAINED}: all runs are there, and none trains; `dvc repro` only records them")
    number, plural = forecast.processes, "s" * (forecast.processes > 1)
    parallel = f"{number} run{plural} in parallel" if number else "nothing trains"
    print(f"time    {duration(forecast.seconds)}, {parallel}")
    print(f"memory  {_size(forecast.memory)}, free {_size(forecast.memory_free)}")
    print(f"disk    {_size(forecast.disk)}, free {_size(forecast.disk_free)}")
    short = [
        name
        for name, needed, free in (
            ("memory", forecast.memory, forecast.memory_free),
            ("disk", forecast.disk, forecast.disk_free),
        )
        if free is not None and needed > free
    ]
    if short:
        print(f"warning: not enough {' and '.join(short)} is free on this machine")


def as_json(forecast: Forecast) -> dict[str, Any]:
    """Return the rows and the totals; a stage that trains has its runs counted."""
    totals = dataclasses.asdict(dataclasses.replace(forecast, rows=[]))
    del totals["rows"]
    stages: list[dict[str, Any]] = []
    for row in forecast.rows:
        stages.append({"name": row.stage.name, "state": row.stage.state})
        if row.runs:
            finished, started, to_do = _counts(row.runs)
            stages[-1] |= {"finished": finished, "started": started, "to_do": to_do}
        if row.stage.state == RUNS:
            stages[-1]["seconds"] = row.seconds
    return {"stages": stages, **totals}


def duration(seconds: float) -> str:
    """Format seconds in units that suit their size."""
    rounded = round(seconds)
    if rounded < 120:
        return f"{rounded} s"
    if rounded < 7200:
        return f"{rounded // 60} min {rounded % 60:02} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60:02} min"


def _cells(row: Row) -> list[str]:
    counts = [str(count) for count in _counts(row.runs)] if row.runs else ["", "", ""]
    unknown = "?" if row.stage.state == RUNS else ""
    time = unknown if row.seconds is None else duration(row.seconds)
    state = TRAINED if _is_trained(row) else row.stage.state
    return [row.stage.short_name, state, *counts, time]


def _is_trained(row: Row) -> bool:
    """Return whether DVC would run the stage, and it finds all its runs finished."""
    return row.stage.state == RUNS and row.runs is not None and not row.runs.unfinished


def _changed_source(row: Row) -> str:
    """Return that a variant trains again because its source has changed; "" if it does not."""
    jobs = row.runs.unfinished if row.runs and row.stage.variant else []
    if not jobs:
        return ""
    run = jobs[0].run
    path = layout.variant_config(run.scale_name, run.variant)
    if not path.is_file():
        return ""
    before, fields = read_json(path, dict), ("source_digest", "kernels")
    same_source, same_kernels = (before.get(field) == run.config[field] for field in fields)
    if same_source or not same_kernels:  # other kernels are other source
        return ""
    return f"trains again: source that decides its numbers is not that of {path.parent}"


def _counts(runs: StageRuns) -> tuple[int, int, int]:
    """Return the runs that are finished, started and still to begin."""
    started = len(runs.started)
    return len(runs.finished), started, len(runs.unfinished) - started


def _size(count: int | None) -> str:
    if count is None:
        return "unknown"
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
