"""Which backend "auto" selects, and how a run trains with the kernels that were selected."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import fork_server
from helpers.kernel_results import NO_CPU_KERNELS
from helpers.project import ROOT, edit_params, results, sepablate
from helpers.tiny_runs import context, tiny

from sepablate import data
from sepablate.execution import backend
from sepablate.runs.run import Run
from sepablate.training import batches, engine
from sepablate.training.step import train_step

here = pytest.mark.skipif(NO_CPU_KERNELS is not None, reason=f"no C++ kernels: {NO_CPU_KERNELS}")


def wanted(kernels: str, precision: str = "bf16", threads: int = 1) -> Run:
    changes = {"kernels": kernels, "precision": precision, "threads": threads}
    return dataclasses.replace(tiny(), **changes)  # type: ignore[arg-type]


@here
def test_auto_measures_and_remembers(tmp_path: Path) -> None:
    found = backend.select_backend(wanted("auto"), tmp_path).kernels
    (known,) = json.loads((tmp_path / "kernels.json").read_text()).values()
    assert found == known
    other = {"fused": "torch", "torch": "fused"}[found]
    text = (tmp_path / "kernels.json").read_text().replace(found, other)
    (tmp_path / "kernels.json").write_text(text)
    assert backend.select_backend(wanted("auto"), tmp_path).kernels == other


def test_the_kernels_are_for_bf16(tmp_path: Path) -> None:
    assert backend.select_backend(wanted("auto", "fp32"), tmp_path).kernels == "torch"
    with pytest.raises(
        ValueError, match=r"scale 'smoke': kernels: 'fused': they .*; choose auto, torch"
    ):
        backend.select_backend(wanted("fused", "fp32"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_each_number_of_threads_has_an_answer_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "why_unavailable", lambda _: None)
    monkeypatch.setattr(backend, "fused_time_ratio", lambda threads: {1: 0.4, 2: 1.0}[threads])
    monkeypatch.setattr(backend.hardware, "devices", lambda: ["cpu"])
    for threads, kernels in ((1, "fused"), (2, "torch"), (1, "fused")):
        run = backend.select_backend(wanted("auto", threads=threads), tmp_path)
        assert (run.kernels, run.threads) == (kernels, threads)


def test_without_bf16_matrix_products_auto_trains_by_torch(tmp_path: Path) -> None:
    """On a processor like most laptops', which an option of oneDNN simulates."""
    code = (
        "from pathlib import Path\nfrom sepablate.execution import backend\n"
        "from test_backend import wanted\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "print(backend.select_backend(wanted('auto'), folder).kernels)\n"
        "backend.select_backend(wanted('fused'), folder)\n"
    )
    paths = (ROOT, ROOT / "tests", ROOT / "tests/unit")
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "ONEDNN_MAX_CPU_ISA": "AVX2",
        },
    )
    assert done.stdout == "torch\n"
    assert "'fused': the processor has no bf16 matrix products" in done.stderr.splitlines()[-1]


def test_without_a_compiler_auto_says_so_in_a_line_and_trains_by_torch(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nfrom sepablate.execution import backend\n"
        "from test_backend import wanted\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "print(backend.select_backend(wanted('auto'), folder).kernels)\n"
        "print(backend.select_backend(wanted('auto'), folder).kernels)\n"
        "backend.select_backend(wanted('fused'), folder)\n"
    )
    environment = {
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests/unit"))),
        "PATH": "",
        "CXX": "no-such-compiler",
        "XDG_CACHE_HOME": str(tmp_path),
    }
    done = fork_server.run(ROOT, "-c", code, **environment)
    assert done.stdout.split() == ["torch", "torch"]
    lines = done.stderr.splitlines()
    reason = "no C++ compiler: 'no-such-compiler' is not on the path"
    assert lines[0] == f"sepablate: fused kernels unavailable ({reason}); using PyTorch kernels"
    assert f"'fused': {reason}; choose auto, torch" in lines[-1]
    assert sum("using PyTorch kernels" in line for line in lines) == 1


REMEMBERED = "kernels.json", lambda: "torch", ("fused", "torch")


@pytest.mark.parametrize("content", ["banana", "7", "null", "[]", '"torch"', "{", "", "\0"])
def test_a_damaged_memory_is_measured_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    name, measure, choices = REMEMBERED
    path = tmp_path / name
    path.write_text(content)
    assert backend.remember(path, measure, choices) == "torch"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sepablate: {path}: ")
    assert line.endswith("; measuring again")
    assert [*json.loads(path.read_text()).values()] == ["torch"]
    assert backend.remember(path, measure, choices) == "torch"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("answer", ["banana", 7, None, ["torch"], {}])
def test_an_answer_that_is_none_is_measured_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: object
) -> None:
    name, measure, choices = REMEMBERED
    path = tmp_path / name
    backend.remember(path, measure, choices)
    (machine,) = json.loads(path.read_text())
    path.write_text(json.dumps({machine: answer, "another machine": "fused"}))
    assert backend.remember(path, measure, choices) == "torch"
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{answer!r} for this machine is not fused or torch; measuring again" in line
    expected = {machine: "torch", "another machine": "fused"}
    assert json.loads(path.read_text()) == expected


def test_kernels_that_could_not_be_built_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason is said, and it is not kept: the compiler may come."""
    reasons = ["ld: cannot find -lc10", None]
    monkeypatch.setattr(backend, "why_unavailable", lambda _: reasons.pop(0))
    monkeypatch.setattr(backend, "fused_time_ratio", lambda _: 0.1)
    monkeypatch.setattr(backend.hardware, "devices", lambda: ["cpu"])
    assert backend.select_backend(wanted("auto"), tmp_path).kernels == "torch"
    assert "(ld: cannot find -lc10); using PyTorch kernels" in capsys.readouterr().err
    assert not (tmp_path / "kernels.json").exists()
    assert backend.select_backend(wanted("auto"), tmp_path).kernels == "fused"
    assert backend.select_backend(wanted("auto"), tmp_path).kernels == "fused"


def test_a_space_in_the_environment_s_path_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.build, "load_library", lambda: "ld returned 1 exit status")
    monkeypatch.setattr(backend.sys, "prefix", "/home/me/my environment")
    backend.cpu_failure.cache_clear()
    assert "the space in /home/me/my environment may" in str(backend.why_unavailable("cpu"))
    backend.cpu_failure.cache_clear()


def test_kernels_are_in_the_key_and_theirs_only_in_the_digest_of_fused_runs() -> None:
    by_torch, fused = wanted("torch"), wanted("fused")
    assert by_torch.key != fused.key
    assert (by_torch.config["kernels"], fused.config["kernels"]) == ("torch", "fused")
    assert by_torch.config["source_digest"] != fused.config["source_digest"]


@here
@pytest.mark.parametrize("variant", ["xception", "xception_multilabel"])
def test_a_run_by_the_kernels_learns_as_one_by_torch(variant: str, data_folder: Path) -> None:
    losses = {}
    for kernels in ("fused", "fused again", "torch"):
        run = tiny(variant, images=512, batch_size=64, epochs=4, evaluations=1)
        run = run.with_backend("bf16", kernels.partition(" ")[0])
        state = engine.start(run)
        split = data.dataset(run.dataset).load(data_folder)["train"].first(512)
        stream, fixed = batches.make_batches(split, run), context(run, split)
        losses[kernels] = [train_step(state, stream, fixed) for _ in range(30)]
    assert losses["fused"] == losses["fused again"]
    assert losses["fused"] != losses["torch"]
    first, last = (torch.tensor([each[part] for each in losses.values()]) for part in (0, 29))
    assert (first / first[2] - 1).abs().max() < 0.01
    assert (last / last[2] - 1).abs().max() < 0.2
    assert (last < first).all()


@here
def test_a_wish_is_followed_or_refused_before_anything_is_written(half: Path) -> None:
    edit_params(half, precision="bf16", kernels="fused", seeds=[0])
    done = sepablate(half, "train", "xception", "--scale", "smoke", "--no-mlflow")
    assert done.returncode == 0, done.stderr
    assert json.loads(results(half)["config.json"])["kernels"] == "fused"
    edit_params(half, precision="fp32")
    done = sepablate(half, "train", "relu_between", "--scale", "smoke", "--no-mlflow")
    assert done.returncode == 2
    assert "kernels: 'fused': they compute in bf16" in done.stderr.splitlines()[-1]
    edit_params(half, kernels="magic")
    done = sepablate(half, "train", "relu_between", "--scale", "smoke", "--no-mlflow")
    assert done.returncode == 2
    assert "kernels: 'magic': choose auto, fused, torch" in done.stderr
    assert not (half / "results/smoke/runs/relu_between").exists()
