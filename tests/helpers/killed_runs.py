"""Kill one run at random instants, in a fork of this process, so often and so long.

Run in a project's folder by tests/faults/torture.py: python killed_runs.py KILLS SECONDS SEED.
Prints the kills, and those after which the run did not end in the bytes of an undisturbed one.
"""

import functools
import os
import random
import shutil
import signal
import sys
import time

import torch._dynamo  # as in a worker's server: else each fork imports it for its first optimizer

from sepablate import data, scales, study
from sepablate.execution import backend, worker
from sepablate.execution.job import Job, make_jobs
from sepablate.runs.run import resolve
from sepablate.store import layout

__all__ = ["torch"]


def job() -> Job:
    """The first run of Xception at smoke scale."""
    scale, recipes = scales.load("smoke")
    run = resolve(study.variant("xception"), "smoke", scale, recipes, 0, scale.precision)
    run = backend.select_backend(run, layout.STATE)
    module = data.dataset(scale.dataset)
    module.load = functools.cache(module.load)  # type: ignore[attr-defined]
    module.load(layout.DATA)
    return make_jobs([run], "Xception")[0]


def killed(run: Job, after: float) -> bool:
    """Train in a fork and kill it, unless it ends before that."""
    child = os.fork()
    if not child:
        statuses = [0]
        worker.run_jobs({0: run}, [0], statuses)
        os._exit(statuses[0])
    deadline = time.monotonic() + after
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def result(run: Job) -> list[bytes]:
    """What must be the same each time; empty if the run is not whole."""
    names = ("result.csv", "curve.csv", "correct.bin", layout.WEIGHTS, "run.json")
    return [(run.folder / name).read_bytes() for name in names if run.finished]


def main(least: int, seconds: float, seed: int) -> None:
    run, draw, kills, lost, now = job(), random.Random(seed), 0, 0, 0
    began = time.monotonic()
    killed(run, 600)
    reference, took = result(run), time.monotonic() - began
    shutil.rmtree(run.folder)
    while kills < least or time.monotonic() - began < seconds or now:
        if killed(run, draw.uniform(0, 0.6 * took)):
            kills, now = kills + 1, now + 1
            continue
        lost += now * (result(run) != reference)
        now = 0
        shutil.rmtree(run.folder)
    print(kills, lost)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
