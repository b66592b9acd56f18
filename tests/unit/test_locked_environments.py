"""The environments: what is locked, and the one without a GPU, with stubs of NVIDIA's libraries."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
import yaml
from helpers.project import ROOT

from sepablate.errors import UserError
from sepablate.execution import gpu_stubs

LEFT_OUT = ("cuda", "nvidia", "triton")
KEPT = ("libcudart.so.", "libcupti.so.", "libcufile.so.")  # small; PyTorch calls them
TRAIN = """
import torch, torchvision
from sepablate.execution import hardware
layer = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
before = layer[0].weight.clone()
with torch.autocast("cpu", torch.bfloat16):
    layer(torch.randn(2, 1, 8, 8)).float().square().sum().backward()
torch.optim.SGD(layer.parameters(), 0.1).step()
assert not torch.equal(before, layer[0].weight)
torch.ones = lambda *_, **__: torch.zeros(1)  # as on a GPU that computes
print(torch.__file__, torch.cuda.is_available(), hardware._gpu_failure())
"""


def packages(lock: str) -> dict[str, str]:
    """The lines of each package of a lock."""
    blocks = re.split(r"^(?=\S)", (ROOT / lock).read_text(), flags=re.M)[1:]
    return {block.partition("==")[0]: block for block in blocks}


def test_the_lock_for_the_cpu_is_the_lock_without_what_only_a_gpu_needs() -> None:
    """If it is not: `make lock`."""
    whole, light = packages("requirements.lock"), packages("requirements-cpu.lock")
    assert light.items() <= whole.items()
    gone = {name for name in whole if name not in light}
    assert gone
    assert all(name.startswith(LEFT_OUT) for name in gone)
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", "")
    named = re.search(r"^GPU_ONLY := (.*)$", makefile, re.M)
    assert named
    assert gone == {*named[1].split()}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed packages by links, without those of a GPU, and with their stubs."""
    installed, folder = Path(torch.__file__).parents[1], tmp_path_factory.mktemp("site")
    (folder / "torch/lib").mkdir(parents=True)
    (folder / "nvidia/cu13/lib").mkdir(parents=True)
    for path in installed.iterdir():
        if path.name != "torch" and not path.name.startswith(LEFT_OUT):
            (folder / path.name).symlink_to(path)
    for path in (installed / "torch").iterdir():
        if path.name != "lib":
            (folder / "torch" / path.name).symlink_to(path)
    for path in (installed / "torch/lib").iterdir():
        if not gpu_stubs.maker(path.name):
            (folder / "torch/lib" / path.name).symlink_to(path)
    for path in installed.glob("nvidia/cu13/lib/*"):
        if path.name.startswith(KEPT):
            (folder / "nvidia/cu13/lib" / path.name).symlink_to(path)
    return folder


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.skipif(torch.version.cuda is None, reason="needs PyTorch with CUDA")
def test_pytorch_trains_with_stubs_in_the_place_of_nvidias_libraries(site: Path) -> None:
    made = gpu_stubs.write_stubs(site)
    assert {"libcublas.so.13", "libcudnn.so.9", "libnccl.so.2"} <= {*made}
    assert sum((site / "torch/lib" / name).stat().st_size for name in made) < 1_000_000
    assert not gpu_stubs.write_stubs(site)  # nothing is missing now
    done = subprocess.run(
        [sys.executable, "-S", "-c", TRAIN],
        env={**os.environ, "PYTHONPATH": f"{site}:{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{site}/torch/__init__.py False the environment is for the CPU only\n"
    library = ctypes.CDLL(str(site / "torch/lib/libcudnn.so.9"))
    library.cudnnGetErrorString.restype = ctypes.c_char_p
    assert library.cudnnCreate() == 1
    assert library.cudnnGetErrorString() == gpu_stubs.WHY.encode()


def test_stubs_without_a_compiler_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"g\+\+ not found: install g\+\+"):
        gpu_stubs.write_stubs(tmp_path)


def test_environment_follows_the_lock() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    entries = re.findall(r"^(\S+?)==(\S+).*?(?=^\S|\Z)", lock, re.DOTALL | re.MULTILINE)
    blocks = re.split(r"^(?=\S)", lock, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(entries) > 100
    assert all("--hash=sha256:" in block for block in blocks)
    assert not re.search(r"https?://|--index|--find-links|file:", lock)
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [each["pip"] for each in conda if isinstance(each, dict)]
    assert pip == ["-r requirements.lock"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "python=3.11" in conda
    assert project["requires-python"] == ">=3.11"
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    locked = {name.lower() for name, _ in entries}
    for requirement in wanted:
        assert re.split(r"[<>=\[]", requirement)[0].lower() in locked
