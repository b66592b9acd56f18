"""What a network costs, and the width at which it costs what another one does."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sepablate.models import build

GRID = 10**6  # widths are multiples of 1 / GRID


@dataclass(frozen=True)
class Cost:
    """`parameters`: trainable ones. `mult_adds`: multiply-adds to classify one image."""

    parameters: int
    mult_adds: int


def count(model: nn.Module, image_size: int) -> Cost:
    """The cost of `model` for one image of `image_size` x `image_size` pixels.

    Multiply-adds are those of convolutions and matrix products, biases left out. Nothing is
    computed: a copy of the model runs on the meta device.
    """
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    image = torch.empty(1, first.in_channels, image_size, image_size, device="meta")
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        copy.deepcopy(model).to("meta").eval()(image)
    return Cost(_parameters(model), counter.get_total_flops() // 2)


def match_width(
    name: str, target_parameters: int, tolerance: float = 0.01, **options: Any
) -> float:
    """The width at which network `name` has the trainable parameters nearest to the target.

    The parameters are a rising step function of the width, so bisection over multiples of 1e-6
    finds the two steps around the target. Of the widths on the nearer step, the one with the fewest
    decimals is returned. `options` are the network's other options.

    Raises ValueError if even the nearest is off by more than `tolerance` times the target.
    """
    if target_parameters < 1:
        raise ValueError(f"target_parameters must be at least 1, not {target_parameters!r}")
    if "width" in options:
        raise ValueError("width cannot be an option of match_width: it is what is looked for")

    @cache
    def parameters(grid_width: int) -> int:
        with torch.device("meta"):
            return _parameters(build(name, width=grid_width / GRID, **options))

    nearest = _nearest(parameters, target_parameters)
    found = parameters(nearest)
    if abs(found - target_parameters) > tolerance * target_parameters:
        raise ValueError(
            f"no width of {name} has {target_parameters} parameters within {tolerance:.2%}; "
            f"the nearest has {found}"
        )
    return _shortest(parameters, nearest) / GRID


def _nearest(parameters: Callable[[int], int], target: int) -> int:
    """The end of the step below the target or the start of the one above, whichever is nearer."""
    below, above = 1, GRID
    while parameters(above) < target:
        below, above = above, 2 * above
    while above - below > 1:
        middle = (below + above) // 2
        if parameters(middle) < target:
            below = middle
        else:
            above = middle
    return min(below, above, key=lambda width: abs(parameters(width) - target))


def _shortest(parameters: Callable[[int], int], width: int) -> int:
    """The width with the fewest decimals on the step of which `width` is the start or the end."""
    for unit in (10**places for places in range(5, 0, -1)):
        down = width // unit * unit
        for rounded in (down, down + unit):
            if rounded and parameters(rounded) == parameters(width):
                return rounded
    return width


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
