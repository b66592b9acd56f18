"""One run: train a network, follow its curve, evaluate it once at the end."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sepablate import models
from sepablate.kernels import compiled
from sepablate.kernels.network import take_on
from sepablate.models.initial import initialise
from sepablate.training import batches, checkpoint, recipe, task
from sepablate.training.evaluation import Setting, forward, scores
from sepablate.training.ranks import ALONE, Ranks
from sepablate.training.run import Run

Row = tuple[int, str, float]  # step, metric, value
SAVED = ("step", "loss_sum", "seconds", "rows", "times")


class Interrupted(Exception):  # noqa: N818 (a request, not an error)
    """The run was asked to stop; its checkpoint is on disk."""


@dataclass
class State:
    """All that a run carries from one step to the next. network: the model, or it wrapped."""

    model: nn.Module
    network: nn.Module
    average: recipe.Average
    optimiser: torch.optim.Optimizer
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    times: list[list[int]] = field(default_factory=list)  # step, Unix time in milliseconds

    def to_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers only, for a checkpoint."""
        state = {key: getattr(self, key) for key in SAVED}
        return state | {key: module.state_dict() for key, module in self._modules().items()}

    def restore(self, saved: dict[str, Any]) -> None:
        """Continue from what `to_dict` gave."""
        for key in SAVED:
            setattr(self, key, saved[key])
        for key, module in self._modules().items():
            module.load_state_dict(saved[key])

    def _modules(self) -> dict[str, Any]:
        return {"model": self.model, "average": self.average.model, "optimiser": self.optimiser}


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

    stopping is asked after each step: True saves a checkpoint and raises Interrupted.
    progress is told the state after each step. Of several ranks only the first calls it, and
    writes checkpoints.
    """
    state = start(run, device, ranks)
    saved = checkpoint.load(folder)
    if saved is not None:
        state.restore(saved)
    training = splits["train"].first(run.scale.images)
    setting = Setting(run, task.of(run.task, training.labels), device, ranks)
    feed = batches.training(training, run, ranks)
    validation = splits["validation"].first(run.scale.validation_images)
    due = evaluation_steps(run)
    began = time.monotonic() - state.seconds
    while state.step < run.scale.steps:
        loss = train_step(state, feed, setting)
        mean, stops = ranks.totals(loss / ranks.world, stopping())
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
        compiled.require()
        take_on(model)
    network = ranks.wrapped(model, device)
    return State(model, network, recipe.Average(model, run), recipe.optimiser(model, run))


def train_step(state: State, feed: batches.Batched, setting: Setting) -> float:
    """One gradient step on the batch of `state.step`; its mean loss over this rank's images.

    The batch is taken in parts of `micro_batch` images, whose gradients add up. Each part has its
    own batch norm and dropout, whichever rank it falls to.
    """
    run, ranks = setting.run, setting.ranks
    images, labels = feed.at(state.step)
    parts = len(labels) // (run.scale.micro_batch or len(labels))
    for group in state.optimiser.param_groups:
        group["lr"] = recipe.learning_rate(state.step, run)
    if not state.model.training:  # as after an evaluation: it visits every layer
        state.model.train()
    state.optimiser.zero_grad()
    total = 0.0
    for index, part in enumerate(zip(images.chunk(parts), labels.chunk(parts), strict=True)):
        if run.options.get("dropout"):
            number = (state.step * ranks.world + ranks.rank) * parts + index
            torch.manual_seed(recipe.stream_seed(run.seed, "dropout", number))
        with ranks.sending(state.network, index == parts - 1):
            logits = forward(state.network, part[0], run, setting.device)
            loss = setting.learns.loss(logits, part[1].to(setting.device))
            (loss if parts == 1 else loss / parts).backward()
        total += loss.item() / parts
    state.optimiser.step()
    state.average.update(state.step)
    state.step += 1
    return total


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
