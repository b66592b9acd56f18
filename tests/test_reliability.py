"""Whatever is killed, cut, flipped, full or out of reach: the same bytes, or one line."""

import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, contents, edit_params, living, sepablate, wait_for
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sepablate import data, doctor, study
from sepablate.analysis import results
from sepablate.data import fashion_mnist
from sepablate.files import SEAL, NoSpace, damaged, is_whole, seal, write_atomically
from sepablate.training import checkpoint

TINY = {"images": 96, "batch_size": 16, "validation_images": 20, "test_images": 30}
TRAIN = [sys.executable, "-m", "sepablate", "train", "xception", "--no-mlflow"]


def trained(project: Path) -> dict[str, bytes]:
    """What an undisturbed training leaves in results/; the runs are put aside."""
    done = sepablate(project, *TRAIN[3:])
    assert done.returncode == 0, done.stderr
    reference = contents(project / "results/smoke/runs")
    shutil.rmtree(project / ".sepablate/runs")
    shutil.rmtree(project / "results")
    return reference


def start(project: Path, *command: str, **more: object) -> subprocess.Popen[str]:
    """A command in a process group of its own, as a terminal starts it."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=project, start_new_session=True, **pipes, **more)  # type: ignore[call-overload]


def dvc(project: Path, *arguments: str) -> subprocess.Popen[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return start(project, sys.executable, "-m", "dvc", *arguments, env={**os.environ, "PATH": path})


def checkpoints(project: Path) -> list[Path]:
    return list((project / ".sepablate/runs").glob("*/checkpoint-*.pt"))


# Killed


@pytest.mark.slow
def test_random_kills_of_a_run_end_in_the_same_bytes(project: Path) -> None:
    """`make torture` does the same for hours, if you like, and to the pipeline around it."""
    edit_params(project, **TINY, epochs=8, evaluations=12)
    script = [sys.executable, str(ROOT / "tests/killed_runs.py"), "12", "0", "3"]
    path = {**os.environ, "PYTHONPATH": str(project)}
    done = subprocess.run(script, cwd=project, env=path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kills, lost = map(int, done.stdout.split())
    assert kills >= 10
    assert lost == 0


KILLED_AT_EACH_WRITE = """
import os, signal, sys
from sepablate import scales, study
from sepablate.files import is_whole
from sepablate.training import parallel, worker
from sepablate.training.run import resolve

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
    worker.work(job, [0], 0)

scale, recipe = scales.load("smoke")
run = resolve(study.variant("xception"), "smoke", scale, recipe, 0, "fp32")
(job,) = parallel.jobs_for([run], "Xception")
kills = 0
for write in range(400):
    if is_whole(job.folder):
        break
    child = os.fork()
    if not child:
        train_until(write % 40)
        os._exit(0)
    kills += os.waitpid(child, 0)[1] == signal.SIGKILL
print(kills)
"""


@pytest.mark.slow
def test_killed_at_each_flush_and_rename(project: Path) -> None:
    """Before and after each flush and each rename of one run, in checkpoint, CSV and seal alike."""
    edit_params(project, **TINY, seeds=[0], evaluations=3, precision="fp32")
    reference = trained(project)
    command = [sys.executable, "-c", KILLED_AT_EACH_WRITE]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 20
    assert sepablate(project, *TRAIN[3:]).returncode == 0
    assert contents(project / "results/smoke/runs") == reference
    assert not list((project / ".sepablate").rglob(".*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_under_dvc_and_mlflow(project: Path, number: int) -> None:
    """DVC does not record the stage, MLflow shows the runs as KILLED."""
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    edit_params(project, images=50_000, seeds=[0, 1], epochs=3, evaluations=500)
    process = dvc(project, "repro", "train@xception")
    wait_for(lambda: checkpoints(project))
    database = f"file:{project / 'mlflow.db'}?mode=ro"
    query = (
        "SELECT status FROM runs WHERE lifecycle_stage = 'active' AND name LIKE 'xception seed%'"
    )

    def statuses() -> list[str]:
        if not (project / "mlflow.db").exists():
            return []
        with sqlite3.connect(database, uri=True, timeout=20) as connection:
            return [status for (status,) in connection.execute(query)]

    wait_for(lambda: len(statuses()) >= 2)
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=60)
    wait_for(lambda: not living(process.pid), 10)
    assert process.returncode != 0
    assert "the same command goes on from here" in output
    assert set(statuses()) == {"KILLED"}
    lock = project / "dvc.lock"
    assert not lock.exists() or "train@xception" not in yaml.safe_load(lock.read_text())["stages"]
    newest = max(path.stat().st_mtime_ns for path in checkpoints(project))
    assert all(newest >= path.stat().st_mtime_ns for path in checkpoints(project))


@pytest.mark.slow
def test_killing_dvc_ends_its_trainers(project: Path) -> None:
    """Those that train within 5 s; the one that tells MLflow has 5 s more."""
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    edit_params(project, images=50_000, seeds=[0, 1], epochs=3, evaluations=500)
    process = dvc(project, "repro", "train@xception")
    wait_for(lambda: checkpoints(project))
    process.kill()
    process.wait()
    locks = {path.resolve() for path in (project / ".sepablate/runs").glob("*/lock")}
    assert locks
    wait_for(lambda: not [pid for pid in living(process.pid) if locks & opened(pid)], 5)
    wait_for(lambda: not living(process.pid), 15)
    assert checkpoints(project)


@pytest.mark.slow
def test_a_worker_that_is_killed_takes_no_other_with_it(project: Path) -> None:
    """As the out-of-memory killer does it."""
    edit_params(project, **TINY, seeds=[0, 1, 2], epochs=20)
    process = start(project, *TRAIN, "--processes", "3")
    runs = project / ".sepablate/runs"

    def seed_1() -> list[Path]:
        found = [path for path in runs.glob("*/run.json") if json.loads(path.read_text())["seed"]]
        return [path for path in found if json.loads(path.read_text())["seed"] == 1]

    wait_for(seed_1)
    lock = (seed_1()[0].parent / "lock").resolve()
    (victim,) = [pid for pid in living(process.pid) if lock in opened(pid)]
    os.kill(victim, signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "xception seed 1 was ended by SIGKILL; the same command resumes it" in output
    assert sum(is_whole(folder) for folder in runs.iterdir()) == 2
    assert sepablate(project, *TRAIN[3:]).returncode == 0


def opened(pid: int) -> set[Path]:
    found = set()
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            found.add(link.readlink())
        except OSError:
            continue
    return found


# Damaged


def test_a_thousand_flips_in_a_finished_run_are_found(tmp_path: Path) -> None:
    draw = random.Random(0)
    texts = {"result.csv": "run_key,step\n" * 30, "run.json": '{"images": 96}', "correct.bin": "\7"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    seal(tmp_path, texts)
    assert is_whole(tmp_path)
    for index in range(1000):
        path = tmp_path / draw.choice([*texts, SEAL])
        whole = path.read_bytes()
        wrong = bytearray(whole)
        wrong[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(wrong if index % 4 else whole[: draw.randrange(len(whole))])
        assert damaged(tmp_path), (path.name, path.read_bytes())
        assert not is_whole(tmp_path)
        path.write_bytes(whole)
    (tmp_path / "run.json").unlink()
    assert damaged(tmp_path) == ["run.json"]
    assert damaged(tmp_path / "nothing") == []


def test_a_damaged_checkpoint_does_not_push_out_a_good_one(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"step": step})
    max(tmp_path.iterdir()).write_bytes(b"")
    assert (checkpoint.load(tmp_path) or {})["step"] == 1
    checkpoint.save(tmp_path, 2, {"step": 2})
    max(tmp_path.iterdir()).write_bytes(b"")
    assert (checkpoint.load(tmp_path) or {})["step"] == 1


@pytest.mark.slow
def test_a_damaged_run_is_trained_again_and_damaged_results_are_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_params(project, **TINY, seeds=[0, 1])
    assert sepablate(project, *TRAIN[3:]).returncode == 0
    reference = contents(project / "results/smoke/runs")
    monkeypatch.chdir(project)
    assert doctor.examine() == []
    for result in Path(".sepablate/runs").glob("*/result.csv"):
        result.write_bytes(result.read_bytes().replace(b"0", b"1", 1))
    assert [each.line.count("result.csv: damaged") for each in doctor.examine()] == [1, 1]
    done = sepablate(project, *TRAIN[3:])
    assert done.returncode == 0
    assert "result.csv is damaged: xception seed 1 is trained again" in done.stdout
    assert contents(project / "results/smoke/runs") == reference
    for name in ("config.json", "seed-1.csv", "seed-0.correct.bin"):
        path = project / "results/smoke/runs/xception" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(ValueError, match=rf"{name}: damaged; run .*train xception"):
            results.config("smoke", "xception")
        path.write_bytes(whole)
    assert results.config("smoke", "xception")["seeds"] == [0, 1]


@pytest.mark.parametrize("damage", ["magic", "count", "label", "empty"])
def test_wrong_idx_files_are_refused(data_folder: Path, tmp_path: Path, damage: str) -> None:
    name = "t10k-labels-idx1-ubyte"
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    for file in (data_folder / "fashion-mnist").glob("*-ubyte"):
        (folder / file.name).symlink_to(file)
    whole = (folder / name).read_bytes()
    (folder / name).unlink()
    (folder / name).write_bytes(
        {
            "magic": b"\x00\x00\x0d\x01" + whole[4:],
            "count": whole[:4] + (9_999).to_bytes(4, "big") + whole[8:],
            "label": whole[:-1] + b"\x0b",
            "empty": b"",
        }[damage]
    )
    with pytest.raises(ValueError, match=f"{name} .* expected"):
        fashion_mnist.load(tmp_path)


# Full


def test_a_file_without_room_leaves_the_one_before_it(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    write_atomically(path, b"before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for limit in (0, 1, 500, 999):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            with pytest.raises(NoSpace, match=r"curve\.csv: no room for its 1000 bytes"):
                write_atomically(path, b"x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert contents(tmp_path) == {"curve.csv": b"before"}


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk_stops_and_room_resumes_to_the_same_bytes(project: Path) -> None:
    edit_params(project, **TINY, seeds=[0, 1], precision="fp32")
    reference, runs = trained(project), project / ".sepablate"
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(runs)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        for size in ("64k", "2m"):
            subprocess.run(["mount", "-o", f"remount,size={size}", str(runs)], check=True)
            done = sepablate(project, *TRAIN[3:])
            assert done.returncode == 1, done.stderr
            assert "no room for its" in done.stderr
            assert "bytes are free" in done.stderr
            assert "xception seed 0 has no room on the disk" in done.stderr
            assert "Traceback" not in done.stderr
            assert not (project / "results").exists()
        subprocess.run(["mount", "-o", "remount,size=200m", str(runs)], check=True)
        assert sepablate(project, *TRAIN[3:]).returncode == 0
        assert contents(project / "results/smoke/runs") == reference
    finally:
        subprocess.run(["umount", "-l", str(runs)], check=True)


# Out of reach, or out of range


@pytest.mark.slow
def test_an_mlflow_that_never_answers_costs_a_warning(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_params(project, **TINY, seeds=[0])
    began = time.monotonic()
    reference = trained(project)
    alone = time.monotonic() - began
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        began = time.monotonic()
        done = sepablate(project, *TRAIN[3:5])
        took = time.monotonic() - began
    assert done.returncode == 0
    assert took < alone + 5 + 5  # 5 s to import MLflow on a busy machine
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("MLflow: ")
    assert contents(project / "results/smoke/runs") == reference


@pytest.mark.slow
def test_diverged_runs_are_recorded_and_shown(project: Path) -> None:
    edit_params(project, **TINY, seeds=[0, 1])
    path = project / "experiments/residual_learning_rate.py"
    text = path.read_text()
    path.write_text(re.sub(r"learning_rates=\(.*?\)", "learning_rates=(1e30,)", text))
    assert path.read_text() != text
    for command in (
        ("train", "no_residual_tuned"),
        ("train", "xception"),
        ("study", "residual_learning_rate"),
    ):
        done = sepablate(project, *command, "--no-mlflow")
        assert done.returncode == 0, done.stderr
    for seed in (0, 1):
        rows = project / f"results/smoke/runs/no_residual_tuned/seed-{seed}.csv"
        step, name, value = rows.read_text().splitlines()[-1].split(",")[3:]
        assert name == "final/diverged_at_step"
        assert float(step) == float(value) <= 3
    assert "diverged" in (project / "results/smoke/residual_learning_rate/table.md").read_text()


# The lock of DVC


def lock_text() -> str:
    stages = {
        f"train@{name}": {
            "cmd": f"python -m sepablate train {name}",
            "deps": [{"path": "sepablate/data", "hash": "md5", "md5": "0" * 32, "size": 5}],
            "params": {"params.yaml": {"recipe": {"decay": 0.94}}},
            "outs": [{"path": f"results/runs/{name}", "hash": "md5", "md5": "1" * 32, "nfiles": 3}],
        }
        for name in ("xception", "no_residual")
    }
    return yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False)


def test_a_dvc_lock_cut_at_any_length_is_found_or_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole, path, found = lock_text(), Path("dvc.lock"), 0
    for length in range(len(whole)):
        path.write_text(whole[:length])
        findings = [each for each in doctor.examine(repair=True) if "dvc.lock" in each.line]
        if findings:
            found += 1
            assert findings[0].repaired
            assert not path.exists()
            assert Path("dvc.lock.broken").read_text() == whole[:length]
        else:
            COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(path.read_text()))
    assert found > len(whole) / 2
    path.write_text(whole)
    assert not [each for each in doctor.examine() if "dvc.lock" in each.line]


@pytest.mark.slow
def test_an_emptied_dvc_lock_is_repaired_without_training(project: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    edit_params(project, **TINY, seeds=[0])
    output, _ = dvc(project, "repro", "train@xception").communicate()
    lock = project / "dvc.lock"
    whole, stamps = lock.read_bytes(), run_stamps(project)
    lock.write_bytes(b"")
    (project / ".sepablate/.precision.json.999999999.tmp").write_bytes(b"half")
    sick = sepablate(project, "doctor")
    assert sick.returncode == 1
    assert "dvc.lock: not whole" in sick.stdout
    assert ".precision.json.999999999.tmp: left behind" in sick.stdout
    repaired = sepablate(project, "doctor", "--repair")
    assert repaired.returncode == 0, repaired.stdout
    process = dvc(project, "repro", "train@xception")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert yaml.safe_load(lock.read_bytes()) == yaml.safe_load(whole)
    assert run_stamps(project) == stamps


def run_stamps(project: Path) -> dict[Path, int]:
    found = (project / ".sepablate/runs").glob("*/result.csv")
    return {path: path.stat().st_mtime_ns for path in found}


def test_doctor_names_a_wrong_version_and_a_wrong_data_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctor.examine() == []
    Path("requirements.lock").write_text("numpy==0.1 \\\n    --hash=sha256:00\n")
    name = next(iter(fashion_mnist.SOURCE.expected))
    write_atomically(data.FOLDER / "fashion-mnist" / name, b"none")
    lines = [finding.line for finding in doctor.examine(repair=True)]
    assert len(lines) == 2
    assert name in lines[0]
    assert lines[1].startswith("numpy ")
    assert all("\n" not in line for line in lines)


# Bad input

GOOD = (ROOT / "experiments/residual_connections.py").read_text()


@pytest.mark.parametrize(
    ("change", "line", "hint"),
    [
        (lambda text: text + "\nSTUDY = = 3\n", len(GOOD.splitlines()) + 2, "invalid syntax"),
        (lambda text: "import nothing_such\n" + text, 1, "nothing_such"),
        (lambda text: text.replace("import XCEPTION", "import XEPTION"), None, "XEPTION"),
        (lambda text: text + "\nSTUDY = 3\n", None, "STUDY"),
        (lambda text: text.replace('"no_residual"', '"no residual; rm -rf /"', 1), None, "rm -rf"),
        (lambda text: text.replace('"no_residual"', '"../no_residual"', 1), None, "../no"),
        (lambda text: text.replace('"no_residual"', '"-x"', 1), None, "-x"),
        (lambda text: text[: text.rindex(")")], None, "never closed"),
        (lambda text: text.replace("margin=", "margins="), None, "margins"),
    ],
)
def test_bad_study_files_are_refused_in_one_line(
    tmp_path: Path, change: Callable[[str], str], line: int | None, hint: str
) -> None:
    changed = change(GOOD)
    assert changed != GOOD
    (tmp_path / "bad.py").write_text(changed)
    with pytest.raises(ValueError, match=r"bad\.py:") as error:
        study.load("bad", tmp_path)
    assert hint in str(error.value)
    assert "\n" not in str(error.value)
    if line:
        assert f"bad.py:{line}:" in str(error.value)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    place=st.integers(0, len(GOOD)),
    removed=st.integers(0, 30),
    added=st.text("abcSTUDY_=(),.:\"'0123456789\n -", max_size=6),
)
def test_any_study_file_loads_or_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int, removed: int, added: str
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "any.py").write_text(GOOD[:place] + added + GOOD[place + removed :])
    refused = ""
    try:
        assert isinstance(study.load("any", tmp_path), study.Study)
    except ValueError as error:
        refused = str(error)
    assert "\n" not in refused
    assert not refused or "any.py" in refused


ARGUMENTS = st.lists(
    st.sampled_from(["train", "study", "report", "fetch", "list", "publish", "--scale", "--port"])
    | st.sampled_from(["xception", "smoke", "--processes", "-1", "0", "--no-mlflow", "--", ""])
    | st.text(max_size=8).filter(lambda text: "\0" not in text and "--help" not in text),
    max_size=4,
)
ANY_ARGUMENTS = """
import contextlib, io, json, sys
from unittest import mock
from sepablate import __main__, cli
for line in sys.stdin:
    sys.argv = ["sepablate", *json.loads(line)]
    errors, status = io.StringIO(), 0
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        with mock.patch("sepablate.launch.runs.train", return_value=[]):
            try:
                __main__.main()
            except SystemExit as error:
                status = error.code or 0
    print(json.dumps([status, errors.getvalue()]))
"""


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(many=st.lists(ARGUMENTS, min_size=60, max_size=60))
def test_any_arguments_end_in_one_line_and_status_2(project: Path, many: list[list[str]]) -> None:
    """Training itself is left out: it is what a valid command does."""
    shutil.rmtree(project / "data")
    many = [each for each in many if "fetch" not in each and "ui" not in each]
    before = {name for name in contents(project) if "__pycache__" not in name}
    lines = "".join(json.dumps(each) + "\n" for each in many)
    command = [sys.executable, "-c", ANY_ARGUMENTS]
    done = subprocess.run(command, cwd=project, input=lines, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for arguments, (status, errors) in zip(many, answers, strict=True):
        assert status in (0, 2), (arguments, errors)
        assert errors.count("\n") == (1 if status else 0), (arguments, errors)
    assert {name for name in contents(project) if "__pycache__" not in name} == before
    (project / "data").mkdir()
