"""`sepablate train --all`: the paper's variants, study by study; a clock stops it, it resumes."""

import os
import signal
from pathlib import Path

import pytest
import yaml
from helpers.processes import ended, start
from helpers.project import ROOT, checkpoints, contents, edit_params, sepablate, wait_for

from sepablate import study
from sepablate.planning.pipeline import paper_variants

pytestmark = pytest.mark.slow
ALL = ("train", "--all", "--no-mlflow")


@pytest.fixture
def two_variants(half: Path) -> Path:
    """A project whose pipeline has one study of two variants, with one seed."""
    pipeline = yaml.safe_load((half / "dvc.yaml").read_text())
    variants = pipeline["stages"]["train"]["foreach"]
    kept = {name: variants[name] for name in ("xception", "relu_between")}
    pipeline["stages"]["train"]["foreach"] = kept
    (half / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    params = yaml.safe_load((half / "params.yaml").read_text())
    edit_params(half, **{**params["scales"]["smoke"], "seeds": [0]})
    return half


def test_whole_studies_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    order, done = paper_variants(), []
    for count in range(1, len(order) + 1):
        seen = set(order[:count])
        done.append(
            [
                name
                for name in ("xception_vs_inception", "residual_connections")
                if {variant.name for variant in study.load(name).all_variants} <= seen
            ]
        )
    assert done[1] == ["xception_vs_inception"]
    assert done[3] == ["xception_vs_inception", "residual_connections"]
    assert len(order) == len(set(order)) == 7


def test_all_variants_are_trained_and_a_clock_stops_them(two_variants: Path) -> None:
    process = start(two_variants, "sepablate", *ALL, "--minutes", "60", slow=True)
    wait_for(lambda: checkpoints(two_variants))
    os.kill(process.pid, signal.SIGALRM)  # as the clock does after an hour
    status, output = ended(process)
    assert status == os.EX_TEMPFAIL, output
    assert "stopped; the same command goes on from here" in output
    assert not (two_variants / "results").exists()
    done = sepablate(two_variants, *ALL)
    assert done.returncode == 0, done.stderr
    runs = two_variants / "results/smoke/runs"
    assert sorted(path.name for path in runs.iterdir()) == ["relu_between", "xception"]
    before = contents(two_variants / "results")
    assert sepablate(two_variants, *ALL).returncode == 0
    assert contents(two_variants / "results") == before
