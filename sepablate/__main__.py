"""`python -m sepablate`, and the command `sepablate`."""

import errno
import gc
import os
import signal
import sys
from typing import Any

# With Python's 700 objects between collections, they take a fifth of the time that imports take.
gc.set_threshold(200_000)

try:
    import typer

    from sepablate.cli.app import app
    from sepablate.errors import UserError, explain, explain_memory
    from sepablate.execution import environment
    from sepablate.execution.launch import is_main_process
    from sepablate.store.files import NoSpace
except ModuleNotFoundError as error:  # another Python, as where DVC is started by its path
    if str(error.name).startswith("sepablate"):
        raise
    reason = f"{sys.executable} has no {error.name}: `source .venv/bin/activate`, or `make repro`"
    print(f"sepablate: {reason}", file=sys.stderr)
    sys.exit(2)

# typer exports only some of its exceptions
USAGE_ERROR: type[Any] = typer.BadParameter.__bases__[0]


def main() -> None:
    """Run the command line; bad input ends in one line on stderr and exit status 2.

    So does what the environment refuses; a full disk has exit status 74, an output whose reader is
    gone 141, as if SIGPIPE had ended it. Under torchrun only the main process writes the line.
    """
    environment.prepare_output()
    environment.use_writable_cache()
    message, status = "", 2
    try:
        if sys.platform != "linux":
            raise UserError("sepablate runs on Linux; elsewhere use a Linux container or WSL 2")
        status = app(sys.argv[1:] or ["--help"], standalone_mode=False) or 0
        if sys.stdout is not None:  # it is None where the shell has closed it
            sys.stdout.flush()
    except UserError as error:
        message = str(error)
    except USAGE_ERROR as error:
        message = error.format_message()
        if "No such command" in message or "Missing command" in message:
            message += f" Choose {', '.join(sorted(error.ctx.command.commands))}"
    except NoSpace as error:
        message, status = f"{error}; make room and run the same command again", os.EX_IOERR
    except environment.OutputLost as error:
        message, status = _output_lost(error.args[0])
    except OSError as error:
        message = explain(error) or explain_memory(error) or ""
        if not message:
            raise
    except (ImportError, MemoryError) as error:  # torch's libraries map gigabytes
        message = explain_memory(error) or ""
        if not message:
            raise
    except typer.Abort as error:
        if isinstance(error.__cause__, EOFError):  # a bug: no command asks for input
            raise error.__cause__ from None
        status = 130
    if message and is_main_process():
        print(f"sepablate: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


def _output_lost(number: int) -> tuple[str, int]:
    """Return the line and the exit status for an output that failed with that error number."""
    if number == errno.EPIPE:
        return "", 128 + signal.SIGPIPE
    return f"standard output: {os.strerror(number)}", os.EX_IOERR


if __name__ == "__main__":
    main()
