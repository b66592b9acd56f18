"""Costs as a person reads them, at 80 columns."""

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from sepablate import models, scales, study
from sepablate.models.complexity import KINDS, Breakdown, breakdown
from sepablate.runs.run import Run, resolve


def resolved(variant: str, scale: str) -> Run:
    """The variant's run at that scale; UserError for anything unknown or out of range."""
    chosen, recipes = scales.load(scale)
    return resolve(study.variant(variant), scale, chosen, recipes, chosen.seeds[0], "fp32")


def show(runs: list[Run]) -> None:
    """Print a line of totals for each run, then the share of each kind of layer."""
    found = {run.variant: _broken_down(run) for run in runs}
    totals = columns("variant", "pixels", "width", "parameters", "mult-adds", "activations")
    for run in runs:
        total = found[run.variant].total
        totals.add_row(
            run.variant,
            str(run.image_size),
            f"{run.options['width']:g}",
            f"{total.parameters:,}",
            thin(total.mult_adds),
            thin(found[run.variant].activations),
        )
    shares = columns("share (%) of", "", *KINDS)
    for variant, each in found.items():
        for what in ("parameters", "mult_adds"):
            whole = getattr(each.total, what)
            parts = [100 * getattr(kind, what) / whole for kind in each.kinds.values()]
            label = what.replace("_", "-")
            shares.add_row(variant, label, *(f"{part:.2f}" if part else "" for part in parts))
            variant = ""
    console = Console(highlight=False)
    for table in (totals, shares):
        console.print(table)
        console.print()


def columns(first: str, *others: str) -> Table:
    """An empty table: names on the left, numbers in the other columns."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def thin(number: int) -> str:
    """22855952 as "22.86 M"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)


def _broken_down(run: Run) -> Breakdown:
    with torch.device("meta"):
        return breakdown(models.build(run.model, **run.options), run.image_size)
