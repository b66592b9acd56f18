"""Batches of images that are read from disk, as a function of (seed, step), as in `batches`.

Neither the number of worker processes nor a resume changes an image: each has a seed of its own.

Training images: a random crop of 8 to 100 % of the area and of aspect ratio 3/4 to 4/3, resized
bicubically, and mirrored at random (timm's defaults without its change of colours; the paper gives
no augmentation). Evaluation: one central crop, after a resize to size / 0.897. Both are scaled to
x / 127.5 - 1.
"""

# timm's create_transform is used; its create_loader is not, for it cannot resume exactly:
# - The order comes from a sampler that draws a whole epoch, so step k is reached by reading k - 1
#   batches; and workers seed their draws by their own number, once when they start.
# - Its distributed sampler for evaluation repeats images where the ranks do not divide them.
# - Its data sets pass over an unreadable image and give the next one, with a warning.

import os
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sepablate.data.image_files import ImageFiles
from sepablate.errors import UserError
from sepablate.runs.run import Run
from sepablate.training.optim import generator, stream_seed
from sepablate.training.process_group import Ranks

CROP = 0.897  # 299 of 333 pixels
HALF = (0.5, 0.5, 0.5)
CHUNK = 64  # images that a worker hands over at once: two such chunks a worker wait in memory
LOOK: dict[str, Any] = {"interpolation": "bicubic", "mean": HALF, "std": HALF}

Batch = tuple[Tensor, Tensor]  # (N, 3, S, S) float32, and the labels


class FileBatches:
    """Shuffled and augmented batches of a training split; each rank gets its part of each batch."""

    def __init__(self, split: ImageFiles, run: Run, rank: int = 0, world: int = 1) -> None:
        scale = run.scale
        if len(split) < scale.images:
            raise UserError(
                f"scale {run.scale_name!r}: images: {scale.images}: choose at most the "
                f"{len(split)} training images of {split.folder}"
            )
        if scale.batch_size % world:
            raise UserError(
                f"scale {run.scale_name!r}: batch_size: {scale.batch_size}: choose a multiple of "
                f"the {world} processes"
            )
        self.run, self.count = run, scale.images
        self.part = Ranks(rank, world).part(scale.batch_size)
        drawn: dict[str, Any] = {"hflip": 0.5 if run.recipe.flip else 0.0, "color_jitter": None}
        transform = create_transform(run.image_size, is_training=True, **drawn, **LOOK)
        self.images = Augmented(split.first(scale.images), transform, run.seed)
        self._iterator: Iterator[Batch] = iter(())
        self._next = -1

    def at(self, step: int) -> Batch:
        """The batch of gradient step `step`: (N, 3, S, S) floats in [-1, 1], and (N, ...) labels.

        Steps one after the other are read ahead; any other step starts the workers anew.
        """
        if step != self._next:
            chunks = (each for later in self._from(step) for each in later)
            self._iterator = in_order(self.images, chunks, self.run.scale.workers)
        self._next = step + 1
        parts = [next(self._iterator) for _ in range(0, self.part.stop - self.part.start, CHUNK)]
        images, labels = zip(*parts, strict=True)
        return torch.cat(images), torch.cat(labels)

    def _from(self, first: int) -> Iterator[list[list[tuple[int, int]]]]:
        """Epoch and index of each image of this rank's part, in chunks, of each step's batch."""
        size, drawn = self.run.scale.batch_size, -1
        for step in range(first, max(first + 1, self.run.scale.steps)):
            epoch, position = divmod(step, self.count // size)
            if epoch != drawn:
                draw = generator(self.run.seed, "order", epoch)
                order, drawn = torch.randperm(self.count, generator=draw), epoch
            chosen = order[position * size : (position + 1) * size][self.part]
            yield [[(epoch, index) for index in each.tolist()] for each in chosen.split(CHUNK)]


def evaluation_batches(
    split: ImageFiles, run: Run, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """The images of this rank's part of the split, in order; over all ranks, each exactly once."""
    transform = create_transform(run.image_size, crop_pct=CROP, **LOOK)
    mine = split[Ranks(rank, world).part(len(split))]
    return plain_batches(mine, transform, CHUNK, run.scale.workers)


def plain_batches(
    split: ImageFiles, transform: Any, batch_size: int, workers: int
) -> Iterator[Batch]:
    """All images, in order, each through `transform`."""
    every = range(len(split))
    places = (list(every[start : start + batch_size]) for start in every[::batch_size])
    return in_order(Plain(split, transform), places, workers)


class Plain(Dataset[Batch]):
    """Each image through `transform`, with its label."""

    def __init__(self, split: ImageFiles, transform: Any) -> None:
        self.split, self.transform = split, transform

    def __getitem__(self, index: int) -> Batch:
        return self.transform(self.split.read(index)), self.split.labels[index]


class Augmented(Plain):
    """The same, by (epoch, index), with draws of their own for each such pair."""

    def __init__(self, split: ImageFiles, transform: Any, seed: int) -> None:
        super().__init__(split, transform)
        self.seed = seed

    def __getitem__(self, place: tuple[int, int]) -> Batch:  # type: ignore[override]
        with seeded(stream_seed(self.seed, "augment", *place)):
            return super().__getitem__(place[1])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed, and afterwards restore, the global generators that the transforms draw from.

    They are Python's and torch's on the CPU; numpy's is drawn from by no transform used here.
    """
    python, cpu = random.getstate(), torch.get_rng_state()
    random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        torch.set_rng_state(cpu)


def in_order(images: Dataset[Batch], places: Iterable[list[Any]], workers: int) -> Iterator[Batch]:
    """A batch of each list of places; UserError names an image that cannot be read."""
    loader = DataLoader(
        images,
        batch_sampler=places,
        num_workers=workers,
        # A trainer beside others would start them from nothing, torch and all, at each evaluation.
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=_leave_the_group,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # or it draws from the global one
    )
    batches = iter(loader)
    while True:
        try:
            yield tuple(next(batches))
        except StopIteration:
            return
        except UserError as error:  # a worker adds its traceback
            raise UserError(str(error).rpartition("UserError: ")[2].strip()) from None


def _leave_the_group(_: int) -> None:
    """A signal to the trainer's whole group must not take the workers away before the trainer.

    They end when it tells them to, or five seconds after it is gone.
    """
    os.setpgid(0, 0)
