"""Train runs in a worker process: lock, resume, train, leave whole files."""

import atexit
import contextlib
import ctypes
import functools
import gc
import json
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from torch import Tensor

from sepablate import data
from sepablate.data.split import Batches
from sepablate.errors import UserError, explain
from sepablate.execution import hardware, process_lifetime
from sepablate.execution.job import (
    BUSY,
    DONE,
    FAILED,
    INTERRUPTED,
    NO_SPACE,
    Job,
    Outcomes,
    SharedInts,
)
from sepablate.store import checkpoint, layout, weights
from sepablate.store.files import (
    MANIFEST,
    NoSpace,
    locked,
    write_atomically,
    write_manifest,
)
from sepablate.store.run_files import Row, format_rows, images_seen
from sepablate.training import engine
from sepablate.training.detection import by_task
from sepablate.training.process_group import SINGLE, World
from sepablate.training.step import TrainContext, TrainState, eval_steps, train_step


def run_jobs(jobs: dict[int, Job], steps: SharedInts, outcomes: Outcomes) -> None:
    """Train jobs in this process: one, or several at the same time on one GPU.

    Runs of one network share their kernels; others have a thread and a stream each.

    Args:
        jobs: by their places in the shared arrays.
        steps: the steps done of each run.
        outcomes: how each run ended: DONE, FAILED, NO_SPACE, INTERRUPTED, BUSY where another
            process trains it, or the reason in words why it could not be trained.
    """
    stops = become_worker()
    if all(job.device == "cpu" for job in jobs.values()):
        hardware.hide_gpus()  # the server that forked this process does not know that none is used
    monitors = {index: RunMonitor(job, stops, steps, index) for index, job in jobs.items()}
    if len(jobs) == 1:
        ((index, job),) = jobs.items()
        outcomes[index] = run_job(job, monitors[index])
        return
    if _train_stacked(jobs, monitors, outcomes):
        return
    with ThreadPoolExecutor(len(jobs)) as threads:
        ended = {i: threads.submit(run_job, job, monitors[i]) for i, job in jobs.items()}
        for index, outcome in ended.items():
            outcomes[index] = outcome.result()


def become_worker() -> list[int]:
    """Make this process a worker; return a list that fills when it must stop."""
    stops: list[int] = []
    process_lifetime.die_with_parent()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent passes it on as SIGTERM
    signal.signal(signal.SIGTERM, lambda number, frame: stops.append(number))
    tune_allocator()
    return stops


def run_job(job: Job, monitor: "RunMonitor", world: World = SINGLE) -> int | str:
    """Train a job unless it is finished, holding its lock; return how it ended, as in `run_jobs`.

    Of several processes the main one holds the lock and writes the files.
    """
    with contextlib.ExitStack() as stack:
        try:
            status = _prepare(job, stack) if world.is_main else None
            if (status := world.broadcast(status)) is not None:
                return status
            monitor.on_start()
            splits = data.load(job.run.dataset, test=not job.run.trial_images)
            result = by_task.fit(job.run, splits, job.folder, monitor, job.device, world)
            if world.is_main:
                monitor.write_result(*result)
        except Exception as error:
            return _outcome(job, error, world)
    return DONE


def _train_stacked(
    jobs: dict[int, Job], monitors: "dict[int, RunMonitor]", outcomes: Outcomes
) -> bool:
    """Train runs of one network in one set of kernels, as far as no other process trains them.

    Returns False, with nothing trained, if they cannot be stacked.
    """
    if any(job.run.kernels != "triton" or by_task.is_detection(job.run) for job in jobs.values()):
        return False
    from sepablate.training.population import fit as population  # imports Triton
    from sepablate.training.population.stacked import NotStackable

    if not population.same_network([job.run for job in jobs.values()]):
        return False
    with contextlib.ExitStack() as stack:
        ended = {index: _prepare(job, stack) for index, job in jobs.items()}
        ready = [index for index, status in ended.items() if status is None]
        members = {
            index: population.Member(jobs[index].run, jobs[index].folder, monitors[index])
            for index in ready
        }
        if len(ready) < 2:
            return False
        first = jobs[ready[0]]
        try:
            for index in ready:
                monitors[index].on_start()
            splits = data.load(first.run.dataset, test=not first.run.trial_images)
            population.fit(list(members.values()), splits, first.device)
            for index, member in members.items():
                assert member.result is not None
                monitors[index].write_result(member.result)
                ended[index] = DONE
        except NotStackable:
            return False
        except Exception as error:
            for index in ready:
                if ended[index] is None:
                    ended[index] = _outcome(jobs[index], error, SINGLE)
        for index, status in ended.items():
            assert status is not None
            outcomes[index] = status
    return True


def make_train_step(
    state: TrainState, batches: Batches, context: TrainContext
) -> Callable[[], float | None]:
    """Return a function that does one step as a run does it: a detector's cannot be recorded."""
    if by_task.is_detection(context.run):
        return functools.partial(train_step, state, batches, context)
    return engine.make_train_step(state, batches, context)


def _outcome(job: Job, error: Exception, world: World) -> int | str:
    """Return how a run ended by an error: stopped, without space, or failed."""
    if isinstance(error, engine.Interrupted):
        return INTERRUPTED
    if isinstance(error, NoSpace):
        print(f"sepablate: {error}", file=sys.stderr, flush=True)
        return NO_SPACE
    return _failure(job, error, world)


def _failure(job: Job, error: Exception, world: World) -> int | str:
    """Return the reason of bad input in words; of a bug, leave the traceback in error.txt."""
    reason = str(error) if isinstance(error, UserError) else None
    if isinstance(error, OSError):
        reason = explain(error)
    text = f"sepablate: process {world.rank}: {reason}" if reason else traceback.format_exc()
    if not world.is_main:
        print(text, file=sys.stderr, flush=True)
        return FAILED
    if reason:
        return " ".join(reason.split())
    try:
        write_atomically(job.folder / layout.ERROR, text)
    except OSError as unwritten:
        print(text, file=sys.stderr, flush=True)
        return " ".join(f"{type(error).__name__}: {error} ({unwritten})".split())
    return FAILED


def _prepare(job: Job, stack: contextlib.ExitStack) -> int | str | None:
    """Lock the job's folder and remove broken files; return a status if there is nothing to do."""
    try:
        stack.enter_context(locked(job.folder / layout.LOCK, wait=False))
    except BlockingIOError:
        return BUSY
    if job.finished:
        return DONE
    for path in job.folder.glob(".*.tmp"):  # of a killed process
        path.unlink(missing_ok=True)
    if (job.folder / MANIFEST).exists():  # damaged, or of another run
        for name in (MANIFEST, *layout.RUN_FILES):
            (job.folder / name).unlink(missing_ok=True)
    return None


class RunMonitor(engine.Monitor):
    """Follows one run: reports its steps and, on the main process, writes its files.

    Args:
        stops: fills when the run must stop.
        steps: an array of the steps done, of which `index` is this run's.
        is_main: whether this process writes the files.
    """

    def __init__(
        self, job: Job, stops: list[int], steps: SharedInts, index: int, is_main: bool = True
    ) -> None:
        self.job, self.stops, self.is_main = job, stops, is_main
        self.steps, self.index = steps, index
        self.curve_steps = eval_steps(job.run)
        self.started = 0
        self.energy: Callable[[], float | None] = lambda: None

    def on_start(self) -> None:
        """Write the run's config and begin to measure, before the data are loaded."""
        if not self.is_main:
            return
        job = self.job
        config = {**job.run.config, "label": job.label, "seed": job.run.seed, "run_key": job.key}
        write_atomically(job.folder / layout.RUN_CONFIG, json.dumps(config, indent=1))
        self.started = time.time_ns() // 1_000_000
        resumed = bool(checkpoint.newest_step(job.folder))  # what it used before is unknown
        if not resumed and job.processes == 1:
            self.energy = hardware.energy_meter(job.device)

    def on_step(self, state: TrainState) -> None:
        """Report the step; where the curve has a point, write the curve and the measurements."""
        self.steps[self.index] = state.step
        energy = self.energy()  # read at each step: its counter may overflow
        if state.step in self.curve_steps:
            self._write_measured(state.seconds, state.step, state.times, energy)
            self._write(layout.CURVE, self._format(state.rows))

    def should_stop(self) -> bool:
        """Return whether the user asked to stop, or the parent process is gone."""
        return bool(self.stops) or process_lifetime.orphaned()

    def write_result(self, result: engine.TrainResult, examples: str = "") -> None:
        """Write the files of a finished run, the manifest last, and delete its checkpoints."""
        job = self.job
        if result.scores is not None:
            self._write(layout.SCORES[job.run.task], _encode_scores(job.run.task, result.scores))
        if examples:
            self._write(layout.EXAMPLES, examples)
        if result.weights is not None:
            self._write_weights(result.rows, result.weights)
        last_step = result.rows[-1][0]
        self._write_measured(result.seconds, last_step, result.times, self.energy())
        self._write(layout.RESULT, self._format(result.rows))
        names = [name for name in layout.RUN_FILES if (job.folder / name).exists()]
        write_manifest(job.folder, names)
        checkpoint.clear(job.folder)
        self.steps[self.index] = job.run.scale.steps

    def _write_weights(self, rows: list[Row], averaged: Mapping[str, Tensor]) -> None:
        """Write the averaged weights; if asked for, also the raw ones, of the last checkpoint."""
        job = self.job
        run = job.key, job.run.seed, job.run.config, rows
        self._write(layout.WEIGHTS, weights.encode(*run, averaged))
        if job.raw_weights and (state := checkpoint.load(job.folder)):
            self._write(layout.RAW_WEIGHTS, weights.encode(*run, state["model"], averaged=False))

    def _write(self, name: str, content: bytes | str) -> None:
        write_atomically(self.job.folder / name, content)

    def _format(self, rows: list[Row]) -> str:
        return format_rows(rows, self.job.key, self.job.run.variant, self.job.run.seed)

    def _write_measured(
        self, seconds: float, steps: int, times: list[list[int]], joules: float | None
    ) -> None:
        """Write what differs between two identical runs, apart from the files that must not.

        co_located_runs: how many other runs its process trained; its memory is that of all.
        energy_joules: of the processor packages or the accelerator during the run, with all that
        ran on them; null if the machine does not tell, the run was interrupted, or several
        processes trained it.
        """
        job = self.job
        images = images_seen(steps, job.run.scale.batch_size)
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        measured = {
            "run_key": job.key,
            "started": self.started,
            "seconds": round(seconds, 3),
            "images_per_second": round(images / seconds, 1),
            "peak_memory_mib": round(peak_kib / 1024, 1),
            "energy_joules": joules,
            "evaluations": times,
            "processes": job.processes,
            "co_located_runs": job.co_located_runs,
            "hardware": hardware.describe(),
            "versions": hardware.versions(),
            "commit": job.commit,
        }
        self._write(layout.MEASURED, json.dumps(measured, indent=1))


def _encode_scores(task: str, scores: Tensor) -> bytes:
    """Return the test images' scores as a bit for right or wrong, or as float32 precisions.

    Of a detector, the float32 mAP of resampled test images.
    """
    if task == "single_label":
        return np.packbits(scores.numpy().astype(bool)).tobytes()
    return scores.numpy().astype("<f4").tobytes()


def tune_allocator() -> None:
    """Keep freed activations, which each step needs again, and exempt modules from collection.

    glibc would return the memory to the system; Python's collector would go through all modules
    again and again, an eighth of a small network's step.
    """
    gc.freeze()
    gc.set_threshold(700, 10, 10)  # Python's own again: tensors in a cycle must not pile up
    atexit.register(gc.unfreeze)  # else what ends with the process seems to be a leak
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
