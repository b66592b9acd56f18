"""The paper's recipes (section 4.2), compressed to the length of a run.

SGD with momentum or RMSprop, a staircase of learning rates, L2 coupled to the gradient on
convolution and dense kernels, and a moving average of the weights.
"""

import copy
import hashlib

import torch
from torch import nn

from sepablate.runs.run import Run
from sepablate.training.rmsprop_tf import RMSprop


def generator(*stream: object) -> torch.Generator:
    """A generator of its own for a stream such as (seed, "augment", step).

    Nothing draws from a state that another draw has moved: removing a component shifts no other
    draw, and a run resumed at any step draws what it would have drawn.
    """
    return torch.Generator().manual_seed(stream_seed(*stream))


def stream_seed(*stream: object) -> int:
    """A 63-bit seed from the names of a stream."""
    text = "/".join(map(str, stream))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def optimiser(model: nn.Module, run: Run) -> torch.optim.Optimizer:
    """SGD, or RMSprop as TensorFlow has it: epsilon under the root, the rate inside the momentum.

    Weight decay acts on kernels alone, as in TensorFlow-slim: not on biases or batch norm, and not
    on depthwise kernels where the variant says so.
    """
    spared = set() if run.decay_depthwise else {f"{name}.weight" for name in _depthwise(model)}
    groups: dict[float, list[nn.Parameter]] = {0.0: [], run.weight_decay: []}
    for name, weight in model.named_parameters():
        groups[run.weight_decay if weight.ndim > 1 and name not in spared else 0.0].append(weight)
    parameters = [{"params": own, "weight_decay": decay} for decay, own in groups.items()]
    recipe = run.recipe
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(
            parameters, lr=recipe.learning_rate, momentum=recipe.momentum, fused=True
        )
    return RMSprop(parameters, recipe.learning_rate, recipe.momentum, recipe.rho, recipe.epsilon)


def _depthwise(model: nn.Module) -> list[str]:
    """The names of the convolutions that act on each channel by itself."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
    ]


def learning_rate(step: int, run: Run) -> float:
    """The rate of `step` (from 0): multiplied by `decay` `decays` times over the run, in stairs."""
    stairs = step * run.recipe.decays // run.scale.steps
    return run.recipe.learning_rate * run.recipe.decay**stairs


class Average:
    """A moving average of weights and batch-norm statistics, in a copy of the model.

    Its decay is 1 - 1/(horizon in steps), warmed up as min(decay, (1 + n) / (10 + n)) at update n
    as TensorFlow does, so that a short run forgets its initial weights. torch's AveragedModel
    computes the same but sorts the tensors anew at each step, 5 % of a small network's step.
    """

    def __init__(self, model: nn.Module, run: Run) -> None:
        horizon = run.recipe.averaging_horizon * run.scale.steps
        self.decay = max(0.0, 1 - 1 / horizon) if horizon > 1 else 0.0
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._pairs = _averaged_tensors(self.model), _averaged_tensors(model)

    def weight(self, updates: int) -> float:
        """Of the model's tensors in the next update; `updates` counts those before it."""
        return 1 - min(self.decay, (1 + updates) / (10 + updates))

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Take in the model's tensors."""
        torch._foreach_lerp_(*self._pairs, self.weight(updates))

    @torch.no_grad()
    def update_by(self, weight: torch.Tensor) -> None:
        """The same where the weight is a number on the device."""
        moved = torch._foreach_sub(self._pairs[1], self._pairs[0])
        torch._foreach_mul_(moved, weight)
        torch._foreach_add_(self._pairs[0], moved)


def _averaged_tensors(model: nn.Module) -> list[torch.Tensor]:
    """Parameters and batch-norm statistics; not the count of batches."""
    tensors = [tensor.detach() for tensor in model.state_dict().values()]
    return [tensor for tensor in tensors if tensor.is_floating_point()]
