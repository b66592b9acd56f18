"""One run: train a network, follow its curve, evaluate it once at the end."""

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sepablate import models
from sepablate.kernels.cpu import build
from sepablate.kernels.fuse import apply_fused_kernels
from sepablate.models.initial import initialise
from sepablate.training import batches, checkpoint, recipe, task
from sepablate.training.evaluation import Setting, scores
from sepablate.training.ranks import ALONE, Ranks
from sepablate.training.run import Run
from sepablate.training.step import Row, State, train_step


class Interrupted(Exception):  # noqa: N818 (a request, not an error)
    """The run was asked to stop; its checkpoint is on disk."""


@dataclass(frozen=True)
class Outcome:
    """rows: the whole curve and the final metrics; scores: (N,) float64, of each test image, with
    averaged weights, None if the run diverged; seconds: of training and evaluation, resumes
    included."""

    rows: list[Row]
    scores: Tensor | None
    seconds: float
    times: list[list[int]]


def fit(
    run: Run,
    splits: dict[str, Any],
    folder: Path,
    *,
    device: str = "cpu",
    ranks: Ranks = ALONE,
    stopping: Callable[[], bool] = lambda: False,
    progress: Callable[[State], None] = lambda state: None,
) -> Outcome:
    """Train `run`, continuing from the last checkpoint in `folder` if there is one.

    stopping is asked after each step whose loss is known: True saves a checkpoint and raises
    Interrupted.
    progress is told the state after each step. Of several ranks only the first calls it, and
    writes checkpoints.
    """
    state = start(run, device, ranks)
    saved = checkpoint.load(folder)
    if saved is not None:
        state.restore(saved)
    training = splits["train"].first(run.scale.images)
    setting = Setting(run, task.of(run.task, training.labels), device, ranks)
    feed = batches.training(training, run, ranks, device)
    validation = splits["validation"].first(run.scale.validation_images)
    due = evaluation_steps(run)
    advance = stepper(state, feed, setting)
    began = time.monotonic() - state.seconds
    while state.step < run.scale.steps:
        loss = advance()
        known = loss is not None
        mean, stops = ranks.totals((loss or 0.0) / ranks.world, known and stopping())
        state.loss_sum += mean
        if not math.isfinite(state.loss_sum):
            return _diverged(state, time.monotonic() - began)
        if state.step in due:
            follow(state, validation, setting)
        state.seconds = time.monotonic() - began
        stop = stops > 0
        if stop:
            ranks.same_statistics(state.model, state.average.model)
        if ranks.leads:
            progress(state)
            if stop or state.step in due:
                checkpoint.save(folder, state.step, state.to_dict())
        if stop and state.step < run.scale.steps:
            raise Interrupted
    found = _final(state, splits["test"].first(run.scale.test_images), setting)
    return Outcome(state.rows, found, time.monotonic() - began, state.times)


def start(run: Run, device: str = "cpu", ranks: Ranks = ALONE) -> State:
    """Network, average and optimiser of a run before its first step."""
    torch.set_num_threads(run.threads)
    torch.set_flush_denormal(True)
    model = models.build(run.model, **run.options)
    initialise(model, run.seed)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if run.kernels == "fused":
        build.require()
    if run.kernels in ("fused", "triton"):
        apply_fused_kernels(model)
    network = ranks.wrapped(model, device)
    return State(model, network, recipe.Average(model, run), recipe.optimiser(model, run))


def stepper(state: State, feed: batches.Batched, setting: Setting) -> Callable[[], float | None]:
    """What does one step and tells its loss; on a GPU it tells the sum of some steps' now and then.

    Several processes that train one network need to hear from each other in each step.
    """
    if setting.run.kernels == "triton" and setting.ranks.world == 1:
        from sepablate.training.captured import Captured  # imports Triton

        return Captured(state, feed, setting)
    return functools.partial(train_step, state, feed, setting)


def evaluation_steps(run: Run) -> set[int]:
    """The regular steps at which the curve is evaluated, the last one included."""
    count = run.scale.evaluations
    return {run.scale.steps * (index + 1) // count for index in range(count)}


def follow(state: State, validation: Any, setting: Setting) -> None:
    """Add one point of the training curve, from raw and from averaged weights."""
    since = state.step - max((row[0] for row in state.rows), default=0)
    metric = setting.learns.metric
    raw, averaged = _evaluated(state, validation, setting)
    state.rows += [
        (state.step, "learning_rate", recipe.learning_rate(state.step - 1, setting.run)),
        (state.step, "train/loss", state.loss_sum / since),
        (state.step, f"validation/{metric}", raw.mean().item()),
        (state.step, f"validation/{metric}_averaged", averaged.mean().item()),
    ]
    state.loss_sum = 0.0
    state.times.append([state.step, time.time_ns() // 1_000_000])


def _final(state: State, test: Any, setting: Setting) -> Tensor:
    """Evaluate the last step, never a chosen one, on the test images."""
    metric = setting.learns.metric
    raw, averaged = _evaluated(state, test, setting)
    state.rows += [
        (state.step, f"final/test_{metric}", raw.mean().item()),
        (state.step, f"final/test_{metric}_averaged", averaged.mean().item()),
    ]
    return averaged


def _evaluated(state: State, split: Any, setting: Setting) -> tuple[Tensor, Tensor]:
    """Scores with the raw and with the averaged weights."""
    setting.ranks.same_statistics(state.model, state.average.model)
    return (
        scores(state.model, split, setting),
        scores(state.average.model, split, setting),
    )


def _diverged(state: State, seconds: float) -> Outcome:
    state.rows.append((state.step, "final/diverged_at_step", float(state.step)))
    return Outcome(state.rows, None, seconds, state.times)
