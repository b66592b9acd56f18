"""One run: set up, train, evaluate its curve and keep checkpoints, evaluate once at the end."""

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sepablate import models
from sepablate.data.split import Batches, Split
from sepablate.kernels.cpu import build
from sepablate.kernels.fuse import apply_fused_kernels
from sepablate.models.weight_init import init_weights
from sepablate.runs.run import Run
from sepablate.store import checkpoint, run_files
from sepablate.store.run_files import Row
from sepablate.training.batches import make_batches
from sepablate.training.ema import EMA
from sepablate.training.objective import make_objective
from sepablate.training.optim import learning_rate, make_optimizer
from sepablate.training.process_group import SINGLE, World
from sepablate.training.step import TrainContext, TrainState, eval_steps, evaluate, train_step


class Interrupted(Exception):  # noqa: N818 (a request, not an error)
    """The run was asked to stop; its checkpoint is on disk."""


class Monitor:
    """Callbacks of a run: after each step, and to stop it. These do nothing and never stop."""

    def on_step(self, state: TrainState) -> None:
        """Called after each step; in a distributed run, only in the main process."""

    def should_stop(self) -> bool:
        """Return whether to save a checkpoint and raise Interrupted."""
        return False


@dataclass(frozen=True)
class TrainResult:
    """The rows, scores and weights of a finished or diverged run.

    Args:
        rows: the whole curve and the final metrics.
        scores: (N,) float64, of each image of the final numbers, with averaged weights; None if
            the run diverged.
        seconds: of training and evaluation, resumes included.
        times: [step, Unix time in milliseconds] of each point of the curve.
        weights: the state dict of the averaged weights; None if the run diverged.
    """

    rows: list[Row]
    scores: Tensor | None
    seconds: float
    times: list[list[int]]
    weights: Mapping[str, Tensor] | None


def fit(
    run: Run,
    splits: Mapping[str, Split],
    folder: Path,
    monitor: Monitor,
    device: str = "cpu",
    world: World = SINGLE,
) -> TrainResult:
    """Train `run`, continuing from the last checkpoint in `folder` if there is one.

    Raises Interrupted when the monitor, of any process, asks to stop. Only the main process reads
    and writes checkpoints.
    """
    # Set up
    training = splits["train"].first(run.scale.images)
    validation = splits["validation"].first(run.scale.validation_images)
    final = final_images(run, splits)
    context = TrainContext(run, make_objective(run.task, training.labels), device, world)
    state = resume(start(run, device, world), run, folder, world)
    step = make_train_step(state, make_batches(training, run, world, device), context)
    curve_steps, began = eval_steps(run), time.monotonic() - state.seconds

    while state.step < run.scale.steps:
        # Train
        loss = step()
        stop = loss is not None and monitor.should_stop()
        mean_loss, stop_requests = world.totals((loss or 0.0) / world.size, stop)
        state.loss_sum += mean_loss
        if not math.isfinite(state.loss_sum):
            state.rows.append((state.step, run_files.DIVERGED, float(state.step)))
            return TrainResult(state.rows, None, time.monotonic() - began, state.times, None)
        # Evaluate
        if state.step in curve_steps:
            evaluate_curve_point(state, validation, context)
        state.seconds = time.monotonic() - began
        # Checkpoint
        if stop_requests:
            world.sync_batch_norm_buffers(state.model, state.average.model)
        if world.is_main:
            monitor.on_step(state)
            if stop_requests or state.step in curve_steps:
                checkpoint.save(folder, state.step, {**state.to_dict(), "run_key": run.key})
        if stop_requests and state.step < run.scale.steps:
            raise Interrupted

    scores = evaluate_final(state, final, context)
    weights = state.average.model.state_dict()
    return TrainResult(state.rows, scores, time.monotonic() - began, state.times, weights)


def final_images(run: Run, splits: Mapping[str, Split]) -> Split:
    """Return the images of a run's final numbers: test images, or a trial's validation images."""
    if run.trial_images:
        return splits["validation"].first(run.trial_images)
    return splits["test"].first(run.scale.test_images)


def start(run: Run, device: str = "cpu", world: World = SINGLE) -> TrainState:
    """Return the network, average and optimizer of a run before its first step."""
    torch.set_num_threads(run.threads)
    torch.set_flush_denormal(True)
    model = models.build(run.model, **run.options)
    init_weights(model, run.seed)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if run.kernels == "fused":
        build.require()
    if run.kernels in ("fused", "triton"):
        apply_fused_kernels(model)
    return TrainState(model, world.wrap(model, device), EMA(model, run), make_optimizer(model, run))


def resume(state: TrainState, run: Run, folder: Path, world: World) -> TrainState:
    """Return the state of the newest checkpoint of this run that the main process has, if any."""
    problem = functools.partial(TrainState.problem, run=run)
    content = world.broadcast(checkpoint.read(folder, problem) if world.is_main else None)
    if content is not None:
        state.restore(checkpoint.parse(content))
    return state


def make_train_step(
    state: TrainState, batches: Batches, context: TrainContext
) -> Callable[[], float | None]:
    """Return a function that does one step and returns its loss.

    On a GPU it returns the sum of some steps' losses now and then, and None in between. Several
    processes that train one network exchange gradients in each step, which is not recorded.
    """
    if context.run.kernels == "triton" and context.world.size == 1:
        from sepablate.training.cuda_graph import CudaGraphStep  # imports Triton

        return CudaGraphStep(state, batches, context)
    return functools.partial(train_step, state, batches, context)


def evaluate_curve_point(state: TrainState, validation: Split, context: TrainContext) -> None:
    """Add one point of the training curve, from raw and from averaged weights."""
    steps = state.step - max((row[0] for row in state.rows), default=0)
    score = context.objective.score
    raw, averaged = _evaluate_both(state, validation, context)
    state.rows += [
        (state.step, run_files.LEARNING_RATE, learning_rate(state.step - 1, context.run)),
        (state.step, run_files.TRAIN_LOSS, state.loss_sum / steps),
        (state.step, run_files.validation_metric(score), raw.mean().item()),
        (state.step, run_files.validation_metric(score, averaged=True), averaged.mean().item()),
    ]
    state.loss_sum = 0.0
    state.times.append([state.step, time.time_ns() // 1_000_000])


def evaluate_final(state: TrainState, images: Split, context: TrainContext) -> Tensor:
    """Evaluate the last step, never a chosen one, on the final images; return averaged scores."""
    score, trial = context.objective.score, bool(context.run.trial_images)
    raw, averaged = _evaluate_both(state, images, context)
    state.rows += [
        (state.step, run_files.final_metric(score, False, trial), raw.mean().item()),
        (state.step, run_files.final_metric(score, True, trial), averaged.mean().item()),
    ]
    return averaged


def _evaluate_both(state: TrainState, split: Split, context: TrainContext) -> tuple[Tensor, Tensor]:
    """Return the scores with the raw and with the averaged weights."""
    context.world.sync_batch_norm_buffers(state.model, state.average.model)
    return (
        evaluate(state.model, split, context),
        evaluate(state.average.model, split, context),
    )
