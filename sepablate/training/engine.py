"""One run: train a network, follow its curve, evaluate it once at the end."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sepablate import models
from sepablate.data.fashion_mnist import Split
from sepablate.models.layers import initialise
from sepablate.training import checkpoint, recipe
from sepablate.training.batches import Batches, scaled_to_unit
from sepablate.training.run import Run

EVALUATION_BATCH = 200
Row = tuple[int, str, float]  # step, metric, value


class Interrupted(Exception):  # noqa: N818 (a request, not an error)
    """The run was asked to stop; its checkpoint is on disk."""


@dataclass
class State:
    """All that a run carries from one step to the next."""

    model: nn.Module
    average: recipe.Average
    optimiser: torch.optim.Optimizer
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    times: list[list[int]] = field(default_factory=list)  # step, Unix time in milliseconds

    def to_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers only, for a checkpoint."""
        state = {key: value for key, value in vars(self).items() if key not in self._modules()}
        return state | {key: module.state_dict() for key, module in self._modules().items()}

    def restore(self, saved: dict[str, Any]) -> None:
        """Continue from what `to_dict` gave."""
        for key, value in saved.items():
            if key in self._modules():
                self._modules()[key].load_state_dict(value)
            else:
                setattr(self, key, value)

    def _modules(self) -> dict[str, Any]:
        return {"model": self.model, "average": self.average.model, "optimiser": self.optimiser}


@dataclass(frozen=True)
class Outcome:
    """rows: the whole curve and the final metrics; correct: (N,) bool, per test image, averaged
    weights, None if the run diverged; seconds: of training and evaluation, resumes included."""

    rows: list[Row]
    correct: torch.Tensor | None
    seconds: float
    times: list[list[int]]


def fit(
    run: Run,
    splits: dict[str, Split],
    folder: Path,
    *,
    device: str = "cpu",
    stopping: Callable[[], bool] = lambda: False,
    progress: Callable[[State], None] = lambda state: None,
) -> Outcome:
    """Train `run`, continuing from the last checkpoint in `folder` if there is one.

    stopping is asked after each step: True saves a checkpoint and raises Interrupted.
    progress is told the state after each step.
    """
    state = start(run, device)
    saved = checkpoint.load(folder)
    if saved is not None:
        state.restore(saved)
    batches = Batches(splits["train"].first(run.scale.images), run)
    validation = splits["validation"].first(run.scale.validation_images)
    due = evaluation_steps(run)
    began = time.monotonic() - state.seconds
    while state.step < run.scale.steps:
        train_step(state, batches, run, device)
        if not math.isfinite(state.loss_sum):
            return _diverged(state, time.monotonic() - began)
        if state.step in due:
            follow(state, validation, run, device)
        state.seconds = time.monotonic() - began
        progress(state)
        stop = stopping()
        if stop or state.step in due:
            checkpoint.save(folder, state.step, state.to_dict())
        if stop and state.step < run.scale.steps:
            raise Interrupted
    correct = _final(state, splits["test"].first(run.scale.test_images), run, device)
    return Outcome(state.rows, correct, time.monotonic() - began, state.times)


def start(run: Run, device: str = "cpu") -> State:
    """Network, average and optimiser of a run before its first step."""
    torch.set_num_threads(run.threads)
    torch.set_flush_denormal(True)
    model = models.build(run.model, **run.options)
    initialise(model, run.seed)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return State(model, recipe.Average(model, run), recipe.optimiser(model, run))


def train_step(state: State, batches: Batches, run: Run, device: str) -> None:
    """One gradient step on the batch of `state.step`."""
    images, labels = batches.at(state.step)
    torch.manual_seed(recipe.stream_seed(run.seed, "dropout", state.step))
    for group in state.optimiser.param_groups:
        group["lr"] = recipe.learning_rate(state.step, run)
    state.model.train()
    logits = forward(state.model, images, run, device)
    loss = cross_entropy(logits, labels.to(device))
    state.optimiser.zero_grad()
    loss.backward()
    state.optimiser.step()
    state.average.update(state.step)
    state.loss_sum += loss.item()
    state.step += 1


def forward(model: nn.Module, images: torch.Tensor, run: Run, device: str) -> torch.Tensor:
    """Logits (N, classes) in float32; convolutions in the run's precision, channels last."""
    images = images.to(device, memory_format=torch.channels_last)
    with torch.autocast(torch.device(device).type, torch.bfloat16, run.precision == "bf16"):
        return model(images).float()


def evaluation_steps(run: Run) -> set[int]:
    """The regular steps at which the curve is evaluated, the last one included."""
    count = run.scale.evaluations
    return {run.scale.steps * (index + 1) // count for index in range(count)}


def follow(state: State, validation: Split, run: Run, device: str) -> None:
    """Add one point of the training curve, from raw and from averaged weights."""
    since = state.step - max((row[0] for row in state.rows), default=0)
    raw = is_correct(state.model, validation, run, device)
    averaged = is_correct(state.average.model, validation, run, device)
    state.rows += [
        (state.step, "learning_rate", recipe.learning_rate(state.step - 1, run)),
        (state.step, "train/loss", state.loss_sum / since),
        (state.step, "validation/accuracy", raw.double().mean().item()),
        (state.step, "validation/accuracy_averaged", averaged.double().mean().item()),
    ]
    state.loss_sum = 0.0
    state.times.append([state.step, time.time_ns() // 1_000_000])


@torch.inference_mode()
def is_correct(model: nn.Module, split: Split, run: Run, device: str) -> torch.Tensor:
    """(N,) bool: whether the likeliest class of each image is its label."""
    model.eval()
    parts = [
        forward(model, scaled_to_unit(images), run, device).argmax(1).cpu() == labels
        for images, labels in zip(
            split.images.split(EVALUATION_BATCH), split.labels.split(EVALUATION_BATCH), strict=True
        )
    ]
    return torch.cat(parts)


def _final(state: State, test: Split, run: Run, device: str) -> torch.Tensor:
    """Evaluate the last step, never a chosen one, on the test images."""
    raw = is_correct(state.model, test, run, device)
    averaged = is_correct(state.average.model, test, run, device)
    state.rows += [
        (state.step, "final/test_accuracy", raw.double().mean().item()),
        (state.step, "final/test_accuracy_averaged", averaged.double().mean().item()),
    ]
    return averaged


def _diverged(state: State, seconds: float) -> Outcome:
    state.rows.append((state.step, "final/diverged_at_step", float(state.step)))
    return Outcome(state.rows, None, seconds, state.times)
