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
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sepablate.data.image_files import ImageFiles
from sepablate.errors import UserError
from sepablate.rng import generator, stream_seed
from sepablate.runs.run import Run
from sepablate.training.process_group import SINGLE, World

CROP = 0.897  # 299 of 333 pixels
HALF = (0.5, 0.5, 0.5)
SHARED_MEMORY = Path("/dev/shm")
WAITING = 3  # batches of a worker: two wait, one is made
CHUNK = 64  # images that a worker returns at once: two such chunks a worker wait in memory
NORMALIZATION: dict[str, Any] = {"interpolation": "bicubic", "mean": HALF, "std": HALF}

Batch = tuple[Tensor, Tensor]  # (N, 3, S, S) float32, and the labels
Transform = Callable[[Image.Image], Tensor]
Index = TypeVar("Index")


class FileBatches:
    """Shuffled and augmented batches of a training split; each process gets its part of them."""

    def __init__(self, split: ImageFiles, run: Run, world: World = SINGLE) -> None:
        scale = run.scale
        if scale.batch_size % world.size:
            raise UserError(
                f"scale {run.scale_name!r}: batch_size: {scale.batch_size}: choose a multiple of "
                f"the {world.size} processes"
            )
        self.run, self.count = run, scale.images
        self.part = world.part(scale.batch_size)
        augmentation: dict[str, Any] = {
            "hflip": 0.5 if run.recipe.flip else 0.0,
            "color_jitter": None,
        }
        transform = create_transform(
            run.image_size, is_training=True, **augmentation, **NORMALIZATION
        )
        self.images = AugmentedImages(split.first(scale.images), transform, run.seed)
        self._iterator: Iterator[Batch] = iter(())
        self._next = -1

    def batch(self, step: int) -> Batch:
        """Return the batch of gradient step `step`: (N, 3, S, S) floats in [-1, 1], labels.

        Consecutive steps are read ahead; any other step starts the workers again.
        """
        if step != self._next:
            chunks = (chunk for batch in self._indices(step) for chunk in batch)
            size = CHUNK * image_bytes(self.run.image_size)
            self._iterator = read_batches(self.images, chunks, self.run.scale.workers, size)
        self._next = step + 1
        parts = [next(self._iterator) for _ in range(0, self.part.stop - self.part.start, CHUNK)]
        images, labels = zip(*parts, strict=True)
        return torch.cat(images), torch.cat(labels)

    def _indices(self, first: int) -> Iterator[list[list[tuple[int, int]]]]:
        """Yield, for each step's batch, this process's part as chunks of (epoch, index)."""
        size, drawn_epoch = self.run.scale.batch_size, -1
        for step in range(first, max(first + 1, self.run.scale.steps)):
            epoch, position = divmod(step, self.count // size)
            if epoch != drawn_epoch:
                draw = generator(self.run.seed, "order", epoch)
                order, drawn_epoch = torch.randperm(self.count, generator=draw), epoch
            part = order[position * size : (position + 1) * size][self.part]
            yield [[(epoch, index) for index in chunk.tolist()] for chunk in part.split(CHUNK)]


def eval_file_batches(split: ImageFiles, run: Run) -> Iterator[Batch]:
    """Yield all images of a split, in order, cropped and scaled for evaluation."""
    transform = create_transform(run.image_size, crop_pct=CROP, **NORMALIZATION)
    return plain_batches(split, transform, CHUNK, run.scale.workers, run.image_size)


def plain_batches(
    split: ImageFiles, transform: Transform, batch_size: int, workers: int, size: int
) -> Iterator[Batch]:
    """Yield all images, in order, each through `transform`, which makes them `size` pixels wide."""
    indices = range(len(split))
    batches = (list(indices[start : start + batch_size]) for start in indices[::batch_size])
    batch_bytes = batch_size * image_bytes(size)
    return read_batches(PlainImages(split, transform), batches, workers, batch_bytes)


class PlainImages(Dataset[Batch]):
    """Images by index, each through `transform`, with their labels."""

    def __init__(self, split: ImageFiles, transform: Transform) -> None:
        self.split, self.transform = split, transform

    def __getitem__(self, index: int) -> Batch:
        return self.transform(self.split.read(index)), self.split.labels[index]


class AugmentedImages(Dataset[Batch]):
    """Images by (epoch, index), with a random stream of its own for each such pair."""

    def __init__(self, split: ImageFiles, transform: Transform, seed: int) -> None:
        self.images, self.seed = PlainImages(split, transform), seed

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        with seeded(stream_seed(self.seed, "augment", *place)):
            return self.images[place[1]]


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


def read_batches(
    images: Dataset[Batch], batches: Iterable[list[Index]], workers: int, batch_bytes: int
) -> Iterator[Batch]:
    """Yield the images of each list of indices; UserError names an image that cannot be read.

    Args:
        images: by index.
        batches: lists of indices.
        workers: processes that read; fewer if shared memory has no room for their batches.
        batch_bytes: the size of a batch.
    """
    workers = _fitting_workers(workers, batch_bytes)
    loader: DataLoader[Batch] = DataLoader(
        images,
        batch_sampler=batches,
        num_workers=workers,
        # A trainer among others would start them from nothing, torch and all, at each evaluation.
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=_leave_process_group,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # or it draws from the global one
    )
    iterator = iter(loader)
    while True:
        try:
            loaded, labels = next(iterator)
        except StopIteration:
            return
        except UserError as error:  # a worker adds its traceback
            raise UserError(str(error).rpartition("UserError: ")[2].strip()) from None
        yield loaded, labels


def _fitting_workers(workers: int, batch_bytes: int) -> int:
    """Return how many workers can pass on their batches; a container may have 64 MB for that."""
    if not workers or not SHARED_MEMORY.is_dir():
        return workers
    fitting = shutil.disk_usage(SHARED_MEMORY).free // (WAITING * batch_bytes)
    if fitting < workers:
        line = f"{SHARED_MEMORY} is too small for {workers} loader processes; using {fitting}"
        print(f"sepablate: {line}", file=sys.stderr)
    return min(workers, fitting)


def image_bytes(size: int) -> int:
    """Return the bytes of an image of `size` x `size` pixels as the network gets it."""
    return 4 * 3 * size**2


def _leave_process_group(_: int) -> None:
    """Survive a signal to the trainer's whole group: the trainer ends its workers itself.

    Workers end when it tells them to, or five seconds after it is gone.
    """
    os.setpgid(0, 0)
