"""Interfaces of data: a split of a data set, and its training batches."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Split(Protocol):
    """Images of a data set, in memory or on disk, with their labels.

    labels: (N,) int64, or (N, classes) uint8 of 0 and 1.
    """

    @property
    def labels(self) -> Tensor: ...

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice) -> "Split": ...

    def first(self, count: int) -> "Split":
        """Return the first `count` images and their labels."""


class Batches(Protocol):
    """Training batches as a function of the step."""

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return images (N, C, H, W) in [-1, 1] and labels: this process's part of a batch."""


@dataclass(frozen=True)
class TensorSplit:
    """A split in memory: images (N, H, W) uint8; labels (N,) int64, or (N, classes) uint8."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, part: slice) -> "TensorSplit":
        return TensorSplit(self.images[part], self.labels[part])

    def first(self, count: int) -> "TensorSplit":
        """Return the first `count` images and their labels."""
        return self[:count]
