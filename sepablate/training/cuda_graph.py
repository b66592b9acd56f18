"""A gradient step recorded once as a CUDA graph and replayed, so that no kernel is launched."""

import functools
import threading

import torch
from torch import Tensor, nn

from sepablate.data.split import Batches
from sepablate.kernels.fuse import SeededDropout
from sepablate.training.optim import learning_rate
from sepablate.training.step import (
    TrainContext,
    TrainState,
    count_parts,
    dropout_seeds,
    eval_steps,
    forward_backward,
)

WARM_UP = 3  # steps before the recording: libraries choose and set up what they need
READ_EVERY = 20  # steps between readings of the loss, for which the processor must wait
RECORDING = threading.Lock()  # of all runs of a process: one is recorded at a time


class CudaGraphStep:
    """`step.train_step` as a CUDA graph; what changes between steps lies in the device's memory.

    A call returns the sum of the losses since the last call that returned it, or None. The loss is
    read every READ_EVERY steps, and where the curve has a point.
    """

    def __init__(self, state: TrainState, batches: Batches, context: TrainContext) -> None:
        self.state, self.batches, self.context = state, batches, context
        self.device, run = torch.device(context.device), context.run
        self.rate, self.weight, self.loss = torch.zeros(3, device=self.device).unbind()
        for group in state.optimizer.param_groups:
            group["lr"] = self.rate
        part = context.world.part(run.scale.batch_size)
        parts = count_parts(run, part.stop - part.start)
        self.seeds = torch.zeros(parts, dtype=torch.int64, device=self.device)
        self.dropouts: list[SeededDropout] = []
        for module in state.model.modules():
            if isinstance(module, nn.Dropout):
                module.__class__ = SeededDropout
            if isinstance(module, SeededDropout):
                self.dropouts.append(module)
        self.batch_counts = [
            buffer for buffer in state.model.buffers() if not buffer.is_floating_point()
        ]  # one a batch norm: they are not needed at each step
        self.read_at = {*eval_steps(run), *range(READ_EVERY, run.scale.steps, READ_EVERY)}
        self.images, self.labels = torch.empty(0), torch.empty(0)  # allocated for the first batch
        self.warmed_up = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    @functools.cached_property
    def stream(self) -> torch.cuda.Stream:
        """A step cannot be recorded on the default stream."""
        return torch.cuda.Stream(self.device)

    def __call__(self) -> float | None:
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            self.copy_inputs()
            if self.warmed_up < WARM_UP:
                with RECORDING:
                    self.compute()
                self.warmed_up += 1
            else:
                self.graph = self.graph or self._record()
                self.graph.replay()
            self.state.step += 1
            return self._read_loss() if self.state.step in self.read_at else None

    def read_loss(self) -> float:
        """Return the sum of the losses since it was read; waits for the steps that are queued."""
        with torch.cuda.stream(self.stream):
            return self._read_loss()

    def copy_inputs(self) -> None:
        """Copy what the next step needs to the device."""
        step, run = self.state.step, self.context.run
        images, labels = self.batches.batch(step)
        if self.images.shape != images.shape:
            self.images = torch.empty(images.shape, dtype=images.dtype, device=self.device)
            self.labels = torch.empty(labels.shape, dtype=labels.dtype, device=self.device)
        self.images.copy_(images, non_blocking=True)
        self.labels.copy_(labels, non_blocking=True)
        self.rate.fill_(learning_rate(step, run))
        self.weight.fill_(self.state.average.weight(step))
        seeds = dropout_seeds(run, step, len(self.seeds), self.context.world)
        for target, seed in zip(self.seeds, seeds, strict=True):
            target.fill_(seed % 2**31)
        if not self.state.model.training:
            self.state.model.train()

    def compute(self) -> None:
        """Do the step itself, with nothing that waits for the device."""
        state, parts = self.state, self.seeds.split(1)
        for loss in forward_backward(
            state, self.images, self.labels, self.context, parts, self._seed_dropout
        ):
            self.loss.add_(loss, alpha=1 / len(parts))
        state.optimizer.step()
        state.average.update_by(self.weight)

    def _record(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with (
            RECORDING,
            torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"),
        ):
            self.compute()
        return graph

    def _read_loss(self) -> float:
        torch._foreach_zero_(self.batch_counts)
        torch._foreach_add_(self.batch_counts, self.state.step * len(self.seeds))
        total = self.loss.item()
        self.loss.zero_()
        return total

    def _seed_dropout(self, seed: Tensor) -> None:
        for module in self.dropouts:
            module.seed = seed
