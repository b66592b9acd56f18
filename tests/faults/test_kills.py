"""Whatever is killed or stopped: nothing lives on, and the same command ends in the same bytes."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest
import yaml
from helpers import fork_server
from helpers.processes import ended, holders, opened, start, start_dvc
from helpers.project import (
    PATIENCE,
    ROOT,
    TRAIN,
    checkpoints,
    edit_params,
    living,
    results,
    sepablate,
    wait_for,
)

from sepablate.store.files import verify_manifest

pytestmark = pytest.mark.slow


def test_random_kills_of_a_run_end_in_the_same_bytes(half: Path) -> None:
    """`make torture` does the same for longer, and to the pipeline around it."""
    edit_params(half, epochs=4, evaluations=12)
    code = "from helpers import killed_runs; killed_runs.main(10, 0, 3)"
    done = fork_server.run(half, "-c", code, PYTHONPATH=str(ROOT / "tests"))
    assert done.returncode == 0, done.stderr
    kills, lost = map(int, done.stdout.split())
    assert kills >= 10
    assert lost == 0


KILLED_AT_EACH_WRITE = """
import os, signal, sys
import torch._dynamo  # as in a worker's server: else each fork imports it for its first optimizer
from sepablate import scales, study
from sepablate.store.files import verify_manifest
from sepablate.execution import worker
from sepablate.execution.job import make_jobs
from sepablate.runs.run import resolve

def end(after, left, call, *arguments):
    left[0] -= 1
    if left[0] < 0 and not after:
        os.kill(os.getpid(), signal.SIGKILL)
    call(*arguments)
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)

def train_until(write):
    left = [write // 2]
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        setattr(os, name, lambda *a, call=call: end(write % 2, left, call, *a))
    worker.run_jobs({0: job}, [0], [0])

scale, recipes = scales.load("smoke")
run = resolve(study.variant("xception"), "smoke", scale, recipes, 0, "fp32")
(job,) = make_jobs([run], "Xception")
kills = 0
for write in range(400):
    if verify_manifest(job.folder):
        break
    child = os.fork()
    if not child:
        train_until(write % 40)
        os._exit(0)
    kills += os.waitpid(child, 0)[1] == signal.SIGKILL
print(kills)
"""


def test_killed_at_each_flush_and_rename(half: Path, finished: Path) -> None:
    """Before and after each flush and each rename of one run, in checkpoint, CSV and seal alike."""
    done = fork_server.run(half, "-c", KILLED_AT_EACH_WRITE)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 20
    assert sepablate(half, *TRAIN).returncode == 0
    assert results(half) == results(finished)
    assert not list((half / ".sepablate").rglob(".*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_interrupted_training_goes_on_to_the_same_bytes(
    half: Path, finished: Path, number: int
) -> None:
    process = start(half, "sepablate", *TRAIN, slow=True)
    wait_for(lambda: checkpoints(half))
    process.send_signal(number)
    status, output = ended(process)  # and no process is left
    if number != signal.SIGKILL:
        assert status == os.EX_TEMPFAIL, output
        assert output.strip().splitlines()[-1].endswith("the same command goes on from here")
    assert not (half / "results/smoke/runs/xception").exists()
    assert checkpoints(half)
    assert sepablate(half, *TRAIN).returncode == 0
    assert results(half) == results(finished)
    assert not checkpoints(half)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, None])
def test_stopped_under_dvc_and_mlflow(half: Path, empty_database: Path, number: int | None) -> None:
    """DVC does not record the stage, MLflow shows the runs as KILLED.

    number: the signal; None where its terminal is closed.
    """
    shutil.copy(empty_database, half)
    subprocess.run(["git", "init", "-q"], cwd=half, check=True)
    path = half / "sepablate/tracking/live.py"  # MLflow may be slow here, and must be asked
    path.write_text(path.read_text().replace("PATIENCE = 5.0", f"PATIENCE = {PATIENCE}"))
    screen, terminal = os.openpty()
    process = start_dvc(half, terminal=terminal)
    os.close(terminal)
    query = (
        "SELECT status FROM runs WHERE lifecycle_stage = 'active' AND name LIKE 'xception seed%'"
    )

    def statuses() -> list[str]:
        database = f"file:{half / 'mlflow.db'}?mode=ro"
        with sqlite3.connect(database, uri=True, timeout=PATIENCE) as connection:
            return [status for (status,) in connection.execute(query)]

    wait_for(lambda: checkpoints(half) and len(statuses()) >= 2)
    if number is not None:
        os.killpg(process.pid, number)
    os.close(screen)
    status, output = ended(process)
    assert status != 0
    assert "the same command goes on from here" in output
    assert set(statuses()) == {"KILLED"}
    lock = half / "dvc.lock"
    assert not lock.exists() or "train@xception" not in yaml.safe_load(lock.read_text())["stages"]


@pytest.mark.parametrize("stays", [False, True])
def test_killing_dvc_ends_its_trainers(half: Path, stays: bool) -> None:
    """Linux kills the workers once DVC is gone; the trainer tells MLflow, and ends as well.

    One worker hangs: it is stopped, and no step has to end for it.

    stays: the shell that DVC starts is like fish, which does not become the command.
    """
    subprocess.run(["git", "init", "-q"], cwd=half, check=True)
    fish = half / "fish"
    fish.write_text('#!/bin/sh\nsh -c "$2; true"\ntrue\n')
    fish.chmod(0o755)
    shell = {"SHELL": str(fish)} if stays else {}
    process = start_dvc(half, **shell)
    wait_for(lambda: checkpoints(half) and len(holders(half, process.pid)) == 2)
    os.kill(holders(half, process.pid)[0], signal.SIGSTOP)
    process.kill()
    wait_for(lambda: not holders(half, process.pid))
    wait_for(lambda: not living(process.pid))
    assert checkpoints(half)
    assert not list((half / ".sepablate/runs").glob("*/result.csv"))  # no run went on to its end


def test_a_worker_that_is_killed_takes_no_other_with_it(half: Path, finished: Path) -> None:
    """As the out-of-memory killer does it."""
    process = start(half, "sepablate", *TRAIN, "--processes", "3", slow=True)
    runs = half / ".sepablate/runs"

    def seed_1() -> list[Path]:
        found = {path.parent: json.loads(path.read_text()) for path in runs.glob("*/run.json")}
        return [folder for folder, config in found.items() if config["seed"] == 1]

    wait_for(lambda: seed_1() and list(seed_1()[0].glob("checkpoint-*.pt")))
    lock = (seed_1()[0] / "lock").resolve()
    (victim,) = [pid for pid in holders(half, process.pid) if lock in opened(pid)]
    os.kill(victim, signal.SIGKILL)
    status, output = ended(process)
    assert status == 1
    assert "xception seed 1 was ended by SIGKILL; the same command resumes it" in output
    assert sum(verify_manifest(folder) for folder in runs.iterdir()) == 2
    assert sepablate(half, *TRAIN, "--processes", "1").returncode == 0
    assert results(half) == results(finished)  # of two processes


def test_a_server_of_workers_that_is_killed_is_named(half: Path) -> None:
    """As the out-of-memory killer does it, too; its workers end with it."""
    edit_params(half, seeds=[0])
    process = start(half, "sepablate", *TRAIN, slow=True)
    wait_for(lambda: checkpoints(half) and holders(half, process.pid))
    status = Path(f"/proc/{holders(half, process.pid)[0]}/stat").read_text()
    os.kill(int(status.rpartition(")")[2].split()[1]), signal.SIGKILL)
    code, output = ended(process)
    assert code == 1, output
    line = "sepablate: xception seed 0: a process was killed, perhaps for lack of memory: free some"
    assert output.strip().splitlines()[-1].startswith(line)


def test_the_same_command_twice_at_once_trains_once(half: Path, finished: Path) -> None:
    edit_params(half, seeds=[0])
    first = start(half, "sepablate", *TRAIN)
    wait_for(lambda: holders(half, first.pid))
    workers = holders(half, first.pid)
    for pid in workers:  # as if the first were slow
        os.kill(pid, signal.SIGSTOP)
    second = sepablate(half, *TRAIN)
    for pid in workers:
        os.kill(pid, signal.SIGCONT)
    status, output = ended(first)
    assert (status, second.returncode) == (0, 1), output + second.stderr
    assert "xception seed 0 is being trained by another process" in second.stderr
    assert results(half)["seed-0.csv"] == results(finished)["seed-0.csv"]


def test_two_that_collect_at_the_same_moment_leave_whole_results(
    whole: Path, finished: Path
) -> None:
    """The first is held in the middle of a file; the second waits, or would delete it."""
    shutil.rmtree(whole / "results")
    first = start(whole, "sepablate", *TRAIN, slow=True)

    def held() -> bool:
        os.killpg(first.pid, signal.SIGSTOP)
        if list((whole / "results").rglob(".*.tmp")):
            return True
        os.killpg(first.pid, signal.SIGCONT)
        return False

    wait_for(held)
    second = start(whole, "sepablate", *TRAIN)
    lock = whole / ".sepablate/collect-smoke-xception.lock"
    wait_for(lambda: second.poll() == 0 or any(lock in opened(pid) for pid in living(second.pid)))
    os.killpg(first.pid, signal.SIGCONT)
    assert [ended(process)[0] for process in (first, second)] == [0, 0]
    assert verify_manifest(whole / "results/smoke/runs/xception")
    assert results(whole) == results(finished)
    assert not list((whole / "results").rglob(".*.tmp"))
