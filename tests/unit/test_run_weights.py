"""What a run has left, found, built and measured again; timm's networks from it."""

import dataclasses
import json
from pathlib import Path

import pytest
import timm
import torch
from helpers.environments import command
from helpers.project import ROOT
from helpers.tiny_runs import tiny

import sepablate
from sepablate import data, models
from sepablate.data.split import Split
from sepablate.kernels.cpu import build
from sepablate.models.weight_init import init_weights
from sepablate.pretrained import run_weights, timm_export
from sepablate.pretrained.evaluate import NETWORKS
from sepablate.runs.run import Run
from sepablate.store import checkpoint, layout, weights
from sepablate.store.run_key import run_key
from sepablate.training import engine

FINAL = [(1, "final/test_accuracy_averaged", 0.5)]


def write(run: Run, model: torch.nn.Module, path: Path) -> Path:
    path.write_bytes(weights.encode(run.key, run.seed, run.config, FINAL, model.state_dict()))
    return path


def network(run: Run) -> torch.nn.Module:
    """With statistics of batch norm that are not those of the beginning."""
    model = models.build(run.model, **run.options)
    init_weights(model, run.seed)
    model.train()(torch.randn(4, run.in_channels, run.image_size, run.image_size))
    return model.eval()


@pytest.mark.parametrize(
    "run",
    [
        tiny("xception", seed=5),
        tiny("no_residual_tuned"),
        tiny("inception_v3_multilabel"),
        tiny("ssd_xception"),
        tiny("mobilenet_v1", image_size=28, workers=3, seeds=(0, 7)),
        tiny("xception").as_trial(20),
    ],
    ids=lambda run: run.variant,
)
def test_a_file_is_enough_to_build_its_network_and_to_know_its_run(
    run: Run, tmp_path: Path
) -> None:
    model = network(run)
    path = write(run, model, tmp_path / "w.safetensors")
    restored = run_weights.restore_run(weights.read(path), path)
    assert restored.key == run.key
    assert restored.scale.steps == run.scale.steps
    loaded, images = sepablate.load(path), torch.randn(3, 1, run.image_size, run.image_size)
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))


@pytest.fixture(scope="module")
def splits(data_folder: Path) -> dict[str, Split]:
    return dict(data.dataset("fashion_mnist").load(data_folder))


@pytest.mark.parametrize(
    ("precision", "kernels", "trial"),
    [("fp32", "torch", 0), ("bf16", "torch", 25), ("bf16", "fused", 0)],
)
def test_the_score_is_the_one_that_the_run_recorded(
    precision: str,
    kernels: str,
    trial: int,
    splits: dict[str, Split],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if kernels == "fused" and (reason := build.load_library()):
        pytest.skip(reason)
    monkeypatch.chdir(ROOT)
    run = tiny(test_images=450).with_backend(precision, kernels).as_trial(trial)
    outcome = engine.fit(run, splits, tmp_path, engine.Monitor())
    assert outcome.weights is not None
    path = tmp_path / "w.safetensors"
    content = weights.encode(run.key, run.seed, run.config, outcome.rows, outcome.weights)
    path.write_bytes(content)
    recorded = outcome.rows[-1][2]
    assert 0.05 < recorded < 0.95
    split, other = ("validation", "test") if trial else ("test", "validation")
    place, *lines = run_weights.measure(str(path), None)
    assert place == f"xception seed 0, run {run.key}: {path}"
    assert lines == [
        f"{split} accuracy of {trial or 450} images: {recorded!r}",
        f"recorded by the run: {recorded!r}, the same",
    ]
    with pytest.raises(ValueError, match="--split 'train': choose test or validation"):
        run_weights.measure(str(path), "train")
    if trial:
        with pytest.raises(ValueError, match=r"--split test: .* choose validation"):
            run_weights.measure(str(path), other)
    else:
        _, line = run_weights.measure(str(path), other)
        assert line.startswith("validation accuracy of 20 images: ")
    raw = checkpoint.load(tmp_path)
    assert raw is not None
    path.write_bytes(
        weights.encode(run.key, 0, run.config, outcome.rows, raw["model"], averaged=False)
    )
    place, first, second = run_weights.measure(str(path), None)
    assert place == f"xception seed 0, run {run.key}, raw weights: {path}"
    assert first.endswith(f": {outcome.rows[-2][2]!r}")
    assert second == f"recorded by the run: {outcome.rows[-2][2]!r}, the same"
    again = engine.fit(run, splits, tmp_path / "again", engine.Monitor())
    assert again.weights is not None
    assert weights.encode(run.key, 0, run.config, again.rows, again.weights) == content


def test_a_run_of_the_kernels_is_measured_where_there_are_none(tmp_path: Path) -> None:
    """On a processor like most laptops', which an option of oneDNN simulates."""
    run = tiny(test_images=40).with_backend("bf16", "fused")
    path = write(run, network(run), tmp_path / "w.safetensors")
    done = command(ROOT, "evaluate", str(path), ONEDNN_MAX_CPU_ISA="AVX2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "on another machine or by other kernels" in done.stdout.splitlines()[-1]


def test_a_score_that_differs_says_why_it_may(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    run = tiny(test_images=40)
    path = write(run, network(run), tmp_path / "w.safetensors")
    assert "on another machine or by other kernels" in run_weights.measure(str(path), None)[-1]
    monkeypatch.setattr(data, "digest", lambda name: "other")
    assert "other code, data or torch" in run_weights.measure(str(path), None)[-1]


def test_weights_of_a_network_that_is_not_here_are_refused_in_a_line(tmp_path: Path) -> None:
    run = tiny("mobilenet_v1")
    model, path = network(run), tmp_path / "w.safetensors"
    for config in (
        {**run.config, "model": "resnet"},
        {**run.config, "model.colour": 3},
        {**run.config, "model.classes": 9},
    ):
        key = run_key(config, 0)
        path.write_bytes(weights.encode(key, 0, config, FINAL, model.state_dict()))
        with pytest.raises(ValueError, match=f"^{path}: not of a network that this version has"):
            sepablate.load(path)
    del config["task"]
    key = run_key(config, 0)
    path.write_bytes(weights.encode(key, 0, config, FINAL, model.state_dict()))
    with pytest.raises(ValueError, match=f"^{path}: not of a .* version has"):
        run_weights.measure(str(path), None)


def test_an_unknown_key_names_near_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="run 'abc': has no weights here; none has"):
        run_weights.find("abc")
    folder = layout.variant_runs("smoke", "xception")
    folder.mkdir(parents=True)
    keys = {"0": "00aa00aa00aa00aa", "1": "11bb11bb11bb11bb", "2": "22cc22cc22cc22cc"}
    layout.variant_config("smoke", "xception").write_text(
        f'{{"run_keys": {keys}}}'.replace("'", '"')
    )
    for seed in "01":
        layout.seed_weights("smoke", "xception", seed).touch()
    own = layout.run_folder("33dd33dd33dd33dd")
    own.mkdir(parents=True)
    (own / layout.WEIGHTS).touch()
    assert run_weights.find(keys["1"]) == layout.seed_weights("smoke", "xception", 1)
    assert run_weights.find(own.name) == own / layout.WEIGHTS
    assert run_weights.find("there/x") == Path("there/x")
    with pytest.raises(ValueError, match="the nearest of 3 that have: ") as refused:
        run_weights.find("00aa00aa00aa00ab")
    first = f"{keys['0']} (xception, smoke, seed 0), "
    assert f"that have: {first}" in str(refused.value)
    assert f"{own.name};" in str(refused.value)  # no run.json says whose it is
    config = {"variant": "no_residual", "scale": "laptop", "seed": 4}
    (own / layout.RUN_CONFIG).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=rf"{own.name} \(no_residual, laptop, seed 4\)"):
        run_weights.find(own.name[:-1])
    with pytest.raises(ValueError, match="run '22cc22cc22cc22cc': has no weights here"):
        run_weights.find(keys["2"])


@pytest.mark.parametrize("name", NETWORKS)
def test_timm_computes_the_same_from_exported_weights(name: str, tmp_path: Path) -> None:
    run = tiny(name)
    published = {**models.defaults(name), **NETWORKS[name].options}
    run = dataclasses.replace(
        run, options={**published, "classes": 7, "in_channels": 1}, image_size=96
    )
    model = network(run)
    path = write(run, model, tmp_path / "w.safetensors")
    (line,) = timm_export.export(str(path), tmp_path / "timm.safetensors")
    theirs = timm.create_model(
        NETWORKS[name].timm,
        num_classes=7,
        in_chans=1,
        checkpoint_path=str(tmp_path / "timm.safetensors"),
    ).eval()
    assert line.endswith(f"timm.create_model('{NETWORKS[name].timm}', num_classes=7, in_chans=1)")
    images = torch.randn(2, 1, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), model(images), rtol=1e-4, atol=1e-4)


def test_what_timm_lacks_is_said(tmp_path: Path) -> None:
    run = tiny("xception")
    path = write(run, network(run), tmp_path / "w.safetensors")
    lines = timm_export.export(str(path), tmp_path / "timm.safetensors")
    assert lines[1] == (
        "timm's network is another one in: norm_epsilon 0.001 (timm: 1e-05), "
        "padding same (timm: valid), width 0.0625 (timm: 1.0)"
    )
    for variant, complaint in {
        "no_residual": "timm's legacy_xception has other layers: unknown or missing names",
        "separable_example": "timm has no separable_example, only xception",
    }.items():
        other = tiny(variant)
        path = write(other, network(other), tmp_path / "other.safetensors")
        with pytest.raises(ValueError, match=complaint):
            timm_export.export(str(path), tmp_path / "no.safetensors")
    assert not (tmp_path / "no.safetensors").exists()
