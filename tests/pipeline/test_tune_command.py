"""The search for a scale's recipe: real processes, stopped and gone on, where no test image is."""

import csv
import os
import signal
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import pytest
import yaml
from helpers.processes import ended, start
from helpers.project import (
    QUICK,
    TINY,
    checkpoints,
    contents,
    copy_project,
    edit_params,
    sepablate,
    wait_for,
)

pytestmark = pytest.mark.slow
HELD_OUT = 60  # of this project's Fashion-MNIST, for the time that it takes
TUNE = ("tune", "smoke")


@pytest.fixture
def project(tmp_path: Path, data_folder: Path) -> Path:
    """A tiny scale with two candidates, one seed each, and no test images."""
    copy_project(tmp_path, [QUICK])
    edit_params(tmp_path, **TINY, epochs=2, evaluations=3, seeds=[0])
    edit(tmp_path, lambda params: params.update(search={"smoke": GRID}))
    for path in (tmp_path / "data/fashion-mnist").glob("t10k-*"):
        path.unlink()
    source = tmp_path / "sepablate/store/datasets.py"
    limits = "Limits(28, 50_000, 10_000, 10_000)"
    assert limits in source.read_text()
    source.write_text(source.read_text().replace(limits, f"Limits(28, 50_000, {HELD_OUT}, 30)"))
    return tmp_path


GRID = {"decays": [2], "batch_size": [16, 48], "seeds": [1000]}


def edit(project: Path, change: Callable[[dict], object]) -> None:
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    change(params)
    path.write_text(yaml.safe_dump(params))


def test_a_search_is_planned_stopped_and_finished(project: Path) -> None:
    params = (project / "params.yaml").read_bytes()
    dry = sepablate(project, *TUNE, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "0 of 2 trials are finished\ntime " in dry.stdout
    assert not (project / ".sepablate/runs").exists()

    process = start(project, "sepablate", *TUNE, slow=True)
    wait_for(lambda: checkpoints(project))
    process.send_signal(signal.SIGTERM)
    status, output = ended(process)
    assert status == os.EX_TEMPFAIL, output
    assert output.strip().endswith("the same command goes on from here")
    assert checkpoints(project)
    assert not (project / "results").exists()

    done = sepablate(project, *TUNE)
    assert done.returncode == 0, done.stderr
    assert not checkpoints(project)
    assert (project / "params.yaml").read_bytes() == params
    with (project / "results/smoke/tuning.csv").open() as file:
        rows = list(csv.DictReader(file))
    candidates = [(row["decays"], row["batch_size"], row["steps"]) for row in rows]
    assert candidates == [("2", "16", "12"), ("2", "48", "4")]
    for row in rows:
        folder = project / ".sepablate/runs" / row["run_key"]
        assert "test" not in (folder / "result.csv").read_text()
        bits = (folder / "correct.bin").read_bytes()
        accuracy = sum(byte.bit_count() for byte in bits) / HELD_OUT
        assert float(row["validation_accuracy"]) == pytest.approx(accuracy, abs=1e-15)
        assert (row["seed"], row["validation_images"]) == ("1000", str(HELD_OUT))
    _take_the_choice(project, rows, done.stdout)


def _take_the_choice(project: Path, rows: list[dict[str, str]], output: str) -> None:
    """Set what the command printed; it then finds nothing to do and nothing to change."""
    best = max(rows, key=lambda row: float(row["validation_accuracy"]))
    words, lines = output.split("to take it, set there:\n")
    assert "best           0.045" in words
    change = yaml.safe_load(lines)["scales"]["smoke"]
    assert str(change["batch_size"]) == best["batch_size"]
    assert str(change["recipes"]["imagenet"]["decays"]) == best["decays"]
    edit(project, lambda params: params["scales"]["smoke"].update(change))
    before = contents(project / ".sepablate/runs")
    again = sepablate(project, *TUNE)
    assert "2 of 2 runs are on disk already" in again.stdout
    assert "params.yaml has the best candidate already" in again.stdout
    assert contents(project / ".sepablate/runs").keys() == before.keys()


def test_a_trial_that_diverges_is_the_worst(project: Path) -> None:
    grid = {"learning_rate": [1e30, 0.045], "seeds": [7, 8]}
    edit(project, lambda params: params.update(search={"smoke": grid}))
    done = sepablate(project, *TUNE, "--processes", "1")
    assert done.returncode == 0, done.stderr
    with (project / "results/smoke/tuning.csv").open() as file:
        rows = list(csv.DictReader(file))
    accuracies = [float(row["validation_accuracy"]) for row in rows]
    assert accuracies[:2] == [0, 0]
    assert f"{100 * mean(accuracies[2:]):.2f} %" in done.stdout
    assert "params.yaml has the best candidate already" in done.stdout


def test_without_training_images_each_trial_says_so(project: Path) -> None:
    (project / "data/fashion-mnist/train-images-idx3-ubyte").unlink()
    done = sepablate(project, *TUNE)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert all("sepablate fetch fashion_mnist" in line for line in lines)
    assert "decays, batch" in lines[0]
    assert not (project / "results").exists()
