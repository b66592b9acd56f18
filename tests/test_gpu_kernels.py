"""The GPU's kernels compute what torch computes: forward, backward, and the statistics.

Without a GPU, Triton interprets them, in a process of its own, as it must know when imported.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import ROOT
from test_kernels import error, random, results
from torch import Tensor
from torch.nn import functional

ON_GPU = torch.cuda.is_available()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if ON_GPU else "cpu"
BF16 = 0.004 if ON_GPU else 0.006  # relative error: a GPU rounds, the interpreter cuts off
CASES = ((3, (7, 7)), (16, (5, 8)), (91, (2, 5)), (91, (1, 1)), (3, (2, 2)))  # channels, size

needs_kernels = pytest.mark.skipif(
    not (ON_GPU or INTERPRETED), reason="runs in a process of its own, interpreted"
)


@pytest.mark.skipif(ON_GPU or INTERPRETED, reason="the kernels run in this process")
def test_the_kernels_interpreted() -> None:
    pytest.importorskip("triton")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", Path(__file__)],
        cwd=ROOT,
        env={**environment, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


@pytest.fixture
def gpu() -> ModuleType:
    pytest.importorskip("triton")
    from sepablate.kernels import triton as gpu

    return gpu


def assert_equal(
    fast: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor
) -> None:
    found, expected = results(fast, *inputs, device=DEVICE), results(plain, *inputs)
    assert found[0].dtype == torch.bfloat16
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    assert [each.shape for each in found] == [each.shape for each in expected]
    assert all(error(*pair) < BF16 for pair in zip(found, expected, strict=True))


def plain_depthwise(x: Tensor, weight: Tensor, stride: int, relu: bool) -> Tensor:
    x = x.relu() if relu else x
    return functional.conv2d(x, weight, stride=stride, padding=1, groups=x.shape[1])


@needs_kernels
@pytest.mark.parametrize(("channels", "size"), CASES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("relu", [False, True])
def test_depthwise(
    gpu: ModuleType, channels: int, size: tuple[int, int], stride: int, relu: bool
) -> None:
    assert_equal(
        lambda x, weight: gpu.depthwise(x, weight, stride, relu),
        lambda x, weight: plain_depthwise(x, weight, stride, relu),
        random(3, channels, *size),
        random(channels, 1, 3, 3, seed=2),
    )


@needs_kernels
@pytest.mark.parametrize("programs", [1, 1000])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_of_one_strip_or_of_many(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, programs: int, stride: int
) -> None:
    from sepablate.kernels.triton import depthwise_rows, depthwise_strided

    monkeypatch.setattr(depthwise_rows, "PROGRAMS", programs)
    monkeypatch.setattr(depthwise_rows, "LEAST_ROWS", 3)
    monkeypatch.setattr(depthwise_strided, "PROGRAMS", programs)
    assert_equal(
        lambda x, weight: gpu.depthwise(x, weight, stride, True),
        lambda x, weight: plain_depthwise(x, weight, stride, True),
        random(3, 8, 10, 11),
        random(8, 1, 3, 3, seed=2),
    )


@needs_kernels
@pytest.mark.parametrize(("channels", "size"), CASES)
@pytest.mark.parametrize("border", [0, 1])
def test_max_pool(gpu: ModuleType, channels: int, size: tuple[int, int], border: int) -> None:
    if min(size) + 2 * border < 3:
        return
    x = random(3, channels, *size)
    ties, infinite = torch.zeros_like(x), torch.full_like(x, -torch.inf)
    with_nan = torch.where(random(*x.shape, seed=5) > 1, torch.nan, x)
    for each in (x, x.sign(), ties, infinite, with_nan):
        found = results(lambda x: gpu.max_pool(x, border), each, device=DEVICE)
        expected = results(lambda x: functional.max_pool2d(x, 3, 2, border), each)
        assert torch.equal(found[0].isnan(), expected[0].isnan())
        assert torch.equal(found[0].nan_to_num(7), expected[0].bfloat16().nan_to_num(7))
        assert error(found[1], expected[1]) < BF16


def both_norms(
    gpu: ModuleType, x: Tensor, relu: bool, added: Tensor | None
) -> tuple[list[Tensor], list[Tensor]]:
    """By the kernels, and by torch: output, all gradients, running mean and variance."""
    channels = x.shape[1]
    running = [
        [torch.full((channels,), 0.5).to(device), torch.full((channels,), 2.0).to(device)]
        for device in (DEVICE, "cpu")
    ]

    def fast(x: Tensor, weight: Tensor, bias: Tensor, *added: Tensor) -> Tensor:
        found: Tensor = gpu.batch_norm(
            x, weight, bias, *running[0], 0.1, 1e-3, relu, *added or (None,)
        )
        return found

    def plain(x: Tensor, weight: Tensor, bias: Tensor, *added: Tensor) -> Tensor:
        y = functional.batch_norm(x, *running[1], weight, bias, True, 0.1, 1e-3)
        y = y.relu() if relu else y
        return y + added[0] if added else y

    inputs = [x, random(channels, seed=2), random(channels, seed=3)]
    inputs += [] if added is None else [added]
    found, expected = results(fast, *inputs, device=DEVICE), results(plain, *inputs)
    return [*found, *(each.cpu() for each in running[0])], [*expected, *running[1]]


@needs_kernels
@pytest.mark.parametrize(("channels", "size"), [*CASES, (16, (21, 23))])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("adds", [False, True])
def test_batch_norm_and_its_statistics(
    gpu: ModuleType, channels: int, size: tuple[int, int], relu: bool, adds: bool
) -> None:
    x, added = random(3, channels, *size), random(3, channels, *size, seed=4)
    found, expected = both_norms(gpu, x, relu, added if adds else None)
    assert all(error(*pair) < BF16 for pair in zip(found, expected, strict=True))
    for running, plain in zip(found[-2:], expected[-2:], strict=True):
        torch.testing.assert_close(running, plain)


@needs_kernels
@pytest.mark.parametrize("programs", [1, 264])
def test_batch_norm_is_accurate_far_from_zero(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, programs: int
) -> None:
    """By one program in several steps, and by several programs."""
    from sepablate.kernels.triton import batch_norm

    monkeypatch.setattr(sys.modules[batch_norm.__module__], "PROGRAMS", programs)
    x = 257 + random(3, 8, 21, 17).sign()
    found, expected = both_norms(gpu, x, False, None)
    assert all(error(*pair) < BF16 for pair in zip(found, expected, strict=True))
    torch.testing.assert_close(found[-2:], expected[-2:])


@needs_kernels
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution(gpu: ModuleType, stride: int) -> None:
    for inputs, outputs, size in ((91, 7, (9, 7)), (8, 16, (3, 4)), (3, 1, (1, 1))):
        assert_equal(
            lambda x, weight: gpu.convolution(x, weight, stride, 0, 0),
            lambda x, weight: functional.conv2d(x, weight, stride=stride),
            random(3, inputs, *size),
            random(outputs, inputs, 1, 1, seed=2),
        )


@needs_kernels
@pytest.mark.parametrize(("kernel", "geometry"), [(3, (1, 0, 0)), (1, (3, 0, 0)), (1, (1, 1, 0))])
def test_other_convolutions_are_refused(
    gpu: ModuleType, kernel: int, geometry: tuple[int, int, int]
) -> None:
    with pytest.raises(ValueError, match="only 1x1 kernels"):
        gpu.convolution(random(1, 2, 5, 5), random(2, 2, kernel, kernel), *geometry)


@needs_kernels
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_dropout(gpu: ModuleType, kind: torch.dtype) -> None:
    def drop(seed: int) -> tuple[Tensor, Tensor]:
        x = torch.ones(60, 101, dtype=kind, device=DEVICE, requires_grad=True)
        y = gpu.dropout(x, 0.25, torch.tensor([seed], device=DEVICE))
        (gradient,) = torch.autograd.grad(y, x, 3 * torch.ones_like(y))
        return y.detach().float(), gradient.float()

    y, gradient = drop(2**40)
    assert len(y.unique()) == len(gradient.unique()) == 2
    assert y.max().item() == pytest.approx(4 / 3, rel=0.01)
    assert gradient.max().item() == pytest.approx(4, rel=0.01)
    assert torch.equal(gradient > 0, y > 0)
    assert (y == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(y, drop(2**40)[0])
    assert not torch.equal(y > 0, drop(2**40 + 1)[0] > 0)


def everything(gpu: ModuleType) -> Callable[..., Tensor]:
    """All kernels, one after another."""

    def compute(x: Tensor, taps: Tensor, weight: Tensor, bias: Tensor, matrix: Tensor) -> Tensor:
        running = torch.zeros_like(bias), torch.ones_like(bias)
        y = gpu.depthwise(x, taps, 1, True)
        y = gpu.depthwise(
            gpu.batch_norm(y, weight, bias, *running, 0.1, 1e-3, True, None), taps, 2, False
        )
        y = gpu.batch_norm(
            gpu.convolution(y, matrix, 1, 0, 0), weight, bias, *running, 0.1, 1e-3, False, y
        )
        y = gpu.max_pool(gpu.convolution(y, matrix, 2, 0, 0), 1)
        seed = torch.full((1,), 3, device=x.device)
        return gpu.dropout(y.flatten(1), 0.5, seed).view_as(y)  # type: ignore[no-any-return]

    return compute


def inputs() -> tuple[Tensor, ...]:
    shapes: Any = ((2, 16, 7, 6), (16, 1, 3, 3), (16,), (16,), (16, 16, 1, 1))
    return tuple(random(*shape, seed=seed) for seed, shape in enumerate(shapes))


@needs_kernels
def test_equal_steps_give_equal_bits(gpu: ModuleType) -> None:
    first, second = (results(everything(gpu), *inputs(), device=DEVICE) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


@needs_kernels
def test_offsets_of_64_bits_change_nothing(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = results(everything(gpu), *inputs(), device=DEVICE)
    for name in ("depthwise_rows", "depthwise_strided", "max_pool", "batch_norm"):
        module = sys.modules[f"sepablate.kernels.triton.{name}"]
        monkeypatch.setattr(module, "large", lambda *tensors: True)
    found = results(everything(gpu), *inputs(), device=DEVICE)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.skipif(not ON_GPU, reason="no GPU")
def test_a_captured_step_under_autocast_gives_the_same_bits(gpu: ModuleType) -> None:
    expected = results(everything(gpu), *inputs(), device=DEVICE)
    leaves = [tensor.to(DEVICE).requires_grad_() for tensor in inputs()]
    gradient = random(*expected[0].shape, seed=1).to(DEVICE)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        with torch.autocast(DEVICE, torch.bfloat16):
            output = everything(gpu)(*leaves)
        gradients = torch.autograd.grad(output.float(), leaves, gradient)
    graph.replay()
    found = [output.detach().cpu(), *(each.cpu() for each in gradients)]
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@needs_kernels
def test_a_nan_goes_through_every_kernel(gpu: ModuleType) -> None:
    x = torch.full((1, 16, 4, 4), torch.nan, device=DEVICE)
    ones, running = torch.ones(16, device=DEVICE), torch.ones(2, 16, device=DEVICE)
    for y in (
        gpu.depthwise(x, random(16, 1, 3, 3).to(DEVICE), 1, True),
        gpu.depthwise(x, random(16, 1, 3, 3).to(DEVICE), 2, True),
        gpu.max_pool(x, 1),
        gpu.batch_norm(x, ones, ones, *running, 0.1, 1e-3, True, None),
        gpu.convolution(x, random(4, 16, 1, 1).to(DEVICE), 1, 0, 0),
    ):
        assert y.isnan().all()
