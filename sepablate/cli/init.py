"""The command `init`."""

import re
from pathlib import Path
from typing import Annotated

import typer

from sepablate.errors import UserError
from sepablate.project_files import IN_WHEEL, project_files
from sepablate.store.files import write_atomically

PACKAGE = Path(__file__).parents[1]
# Lines of a pipeline that name a file of this package, which a project elsewhere does not have.
OWN_SOURCE = re.compile(r"^ +- sepablate/.*\n", re.MULTILINE)
NO_DEPENDENCIES = re.compile(r"^ +deps:\n(?! +- )", re.MULTILINE)
HEAD = re.compile(r"\A(#.*\n)+")
NEW_HEAD = """\
# Made by `sepablate init`. No stage depends on the source of sepablate: after an update of it,
# `dvc repro --force --all-pipelines` trains what the update changed, and nothing else.
"""
NEXT = """\
written: {folder}, with all studies, scales and recipes. Next:
    cd {folder}
    sepablate list                          # the studies and their variants
    sepablate train xception --scale smoke  # one variant, in seconds
    git init && dvc repro                   # train and report the paper's three ablations
"""


def init(
    folder: Annotated[Path, typer.Argument(help="A new folder, or an empty one.")],
) -> None:
    """Make a project of your own outside of this repository: params.yaml, studies, pipelines.

    Every command then works in that folder. Its pipelines do not depend on the source of sepablate:
    after an update, `dvc repro --force` trains what the update changed, and nothing else.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"init {str(folder)!r}: is not empty: choose a new folder")
    source = PACKAGE / IN_WHEEL
    if not source.is_dir():  # in the repository
        source = PACKAGE.parent
    files = project_files(source)
    if not files:
        raise UserError(f"{source}: has no params.yaml to copy; install sepablate again")
    for name in files:
        text = (source / name).read_text()
        if name.name == "dvc.yaml":
            text = NO_DEPENDENCIES.sub("", OWN_SOURCE.sub("", HEAD.sub(NEW_HEAD, text)))
        write_atomically(folder / name, text)
    print(NEXT.format(folder=folder), end="")
