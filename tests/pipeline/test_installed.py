"""The wheel: what it holds, and a project that `sepablate init` makes outside the repository."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from helpers.project import PARTS, ROOT, TINY, contents, edit_params, made_once

from sepablate.project_files import project_files

BUILT = ("pyproject.toml", "setup.py", "LICENSE", "params.schema.json", ".gitignore")
PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources."""

    def make(folder: Path) -> None:
        skip = shutil.ignore_patterns("__pycache__", "cache", "tmp")
        for name in (*PARTS, *BUILT):
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / "source" / name, ignore=skip)
            else:
                shutil.copy(ROOT / name, folder / "source" / name)
        build = ("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", "..", ".")
        subprocess.run([sys.executable, *PIP, *build], cwd=folder / "source", check=True)

    (path,) = made_once(tmp_path_factory, "wheel", make).glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_what_a_project_needs(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"sepablate"}
    template = {name.partition("template/")[2] for name in names if "/template/" in name}
    assert template == {path.as_posix() for path in project_files(ROOT)}
    assert {"params.yaml", "experiments/borders.py", ".dvc/config"} <= template
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "sepablate").rglob("*.[pch]*")}
    sources = {name for name in sources if name.endswith((".py", ".cpp", ".h", "py.typed"))}
    assert sources <= set(names)


@pytest.mark.slow
def test_a_project_outside_the_repository(wheel: Path, data_folder: Path, tmp_path: Path) -> None:
    site, home = tmp_path / "site", tmp_path / "mine"
    install = ("install", "--no-deps", "--no-index", "--target", str(site), str(wheel))
    subprocess.run([sys.executable, *PIP, *install], check=True)

    def run(*arguments: str, folder: Path = home) -> str:
        environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "written: mine" in run("-m", "sepablate", "init", "mine", folder=tmp_path)
    assert set(contents(home)) == {path.as_posix() for path in project_files(ROOT)}
    assert "no_residual_wide" in run("-m", "sepablate", "list")
    for study in (home / "experiments").glob("*.py"):
        if study.stem != "separable_example":  # a training resolves all that it is compared with
            study.unlink()
    (home / "data").symlink_to(data_folder)
    edit_params(home, **TINY, seeds=[0], kernels="torch")
    for variant in ("separable_example", "example_standard"):
        run("-m", "sepablate", "train", variant, "--no-mlflow")
    run("-m", "sepablate", "study", "separable_example", "--no-mlflow", "--partial")
    run("-m", "sepablate", "report", "separable_example", "--no-mlflow")
    assert "| Separable |" in (home / "results/smoke/SEPARABLE_EXAMPLE.md").read_text()
    code = "import sepablate; print(sepablate.__file__, *sepablate.results().variant)"
    file, *variants = run("-c", code).split()
    assert Path(file).is_relative_to(site)
    assert variants == ["example_standard", "separable_example"]


def initialised(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sepablate", "init", name]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_made_projects_pipelines_name_no_source(tmp_path: Path) -> None:
    assert initialised(tmp_path, "mine").returncode == 0
    for path in ("dvc.yaml", "experiments/dvc.yaml"):
        text = (tmp_path / "mine" / path).read_text()
        assert text.startswith("# Made by `sepablate init`.")
        made, ours = yaml.safe_load(text), yaml.safe_load((ROOT / path).read_text())
        assert made["stages"].keys() == ours["stages"].keys()
        for stage in made["stages"].values():
            deps = stage.get("do", stage).get("deps", ["results/fetched.json"])
            assert deps
            assert not any(dep.startswith("sepablate") for dep in deps)
    for path in ("params.yaml", ".dvc/config", "experiments/robustness.py"):
        assert (tmp_path / "mine" / path).read_bytes() == (ROOT / path).read_bytes()


def test_a_folder_that_has_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").touch()
    (tmp_path / "file").touch()
    for name in ("full", "file", "."):
        done = initialised(tmp_path, name)
        assert done.returncode == 2
        assert done.stderr == f"sepablate: init {name!r}: is not empty: choose a new folder\n"
    assert set(contents(tmp_path)) == {"full/thesis.tex", "file"}
