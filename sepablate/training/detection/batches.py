"""Batches of images with boxes: those of `batches`, and images that are read from disk.

Images from disk are stretched to the data set's size, as the published detectors have it, to which
their boxes are scaled; and mirrored at random, if the recipe says so.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from sepablate.data.image_files import ImageFiles
from sepablate.data.split import Batches, Split
from sepablate.errors import UserError
from sepablate.rng import generator
from sepablate.runs.run import Run
from sepablate.training import batches
from sepablate.training.file_batches import (
    CHUNK,
    HALF,
    Batch,
    FileBatches,
    PlainImages,
    plain_batches,
)
from sepablate.training.process_group import SINGLE, World


def make_batches(split: Split, run: Run, world: World = SINGLE, device: str = "cpu") -> Batches:
    """Return the batches of a training split, as `batches.make_batches`.

    Raises UserError for a recipe that moves images, whose boxes would stay.
    """
    if run.recipe.shift or (run.recipe.flip and not isinstance(split, ImageFiles)):
        raise UserError(
            f"recipe {run.recipe_name!r}: shift {run.recipe.shift}, flip {run.recipe.flip}: choose "
            "0 and false for the detection of objects"
        )
    if not isinstance(split, ImageFiles):
        return batches.make_batches(split, run, world, device)
    return BoxBatches(split, run, world)


def eval_batches(split: Split, run: Run, device: str = "cpu") -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and labels of a split in its order, as `batches.eval_batches`."""
    if not isinstance(split, ImageFiles):
        return batches.eval_batches(split, run, device)
    return plain_batches(split, stretch(run), CHUNK, run.scale.workers, run.image_size)


def stretch(run: Run) -> v2.Compose:
    """Return a transform of an image to (3, S, S) floats in [-1, 1], where S is the run's size."""
    return v2.Compose(
        [
            v2.Resize([run.image_size] * 2),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(HALF, HALF),
        ]
    )


class BoxBatches(FileBatches):
    """Shuffled batches of images from disk; each process gets its part of them."""

    def __init__(self, split: ImageFiles, run: Run, world: World = SINGLE) -> None:
        super().__init__(split, run, world)
        self.images = MirroredImages(split.first(run.scale.images), run)  # type: ignore[assignment]


class MirroredImages(Dataset[Batch]):
    """Images by (epoch, index), mirrored with their boxes if the random stream of that says so."""

    def __init__(self, split: ImageFiles, run: Run) -> None:
        self.images, self.run = PlainImages(split, stretch(run)), run

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        image, labels = self.images[place[1]]
        draw = generator(self.run.seed, "augment", *place)
        if not self.run.recipe.flip or torch.rand((), generator=draw) >= 0.5:
            return image, labels
        mirrored = labels.clone()
        mirrored[:, 1] = self.run.image_size - labels[:, 3]
        mirrored[:, 3] = self.run.image_size - labels[:, 1]
        return image.flip(2), torch.where(labels[:, :1] >= 0, mirrored, labels)
