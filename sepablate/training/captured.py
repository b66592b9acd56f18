"""A gradient step recorded once as a CUDA graph and replayed, so that no kernel is launched."""

import functools
import threading

import torch
from torch import Tensor, nn

from sepablate.kernels.fuse import SeededDropout
from sepablate.training import batches, engine, recipe, step
from sepablate.training.evaluation import Setting

WARM = 3  # steps before the recording: libraries choose and set up what they need
READ = 20  # steps between looks at the loss, for which the processor must wait
RECORDING = threading.Lock()  # of all runs of a process: one is recorded at a time


class Captured:
    """One step a call, as `step.train_step` computes it, on a GPU; what changes from one step to
    the next lies in the device's memory.

    A call gives the sum of the losses since the last one that gave it, or None. The loss is read
    every READ steps, and where the curve has a point.
    """

    def __init__(self, state: step.State, feed: batches.Batched, setting: Setting) -> None:
        self.state, self.feed, self.setting = state, feed, setting
        self.device, run = torch.device(setting.device), setting.run
        self.rate, self.weight, self.loss = torch.zeros(3, device=self.device).unbind()
        for group in state.optimiser.param_groups:
            group["lr"] = self.rate
        self.images, self.labels = (
            torch.empty(part.shape, dtype=part.dtype, device=self.device)
            for part in feed.at(state.step)
        )
        parts = step.parts(run, self.labels)
        self.seeds = torch.zeros(parts, dtype=torch.int64, device=self.device)
        self.dropouts = [each for each in state.model.modules() if isinstance(each, nn.Dropout)]
        for module in self.dropouts:
            module.__class__ = SeededDropout
        self.counts = [
            buffer for buffer in state.model.buffers() if not buffer.is_floating_point()
        ]  # of batches, one a batch norm: nobody needs them at each step
        self.read_at = {*engine.evaluation_steps(run), *range(READ, run.scale.steps, READ)}
        self.warmed = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    @functools.cached_property
    def stream(self) -> torch.cuda.Stream:
        """A step cannot be recorded on the stream that all use."""
        return torch.cuda.Stream(self.device)

    def __call__(self) -> float | None:
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            self.send()
            if self.warmed < WARM:
                with RECORDING:
                    self.compute()
                self.warmed += 1
            else:
                self.graph = self.graph or self._recorded()
                self.graph.replay()
            self.state.step += 1
            if self.state.step not in self.read_at:
                return None
            torch._foreach_zero_(self.counts)
            torch._foreach_add_(self.counts, self.state.step * len(self.seeds))
            found = self.loss.item()
            self.loss.zero_()
            return found

    def send(self) -> None:
        """Bring to the device what the next step needs to know."""
        number, run = self.state.step, self.setting.run
        images, labels = self.feed.at(number)
        self.images.copy_(images, non_blocking=True)
        self.labels.copy_(labels, non_blocking=True)
        self.rate.fill_(recipe.learning_rate(number, run))
        self.weight.fill_(self.state.average.weight(number))
        seeds = step.dropout_seeds(run, number, len(self.seeds), self.setting.ranks)
        for place, seed in zip(self.seeds, seeds, strict=True):
            place.fill_(seed % 2**31)
        if not self.state.model.training:
            self.state.model.train()

    def compute(self) -> None:
        """The step itself, with nothing that waits for the device or asks it."""
        state, parts = self.state, self.seeds.split(1)
        for loss in step.both_passes(
            state, self.images, self.labels, self.setting, parts, self._seed_dropout
        ):
            self.loss.add_(loss, alpha=1 / len(parts))
        state.optimiser.step()
        state.average.update_by(self.weight)

    def _recorded(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with (
            RECORDING,
            torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"),
        ):
            self.compute()
        return graph

    def _seed_dropout(self, seed: Tensor) -> None:
        for module in self.dropouts:
            module.seed = seed
