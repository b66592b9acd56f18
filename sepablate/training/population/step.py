"""A gradient step of several runs, recorded as one CUDA graph."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from sepablate.data.split import Batches
from sepablate.training.cuda_graph import CudaGraphStep
from sepablate.training.ema import EMA
from sepablate.training.optim import make_optimizer
from sepablate.training.population.stacked import StackedDropout, link, part, stack
from sepablate.training.step import TrainContext, TrainState, forward


class PopulationStep(CudaGraphStep):
    """One step of several runs of one network and recipe, through the stack of their networks.

    Each run keeps its own batches and dropout. Optimizer and average are those of the stack; both
    act on each number for itself. The networks and averages of the runs are views of the stack's.

    Args:
        state, batches, context: of the first run.
        others: the steps of the other runs, which are at the same step.
    """

    def __init__(
        self,
        state: TrainState,
        batches: Batches,
        context: TrainContext,
        others: Sequence[CudaGraphStep],
    ) -> None:
        super().__init__(state, batches, context)
        self.others = others
        self.runs: list[CudaGraphStep] = [self, *others]
        models = [run.state.model for run in self.runs]
        averages = [run.state.average.model for run in self.runs]
        self.network = stack(models).train()
        self.average = EMA(self.network, context.run)
        link(self.network, models)
        link(self.average.model, averages)
        self.optimizer = make_optimizer(self.network, context.run)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self._join_optimizers()
        for module in self.network.modules():
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
        self.optimizer.zero_grad()
        images = torch.cat([run.images for run in self.runs], dim=1)
        logits = forward(self.network, images, self.context.run, self.context.device)
        losses = [
            self.context.objective.loss(each, run.labels)
            for run, each in zip(self.runs, logits.chunk(len(self.runs), dim=1), strict=True)
        ]
        torch.stack(losses).sum().backward()
        self.optimizer.step()
        self.average.update_by(self.weight)
        for run, loss in zip(self.runs, losses, strict=True):
            run.loss.add_(loss.detach())

    def split_optimizer(self) -> None:
        """Give each run's optimizer a copy of its part of the stack's, as it is now."""
        for joined, weights in self._weights():
            for key, tensor in self.optimizer.state[joined].items():
                if tensor is not None:
                    for index, (run, weight) in enumerate(zip(self.runs, weights, strict=True)):
                        own = part(tensor, index, len(self.runs), weight.shape)
                        run.state.optimizer.state[weight][key] = own.clone()

    def _join_optimizers(self) -> None:
        """Take what the runs' optimizers carry from checkpoints, if they do."""
        for joined, weights in self._weights():
            for index, (run, weight) in enumerate(zip(self.runs, weights, strict=True)):
                for key, tensor in run.state.optimizer.state[weight].items():
                    whole = self.optimizer.state[joined].setdefault(key, torch.zeros_like(joined))
                    part(whole, index, len(self.runs), weight.shape).copy_(tensor)

    def _weights(self) -> Iterator[tuple[Tensor, list[nn.Parameter]]]:
        """Yield each weight of the stack with those of the runs."""
        names = [dict(run.state.model.named_parameters()) for run in self.runs]
        for name, joined in self.network.named_parameters():
            yield joined, [parameters[name] for parameters in names]
