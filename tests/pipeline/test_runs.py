"""Many runs side by side: the same bytes, and nothing trained twice."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from helpers.project import TINY, TRAIN, edit_params, results, sepablate

pytestmark = pytest.mark.slow
KINDS = ("csv", "correct.bin", "safetensors")


def test_same_bytes_with_one_process_and_in_any_order(half: Path, finished: Path) -> None:
    """Of two processes in `finished`; three in test_kills."""
    edit_params(half, seeds=[2, 0])
    done = sepablate(half, *TRAIN, "--processes", "1")
    assert done.returncode == 0, done.stderr
    ours, theirs = results(half), results(finished)
    names = {f"seed-{seed}.{kind}" for seed in (0, 2) for kind in KINDS}
    assert ours.keys() - {"config.json", "done.json"} == names
    assert {name: ours[name] for name in names} == {name: theirs[name] for name in names}


def test_a_finished_run_is_not_trained_twice_and_a_new_seed_alone_is_trained(whole: Path) -> None:
    found = list((whole / ".sepablate/runs").glob("*/result.csv"))
    stamps = {path: path.stat().st_mtime_ns for path in found}
    edit_params(whole, seeds=[0, 7])
    done = sepablate(whole, *TRAIN)
    assert "1 of 2 runs are on disk already" in done.stdout
    assert len(list((whole / ".sepablate/runs").glob("*/result.csv"))) == 4
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    frame = pd.read_csv(whole / "results/smoke/runs/xception/seed-7.csv")
    assert set(frame.columns) == {"run_key", "variant", "seed", "step", "metric", "value"}
    accuracy = frame[frame.metric == "final/test_accuracy_averaged"].value.item()
    bits = (whole / "results/smoke/runs/xception/seed-7.correct.bin").read_bytes()
    assert sum(byte.bit_count() for byte in bits) == math.floor(accuracy * 30 + 0.5)


def test_a_crashed_run_does_not_take_the_others_with_it(project: Path) -> None:
    edit_params(project, **TINY, seeds=[0, 1, 2])
    engine = project / "sepablate/training/engine.py"
    line = "    curve_steps, began = eval_steps(run), time.monotonic() - state.seconds\n"
    assert line in engine.read_text()
    broken = f"{line}    if run.seed == 1:\n        raise RuntimeError\n"
    engine.write_text(engine.read_text().replace(line, broken))
    done = sepablate(project, "train", "xception", "--no-mlflow")
    assert done.returncode == 1
    assert "xception seed 1 failed" in done.stderr
    assert len(list((project / ".sepablate/runs").glob("*/result.csv"))) == 2
    assert not (project / "results/smoke/runs").exists()


def test_a_learning_rate_is_chosen_on_validation_images(project: Path) -> None:
    edit_params(project, **TINY, seeds=[0, 1, 2], epochs=3)
    done = sepablate(project, "train", "no_residual_tuned", "--no-mlflow")
    assert done.returncode == 0, done.stderr
    runs = project / "results/smoke/runs/no_residual_tuned"
    config = json.loads((runs / "config.json").read_text())
    trials = config["learning_rate_trials"]
    assert [float(rate) for rate in trials] == config["learning_rates"]
    assert all(len(accuracies) == 2 for accuracies in trials.values())
    best = max(trials, key=lambda rate: sum(trials[rate]))
    assert config["learning_rate"] == float(best)
    for seed in (0, 1):  # the trial at the chosen rate is the run itself
        frame = pd.read_csv(runs / f"seed-{seed}.csv")
        curve = frame[frame.metric == "validation/accuracy_averaged"].value
        assert curve.iloc[-1] == trials[best][seed]
    assert len(list((project / ".sepablate/runs").glob("*/result.csv"))) == 4 * 2 + 1
