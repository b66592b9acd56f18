"""What tests share: the real data, and a copy of the project to run real commands in."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from sepablate.data import fashion_mnist

ROOT = Path(__file__).parents[1]
Command = Callable[..., subprocess.CompletedProcess[str]]

os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Fashion-MNIST, fetched if it is not there."""
    fashion_mnist.fetch(ROOT / "data")
    return ROOT / "data"


@pytest.fixture
def project(tmp_path: Path, data_folder: Path) -> Path:
    """A copy of the project with the data in place, without results, runs or a git history."""
    kept = (
        "sepablate",
        "experiments",
        ".dvc",
        "dvc.yaml",
        "params.yaml",
        ".dvcignore",
        "README.md",
    )
    for name in kept:
        if (ROOT / name).is_dir():
            skip = shutil.ignore_patterns("__pycache__", "cache", "tmp", "dvc.lock")
            shutil.copytree(ROOT / name, tmp_path / name, ignore=skip)
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    target = tmp_path / "data" / "fashion-mnist"
    target.mkdir(parents=True)
    for name in fashion_mnist.SOURCE.expected:
        shutil.copy(data_folder / "fashion-mnist" / name, target / name)
    return tmp_path


def edit_params(project: Path, **changes: object) -> None:
    """Change fields of the smoke scale, or of the recipe, and select smoke."""
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["scale"] = "smoke"
    for key, value in changes.items():
        place = params["recipe"] if key in params["recipe"] else params["scales"]["smoke"]
        place[key] = value
    path.write_text(yaml.safe_dump(params))


def sepablate(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line of the copy in `project`."""
    return subprocess.run(
        [sys.executable, "-m", "sepablate", *arguments], cwd=project, capture_output=True, text=True
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` by its relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def living(group: int) -> list[int]:
    """The processes of a process group that are no zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, own = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(own) == group and state != "Z":
            found.append(int(path.parent.name))
    return found
