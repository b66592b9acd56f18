"""One run on two processes: the numbers of one, whole files written once, and an end for all.

Most ranks here are forked with torch imported, which torchrun cannot do but is much faster.
"""

import csv
import fcntl
import os
import re
import resource
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import fork_server
from helpers.images import class_folders
from helpers.processes import forking, start
from helpers.project import (
    PATIENCE,
    QUICK,
    ROOT,
    TRAIN,
    checkpoints,
    contents,
    copy_project,
    edit_params,
    sepablate,
    wait_for,
)

from sepablate import __main__, data, models, scales, study
from sepablate.execution import pool, torchrun, train_variant
from sepablate.models.weight_init import init_weights
from sepablate.runs.run import resolve
from sepablate.store import layout
from sepablate.store.files import verify_manifest
from sepablate.training.objective import make_objective
from sepablate.training.step import TrainContext, evaluate

TINY = {"images": 96, "batch_size": 16, "micro_batch": 8, "evaluations": 3, "precision": "fp32"}
TINY |= {"validation_images": 21, "test_images": 33, "seeds": [0]}
TORCHRUN = ["--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
TORCHRUN += ["--no-python", "python", "-m", "sepablate", *TRAIN]
Before = Callable[[int], None]


@pytest.fixture
def project(tmp_path: Path, data_folder: Path) -> Path:
    """A copy of the project with one study, in which nothing is trained yet."""
    return copy_project(tmp_path, [QUICK])


def nothing(_: int) -> None:
    """The hook that the ranks of most tests call before they train."""


def rank(number: int, port: int, project: Path, before: Before, arguments: tuple[str, ...]) -> None:
    """Be one of two ranks that run a command of sepablate in `project`."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "RANK": number}
    place |= {"LOCAL_RANK": number, "LOCAL_WORLD_SIZE": 2, "TORCHELASTIC_RUN_ID": "none"}
    os.environ |= {key: str(value) for key, value in place.items()}
    os.environ.pop("TORCHELASTIC_USE_AGENT_STORE", None)
    os.chdir(project)
    output = os.open(f"output-{number}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    before(number)
    sys.argv = ["sepablate", *arguments]
    __main__.main()


def ranks(
    project: Path, before: Before = nothing, arguments: tuple[str, ...] = TRAIN
) -> tuple[list[int | None], list[str]]:
    """The exit statuses, and what they said, of two ranks that run the same command."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    forkserver._forkserver._stop()  # of an earlier test, whose copy of the modules may be gone
    with pytest.MonkeyPatch.context() as patch:  # it has imported what a rank needs
        patch.setattr("multiprocessing.util.spawnv_passfds", fork_server.start_program)
        context = pool.start_forkserver()
    both = [
        context.Process(target=rank, args=(number, port, project, before, arguments))
        for number in (0, 1)
    ]
    for each in both:
        each.start()
    for each in both:
        each.join(PATIENCE)
        each.kill()
        each.join()
    outputs = [project / f"output-{number}" for number in (0, 1)]
    said = [path.read_text() for path in outputs]
    for path in outputs:
        path.unlink()
    return [each.exitcode for each in both], said


def curve(path: Path, metric: str) -> list[float]:
    with path.open() as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["metric"] == metric]


def losses(project: Path) -> list[float]:
    return curve(project / "results/smoke/runs/xception/seed-0.csv", "train/loss")


def put_aside(project: Path) -> dict[str, bytes]:
    """What stands in results/; nothing is trained any more."""
    found = contents(project / "results/smoke/runs")
    shutil.rmtree(project / ".sepablate/runs")
    shutil.rmtree(project / "results")
    return found


# With torchrun


def start_torchrun(project: Path) -> fork_server.Command:
    """A real torchrun, whose ranks a server forks."""
    return start(project, "torch.distributed.run", *TORCHRUN, **forking())


def rank_1(project: Path) -> list[int]:
    """The processes that are rank 1 of a training in `project`."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            here = (path / "cwd").readlink() == project
            if here and b"RANK=1" in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_torchrun_trains_as_one_process_does_and_resumes_to_the_same_bytes(project: Path) -> None:
    edit_params(project, **TINY, epochs=2)
    assert sepablate(project, *TRAIN).returncode == 0
    single, names = losses(project), set(put_aside(project))
    process = start_torchrun(project)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    assert output.count("1/1 runs") == 1
    assert losses(project) == pytest.approx(single, rel=1e-4)
    scores = project / "results/smoke/runs/xception/seed-0.correct.bin"
    bits = np.unpackbits(np.frombuffer(scores.read_bytes(), np.uint8))
    (share,) = curve(scores.with_name("seed-0.csv"), "final/test_accuracy_averaged")
    assert share * 33 == pytest.approx(bits.sum())
    assert len(bits) == 40
    assert '"processes": 2' in (project / "results/smoke/measured/xception/seed-0.json").read_text()
    together = put_aside(project)
    assert set(together) == names

    edit_params(project, evaluations=12)  # nothing but a checkpoint after each step
    process = start_torchrun(project)
    wait_for(lambda: checkpoints(project))
    for pid in rank_1(project):
        os.kill(pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert output.count("sepablate: stopped; the same command goes on from here") == 1
    assert "Traceback" not in output[: output.index("sepablate: stopped")]
    assert "exitcode  : 75" in output
    assert not rank_1(project)
    assert not (project / "results").exists()
    assert ranks(project)[0] == [0, 0]
    resumed = put_aside(project)
    assert ranks(project)[0] == [0, 0]
    assert put_aside(project) == resumed


# Without


@pytest.mark.slow
def test_what_does_not_fit_ends_both_in_one_line(project: Path) -> None:
    for batch, micro, hint in (
        (16, 0, "micro_batch: 0: choose the images of one forward pass, a divisor of 8 "),
        (16, 16, "batch_size: 16: choose a multiple of 2 processes x micro_batch 16"),
    ):
        edit_params(project, **(TINY | {"batch_size": batch, "micro_batch": micro}))
        status, said = ranks(project)
        assert status == [2, 2]
        assert said[0].startswith(f"sepablate: params.yaml: scales.smoke.{hint}")
        assert said[0].count("\n") == 1
        assert said[1] == ""
    status, said = ranks(project, nothing, ("train", "nothing_such"))
    assert status == [2, 2]
    status, said = ranks(project, nothing, (*TRAIN, "--processes", "2"))
    assert status == [2, 2]
    assert "leave it out" in said[0]
    assert not (project / "results").exists()


def test_parts_of_a_batch_must_come_out_even() -> None:
    scale, _ = scales.load("paper", ROOT / "params.yaml")
    for world in (1, 2, 4, 8, 16):
        torchrun.check_batches("paper", scale, world)
    for world in (3, 32):
        with pytest.raises(ValueError, match=rf"scales\.paper\.batch_size: 1024: .* {world} proc"):
            torchrun.check_batches("paper", scale, world)


@pytest.mark.slow
def test_a_run_that_another_trainer_has_is_left_to_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_params(project, **TINY | {"seeds": [0, 1]})
    monkeypatch.chdir(project)
    first, second = train_variant.known_jobs("xception", "smoke")
    first.folder.mkdir(parents=True)
    with (first.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, said = ranks(project)
    assert status == [1, 1]
    assert "xception seed 0 is being trained by another process" in said[0]
    assert said[1] == ""
    assert not first.finished
    assert second.finished


@pytest.mark.slow
def test_rates_are_chosen_and_a_divergence_is_recorded_once(project: Path) -> None:
    edit_params(project, **TINY)
    name = "experiments/residual_learning_rate.py"
    rates = re.compile(r"learning_rates=\(.*?\)")
    text, count = rates.subn("learning_rates=(0.01, 1e30)", (ROOT / name).read_text())
    assert count == 1
    (project / name).write_text(text)
    status, said = ranks(project, nothing, ("train", "no_residual_tuned", "--no-mlflow"))
    assert status == [0, 0], said
    runs = [path.read_text() for path in (project / ".sepablate/runs").glob("*/result.csv")]
    assert [text.count("final/diverged_at_step") for text in sorted(runs, key=len)] == [1, 0]
    rows = (project / "results/smoke/runs/no_residual_tuned/seed-0.csv").read_text()
    assert rows in runs
    assert "diverged" not in rows


def no_room_for_the_leader(number: int) -> None:
    if number == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))


def elsewhere_for_the_other(number: int) -> None:
    if number == 1:
        os.chdir("other")


@pytest.mark.slow
def test_only_the_main_process_needs_the_project_s_folder(project: Path) -> None:
    """Another one needs data, params.yaml and experiments that resolve the same run keys."""
    edit_params(project, **TINY)
    other = project / "other"
    other.mkdir()
    for name in ("data", "experiments"):
        (other / name).symlink_to(project / name)
    (other / "params.yaml").write_text((project / "params.yaml").read_text())
    edit_params(other, epochs=2)
    status, said = ranks(project, elsewhere_for_the_other)
    assert status == [2, 2]
    assert said[0].startswith("sepablate: process 1 resolves other run keys than process 0")
    assert said[0].count("\n") == 1
    assert said[1] == ""
    assert not (project / "results").exists()
    edit_params(other, epochs=1)
    assert ranks(project, elsewhere_for_the_other)[0] == [0, 0]
    assert (project / "results/smoke/runs/xception/seed-0.csv").exists()
    assert not (other / "results").exists()


@pytest.mark.slow
def test_where_one_fails_none_waits_for_ever(project: Path) -> None:
    """And the same command goes on."""
    edit_params(project, **TINY)
    status, said = ranks(project, no_room_for_the_leader)
    assert status == [1, 1]
    assert "no room for its" in said[0]
    assert "xception seed 0 has no room on the disk" in said[0]
    assert "Traceback" not in said[0]
    assert ranks(project)[0] == [0, 0]
    assert len(contents(project / "results/smoke/runs/xception")) == 5


def score_together(number: int) -> None:
    """Compare this to what a single process finds."""
    scale, recipes = scales.load("smoke")
    run = resolve(study.XCEPTION, "smoke", scale, recipes, 0, "fp32")
    model = models.build(run.model, **run.options)
    init_weights(model, 0)
    world, device = torchrun._connect()
    for count in (0, 1, 2, 7, 33, 401):
        split = data.dataset(run.dataset).load(layout.DATA)["test"].first(count)
        objective = make_objective(run.task, split.labels)
        together = evaluate(model, split, TrainContext(run, objective, device, world))
        if number == 1:
            expected = evaluate(model, split, TrainContext(run, objective))
            assert torch.equal(together, expected), count
            assert len(together) == count
    print("the same", flush=True)
    os._exit(0)


@pytest.mark.slow
def test_each_image_is_scored_once_in_its_order(project: Path) -> None:
    status, said = ranks(project, score_together)
    assert status == [0, 0], said
    assert said[1] == "the same\n"


@pytest.mark.slow
def test_images_on_disk_are_trained_on_by_two_as_by_one(project: Path, data_folder: Path) -> None:
    class_folders(project / "data/imagenet", data_folder, train=40, validation=13)
    changes = TINY | {"images": 32, "batch_size": 8, "micro_batch": 4, "test_images": 13}
    changes |= {"dataset": "imagenet", "classes": 3, "image_size": 80, "padding": "valid"}
    changes |= {"stem_stride": 2, "workers": 1, "validation_images": 4}
    edit_params(project, **changes)
    done = sepablate(project, *TRAIN)
    assert done.returncode == 0, done.stderr
    single = losses(project)
    put_aside(project)
    status, said = ranks(project)
    assert status == [0, 0], said
    assert losses(project) == pytest.approx(single, rel=1e-4)
    (share,) = curve(
        project / "results/smoke/runs/xception/seed-0.csv", "final/test_accuracy_averaged"
    )
    assert share * 13 == pytest.approx(round(share * 13))
    assert [verify_manifest(path) for path in (project / ".sepablate/runs").iterdir()] == [True]
    broken = list((project / "data/imagenet/train/n01").glob("*.JPEG"))
    for path in broken:
        path.write_bytes(path.read_bytes()[:-300] + bytes(300))
    shutil.rmtree(project / ".sepablate/runs")
    status, said = ranks(project)
    assert set(status) <= {1, 2}
    texts = [path.read_text() for path in (project / ".sepablate/runs").glob("*/error.txt")]
    assert any(path.name in text for path in broken for text in (*said, *texts))
