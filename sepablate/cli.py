"""The command line: parse, call one function, say what happened. Imports torch only to train."""

import os
import sys
from typing import Annotated

import typer

from sepablate import scales, study

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


def _positive(text: str) -> int:
    """A whole number of at least 1."""
    if not str(text).isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r}: choose a whole number, at least 1")
    return int(text)


def command_names() -> list[str]:
    """The commands, in alphabetical order."""
    found = [command.name or command.callback.__name__ for command in app.registered_commands]  # type: ignore[union-attr]
    return sorted(found)


def _scale(name: str | None) -> str:
    """The scale asked for, or the one that params.yaml selects; ValueError if it is unknown."""
    name = name or scales.current()
    scales.load(name)
    return name


@app.command()
def fetch(scale: ScaleOption = None) -> None:
    """Get the data set, from whichever source is in reach, and verify it."""
    from sepablate import data

    chosen, _ = scales.load(_scale(scale))
    data.dataset(chosen.dataset).fetch(data.FOLDER)


@app.command()
def train(
    variant: Annotated[str, typer.Argument(help="A variant; `sepablate list` names them.")],
    scale: ScaleOption = None,
    processes: Annotated[
        int | None,
        typer.Option(parser=_positive, help="Runs at a time; default: one a core or GPU."),
    ] = None,
    mlflow: MlflowOption = True,
) -> None:
    """Train all seeds of a variant that are not trained yet."""
    study.variant(variant)
    scale_name = _scale(scale)
    from sepablate.training import parallel

    parallel.warm_up()
    from sepablate import progress
    from sepablate.training import stage, worker

    if "DVC_STAGE" in os.environ:
        worker.die_with_parent()
    jobs = stage.prepare(variant, scale_name)
    count = processes or parallel.default_processes()
    try:
        with progress.shown(variant, scale_name, jobs, live=mlflow) as observe:
            done = stage.train(jobs, count, observe)
    except parallel.Stopped:
        print("sepablate: stopped; the same command goes on from here", file=sys.stderr)
        raise typer.Exit(worker.INTERRUPTED) from None
    for name, status in done.failures.items():
        print(f"sepablate: {progress.explain(name, status)}", file=sys.stderr)
    if done.failures:
        raise typer.Exit(1)


@app.command("study")
def study_(
    name: Annotated[str, typer.Argument(metavar="STUDY", help="A study in experiments/.")],
    scale: ScaleOption = None,
    mlflow: MlflowOption = True,
) -> None:
    """Make the table, the figure and the numbers on each claim of a study from its runs."""
    study.load(name)
    scale_name = _scale(scale)
    from sepablate.analysis import outputs

    outputs.study_outputs(name, scale_name)
    if mlflow:
        _publish(scale_name, [name])


@app.command()
def report(
    names: Annotated[list[str], typer.Argument(metavar="STUDY...", help="In this order.")],
    scale: ScaleOption = None,
    mlflow: MlflowOption = True,
) -> None:
    """Decide the verdict on every claim and write the report."""
    for name in names:
        study.load(name)
    scale_name = _scale(scale)
    from sepablate.analysis import outputs

    outputs.report_outputs(names, scale_name)
    if mlflow:
        _publish(scale_name, names)
    print(f"report: results/{scale_name}/REPORT.md")


@app.command()
def publish(scale: ScaleOption = None) -> None:
    """Bring MLflow up to the results on disk; nothing is ever doubled."""
    if not _publish(_scale(scale), study.names()):
        raise typer.Exit(1)


def _publish(scale: str, names: list[str]) -> bool:
    """Show these studies in MLflow; one warning if it cannot be reached."""
    from sepablate import tracking

    try:
        changed = tracking.publish(scale, names)
    except OSError as error:
        print(f"sepablate: {error}; `sepablate publish` fills the gap", file=sys.stderr)
        return False
    print(f"MLflow: {changed} runs brought up to date")
    return True


@app.command()
def ui(port: Annotated[int, typer.Option(parser=_positive, help="On 127.0.0.1.")] = 5000) -> None:
    """Browse the runs in MLflow's user interface, on this machine only."""
    from sepablate import tracking

    tracking.ui(port)


@app.command("list")
def list_() -> None:
    """Name the studies and their variants."""
    for name in study.names():
        declared = study.load(name)
        print(f"{name}: {declared.title}")
        for variant in declared.all:
            print(f"    {variant.name:18} {variant.label}")
