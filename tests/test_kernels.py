"""The kernels compute what torch computes: forward, backward, and the statistics of batch norm."""

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sepablate import models
from sepablate.kernels import compiled, network
from sepablate.models.weight_init import init_weights

ROOT = Path(__file__).parents[1]
BF16 = 0.004  # relative error of numbers that were rounded to 8 bits
CHANNELS = (2, 3, 4, 8, 13, 16, 91, 128, 200)  # whole vectors, parts, blocks that overlap, groups
SIZES = ((7, 7), (5, 8), (4, 4), (2, 2), (1, 1))
SMALL = {"classes": 10, "in_channels": 1, "width": 0.125, "stem_stride": 1, "dropout": 0.0}

pytestmark = pytest.mark.skipif(
    compiled.load() is not None, reason=f"no kernels here: {compiled.load()}"
)


@pytest.fixture(autouse=True, scope="module")
def _as_in_training() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


def random(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers that bf16 can hold."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=draw).bfloat16().float()


def error(found: Tensor, expected: Tensor) -> float:
    difference = (found.float() - expected.float()).norm()
    return (difference / expected.float().norm().clamp_min(1e-9)).item()


def results(compute: Callable[..., Tensor], *inputs: Tensor, device: str = "cpu") -> list[Tensor]:
    """The output, and the gradient of each input for one gradient of the output."""
    leaves = [tensor.detach().clone().to(device).requires_grad_() for tensor in inputs]
    output = compute(*leaves)
    output.float().backward(random(*output.shape, seed=1).to(device))
    gradients = [leaf.grad for leaf in leaves]
    assert all(gradient is not None for gradient in gradients)
    return [tensor.detach().cpu() for tensor in (output, *gradients)]  # type: ignore[union-attr]


def assert_equal(
    fast: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor
) -> None:
    found, expected = results(fast, *inputs), results(plain, *inputs)
    assert [each.shape for each in found] == [each.shape for each in expected]
    assert all(error(*pair) < BF16 for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("channels", CHANNELS)
def test_depthwise(channels: int) -> None:
    weight = random(channels, 1, 3, 3, seed=2)
    for size in SIZES:
        for stride in (1, 2):
            for relu in (False, True):

                def fast(x: Tensor, weight: Tensor) -> Tensor:
                    return torch.ops.sepablate.depthwise(x, weight, stride, relu)  # noqa: B023

                def plain(x: Tensor, weight: Tensor) -> Tensor:
                    x = x.relu() if relu else x  # noqa: B023
                    return functional.conv2d(
                        x,
                        weight,
                        stride=stride,  # noqa: B023
                        padding=1,
                        groups=channels,
                    )

                assert_equal(fast, plain, random(3, channels, *size), weight)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("border", [0, 1])
def test_max_pool(channels: int, border: int) -> None:
    for size in SIZES:
        if min(size) + 2 * border >= 3:
            assert_equal(
                lambda x: torch.ops.sepablate.max_pool(x, border),
                lambda x: functional.max_pool2d(x, 3, 2, border),
                random(3, channels, *size),
            )
    ties = torch.zeros(2, channels, 6, 6)
    assert_equal(
        lambda x: torch.ops.sepablate.max_pool(x, border),
        lambda x: functional.max_pool2d(x, 3, 2, border),
        ties,
    )


@pytest.mark.parametrize("channels", CHANNELS)
def test_batch_norm_and_its_statistics(channels: int) -> None:
    weight, bias = random(channels, seed=2), random(channels, seed=3)
    for size in SIZES:
        x, added = random(3, channels, *size), random(3, channels, *size, seed=4)
        for relu in (False, True):
            statistics = [
                [torch.full((channels,), 0.5), torch.full((channels,), 2.0)] for _ in "fp"
            ]

            def fast(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
                return torch.ops.sepablate.norm(
                    x,
                    weight,
                    bias,
                    *statistics[0],  # noqa: B023
                    0.1,
                    1e-3,
                    relu,  # noqa: B023
                    None,
                )

            def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
                y = functional.batch_norm(x, *statistics[1], weight, bias, True, 0.1, 1e-3)  # noqa: B023
                return y.relu() if relu else y  # noqa: B023

            assert_equal(fast, plain, x, weight, bias)
            for found, expected in zip(*statistics, strict=True):
                torch.testing.assert_close(found, expected)
        assert_equal(
            lambda *args: torch.ops.sepablate.norm(
                *args[:3], *fresh(channels), 0.1, 1e-3, False, args[3]
            ),
            lambda *args: (
                functional.batch_norm(args[0], *fresh(channels), *args[1:3], True, 0.1, 1e-3)
                + args[3]
            ),
            x,
            weight,
            bias,
            added,
        )


def fresh(channels: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(channels), torch.ones(channels)


@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "stride", "padding"),
    [
        (91, 91, (1, 1), 1, (0, 0)),
        (8, 16, (1, 1), 2, (0, 0)),
        (1, 4, (3, 3), 1, (1, 1)),
        (3, 8, (3, 3), 2, (0, 0)),
        (4, 8, (1, 7), 1, (0, 3)),
        (4, 8, (7, 1), 1, (3, 0)),
    ],
)
def test_convolution(
    inputs: int,
    outputs: int,
    kernel: tuple[int, int],
    stride: int,
    padding: tuple[int, int],
) -> None:
    for size in ((9, 7), (3, 4)):
        assert_equal(
            lambda x, weight: torch.ops.sepablate.convolution(x, weight, stride, *padding),
            lambda x, weight: functional.conv2d(x, weight, stride=stride, padding=padding),
            random(3, inputs, *size),
            random(outputs, inputs, *kernel, seed=2),
        )


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("xception", {}),
        ("xception", {"residual": False, "activation_after": "none"}),
        ("xception", {"activation_between": "relu", "norm_between": True}),
        ("xception", {"activation_between": "elu", "pointwise_first": True}),
        ("xception", {"segments": 4}),
        ("inception_v3", {}),
        ("inception_v3", {"keras_2016": True}),
        ("mobilenet_v1", {}),
        ("mobilenet_v1", {"separable": False, "activation": "relu6"}),
    ],
)
def test_a_network_trains_no_worse_by_the_kernels_than_by_torch(
    model: str, options: dict[str, Any]
) -> None:
    """fp32 is the truth; a deep network in bf16 is far from it, whoever computes."""
    padding = {} if model == "mobilenet_v1" else {"padding": "same"}
    exact = models.build(model, **SMALL, **padding, **options).train()
    init_weights(exact, 0)
    exact = exact.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torched, fast = copy.deepcopy(exact), network.take_on(copy.deepcopy(exact))
    assert list(fast.state_dict()) == list(exact.state_dict())
    images = random(16, 1, 14, 14).to(memory_format=torch.channels_last)
    truth = step(exact, images, bf16=False)
    by_torch, by_kernels = step(torched, images, bf16=True), step(fast, images, bf16=True)
    for theirs, ours, true in zip(by_torch, by_kernels, truth, strict=True):
        assert ours.shape == true.shape
        assert error(ours, true) < 1.5 * error(theirs, true) + 0.02
    exact.load_state_dict(fast.state_dict())
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast.eval()(images), exact.eval()(images))  # torch evaluates both


def step(model: nn.Module, images: Tensor, bf16: bool) -> list[Tensor]:
    """Logits, all gradients as one vector, and all statistics as another."""
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, bf16):
        logits = model(images).float()
    functional.cross_entropy(logits, torch.arange(len(images)) % 10).backward()
    gradients = [weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]
    statistics = [buffer.float().flatten() for buffer in model.buffers()]
    return [logits.detach(), torch.cat(gradients), torch.cat(statistics)]


@pytest.mark.parametrize("options", [{}, {"activation_after": "none"}, {"segments": 4}])
def test_a_block_whose_shortcut_is_its_input(options: dict[str, Any]) -> None:
    plain = models.build("xception", **SMALL, **options).middle[0].train()
    init_weights(plain, 0)
    fast = network.take_on(copy.deepcopy(plain))
    inputs = random(4, 91, 4, 4).to(memory_format=torch.channels_last)
    truth, by_torch, by_kernels = [], [], []
    cases = (
        (plain, truth, False),
        (copy.deepcopy(plain), by_torch, True),
        (fast, by_kernels, True),
    )
    for block, into, bf16 in cases:
        x = inputs.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, bf16):
            y = block(x)
        y.float().square().sum().backward()
        assert x.grad is not None
        into += [y.detach(), x.grad]
    for theirs, ours, true in zip(by_torch, by_kernels, truth, strict=True):
        assert error(ours, true) < 1.2 * error(theirs, true) + BF16
    counts = [
        [int(count) for name, count in block.named_buffers() if name.endswith("tracked")]
        for block in (fast, plain)
    ]
    assert counts[0] == counts[1] == [1] * len(counts[0])


def test_equal_steps_give_equal_bits() -> None:
    found = []
    for _ in range(2):
        model = models.build("xception", **SMALL, padding="same").train()
        init_weights(model, 0)
        found.append(step(network.take_on(model), random(16, 1, 14, 14), bf16=True))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_a_nan_goes_through_every_kernel() -> None:
    x = torch.full((1, 16, 4, 4), torch.nan)
    operators = torch.ops.sepablate
    ones = torch.ones(16)
    for y in (
        operators.depthwise(x, random(16, 1, 3, 3), 1, True),
        operators.max_pool(x, 1),
        operators.norm(x, ones, ones, *fresh(16), 0.1, 1e-3, True, None),
        operators.convolution(x, random(4, 16, 1, 1), 1, 0, 0),
    ):
        assert y.isnan().all()


def test_without_a_compiler_there_is_one_line_and_no_library(tmp_path: Path) -> None:
    code = "from sepablate.kernels import compiled; print(compiled.load())"
    environment = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.strip() != "None"
    assert len(done.stdout.splitlines()) == 1
    assert list((tmp_path / "sepablate").iterdir()) == []
