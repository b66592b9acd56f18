"""Every number leads back to its runs, and a digit that was changed anywhere is found."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, contents
from mlflow import MlflowClient
from mlflow.entities import ViewType
from test_analysis import make_runs
from typer.testing import CliRunner

from sepablate import study
from sepablate.analysis import outputs
from sepablate.cli import app
from sepablate.keys import run_key
from sepablate.provenance import behind
from sepablate.provenance.trace import trace
from sepablate.provenance.verify import verify
from sepablate.tracking import publish, run_ids, store

REPORTS = {"REPORT": ["residual_connections"], "CONTROLS": ["residual_learning_rate"]}
TINY = Path("results/tiny")
OF_A_STUDY = ("table.csv", "table.md", "claims.json", "curves.csv", "figure.png", "figure.svg")
OF_A_REPORT = ("verdicts.json", "metrics.json", "digests.json", "scorecard.png", "scorecard.svg")
FILES = [
    *(f"{name}/{file}" for names in REPORTS.values() for name in names for file in OF_A_STUDY),
    *(f"{prefix}{file}" for prefix in ("", "controls_") for file in OF_A_REPORT),
    *("REPORT.md", "report.html", "CONTROLS.md", "controls.html"),
]


def write_runs(name: str) -> None:
    """Made-up runs under their true keys, with what was measured."""
    make_runs(name)
    folder, measured = TINY / "runs" / name, TINY / "measured" / name
    config = json.loads((folder / "config.json").read_text())
    config |= {"variant": name, "model": name, "epochs": 1, "dataset": "fashion_mnist"}
    config |= {"data_digest": "c0ffee", "learning_rate": 0.045, "steps": 9}
    config |= {"images": 576, "image_size": 28, "validation_images": 250}
    config |= {"model.classes": 10, "model.in_channels": 1, "model.width": 0.5}
    if name == "xception":
        config |= {f"model.{letter}": 1 for letter in "abcdef"}
    measured.mkdir(parents=True)
    for seed, old in config["run_keys"].items():
        key = run_key(config, int(seed))
        config["run_keys"][seed] = key
        path = folder / f"seed-{seed}.csv"
        path.write_text(path.read_text().replace(old, key))
        told = {"run_key": key, "commit": "0123456789ab", "hardware": {"processor": "abacus"}}
        (measured / f"seed-{seed}.json").write_text(json.dumps(told))
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with results, the runs behind them, and an empty MLflow database aside."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        shutil.copytree(ROOT / "experiments", "experiments")
        for name in {each.name for names in REPORTS.values() for each in variants(names)}:
            write_runs(name)
        for report, names in REPORTS.items():
            for name in names:
                outputs.study_outputs(name, "tiny")
            outputs.report_outputs(names, "tiny", report)
        store.connect()
        store.DATABASE.rename("empty.db")
    return folder


def variants(names: list[str]) -> list[study.Variant]:
    return [variant for name in names for variant in study.load(name).all]


@pytest.fixture(autouse=True)
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def without_runs() -> None:
    for name in ("runs", "measured"):
        shutil.rmtree(TINY / name)


def change_a_digit(path: Path, nth: int) -> None:
    """Another digit in place of the nth, counted in parts of a hundred; of a PNG, another byte."""
    content = bytearray(path.read_bytes())
    digits = [at for at, byte in enumerate(content) if chr(byte).isdigit()]
    places = range(len(content)) if path.suffix == ".png" else digits
    at = places[nth * (len(places) - 1) // 100]
    content[at] = ord("7") if content[at] != ord("7") else ord("1")
    path.write_bytes(content)


def named(lines: list[str], path: Path) -> bool:
    return any(line.startswith(str(path)) and "\n" not in line for line in lines)


def test_results_that_follow_from_their_runs_are_found_right() -> None:
    before = contents(TINY)
    found = verify("tiny")
    assert found.wrong == []
    assert "REPORT: made again from the runs of 3 variants" in found.said
    without_runs()
    found = verify("tiny")
    assert found.wrong == []
    assert any(line.startswith("CONTROLS: no runs on disk") for line in found.said)
    assert contents(TINY) == {name: before[name] for name in FILES if name in before}


def test_another_process_makes_the_same_bytes() -> None:
    """No order may hang on Python's hash of a string."""
    code = "from sepablate.provenance.verify import verify; print(verify('tiny').wrong)"
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
        )
        assert done.stdout == "[]\n", done.stdout + done.stderr


def test_every_file_of_the_results_is_among_those_tried() -> None:
    without_runs()
    assert sorted(contents(TINY)) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("nth", [0, 37, 100])
def test_a_changed_digit_is_found_without_the_runs(name: str, nth: int) -> None:
    without_runs()
    change_a_digit(TINY / name, nth)
    wrong = verify("tiny").wrong
    if name.endswith("digests.json"):
        assert wrong
    else:
        assert named(wrong, TINY / name)


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
    path.write_text(re.sub(r'"word": "\w+"', '"word": "bought"', path.read_text(), count=1))
    path = TINY / "residual_connections/table.csv"
    path.write_text(re.sub(r",0\.8", ",0.7", path.read_text(), count=1))
    listing = json.loads((TINY / "digests.json").read_text())
    names = ["REPORT.md", "report.html", "verdicts.json", "metrics.json"]
    own = [*names, "scorecard.png", "scorecard.svg"]
    outputs.digests.write(TINY / "digests.json", "REPORT", listing["studies"], own)
    wrong = verify("tiny").wrong
    assert named(wrong, TINY / "residual_connections/table.md")
    assert any(
        re.match(r".*/verdicts.json, \[\d\]\.word: has 'bought' for", line) for line in wrong
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
    key = behind.run_keys(TINY / "residual_connections/table.csv")["xception"][2]
    rows.write_text(rows.read_text().replace(key, "0" * 16, 1))
    wrong = verify("tiny").wrong
    assert any(re.match(rf"{runs}/config.json, seed 3: the hash is \w+, not", w) for w in wrong)
    assert any(w.startswith(f"{rows}: run key {'0' * 16}, but config.json") for w in wrong)
    assert named(wrong, TINY / "measured/xception/seed-1.json")


def test_what_no_digest_covers_or_is_missing_is_named() -> None:
    without_runs()
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
    said = verify("tiny").said[-1]
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
    assert "38 bit for bit, 1 within the committed 95 % interval, 1 not rep" in found.said[-1]
    line = f"{path}, xception parameters: 999 for the committed 1000: not reproduced"
    assert line in found.wrong
    assert any(line.startswith(f"{path}, xception accuracy: {near} for") for line in found.said)


@pytest.mark.parametrize("file", ["", "table.csv", "table.md", "claims.json", "figure.png"])
def test_trace_names_every_run(file: str) -> None:
    config = json.loads((TINY / "runs/no_residual/config.json").read_text())
    text = trace(TINY / "residual_connections" / file)
    assert [line for line in text.splitlines() if line in ("xception", "no_residual")]
    for seed, key in config["run_keys"].items():
        assert f"  seed {seed}  run {key}  MLflow not published\n" in text
    for told in ("learning_rate 0.045", "digest c0ffee", "processor abacus"):
        assert told in " ".join(text.split())
    command = "git checkout 0123456789ab && sepablate train no_residual --scale tiny"
    assert f"  command   {command}\n" in text


@pytest.mark.parametrize("file", ["REPORT.md", "report.html", "scorecard.png", "verdicts.json"])
def test_trace_of_a_report_without_runs_names_them_and_how_to_make_them(file: str) -> None:
    keys = behind.run_keys(TINY / "residual_connections/table.csv")
    without_runs()
    text = trace(TINY / file)
    for name, seeds in keys.items():
        assert all(key in text for key in seeds.values())
        assert f"  command   sepablate train {name} --scale tiny\n" in text
    assert text.count("not on disk; the command below makes the runs") == len(keys)


def test_figures_carry_their_keys_and_trace_says_if_the_runs_are_others() -> None:
    keys = behind.run_keys(TINY / "residual_connections/table.csv")
    for figure in ("residual_connections/figure.png", "residual_connections/figure.svg"):
        assert behind.run_keys(TINY / figure) == keys
    assert behind.run_keys(TINY / "scorecard.svg") == keys
    path = TINY / "runs/xception/config.json"
    path.write_text(path.read_text().replace(keys["xception"][0], "f" * 16))
    text = trace(TINY / "residual_connections/figure.svg")
    assert f"run {keys['xception'][0]}  MLflow not published  runs/ has ffffffff" in text


@pytest.mark.parametrize("path", ["results", "results/tiny/nothing", "README.md", "results/tiny"])
def test_what_cannot_be_traced_is_refused_in_one_line(path: str) -> None:
    with pytest.raises(ValueError, match=r"choose a folder results/<scale>/<study>") as caught:
        trace(Path(path))
    assert "\n" not in str(caught.value)


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


def parent() -> dict:
    client = MlflowClient(store.address())
    (experiment,) = [e for e in client.search_experiments() if e.name.startswith("residual_conn")]
    runs = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ACTIVE_ONLY)
    (found,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    for run in runs:
        assert run is found or run.data.tags["mlflow.parentRunId"] == found.info.run_id
    histories = [
        client.get_metric_history(found.info.run_id, key) for key in sorted(found.data.metrics)
    ]
    points = [(p.key, p.step, p.value) for history in histories for p in history]
    words = {key: word for key, word in found.data.tags.items() if key.startswith("verdict: ")}
    return {"id": found.info.run_id, "points": points, "words": words}


def test_mlflow_shows_the_verdicts_and_trace_the_runs_of_mlflow() -> None:
    Path("empty.db").rename(store.DATABASE)
    assert publish("tiny", ["residual_connections"]) == 18
    first = parent()
    decided = json.loads((TINY / "verdicts.json").read_text())
    assert list(first["words"].values()) == [each["word"] for each in decided]
    assert "verdict: xception above no_residual in accuracy" in first["words"]
    point = (
        "verdict/xception_vs_no_residual/accuracy/difference",
        0,
        decided[0]["measured"]["mean"],
    )
    assert point in first["points"]
    assert publish("tiny", ["residual_connections"]) == 0
    assert parent() == first

    ids = run_ids("residual_connections", "tiny")
    text = trace(TINY / "residual_connections")
    for key in behind.run_keys(TINY / "residual_connections/table.csv")["xception"].values():
        assert f"run {key}  MLflow {ids[key]}" in text

    decided[0] |= {"word": "contradicted", "p_adjusted": 0.5}
    (TINY / "verdicts.json").write_text(json.dumps(decided))
    publish("tiny", ["residual_connections"])
    second = parent()
    assert next(iter(second["words"].values())) == "contradicted"
    assert ("verdict/xception_vs_no_residual/accuracy/p_adjusted", 0, 0.5) in second["points"]
    assert len(second["points"]) == len(first["points"])
