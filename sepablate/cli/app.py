"""The command line: parse, call one function, say what happened. Imports torch only to train."""

import sys
from typing import Annotated

import typer

from sepablate import study
from sepablate.cli import provenance
from sepablate.cli.bench import bench
from sepablate.cli.cost import cost
from sepablate.cli.evaluate import evaluate
from sepablate.cli.options import positive, scale_name
from sepablate.cli.train import train
from sepablate.errors import UserError

app = typer.Typer(
    help="Re-run the ablations of the Xception paper and say whether its claims hold.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
ScaleOption = Annotated[
    str | None, typer.Option("--scale", help="A scale of params.yaml; default: the selected one.")
]

MlflowOption = Annotated[bool, typer.Option(help="Show the runs in MLflow as well.")]


def command_names() -> list[str]:
    """The commands, in alphabetical order."""
    found = [command.name or command.callback.__name__ for command in app.registered_commands]  # type: ignore[union-attr]
    return sorted(found)


@app.command()
def fetch(scale: ScaleOption = None) -> None:
    """Get the data set, from whichever source is in reach, and verify it."""
    from sepablate import data, scales

    chosen, _ = scales.load(scale_name(scale))
    for name in dict.fromkeys(("fashion_mnist", chosen.dataset)):  # the pipeline tracks the first
        data.dataset(name).fetch(data.FOLDER)


app.command()(train)


@app.command()
def plan(
    scale: ScaleOption = None,
    controls: Annotated[bool, typer.Option("--all", help="As `make repro-all`.")] = False,
) -> None:
    """Tell what `dvc repro` would run now, and the time, memory and disk it would take here."""
    from sepablate import planning

    planning.show(scale_name(scale), controls)


@app.command("study")
def study_(
    name: Annotated[str, typer.Argument(metavar="STUDY", help="A study in experiments/.")],
    scale: ScaleOption = None,
    mlflow: MlflowOption = True,
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave out, and name, variants without runs.")
    ] = False,
) -> None:
    """Make the table, the figure and the numbers on each claim of a study from its runs.

    A study of layers has no runs: `sepablate layers` times it.
    """
    study.load(name)
    chosen = scale_name(scale)
    from sepablate.analysis.partial import trained_part
    from sepablate.report import outputs

    outputs.study_outputs(name, chosen, trained_part(name, chosen) if partial else None)
    if mlflow:
        _publish(chosen, [name])


@app.command()
def layers(
    names: Annotated[list[str], typer.Argument(metavar="STUDY...", help="In this order.")],
    scale: ScaleOption = None,
) -> None:
    """Time the layers of studies that train nothing, and write their report, COSTS."""
    for name in names:
        study.load_layers(name)
    chosen = scale_name(scale)
    from sepablate.profiling import layer_timing
    from sepablate.report import outputs

    for name in names:
        layer_timing.study_times(name, chosen)
    outputs.layer_outputs(names, chosen)
    print(f"report: results/{chosen}/COSTS.md")


@app.command()
def report(
    names: Annotated[list[str], typer.Argument(metavar="STUDY...", help="In this order.")],
    name: Annotated[str, typer.Option(help="REPORT, or the name of another one.")] = "REPORT",
    scale: ScaleOption = None,
    mlflow: MlflowOption = True,
) -> None:
    """Decide the verdict on every claim of some comparisons and write the report.

    `sepablate layers` writes the report on studies of layers.
    """
    if not name.isidentifier():
        raise UserError(f"report name {name!r}: choose letters, digits and underscores")
    for study_name in names:
        study.load(study_name)
    chosen = scale_name(scale)
    from sepablate.report import outputs

    outputs.report_outputs(names, chosen, name)
    if mlflow:
        _publish(chosen, names)
    print(f"report: results/{chosen}/{name}.md")


@app.command()
def publish(scale: ScaleOption = None) -> None:
    """Bring MLflow up to the results on disk; nothing is ever doubled."""
    if not _publish(scale_name(scale), study.names(), asked=True):
        raise typer.Exit(1)


def _publish(scale: str, names: list[str], asked: bool = False) -> bool:
    """Show these studies in MLflow; one warning if it cannot be reached.

    Unless `asked` for it, not if an earlier command has just given up on MLflow.
    """
    from sepablate import tracking

    if tracking.given_up() and not asked:
        return False
    try:
        changed = tracking.publish(scale, names)
    except OSError as error:
        print(f"sepablate: {error}; `sepablate publish` fills the gap", file=sys.stderr)
        return False
    print(f"MLflow: {changed} runs brought up to date")
    return True


@app.command()
def ui(port: Annotated[int, typer.Option(parser=positive, help="On 127.0.0.1.")] = 5000) -> None:
    """Browse the runs in MLflow's user interface, on this machine only."""
    from sepablate import tracking

    tracking.ui(port)


@app.command()
def doctor(
    repair: Annotated[bool, typer.Option("--repair", help="Repair what is safe to.")] = False,
) -> None:
    """Look for what a crash or a failing disk has left: one line each, exit status 1 if any."""
    from sepablate.provenance.doctor import examine

    findings = examine(repair)
    for finding in findings:
        print(finding.line)
    if not all(finding.repaired for finding in findings):
        raise typer.Exit(1)
    print("healthy")


@app.command("list")
def list_() -> None:
    """Name the studies and their variants."""
    for name in study.names():
        declared = study.load(name)
        print(f"{name}: {declared.title}")
        for variant in declared.all_variants:
            print(f"    {variant.name:27} {variant.label}")
    for name in study.layer_names():
        print(f"{name}: {study.load_layers(name).title}")


app.command()(provenance.trace)
app.command()(provenance.verify)
app.command()(cost)
app.command()(evaluate)
app.command()(bench)
