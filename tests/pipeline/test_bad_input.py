"""Bad input ends in one line with the value, the place and the choices; nothing is written."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import fork_server
from helpers.project import ROOT, contents, edit_params, sepablate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sepablate import __version__, study

GOOD = (ROOT / "experiments/residual_connections.py").read_text()


@pytest.mark.parametrize(
    ("change", "line", "hint"),
    [
        (lambda text: text + "\nSTUDY = = 3\n", len(GOOD.splitlines()) + 2, "invalid syntax"),
        (lambda text: "import nothing_such\n" + text, 1, "nothing_such"),
        (lambda text: text.replace("import XCEPTION", "import XEPTION"), None, "XEPTION"),
        (lambda text: text + "\nSTUDY = 3\n", None, "STUDY"),
        (lambda text: text.replace('"no_residual"', '"no residual; rm -rf /"', 1), None, "rm -rf"),
        (lambda text: text.replace('"no_residual"', '"../no_residual"', 1), None, "../no"),
        (lambda text: text.replace('"no_residual"', '"-x"', 1), None, "-x"),
        (lambda text: text[: text.rindex(")")], None, "never closed"),
        (lambda text: text.replace("residual=False", "residual=[False]", 1), None, "[False]"),
        (lambda text: text.replace("margin=", "margins="), None, "margins"),
    ],
)
def test_bad_study_files_are_refused_in_one_line(
    tmp_path: Path, change: Callable[[str], str], line: int | None, hint: str
) -> None:
    changed = change(GOOD)
    assert changed != GOOD
    (tmp_path / "bad.py").write_text(changed)
    with pytest.raises(ValueError, match=r"bad\.py:") as error:
        study.load("bad", tmp_path)
    assert hint in str(error.value)
    assert "\n" not in str(error.value)
    if line:
        assert f"bad.py:{line}:" in str(error.value)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    place=st.integers(0, len(GOOD)),
    removed=st.integers(0, 30),
    added=st.text("abcSTUDY_=(),.:\"'0123456789\n -", max_size=6),
)
def test_any_study_file_loads_or_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int, removed: int, added: str
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "any.py").write_text(GOOD[:place] + added + GOOD[place + removed :])
    refused = ""
    try:
        assert isinstance(study.load("any", tmp_path), study.Study)
    except ValueError as error:
        refused = str(error)
    assert "\n" not in refused
    assert not refused or "any.py" in refused


ASKS_FOR_HELP = re.compile(r"--help|-h")
ARGUMENTS = st.lists(
    st.sampled_from(["train", "study", "report", "fetch", "list", "publish", "--scale", "--port"])
    | st.sampled_from(["xception", "smoke", "--processes", "-1", "0", "--no-mlflow", "--", ""])
    | st.text(max_size=8).filter(lambda text: "\0" not in text and not ASKS_FOR_HELP.match(text)),
    max_size=4,
)
ANY_ARGUMENTS = """
import contextlib, io, json, sys
from unittest import mock
from sepablate import __main__
from sepablate.cli import app
for line in sys.stdin:
    sys.argv = ["sepablate", *json.loads(line)]
    errors, status = io.StringIO(), 0
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        with mock.patch("sepablate.cli.train._train", return_value=[]):
            try:
                __main__.main()
            except SystemExit as error:
                status = error.code or 0
    print(json.dumps([status, errors.getvalue()]))
"""


@pytest.mark.slow
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(many=st.lists(ARGUMENTS, min_size=60, max_size=60))
def test_any_arguments_end_in_one_line_and_status_2(project: Path, many: list[list[str]]) -> None:
    """Training itself is left out: it is what a valid command does."""
    shutil.rmtree(project / "data", ignore_errors=True)
    many = [each for each in many if "fetch" not in each and "ui" not in each]
    before = {name for name in contents(project) if "__pycache__" not in name}
    lines = "".join(json.dumps(each) + "\n" for each in many)
    command = [sys.executable, "-c", ANY_ARGUMENTS]
    done = subprocess.run(command, cwd=project, input=lines, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for arguments, (status, errors) in zip(many, answers, strict=True):
        assert status in (0, 2), (arguments, errors)
        assert errors.count("\n") == (1 if status else 0), (arguments, errors)
    assert {name for name in contents(project) if "__pycache__" not in name} == before
    (project / "data").mkdir()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")], ids=str)
@pytest.mark.parametrize("place", ["learning_rate", "width", "epochs"])
def test_a_number_that_is_none_is_refused_before_anything_is_written(
    project: Path, place: str, number: float
) -> None:
    edit_params(project, **{place: number})
    before = contents(project)
    done = sepablate(project, "train", "xception")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert place in done.stderr
    assert str(number) in done.stderr
    after = {name: data for name, data in contents(project).items() if "__pycache__" not in name}
    assert after == before


BUG = """
import sys
from sepablate import __main__, errors, study

def names():
    raise {}("a message")

study.names = names
sys.argv = ["sepablate", "list"]
__main__.main()
"""


def test_only_a_user_error_is_one_line_and_a_bug_shows_its_traceback() -> None:
    """A ValueError of pandas, numpy or torch must not look like bad input."""
    for exception in ("ValueError", "KeyError", "RuntimeError"):
        code = BUG.format(exception)
        done = fork_server.run(ROOT, "-c", code)
        assert done.returncode == 1
        assert done.stderr.startswith("Traceback") or "Traceback (most recent call" in done.stderr
        assert exception in done.stderr
    code = BUG.format("errors.UserError")
    done = fork_server.run(ROOT, "-c", code)
    assert (done.returncode, done.stderr) == (2, "sepablate: a message\n")


def test_a_bare_command_prints_its_help() -> None:
    done = sepablate(ROOT)
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: ")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("train", "xcepton"),
            "variant 'xcepton' in experiments/: did you mean xception[?]; choose .*",
        ),
        (("study", "residual_conections"), ".*: did you mean residual_connections[?]; .*"),
        (
            ("train", "residual_connections"),
            "variant 'residual_connections': is a study; choose a variant of it: xception, .*",
        ),
        (("plan", "--scale", "latop"), "--scale 'latop': choose smoke, .*; did you mean laptop[?]"),
        (("fetch", "cifar"), "data set 'cifar': choose .*; did you mean cifar10[?]"),
        (
            ("report", "residual_connections", "--scale", "laptop"),
            "report residual_connections: results/laptop/REPORT.md also has xception_vs_inception,",
        ),
        (("train", "--all", "xception"), "train: choose a variant, or --all without"),
        (("train",), "train: choose a variant, or --all without"),
        (("verify", "--scale", "zzz"), "--scale 'zzz': choose smoke, laptop, workstation, paper"),
    ],
)
def test_a_name_that_is_nearly_right_is_recognised(arguments: tuple[str, ...], line: str) -> None:
    done = sepablate(ROOT, *arguments)
    assert done.returncode == 2
    assert re.match(f"sepablate: {line}", done.stderr)
    assert len(done.stderr.splitlines()) == 1


def test_version_help_and_the_names_of_commands() -> None:
    assert sepablate(ROOT, "--version").stdout == f"sepablate {__version__}\n"
    short, long = (sepablate(ROOT, "cost", flag) for flag in ("-h", "--help"))
    assert (short.returncode, short.stdout) == (0, long.stdout)
    assert "--image-size" in short.stdout
    unknown = sepablate(ROOT, "exports")
    assert unknown.returncode == 2
    assert ", export-runs, export-weights," in unknown.stderr


@pytest.mark.parametrize("target", ["repro", "repro-all"])
def test_a_downloaded_archive_is_refused_before_anything_is_installed(
    target: str, tmp_path: Path
) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    done = subprocess.run(
        ["make", target],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)},
    )
    assert done.returncode == 2
    assert "sepablate: not a git repository; get the project by git clone" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["Makefile"]
