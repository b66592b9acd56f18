"""Parameters and multiply-adds of a network, and the width at which it has those of another."""

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from sepablate.errors import UserError
from sepablate.models import build

GRID = 10**6  # widths are multiples of 1 / GRID
SMALL = 64  # pixels of an image that is computed faster than the meta device is set up
FEW = 10**6  # parameters that are drawn faster than the meta device is asked for each of them
KINDS = ("1x1", "depthwise", "k x k", "dense", "norm")


@dataclass(frozen=True)
class Cost:
    """The size of a network or a layer.

    Args:
        parameters: the trainable ones.
        mult_adds: multiply-adds to classify one image.
    """

    parameters: int
    mult_adds: int


@dataclass(frozen=True)
class Breakdown:
    """A network's cost by kind of layer.

    Args:
        kinds: the cost of each kind of layer in KINDS.
        activations: the outputs of all convolutions and dense layers for one image, as timm and
            fvcore count them.
    """

    kinds: dict[str, Cost]
    activations: int

    @property
    def total(self) -> Cost:
        """The sum over the kinds."""
        costs = self.kinds.values()
        return Cost(sum(cost.parameters for cost in costs), sum(cost.mult_adds for cost in costs))


def breakdown(
    model: nn.Module, image_size: int, kinds: Mapping[type[nn.Module], str] | None = None
) -> Breakdown:
    """Return the cost of each kind of layer for one image of `image_size` x `image_size` pixels.

    Multiply-adds are those of convolutions and dense layers without biases. They are counted while
    a copy of the model runs, on the meta device if the image is large.

    A convolution is "1x1", "depthwise" (as many groups as channels) or else "k x k", grouped or
    not; "norm" is BN. Biases count with their layer. `kinds` has the kind of other classes of
    layers, whose multiply-adds are not counted. TypeError for any other layer that has parameters.
    """
    return breakdown_of(copy.deepcopy(model), image_size, kinds)


def breakdown_of(
    model: nn.Module, image_size: int, kinds: Mapping[type[nn.Module], str] | None = None
) -> Breakdown:
    """Return `breakdown` without a copy: leaves hooks in `model`, and it on another device."""
    costs = {kind: [0, 0] for kind in KINDS}
    outputs: list[int] = []

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        outputs.append(output.numel())
        costs[_kind(module)][1] += output.numel() * module.get_parameter("weight")[0].numel()

    for module in model.modules():
        if parameters := _parameters(module, recurse=False):
            kind = (kinds or {}).get(type(module)) or _kind(module)
            costs[kind][0] += parameters
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    _run(model, image_size)
    return Breakdown({kind: Cost(*cost) for kind, cost in costs.items()}, sum(outputs))


def count_network(name: str, image_size: int, **options: Any) -> Breakdown:
    """Return `breakdown` of the network `name`, which is built for it, with these options."""
    with _built_on(_counting_device(image_size)):
        model = build(name, **options)
    return breakdown_of(model, image_size)


def _built_on(device: str) -> AbstractContextManager[object]:
    """Build layers on a device: on the CPU without a context, which sees each call of PyTorch."""
    return nullcontext() if device == "cpu" else torch.device(device)


def _counting_device(image_size: int) -> str:
    """Return the device on which a network is counted the fastest.

    On the meta device nothing is computed, but its additions and activations import PyTorch's
    compiler, which takes longer than to compute one small image.
    """
    return "cpu" if image_size <= SMALL else "meta"


@torch.no_grad()
def _run(model: nn.Module, image_size: int) -> None:
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    device = _counting_device(image_size)
    if first.weight.is_meta:
        device = "meta"
    image = torch.zeros(1, first.in_channels, image_size, image_size, device=device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of more, on layers so small, most wait for each other
    try:
        model.to(device).eval()(image)
    finally:
        torch.set_num_threads(threads)


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
    """Return the width at which a network has the trainable parameters nearest to the target.

    The parameters are a rising step function of the width, so bisection over multiples of 1e-6
    finds the two steps around the target. Of the widths on the nearer step, the one with the fewest
    decimals is returned.

    Args:
        name: the network's name.
        target_parameters: the number of parameters to match.
        tolerance: relative.
        options: the network's other options.

    Raises UserError if even the nearest is off by more than the tolerance.
    """
    if target_parameters < 1:
        raise UserError(f"target_parameters must be at least 1, not {target_parameters!r}")
    if "width" in options:
        raise UserError("width cannot be an option of match_width, which solves for it")

    @cache
    def parameters(grid_width: int) -> int:
        with _built_on("cpu" if target_parameters < FEW else "meta"):
            return _parameters(build(name, width=grid_width / GRID, **options))

    nearest = _nearest(parameters, target_parameters)
    count = parameters(nearest)
    if abs(count - target_parameters) > tolerance * target_parameters:
        raise UserError(
            f"no width of {name} has {target_parameters} parameters within {tolerance:.2%}; "
            f"the nearest has {count}"
        )
    return _shortest(parameters, nearest) / GRID


def _nearest(parameters: Callable[[int], int], target: int) -> int:
    """Return the end of the step below the target or the start of the one above, the nearer one."""
    below, above = 1, GRID // 16  # no network is built that is much larger than the target
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
    """Return the width with the fewest decimals on the step that `width` starts or ends."""
    for unit in (100_000, 10_000, 1_000, 100, 10):
        down = width // unit * unit
        for rounded in (down, down + unit):
            if rounded and parameters(rounded) == parameters(width):
                return rounded
    return width


def _parameters(module: nn.Module, recurse: bool = True) -> int:
    return sum(weight.numel() for weight in module.parameters(recurse) if weight.requires_grad)
