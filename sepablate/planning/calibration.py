"""Time a few real steps and evaluations, with as many processes in parallel as in a stage."""

import dataclasses
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch

from sepablate import data
from sepablate.data.split import Split, TensorSplit
from sepablate.errors import UserError
from sepablate.execution import hardware, pool, process_lifetime, worker
from sepablate.execution.job import Job
from sepablate.runs.run import Run
from sepablate.store import checkpoint, layout
from sepablate.training import batches, engine
from sepablate.training.detection import by_task
from sepablate.training.step import TrainContext, eval_steps

STEP_SECONDS, EVALUATION_SECONDS = 2.5, 0.8  # of measuring
NOISE_IMAGES = 50_000
FIRST = "from sepablate.execution.process_lifetime import be_killed_first; be_killed_first()\n"
# The imports and first processes of a stage that trains, and of one that analyses.
TRAINING_STARTUP = """
from sepablate.execution import pool
context = pool.start_forkserver()
from sepablate.execution import progress
from sepablate import tracking
from sepablate.execution import train_variant
first = context.Process(target=print)
first.start()
first.join()
"""
ANALYSIS_STARTUP = """
from sepablate.plots import study_figure
from sepablate.report import outputs
from sepablate import tracking
"""


@dataclass(frozen=True)
class Cost:
    """Seconds and bytes of one network on this machine.

    Args:
        start: seconds from asking for a process to its first regular step.
        step: seconds of a gradient step.
        image: seconds to classify an image.
        checkpoint: seconds to write a checkpoint.
        checkpoint_bytes: its size.
        memory_bytes: the peak memory of the process.
    """

    start: float
    step: float
    image: float
    checkpoint: float
    checkpoint_bytes: int
    memory_bytes: int

    def seconds(self, run: Run, done: int = 0) -> float:
        """Return the seconds of `run` from step `done` to its end."""
        points = sum(step > done for step in eval_steps(run))
        final = run.trial_images or run.scale.test_images
        images = 2 * (points * run.scale.validation_images + final)
        steps = run.scale.steps - done
        return self.start + steps * self.step + points * self.checkpoint + images * self.image


def calibrate(jobs: list[Job]) -> Cost:
    """Train all `jobs` in parallel for a moment; return mean seconds and maximal bytes.

    Raises UserError where one of the processes is killed, as for its memory.
    """
    with ProcessPoolExecutor(len(jobs), mp_context=pool.start_forkserver()) as executor:
        try:
            futures = [executor.submit(_measure, job, time.monotonic()) for job in jobs]
            costs = [future.result() for future in futures]
        except (BrokenProcessPool, EOFError, ConnectionError):  # or their server
            raise UserError(pool.KILLED) from None
    return Cost(
        start=mean(cost.start for cost in costs),
        step=mean(cost.step for cost in costs),
        image=mean(cost.image for cost in costs),
        checkpoint=mean(cost.checkpoint for cost in costs),
        checkpoint_bytes=max(cost.checkpoint_bytes for cost in costs),
        memory_bytes=max(cost.memory_bytes for cost in costs),
    )


def time_startup(code: str) -> float:
    """Return the seconds until a new Python has run TRAINING_STARTUP or ANALYSIS_STARTUP.

    Raises UserError where it is killed, as for its memory.
    """
    began = time.monotonic()
    try:
        subprocess.run([sys.executable, "-c", FIRST + code], capture_output=True, check=True)
    except subprocess.CalledProcessError as error:
        if error.returncode >= 0 and b"EOFError" not in error.stderr:  # of its server that is gone
            raise
        raise UserError(pool.KILLED) from None
    return time.monotonic() - began


def _measure(job: Job, submitted: float) -> Cost:
    """Start a run as its worker does, and time a few of its steps and evaluations.

    Args:
        job: the run; nothing is written to its folder.
        submitted: when the process was asked for, by the monotonic clock.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process_lifetime.die_with_parent()
    if job.device == "cpu":
        hardware.hide_gpus()
    worker.tune_allocator()
    run, splits = job.run, _load_or_draw(job.run)
    state = engine.start(run, job.device)
    training = splits["train"].first(run.scale.images)
    context = TrainContext(run, by_task.make_objective(run, training.labels), job.device)
    warm_up = hardware.warm_up_steps(job.device)
    source = by_task.make_batches(training, _longer(run, warm_up), job.device)
    step = worker.make_train_step(state, source, context)
    batch_size = batches.eval_batch_size(job.device)
    batch = splits["validation"].first(min(batch_size, run.scale.test_images))

    def evaluate_batch() -> None:
        by_task.score(state.model, batch, context)

    for _ in range(warm_up):
        step()
    evaluate_batch()
    ready = time.monotonic() - submitted
    step_seconds = _mean_seconds(step, STEP_SECONDS, run.scale.steps)
    batches_left = run.scale.test_images // len(batch)
    batch_seconds = _mean_seconds(evaluate_batch, EVALUATION_SECONDS, batches_left)
    layout.STATE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=layout.STATE, prefix="plan-") as folder:
        write = _mean_seconds(lambda: checkpoint.save(Path(folder), 0, state.to_dict()), 0, 1)
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    return Cost(
        start=max(ready - warm_up * step_seconds - batch_seconds, 0.0),
        step=step_seconds,
        image=batch_seconds / len(batch),
        checkpoint=write,
        checkpoint_bytes=size,
        memory_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    )


def _longer(run: Run, warm_up: int) -> Run:
    """Return a run with batches for as many steps again, and those before the clock starts.

    Batches from files end with the run's steps.
    """
    epochs = 2 * run.scale.epochs + warm_up + 1  # an epoch has at least one step
    return dataclasses.replace(run, scale=dataclasses.replace(run.scale, epochs=epochs))


def _mean_seconds(call: Callable[[], object], seconds: float, most: int) -> float:
    """Return the mean seconds of a call, repeated for about `seconds` and at most `most` times."""
    began, calls = time.monotonic(), 0
    while not calls or (calls < most and time.monotonic() - began < seconds):
        call()
        calls += 1
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return (time.monotonic() - began) / calls


def _load_or_draw(run: Run) -> Mapping[str, Split]:
    """Load the data, or draw noise of the same shape if they are not fetched yet."""
    try:
        return data.load(run.dataset, test=False)
    except UserError:
        source = data.dataset(run.dataset)
        size, channels = source.IMAGE_SIZE or 28, () if source.CHANNELS == 1 else (source.CHANNELS,)
        images = torch.randint(256, (NOISE_IMAGES, size, size, *channels), dtype=torch.uint8)
        labels = by_task.random_labels(run, NOISE_IMAGES, torch.Generator().manual_seed(0))
        return dict.fromkeys(("train", "validation"), TensorSplit(images, labels))
