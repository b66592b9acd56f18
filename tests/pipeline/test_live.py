"""MLflow follows a training, and never stops it: it costs a line, and 5 s at the end at most."""

import socket
import sqlite3
import threading
from collections.abc import Iterator

import pytest
from helpers.project import wait_for
from helpers.records import STUDY, folder, key, one, shown, write_results, write_training

from sepablate.cli.publishing import publish_studies
from sepablate.tracking import Live, connection, live, publish

__all__ = ["folder"]


@pytest.fixture(autouse=True)
def nothing_goes_on(folder: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A thread that still waits for MLflow must not reach the folder of the next test."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")
    yield
    wait_for(lambda: not followers())


def followers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "mlflow"]


def points() -> int:
    """How many MLflow shows of the run that trains."""
    found = [run for run in shown().values() if run["name"] == "xception seed 0"]
    return len(found[0]["points"]) if found else 0


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may need more than 5 s to show all, where the test asks for all."""
    monkeypatch.setattr(live, "PATIENCE", 300)


def test_live_then_publish_doubles_nothing(patient: None) -> None:
    follower = Live([STUDY], "smoke", [key("xception", seed) for seed in (0, 1)], period=0.1)
    write_training(0, evaluations=1)
    wait_for(lambda: points() == 3)
    assert one("xception seed 0")["status"] == "RUNNING"
    write_training(0, evaluations=2)
    wait_for(lambda: points() == 6)
    write_training(0, evaluations=3, finished=True)
    write_training(1, evaluations=2)
    follower.close()
    assert one("xception seed 0")["status"] == "FINISHED"
    assert one("xception seed 1")["status"] == "KILLED"
    followed = shown()

    write_results()
    publish("smoke", [STUDY])
    completed = shown()
    assert followed.keys() < completed.keys()
    assert {run["status"] for run in completed.values()} == {"FINISHED"}
    connection.DATABASE.rename("followed.db")
    publish("smoke", [STUDY])
    rebuilt = {run["name"]: run["points"] for run in shown().values()}
    assert rebuilt == {run["name"]: run["points"] for run in completed.values()}


def test_an_interrupted_run_is_resumed_in_place(patient: None) -> None:
    for evaluations, finished, status in ((1, False, "KILLED"), (3, True, "FINISHED")):
        write_training(0, evaluations, finished)
        with Live([STUDY], "smoke", [key("xception", 0)], period=0.1):
            pass
        assert one("xception seed 0")["status"] == status
    assert len(shown()) == 2
    assert len(one("xception seed 0")["points"]) == 12


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def follow_to_the_end() -> None:
    """As a training does whose MLflow fails; it ends after the first failure."""
    write_training(0, evaluations=2)
    follower = Live([STUDY], "smoke", [key("xception", 0)], period=0.1)
    wait_for(connection.GIVEN_UP.exists)
    follower.close()


def warns_once(capfd: pytest.CaptureFixture[str]) -> bool:
    lines = capfd.readouterr().err.splitlines()
    return len(lines) == 1 and lines[0].startswith("MLflow: ")


def test_a_closed_port_costs_a_warning(monkeypatch, capfd) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", closed_port())
    follow_to_the_end()
    assert warns_once(capfd)


def test_nobody_waits_for_a_server_that_never_answers(monkeypatch, capfd) -> None:
    """A training goes on while it is asked, and ends although it has not answered."""
    assert live.PATIENCE <= 5  # seconds, and the only wait
    monkeypatch.setattr(live, "PATIENCE", 0.5)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "200")
    write_training(0, evaluations=2)
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        follower = Live([STUDY], "smoke", [key("xception", 0)], period=0.1)
        asking, _ = silent.accept()  # it is asked, and says nothing
        assert not connection.given_up()
        follower.close()
        assert followers()  # still waits
        asking.close()
    assert warns_once(capfd)
    assert connection.given_up()


def test_a_server_that_is_slow_gives_up_by_itself(monkeypatch, capfd) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        follow_to_the_end()
    assert warns_once(capfd)


def test_a_suite_waits_and_warns_once(monkeypatch, capfd) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", closed_port())
    follow_to_the_end()
    assert warns_once(capfd)
    for _ in range(2):  # the stages that follow
        follower = Live([STUDY], "smoke", [key("xception", 0)], period=0.1)
        assert not followers()
        follower.close()
    assert connection.given_up()
    assert capfd.readouterr().err == ""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    write_results()
    assert publish("smoke", [STUDY])  # asked for, it tries
    assert not connection.given_up()


def test_what_comes_after_the_end_changes_nothing(monkeypatch, capfd, tmp_path) -> None:
    """A thread that hears of a failure late does not tell the commands that follow."""
    monkeypatch.setattr(live, "PATIENCE", 0.1)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "200")
    write_training(0, evaluations=2)
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        follower = Live([STUDY], "smoke", [key("xception", 0)], period=0.1)
        asking, _ = silent.accept()
        follower.close()
        connection.reached()  # as `sepablate publish` does once MLflow answers
        asking.close()
    wait_for(lambda: not followers())
    assert not connection.given_up()
    assert warns_once(capfd)


def test_a_read_only_database_costs_a_warning(monkeypatch, capfd) -> None:
    uri = f"sqlite:///file:{connection.DATABASE.resolve()}?mode=ro&uri=true"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    follow_to_the_end()
    assert warns_once(capfd)
    write_results()
    with pytest.raises(OSError, match="readonly database"):
        publish("smoke", [STUDY])


def test_a_locked_database_costs_a_warning_and_the_next_command_tries(capfd) -> None:
    """Else its runs would train for ever, after a moment in which the machine was too busy."""
    lock = sqlite3.connect(connection.DATABASE)
    lock.execute("BEGIN EXCLUSIVE")
    follow_to_the_end()
    assert warns_once(capfd)
    lock.close()
    wait_for(lambda: not followers())  # which end with their command
    write_results()
    assert publish_studies("smoke", [STUDY])
    assert not connection.GIVEN_UP.exists()


def test_live_tries_again_after_a_failure(monkeypatch, capfd) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", closed_port())
    write_training(0, evaluations=1)
    with Live([STUDY], "smoke", [key("xception", 0)], period=0.1):
        wait_for(connection.given_up)
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        wait_for(lambda: points() == 3)
    assert warns_once(capfd)
