"""Kill the pipeline at random instants and damage its files, again and again; count what is lost.

A round runs one study's pipeline at smoke scale (data, three networks, table and figure) by `dvc
repro` until it ends undisturbed; then its tables, CSV files and figures must be the bytes of an
undisturbed run, and MLflow must show no run that still trains.
"""

import argparse
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from conftest import living

ROOT = Path(__file__).parents[1]
STUDY = "residual_connections"
KINDS = {
    "run": "SIGKILL of a run at a random instant of its steps, evaluations and writes",
    "all": "SIGKILL of every process of the pipeline at once",
    "dvc": "SIGKILL of DVC alone: its trainers must end within 5 s",
    "one": "SIGKILL of one process below DVC (trainer, worker, study, report)",
    "write": "SIGKILL of a process within the write, flush or rename of a file, half of it written",
    "stop": "SIGINT or SIGTERM to every process",
    "cut": "dvc.lock cut at a random length, as DVC leaves it when killed in its write",
    "flip": "a bit flipped in a checkpoint, a result, its seal or a collected CSV file",
}
WEIGHTS = {"all": 4, "dvc": 3, "one": 3, "write": 4, "stop": 1, "cut": 2, "flip": 2}
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


class Torture:
    """One project under attack. faults, survived, lost: by kind."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.project, self.draw = folder / "project", random.Random(seed)
        self.log, self.hook = folder / "writes.log", folder / "hook"
        self.faults: Counter[str] = Counter()
        self.survived: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.round: Counter[str] = Counter()
        self.notes: list[str] = []
        self.rounds = self.repairs = 0
        self.longest, self.began = 10.0, time.monotonic()
        copy_project(self.project)
        self.hook.mkdir()
        (self.hook / "sitecustomize.py").write_text(LETHAL)

    def run(self, seconds: float, enough: int) -> None:
        """Attack until the time is over; `enough` faults end it sooner."""
        self.kill_runs(seconds / 3)
        began = time.monotonic()
        reference = self.undisturbed()
        self.longest = (time.monotonic() - began) / 3  # before a disturbance
        self.forget()
        while time.monotonic() < self.began + seconds and self.faults.total() < enough:
            if self.attempt(self.draw.choices([*WEIGHTS], [*WEIGHTS.values()])[0]):
                self.close_round(reference)
        if self.round:
            self.repaired_run()
            self.close_round(reference)

    def kill_runs(self, seconds: float) -> None:
        """One run, killed about once a second: no pipeline around it costs time."""
        script = [sys.executable, str(ROOT / "tests/killed_runs.py")]
        done = subprocess.run(
            [*script, "0", str(seconds), str(self.draw.randrange(1000))],
            cwd=self.project,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(self.project)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        kills, lost = map(int, done.stdout.split()[-2:])
        self.faults["run"], self.lost["run"], self.survived["run"] = kills, lost, kills - lost
        print(f"{kills} kills of a run, {lost} lost", flush=True)
        self.forget()

    def undisturbed(self) -> dict[str, bytes]:
        status, output = self.wait(self.start())
        assert status == 0, output
        return results(self.project)

    def attempt(self, kind: str) -> bool:
        """Run the pipeline and disturb it once; whether it ended well all the same."""
        if kind in ("cut", "flip"):
            if self.damage(kind):
                self.count(kind)
            return False
        process = self.start(chance=0.03 if kind == "write" else 0.0)
        if kind == "write":
            status, _ = self.wait(process)
            hits = len(self.log.read_bytes()) if self.log.exists() else 0
            self.log.unlink(missing_ok=True)
            self.count(kind, hits)
            self.await_nobody(process.pid, 30)
            return status == 0
        try:
            process.wait(self.draw.uniform(0.2, self.longest))
        except subprocess.TimeoutExpired:
            self.disturb(process, kind)
            return False
        status, _ = self.wait(process)
        if status:
            self.repairs += 1
            return self.repaired_run()
        return True

    def disturb(self, process: subprocess.Popen[str], kind: str) -> None:
        """Send the signal and wait for everybody's end."""
        self.count(kind)
        if kind == "all":
            os.killpg(process.pid, signal.SIGKILL)
        elif kind == "stop":
            os.killpg(process.pid, self.draw.choice([signal.SIGINT, signal.SIGTERM]))
        elif kind == "dvc":
            process.kill()
            if not self.await_nobody(process.pid, 5):
                self.notes.append("trainers were left 5 s after DVC's end")
                self.lost[kind] += 1
        else:
            below = [pid for pid in living(process.pid) if pid != process.pid]
            os.kill(self.draw.choice(below or [process.pid]), signal.SIGKILL)
        self.wait(process)
        self.await_nobody(process.pid, 30)

    def damage(self, kind: str) -> bool:
        """Cut or flip a file of the project that nobody is writing."""
        if kind == "cut":
            path = self.project / "dvc.lock"
            if not path.exists():
                return False
            path.write_bytes(path.read_bytes()[: self.draw.randrange(path.stat().st_size + 1)])
            return True
        patterns = (".sepablate/runs/*/*", "results/smoke/runs/*/*")
        found = [path for pattern in patterns for path in self.project.glob(pattern)]
        found = [path for path in sorted(found) if path.stat().st_size]
        if not found:
            return False
        path = self.draw.choice(found)
        content = bytearray(path.read_bytes())
        content[self.draw.randrange(len(content))] ^= 1 << self.draw.randrange(8)
        path.unlink()  # it may be a link into DVC's cache
        path.write_bytes(content)
        return True

    def repaired_run(self) -> bool:
        """What a person does after a failure: the same command, and if it fails, the doctor."""
        for _ in range(2):
            status, output = self.wait(self.start())
            if status == 0:
                return True
            command = [sys.executable, "-m", "sepablate", "doctor", "--repair"]
            subprocess.run(command, cwd=self.project, capture_output=True)
        self.notes.append(output[-1500:])
        return True  # and the comparison will say that it is lost

    def close_round(self, reference: dict[str, bytes]) -> None:
        """Compare with the undisturbed run, and begin from nothing."""
        ended = results(self.project)
        wrong = {name for name in {*ended, *reference} if ended.get(name) != reference.get(name)}
        running = unfinished(self.project / "mlflow.db")
        self.rounds += 1
        (self.lost if wrong or running else self.survived).update(self.round)
        if wrong or running:
            self.notes.append(f"differ: {sorted(wrong)[:5]}; still RUNNING in MLflow: {running}")
        self.round.clear()
        self.forget()
        seconds = round(time.monotonic() - self.began)
        print(
            f"{seconds} s, {self.rounds} rounds: {dict(self.faults)}, lost {dict(self.lost)}",
            flush=True,
        )

    def forget(self) -> None:
        for name in ("results", ".sepablate/runs", "mlartifacts", ".dvc/cache", ".dvc/tmp"):
            shutil.rmtree(self.project / name, ignore_errors=True)
        for name in ("dvc.lock", "dvc.lock.broken", "mlflow.db"):
            (self.project / name).unlink(missing_ok=True)

    def count(self, kind: str, faults: int = 1) -> None:
        self.faults[kind] += faults
        self.round[kind] += faults

    def start(self, chance: float = 0.0) -> subprocess.Popen[str]:
        """`dvc repro`, the leader of a process group of its own."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"PATH": path, "OMP_NUM_THREADS": "1", "TORTURE_LOG": str(self.log)}
        if chance:
            own |= {"PYTHONPATH": str(self.hook), "TORTURE_CHANCE": str(chance)}
        with (self.project.parent / "output").open("w") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "dvc", "repro", STUDY],
                cwd=self.project,
                env={**os.environ, **own},
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def wait(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        status = process.wait(timeout=600)
        return status, (self.project.parent / "output").read_text(errors="replace")

    @staticmethod
    def await_nobody(leader: int, seconds: float) -> bool:
        """Whether the process group is empty within that time; it is afterwards."""
        deadline = time.monotonic() + seconds
        while living(leader):
            if time.monotonic() > deadline:
                os.killpg(leader, signal.SIGKILL)
                return False
            time.sleep(0.05)
        return True

    def table(self) -> str:
        """Markdown: faults by kind, survived and lost."""
        rows = [
            f"| {text} | {self.faults[kind]} | {self.survived[kind]} | {self.lost[kind]} |"
            for kind, text in KINDS.items()
        ]
        totals = [counts.total() for counts in (self.faults, self.survived, self.lost)]
        rows.append("| **all** | " + " | ".join(f"**{total}**" for total in totals) + " |")
        return "\n".join(["| fault | injected | survived | lost |", "|---|---|---|---|", *rows])


def copy_project(target: Path) -> None:
    """The pipeline, its code and its data, with the smoke scale selected."""
    skip = shutil.ignore_patterns("__pycache__", "cache", "tmp", "dvc.lock")
    for name in ("sepablate", "experiments", ".dvc", "data"):
        shutil.copytree(ROOT / name, target / name, ignore=skip)
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", "README.md"):
        shutil.copy(ROOT / name, target / name)
    params = target / "params.yaml"
    params.write_text(params.read_text().replace("scale: laptop", "scale: smoke", 1))
    subprocess.run(["git", "init", "-q"], cwd=target, check=True)


def results(project: Path) -> dict[str, bytes]:
    """Every result but what is measured, by its path."""
    folder = project / "results/smoke"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path: path.relative_to(folder).as_posix() for path in files}
    ours = {path: name for path, name in names.items() if "measured" not in name}
    return {name: path.read_bytes() for path, name in ours.items() if path.name[0] != "."}


def unfinished(database: Path) -> int:
    """Runs that MLflow shows as training, in the study whose pipeline has ended."""
    query = """SELECT count(*) FROM runs JOIN experiments USING (experiment_id)
        WHERE runs.lifecycle_stage = 'active' AND status = 'RUNNING' AND experiments.name LIKE ?"""
    if not database.exists():
        return 0
    with sqlite3.connect(database) as connection:
        return int(connection.execute(query, [f"{STUDY}%"]).fetchone()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--faults", type=int, default=100_000, help="enough of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", type=Path, help="write the table to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        torture = Torture(Path(scratch), options.seed)
        torture.run(60 * options.minutes - 90, options.faults)  # a round's end takes its time
    print(torture.table())
    print(f"{torture.rounds} rounds; {torture.repairs} failures that needed the command again")
    for note in torture.notes:
        print(note)
    if options.table:
        options.table.write_text(torture.table() + "\n")
    sys.exit(1 if torture.lost.total() else 0)


if __name__ == "__main__":
    main()
