"""An exponential moving average of the weights (Polyak averaging, Chollet 2017, section 4.2)."""

import copy

import torch
from torch import Tensor, nn

from sepablate.runs.run import Run


class EMA:
    """A moving average of weights and batch norm statistics, in a copy of the model.

    Its decay is 1 - 1/(horizon in steps), warmed up as min(decay, (1 + n) / (10 + n)) at update n
    as TensorFlow does, so that a short run forgets its initial weights. torch's AveragedModel
    computes the same, but sorts the tensors anew at each step: 5 % of a small network's step.
    """

    def __init__(self, model: nn.Module, run: Run) -> None:
        horizon = run.recipe.averaging_horizon * run.scale.steps
        self.decay = max(0.0, 1 - 1 / horizon) if horizon > 1 else 0.0
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._pairs = _averaged_tensors(self.model), _averaged_tensors(model)

    def weight(self, updates: int) -> float:
        """Return the weight of the model's tensors in the next update, after `updates` of them."""
        return 1 - min(self.decay, (1 + updates) / (10 + updates))

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Add the model's tensors to the average; `updates`: how many updates came before."""
        torch._foreach_lerp_(*self._pairs, self.weight(updates))

    @torch.no_grad()
    def update_by(self, weight: Tensor) -> None:
        """Add the model's tensors with a weight that is a scalar on the device."""
        moved = torch._foreach_sub(self._pairs[1], self._pairs[0])
        torch._foreach_mul_(moved, weight)
        torch._foreach_add_(self._pairs[0], moved)


def _averaged_tensors(model: nn.Module) -> list[Tensor]:
    """Return parameters and batch norm statistics; not the count of batches."""
    tensors = [tensor.detach() for tensor in model.state_dict().values()]
    return [tensor for tensor in tensors if tensor.is_floating_point()]
