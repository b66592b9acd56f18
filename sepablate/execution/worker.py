"""One run in a process of its own: lock, resume, train, leave whole files behind."""

import atexit
import ctypes
import fcntl
import functools
import gc
import json
import operator
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from sepablate import data
from sepablate.execution import hardware, process_lifetime
from sepablate.execution.job import BUSY, DONE, FAILED, INTERRUPTED, NO_SPACE, Job
from sepablate.store import checkpoint
from sepablate.store.files import MANIFEST, NoSpace, corrupt_files, write_atomically, write_manifest
from sepablate.training import engine
from sepablate.training.process_group import ALONE, Ranks
from sepablate.training.step import State

FILES = ("run.json", "curve.csv", "measured.json", "correct.bin", "precision.bin", "result.csv")
HEADER = "run_key,variant,seed,step,metric,value"


def work(job: Job, progress: Any, index: int) -> None:
    """Train `job` and exit with DONE, FAILED, NO_SPACE, INTERRUPTED, or BUSY: another trains it.

    progress: shared array of steps done, of which `index` is this run's.
    """
    status = _worked(job, progress, index, _begin())
    if status != DONE:
        raise SystemExit(status)


def work_together(jobs: dict[int, Job], progress: Any, ended: Any) -> None:
    """Train several runs at the same time on one GPU, a thread for each.

    progress, ended: shared arrays of steps done and of how runs ended, by the keys of `jobs`.
    """
    stop = _begin()

    def one(index: int) -> None:
        ended[index] = _worked(jobs[index], progress, index, stop)

    with ThreadPoolExecutor(len(jobs)) as threads:
        list(threads.map(one, jobs))


def _begin() -> list[int]:
    """Make this process a worker; the list fills when it shall stop."""
    stop: list[int] = []
    process_lifetime.die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent passes it on as SIGTERM
    signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
    tune_allocator()
    return stop


def _worked(job: Job, progress: Any, index: int, stop: list[int]) -> int:
    tell = functools.partial(operator.setitem, progress, index)
    return run_locked(job, lambda: train(job, tell, stop))


def run_locked(job: Job, train_it: Callable[[], None]) -> int:
    """Hold the lock of `job` and train it, unless it is finished: one of the statuses above."""
    job.folder.mkdir(parents=True, exist_ok=True)
    with (job.folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not job.finished:
                _clear(job.folder)
                train_it()
        except BlockingIOError:
            return BUSY
        except engine.Interrupted:
            return INTERRUPTED
        except NoSpace as error:
            print(f"sepablate: {error}", file=sys.stderr, flush=True)
            return NO_SPACE
        except Exception:
            write_atomically(job.folder / "error.txt", traceback.format_exc())
            return FAILED
    return DONE


def train(
    job: Job,
    tell: Callable[[int], None],
    stop: list[int],
    ranks: Ranks = ALONE,
    begins: Callable[[], None] = lambda: None,
) -> None:
    """Train `job` and write its files; the first of `ranks` calls this.

    tell: told the steps done; stop: fills when it shall stop; begins: called before the first step.
    """
    run = job.run
    described = {**run.config, "label": job.label, "seed": run.seed, "run_key": job.key}
    write_atomically(job.folder / "run.json", json.dumps(described, indent=1))
    began = time.time_ns() // 1_000_000
    due = engine.evaluation_steps(run)
    resumed = bool(checkpoint.newest_step(job.folder))  # what it used before, nobody knows
    measurable = not resumed and job.processes == 1
    joules = hardware.energy_meter(job.device) if measurable else lambda: None

    def follow(state: State) -> None:
        tell(state.step)
        energy = joules()
        if state.step in due:
            _write_measured(job, began, state.seconds, state.step, state.times, energy)
            write_atomically(job.folder / "curve.csv", to_csv(job, state.rows))

    begins()
    outcome = engine.fit(
        run,
        data.dataset(run.dataset).load(data.FOLDER),
        job.folder,
        device=job.device,
        ranks=ranks,
        stopping=lambda: bool(stop) or process_lifetime.orphaned(),
        progress=follow,
    )
    if outcome.scores is not None:
        write_atomically(*_scored(job, outcome.scores.numpy()))
    _write_measured(job, began, outcome.seconds, outcome.rows[-1][0], outcome.times, joules())
    write_atomically(job.folder / "result.csv", to_csv(job, outcome.rows))
    write_manifest(job.folder, [name for name in FILES if (job.folder / name).exists()])
    checkpoint.clear(job.folder)
    tell(run.scale.steps)


def _scored(job: Job, scores: np.ndarray) -> tuple[Path, bytes]:
    """The file of the test images' scores: a bit for right or wrong, or float32 precisions."""
    if job.run.task == "single_label":
        return job.folder / "correct.bin", np.packbits(scores.astype(bool)).tobytes()
    return job.folder / "precision.bin", scores.astype("<f4").tobytes()


def to_csv(job: Job, rows: list[engine.Row]) -> str:
    """Tidy: one line per step and metric, each with the run's key."""
    run = job.run
    lines = [
        f"{job.key},{run.variant},{run.seed},{step},{metric},{value!r}"
        for step, metric, value in rows
    ]
    return "\n".join([HEADER, *lines]) + "\n"


def _write_measured(
    job: Job, began: int, seconds: float, steps: int, times: list[list[int]], joules: float | None
) -> None:
    """What differs between two identical runs, kept out of the files that must not.

    beside: how many other runs its process trained at the same time; its memory is that of all.
    energy_joules: of the processor packages or the accelerator while the run went on, with all
    that ran beside it; null if the machine does not tell, the run was interrupted, or several
    processes trained it.
    """
    measured = {
        "run_key": job.key,
        "started": began,
        "seconds": round(seconds, 3),
        "images_per_second": round(steps * job.run.scale.batch_size / seconds, 1),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "energy_joules": joules,
        "evaluations": times,
        "processes": job.processes,
        "beside": job.beside,
        "hardware": hardware.describe(),
        "versions": hardware.versions(),
        "commit": job.commit,
    }
    write_atomically(job.folder / "measured.json", json.dumps(measured, indent=1))


def _clear(folder: Path) -> None:
    """Delete what a killed process was writing, and a result that is damaged."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)
    if corrupt_files(folder):
        for name in (MANIFEST, *FILES):
            (folder / name).unlink(missing_ok=True)


def tune_allocator() -> None:
    """Keep freed activations, which each step asks for again, and let imported modules be.

    glibc would return the memory to the system; Python's collector would go through all modules
    again and again, an eighth of a small network's step.
    """
    gc.freeze()
    atexit.register(gc.unfreeze)  # else what ends with the process looks like a leak
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
