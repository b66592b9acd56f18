"""A stage's line tells how far the whole pipeline is."""

import re
from pathlib import Path

import pytest
from helpers.project import ROOT

from sepablate.cli import train
from sepablate.execution import progress
from sepablate.execution.launch import TrainRequest
from sepablate.execution.train_variant import _rest_of_pipeline, seed_jobs
from sepablate.execution.trainer import Progress
from sepablate.planning.pipeline import paper_variants


def test_dvc_and_all_train_a_part_of_the_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    assert train._pipeline(["xception"]) == ()
    assert train._pipeline(paper_variants()) == tuple(paper_variants())
    monkeypatch.setenv("DVC_STAGE", "train@xception")
    assert len(train._pipeline(["xception"])) == 7
    assert train._pipeline(["mobilenet_v1"]) == ()  # of the second pipeline


@pytest.mark.slow
def test_the_line_counts_the_runs_of_the_pipeline(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Xception's three runs are finished; one of the other's three is."""
    monkeypatch.chdir(whole)
    monkeypatch.setattr(progress, "LINE_EVERY", 0)
    request = TrainRequest("relu_between", "smoke", pipeline=("xception", "relu_between"))
    rest = _rest_of_pipeline(request)
    assert [job.run.variant for job in rest] == ["xception"] * 3
    assert all(job.finished for job in rest)
    jobs = seed_jobs("relu_between", "smoke", {})
    steps = jobs[0].run.scale.steps
    with progress.shown(jobs, mlflow=False, rest=rest) as show:
        show(Progress([steps, 0, 0], finished=1))
    with progress.shown(jobs, mlflow=False, rest=[*rest, *jobs]) as show:
        show(Progress([0, 0, 0]))
    with progress.shown(jobs, mlflow=False) as show:
        show(Progress([0, 0, 0]))
    first, second, third = re.findall(r"^relu_between · smoke: .*$", capsys.readouterr().out, re.M)
    stage = r"1/3 runs, [\d,]+ images/s, 0 s left"
    assert re.search(rf": {stage} · pipeline: 4/6 runs, 0 s left$", first)
    assert second.endswith(": 0/3 runs, 0 images/s, starting · pipeline: 3/9 runs")
    assert third.endswith(": 0/3 runs, 0 images/s, starting")


def test_a_time_left_is_in_seconds_or_minutes() -> None:
    words = [progress._time_left(images, 100.0) for images in (20, 11_900, 150_000)]
    assert words == [", 0 s left", ", 119 s left", ", 25 min left"]
    assert progress._time_left(20, 0.0) == ""


def test_a_variant_that_does_not_resolve_leaves_the_line_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    request = TrainRequest("xception", "smoke", pipeline=("xception", "no_such_variant"))
    assert _rest_of_pipeline(request) == []
