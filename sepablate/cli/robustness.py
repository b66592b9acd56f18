"""The commands `robustness` and `across`. Nothing heavy is imported before one of them runs."""

from typing import Annotated

import typer

from sepablate import study
from sepablate.cli.options import MlflowOption, ScaleOption, require_project, resolve_scale
from sepablate.cli.publishing import publish_studies
from sepablate.errors import command
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
        for setting in untrained(name, chosen):
            remedy = command(f"train {name}", chosen)
            print(f"setting {setting}: no runs, left out; {remedy} trains it")
        report.effects_outputs(name, chosen)
    report.report_outputs(name, chosen)
    if mlflow:
        publish_studies(chosen, [name])
    print(f"report: {layout.RESULTS / chosen / name.upper()}.md")


def untrained(name: str, scale: str) -> list[str]:
    """Return the settings of a study that have no runs at a scale."""
    from sepablate.runs import settings
    from sepablate.store import collected_runs

    derived = settings.names(study.load_robustness(name), scale)
    return [
        setting
        for setting, derived_scale in derived.items()
        if not collected_runs.trained_variants(derived_scale)
    ]


def across(
    scales: Annotated[list[str], typer.Argument(metavar="SCALE...", help="In this order.")],
) -> None:
    """Write results/ACROSS.md: every claim at some scales, from their committed verdicts only."""
    require_project()
    from sepablate.report import across as report

    report.outputs([resolve_scale(scale) for scale in scales])
    print(f"report: {layout.ACROSS}")
