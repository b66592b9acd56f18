"""The C++ kernels in several threads, as a large network trains: the numbers of one thread."""

from collections.abc import Callable, Iterator

import pytest
import torch
from helpers.kernel_results import NO_CPU_KERNELS, error, fresh, random, results
from torch import Tensor

pytestmark = pytest.mark.skipif(
    NO_CPU_KERNELS is not None, reason=f"no C++ kernels: {NO_CPU_KERNELS}"
)

CHANNELS, OUTPUTS = 19, 33  # neither is a multiple of a vector's length
SIZE = (7, 5)
NORM = (0.1, 1e-3, True)  # momentum, eps, whether a ReLU follows
STATISTICS = 1e-5  # relative, of sums in fp32 that are added in another order
ROUNDED = 1e-3  # relative, of bf16 numbers, few of which are rounded to another neighbour


@pytest.fixture(autouse=True)
def threads_of_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def convolution(stride: int, padding: int) -> Callable[..., Tensor]:
    return lambda x, weight: torch.ops.sepablate.convolution(x, weight, stride, padding, padding)


def depthwise(stride: int) -> Callable[..., Tensor]:
    return lambda x, taps: torch.ops.sepablate.depthwise(x, taps, stride, True)


def max_pool(x: Tensor) -> Tensor:
    y: Tensor = torch.ops.sepablate.max_pool(x, 1)
    return y


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
    running = fresh(CHANNELS)
    y: Tensor = torch.ops.sepablate.batch_norm(x, weight, bias, *running, *NORM, residual)
    return y


def separable(x: Tensor, taps: Tensor, pointwise: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    norm = (scale, bias, *fresh(OUTPUTS), *NORM)
    y: Tensor = torch.ops.sepablate.conv_norm(x, taps, pointwise, 1, 0, 0, True, False, *norm)
    return y


def strided(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    norm = (scale, bias, *fresh(OUTPUTS), *NORM)
    y: Tensor = torch.ops.sepablate.conv_norm(x, None, weight, 2, 1, 1, False, False, *norm)
    return y


SHAPES: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]]]] = {
    "pointwise": (convolution(1, 0), [(OUTPUTS, CHANNELS, 1, 1)]),
    "pointwise, stride 2": (convolution(2, 0), [(OUTPUTS, CHANNELS, 1, 1)]),
    "3x3": (convolution(1, 1), [(OUTPUTS, CHANNELS, 3, 3)]),
    "3x3, stride 2": (convolution(2, 1), [(OUTPUTS, CHANNELS, 3, 3)]),
    "depthwise": (depthwise(1), [(CHANNELS, 1, 3, 3)]),
    "depthwise, stride 2": (depthwise(2), [(CHANNELS, 1, 3, 3)]),
    "max-pool": (max_pool, []),
    "separable and norm": (
        separable,
        [(CHANNELS, 1, 3, 3), (OUTPUTS, CHANNELS, 1, 1), (OUTPUTS,), (OUTPUTS,)],
    ),
    "3x3 and norm, stride 2": (
        strided,
        [(OUTPUTS, CHANNELS, 3, 3), (OUTPUTS,), (OUTPUTS,)],
    ),
}


@pytest.mark.parametrize("images", [1, 2, 7])
@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("kernel", [*SHAPES, "norm and shortcut"])
def test_threads_share_the_images(kernel: str, threads: int, images: int) -> None:
    """Also where there are more threads than images, and of images that are not contiguous.

    That several threads add up a part each shows in the last bits of a weight's gradient.
    """
    shape = (images, CHANNELS, *SIZE)
    whole = random(images, CHANNELS, 2 * SIZE[0], SIZE[1])
    shortcut = (batch_norm, [(CHANNELS,), (CHANNELS,), shape])
    compute, shapes = SHAPES.get(kernel, shortcut)
    inputs = [random(*each, seed=seed) for seed, each in enumerate(shapes, start=2)]

    def computed(count: int) -> list[Tensor]:
        torch.set_num_threads(count)
        return results(lambda x, *rest: compute(x[:, :, ::2], *rest), whole, *inputs)

    alone, together, again = computed(1), computed(threads), computed(threads)
    for one, several, repeated in zip(alone, together, again, strict=True):
        assert error(several, one) < ROUNDED
        assert several.equal(repeated)
    if images > 1 and inputs:
        assert not together[2].equal(alone[2])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_running_statistics_are_those_of_all_threads_images(threads: int) -> None:
    """Far from zero, where each thread adds up distances to a pixel of its own."""
    x = (random(5, CHANNELS, *SIZE) + 100 * random(1, CHANNELS, 1, 1, seed=1)).bfloat16().double()
    expected = (0.1 * x.mean((0, 2, 3)), 0.9 + 0.1 * x.var((0, 2, 3)))
    torch.set_num_threads(threads)
    mean, variance = fresh(CHANNELS)
    ones = torch.ones(CHANNELS)
    torch.ops.sepablate.batch_norm(x, ones, ones, mean, variance, 0.1, 1e-3, False)
    assert error(mean, expected[0]) < STATISTICS
    assert error(variance, expected[1]) < STATISTICS
