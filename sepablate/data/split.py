"""Splits of a data set, in memory or on disk, and the batches that a training reads from one."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Split(Protocol):
    """Images with their labels, such as the test images of a data set."""

    @property
    def labels(self) -> Tensor:
        """(N,) int64 for one label an image; or (N, classes) uint8 of 0 and 1 for several."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> "Split": ...

    def first(self, count: int) -> "Split":
        """Return the first `count` images and their labels."""


class Batches(Protocol):
    """The batches of a training, as a function of the gradient step."""

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return this process's part of the batch of gradient step `step`, counted from 0.

        Images (N, C, H, W) are floats in [-1, 1]; labels are (N,) or (N, classes).
        """


@dataclass(frozen=True)
class TensorSplit:
    """A split in memory.

    Args:
        images: uint8, (N, H, W) in grey or (N, H, W, 3) in colour.
        labels: as in `Split`.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, part: slice) -> "TensorSplit":
        return TensorSplit(self.images[part], self.labels[part])

    def first(self, count: int) -> "TensorSplit":
        """Return the first `count` images and their labels."""
        return self[:count]
