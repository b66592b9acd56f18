"""Print parameters, multiply-adds and activations as tables of 80 columns."""

import dataclasses
from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from sepablate import scales, study
from sepablate.execution.environment import TABLE_WIDTH
from sepablate.models.complexity import KINDS, Breakdown, count_network
from sepablate.runs.run import Run, resolve

Count = Callable[[Run], Breakdown]


def resolve_variant(variant: str, scale_name: str, image_size: int | None = None) -> Run:
    """Return a variant's run at a scale; UserError for anything unknown or out of range.

    Args:
        variant: its name.
        scale_name: the scale.
        image_size: pixels of an image's side; None for the scale's.
    """
    scale, recipes = scales.load(scale_name)
    declared = study.variant(variant)
    if image_size:
        declared = dataclasses.replace(declared, image_size=image_size)
    return resolve(declared, scale_name, scale, recipes, scale.seeds[0], "fp32")


def network_breakdown(run: Run) -> Breakdown:
    """Return the cost of a run's network for one of its images."""
    return count_network(run.model, run.image_size, **run.options)


def counts(runs: list[Run], count: Count = network_breakdown) -> list[dict[str, Any]]:
    """Return what `show` prints, as whole numbers: of each run the totals and each kind of layer.

    mult_adds are those of one image's forward pass, image_size the pixels of its side.

    Args:
        runs: of the variants.
        count: gives the cost of a run.
    """
    entries = []
    for run in runs:
        costs = count(run)
        entries.append(
            {
                "variant": run.variant,
                "image_size": run.image_size,
                "width": run.options["width"],
                **dataclasses.asdict(costs.total),
                "activations": costs.activations,
                "kinds": {kind: dataclasses.asdict(cost) for kind, cost in costs.kinds.items()},
            }
        )
    return entries


def show(runs: list[Run], count: Count = network_breakdown) -> None:
    """Print a line of totals for each run, then the share of each kind of layer."""
    breakdowns = {run.variant: count(run) for run in runs}
    totals = empty_table("variant", "pixels", "width", "parameters", "mult-adds", "activations")
    for run in runs:
        total = breakdowns[run.variant].total
        totals.add_row(
            run.variant,
            str(run.image_size),
            f"{run.options['width']:g}",
            f"{total.parameters:,}",
            abbreviate(total.mult_adds),
            abbreviate(breakdowns[run.variant].activations),
        )
    shares = empty_table("share (%) of", "", *KINDS)
    for variant, costs in breakdowns.items():
        for quantity in ("parameters", "mult_adds"):
            total_count = getattr(costs.total, quantity)
            percent = [100 * getattr(k, quantity) / total_count for k in costs.kinds.values()]
            label = quantity.replace("_", "-")
            shares.add_row(variant, label, *(f"{share:.2f}" if share else "" for share in percent))
            variant = ""
    for table in (totals, shares):
        print_table(table)
        print()


def empty_table(first: str, *others: str) -> Table:
    """Return a table without rows: names on the left, numbers in the other columns."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def print_table(table: Table) -> None:
    """Print a table, in any terminal as wide as it is."""
    Console(highlight=False, width=TABLE_WIDTH).print(table)


def abbreviate(number: int) -> str:
    """Format 22855952 as "22.86 M"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)
