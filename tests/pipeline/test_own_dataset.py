"""Images of one's own from registration to the report, by real commands; changed, moved, gone."""

import csv
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import fork_server
from helpers.environments import refused
from helpers.own_images import class_folders, picture, save
from helpers.processes import dvc
from helpers.project import ROOT, STUDY, contents, copy_project, edit_params, sepablate

CALIBRATE = """
from sepablate.execution.train_variant import known_jobs
from sepablate.planning import calibration
if __name__ == "__main__":
    print(calibration.calibrate(known_jobs("xception", "photos")).step > 0)
"""  # a run of fewer steps than are timed
TRAIN = ("train", "xception", "--scale", "pets", "--no-mlflow")


def done(project: Path, *arguments: str) -> str:
    finished = sepablate(project, *arguments)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def run_key(project: Path) -> str:
    with (project / "results/pets/runs/xception/seed-0.csv").open() as file:
        return next(csv.DictReader(file))["run_key"]


@pytest.fixture
def pets(tmp_path: Path, data_folder: Path) -> Path:
    """A project with registered images of three classes, whose scale is like smoke."""
    project = copy_project(tmp_path, [STUDY])
    shutil.rmtree(project / "data")  # no other images are needed
    edit_params(project, seeds=[0], batch_size=16, images=64)
    class_folders(project / "data/pets", 30)
    printed = done(project, "new", "dataset", "pets", "data/pets", "--add-scale")
    assert "written: params.yaml\npets: 72 train, 9 validation, 9 test images (held in" in printed
    assert "3 classes: cat, dog, owl\n" in printed
    assert f"\nsepablate {' '.join(TRAIN[:4])} " in printed
    return project


@pytest.mark.slow
def test_from_a_folder_to_a_report_that_names_the_data_set(pets: Path) -> None:
    for variant in ("xception", "inception_v3"):
        done(pets, "train", variant, "--scale", "pets", "--no-mlflow")
    done(pets, "study", STUDY, "--scale", "pets", "--no-mlflow")
    done(pets, "report", STUDY, "--scale", "pets", "--no-mlflow")
    registered = json.loads((pets / "datasets/pets.json").read_text())
    report = (pets / "results/pets/REPORT.md").read_text()
    assert "72 images of `pets` in 3 classes, given as 12 x 12 x 3" in report
    assert f"| `data_digest` | {registered['digest']} |" in report
    key = run_key(pets)
    measured = done(pets, "evaluate", key)
    assert "test accuracy of 9 images" in measured
    assert ", the same" in measured
    assert "healthy" in done(pets, "doctor")

    save(pets / "data/pets/owl/00.png", picture(99))
    before = contents(pets / "results")
    changed = "data/pets/owl/00.png: changed after it was registered"
    assert refused(sepablate(pets, *TRAIN), "1 of 90 images are bad: ", changed)
    assert refused(sepablate(pets, "evaluate", key), changed)
    assert refused(sepablate(pets, "fetch", "pets"), changed)
    found = sepablate(pets, "doctor")
    assert (found.returncode, changed in found.stdout) == (1, True)
    (pets / "data/pets/owl/00.png").unlink()
    assert refused(sepablate(pets, *TRAIN), "data/pets/owl/00.png: No such file", "pets.csv lists")
    shutil.move(pets / "data/pets", pets / "data/moved")
    assert refused(sepablate(pets, *TRAIN), "folder: 'data/pets': there is no such folder")
    assert contents(pets / "results") == before
    assert "xception" in done(pets, "trace", f"results/pets/{STUDY}/table.csv")


@pytest.mark.slow
def test_the_pipeline_follows_images_that_are_registered_again(pets: Path) -> None:
    def repro() -> str:
        dvc(pets, "repro", "fetch")
        return (pets / "results/pets/fetched.json").read_text()

    subprocess.run(["git", "init", "--quiet"], cwd=pets, check=True)
    params = (pets / "params.yaml").read_text()
    (pets / "params.yaml").write_text(params.replace("\nscale: smoke\n", "\nscale: pets\n"))
    (key,) = done(pets, "train", "xception", "--scale", "pets", "--keys").split()
    first = repro()
    save(pets / "data/pets/owl/99.png", picture(99))
    assert repro() == first, "an image that is not registered is no part of the data set"
    (pets / "datasets/pets.json").unlink()
    done(pets, "new", "dataset", "pets", "data/pets", "--scale", "smoke")
    assert repro() != first
    (other,) = done(pets, "train", "xception", "--scale", "pets", "--keys").split()
    assert key != other


@pytest.mark.slow
def test_images_in_files_train_and_a_changed_one_stops_the_training(pets: Path) -> None:
    class_folders(pets / "photos", 8, size=(120, 100))
    lines = [
        f"{path.parent.name}/{path.name},{path.parent.name}" for path in pets.glob("photos/*/*")
    ]
    (pets / "photos/list.csv").write_text("\n".join(["image,label", *sorted(lines)]) + "\n")
    printed = done(pets, "new", "dataset", "photos", "photos/list.csv", "--add-scale")
    assert "photos: 18 train, 3 validation, 3 test images (read from their files), " in printed
    train = ("train", "xception", "--scale", "photos", "--no-mlflow")
    calibrated = fork_server.run(pets, "-c", CALIBRATE)
    assert calibrated.stdout == "True\n", calibrated.stderr
    done(pets, *train)
    assert "verified" in done(pets, "fetch", "--scale", "photos")
    with (pets / "datasets/photos.csv").open() as file:
        row = next(row for row in csv.DictReader(file) if row["split"] == "train")
    save(pets / "photos" / row["image"], picture(99, (120, 100)))
    shutil.rmtree(pets / ".sepablate/runs")
    stopped = sepablate(pets, *train)
    assert stopped.returncode != 0
    assert f"photos/{row['image']}: changed after it was registered" in stopped.stderr
    assert "Traceback" not in stopped.stderr


def test_a_project_can_list_its_data_sets_in_every_command_that_names_one(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "experiments").mkdir()
    class_folders(tmp_path / "pets")
    done(tmp_path, "new", "dataset", "pets", "pets")
    assert refused(sepablate(tmp_path, "fetch", "pet"), "imagenet", "pets; did you mean pets?")
