"""Print a forecast as a table."""

from rich import box
from rich.console import Console
from rich.table import Table

from sepablate.planning.forecast import Forecast, Row
from sepablate.planning.pipeline import RUNS


def show(forecast: Forecast) -> None:
    """Print a line per stage, the totals, and a warning if memory or disk do not suffice."""
    console = Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    table.add_column("dvc repro")
    for name in ("finished", "half", "to do", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in forecast.rows:
        table.add_row(*_cells(row))
    console.print(table)
    for row in forecast.rows:
        for name, step in (row.runs.started if row.runs else {}).items():
            steps = row.runs.steps[name] if row.runs else 0
            print(f"{row.stage.name}: {name} resumes from step {step} of {steps}")
    print(f"time    {duration(forecast.seconds)}, {forecast.processes} runs in parallel")
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


def duration(seconds: float) -> str:
    """Format seconds in units that suit their size."""
    rounded = round(seconds)
    if rounded < 120:
        return f"{rounded} s"
    if rounded < 7200:
        return f"{rounded // 60} min {rounded % 60:02} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60:02} min"


def _cells(row: Row) -> list[str]:
    counts = ["", "", ""]
    if row.runs:
        started = len(row.runs.started)
        to_do = len(row.runs.unfinished) - started
        counts = [str(count) for count in (len(row.runs.finished), started, to_do)]
    unknown = "?" if row.stage.state == RUNS else ""
    time = unknown if row.seconds is None else duration(row.seconds)
    return [row.stage.short_name, row.stage.state, *counts, time]


def _size(count: int | None) -> str:
    if count is None:
        return "unknown"
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
