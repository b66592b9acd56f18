"""Results of older code are named as such, and checked in all but the hash of their configs."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.published import TINY, current, made, without_runs

from sepablate.errors import UserError
from sepablate.provenance.verify import verify
from sepablate.report import outputs
from sepablate.store import files
from sepablate.store.made_by import read_made_by

__all__ = ["current", "made"]
pytestmark = pytest.mark.usefixtures("current")
LINE = (
    "These results were made by commit 8f12b1a (on one GPU). The code has changed since, so that "
    "it cannot recompute their run keys."
)


@pytest.fixture(scope="module")
def of_older_code(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of these results; what the keys are made of has changed, and they say so."""
    folder = tmp_path_factory.mktemp("older")
    shutil.copytree(made, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        change_a_config()
    return folder


@pytest.fixture
def older(of_older_code: Path, current: Path) -> None:
    shutil.copytree(of_older_code, current, dirs_exist_ok=True)


def change_a_config() -> None:
    path = TINY / "runs/no_residual/config.json"
    path.write_text(path.read_text().replace("0.045", "0.046"))
    content = {"commit": "8f12b1a", "note": "on one GPU"}
    (TINY / "made_by.json").write_text(json.dumps(content))
    for name, report in (
        ("residual_connections", "REPORT"),
        ("residual_learning_rate", "CONTROLS"),
    ):
        outputs.study_outputs(name, "tiny")
        outputs.report_outputs([name], "tiny", report)


@pytest.mark.usefixtures("older")
def test_the_report_and_verify_name_the_commit() -> None:
    assert LINE in (TINY / "REPORT.md").read_text().partition("## Setup\n")[2].splitlines()
    findings = verify("tiny")
    assert findings.wrong == []
    assert findings.checked[0] == LINE
    without_runs()
    assert verify("tiny").wrong == []


@pytest.mark.usefixtures("older")
def test_without_the_file_the_keys_are_recomputed() -> None:
    (TINY / "made_by.json").unlink()
    wrong = verify("tiny").wrong
    assert any("no_residual/config.json, seed 3: the hash is" in line for line in wrong)


@pytest.mark.usefixtures("older")
def test_keys_are_still_compared_between_files() -> None:
    path = TINY / "measured/xception/seed-1.json"
    path.write_text(path.read_text().replace('"run_key": "', '"run_key": "0'))
    assert any(line.startswith(f"{path}: not of the run") for line in verify("tiny").wrong)


def test_a_report_that_does_not_name_the_commit_is_found() -> None:
    without_runs()
    (TINY / "made_by.json").write_text('{"commit": "8f12b1a"}')
    wrong = verify("tiny").wrong
    assert any(
        "REPORT.md: does not say 'These results were made by commit 8f12" in w for w in wrong
    )


@pytest.mark.parametrize("text", ["[]", "{", '{"note": ""}', '{"commit": "a", "by": "me"}'])
def test_another_file_of_that_name_is_refused(text: str) -> None:
    (TINY / "made_by.json").write_text(text)
    with pytest.raises(UserError, match=r"results/tiny/made_by\.json: "):
        read_made_by("tiny")


def test_some_reports_of_a_scale_may_be_of_older_code() -> None:
    """CONTROLS is then checked by its digests alone; the rest as ever."""
    path = TINY / "residual_learning_rate/claims.json"
    path.write_text(path.read_text().replace('"claim"', '"claimed"'))
    listing = TINY / "controls_digests.json"
    before, after = (json.loads(listing.read_text()) for _ in range(2))
    name = "residual_learning_rate/claims.json"
    after["files"][name] = files.sha256(path)
    listing.write_text(json.dumps(after))
    assert verify("tiny").wrong != []
    content = {"commit": "8f12b1a", "reports": ["CONTROLS"]}
    (TINY / "made_by.json").write_text(json.dumps(content))
    findings = verify("tiny")
    assert findings.wrong == []
    assert findings.checked[0].startswith("The results of CONTROLS were made by commit 8f12b1a")
    assert any(line.startswith("REPORT: made again") for line in findings.checked)
    listing.write_text(json.dumps(before))
    assert any(name in line for line in verify("tiny").wrong)
