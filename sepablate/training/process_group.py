"""The processes that train one network together, and the collectives that they use."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """`size` processes, of which this one is number `rank`. A single process sends nothing."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Return whether this process writes the files."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Return this process's part of `count` things: contiguous, each thing exactly once."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def wrap(self, model: nn.Module, device: str) -> nn.Module:
        """Return the model in DDP, which averages gradients after each backward pass."""
        if self.size == 1:
            return model
        ids = None if device == "cpu" else [torch.device(device).index]
        return DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)

    def gradient_sync(self, network: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Return a context that sends gradients only after the last part of a batch."""
        if isinstance(network, DistributedDataParallel) and not last:
            return network.no_sync()
        return nullcontext()

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over the processes; `values` is changed in place."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def totals(self, *values: float) -> tuple[float, ...]:
        """Return the sum of each value over the processes."""
        if self.size == 1:
            return values
        return tuple(self.sum(torch.tensor(values, dtype=torch.float64)).tolist())

    def broadcast(self, value: T) -> T:
        """Return the main process's value on every process."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Return the value of every process, by rank."""
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size
        distributed.all_gather_object(values, value)
        return values

    @torch.no_grad()
    def sync_batch_norm_buffers(self, *models: nn.Module) -> None:
        """Give every process the mean of the processes' batch norm statistics.

        They are moving averages, of which the mean may be taken at any step without a difference.
        """
        if self.size > 1:
            for buffer in (buffer for model in models for buffer in model.buffers()):
                if buffer.is_floating_point():
                    self.sum(buffer).div_(self.size)


SINGLE = World()
