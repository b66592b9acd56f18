"""The Triton kernels agree with PyTorch: results, gradients and running statistics.

Without a GPU they run in Triton's interpreter, in a process of its own: the choice is made when
Triton is imported.
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
from helpers.kernel_results import error, random, results
from helpers.project import ROOT
from torch import Tensor
from torch.nn import functional

ON_GPU = torch.cuda.is_available()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if ON_GPU else "cpu"
BF16 = 0.004 if ON_GPU else 0.006  # relative error: a GPU rounds, the interpreter cuts off
CASES = ((3, (7, 7)), (16, (5, 8)), (91, (2, 5)), (91, (1, 1)), (3, (2, 2)))  # channels, size
BOTH = (False, True)

needs_kernels = pytest.mark.skipif(
    not (ON_GPU or INTERPRETED), reason="runs in a process of its own, interpreted"
)


@pytest.mark.slow
@pytest.mark.skipif(ON_GPU or INTERPRETED, reason="the kernels run in this process")
def test_kernels_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    completed = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", Path(__file__)],
        cwd=ROOT,
        env={**environment, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert "passed" in completed.stdout


@pytest.fixture
def kernels() -> ModuleType:
    pytest.importorskip("triton")
    from sepablate.kernels import triton

    return triton


def assert_equal(
    fused: Callable[..., Tensor], reference: Callable[..., Tensor], *inputs: Tensor
) -> None:
    """Check the results and all gradients, and the memory layout of the result."""
    actual, expected = results(fused, *inputs, device=DEVICE), results(reference, *inputs)
    assert actual[0].dtype == torch.bfloat16
    assert actual[0].is_contiguous(memory_format=torch.channels_last)
    assert [tensor.shape for tensor in actual] == [tensor.shape for tensor in expected]
    assert all(error(*pair) < BF16 for pair in zip(actual, expected, strict=True))


def reference_depthwise(x: Tensor, weight: Tensor, stride: int, relu: bool) -> Tensor:
    x = x.relu() if relu else x
    return functional.conv2d(x, weight, stride=stride, padding=1, groups=x.shape[1])


@needs_kernels
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("channels", "size", "relu"),
    [*((*case, True) for case in CASES), *((*case, False) for case in CASES[1::2])],
)
def test_depthwise(
    kernels: ModuleType, channels: int, size: tuple[int, int], stride: int, relu: bool
) -> None:
    assert_equal(
        lambda x, weight: kernels.depthwise(x, weight, stride, relu),
        lambda x, weight: reference_depthwise(x, weight, stride, relu),
        random(2, channels, *size),
        random(channels, 1, 3, 3, seed=2),
    )


@needs_kernels
@pytest.mark.parametrize("programs", [1, 1000])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_with_one_program_and_with_many(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch, programs: int, stride: int
) -> None:
    from sepablate.kernels.triton import depthwise_rows, depthwise_strided

    monkeypatch.setattr(depthwise_rows, "TARGET_PROGRAMS", programs)
    monkeypatch.setattr(depthwise_rows, "MIN_ROWS", 3)
    monkeypatch.setattr(depthwise_strided, "TARGET_PROGRAMS", programs)
    assert_equal(
        lambda x, weight: kernels.depthwise(x, weight, stride, True),
        lambda x, weight: reference_depthwise(x, weight, stride, True),
        random(3, 8, 10, 11),
        random(8, 1, 3, 3, seed=2),
    )


@needs_kernels
@pytest.mark.parametrize(("channels", "size"), CASES)
@pytest.mark.parametrize("padding", [0, 1])
def test_max_pool(kernels: ModuleType, channels: int, size: tuple[int, int], padding: int) -> None:
    if min(size) + 2 * padding < 3:
        return
    x = random(1, channels, *size)
    ties, infinite = torch.zeros_like(x), torch.full_like(x, -torch.inf)
    with_nan = torch.where(random(*x.shape, seed=5) > 1, torch.nan, x)
    images = torch.cat([x, x.sign(), ties, infinite, with_nan])
    y, dx = results(lambda x: kernels.max_pool(x, padding), images, device=DEVICE)
    expected_y, expected_dx = results(lambda x: functional.max_pool2d(x, 3, 2, padding), images)
    assert torch.equal(y.isnan(), expected_y.isnan())
    assert torch.equal(y.nan_to_num(7), expected_y.bfloat16().nan_to_num(7))
    assert all(error(*pair) < BF16 for pair in zip(dx, expected_dx, strict=True))


def batch_norm_results(
    kernels: ModuleType, x: Tensor, relu: bool, residual: Tensor | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Return output, gradients, running mean and variance, of the kernels and of PyTorch."""
    channels = x.shape[1]
    fused_stats, reference_stats = (
        [torch.full((channels,), 0.5).to(device), torch.full((channels,), 2.0).to(device)]
        for device in (DEVICE, "cpu")
    )

    def fused(x: Tensor, weight: Tensor, bias: Tensor, *residual: Tensor) -> Tensor:
        y: Tensor = kernels.batch_norm(
            x, weight, bias, *fused_stats, 0.1, 1e-3, relu, *residual or (None,)
        )
        return y

    def reference(x: Tensor, weight: Tensor, bias: Tensor, *residual: Tensor) -> Tensor:
        y = functional.batch_norm(x, *reference_stats, weight, bias, True, 0.1, 1e-3)
        y = y.relu() if relu else y
        return y + residual[0] if residual else y

    inputs = [x, random(channels, seed=2), random(channels, seed=3)]
    inputs += [] if residual is None else [residual]
    actual, expected = results(fused, *inputs, device=DEVICE), results(reference, *inputs)
    return [*actual, *(tensor.cpu() for tensor in fused_stats)], [*expected, *reference_stats]


@needs_kernels
@pytest.mark.parametrize(
    ("channels", "size", "relu", "has_residual"),
    [
        *((*case, relu, relu == bool(n % 2)) for n, case in enumerate(CASES) for relu in BOTH),
        *((16, (21, 23), relu, residual) for relu in BOTH for residual in BOTH),
    ],
)
def test_batch_norm_and_its_statistics(
    kernels: ModuleType, channels: int, size: tuple[int, int], relu: bool, has_residual: bool
) -> None:
    x = random(2, channels, *size)
    residual = random(2, channels, *size, seed=4) if has_residual else None
    actual, expected = batch_norm_results(kernels, x, relu, residual)
    assert all(error(*pair) < BF16 for pair in zip(actual, expected, strict=True))
    torch.testing.assert_close(actual[-2:], expected[-2:])


@needs_kernels
@pytest.mark.parametrize("programs", [1, 264])
def test_batch_norm_is_accurate_far_from_zero(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch, programs: int
) -> None:
    """Both in several steps of one program, and with the statistics of several programs."""
    module = sys.modules["sepablate.kernels.triton.batch_norm"]
    monkeypatch.setattr(module, "TARGET_PROGRAMS", programs)
    x = 257 + random(3, 8, 21, 17).sign()
    actual, expected = batch_norm_results(kernels, x, False, None)
    assert all(error(*pair) < BF16 for pair in zip(actual, expected, strict=True))
    torch.testing.assert_close(actual[-2:], expected[-2:])


@needs_kernels
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution(kernels: ModuleType, stride: int) -> None:
    for inputs, outputs, size in ((91, 7, (9, 7)), (8, 16, (3, 4)), (3, 4, (5, 4)), (3, 1, (1, 1))):
        assert_equal(
            lambda x, weight: kernels.convolution(x, weight, stride, 0, 0),
            lambda x, weight: functional.conv2d(x, weight, stride=stride),
            random(3, inputs, *size),
            random(outputs, inputs, 1, 1, seed=2),
        )


@needs_kernels
@pytest.mark.parametrize(("kernel", "geometry"), [(3, (1, 0, 0)), (1, (3, 0, 0)), (1, (1, 1, 0))])
def test_unsupported_convolutions_raise(
    kernels: ModuleType, kernel: int, geometry: tuple[int, int, int]
) -> None:
    with pytest.raises(ValueError, match="only 1x1 kernels"):
        kernels.convolution(random(1, 2, 5, 5), random(2, 2, kernel, kernel), *geometry)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout(kernels: ModuleType, dtype: torch.dtype) -> None:
    def drop(seed: int) -> tuple[Tensor, Tensor]:
        x = torch.ones(60, 101, dtype=dtype, device=DEVICE, requires_grad=True)
        y = kernels.dropout(x, 0.25, torch.tensor([seed], device=DEVICE))
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


def all_kernels(kernels: ModuleType) -> Callable[..., Tensor]:
    """Return a function that applies all kernels, one after another."""

    def compute(x: Tensor, taps: Tensor, weight: Tensor, bias: Tensor, matrix: Tensor) -> Tensor:
        running = torch.zeros_like(bias), torch.ones_like(bias)
        y = kernels.depthwise(x, taps, 1, True)
        y = kernels.depthwise(
            kernels.batch_norm(y, weight, bias, *running, 0.1, 1e-3, True, None), taps, 2, False
        )
        y = kernels.batch_norm(
            kernels.convolution(y, matrix, 1, 0, 0), weight, bias, *running, 0.1, 1e-3, False, y
        )
        y = kernels.max_pool(kernels.convolution(y, matrix, 2, 0, 0), 1)
        seed = torch.full((1,), 3, device=x.device)
        return kernels.dropout(y.flatten(1), 0.5, seed).view_as(y)  # type: ignore[no-any-return]

    return compute


def inputs() -> tuple[Tensor, ...]:
    shapes: Any = ((2, 16, 7, 6), (16, 1, 3, 3), (16,), (16,), (16, 16, 1, 1))
    return tuple(random(*shape, seed=seed) for seed, shape in enumerate(shapes))


@needs_kernels
def test_equal_inputs_give_equal_bits_also_with_int64_offsets(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (results(all_kernels(kernels), *inputs(), device=DEVICE) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    from sepablate.kernels.triton import launch

    monkeypatch.setattr(launch, "needs_int64", lambda *tensors: True)
    third = results(all_kernels(kernels), *inputs(), device=DEVICE)
    assert all(torch.equal(*pair) for pair in zip(first, third, strict=True))


@pytest.mark.skipif(not ON_GPU, reason="no GPU")
def test_a_captured_step_under_autocast_gives_the_same_bits(kernels: ModuleType) -> None:
    expected = results(all_kernels(kernels), *inputs(), device=DEVICE)
    leaves = [tensor.to(DEVICE).requires_grad_() for tensor in inputs()]
    gradient = random(*expected[0].shape, seed=1).to(DEVICE)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        with torch.autocast(DEVICE, torch.bfloat16):
            output = all_kernels(kernels)(*leaves)
        gradients = torch.autograd.grad(output.float(), leaves, gradient)
    graph.replay()
    actual = [output.detach().cpu(), *(gradient.cpu() for gradient in gradients)]
    assert all(torch.equal(*pair) for pair in zip(actual, expected, strict=True))


@needs_kernels
def test_nan_propagates_through_every_kernel(kernels: ModuleType) -> None:
    x = torch.full((1, 16, 4, 4), torch.nan, device=DEVICE)
    ones, running = torch.ones(16, device=DEVICE), torch.ones(2, 16, device=DEVICE)
    for y in (
        kernels.depthwise(x, random(16, 1, 3, 3).to(DEVICE), 1, True),
        kernels.depthwise(x, random(16, 1, 3, 3).to(DEVICE), 2, True),
        kernels.max_pool(x, 1),
        kernels.batch_norm(x, ones, ones, *running, 0.1, 1e-3, True, None),
        kernels.convolution(x, random(4, 16, 1, 1).to(DEVICE), 1, 0, 0),
    ):
        assert y.isnan().all()
