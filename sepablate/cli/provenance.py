"""The commands `trace` and `verify`. Nothing heavy is imported before one of them runs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from sepablate import scales


def trace(
    path: Annotated[Path, typer.Argument(help="results/<scale>/<study>, a file in it, a report.")],
) -> None:
    """List the runs that a table, a figure or a report comes from, and how to make them again."""
    from sepablate.provenance import trace

    print(trace.trace(path), end="")


def verify(
    scale: Annotated[
        str | None, typer.Option(help="A scale of params.yaml; default: the selected one.")
    ] = None,
) -> None:
    """Check that the results follow from the runs, and whether fresh runs reproduced them."""
    name = scale or scales.current()
    scales.load(name)
    from sepablate.provenance import verify

    result = verify.verify(name)
    for line in result.said:
        print(line)
    for line in result.wrong:
        print(f"sepablate: {line}", file=sys.stderr)
    if result.wrong:
        raise typer.Exit(1)
    print(f"results/{name}: all agrees")
