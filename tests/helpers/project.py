"""Copies of the project to run real commands in, and what to ask of them."""

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from helpers import fork_server

ROOT = Path(__file__).parents[2]
PARTS = (
    "sepablate",
    "experiments",
    "datasets",
    ".dvc",
    "dvc.yaml",
    "params.yaml",
    ".dvcignore",
    "README.md",
)
EXAMPLE = "docs/examples/activation_place.py"
NETWORK = "docs/examples/three_layers.py"
TINY = {"images": 96, "batch_size": 16, "validation_images": 20, "test_images": 30}
STUDY = "xception_vs_inception"
QUICK = "pointwise_activation"  # whose networks need no search for a width in each command
TRAIN = ("train", "xception", "--no-mlflow")
PATIENCE = 1800  # seconds after which something hangs, also on a machine that is busy


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills, once for all processes of this test session."""
    base = factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / name).exists():
            shutil.rmtree(root / f"{name}-half", ignore_errors=True)
            (root / f"{name}-half").mkdir()
            make(root / f"{name}-half")
            (root / f"{name}-half").rename(root / name)
    return root / name


def copy_project(target: Path, studies: Sequence[str] = ()) -> Path:
    """The sources, the pipeline and the data.

    studies: only these, as a training resolves every variant that it is compared with. DVC trains
        the baseline for the first.
    """
    skip = shutil.ignore_patterns("__pycache__", "cache", "tmp", "dvc.lock")
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=skip)
        else:
            shutil.copy(ROOT / name, target / name)
    for path in (target / "experiments").glob("*.py"):
        if studies and path.stem not in studies:
            path.unlink()
    if studies:
        stages = target / "dvc.yaml"
        text = stages.read_text()
        stages.write_text(text.replace(f"xception: {STUDY}", f"xception: {studies[0]}"))
    folder = target / "data" / "fashion-mnist"
    folder.mkdir(parents=True)
    for path in (ROOT / "data/fashion-mnist").glob("*-ubyte"):
        shutil.copy(path, folder)  # tests may damage it
    return target


def edit_params(project: Path, **changes: object) -> None:
    """Change fields of the smoke scale, or of the recipe, and select smoke, in fp32 by default."""
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["scale"] = "smoke"
    recipe, smoke = params["recipes"]["imagenet"], params["scales"]["smoke"]
    for key, value in {"precision": "fp32", **changes}.items():
        (recipe if key in recipe else smoke)[key] = value
    path.write_text(yaml.safe_dump(params))


def sepablate(
    project: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line of the copy in `project`, with these variables more."""
    return fork_server.run(project, "sepablate", *arguments, **environment)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` by its relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def results(project: Path, variant: str = "xception") -> dict[str, bytes]:
    """What must be the same bytes each time."""
    return contents(project / "results/smoke/runs" / variant)


def checkpoints(project: Path) -> list[Path]:
    return list((project / ".sepablate/runs").glob("*/checkpoint-*.pt"))


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Look again and again; fail only where something hangs."""
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
