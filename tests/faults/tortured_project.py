"""A small pipeline that can be started, disturbed, repaired, compared and forgotten."""

import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from helpers.processes import holders
from helpers.project import STUDY, TINY, copy_project, edit_params, living

from sepablate.store.layout import ARCHIVE

PROMISED = 5.0  # seconds in which trainers end after DVC
LETHAL = """
import os, random, signal
draw, chance = random.Random(os.urandom(8)), float(os.environ.get("TORTURE_CHANCE", "0"))

def fatal(name):
    call = getattr(os, name)
    def wrapper(*arguments, **options):
        if draw.random() >= chance:
            return call(*arguments, **options)
        if name == "fsync" and os.fstat(arguments[0]).st_size:
            os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
        elif draw.random() < 0.5:
            call(*arguments, **options)
        log = os.open(os.environ["TORTURE_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(log, b"x")
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(os, name, wrapper)

if chance:
    for name in ("fsync", "replace", "rename", "link"):
        fatal(name)
"""


class Pipeline:
    """Data, two networks, their study and its report, by real DVC and with MLflow."""

    def __init__(self, folder: Path, draw: random.Random) -> None:
        self.project, self.draw = folder / "project", draw
        self.output, self.writes, self.hook = (folder / n for n in ("output", "writes", "hook"))
        self.hook.mkdir(parents=True)
        (self.hook / "sitecustomize.py").write_text(LETHAL)
        copy_project(self.project, [STUDY])
        (self.project / "experiments/dvc.yaml").unlink(missing_ok=True)
        edit_params(self.project, **TINY, epochs=2, evaluations=6)
        path = self.project / "dvc.yaml"
        stages = yaml.safe_load(path.read_text())["stages"]
        train, report = stages["train"], stages["report"]
        train["foreach"] = {n: study for n, study in train["foreach"].items() if study == STUDY}
        report["cmd"] = f"python -m sepablate report --scale ${{scale}} {STUDY}"
        own = (f"experiments/{STUDY}.py", f"results/${{scale}}/{STUDY}", "sepablate/")
        report["deps"] = [each for each in report["deps"] if each.startswith(own)]
        names = ("fetch", "train", STUDY, "report")
        text = yaml.safe_dump({"stages": {name: stages[name] for name in names}}, sort_keys=False)
        path.write_text(text)
        subprocess.run(["git", "init", "-q"], cwd=self.project, check=True)

    def start(self, chance: float = 0.0) -> subprocess.Popen[bytes]:
        """`dvc repro`, the leader of a process group of its own. chance: of death at each write."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"PATH": path, "TORTURE_LOG": str(self.writes)}
        if chance:
            own |= {"PYTHONPATH": str(self.hook), "TORTURE_CHANCE": str(chance)}
        with self.output.open("w") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "dvc", "repro"],
                cwd=self.project,
                env={**os.environ, **own},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def reached(self, process: subprocess.Popen[bytes], aim: str, longest: float) -> bool:
        """Wait for a random instant of what is aimed at; False if the pipeline ended before."""
        journal, project = self.project / "mlflow.db-journal", self.project
        begins, spread = {
            "any time": (lambda: True, longest),
            "training": (lambda: bool(holders(project, process.pid)), 1.5),
            "MLflow": (journal.exists, 0.0),
            "DVC": (lambda: b"lock file" in self.output.read_bytes(), 0.1),
        }[aim]
        while process.poll() is None and not begins():
            time.sleep(0.001 if aim == "MLflow" else 0.03)  # a journal is short-lived
        time.sleep(self.draw.uniform(0, spread))
        return process.poll() is None

    def disturb(self, process: subprocess.Popen[bytes], kind: str) -> tuple[str, bool]:
        """Send the signal: where it hit, and whether the promise about DVC's end was kept."""
        if kind == "all":
            os.killpg(process.pid, signal.SIGSTOP)
        place, kept = self.place(process.pid), True
        if kind == "all":
            os.killpg(process.pid, signal.SIGKILL)
        elif kind == "stop":
            os.killpg(process.pid, self.draw.choice([signal.SIGINT, signal.SIGTERM]))
        elif kind == "dvc":
            process.kill()
            kept = within(PROMISED, lambda: not holders(self.project, process.pid))
        else:
            below = [pid for pid in living(process.pid) if pid != process.pid]
            os.kill(self.draw.choice(below or [process.pid]), signal.SIGKILL)
        self.ended(process)
        return place, kept

    def ended(self, process: subprocess.Popen[bytes]) -> int:
        """The exit status, when nobody of the group is left."""
        status = process.wait(timeout=600)
        if not within(60, lambda: not living(process.pid)):
            os.killpg(process.pid, signal.SIGKILL)
        return status

    def place(self, group: int) -> str:
        """The state of the pipeline, from the files that are there and what it has printed."""
        folders = (".sepablate", "results", "data")
        half = [path.name for each in folders for path in (self.project / each).rglob(".*.tmp")]
        if half:
            return "writing a checkpoint" if "checkpoint" in half[0] else "writing another file"
        if (self.project / "mlflow.db-journal").exists():
            return "writing to MLflow"
        lines = self.output.read_text(errors="replace").splitlines()
        marks = [
            line for line in lines if re.match(r"Running stage|Updating lock|Generating", line)
        ]
        stage = re.match(r"Running stage '([a-z]*)", marks[-1] if marks else "")
        if stage is None:
            return "in DVC, before or between stages"
        if stage[1] != "train":
            return "in the study or the report" if stage[1] != "fetch" else "fetching"
        working = holders(self.project, group)
        return "in steps and evaluations" if working else "starting or collecting a training"

    def damage(self, kind: str) -> bool:
        """Cut or flip a file that nobody is writing; False if there is none yet."""
        patterns = (".sepablate/runs/*/*", "results/smoke/runs/*/*", ".dvc/cache/files/md5/??/*")
        found = [path for pattern in patterns for path in sorted(self.project.glob(pattern))]
        # DVC's copies of the data are large, and those in data/ are verified anyway.
        found = [path for path in found if 0 < path.stat().st_size < 1_000_000]
        lock = self.project / "dvc.lock"
        if kind == "cut":
            found = [lock] if lock.exists() else []
        if not found:
            return False
        path = self.draw.choice(found)
        content = bytearray(path.read_bytes())
        if kind == "cut":
            del content[self.draw.randrange(len(content) + 1) :]
        else:
            content[self.draw.randrange(len(content))] ^= 1 << self.draw.randrange(8)
        path.unlink()  # it may be a link, or read-only
        path.write_bytes(content)
        return True

    def doctor(self) -> None:
        command = [sys.executable, "-m", "sepablate", "doctor", "--repair"]
        subprocess.run(command, cwd=self.project, capture_output=True)

    def results(self) -> dict[str, bytes]:
        """Every result but what is measured, by its path."""
        folder = self.project / "results/smoke"
        found = {path.relative_to(folder): path for path in sorted(folder.rglob("[!.]*"))}
        return {
            name.as_posix(): _archived(path) if path.name == ARCHIVE else path.read_bytes()
            for name, path in found.items()
            if path.is_file() and name.parts[0] != "measured"
        }

    def running(self) -> int:
        """Runs that MLflow shows as training, in the study whose pipeline has ended."""
        query = """SELECT count(*) FROM runs JOIN experiments USING (experiment_id)
            WHERE lifecycle_stage = 'active' AND status = 'RUNNING' AND experiments.name LIKE ?"""
        query = query.replace("lifecycle_stage", "runs.lifecycle_stage")
        if not (self.project / "mlflow.db").exists():
            return 0
        with sqlite3.connect(self.project / "mlflow.db") as connection:
            return int(connection.execute(query, [f"{STUDY}%"]).fetchone()[0])

    def forget(self) -> None:
        """Begin from nothing."""
        for name in ("results", ".sepablate", "mlartifacts", ".dvc/cache", ".dvc/tmp"):
            shutil.rmtree(self.project / name, ignore_errors=True)
        for name in ("dvc.lock", "dvc.lock.broken", "mlflow.db"):
            (self.project / name).unlink(missing_ok=True)


def _archived(path: Path) -> bytes:
    """The files of an archive of runs but what is measured, one after the other."""
    with tarfile.open(path) as archive:
        files = [each for each in archive if each.isfile() and "/measured/" not in each.name]
        return b"".join(each.name.encode() + archive.extractfile(each).read() for each in files)


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether that becomes true in that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
