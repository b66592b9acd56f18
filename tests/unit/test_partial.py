"""A study of which only some variants are trained says which, and what it leaves out."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.project import ROOT, contents
from helpers.published import TINY, current, made, without_runs
from typer.testing import CliRunner

from sepablate import study
from sepablate.analysis import partial
from sepablate.cli.app import app
from sepablate.errors import UserError
from sepablate.provenance.verify import verify
from sepablate.report import outputs

__all__ = ["current", "made"]
pytestmark = pytest.mark.usefixtures("current")
NAME = "residual_connections"


@pytest.fixture(autouse=True)
def no_archives(current: Path) -> None:
    """Take the archives away, which have the runs that these tests lose."""
    for path in TINY.glob("*runs.tar.gz"):
        path.unlink()


def test_the_report_names_what_is_missing_and_agrees_with_itself() -> None:
    before, label = (TINY / "REPORT.md").read_text(), study.variant("no_residual_wide").label
    for folder in ("runs", "measured"):
        shutil.rmtree(TINY / folder / "no_residual_wide")
    for path in [*TINY.glob("controls*"), TINY / "CONTROLS.md"]:
        path.unlink()
    shutil.rmtree(TINY / "residual_learning_rate")
    outputs.study_outputs(NAME, "tiny", partial.trained_part(NAME, "tiny"))
    outputs.report_outputs([NAME], "tiny")
    report = (TINY / "REPORT.md").read_text()
    assert f"**Not trained at this scale: {label}.**" in report
    assert "Not trained" not in before
    assert f"| {label} |" in before
    assert f"| {label} |" not in report
    assert verify("tiny").wrong == []
    without_runs()
    assert verify("tiny").wrong == []


def test_claims_on_what_is_missing_are_counted() -> None:
    shutil.rmtree(TINY / "runs" / "no_residual")
    part = partial.trained_part(NAME, "tiny")
    assert part.claims == ()
    assert part.figures == {}
    assert [each.name for each in part.all_variants] == ["xception", "no_residual_wide"]
    assert "; of 2 claims 2 are left out.**" in partial.missing_sentence(NAME, part)
    assert partial.missing_sentence(NAME, study.load(NAME)) == ""


def test_a_row_that_was_taken_out_is_found() -> None:
    without_runs()
    for name in ("table.csv", "table.md"):
        path = TINY / NAME / name
        lines = path.read_text().splitlines(True)
        path.write_text("".join(lines[:-1]))
    wrong = verify("tiny").wrong
    assert any("does not say '**Not trained" in line for line in wrong)


@pytest.mark.parametrize("lost", [["xception"], ["no_residual", "no_residual_wide"]])
def test_without_a_pair_there_is_no_study(lost: list[str]) -> None:
    for name in lost:
        shutil.rmtree(TINY / "runs" / name)
    with pytest.raises(ValueError, match=r"no runs: train xception and one of no_residual, no_re"):
        partial.trained_part(NAME, "tiny")


def test_a_report_drops_no_study_of_the_one_that_it_replaces() -> None:
    outputs.check_replaces_none([NAME], "tiny", "ANOTHER")
    verdicts = TINY / "verdicts.json"
    there = json.loads(verdicts.read_text())
    other = json.loads(json.dumps(there[0]).replace(f'"{NAME}"', '"pointwise_activation"'))
    verdicts.write_text(json.dumps([*there, other]))
    before = contents(TINY)
    line = f"report {NAME}: {TINY}/REPORT.md also has pointwise_activation: name it too"
    with pytest.raises(UserError, match=f"^{line}"):
        outputs.check_replaces_none([NAME], "tiny", "REPORT")
    assert contents(TINY) == before
    outputs.check_replaces_none([NAME, "pointwise_activation"], "tiny", "REPORT")
    for damaged in ("[", "{}", "[1]"):  # is replaced
        verdicts.write_text(damaged)
        outputs.check_replaces_none([NAME], "tiny", "REPORT")


def test_a_variant_that_was_trained_since_is_not_said_to_be_missing(tmp_path: Path) -> None:
    away = tmp_path / "away"
    (TINY / "runs" / "no_residual_wide").rename(away)
    outputs.study_outputs(NAME, "tiny", partial.trained_part(NAME, "tiny"))
    outputs.report_outputs([NAME], "tiny")
    away.rename(TINY / "runs" / "no_residual_wide")
    assert any("leaves out variants that have runs" in line for line in verify("tiny").wrong)


def test_the_command_leaves_out_what_has_no_runs_or_refuses() -> None:
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    TINY.rename("results/smoke")
    command = ["study", NAME, "--scale", "smoke", "--no-mlflow"]
    shutil.rmtree("results/smoke/runs/no_residual_wide")
    assert isinstance(CliRunner().invoke(app, command).exception, ValueError)
    assert CliRunner().invoke(app, [*command, "--partial"]).exit_code == 0
    table = Path("results/smoke") / NAME / "table.csv"
    assert table.read_text().count("\n") == 3
    shutil.rmtree("results/smoke/runs/xception")
    refused = CliRunner().invoke(app, [*command, "--partial"]).exception
    assert "no runs: train xception" in str(refused)
