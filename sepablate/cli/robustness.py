"""The commands `robustness` and `across`. Nothing heavy is imported before one of them runs."""

from typing import Annotated

import typer

from sepablate import study
from sepablate.cli.options import MlflowOption, ScaleOption, require_project, resolve_scale
from sepablate.cli.publishing import publish_studies
from sepablate.store import layout


def robustness(
    name: Annotated[
        str, typer.Argument(metavar="STUDY", help="A robustness study in experiments/.")
    ] = "robustness",
    scale: ScaleOption = None,
    effects: Annotated[
        bool, typer.Option(help="Read the runs; without, only what was read from them before.")
    ] = True,
    mlflow: MlflowOption = True,
) -> None:
    """Pool the settings of a robustness study, and write the report on how far verdicts carry."""
    chosen = resolve_scale(scale)
    study.load_robustness(name)
    from sepablate.report import robustness as report

    if effects:
        report.effects_outputs(name, chosen)
    report.report_outputs(name, chosen)
    if mlflow:
        publish_studies(chosen, [name])
    print(f"report: {layout.RESULTS / chosen / name.upper()}.md")


def across(
    scales: Annotated[list[str], typer.Argument(metavar="SCALE...", help="In this order.")],
) -> None:
    """Write results/ACROSS.md: every claim at some scales, from their committed verdicts only."""
    require_project()
    from sepablate.report import across as report

    report.outputs([resolve_scale(scale) for scale in scales])
    print(f"report: {layout.ACROSS}")
