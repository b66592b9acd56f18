"""`python -m sepablate`, and the command `sepablate`."""

import os
import sys
from typing import Any

import typer

from sepablate.cli.app import app, command_names
from sepablate.errors import UserError
from sepablate.execution.launch import is_main_process
from sepablate.store.files import NoSpace

# typer exports only some of its exceptions
USAGE_ERROR: type[Any] = typer.BadParameter.__bases__[0]


def main() -> None:
    """Run the command line; bad input ends in one line on stderr and exit status 2.

    So does a full disk, with exit status 74. Under torchrun only the main process writes the line.
    """
    status = 2
    try:
        sys.exit(app(standalone_mode=False))
    except UserError as error:
        message = str(error)
    except USAGE_ERROR as error:
        message = error.format_message()
        if "No such command" in message:
            message += f" Choose {', '.join(command_names())}"
    except NoSpace as error:
        message, status = f"{error}; make room and run the same command again", os.EX_IOERR
    except typer.Abort:
        sys.exit(130)
    if is_main_process():
        print(f"sepablate: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
