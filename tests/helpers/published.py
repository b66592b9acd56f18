"""Made-up results of two reports, their runs, and ways to change a digit in them."""

import json
import shutil
from pathlib import Path

import pytest

from helpers.made_up_runs import make_runs
from helpers.project import ROOT, made_once
from sepablate import study
from sepablate.report import outputs
from sepablate.store.run_key import run_key

REPORTS = {"REPORT": ["residual_connections"], "CONTROLS": ["residual_learning_rate"]}
TINY = Path("results/tiny")
OF_A_STUDY = ("table.csv", "table.md", "claims.json", "curves.csv", "figure.png", "figure.svg")
OF_A_REPORT = ("verdicts.json", "metrics.json", "digests.json", "scorecard.png", "scorecard.svg")
FILES = [
    *(f"{name}/{file}" for names in REPORTS.values() for name in names for file in OF_A_STUDY),
    *("residual_connections/like_figure_9.png", "residual_connections/like_figure_9.svg"),
    *(f"{prefix}{file}" for prefix in ("", "controls_") for file in OF_A_REPORT),
    *("REPORT.md", "report.html", "CONTROLS.md", "controls.html"),
]


def write_runs(name: str) -> None:
    """Made-up runs under their true keys, with what was measured."""
    make_runs(name)
    folder, measured = TINY / "runs" / name, TINY / "measured" / name
    config = json.loads((folder / "config.json").read_text())
    config |= {"variant": name, "model": name, "epochs": 1, "dataset": "fashion_mnist"}
    config |= {"data_digest": "c0ffee", "learning_rate": 0.045, "steps": 9}
    config |= {"images": 576, "image_size": 28, "validation_images": 250}
    config |= {"model.classes": 10, "model.in_channels": 1, "model.width": 0.5}
    if name == "xception":
        config |= {f"model.{letter}": 1 for letter in "abcdef"}
    measured.mkdir(parents=True)
    for seed, old in config["run_keys"].items():
        key = run_key(config, int(seed))
        config["run_keys"][seed] = key
        path = folder / f"seed-{seed}.csv"
        path.write_text(path.read_text().replace(old, key))
        record = {"run_key": key, "commit": "0123456789ab", "hardware": {"processor": "abacus"}}
        record |= {"seconds": 38.1 + int(seed), "images_per_second": 356.6, "energy_joules": None}
        (measured / f"seed-{seed}.json").write_text(json.dumps(record))
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with results and the runs that they come from."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            shutil.copytree(ROOT / "experiments", "experiments")
            for name in {each.name for names in REPORTS.values() for each in variants(names)}:
                write_runs(name)
            for report, names in REPORTS.items():
                for name in names:
                    outputs.study_outputs(name, "tiny")
                outputs.report_outputs(names, "tiny", report)

    return made_once(tmp_path_factory, "made", make)


def variants(names: list[str]) -> list[study.Variant]:
    return [variant for name in names for variant in study.load(name).all_variants]


@pytest.fixture
def current(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the current folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def without_runs(archives: bool = False) -> None:
    """Remove the runs, as git does not keep them; and their archives, unless those are to stay."""
    for name in ("runs", "measured"):
        shutil.rmtree(TINY / name, ignore_errors=True)
    for path in TINY.glob("*runs.tar.gz") if not archives else ():
        path.unlink()


def change_a_digit(path: Path, nth: int) -> None:
    """Another digit in place of the nth, counted in parts of a hundred; of a PNG, another byte."""
    content = bytearray(path.read_bytes())
    digits = [at for at, byte in enumerate(content) if chr(byte).isdigit()]
    places = range(len(content)) if path.suffix == ".png" else digits
    at = places[nth * (len(places) - 1) // 100]
    content[at] = ord("7") if content[at] != ord("7") else ord("1")
    path.write_bytes(content)


def named(lines: list[str], path: Path) -> bool:
    return any(line.startswith(str(path)) and "\n" not in line for line in lines)
