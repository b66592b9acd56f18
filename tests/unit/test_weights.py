"""Trained weights: the same bytes for the same run, and no other bytes are taken for a run's."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.tiny_runs import tiny
from safetensors import safe_open
from safetensors.torch import save_file

from sepablate.errors import UserError
from sepablate.models import build
from sepablate.models.weight_init import init_weights
from sepablate.runs.run import Run
from sepablate.store import weights
from sepablate.store.files import MANIFEST, corrupt_files, verify_manifest, write_manifest

ROWS = [(9, "validation/accuracy", 0.5), (12, "final/test_accuracy_averaged", 1 / 3)]


def network(run: Run) -> torch.nn.Module:
    model = build(run.model, **run.options)
    init_weights(model, run.seed)
    return model


def encoded(run: Run, model: torch.nn.Module) -> bytes:
    return weights.encode(run.key, run.seed, run.config, ROWS, model.state_dict())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    run = tiny("mobilenet_v1", seed=3)
    (tmp_path / "w.safetensors").write_bytes(encoded(run, network(run)))
    return tmp_path / "w.safetensors"


def test_a_file_holds_the_network_and_says_which_run_trained_it(path: Path) -> None:
    run = tiny("mobilenet_v1", seed=3)
    read, state = weights.read(path), network(run).state_dict()
    assert (read.run_key, read.seed) == (run.key, 3)
    assert read.final == {"final/test_accuracy_averaged": 1 / 3}
    assert read.config["model"] == "mobilenet_v1"
    left_out = {"scale", "seeds", "workers", "learning_rates"}  # they decide nothing
    assert run.config.keys() - read.config.keys() == left_out
    assert read.tensors.keys() == state.keys()
    for name, tensor in state.items():
        assert read.tensors[name].dtype == tensor.dtype
        assert torch.equal(read.tensors[name], tensor), name
    with safe_open(path, "pt") as file:  # for other readers
        assert (
            json.loads(file.metadata()["sepablate"])["config"]["model.width"]
            == run.options["width"]
        )


def test_bytes_hang_on_neither_memory_format_nor_scale_nor_order(path: Path) -> None:
    run = tiny("mobilenet_v1", seed=3)
    model = network(run).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert encoded(run, model) == path.read_bytes()
    state = dict(reversed(network(run).state_dict().items()))
    config = {**run.config, "scale": "other", "seeds": [3]}
    assert weights.encode(run.key, 3, config, ROWS, state) == path.read_bytes()


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        weights.read(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def test_no_changed_or_missing_byte_goes_unnoticed(path: Path) -> None:
    good, draw = path.read_bytes(), random.Random(0)
    header = 8 + int.from_bytes(good[:8], "little")
    for index in range(300):
        position = draw.randrange(header if index % 2 else len(good))
        changed = good[position] ^ (1 << draw.randrange(8))
        path.write_bytes(good[:position] + bytes([changed]) + good[position + 1 :])
        refused(path)
    for size in (0, 7, 8, 100, header - 1, header, len(good) - 1):
        path.write_bytes(good[:size])
        assert "damaged" in refused(path)
    path.write_bytes(good + b"\0")
    assert "damaged" in refused(path)
    path.write_bytes(good)
    weights.read(path)


@pytest.mark.parametrize("entry", [None, "", "x", "7", "null", "[]", "{}", '{"sha256": "0"}'])
def test_a_file_of_others_is_refused(entry: str | None, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.ones(2)}, path, None if entry is None else {weights.ENTRY: entry})
    refused(path)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_file_is_refused(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "w")
    refused(tmp_path / "w")
    assert "no such file" in refused(tmp_path / "nothing")


def test_a_finished_folder_may_do_without_its_weights_but_not_with_others(tmp_path: Path) -> None:
    for name in ("result.csv", "seed-0.safetensors"):
        (tmp_path / name).write_text(name)
    write_manifest(tmp_path, ["seed-0.safetensors", "result.csv"])
    assert verify_manifest(tmp_path, ["result.csv"])
    (tmp_path / "seed-0.safetensors").write_text("other")
    assert corrupt_files(tmp_path) == ["seed-0.safetensors"]
    (tmp_path / "seed-0.safetensors").unlink()
    assert verify_manifest(tmp_path, ["result.csv"])
    (tmp_path / "result.csv").unlink()
    assert corrupt_files(tmp_path) == ["result.csv"]
    write_manifest(tmp_path, ["result.csv"])  # "absent"
    (tmp_path / "seed-0.safetensors").write_text("x")
    write_manifest(tmp_path, ["seed-0.safetensors"])
    (tmp_path / "seed-0.safetensors").unlink()
    assert corrupt_files(tmp_path) == [MANIFEST]
