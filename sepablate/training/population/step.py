"""A gradient step of several runs, recorded as one CUDA graph."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sepablate.data.split import Batches
from sepablate.training.cuda_graph import CudaGraphStep
from sepablate.training.population.stacked import StackedDropout
from sepablate.training.step import TrainContext, TrainState, forward


class PopulationStep(CudaGraphStep):
    """One step of each run: forward and backward through the stacked network, the rest by itself.

    Each run keeps its own batches, dropout, learning rate, optimizer and average.

    Args:
        state, batches, context: of the first run.
        others: the steps of the other runs, which are at the same step.
        network: the stack of the networks of all runs, in this order.
    """

    def __init__(
        self,
        state: TrainState,
        batches: Batches,
        context: TrainContext,
        others: Sequence[CudaGraphStep],
        network: nn.Module,
    ) -> None:
        super().__init__(state, batches, context)
        self.others, self.network = others, network.train()
        self.runs: list[CudaGraphStep] = [self, *others]
        members = [dict(run.state.model.named_parameters()) for run in self.runs]
        self.weights = [
            (weight, [parameters[name] for parameters in members])
            for name, weight in network.named_parameters()
        ]
        for module in network.modules():
            if isinstance(module, StackedDropout):
                module.seeds = [run.seeds for run in self.runs]

    def step_all(self) -> list[float] | None:
        """Do one step of each run; return their losses' sums now and then, else None."""
        loss = self()
        for run in self.others:
            run.state.step += 1
        if loss is None:
            return None
        with torch.cuda.stream(self.stream):
            return [loss, *(run._read_loss() for run in self.others)]

    def copy_inputs(self) -> None:
        """Copy what the next step of each run needs to the device."""
        super().copy_inputs()
        for run in self.others:
            run.copy_inputs()

    def compute(self) -> None:
        """Do the step itself, with nothing that waits for the device."""
        for weight, _ in self.weights:
            weight.grad = None
        images = torch.cat([run.images for run in self.runs], dim=1)
        logits = forward(self.network, images, self.context.run, self.context.device)
        losses = [
            self.context.objective.loss(part, run.labels)
            for run, part in zip(self.runs, logits.chunk(len(self.runs), dim=1), strict=True)
        ]
        torch.stack(losses).sum().backward()
        for weight, parameters in self.weights:
            assert isinstance(weight.grad, Tensor)
            for parameter, part in zip(parameters, weight.grad.chunk(len(self.runs)), strict=True):
                parameter.grad = part
        for run, loss in zip(self.runs, losses, strict=True):
            run.loss.add_(loss.detach())
            run.state.optimizer.step()
            run.state.average.update_by(run.weight)
