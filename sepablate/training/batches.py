"""Training batches as a function of (seed, step): the same in every variant and after a resume."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sepablate.data.image_files import ImageFiles
from sepablate.data.split import Batches, Split, TensorSplit
from sepablate.rng import generator
from sepablate.runs.run import Run
from sepablate.training.process_group import SINGLE, World


def make_batches(split: Split, run: Run, world: World = SINGLE, device: str = "cpu") -> Batches:
    """Return the batches of a training split: on `device` if the split is in memory."""
    if isinstance(split, ImageFiles):
        from sepablate.training.file_batches import FileBatches  # imports timm

        return FileBatches(split, run, world)
    return TensorBatches(_in_memory(split), run, world, device)


def eval_batches(split: Split, run: Run, device: str = "cpu") -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images (N, C, H, W) in [-1, 1] and labels of a split, in its order.

    Images of a split in memory are on `device`; labels are on the CPU.
    """
    if isinstance(split, ImageFiles):
        from sepablate.training.file_batches import eval_file_batches  # imports timm

        yield from eval_file_batches(split, run)
        return
    images, size = _in_memory(split), eval_batch_size(device)
    for begin in range(0, len(images), size):
        part = images[begin : begin + size]
        yield scale_images(part.images.to(device), run), part.labels


def _in_memory(split: Split) -> TensorSplit:
    if not isinstance(split, TensorSplit):
        raise TypeError(f"a split in memory or on disk, not a {type(split).__name__}")
    return split


def eval_batch_size(device: str) -> int:
    """Return how many images are evaluated at a time; a GPU needs more of them."""
    return 200 if torch.device(device).type == "cpu" else 2000


def scale_images(images: Tensor, run: Run) -> Tensor:
    """Return bytes as (N, C, H', W') floats in [-1, 1], x / 127.5 - 1 as in the paper.

    Enlarged bilinearly to the run's image size, grey repeated to its channels, if they differ.

    Args:
        images: as in `TensorSplit`; of colour, the result is in the memory format channels_last.
        run: has the image size and the channels of the result.
    """
    planes = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2)
    scaled = planes.float().div_(127.5).sub_(1)
    if run.image_size != scaled.shape[-1]:
        scaled = interpolate(scaled, size=(run.image_size,) * 2, mode="bilinear")
    return scaled.expand(-1, run.in_channels, -1, -1)


class TensorBatches:
    """Shuffled, shifted and mirrored batches of a training split in memory, drawn without state.

    The images lie on `device`, as bytes; the draws are the CPU's, so that devices agree.
    """

    def __init__(
        self, split: TensorSplit, run: Run, world: World = SINGLE, device: str = "cpu"
    ) -> None:
        self.run, self.part = run, world.part(run.scale.batch_size)
        self.device = torch.device(device)
        self.labels = split.labels.to(device)
        margins = (0, 0) * (split.images.dim() - 3) + (run.recipe.shift,) * 4
        images = torch.nn.functional.pad(split.images, margins)  # black, as the border
        self.images = images.to(device)
        self.pixels = torch.arange(split.images.shape[2], device=device)
        self.per_epoch = len(split.labels) // run.scale.batch_size
        self._epoch, self._order = -1, torch.empty(0)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the batch of gradient step `step`: (N, C, H, W) floats in [-1, 1], labels."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            draw = generator(self.run.seed, "order", epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.labels), generator=draw)
        size = self.run.scale.batch_size
        order = self._order[position * size : (position + 1) * size]
        indices = self._to_device(order[self.part])
        return scale_images(self._augmented(indices, step), self.run), self.labels[indices]

    def _augmented(self, indices: Tensor, step: int) -> Tensor:
        """Return this process's images; the draws are those of the whole batch."""
        count, recipe = self.run.scale.batch_size, self.run.recipe
        draw = generator(self.run.seed, "augment", step)
        shifts = torch.randint(0, 2 * recipe.shift + 1, (2, count, 1), generator=draw)
        mirrored = torch.rand(count, 1, generator=draw) < (0.5 if recipe.flip else 0.0)
        shifts = self._to_device(shifts[:, self.part])
        mirrored = self._to_device(mirrored[self.part])
        pixels = self.pixels
        rows = shifts[0] + pixels  # (N, H)
        columns = shifts[1] + torch.where(mirrored, pixels.flip(0), pixels)  # (N, W)
        return self.images[indices[:, None, None], rows[:, :, None], columns[:, None, :]]

    def _to_device(self, drawn: Tensor) -> Tensor:
        """Copy to the device without waiting for its work."""
        if self.device.type == "cpu":
            return drawn
        return drawn.pin_memory().to(self.device, non_blocking=True)
