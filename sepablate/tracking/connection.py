"""The connection to MLflow: a database here, or the server that MLFLOW_TRACKING_URI names."""

import contextlib
import logging
import os
import socket
import sys
import time
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError

from sepablate.errors import UserError
from sepablate.store import layout
from sepablate.store.files import is_regular, locked
from sepablate.tracking.summary import VIEW, VIEW_TAG

for name in ("mlflow", "urllib3.connectionpool"):  # their failures reach us as exceptions
    logging.getLogger(name).setLevel(logging.CRITICAL)

DATABASE, ARTIFACTS = layout.MLFLOW_DATABASE, layout.MLFLOW_ARTIFACTS
GIVEN_UP = layout.STATE / "mlflow-given-up"
WORKFLOW = "workflowType=machine_learning"  # the other one is of language models
UNFLUSHED = "PRAGMA synchronous = OFF"  # a killed process loses nothing; a power failure may
TRIES = 4  # of a database that does not open, in 1 s; MLflow's own ten take 100 s
RESPITE = 600  # seconds in which no other command of a pipeline waits for a server again


def address() -> str:
    """Return MLFLOW_TRACKING_URI, or mlflow.db in the current folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _sqlite(DATABASE)


def _sqlite(path: Path) -> str:
    """Return the address of a database: relative where its folder has characters of a URI.

    SQLAlchemy would decode them, MLflow would not, and both would leave the project.
    """
    absolute = str(path.resolve())
    return f"sqlite:///{path if set(absolute) & set('%?#') else absolute}"


def connect(from_files: bool = False) -> MlflowClient:
    """Return a client of `address`. A new database appears whole: half of one never opens.

    Raises UserError for an address that is none, or one whose driver is missing.

    Args:
        from_files: all that will be written lies in files, so that a new database need not be
            flushed by this process: most of the time of filling it.
    """
    from mlflow.store.db import utils

    utils.MAX_RETRY_COUNT = TRIES
    if not os.environ.get("MLFLOW_TRACKING_URI") and not is_regular(DATABASE):
        if from_files:
            event.listen(Engine, "connect", lambda opened, _: opened.execute(UNFLUSHED))
        _create()
    try:
        return MlflowClient(address())
    except ImportError as error:  # the driver of a database that the user named
        raise UserError(
            f"MLFLOW_TRACKING_URI: {address()}: needs {error.name}; install it, or choose another"
        ) from None
    except ValueError as error:
        raise UserError(f"MLFLOW_TRACKING_URI: {address()}: {one_line(error)}") from None


def _create() -> None:
    """Make the database, unless another command is faster, and give it its name when it is whole.

    What is left of a command that was killed meanwhile is deleted first.
    """
    half = DATABASE.with_name(f"{DATABASE}.tmp")
    with locked(layout.STATE / "mlflow.lock"):
        if DATABASE.exists():
            return
        for path in DATABASE.parent.glob(f"{half.name}*"):  # SQLite's journal as well
            path.unlink()
        MlflowClient(_sqlite(half)).search_experiments()
        half.replace(DATABASE)


def give_up() -> None:
    """Let the commands that follow not wait for a server of MLflow that does not answer."""
    with contextlib.suppress(OSError):
        GIVEN_UP.parent.mkdir(exist_ok=True)
        GIVEN_UP.touch()


def given_up() -> bool:
    """Return whether another command gave up on a server lately, and none has reached it since.

    A database here is asked each time: it answers late on a busy machine, or fails in seconds.
    """
    if not address().startswith("http"):
        return False
    with contextlib.suppress(OSError):
        return time.time() - GIVEN_UP.stat().st_mtime < RESPITE
    return False


def reached() -> None:
    """Note that MLflow answers again."""
    GIVEN_UP.unlink(missing_ok=True)


def artifact_location(study: str, scale: str) -> str | None:
    """Return a folder here, or None: a server has its own."""
    if address().startswith("http"):
        return None
    return (ARTIFACTS / study / scale).resolve().as_uri()


def one_line(error: object) -> str:
    """Return the beginning of an error's message, in one line."""
    return " ".join(str(error).split())[:200]


def ui(port: int = 5000, allowed_hosts: str | None = None) -> None:
    """Become the MLflow UI, on this machine only.

    Raises UserError for a port that is not free, or a database that MLflow cannot read.

    Args:
        port: on 127.0.0.1.
        allowed_hosts: further addresses by which browsers may name it, separated by commas.
    """
    if address().startswith("http"):
        print(f"MLflow runs at {address()}")
        return
    if not 1 <= port <= 65535:
        raise UserError(f"port {port}: choose a number from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(f"port {port}: {error.strerror}; choose another") from error
    arguments, environment = ui_command(port, allowed_hosts)
    page = f"http://127.0.0.1:{port}/#/experiments"
    try:
        found = views(connect())
    except (MlflowException, SQLAlchemyError) as error:
        raise UserError(f"MLflow at {address()}: {one_line(error)}") from None
    for name, view in found.items():
        print(f"{name}: {page}/{view}")
    print(f"MLflow: {page}?{WORKFLOW} (Ctrl-C ends it)", flush=True)
    os.execve(arguments[0], arguments, environment)


def views(client: MlflowClient) -> dict[str, str]:
    """Return the end of the address of each experiment's saved view, by the experiment's name."""
    return {
        experiment.name: f"{experiment.experiment_id}/runs?{WORKFLOW}&viewStateShareKey={VIEW}"
        for experiment in client.search_experiments(order_by=["creation_time ASC"])
        if VIEW_TAG in experiment.tags
    }


def ui_command(port: int, allowed_hosts: str | None = None) -> tuple[list[str], dict[str, str]]:
    """Return command line and environment: loopback only, one worker, no jobs or telemetry."""
    hosts = [f"localhost:{port}", f"127.0.0.1:{port}", *filter(None, [allowed_hosts])]
    options = {
        "--backend-store-uri": address(),
        "--artifacts-destination": ARTIFACTS.resolve().as_uri(),
        "--host": "127.0.0.1",
        "--port": str(port),
        "--workers": "1",
        "--allowed-hosts": ",".join(hosts),
    }
    arguments = [word for pair in options.items() for word in pair]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment["MLFLOW_DISABLE_TELEMETRY"] = "true"
    environment.setdefault("PYTHONWARNINGS", "ignore")  # of libraries, for MLflow's developers
    return [sys.executable, "-m", "mlflow", "ui", *arguments], environment
