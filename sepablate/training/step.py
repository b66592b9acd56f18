"""One gradient step, the state that it changes, and the evaluation of a network."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from sepablate.data.split import Batches, Split
from sepablate.rng import stream_seed
from sepablate.runs.run import Run
from sepablate.store.run_files import Row
from sepablate.training.batches import eval_batches
from sepablate.training.ema import EMA
from sepablate.training.inference import inference_network
from sepablate.training.objective import Objective
from sepablate.training.optim import learning_rate
from sepablate.training.process_group import SINGLE, World

SAVED = ("step", "loss_sum", "seconds", "rows", "times")
Seed = TypeVar("Seed", int, Tensor)


class Stateful(Protocol):
    """A model or an optimizer, as far as a checkpoint needs it."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> object: ...


@dataclass
class TrainState:
    """Everything that a run carries from one step to the next.

    Args:
        model: the network.
        network: the same, or wrapped in DDP.
        average: the moving average of its weights.
        loss_sum: of the losses since the last point of the curve.
        seconds: of training and evaluation so far, resumes included.
        times: [step, Unix time in milliseconds] of each point of the curve.
    """

    model: nn.Module
    network: nn.Module
    average: EMA
    optimizer: torch.optim.Optimizer
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    times: list[list[int]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return tensors and plain numbers only, for a checkpoint."""
        state = {key: getattr(self, key) for key in SAVED}
        return state | {key: module.state_dict() for key, module in self._stateful().items()}

    def restore(self, saved: dict[str, Any]) -> None:
        """Continue from what `to_dict` returned."""
        for key in SAVED:
            setattr(self, key, saved[key])
        for key, module in self._stateful().items():
            module.load_state_dict(saved[key])

    @staticmethod
    def problem(saved: dict[str, Any], run: Run) -> str | None:
        """Return why `restore` must not take a checkpoint; None if it is one of this run."""
        key, step, loss_sum = (saved.get(name) for name in ("run_key", "step", "loss_sum"))
        if key != run.key:
            return f"of another run ({key})"
        if not isinstance(step, int) or not 0 < step <= run.scale.steps:
            return f"step {step!r} of a run of {run.scale.steps} steps"
        numbers = [torch.tensor(loss_sum), *saved["model"].values(), *saved["average"].values()]
        return None if all(bool(each.isfinite().all()) for each in numbers) else "not finite"

    def _stateful(self) -> dict[str, Stateful]:
        return {"model": self.model, "average": self.average.model, "optimizer": self.optimizer}


@dataclass(frozen=True)
class TrainContext:
    """Everything that stays the same during a run."""

    run: Run
    objective: Objective
    device: str = "cpu"
    world: World = SINGLE


def train_step(state: TrainState, batches: Batches, context: TrainContext) -> float:
    """Do one gradient step on the batch of `state.step`; return this process's mean loss.

    The batch is taken in parts of `micro_batch` images, whose gradients add up. Each part has its
    own batch norm and dropout, whichever process computes it.
    """
    run = context.run
    images, labels = batches.batch(state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(state.step, run)
    if not state.model.training:  # after an evaluation; `train` visits every layer
        state.model.train()
    seeds = dropout_seeds(run, state.step, count_parts(run, len(labels)), context.world)
    mean_loss = 0.0
    for loss in forward_backward(state, images, labels, context, seeds, torch.manual_seed):
        mean_loss += loss.item() / len(seeds)
    state.optimizer.step()
    state.average.update(state.step)
    state.step += 1
    return mean_loss


def forward_backward(
    state: TrainState,
    images: Tensor,
    labels: Tensor,
    context: TrainContext,
    seeds: Sequence[Seed],
    seed_dropout: Callable[[Seed], object],
) -> Iterator[Tensor]:
    """Compute gradients for one part of the batch per seed; yield each part's loss."""
    run, world, count = context.run, context.world, len(seeds)
    state.optimizer.zero_grad()
    parts = zip(images.chunk(count), labels.chunk(count), seeds, strict=True)
    for index, (part_images, part_labels, seed) in enumerate(parts):
        if run.dropout:
            seed_dropout(seed)
        with world.gradient_sync(state.network, last=index == count - 1):
            logits = forward(state.network, part_images, run, context.device)
            loss = context.objective.loss(logits, part_labels.to(context.device))
            (loss if count == 1 else loss / count).backward()
        yield loss.detach()


def forward(model: nn.Module, images: Tensor, run: Run, device: str) -> Tensor:
    """Return logits (N, classes) in float32, computed in the run's precision, channels last."""
    images = images.to(device, memory_format=torch.channels_last)
    if run.precision == "fp32":
        return _logits(model, images)
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        return _logits(model, images).float()


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = model(images)
    return logits


@torch.inference_mode()
def evaluate(model: nn.Module, split: Split, context: TrainContext) -> Tensor:
    """Return (N,) float64: the score of each image of the split, each computed by one process."""
    run, world = context.run, context.world
    network = inference_network(model, run)
    part = world.part(len(split))
    scores = torch.zeros(len(split), dtype=torch.float64)
    computed = [
        context.objective.scores(forward(network, images, run, context.device), labels)
        for images, labels in eval_batches(split[part], run, context.device)
    ]
    if computed:
        scores[part] = torch.cat(computed)
    return world.sum(scores)


def count_parts(run: Run, images: int) -> int:
    """Return in how many passes a process computes the gradients of its images."""
    return images // (run.scale.micro_batch or images)


def dropout_seeds(run: Run, step: int, count: int, world: World) -> list[int]:
    """Return a seed for each of this process's passes in a step."""
    first = (step * world.size + world.rank) * count
    return [stream_seed(run.seed, "dropout", first + index) for index in range(count)]


def eval_steps(run: Run) -> set[int]:
    """Return the regular steps at which the curve is evaluated, the last one included."""
    count = run.scale.evaluations
    return {run.scale.steps * (index + 1) // count for index in range(count)}
