"""The commands `trace`, `verify`, `export-runs` and `import-runs`."""

# Nothing heavy is imported before one of them runs.

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from sepablate.cli.options import (
    JsonOption,
    ScaleOption,
    print_json,
    require_project,
    resolve_scale,
)
from sepablate.store import layout


def trace(
    path: Annotated[
        Path, typer.Argument(help="results/<scale>/<study>, a file in it, a report, ACROSS.md.")
    ],
) -> None:
    """List the runs that a table, a figure or a report comes from, and how to make them again."""
    require_project()
    from sepablate.provenance import trace

    print(trace.trace(path), end="")


def verify(
    scale: ScaleOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check that the results follow from the runs, and report how well a rerun reproduced them."""
    scale_name = resolve_scale(scale)
    from sepablate.provenance import verify

    findings = verify.verify(scale_name)
    if as_json:
        print_json({"scale": scale_name, **dataclasses.asdict(findings)})
        raise typer.Exit(bool(findings.wrong))
    for line in findings.checked:
        print(line)
    for line in findings.wrong:
        print(f"sepablate: {line}", file=sys.stderr)
    if findings.wrong:
        raise typer.Exit(1)
    agrees = "; ".join(["what was checked agrees", *findings.unchecked])
    print(f"{layout.RESULTS / scale_name}: {agrees if findings.unchecked else 'all agrees'}")


def export_runs(
    file: Annotated[Path, typer.Argument(help="The archive to write, such as runs.tar.gz.")],
    scale: ScaleOption = None,
) -> None:
    """Pack the finished runs of a scale and of its settings, to report them elsewhere."""
    scale_name = resolve_scale(scale)
    from sepablate.store import run_archive

    for name, variants in run_archive.export_runs(scale_name, file).items():
        print(f"{file}: {name}: {', '.join(variants)}")


def import_runs(
    file: Annotated[Path, typer.Argument(help="A file of `sepablate export-runs`.")],
) -> None:
    """Unpack and verify the runs in a file into results/; `sepablate study` then reads them."""
    from sepablate.store import run_archive

    for scale_name, variants in run_archive.import_runs(file).items():
        print(f"{scale_name}: {', '.join(variants)}")
