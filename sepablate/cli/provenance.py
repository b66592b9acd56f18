"""The commands `trace` and `verify`. Nothing heavy is imported before one of them runs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from sepablate.cli.options import scale_name


def trace(
    path: Annotated[Path, typer.Argument(help="results/<scale>/<study>, a file in it, a report.")],
) -> None:
    """Name the runs of a table, a figure or a report, and the commands that make them again."""
    from sepablate.provenance import trace

    print(trace.trace(path), end="")


def verify(
    scale: Annotated[
        str | None, typer.Option(help="A scale of params.yaml; default: the selected one.")
    ] = None,
) -> None:
    """Check that the results follow from the runs, and report how well a rerun reproduced them."""
    name = scale_name(scale)
    from sepablate.provenance import verify

    findings = verify.verify(name)
    for line in findings.checked:
        print(line)
    for line in findings.wrong:
        print(f"sepablate: {line}", file=sys.stderr)
    if findings.wrong:
        raise typer.Exit(1)
    print(f"results/{name}: all agrees")
