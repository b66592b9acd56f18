"""Kill a pipeline at random instants and damage its files, again and again; count what is lost.

Copies of a small pipeline (tortured_project.py) run side by side. A round is `dvc repro`, disturbed
and started again until it ends; then its tables, CSV files, figures and report must be the bytes of
an undisturbed run, MLflow must show no run that still trains, and all begins from nothing. Files of
each kind are mutated before that (tests/helpers/mutations.py); after it, a single run is killed
again and again (tests/helpers/killed_runs.py), until there were as many kills as were asked for.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from helpers.project import ROOT
from tortured_project import Pipeline

KINDS = {
    "all": "SIGKILL of every process of the pipeline at once",
    "dvc": "SIGKILL of DVC only: its trainers must end within 5 s",
    "one": "SIGKILL of one process below DVC (trainer, worker, study, report)",
    "write": "SIGKILL of a process within the write, flush or rename of a file, half of it written",
    "stop": "SIGINT or SIGTERM to every process",
    "cut": "dvc.lock cut at a random length, as DVC leaves it when killed in its write",
    "flip": "a bit flipped in a checkpoint, a result, a manifest, a collected file or DVC's cache",
    "run": "SIGKILL of a single run, no pipeline around it, in its steps, evaluations and writes",
}
NO_KILLS = ("cut", "flip")
AIMS = ("any time", "any time", "training", "MLflow", "DVC")
WEIGHTS = {"all": 8, "dvc": 3, "one": 3, "write": 3, "stop": 1, "cut": 1, "flip": 1}
LONGEST = 9.0  # seconds before a disturbance; more on a machine that is slow


class Torture:
    """One pipeline under attack. faults, survived, lost: by kind; places: where kills hit."""

    def __init__(
        self, folder: Path, seed: int, reference: dict[str, bytes], longest: float
    ) -> None:
        self.draw, self.reference, self.longest = random.Random(seed), reference, longest
        self.pipeline = Pipeline(folder, self.draw)
        self.faults: Counter[str] = Counter()
        self.survived: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.places: Counter[str] = Counter()
        self.round: Counter[str] = Counter()
        self.notes: list[str] = []
        self.rounds = self.repairs = 0

    def run(self, deadline: float) -> None:
        """Attack until then, and take the last round to its end."""
        while time.monotonic() < deadline:
            if self.attempt(self.draw.choices([*WEIGHTS], [*WEIGHTS.values()])[0]):
                self.close_round()
        if self.round:
            self.repaired()
            self.close_round()

    def attempt(self, kind: str) -> bool:
        """Run the pipeline and disturb it once; whether it ended well all the same."""
        if kind in ("cut", "flip"):
            self.round[kind] += self.pipeline.damage(kind)
            return False
        process = self.pipeline.start(chance=0.05 if kind == "write" else 0.0)
        if kind == "write":
            status = self.pipeline.ended(process)
            hits = len(self.pipeline.writes.read_bytes()) if self.pipeline.writes.exists() else 0
            self.pipeline.writes.unlink(missing_ok=True)
            self.round[kind] += hits
            return status == 0
        if self.pipeline.reached(process, self.draw.choice(AIMS), self.longest):
            place, kept = self.pipeline.disturb(process, kind)
            self.round[kind] += 1
            self.places[place] += 1
            if not kept:
                self.lost[kind] += 1
                self.notes.append("trainers were left 5 s after DVC's end")
            return False
        if self.pipeline.ended(process):
            self.repairs += 1
            return self.repaired()
        return True

    def repaired(self) -> bool:
        """What a person does after a failure: the same command, and if it fails, the doctor."""
        for _ in range(3):
            if self.pipeline.ended(self.pipeline.start()) == 0:
                return True
            self.pipeline.doctor()
        self.notes.append(self.pipeline.output.read_text(errors="replace")[-1500:])
        return True  # and the comparison will say that it is lost

    def close_round(self) -> None:
        """Compare with the undisturbed run, and begin from nothing."""
        ended, expected = self.pipeline.results(), self.reference
        wrong = {name for name in {*ended, *expected} if ended.get(name) != expected.get(name)}
        running = self.pipeline.running()
        self.rounds += 1
        self.faults.update(self.round)
        (self.lost if wrong or running else self.survived).update(self.round)
        if wrong or running:
            self.notes.append(f"differ: {sorted(wrong)[:5]}; still RUNNING in MLflow: {running}")
        self.round.clear()
        self.pipeline.forget()
        print(f"round {self.rounds}: {dict(self.faults)}, lost {dict(self.lost)}", flush=True)


def kill_runs(project: Path, least: int, seconds: float, seed: int) -> tuple[int, int]:
    """Kills of a single run, so many or for so long, and those that lost it."""
    numbers = map(str, (least, seconds, seed))
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/helpers/killed_runs.py"), *numbers],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    kills, lost = map(int, done.stdout.split()[-2:])
    return kills, lost


def mutate_files(count: int, seed: int) -> tuple[list[tuple[str, int, int]], list[str]]:
    """Mutate files that commands read: kind, tried and lost, and a line for each that was lost."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/helpers/mutations.py"), str(count), str(seed)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    return result["rows"], result["notes"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--pipelines", type=int, default=2, help="side by side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=500, help="at least so many")
    parser.add_argument("--mutations", type=int, default=1000, help="of files that commands read")
    parser.add_argument("--table", type=Path, help="write the table to this file")
    options = parser.parse_args()
    began, seconds = time.monotonic(), 60 * options.minutes
    with tempfile.TemporaryDirectory() as scratch:
        first = Pipeline(Path(scratch) / "first", random.Random())
        assert first.ended(first.start()) == 0, first.output.read_text()
        reference, took = first.results(), time.monotonic() - began
        first.forget()
        mutated, unread = mutate_files(options.mutations, options.seed)
        tortures = [
            Torture(
                Path(scratch) / str(index), options.seed + index, reference, max(LONGEST, took / 4)
            )
            for index in range(options.pipelines)
        ]
        deadline = began + 0.9 * seconds - 60  # the end of a round takes its time
        threads = [threading.Thread(target=each.run, args=[deadline]) for each in tortures]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        names = ("faults", "survived", "lost")
        counts = [sum((getattr(each, name) for each in tortures), Counter()) for name in names]
        rest = options.kills - sum(counts[0][kind] for kind in KINDS if kind not in NO_KILLS)
        kills, lost = kill_runs(first.project, rest, seconds / 20, options.seed)
    for count, number in zip(counts, (kills, kills - lost, lost), strict=True):
        count["run"] = number
    table = tables(counts, sum((each.places for each in tortures), Counter()), mutated)
    print(table)
    rounds, repairs = sum(each.rounds for each in tortures), sum(each.repairs for each in tortures)
    print(f"\n{rounds} rounds; {repairs} failures that needed the command again")
    for note in [*unread, *(note for each in tortures for note in each.notes)]:
        print(note)
    if options.table:
        options.table.write_text(table + "\n")
    sys.exit(1 if unread or counts[2].total() else 0)


def tables(
    counts: list[Counter[str]], places: Counter[str], mutated: list[tuple[str, int, int]]
) -> str:
    """Markdown: faults by kind, survived and lost; where kills hit; files that were mutated."""
    faults = [(text, *(count[kind] for count in counts)) for kind, text in KINDS.items()]
    hit = [f"| {place} | {number} |" for place, number in places.most_common()]
    files = [(text, tried, tried - lost, lost) for text, tried, lost in mutated]
    return "\n".join(
        [
            "| fault | injected | survived | lost |",
            "|---|---|---|---|",
            *_with_sum(faults),
            "",
            "| where a signal hit the pipeline | times |",
            "|---|---|",
            *hit,
            "",
            "| a file that a command reads | mutated | survived | lost |",
            "|---|---|---|---|",
            *_with_sum(files),
        ]
    )


def _with_sum(rows: list[tuple[Any, ...]]) -> list[str]:
    totals = [f"**{sum(column)}**" for column in list(zip(*rows, strict=True))[1:]]
    return [f"| {' | '.join(map(str, row))} |" for row in [*rows, ("**all**", *totals)]]


if __name__ == "__main__":
    main()
