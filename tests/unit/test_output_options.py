"""JSON for programs, PDF and LaTeX for papers, completion in the shell, and the line on MLflow."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.made_up_runs import make_runs
from helpers.project import ROOT
from typer.testing import CliRunner, Result

from sepablate import study, tracking
from sepablate.cli import publishing
from sepablate.cli.app import app
from sepablate.planning import table
from sepablate.planning.forecast import Forecast, Row
from sepablate.planning.pipeline import RUNS, UNCHANGED, Stage
from sepablate.report.latex import latex_outputs

STUDY = "residual_connections"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The declared studies, and made-up runs of one at scale `tiny`."""
    home = tmp_path_factory.mktemp("options")
    shutil.copytree(ROOT / study.FOLDER, home / study.FOLDER)
    shutil.copy(ROOT / "params.yaml", home)
    shutil.copy(ROOT / "dvc.yaml", home)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for variant in study.load(STUDY).all_variants:
            make_runs(variant.name)
        yield home


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_the_list_as_json_has_what_the_text_has(project: Path) -> None:
    listed = json.loads(run("list", "--json").stdout)
    studies = listed["studies"]
    kinds = {each["name"]: each["kind"] for each in studies}
    assert set(kinds) == {path.stem for path in study.FOLDER.glob("*.py")}
    assert kinds[STUDY] == "comparison"
    assert (kinds["separable_cost"], kinds["robustness"]) == ("layers", "robustness")
    text = run("list").stdout
    for each in studies:
        assert f"{each['name']}: {each['title']}\n" in text
        for part in [*each["variants"], *each["settings"]]:
            same = part.get("same_as")
            end = f" (network and recipe of {same})" if same else ""
            assert f"    {part['name']:27} {part['label']}{end}\n" in text
    assert "    smoke                       512 images of fashion_mnist\n" in text
    assert {"name": "smoke", "dataset": "fashion_mnist", "images": 512} in listed["scales"]


@pytest.mark.parametrize(
    ("scale", "has", "lacks"),
    [("laptop", "cifar10", "garments"), ("workstation", "garments", "cifar10")],
)
def test_the_list_has_the_settings_that_depart_from_the_scale(
    project: Path, scale: str, has: str, lacks: str
) -> None:
    text = run("list", "--scale", scale).stdout
    head = f"  settings, departures from scale {scale}; `sepablate train robustness` trains them:\n"
    names = [line.split()[0] for line in text.partition(head)[2].splitlines()]
    assert has in names
    assert lacks not in names


def test_costs_as_json(project: Path) -> None:
    (costs,) = json.loads(run("cost", "xception", "--scale", "paper", "--json").stdout)["costs"]
    assert (costs["variant"], costs["image_size"], costs["width"]) == ("xception", 299, 1)
    assert costs["parameters"] == 22_855_952
    for quantity in ("parameters", "mult_adds"):
        assert sum(kind[quantity] for kind in costs["kinds"].values()) == costs[quantity]


def test_a_plan_as_json() -> None:
    rows = [Row(Stage("fetch", UNCHANGED), None, None), Row(Stage("report", RUNS), None, 2.5)]
    totals = {"seconds": 2.5, "memory": 0, "disk": 0, "memory_free": None, "disk_free": 9}
    planned = table.as_json(Forecast(rows, processes=2, **totals))
    assert json.loads(json.dumps(planned)) == {
        "stages": [
            {"name": "fetch", "state": UNCHANGED},
            {"name": "report", "state": RUNS, "seconds": 2.5},
        ],
        "processes": 2,
        **totals,
    }


def test_a_narrow_terminal_cuts_nothing_of_a_table(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    rows = run("cost", "xception", "--scale", "paper").stdout.splitlines()
    assert ["xception", "299", "1", "22,855,952", "8.36", "G", "35.83", "M"] in map(str.split, rows)
    stage = Stage("experiments/dvc.yaml:train@xception_tensorflow", RUNS)
    totals = {"processes": 2, "seconds": 2.5, "memory": 0, "disk": 0}
    table.show(Forecast([Row(stage, None, 2.5)], memory_free=None, disk_free=9, **totals))
    assert "train@xception_tensorflow " in capsys.readouterr().out


def test_a_study_for_a_paper(project: Path, tmp_path: Path) -> None:
    pdf, tex = latex_outputs(STUDY, "tiny", tmp_path / "one")
    again = latex_outputs(STUDY, "tiny", tmp_path / "two")
    assert [path.read_bytes() for path in again] == [pdf.read_bytes(), tex.read_bytes()]
    assert (pdf.name, tex.name) == (f"{STUDY}.pdf", f"{STUDY}.tex")
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF-")
    assert b"no_residual 0:" in content  # the runs that it shows
    assert b"/Type3" not in content
    assert b"CreationDate" not in content
    text = tex.read_text()
    body = text[text.index(r"\begin") :]
    assert body.isascii()
    assert [body.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    assert r"Test accuracy (\%)" in body
    rows = re.findall(r"^(.*) \\\\$", body, re.M)
    assert [row.count(" & ") for row in rows] == [7] * 4
    assert rows[2].startswith("No shortcuts & ")
    assert "$-$" in rows[2]


def test_the_command_writes_them_beside_its_results(project: Path, tmp_path: Path) -> None:
    arguments = ("study", STUDY, "--scale", "laptop", "--no-mlflow", "--latex", str(tmp_path))
    shutil.copytree("results/tiny", "results/laptop")
    done = run(*arguments)
    assert done.stdout.startswith(f"written: {tmp_path}/{STUDY}.pdf")
    assert {path.name for path in tmp_path.iterdir()} == {f"{STUDY}.pdf", f"{STUDY}.tex"}
    written = {path.name for path in Path("results/laptop", STUDY).iterdir()}
    assert "figure.png" in written
    assert not [name for name in written if name.endswith((".pdf", ".tex"))]


def completed(folder: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    environment = {
        "PYTHONPATH": str(ROOT),
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
        "_SEPABLATE_COMPLETE": "complete_bash",
    }
    code = "import sys; sys.argv[:] = ['sepablate']; from sepablate.__main__ import main; main()"
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True
    ).stdout.split()


def test_the_shell_completes_names_and_executes_no_study(project: Path, tmp_path: Path) -> None:
    assert completed(project, "sepablate", "ver") == ["verify"]
    assert completed(project, "sepablate", "train", "no_residual_w") == ["no_residual_wide"]
    assert completed(project, "sepablate", "plan", "--scale", "l") == ["laptop"]
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/mine.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "params.yaml").write_text("scales: [broken\n")
    assert completed(tmp_path, "sepablate", "study", "m") == ["mine"]
    assert completed(tmp_path, "sepablate", "study", "mine", "--scale", "l") == []
    assert completed(tmp_path, "sepablate", "train", "x") == []


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (0, "has these results already"),
        (1, "1 run added, updated or removed (one for each seed, and one for each study)"),
        (19, "19 runs added, updated or removed (one for each seed, and one for each study)"),
    ],
)
def test_mlflows_line_says_what_it_counts_and_where_to_see_it(
    changed: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracking, "publish", lambda scale, names: changed)
    monkeypatch.setattr(tracking, "given_up", lambda: False)
    assert publishing.publish_studies("smoke", [])
    assert capsys.readouterr().out == f"MLflow: {says}; `sepablate ui` shows them\n"
