"""The scale `paper` as it is, but for the number of images, steps and classes."""

import json
from pathlib import Path

import pytest
import yaml
from helpers import images
from helpers.monitors import StopAfterEachStep
from helpers.project import STUDY, copy_project, sepablate

from sepablate import data
from sepablate.execution import train_variant
from sepablate.store import layout
from sepablate.training import engine

FEW = {
    "classes": 3,
    "images": 4,
    "batch_size": 2,
    "micro_batch": 1,
    "epochs": 1,
    "evaluations": 1,
    "validation_images": 1,
    "test_images": 2,
    "workers": 1,
    "seeds": [0],
    "precision": "auto",
}


@pytest.fixture
def imagenet(tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with 12 training and 6 validation images of three classes."""
    project = copy_project(tmp_path, [STUDY])
    images.class_folders(project / "data/imagenet", data_folder, train=12, validation=6)
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["scales"]["paper"] |= FEW
    path.write_text(yaml.safe_dump(params))
    monkeypatch.chdir(project)
    return project


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["xception", "inception_v3"])
def test_the_unreduced_networks_train_and_resume(imagenet: Path, variant: str) -> None:
    fetched = sepablate(imagenet, "fetch", "--scale", "paper")
    assert fetched.returncode == 0, fetched.stderr
    trained = sepablate(imagenet, "train", variant, "--scale", "paper", "--no-mlflow")
    assert trained.returncode == 0, trained.stderr
    folder = imagenet / "results/paper/runs" / variant
    config = json.loads((folder / "config.json").read_text())
    assert (config["image_size"], config["dataset"], config["steps"]) == (299, "imagenet", 2)
    assert (config["model.classes"], config["model.width"]) == (3, 1)
    if variant != "xception":
        return  # each checkpoint is 300 MB
    (job,), outcome = train_variant.seed_jobs(variant, "paper", {}), None
    run = job.run
    assert config["run_keys"]["0"] == job.key
    splits = data.dataset("imagenet").load(layout.DATA)
    while outcome is None:  # stopped after each step, and taken up again
        try:
            outcome = engine.fit(run, splits, imagenet / "pieces", StopAfterEachStep())
        except engine.Interrupted:
            continue
    lines = (folder / "seed-0.csv").read_text().splitlines()[1:]
    whole = [line.split(",")[3:] for line in lines]
    assert whole == [[str(step), metric, repr(value)] for step, metric, value in outcome.rows]


def test_another_number_of_classes_is_refused_before_training(imagenet: Path) -> None:
    path = imagenet / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["scales"]["paper"]["classes"] = 1000
    path.write_text(yaml.safe_dump(params))
    with pytest.raises(ValueError, match="3 classes in the train images, but 1000"):
        train_variant.check("xception", "paper")
    refused = sepablate(imagenet, "train", "xception", "--scale", "paper", "--no-mlflow")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert not (imagenet / ".sepablate").exists()
    assert not (imagenet / "results").exists()
