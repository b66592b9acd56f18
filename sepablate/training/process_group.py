"""The processes that train one network together, and what they tell each other."""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Ranks:
    """`world` processes, of which this is number `rank`; alone, nothing is sent."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """The part of `count` things that is this process's: contiguous, each exactly once."""
        return slice(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def wrapped(self, model: nn.Module, device: str) -> nn.Module:
        """The model with gradients averaged over the processes after each backward pass."""
        if self.world == 1:
            return model
        ids = None if device == "cpu" else [torch.device(device).index]
        return DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)

    def sending(self, network: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Where a backward pass sends its gradients: only after the last part of a batch."""
        if isinstance(network, DistributedDataParallel) and not last:
            return network.no_sync()
        return nullcontext()

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes; `values` is changed in place."""
        if self.world > 1:
            distributed.all_reduce(values)
        return values

    def totals(self, *values: float) -> tuple[float, ...]:
        """The sum of each value over the processes."""
        if self.world == 1:
            return values
        return tuple(self.sum(torch.tensor(values, dtype=torch.float64)).tolist())

    @torch.no_grad()
    def same_statistics(self, *models: nn.Module) -> None:
        """Give every process the mean of their batch-norm statistics.

        They are moving averages, of which the mean may be taken at any step without a difference.
        """
        if self.world > 1:
            for buffer in (buffer for model in models for buffer in model.buffers()):
                if buffer.is_floating_point():
                    self.sum(buffer).div_(self.world)


ALONE = Ranks()


def join(environment: Any = os.environ) -> Ranks:
    """The processes that torchrun has started, connected; ALONE if it has not."""
    if "TORCHELASTIC_RUN_ID" not in environment:
        return ALONE
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return Ranks(distributed.get_rank(), distributed.get_world_size())
