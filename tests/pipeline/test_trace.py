"""Every number leads back to its runs, and to the command that makes them again."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from helpers.published import TINY, current, made, without_runs
from mlflow import MlflowClient
from mlflow.entities import ViewType

from sepablate.provenance import embedded_keys
from sepablate.provenance.trace import trace
from sepablate.report import across
from sepablate.store import layout
from sepablate.tracking import connection, publish, run_ids

__all__ = ["current", "made"]
pytestmark = pytest.mark.usefixtures("current")


@pytest.mark.parametrize("file", ["", "table.csv", "table.md", "claims.json", "figure.png"])
def test_trace_names_every_run(file: str) -> None:
    config = json.loads((TINY / "runs/no_residual/config.json").read_text())
    text = trace(TINY / "residual_connections" / file)
    assert [line for line in text.splitlines() if line in ("xception", "no_residual")]
    for seed, key in config["run_keys"].items():
        took = f"{38 + int(seed)} s, 357 images/s"
        assert f"  seed {seed}  run {key}  MLflow not published  took {took}\n" in text
    for words in ("learning_rate 0.045", "digest c0ffee", "processor abacus"):
        assert words in " ".join(text.split())
    command = "git checkout 0123456789ab && sepablate train no_residual --scale tiny"
    assert f"  command   {command}\n" in text


@pytest.mark.parametrize("file", ["REPORT.md", "report.html", "scorecard.png", "verdicts.json"])
def test_trace_of_a_report_without_runs_names_them_and_how_to_make_them(file: str) -> None:
    keys = embedded_keys.read_run_keys(TINY / "residual_connections/table.csv")
    without_runs()
    text = trace(TINY / file)
    for name, seeds in keys.items():
        assert all(key in text for key in seeds.values())
        assert f"  command   sepablate train {name} --scale tiny\n" in text
    assert text.count("not on disk; the command below makes the runs") == len(keys)


def test_trace_of_a_variants_runs_needs_no_study() -> None:
    folder = TINY / "runs/no_residual"
    text = trace(folder)
    block = trace(TINY / "residual_connections").split("\n\n")[2]
    assert text == f"{folder}\n\n{block.rstrip()}\n"
    assert trace(folder / "seed-1.csv") == text
    without_runs(archives=True)
    archive = f"{TINY}/runs.tar.gz"
    assert trace(folder) == text.replace("config.json\n", f"config.json in {archive}\n")


def test_trace_of_all_scales_leads_to_their_reports() -> None:
    across.outputs(["tiny"])
    text = trace(layout.ACROSS)
    assert "  command   sepablate across tiny\n" in text
    reports = [line.split()[-1] for line in text.splitlines() if line.startswith("  runs ")]
    assert sorted(reports) == [f"{TINY}/CONTROLS.md", f"{TINY}/REPORT.md"]
    for report in reports:
        assert "  seed 0  run " in trace(Path(report))
    assert trace(layout.RESULTS / "across.png") == text


def test_figures_carry_their_keys_and_trace_says_if_the_runs_are_others() -> None:
    keys = embedded_keys.read_run_keys(TINY / "residual_connections/table.csv")
    for figure in ("residual_connections/figure.png", "residual_connections/figure.svg"):
        assert embedded_keys.read_run_keys(TINY / figure) == keys
    assert embedded_keys.read_run_keys(TINY / "scorecard.svg") == keys
    path = TINY / "runs/xception/config.json"
    path.write_text(path.read_text().replace(keys["xception"][0], "f" * 16))
    text = trace(TINY / "residual_connections/figure.svg")
    assert f"run {keys['xception'][0]}  MLflow not published  runs/ has ffffffff" in text


@pytest.mark.parametrize(
    "path",
    ["results", "results/tiny/nothing", "README.md", "results/tiny", "results/tiny/runs/nothing"],
)
def test_what_cannot_be_traced_is_refused_in_one_line(path: str) -> None:
    with pytest.raises(ValueError, match=r"choose a folder results/<scale>/<study>") as caught:
        trace(Path(path))
    assert "\n" not in str(caught.value)


def parent() -> dict:
    client = MlflowClient(connection.address())
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
    return {
        "id": found.info.run_id,
        "experiment": experiment.experiment_id,
        "points": points,
        "words": words,
        "text": found.data.tags["mlflow.note.content"],
        "commit": found.data.tags["mlflow.source.git.commit"],
    }


def test_mlflow_shows_the_verdicts_and_trace_the_runs_of_mlflow(empty_database: Path) -> None:
    shutil.copy(empty_database, connection.DATABASE)
    assert publish("tiny", ["residual_connections"]) == 19
    first = parent()
    decided = json.loads((TINY / "verdicts.json").read_text())
    assert list(first["words"].values()) == [each["outcome"] for each in decided]
    assert "verdict: xception above no_residual in accuracy" in first["words"]
    point = (
        "verdict/xception_vs_no_residual/accuracy/difference",
        0,
        decided[0]["measured"]["mean"],
    )
    assert point in first["points"]
    row = next(csv.DictReader((TINY / "residual_connections/table.csv").open()))
    for column in ("accuracy", "accuracy_low", "accuracy_high"):
        assert (f"{column}/xception", 0, float(row[column])) in first["points"]
    assert ("system/seconds", 0, pytest.approx(sum(18 * [38.1]) + 3 * 15)) in first["points"]
    report = (TINY / "REPORT.md").read_text().splitlines()
    said = first["text"].splitlines()
    results = [line for line in report if re.match(r"- \*\w", line)]
    assert len(results) == len(decided)
    assert {*results} <= {*said}
    address = f"#/experiments/{first['experiment']}/runs/{first['id']}/artifacts"
    files = [f"[{name}]({address}/{name})" for name in ("report.html", "residual_connections.py")]
    assert said[-1] == f"Files: {', '.join(files)}"
    assert first["commit"] == "0123456789ab"
    assert publish("tiny", ["residual_connections"]) == 0
    assert parent() == first

    ids = run_ids("residual_connections", "tiny")
    text = trace(TINY / "residual_connections")
    for key in embedded_keys.read_run_keys(TINY / "residual_connections/table.csv")[
        "xception"
    ].values():
        assert f"run {key}  MLflow {ids[key]}" in text

    decided[0] |= {"outcome": "contradicted", "p_adjusted": 0.5}
    (TINY / "verdicts.json").write_text(json.dumps(decided))
    publish("tiny", ["residual_connections"])
    second = parent()
    assert next(iter(second["words"].values())) == "contradicted"
    assert ("verdict/xception_vs_no_residual/accuracy/p_adjusted", 0, 0.5) in second["points"]
    assert len(second["points"]) == len(first["points"])
