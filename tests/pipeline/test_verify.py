"""A digit that was changed anywhere in the results is found."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.project import ROOT, contents
from helpers.published import FILES, TINY, change_a_digit, current, made, named, without_runs
from typer.testing import CliRunner

from sepablate.cli.app import app
from sepablate.provenance import embedded_keys
from sepablate.provenance.verify import verify
from sepablate.report import manifest

__all__ = ["current", "made"]
pytestmark = pytest.mark.usefixtures("current")


def test_results_that_follow_from_their_runs_are_found_right() -> None:
    before = contents(TINY)
    found = verify("tiny")
    assert found.wrong == []
    runs = "REPORT: made again from the runs of 3 variants in results/tiny/runs"
    assert runs in found.checked
    without_runs(archives=True)
    found = verify("tiny")
    assert found.wrong == []
    assert {f"{runs}.tar.gz", f"CONTROLS: {runs.partition(': ')[2]}"} & {*found.checked}
    without_runs()
    found = verify("tiny")
    assert found.wrong == []
    assert any(line.startswith("CONTROLS: no runs on disk") for line in found.checked)
    assert contents(TINY) == {name: before[name] for name in FILES if name in before}


def test_another_process_makes_the_same_bytes() -> None:
    """No order may hang on Python's hash of a string."""
    code = "from sepablate.provenance.verify import verify; print(verify('tiny').wrong)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_every_file_of_the_results_is_among_those_tried() -> None:
    without_runs()
    assert sorted(contents(TINY)) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_digit_is_found_without_the_runs(name: str) -> None:
    without_runs()
    path = TINY / name
    whole = path.read_bytes()
    for nth in (0, 37, 100):
        change_a_digit(path, nth)
        wrong = verify("tiny").wrong
        assert wrong if name.endswith("digests.json") else named(wrong, path)
        path.write_bytes(whole)


def test_a_changed_digit_is_found_with_the_runs_and_its_place_told() -> None:
    for name in FILES:
        change_a_digit(TINY / name, 60)
    wrong = verify("tiny").wrong
    for name in FILES:
        place = r"byte \d+" if name.endswith(".png") else r"line \d+: '...*?' for '...*?'"
        pattern = rf"{TINY / name}, {place}; does not follow from its runs"
        assert any(re.match(pattern, line) for line in wrong), name


def test_a_consistent_lie_is_found_in_what_does_not_follow() -> None:
    """Digests written again do not help: table and claims stand for the report."""
    without_runs()
    path = TINY / "verdicts.json"
    path.write_text(re.sub(r'"outcome": "\w+"', '"outcome": "bought"', path.read_text(), count=1))
    path = TINY / "residual_connections/table.csv"
    path.write_text(re.sub(r",0\.8", ",0.7", path.read_text(), count=1))
    listing = json.loads((TINY / "digests.json").read_text())
    names = ["REPORT.md", "report.html", "verdicts.json", "metrics.json"]
    own = [*names, "scorecard.png", "scorecard.svg"]
    manifest.write("tiny", "REPORT", listing["studies"], own)
    wrong = verify("tiny").wrong
    assert named(wrong, TINY / "residual_connections/table.md")
    assert any(
        re.match(r".*/verdicts.json, \[\d\]\.outcome: has 'bought' for", line) for line in wrong
    )


def test_runs_that_do_not_match_their_keys_are_found() -> None:
    runs = TINY / "runs/no_residual"
    change = {
        runs / "config.json": ("0.045", "0.046"),
        TINY / "runs/xception/seed-2.csv": ("xception,2", "xception,2"),
        TINY / "measured/xception/seed-1.json": ('"run_key": "', '"run_key": "0'),
    }
    for path, (old, new) in change.items():
        path.write_text(path.read_text().replace(old, new))
    rows = TINY / "runs/xception/seed-2.csv"
    key = embedded_keys.read_run_keys(TINY / "residual_connections/table.csv")["xception"][2]
    rows.write_text(rows.read_text().replace(key, "0" * 16, 1))
    wrong = verify("tiny").wrong
    assert any(re.match(rf"{runs}/config.json, seed 3: the hash is \w+, not", w) for w in wrong)
    assert any(w.startswith(f"{rows}: run key {'0' * 16}, but config.json") for w in wrong)
    assert named(wrong, TINY / "measured/xception/seed-1.json")


def test_what_no_digest_covers_or_is_missing_is_named() -> None:
    without_runs()
    (TINY / "speed.csv").write_text("variant\n")  # of no report
    assert verify("tiny").wrong == []
    shutil.copytree(TINY / "residual_connections", TINY / "other")
    (TINY / "residual_learning_rate/figure.svg").unlink()
    wrong = verify("tiny").wrong
    assert named(wrong, TINY / "other/claims.json")
    assert named(wrong, TINY / "residual_learning_rate/figure.svg")


def git(*arguments: str) -> None:
    author = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *author, *arguments], check=True, capture_output=True)


def test_committed_numbers_are_reproduced_or_not() -> None:
    git("init", "-q")
    git("add", "results")
    git("commit", "-qm", "Results")
    said = verify("tiny").checked[-1]
    assert (
        said
        == "40 committed numbers: 40 bit for bit, 0 within the committed 95 % interval, "
        + ("0 not reproduced")
    )
    path = TINY / "residual_connections/table.csv"
    head, first, *rest = path.read_text().splitlines()
    values = dict(zip(head.split(","), first.split(","), strict=True))
    near = repr(float(values["accuracy"]) + 1e-9)
    changed = first.replace(values["accuracy"], near).replace(f",{values['parameters']},", ",999,")
    path.write_text("\n".join([head, changed, *rest]) + "\n")
    found = verify("tiny")
    assert "38 bit for bit, 1 within the committed 95 % interval, 1 not rep" in found.checked[-1]
    line = f"{path}, xception parameters: 999 for the committed 1000: not reproduced"
    assert line in found.wrong
    assert any(line.startswith(f"{path}, xception accuracy: {near} for") for line in found.checked)


def test_exit_status() -> None:
    (Path("params.yaml")).write_text((ROOT / "params.yaml").read_text())
    TINY.rename("results/smoke")
    without = CliRunner().invoke(app, ["verify", "--scale", "laptop"])
    assert isinstance(without.exception, ValueError)
    shutil.rmtree("results/smoke/runs")
    shutil.copytree("results/smoke", "results/laptop")
    change_a_digit(Path("results/laptop/residual_connections/figure.svg"), 50)
    assert CliRunner().invoke(app, ["verify", "--scale", "laptop"]).exit_code == 1
    done = CliRunner().invoke(app, ["verify", "--scale", "smoke"])
    assert "scale `tiny`" in Path("results/smoke/REPORT.md").read_text()
    assert done.exit_code == 0, done.output
    for scale, status in (("smoke", 0), ("laptop", 1)):
        done = CliRunner().invoke(app, ["verify", "--scale", scale, "--json"])
        found = json.loads(done.stdout)
        assert (done.exit_code, found["scale"], bool(found["wrong"])) == (
            status,
            scale,
            status == 1,
        )
        assert found["checked"]
