"""The commands that begin with `new`. Nothing heavy is imported before it runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sepablate import study
from sepablate.cli.options import ScaleOption, require_project, resolve_scale
from sepablate.store import layout
from sepablate.store.files import write_atomically

if TYPE_CHECKING:
    from sepablate.planning.new_study import Question

DATASET_COMMANDS = {
    "sepablate train xception --scale {scale}": "one network, all its seeds",
    "sepablate train --all --scale {scale}": "all networks of the paper's studies",
    "sepablate study residual_connections --scale {scale}": "a study of them",
    "sepablate report residual_connections --scale {scale}": "results/{scale}/REPORT.md",
}
new = typer.Typer(help="Write a study of your own, its stages, or a data set.")


@new.command("study")
def study_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the study and its variant.")],
    baseline: Annotated[str, typer.Option(metavar="VARIANT", help="Compared with; any variant.")],
    change: Annotated[
        list[str],
        typer.Option(metavar="OPTION=VALUE", help="A change; as often as needed."),
    ],
    claim: Annotated[
        str, typer.Option(help="How the new variant ends: better, worse or equal.")
    ] = "better",
    source: Annotated[
        str, typer.Option(metavar="'AUTHOR YEAR, SECTION'", help="A paper that claims it.")
    ] = "a question of one's own",
    margin: Annotated[
        str | None,
        typer.Option(
            metavar="FRACTION",
            help="The smallest difference of interest, 0.005 for half a point. "
            "Default: 0.005; of a claim of equality 0.02.",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="The variant's name in tables and figures. Default: the changes in words.",
        ),
    ] = None,
    pipeline: Annotated[
        bool, typer.Option("--pipeline", help="Add its stages to experiments/dvc.yaml.")
    ] = False,
    scale: ScaleOption = None,
) -> None:
    """Write experiments/NAME.py, a study with one claim, and show how to run it.

    An option is one of the network's constructor, or a field of a variant such as weight_decay.
    """
    chosen = resolve_scale(scale)
    from sepablate.planning import new_stages, new_study, study_file

    question, declared = new_study.ask(
        name, baseline, change, chosen, claim=claim, source=source, margin=margin, label=label
    )
    contents = {str(study.FOLDER / f"{name}.py"): study_file.write(question, declared)}
    if pipeline:
        contents |= new_stages.add(name, declared)
    _write(contents)
    print("\n".join(_facts(question, declared)))
    print("\n".join([*_shared(name, declared), *_next_commands(name, declared, chosen, pipeline)]))


@new.command()
def stages(
    name: Annotated[str, typer.Argument(metavar="STUDY", help="A study in experiments/.")],
) -> None:
    """Add the stages of a study to experiments/dvc.yaml, as `new study --pipeline` does."""
    require_project()
    from sepablate.planning import new_stages

    _write(new_stages.add(name, study.load(name)))
    print("dvc repro experiments/dvc.yaml:own")


@new.command()
def dataset(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the data set, and of its scale.")],
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Of class folders, or of train, validation and test with class folders in each; "
            "or a CSV file with the columns image, label and, if you like, split.",
        ),
    ],
    add_scale: Annotated[
        bool, typer.Option("--add-scale", help="Add a scale of that name to params.yaml.")
    ] = False,
    scale: ScaleOption = None,
) -> None:
    """Register JPEG and PNG images as a data set, and show how to train on it.

    It writes datasets/NAME.json and datasets/NAME.csv. The images stay where they are, and are
    verified before they are used. The scale for them has the other fields of --scale.
    """
    chosen = resolve_scale(scale)
    from sepablate.planning import new_dataset, new_scale
    from sepablate.store import datasets

    if add_scale:
        new_scale.check_name(name)
    made = new_dataset.examine(name, source)
    there = new_scale.exists(name)
    values = new_scale.propose(chosen, name, made.registered)
    params = {str(layout.PARAMS): new_scale.add(name, values)} if add_scale else {}
    for path in datasets.write(name, made.registered, made.rows):
        print(f"written: {path}")
    _write(params)
    print("\n".join([*new_dataset.summary(name, made), ""]))
    if there:
        print(f"Its scale is in {layout.PARAMS} already.\n")
    elif not add_scale:
        print("Add this to the scales in params.yaml (or register with --add-scale):\n")
        print(new_scale.as_yaml(name, values))
    width = max(len(command.format(scale=name)) for command in DATASET_COMMANDS)
    for command, what in DATASET_COMMANDS.items():
        print(f"{command.format(scale=name):{width}}  # {what.format(scale=name)}")


def _write(contents: dict[str, str]) -> None:
    for path, text in contents.items():
        write_atomically(Path(path), text)
        print(f"written: {path}")


def _facts(question: "Question", declared: study.Study) -> list[str]:
    """Return the claim's margin in points, and a line if both networks have runs already."""
    from sepablate.analysis.metrics import TASK_METRICS
    from sepablate.planning import earlier_runs

    (claim,), score = declared.claims, TASK_METRICS[declared.baseline.task].label
    points = 100 * claim.margin
    lines = [f"margin: {points:g} point{'s' * (points != 1)} of {score}"]
    if question.known_at:
        lines.append(f"the claim is {earlier_runs.words(question.known_at)}: the report says so")
    return lines


def _shared(name: str, declared: study.Study) -> list[str]:
    """Return a line on the variant, if another study has it already."""
    (changed,) = declared.variants
    if changed.name == name:
        return []
    owner, *_ = (each for each in study.studies_with(changed.name) if each != name)
    has = f"variant {changed.name} ({changed.label}) of {study.FOLDER / owner}.py has"
    return [f"{has} the same changes: the study compares that one, with its runs and its label"]


def _next_commands(name: str, declared: study.Study, scale: str, pipeline: bool) -> list[str]:
    """Return the commands that answer the question, with what each does."""
    from sepablate import scales
    from sepablate.store.collected_runs import trained_variants

    selected = scales.current()
    if pipeline:
        then = f"; {layout.PARAMS} then selects {scale}"
        does, words = ("repro", "") if selected == scale else (f"exp run -S scale={scale}", then)
        return [f"dvc {does} experiments/dvc.yaml:own  # {_report_files(scale, 'OWN')}{words}"]
    option = "" if selected == scale else f" --scale {scale}"
    (changed,), trained = declared.variants, trained_variants(scale)
    named = [declared.baseline] * (declared.baseline.name not in trained) + [changed]
    commands = {
        **{
            f"train {variant.name}{option}": "trained already"
            if variant.name in trained
            else "all its seeds"
            for variant in named
        },
        f"study {name}{option}": "its table, its figure, the numbers of its claim",
        f"report {name}{option}": _report_files(scale, name.upper()),
    }
    width = max(map(len, commands))
    return [f"sepablate {command:{width}}  # {what}" for command, what in commands.items()]


def _report_files(scale: str, report: str) -> str:
    return f"results/{scale}/{layout.report_text(report)} and {layout.report_page(report)}"
