"""One gradient step, and what a run carries from one to the next."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sepablate.runs.run import Run
from sepablate.training import batches, optim
from sepablate.training.evaluation import Setting, forward
from sepablate.training.process_group import Ranks

Row = tuple[int, str, float]  # step, metric, value
SAVED = ("step", "loss_sum", "seconds", "rows", "times")


@dataclass
class State:
    """All that a run carries from one step to the next. network: the model, or it wrapped."""

    model: nn.Module
    network: nn.Module
    average: optim.Average
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


def train_step(state: State, feed: batches.Batched, setting: Setting) -> float:
    """One gradient step on the batch of `state.step`; its mean loss over this rank's images.

    The batch is taken in parts of `micro_batch` images, whose gradients add up. Each part has its
    own batch norm and dropout, whichever rank it falls to.
    """
    run = setting.run
    images, labels = feed.at(state.step)
    for group in state.optimiser.param_groups:
        group["lr"] = optim.learning_rate(state.step, run)
    if not state.model.training:  # as after an evaluation: it visits every layer
        state.model.train()
    seeds = dropout_seeds(run, state.step, parts(run, labels), setting.ranks)
    total = 0.0
    for loss in both_passes(state, images, labels, setting, seeds, torch.manual_seed):
        total += loss.item() / len(seeds)
    state.optimiser.step()
    state.average.update(state.step)
    state.step += 1
    return total


def parts(run: Run, labels: Tensor) -> int:
    """In how many passes a process computes its images' gradients."""
    return len(labels) // (run.scale.micro_batch or len(labels))


def dropout_seeds(run: Run, step: int, count: int, ranks: Ranks) -> list[int]:
    """A seed for each of the passes of this rank in a step."""
    first = (step * ranks.world + ranks.rank) * count
    return [optim.stream_seed(run.seed, "dropout", first + index) for index in range(count)]


def both_passes(
    state: State,
    images: Tensor,
    labels: Tensor,
    setting: Setting,
    seeds: Sequence[Any],
    seed_dropout: Callable[[Any], object],
) -> Iterator[Tensor]:
    """Forward and backward, a part of the batch for each of `seeds`; the loss of each part."""
    run, ranks, count = setting.run, setting.ranks, len(seeds)
    state.optimiser.zero_grad()
    for index, part in enumerate(zip(images.chunk(count), labels.chunk(count), strict=True)):
        if run.options.get("dropout"):
            seed_dropout(seeds[index])
        with ranks.sending(state.network, index == count - 1):
            logits = forward(state.network, part[0], run, setting.device)
            loss = setting.learns.loss(logits, part[1].to(setting.device))
            (loss if count == 1 else loss / count).backward()
        yield loss.detach()
