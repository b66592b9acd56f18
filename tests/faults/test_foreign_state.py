"""State that is whole, with a valid digest, but not of this run, is never taken."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.monitors import StopAfterEachStep
from helpers.mutations import make_run
from helpers.project import TRAIN, sepablate
from helpers.tiny_runs import tiny

from sepablate.data import fashion_mnist
from sepablate.data.split import TensorSplit
from sepablate.store import checkpoint, layout
from sepablate.store.files import MANIFEST, corrupt_files, write_manifest
from sepablate.store.run_files import Row, is_finished
from sepablate.training import engine

STEPS = 2  # before the interruption


@pytest.fixture(scope="module")
def splits(data_folder: Path) -> dict[str, TensorSplit]:
    return fashion_mnist.load(data_folder)


@pytest.fixture(scope="module")
def expected(splits: dict[str, TensorSplit], tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """The rows of an undisturbed run of seed 0."""
    return engine.fit(tiny(), splits, tmp_path_factory.mktemp("undisturbed"), engine.Monitor()).rows


@pytest.fixture(scope="module")
def states(splits: dict[str, TensorSplit], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of two interrupted runs, of seeds 0 and 1."""
    folders = [tmp_path_factory.mktemp(f"seed{seed}") for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        interrupted(seed, splits, folder)
    return folders


def interrupted(seed: int, splits: dict[str, TensorSplit], folder: Path) -> None:
    """Leave a run's folder as it is after some steps."""
    for _ in range(STEPS):
        with pytest.raises(engine.Interrupted):
            engine.fit(tiny(seed=seed), splits, folder, StopAfterEachStep())


def other_seed(state: dict[str, Any], other: dict[str, Any]) -> None:
    state.update(other)


def far_step(state: dict[str, Any], _: dict[str, Any]) -> None:
    state["step"] = 10**9


def negative_step(state: dict[str, Any], _: dict[str, Any]) -> None:
    state["step"] = -1


def step_that_is_no_number(state: dict[str, Any], _: dict[str, Any]) -> None:
    state["step"] = float("nan")


def weights_that_are_no_numbers(state: dict[str, Any], _: dict[str, Any]) -> None:
    next(iter(state["model"].values())).fill_(torch.nan)


def infinite_average(state: dict[str, Any], _: dict[str, Any]) -> None:
    next(iter(state["average"].values())).fill_(torch.inf)


def sum_of_losses_that_is_no_number(state: dict[str, Any], _: dict[str, Any]) -> None:
    state["loss_sum"] = float("nan")


def missing_weights(state: dict[str, Any], _: dict[str, Any]) -> None:
    del state["model"]


def without_a_key(state: dict[str, Any], _: dict[str, Any]) -> None:
    del state["run_key"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (other_seed, "of another run"),
        (without_a_key, "of another run (None)"),
        (far_step, "step 1000000000 of a run of"),
        (negative_step, "step -1 of a run of"),
        (step_that_is_no_number, "step nan of a run of"),
        (weights_that_are_no_numbers, "not finite"),
        (infinite_average, "not finite"),
        (sum_of_losses_that_is_no_number, "not finite"),
        (missing_weights, "not a checkpoint (KeyError)"),
    ],
)
def test_a_checkpoint_that_is_not_of_the_run_is_deleted_with_the_reason(
    spoil: Callable[[dict[str, Any], dict[str, Any]], None],
    reason: str,
    splits: dict[str, TensorSplit],
    expected: list[Row],
    states: list[Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(states[0], tmp_path, dirs_exist_ok=True)
    mine, other = (checkpoint.load(folder) or {} for folder in states)
    spoil(mine, other)
    checkpoint.save(tmp_path, STEPS + 1, mine)
    assert engine.fit(tiny(), splits, tmp_path, engine.Monitor()).rows == expected
    (line,) = capfd.readouterr().err.splitlines()
    assert f": {reason}" in line
    assert line.endswith("; deleted")


def test_what_is_named_as_a_checkpoint_but_is_no_file_is_left_alone(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"step": 1})
    name = "checkpoint-000000009-" + 32 * "0" + ".pt"
    (tmp_path / "checkpoint-x.pt").write_text("x")
    os.mkfifo(tmp_path / name)
    (tmp_path / name.replace("9", "8")).mkdir()
    (tmp_path / name.replace("9", "7")).symlink_to("nowhere")
    assert (checkpoint.load(tmp_path) or {})["step"] == 1
    assert checkpoint.newest_step(tmp_path) == 1


def finished_run(folder: Path, **without: bool) -> Path:
    """A finished run's folder, of made-up numbers."""
    folder.mkdir(parents=True)
    make_run(folder)
    (folder / MANIFEST).unlink()
    for name in without:
        (folder / name).unlink()
    write_manifest(folder, [path.name for path in folder.iterdir()])
    return folder


def test_a_folder_is_finished_only_with_every_file_and_its_own_key(tmp_path: Path) -> None:
    assert is_finished(finished_run(tmp_path / "a"), "0" * 16)
    assert not is_finished(tmp_path / "a", "1" * 16)
    for index, name in enumerate(
        (layout.RUN_CONFIG, layout.MEASURED, layout.RESULT, "correct.bin")
    ):
        assert not is_finished(finished_run(tmp_path / str(index), **{name: True}), "0" * 16)


@pytest.mark.parametrize(
    "content",
    [
        '{"../../../../etc/passwd": "0"}',
        '{"/etc/passwd": "0"}',
        "{}",
        "[]",
        "null",
        '{"run.json": 7}',
        "x",
    ],
)
def test_a_manifest_lists_only_files_of_its_folder(content: str, tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "a")
    (folder / MANIFEST).write_text(content)
    assert corrupt_files(folder) != []
    assert not is_finished(folder, "0" * 16)


@pytest.mark.slow
def test_a_finished_folder_of_another_seed_is_trained_again(whole: Path) -> None:
    """Its manifest is valid."""
    runs = {
        json.loads((path / "run.json").read_text())["seed"]: path
        for path in (whole / ".sepablate/runs").iterdir()
    }
    expected = (runs[0] / "result.csv").read_bytes()
    shutil.rmtree(runs[0])
    shutil.copytree(runs[1], runs[0])
    done = sepablate(whole, *TRAIN)
    assert done.returncode == 0, done.stderr
    assert "is of another run: xception seed 0 is trained again" in done.stdout
    assert (runs[0] / "result.csv").read_bytes() == expected
