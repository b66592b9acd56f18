"""One batch for all gradient steps, so that loading images is no part of a measured time."""

import torch
from torch import Tensor

from sepablate.runs.run import Run
from sepablate.training.detection import by_task


class FixedBatch:
    """The same images (N, C, H, W) in [-1, 1] and labels at every step."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the batch, at any step."""
        return self.images, self.labels


def random_batch(run: Run, size: int) -> FixedBatch:
    """Draw `size` random images and labels of a run's shape, from its seed."""
    draw = torch.Generator().manual_seed(run.seed)
    shape = (size, run.options["in_channels"], run.image_size, run.image_size)
    images = torch.rand(shape, generator=draw) * 2 - 1
    return FixedBatch(images, by_task.random_labels(run, size, draw))
