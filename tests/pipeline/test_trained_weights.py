"""A finished training's networks: measured again by their key, and damage to them."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.project import TRAIN, sepablate

from sepablate.store import run_files

pytestmark = pytest.mark.slow
RUNS = Path("results/smoke/runs/xception")


def test_a_run_is_measured_again_and_damage_is_found(whole: Path) -> None:
    keys = json.loads((whole / RUNS / "config.json").read_text())["run_keys"]
    done = sepablate(whole, "evaluate", keys["1"])
    assert done.returncode == 0, done.stderr
    place, score, recorded = done.stdout.splitlines()
    assert place == f"xception seed 1, run {keys['1']}: {RUNS}/seed-1.safetensors"
    rows = run_files.read_rows(whole / RUNS / "seed-1.csv")
    value = run_files.last_value(rows, "final/test_accuracy_averaged")
    assert score == f"test accuracy of 30 images: {value!r}"
    assert recorded == f"recorded by the run: {value!r}, the same"
    own = Path(".sepablate/runs", keys["1"], "weights.safetensors")
    assert (whole / own).read_bytes() == (whole / RUNS / "seed-1.safetensors").read_bytes()

    raw = Path(".sepablate/runs", keys["1"], "raw_weights.safetensors")
    lines = sepablate(whole, *TRAIN, "--raw-weights").stdout.splitlines()
    again = f"delete {raw.parent}/ to train it again, to the same numbers"
    assert f"xception seed 1: was trained without raw weights; {again}" in lines
    shutil.rmtree(whole / raw.parent)
    lines = sepablate(whole, *TRAIN, "--raw-weights").stdout.splitlines()
    assert f"xception seed 1: raw weights in {raw}" in lines
    assert (whole / own).read_bytes() == (whole / RUNS / "seed-1.safetensors").read_bytes()
    assert raw.name in json.loads((whole / raw.with_name("done.json")).read_text())
    value = run_files.last_value(rows, "final/test_accuracy")
    place, _, recorded = sepablate(whole, "evaluate", str(raw)).stdout.splitlines()
    assert place == f"xception seed 1, run {keys['1']}, raw weights: {raw}"
    assert recorded == f"recorded by the run: {value!r}, the same"

    for path in (RUNS / "seed-1.safetensors", own):
        content = bytearray((whole / path).read_bytes())
        content[-9] ^= 1
        (whole / path).write_bytes(content)
    (whole / RUNS / "seed-2.safetensors").unlink()
    found = sepablate(whole, "doctor")
    assert found.returncode == 1
    damaged = [line for line in found.stdout.splitlines() if "safetensors" in line]
    assert [line.split(": ")[:2] for line in damaged] == [
        [str(own), "damaged; `dvc repro` or `sepablate train` renews it"],
        [f"{RUNS}/seed-1.safetensors", "damaged; `dvc repro` or `sepablate train` renews it"],
    ]
    for source, complaint in {
        keys["1"]: f"{RUNS}/seed-1.safetensors: damaged: its bytes are not those",
        "0123": "run '0123': has no weights here; the nearest of 3 that have: ",
    }.items():
        refused = sepablate(whole, "evaluate", source)
        assert refused.returncode == 2
        assert refused.stderr.startswith(f"sepablate: {complaint}")
        assert refused.stderr.count("\n") == 1
        assert refused.stdout == ""
