"""The command line. A command imports what it needs when it runs: torch only where it computes."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sepablate import __version__, study
from sepablate.cli import completion, provenance
from sepablate.cli.bench import bench
from sepablate.cli.cost import cost
from sepablate.cli.evaluate import evaluate, export_weights
from sepablate.cli.init import init
from sepablate.cli.listing import list_
from sepablate.cli.new import new
from sepablate.cli.options import (
    JsonOption,
    MlflowOption,
    ScaleOption,
    positive,
    print_json,
    require_project,
    resolve_scale,
)
from sepablate.cli.publishing import best_network, publish_studies
from sepablate.cli.robustness import across, robustness
from sepablate.cli.train import train, tune
from sepablate.errors import UserError
from sepablate.execution import environment
from sepablate.store import layout
from sepablate.store.files import write_atomically

app = typer.Typer(
    help="Re-run the ablations of the Xception paper and say whether its claims hold.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"sepablate {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Take the options that are of no command."""


@app.command()
def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DATASET]...", help="The scale's single-label one by default."),
    ] = None,
    scale: ScaleOption = None,
) -> None:
    """Download data sets, each from the first source that has it, and verify them."""
    from sepablate import data, scales

    if names:
        for name in names:
            data.fetch(name)
        return
    chosen = resolve_scale(scale)
    name = scales.load(chosen)[0].dataset
    data.fetch(name)
    content = {"dataset": name, "digest": data.digest(name)}
    write_atomically(layout.fetched(chosen), json.dumps(content) + "\n")


app.command()(train)
app.command()(tune)


@app.command()
def plan(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[STUDY]",
            help="Instead of the pipeline, one study with the networks that it compares.",
            autocompletion=completion.studies,
        ),
    ] = None,
    scale: ScaleOption = None,
    everything: Annotated[bool, typer.Option("--all", help="As `make repro-all`.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the stages that `dvc repro` would run now, and their time, memory and disk here.

    A study need not be in the pipeline: its stages are its own commands, train, study and report.
    The power is that of the scale's seeds for the differences that the laptop's results found.
    """
    from sepablate import planning, scales

    environment.warn_of_little_memory()
    chosen = resolve_scale(scale)
    if name and everything:
        raise UserError(f"plan {name}: leave out --all, which is for the pipelines")
    if as_json:
        print_json(planning.as_json(chosen, everything, name))
    elif planning.show(chosen, everything, name):
        from sepablate.analysis import power

        for line in power.lines(len(scales.load(chosen)[0].seeds), everything):
            print(line)


@app.command("study")
def study_(
    name: Annotated[
        str,
        typer.Argument(
            metavar="STUDY", help="A study in experiments/.", autocompletion=completion.studies
        ),
    ],
    scale: ScaleOption = None,
    mlflow: MlflowOption = True,
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave out, and name, variants without runs.")
    ] = False,
    latex: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also write FOLDER/STUDY.pdf and .tex (booktabs)."),
    ] = None,
) -> None:
    """Write the table, the figure and the numbers on each claim of a study from its runs.

    A study of layers has no runs: `sepablate layers` times it.
    """
    chosen = resolve_scale(scale)
    study.load(name)
    from sepablate.analysis.partial import trained_part
    from sepablate.report import outputs

    part = trained_part(name, chosen) if partial else None
    outputs.study_outputs(name, chosen, part)
    if latex:
        from sepablate.report.latex import latex_outputs

        print("written:", *latex_outputs(name, chosen, latex, part))
    if mlflow:
        publish_studies(chosen, [name])


@app.command()
def layers(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY...", help="In this order.", autocompletion=completion.studies
        ),
    ],
    scale: ScaleOption = None,
) -> None:
    """Time the layers of studies that train nothing, and write their report, COSTS.

    It also counts detectors, which stand next to table 13 of the MobileNets paper.
    """
    chosen = resolve_scale(scale)
    for name in names:
        study.load_layers(name)
    from sepablate.profiling import detector_counts, layer_timing
    from sepablate.report import outputs

    for name in names:
        layer_timing.study_times(name, chosen)
    detector_counts.write_counts(chosen)
    outputs.layer_outputs(names, chosen)
    print(f"report: {layout.RESULTS / chosen}/COSTS.md")


@app.command()
def report(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY...", help="In this order.", autocompletion=completion.studies
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            help="Of the report. Default: REPORT; of one study that dvc.yaml does not have, the "
            "study's in capitals."
        ),
    ] = None,
    scale: ScaleOption = None,
    mlflow: MlflowOption = True,
) -> None:
    """Decide the verdict on every claim of some comparisons and write the report.

    `sepablate layers` writes the report on studies of layers.
    """
    if name is not None and not name.isidentifier():
        raise UserError(f"report name {name!r}: choose letters, digits and underscores")
    chosen = resolve_scale(scale)
    for study_name in names:
        study.load(study_name)
    from sepablate.planning.pipeline import report_name
    from sepablate.report import outputs

    name = name or report_name(names)
    outputs.check_replaces_none(names, chosen, name)
    outputs.report_outputs(names, chosen, name)
    if mlflow:
        publish_studies(chosen, names)
    print(f"report: {layout.RESULTS / chosen / name}.md")


@app.command()
def publish(
    scale: ScaleOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY",
            help="Also log its best network as an MLflow model.",
            autocompletion=completion.studies,
        ),
    ] = None,
) -> None:
    """Update MLflow to the results on disk; a run that it already has is not added again."""
    chosen = resolve_scale(scale)
    best = best_network(chosen, model) if model else None
    if not publish_studies(chosen, _all_names(), retry=True):
        raise typer.Exit(1)
    if model and best:
        from sepablate import tracking

        print(tracking.log_model(model, chosen, *best))


def _all_names() -> list[str]:
    return [*study.names(), *study.robustness_names()]


@app.command()
def ui(
    port: Annotated[int, typer.Option(parser=positive, help="On 127.0.0.1.")] = 5000,
    allowed_hosts: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT,...", help="Further addresses that a browser may use."),
    ] = None,
) -> None:
    """Browse the runs in MLflow's user interface, on this machine only.

    It answers 403 to a browser that names it otherwise. Where its port is forwarded to another one,
    as by ssh -L 8080:localhost:5000, allow that one: --allowed-hosts localhost:8080
    """
    chosen = resolve_scale(None)
    from sepablate import tracking
    from sepablate.store import collected_runs

    if collected_runs.trained_variants(chosen):
        publish_studies(chosen, _all_names())
    tracking.ui(port, allowed_hosts)


@app.command()
def doctor(
    repair: Annotated[
        bool, typer.Option("--repair", help="Repair what can be repaired without a loss.")
    ] = False,
) -> None:
    """Find the damage of a crash or a failing disk: a line each, exit status 1 if there is any."""
    require_project()
    from sepablate.provenance.doctor import examine

    findings = examine(repair)
    for finding in findings:
        print(finding.line)
    if not all(finding.repaired for finding in findings):
        raise typer.Exit(1)
    print("healthy")


app.command("list")(list_)
app.command()(provenance.trace)
app.command()(provenance.verify)
app.command()(provenance.export_runs)
app.command()(provenance.import_runs)
app.command()(robustness)
app.command()(across)
app.command()(cost)
app.command()(evaluate)
app.command()(export_weights)
app.command()(bench)
app.add_typer(new, name="new")
app.command()(init)
