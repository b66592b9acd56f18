"""Training batches as a function of (seed, step): the same in every variant and after a resume."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sepablate.data.split import TensorSplit
from sepablate.runs.run import Run
from sepablate.training.optim import generator
from sepablate.training.process_group import ALONE, Ranks


class Batched(Protocol):
    """What a training reads its batches from."""

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """This process's part of the batch of gradient step `step`: images and labels."""


def training(split: Any, run: Run, ranks: Ranks = ALONE, device: str = "cpu") -> Batched:
    """The batches of a training split: on `device` if it is in memory, not if it is on disk."""
    if isinstance(split, TensorSplit):
        return Batches(split, run, ranks, device)
    from sepablate.training.file_batches import FileBatches

    return FileBatches(split, run, ranks.rank, ranks.world)


def evaluation(split: Any, run: Run, device: str = "cpu") -> Iterator[tuple[Tensor, Tensor]]:
    """Images (N, C, H, W) in [-1, 1] and labels of a split, in its order, in batches.

    Those of a split in memory are on `device`; the labels are not.
    """
    if not isinstance(split, TensorSplit):
        from sepablate.training.file_batches import evaluation_batches

        yield from evaluation_batches(split, run)
        return
    size = evaluation_batch(device)
    for begin in range(0, len(split), size):
        part = split[begin : begin + size]
        yield scaled_to_unit(part.images.to(device), run), part.labels


def evaluation_batch(device: str) -> int:
    """Images that are evaluated at a time; a GPU wants more of them."""
    return 200 if torch.device(device).type == "cpu" else 2000


def scaled_to_unit(images: Tensor, run: Run) -> Tensor:
    """(N, H, W) bytes to (N, C, H', W') floats in [-1, 1], as x / 127.5 - 1 in the paper's code.

    Enlarged bilinearly to the run's image size, grey repeated to its channels, if they differ.
    """
    scaled = images.unsqueeze(1).float().div_(127.5).sub_(1)
    if run.image_size != scaled.shape[-1]:
        scaled = interpolate(scaled, size=(run.image_size,) * 2, mode="bilinear")
    return scaled.expand(-1, run.options["in_channels"], -1, -1)


class Batches:
    """Shuffled, shifted and mirrored batches of the training split, drawn without any state.

    The images lie on `device`, as bytes; the draws are the CPU's, so that devices agree.
    """

    def __init__(
        self, split: TensorSplit, run: Run, ranks: Ranks = ALONE, device: str = "cpu"
    ) -> None:
        self.run, self.part = run, ranks.part(run.scale.batch_size)
        self.device = torch.device(device)
        self.labels = split.labels.to(device)
        margin = run.recipe.shift
        images = torch.nn.functional.pad(split.images, (margin,) * 4)  # black, as the border
        self.images = images.to(device)
        self.pixels = torch.arange(split.images.shape[-1], device=device)
        self.per_epoch = len(split.labels) // run.scale.batch_size
        self._epoch, self._order = -1, torch.empty(0)

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of gradient step `step`: (N, C, H, W) floats in [-1, 1] and their labels."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            draw = generator(self.run.seed, "order", epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.labels), generator=draw)
        size = self.run.scale.batch_size
        order = self._order[position * size : (position + 1) * size]
        chosen = self._sent(order[self.part])
        return scaled_to_unit(self._augmented(chosen, step), self.run), self.labels[chosen]

    def _augmented(self, chosen: Tensor, step: int) -> Tensor:
        """This process's part; the draws are those of the whole batch."""
        count, recipe = self.run.scale.batch_size, self.run.recipe
        draw = generator(self.run.seed, "augment", step)
        shifts = torch.randint(0, 2 * recipe.shift + 1, (2, count, 1), generator=draw)
        mirrored = torch.rand(count, 1, generator=draw) < (0.5 if recipe.flip else 0.0)
        shifts, mirrored = self._sent(shifts[:, self.part]), self._sent(mirrored[self.part])
        pixels = self.pixels
        rows = shifts[0] + pixels  # (N, H)
        columns = shifts[1] + torch.where(mirrored, pixels.flip(0), pixels)  # (N, W)
        return self.images[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]

    def _sent(self, drawn: Tensor) -> Tensor:
        """To the device, without waiting for what it does."""
        if self.device.type == "cpu":
            return drawn
        return drawn.pin_memory().to(self.device, non_blocking=True)
