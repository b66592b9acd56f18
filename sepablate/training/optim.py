"""The optimizers and the learning rate schedule of the papers, compressed to a run's length.

SGD with momentum or RMSprop, a staircase of learning rates, and L2 coupled to the gradient on
convolution and dense kernels (Chollet 2017, sections 4.2 and 4.3).
"""

import torch
from torch import nn

from sepablate.runs.run import Run
from sepablate.training.rmsprop_tf import RMSpropTF


def make_optimizer(model: nn.Module, run: Run) -> torch.optim.Optimizer:
    """Return SGD, or RMSprop as TensorFlow or Keras has it.

    Weight decay acts on kernels only, as in TensorFlow-slim: not on biases or batch norm, and not
    on depthwise kernels where the variant says so.
    """
    exempt = set() if run.decay_depthwise else {f"{name}.weight" for name in _depthwise(model)}
    groups: dict[float, list[nn.Parameter]] = {0.0: [], run.weight_decay: []}
    for name, weight in model.named_parameters():
        decays = weight.ndim > 1 and name not in exempt
        groups[run.weight_decay if decays else 0.0].append(weight)
    parameters = [{"params": weights, "weight_decay": decay} for decay, weights in groups.items()]
    recipe = run.recipe
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=recipe.learning_rate, momentum=recipe.momentum, fused=True
        )
    return RMSpropTF(
        parameters,
        recipe.learning_rate,
        recipe.momentum,
        recipe.rho,
        recipe.epsilon,
        recipe.initial_square,
    )


def learning_rate(step: int, run: Run) -> float:
    """Return the rate of `step` (from 0): multiplied by `decay`, `decays` times over the run."""
    stairs = step * run.recipe.decays // run.scale.steps
    return run.recipe.learning_rate * run.recipe.decay**stairs


def _depthwise(model: nn.Module) -> list[str]:
    """Return the names of the convolutions that act on each channel separately."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
    ]
