"""Training batches as a function of (seed, step): the same in every variant and after a resume."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sepablate.data.fashion_mnist import Split
from sepablate.training.ranks import ALONE, Ranks
from sepablate.training.recipe import generator
from sepablate.training.run import Run

EVALUATION_BATCH = 200


class Batched(Protocol):
    """What a training reads its batches from."""

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """This process's part of the batch of gradient step `step`: images and labels."""


def training(split: Any, run: Run, ranks: Ranks = ALONE) -> Batched:
    """The batches of a training split, in memory or on disk."""
    if isinstance(split, Split):
        return Batches(split, run, ranks)
    from sepablate.training.loader import FileBatches

    return FileBatches(split, run, ranks.rank, ranks.world)


def evaluation(split: Any, run: Run) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (N, C, H, W) in [-1, 1] and labels of a split, in its order, in batches."""
    if not isinstance(split, Split):
        from sepablate.training.loader import evaluation_batches

        yield from evaluation_batches(split, run)
        return
    for begin in range(0, len(split), EVALUATION_BATCH):
        part = split[begin : begin + EVALUATION_BATCH]
        yield scaled_to_unit(part.images, run), part.labels


def scaled_to_unit(images: Tensor, run: Run) -> Tensor:
    """(N, H, W) bytes to (N, C, H', W') floats in [-1, 1], as x / 127.5 - 1 in the paper's code.

    Enlarged bilinearly to the run's image size, grey repeated to its channels, if they differ.
    """
    scaled = images.unsqueeze(1).float().div_(127.5).sub_(1)
    if run.image_size != scaled.shape[-1]:
        scaled = interpolate(scaled, size=(run.image_size,) * 2, mode="bilinear")
    return scaled.expand(-1, run.options["in_channels"], -1, -1)


class Batches:
    """Shuffled, shifted and mirrored batches of the training split, drawn without any state."""

    def __init__(self, split: Split, run: Run, ranks: Ranks = ALONE) -> None:
        self.run, self.part = run, ranks.part(run.scale.batch_size)
        self.labels = split.labels
        margin = run.recipe.shift
        self.images = torch.nn.functional.pad(split.images, (margin,) * 4)  # black, as the border
        self.size = split.images.shape[-1]
        self.per_epoch = len(split.labels) // run.scale.batch_size
        self._epoch, self._order = -1, torch.empty(0)

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of gradient step `step`: (N, C, H, W) floats in [-1, 1] and their labels."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            draw = generator(self.run.seed, "order", epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.labels), generator=draw)
        size = self.run.scale.batch_size
        chosen = self._order[position * size : (position + 1) * size]
        images = self._augmented(chosen, step)
        return scaled_to_unit(images, self.run), self.labels[chosen[self.part]]

    def _augmented(self, chosen: Tensor, step: int) -> Tensor:
        """This process's part; the draws are those of the whole batch."""
        count, recipe = len(chosen), self.run.recipe
        draw = generator(self.run.seed, "augment", step)
        shifts = torch.randint(0, 2 * recipe.shift + 1, (2, count, 1), generator=draw)
        mirrored = torch.rand(count, 1, generator=draw) < (0.5 if recipe.flip else 0.0)
        chosen, shifts, mirrored = chosen[self.part], shifts[:, self.part], mirrored[self.part]
        pixels = torch.arange(self.size)
        rows = shifts[0] + pixels  # (N, H)
        columns = shifts[1] + torch.where(mirrored, pixels.flip(0), pixels)  # (N, W)
        return self.images[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
