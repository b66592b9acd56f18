"""The forecast as a person reads it."""

from rich import box
from rich.console import Console
from rich.table import Table

from sepablate.planning.forecast import Forecast, Row
from sepablate.planning.pipeline import RUNS


def show(found: Forecast) -> None:
    """Print one line per stage, what they need together, and a warning for what is not free."""
    console = Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    table.add_column("dvc repro")
    for name in ("finished", "half", "to do", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found.rows:
        table.add_row(*_cells(row))
    console.print(table)
    for row in found.rows:
        for name, step in (row.work.half if row.work else {}).items():
            steps = row.work.left[0].run.scale.steps if row.work else 0
            print(f"{row.stage.name}: {name} goes on from step {step} of {steps}")
    print(f"time    {duration(found.seconds)}, {found.processes} runs side by side")
    print(f"memory  {_size(found.memory)}, free {_size(found.memory_free)}")
    print(f"disk    {_size(found.disk)}, free {_size(found.disk_free)}")
    short = [
        name
        for name, needed, free in (
            ("memory", found.memory, found.memory_free),
            ("disk", found.disk, found.disk_free),
        )
        if free is not None and needed > free
    ]
    if short:
        print(f"warning: not enough {' and '.join(short)} is free on this machine")


def duration(seconds: float) -> str:
    """In the units that a person would use."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _cells(row: Row) -> list[str]:
    counts = ["", "", ""]
    if row.work:
        half = len(row.work.half)
        counts = [str(n) for n in (len(row.work.finished), half, len(row.work.left) - half)]
    runs = row.stage.state == RUNS
    time = duration(row.seconds) if row.seconds is not None else "?" if runs else ""
    name = row.stage.name.rpartition(":")[2]  # without the path of the second pipeline
    return [name, row.stage.state, *counts, time]


def _size(count: int | None) -> str:
    if count is None:
        return "unknown"
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
