"""The commands `trace` and `verify`. Nothing heavy is imported before one of them runs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from sepablate.cli.options import ScaleOption, require_project, resolve_scale
from sepablate.store import layout


def trace(
    path: Annotated[Path, typer.Argument(help="results/<scale>/<study>, a file in it, a report.")],
) -> None:
    """List the runs that a table, a figure or a report comes from, and how to make them again."""
    require_project()
    from sepablate.provenance import trace

    print(trace.trace(path), end="")


def verify(
    scale: ScaleOption = None,
) -> None:
    """Check that the results follow from the runs, and report how well a rerun reproduced them."""
    scale_name = resolve_scale(scale)
    from sepablate.provenance import verify

    findings = verify.verify(scale_name)
    for line in findings.checked:
        print(line)
    for line in findings.wrong:
        print(f"sepablate: {line}", file=sys.stderr)
    if findings.wrong:
        raise typer.Exit(1)
    agrees = "; ".join(["what was checked agrees", *findings.unchecked])
    print(f"{layout.RESULTS / scale_name}: {agrees if findings.unchecked else 'all agrees'}")
