"""Initial weights as a function of a seed and of each parameter's name."""

import math

import torch
from torch import Tensor, nn

from sepablate.rng import generator


def init_weights(model: nn.Module, seed: int) -> None:
    """Draw the weights of `model`, in place and on any device.

    Convolutions, and dense layers before a ReLU: normal by fan-in (He et al. 2015,
    arXiv:1502.01852; for a depthwise convolution the fan-in is 9). Last dense layer:
    Normal(0, 0.01). BN: weight 1, bias 0, fresh statistics. Biases: 0. Every weight has a generator
    named by the seed and the parameter, so that variants which share a parameter start from the
    same values of it.

    Raises TypeError for a layer with parameters that it has no rule for.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            last = isinstance(module, nn.Linear) and name.endswith("classifier.dense")
            deviation = 0.01 if last else math.sqrt(2 / module.weight[0].numel())
            _draw(module.weight, deviation, seed, f"{name}.weight")
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif next(module.parameters(recurse=False), None) is not None:
            raise TypeError(f"no rule to initialise {name!r}, a {type(module).__name__}")
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


@torch.no_grad()
def _draw(weight: Tensor, deviation: float, seed: int, name: str) -> None:
    """Fill `weight` from Normal(0, deviation), drawn on the CPU so that devices agree."""
    draw = generator(seed, "init", name, bits=64)
    weight.copy_(deviation * torch.randn(weight.shape, generator=draw))
