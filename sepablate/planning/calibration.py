"""A short calibration: the real step and evaluation, as many side by side as in a real stage."""

import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch

from sepablate import data
from sepablate.data.split import Split, TensorSplit
from sepablate.errors import UserError
from sepablate.execution import hardware, pool, process_lifetime, worker
from sepablate.execution.job import FOLDER, Job
from sepablate.runs.run import Run
from sepablate.store import checkpoint, layout
from sepablate.training import batches, engine, evaluation, objective

STEPS, IMAGES = 2.5, 0.8  # seconds spent on gradient steps, and on evaluating images
BEGIN_TRAINING = """
from sepablate.execution import pool
context = parallel.warm_up()
from sepablate.execution import progress
from sepablate import tracking
from sepablate.execution import train_variant
first = context.Process(target=print)
first.start()
first.join()
"""
BEGIN_ANALYSIS = """
from sepablate.plots import study_figure
from sepablate.report import outputs
from sepablate import tracking
"""


@dataclass(frozen=True)
class Cost:
    """What one network costs on this machine: seconds and bytes.

    start: from asking for a process to its first regular step; image: to classify one;
    checkpoint: to write one; memory: the most that its process has had.
    """

    start: float
    step: float
    image: float
    checkpoint: float
    checkpoint_bytes: int
    memory_bytes: int

    def seconds(self, run: Run, done: int = 0) -> float:
        """Of `run` from step `done` to its end."""
        points = sum(step > done for step in engine.evaluation_steps(run))
        images = 2 * (points * run.scale.validation_images + run.scale.test_images)
        steps = run.scale.steps - done
        return self.start + steps * self.step + points * self.checkpoint + images * self.image


def calibrate(jobs: list[Job]) -> Cost:
    """Start and time all `jobs` at once; means, but of memory the most."""
    with ProcessPoolExecutor(len(jobs), mp_context=pool.warm_up()) as executor:
        asked = [executor.submit(_measure, job, time.monotonic()) for job in jobs]
        costs = [each.result() for each in asked]
    return Cost(
        start=mean(each.start for each in costs),
        step=mean(each.step for each in costs),
        image=mean(each.image for each in costs),
        checkpoint=mean(each.checkpoint for each in costs),
        checkpoint_bytes=max(each.checkpoint_bytes for each in costs),
        memory_bytes=max(each.memory_bytes for each in costs),
    )


def begin(code: str) -> float:
    """Seconds until a new Python has run one of the beginnings above."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    return time.monotonic() - began


def _measure(job: Job, asked: float) -> Cost:
    """In a process like that of a run: start it, and time a few of its steps and evaluations."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process_lifetime.die_with_parent()
    worker.tune_allocator()
    run, splits = job.run, _splits(job.run)
    state = engine.start(run, job.device)
    training = splits["train"].first(run.scale.images)
    setting = evaluation.Setting(run, objective.of(run.task, training.labels), job.device)
    feed = batches.training(training, run, device=job.device)
    step = engine.stepper(state, feed, setting)
    size = batches.evaluation_batch(job.device)
    few = splits["test"].first(min(size, run.scale.test_images))

    def evaluate() -> None:
        evaluation.scores(state.model, few, setting)

    warm_up = hardware.warm_up_steps(job.device)
    for _ in range(warm_up):
        step()
    evaluate()
    ready = time.monotonic() - asked
    step_seconds = _timed(step, STEPS, run.scale.steps)
    batch_seconds = _timed(evaluate, IMAGES, run.scale.test_images // len(few.labels))
    FOLDER.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.parent, prefix="plan-") as folder:
        write = _timed(lambda: checkpoint.save(Path(folder), 0, state.to_dict()), 0, 1)
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    return Cost(
        start=max(ready - warm_up * step_seconds - batch_seconds, 0.0),
        step=step_seconds,
        image=batch_seconds / len(few.labels),
        checkpoint=write,
        checkpoint_bytes=size,
        memory_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    )


def _timed(once: Callable[[], object], seconds: float, times: int) -> float:
    """Mean seconds of `once`, done for about `seconds` and at most that many times."""
    began, done = time.monotonic(), 0
    while not done or (done < times and time.monotonic() - began < seconds):
        once()
        done += 1
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return (time.monotonic() - began) / done


def _splits(run: Run) -> Mapping[str, Split]:
    """Load the data, or draw noise of the same shape where they are not fetched yet."""
    try:
        return data.dataset(run.dataset).load(layout.DATA)
    except UserError:
        images = torch.randint(256, (50_000, 28, 28), dtype=torch.uint8)
        several = (run.options["classes"],) if run.task == "multi_label" else ()
        labels = torch.randint(2 if several else 10, (50_000, *several))
        return dict.fromkeys(("train", "test"), TensorSplit(images, labels))
