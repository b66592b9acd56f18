"""Training batches as a function of (seed, step): the same in every variant and after a resume."""

import torch

from sepablate.data.fashion_mnist import Split
from sepablate.training.recipe import generator
from sepablate.training.run import Run


def scaled_to_unit(images: torch.Tensor) -> torch.Tensor:
    """(N, H, W) bytes to (N, 1, H, W) floats in [-1, 1], as x / 127.5 - 1 in the paper's code."""
    return images.unsqueeze(1).float().div_(127.5).sub_(1)


class Batches:
    """Shuffled, shifted and mirrored batches of the training split, drawn without any state."""

    def __init__(self, split: Split, run: Run) -> None:
        self.run = run
        self.labels = split.labels
        margin = run.recipe.shift
        self.images = torch.nn.functional.pad(split.images, (margin,) * 4)  # black, as the border
        self.size = split.images.shape[-1]
        self.per_epoch = len(split.labels) // run.scale.batch_size
        self._epoch, self._order = -1, torch.empty(0)

    def at(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The batch of gradient step `step`: (N, 1, H, W) floats in [-1, 1] and (N,) labels."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            draw = generator(self.run.seed, "order", epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.labels), generator=draw)
        size = self.run.scale.batch_size
        chosen = self._order[position * size : (position + 1) * size]
        return scaled_to_unit(self._augmented(chosen, step)), self.labels[chosen]

    def _augmented(self, chosen: torch.Tensor, step: int) -> torch.Tensor:
        count, recipe = len(chosen), self.run.recipe
        draw = generator(self.run.seed, "augment", step)
        shifts = torch.randint(0, 2 * recipe.shift + 1, (2, count, 1), generator=draw)
        mirrored = torch.rand(count, 1, generator=draw) < (0.5 if recipe.flip else 0.0)
        pixels = torch.arange(self.size)
        rows = shifts[0] + pixels  # (N, H)
        columns = shifts[1] + torch.where(mirrored, pixels.flip(0), pixels)  # (N, W)
        return self.images[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
