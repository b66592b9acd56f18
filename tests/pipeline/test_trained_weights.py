"""A finished training's networks: measured again by their key, and damage to them."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from helpers.project import ROOT, STUDY, TRAIN, contents, sepablate
from mlflow import MlflowClient, pytorch, set_tracking_uri

from sepablate.pretrained import run_weights
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
        [str(path), "damaged; `sepablate train xception --scale smoke` renews it"]
        for path in (own, RUNS / "seed-1.safetensors")
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


def test_the_best_network_of_a_study_becomes_an_mlflow_model(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / f"experiments/{STUDY}.py", whole / "experiments")
    refused = sepablate(whole, "publish", "--model", STUDY)
    assert refused.returncode == 2
    assert refused.stderr.endswith(
        "no finished run of a variant: `sepablate train inception_v3 --scale smoke`\n"
    )
    assert not (whole / "mlflow.db").exists()
    for arguments in (("train", "inception_v3", "--no-mlflow"), ("study", STUDY, "--no-mlflow")):
        assert sepablate(whole, *arguments).returncode == 0
    found = [sepablate(whole, "publish", "--model", STUDY) for _ in range(2)]
    first, second = (done.stdout.splitlines()[-1] for done in found)
    assert first == second, "it is logged once"
    name, address = re.fullmatch(r"(\w+ seed \d), the best .*load_model\('(.*)'\)", first).groups()

    monkeypatch.chdir(whole)
    variant, _, seed = name.split()
    scores = {}
    for path in (whole / "results/smoke/runs").glob("*/seed-*.csv"):
        rows = run_files.read_rows(path)
        score = run_files.last_value(rows, "validation/accuracy_averaged")
        scores.setdefault(path.parent.name, {})[path.stem] = score
    assert max(scores, key=lambda each: sum(scores[each].values())) == variant
    assert max(scores[variant].values()) == scores[variant][f"seed-{seed}"]

    address_here = f"sqlite:///{whole}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address_here)  # which the next line sets as well
    set_tracking_uri(address_here)
    model, images = pytorch.load_model(address), torch.randn(5, 1, 28, 28)
    weights = f"results/smoke/runs/{variant}/seed-{seed}.safetensors"
    with torch.no_grad():
        torch.testing.assert_close(model(images), run_weights.load(weights)(images))
    logged = MlflowClient().get_logged_model(address.removeprefix("models:/"))
    assert MlflowClient().get_run(logged.source_run_id).info.run_name == name
    assert logged.params["model"] == variant

    (folder,) = (whole / "mlartifacts").rglob("model.pt2")
    shutil.rmtree(folder.parents[1])
    again = sepablate(whole, "publish", "--model", STUDY).stdout.splitlines()[-1]
    assert again != first
    assert len(MlflowClient().search_logged_models([logged.experiment_id])) == 1
    assert any(path.endswith("model.pt2") for path in contents(whole / "mlartifacts"))
