"""Options that several commands share."""

import json
from typing import Annotated

import typer

from sepablate import study
from sepablate.cli import completion
from sepablate.errors import UserError
from sepablate.store import layout

ScaleOption = Annotated[
    str | None,
    typer.Option(
        "--scale",
        help="A scale of params.yaml; default: the selected one.",
        autocompletion=completion.scales,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]
MlflowOption = Annotated[bool, typer.Option(help="Show the runs in MLflow as well.")]


def require_project() -> None:
    """Raise UserError unless the current folder is the project's."""
    there = {layout.PARAMS: layout.PARAMS.exists(), study.FOLDER: study.FOLDER.is_dir()}
    if not all(there.values()):
        names = " and ".join(str(path) for path in there if not there[path])
        raise UserError(f"no {names} in this folder: run from the project's root folder")


def resolve_scale(option: str | None, origin: str = "--scale") -> str:
    """Return the scale of the option, or the selected one; UserError if it is unknown or bad.

    origin: where the option stands, for an error.
    """
    require_project()
    from sepablate import scales  # with pydantic and YAML, which --help does without
    from sepablate.runs import settings

    name = scales.current() if option is None else option
    settings.load(name, origin="" if option is None else origin)
    return name


def print_json(content: object) -> None:
    """Print numbers and names as JSON; nan, which JSON lacks, is refused as a bug."""
    print(json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False))


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not str(text).isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r}: choose a whole number, at least 1")
    return int(text)
