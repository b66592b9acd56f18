"""Inputs of kernels, their results, and how far two results differ."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from sepablate.execution.backend import why_unavailable

NO_CPU_KERNELS = why_unavailable("cpu")  # the reason, or None


def random(*shape: int, seed: int = 0) -> Tensor:
    """Return normal numbers that bf16 represents exactly."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=draw).bfloat16().float()


def error(actual: Tensor, expected: Tensor) -> float:
    """Return the relative error in the Euclidean norm."""
    difference = (actual.float() - expected.float()).norm()
    return (difference / expected.float().norm().clamp_min(1e-9)).item()


def results(compute: Callable[..., Tensor], *inputs: Tensor, device: str = "cpu") -> list[Tensor]:
    """Return the output, and each input's gradient for one random gradient of the output."""
    leaves = [tensor.detach().clone().to(device).requires_grad_() for tensor in inputs]
    output = compute(*leaves)
    output.float().backward(random(*output.shape, seed=1).to(device))
    gradients = [leaf.grad for leaf in leaves]
    assert all(gradient is not None for gradient in gradients)
    return [tensor.detach().cpu() for tensor in (output, *gradients)]  # type: ignore[union-attr]


def fresh(channels: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(channels), torch.ones(channels)


@pytest.fixture(scope="module")
def as_in_training() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)
