"""What a network costs, and the width at which it costs what another one does."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from sepablate.errors import UserError
from sepablate.models import build

GRID = 10**6  # widths are multiples of 1 / GRID
KINDS = ("1x1", "depthwise", "k x k", "dense", "norm")


@dataclass(frozen=True)
class Cost:
    """`parameters`: trainable ones. `mult_adds`: multiply-adds to classify one image."""

    parameters: int
    mult_adds: int


@dataclass(frozen=True)
class Breakdown:
    """kinds: the cost of each kind of layer in KINDS. activations: numbers that the convolutions
    and dense layers put out for one image, which is what timm and fvcore count by that name."""

    kinds: dict[str, Cost]
    activations: int

    @property
    def total(self) -> Cost:
        """The sum over the kinds."""
        each = self.kinds.values()
        return Cost(sum(kind.parameters for kind in each), sum(kind.mult_adds for kind in each))


def breakdown(model: nn.Module, image_size: int) -> Breakdown:
    """What the layers of `model` cost for one image of `image_size` x `image_size` pixels, by kind.

    Multiply-adds are those of convolutions and dense layers, biases left out. Nothing is computed:
    a copy of the model runs on the meta device.

    A convolution is "1x1", "depthwise" (as many groups as channels) or else "k x k", grouped or
    not; "norm" is BN. Biases count with their layer. TypeError for any other layer that has
    parameters.
    """
    return breakdown_of(copy.deepcopy(model), image_size)


def breakdown_of(model: nn.Module, image_size: int) -> Breakdown:
    """`breakdown` without its copy: leaves hooks in `model`, and `model` on the meta device."""
    costs = {kind: [0, 0] for kind in KINDS}
    outputs: list[int] = []

    def note(module: nn.Module, _: object, output: Tensor) -> None:
        outputs.append(output.numel())
        costs[_kind(module)][1] += output.numel() * module.get_parameter("weight")[0].numel()

    for module in model.modules():
        if own := _parameters(module, recurse=False):
            costs[_kind(module)][0] += own
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(note)
    _run_on_meta(model, image_size)
    return Breakdown({kind: Cost(*both) for kind, both in costs.items()}, sum(outputs))


@torch.no_grad()
def _run_on_meta(model: nn.Module, image_size: int) -> None:
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    image = torch.empty(1, first.in_channels, image_size, image_size, device="meta")
    model.to("meta").eval()(image)


def _kind(module: nn.Module) -> str:
    if isinstance(module, nn.Conv2d):
        if 1 < module.groups == module.in_channels:
            return "depthwise"
        return "1x1" if module.kernel_size == (1, 1) else "k x k"
    if isinstance(module, nn.Linear):
        return "dense"
    if isinstance(module, nn.BatchNorm2d):
        return "norm"
    raise TypeError(f"no kind of layer for a {type(module).__name__}")


@cache
def match_width(
    name: str, target_parameters: int, tolerance: float = 0.01, **options: Any
) -> float:
    """The width at which network `name` has the trainable parameters nearest to the target.

    The parameters are a rising step function of the width, so bisection over multiples of 1e-6
    finds the two steps around the target. Of the widths on the nearer step, the one with the fewest
    decimals is returned. `options` are the network's other options.

    Raises UserError if even the nearest is off by more than `tolerance` times the target.
    """
    if target_parameters < 1:
        raise UserError(f"target_parameters must be at least 1, not {target_parameters!r}")
    if "width" in options:
        raise UserError("width cannot be an option of match_width: it is what is looked for")

    @cache
    def parameters(grid_width: int) -> int:
        with torch.device("meta"):
            return _parameters(build(name, width=grid_width / GRID, **options))

    nearest = _nearest(parameters, target_parameters)
    found = parameters(nearest)
    if abs(found - target_parameters) > tolerance * target_parameters:
        raise UserError(
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


def _parameters(module: nn.Module, recurse: bool = True) -> int:
    return sum(each.numel() for each in module.parameters(recurse) if each.requires_grad)
