"""The C++ kernels against PyTorch's: forward, backward, batch norm's statistics."""

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import fork_server
from helpers.kernel_results import NO_CPU_KERNELS, as_in_training, error, fresh, random, results
from torch import Tensor, nn
from torch.nn import functional

from sepablate import models
from sepablate.kernels.fuse import apply_fused_kernels
from sepablate.models.weight_init import init_weights

ROOT = Path(__file__).parents[2]
BF16 = 0.004  # relative error of numbers that were rounded to 8 bits
CHANNELS = (2, 3, 4, 8, 13, 16, 91, 128, 200)  # whole vectors, parts, blocks that overlap, groups
SIZES = ((7, 7), (5, 8), (4, 4), (2, 2), (1, 1))
SMALL = {"classes": 10, "in_channels": 1, "width": 0.125, "stem_stride": 1, "dropout": 0.0}

__all__ = ["as_in_training"]
pytestmark = [
    pytest.mark.skipif(NO_CPU_KERNELS is not None, reason=f"no C++ kernels: {NO_CPU_KERNELS}"),
    pytest.mark.usefixtures("as_in_training"),
]


def assert_equal(
    fused: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor
) -> None:
    actual, expected = results(fused, *inputs), results(plain, *inputs)
    assert [tensor.shape for tensor in actual] == [tensor.shape for tensor in expected]
    assert all(error(*pair) < BF16 for pair in zip(actual, expected, strict=True))


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("relu", [False, True])
def test_depthwise(channels: int, stride: int, relu: bool) -> None:
    def fused(x: Tensor, weight: Tensor) -> Tensor:
        return torch.ops.sepablate.depthwise(x, weight, stride, relu)

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        x = x.relu() if relu else x
        return functional.conv2d(x, weight, stride=stride, padding=1, groups=channels)

    for size in SIZES:
        assert_equal(fused, plain, random(3, channels, *size), random(channels, 1, 3, 3, seed=2))


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("padding", [0, 1])
def test_max_pool(channels: int, padding: int) -> None:
    for size in SIZES:
        if min(size) + 2 * padding >= 3:
            assert_equal(
                lambda x: torch.ops.sepablate.max_pool(x, padding),
                lambda x: functional.max_pool2d(x, 3, 2, padding),
                random(3, channels, *size),
            )
    ties = torch.zeros(2, channels, 6, 6)
    assert_equal(
        lambda x: torch.ops.sepablate.max_pool(x, padding),
        lambda x: functional.max_pool2d(x, 3, 2, padding),
        ties,
    )


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_batch_norm_and_its_statistics(channels: int, relu: bool, residual: bool) -> None:
    parameters = random(channels, seed=2), random(channels, seed=3)
    for size in SIZES:
        images = [random(3, channels, *size), random(3, channels, *size, seed=4)]
        statistics, expected_statistics = (
            [torch.full((channels,), 0.5), torch.full((channels,), 2.0)] for _ in range(2)
        )
        fused = functools.partial(fused_batch_norm, statistics, relu)
        plain = functools.partial(plain_batch_norm, expected_statistics, relu)
        assert_equal(fused, plain, images[0], *parameters, *(images[1:] if residual else []))
        for actual, expected in zip(statistics, expected_statistics, strict=True):
            torch.testing.assert_close(actual, expected)


def fused_batch_norm(
    statistics: list[Tensor],
    relu: bool,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None = None,
) -> Tensor:
    return torch.ops.sepablate.batch_norm(x, weight, bias, *statistics, 0.1, 1e-3, relu, residual)


def plain_batch_norm(
    statistics: list[Tensor],
    relu: bool,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None = None,
) -> Tensor:
    y = functional.batch_norm(x, *statistics, weight, bias, True, 0.1, 1e-3)
    y = y.relu() if relu else y
    return y if residual is None else y + residual


@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "stride", "padding"),
    [
        (91, 91, (1, 1), 1, (0, 0)),
        (8, 16, (1, 1), 2, (0, 0)),
        (1, 4, (3, 3), 1, (1, 1)),
        (3, 4, (3, 3), 1, (1, 1)),
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


@pytest.mark.parametrize("inputs", CHANNELS)
@pytest.mark.parametrize("relus", [(False, False, True), (True, True, False)])
def test_separable_convolution_and_its_batch_norm(
    inputs: int, relus: tuple[bool, bool, bool]
) -> None:
    """Equal to the three operators one after the other, which other tests hold to PyTorch's."""
    operators, outputs = torch.ops.sepablate, 2 * inputs + 1

    def fused(statistics: list[Tensor], x: Tensor, *rest: Tensor) -> Tensor:
        taps, weight, scale, bias, residual = rest
        settings = (0.1, 1e-3, relus[2], residual)
        return operators.conv_norm(
            x, taps, weight, 1, 0, 0, *relus[:2], scale, bias, *statistics, *settings
        )

    def plain(statistics: list[Tensor], x: Tensor, *rest: Tensor) -> Tensor:
        taps, weight, scale, bias, residual = rest
        y = operators.depthwise(x, taps, 1, relus[0])
        y = operators.convolution(y.relu() if relus[1] else y, weight, 1, 0, 0)
        return operators.batch_norm(y, scale, bias, *statistics, 0.1, 1e-3, relus[2], residual)

    for size in ((9, 15), *SIZES):
        weights = [random(inputs, 1, 3, 3, seed=2), random(outputs, inputs, 1, 1, seed=3)]
        weights += [random(outputs, seed=4), random(outputs, seed=5)]
        images = random(11, inputs, *size).bfloat16().float()
        statistics, expected = list(fresh(outputs)), list(fresh(outputs))
        assert_equal(
            functools.partial(fused, statistics),
            functools.partial(plain, expected),
            images,
            *weights,
            random(11, outputs, *size, seed=6),
        )
        torch.testing.assert_close(statistics, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((1, 1), 2, (0, 0)), ((3, 3), 1, (1, 1)), ((3, 3), 2, (0, 0)), ((1, 7), 1, (0, 3))],
)
@pytest.mark.parametrize("inputs", [1, 3, 16, 49])
def test_convolution_and_its_batch_norm(
    inputs: int, kernel: tuple[int, int], stride: int, padding: tuple[int, int]
) -> None:
    operators = torch.ops.sepablate

    def fused(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        flags = (False, False, scale, bias, *fresh(24), 0.1, 1e-3, True)
        return operators.conv_norm(x, None, weight, stride, *padding, *flags)

    def plain(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        y = operators.convolution(x, weight, stride, *padding)
        return operators.batch_norm(y, scale, bias, *fresh(24), 0.1, 1e-3, True, None)

    for size in ((13, 14), (4, 5)):
        weights = [random(24, inputs, *kernel, seed=2), random(24, seed=3), random(24, seed=4)]
        assert_equal(fused, plain, random(5, inputs, *size).bfloat16().float(), *weights)


def test_what_a_diverged_run_leaves_in_memory_reaches_no_other() -> None:
    """The kernels keep their memory from call to call, and read a little past a row's end."""
    steps = []
    for images in (random(16, 1, 14, 14), torch.full((16, 1, 14, 14), torch.nan), None):
        for options in ({}, {"segments": 0, "width": 0.25}):
            model = models.build("xception", **SMALL | options, padding="same").train()
            init_weights(model, 0)
            model = apply_fused_kernels(model)
            steps.append(step(model, random(16, 1, 14, 14) if images is None else images, True))
    assert all(torch.equal(*pair) for pair in zip(steps[0], steps[4], strict=True))
    assert all(torch.equal(*pair) for pair in zip(steps[1], steps[5], strict=True))
    assert steps[2][0].isnan().all()


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("xception", {}),
        ("xception", {"activation_between": "relu"}),
        ("xception", {"residual": False, "activation_after": "none"}),
        ("xception", {"activation_between": "relu", "norm_between": True}),
        ("xception", {"activation_between": "elu", "pointwise_first": True}),
        ("xception", {"segments": 4}),
        ("xception", {"borders": "tensorflow"}),
        ("inception_v3", {}),
        ("inception_v3", {"borders": "tensorflow"}),
        ("inception_v3", {"keras_2016": True}),
        ("mobilenet_v1", {}),
        ("mobilenet_v1", {"borders": "tensorflow"}),
        ("mobilenet_v1", {"separable": False, "activation": "relu6"}),
    ],
)
@pytest.mark.parametrize("in_channels", [1, 3])
def test_a_network_trains_no_worse_with_the_kernels_than_with_pytorch(
    model: str, options: dict[str, Any], in_channels: int
) -> None:
    """fp32 is the reference; a deep network in bf16 is far from it, whichever kernels compute."""
    padding = {} if model == "mobilenet_v1" else {"padding": "same"}
    small = SMALL | {"in_channels": in_channels}
    exact = models.build(model, **small, **padding, **options).train()
    init_weights(exact, 0)
    exact = exact.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torched, fused = copy.deepcopy(exact), apply_fused_kernels(copy.deepcopy(exact))
    assert list(fused.state_dict()) == list(exact.state_dict())
    images = random(16, in_channels, 14, 14).to(memory_format=torch.channels_last)
    truth = step(exact, images, bf16=False)
    pytorch_bf16, fused_bf16 = step(torched, images, bf16=True), step(fused, images, bf16=True)
    for theirs, ours, true in zip(pytorch_bf16, fused_bf16, truth, strict=True):
        assert ours.shape == true.shape
        assert error(ours, true) < 1.5 * error(theirs, true) + 0.02
    exact.load_state_dict(fused.state_dict())
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(
            fused.eval()(images), exact.eval()(images)
        )  # both with PyTorch's kernels


def step(model: nn.Module, images: Tensor, bf16: bool) -> list[Tensor]:
    """Return the logits, all gradients as one vector, and all statistics as another."""
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
    fused = apply_fused_kernels(copy.deepcopy(plain))
    inputs = random(4, 91, 4, 4).to(memory_format=torch.channels_last)
    truth, pytorch_bf16, fused_bf16 = [], [], []
    cases = (
        (plain, truth, False),
        (copy.deepcopy(plain), pytorch_bf16, True),
        (fused, fused_bf16, True),
    )
    for block, into, bf16 in cases:
        x = inputs.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, bf16):
            y = block(x)
        y.float().square().sum().backward()
        assert x.grad is not None
        into += [y.detach(), x.grad]
    for theirs, ours, true in zip(pytorch_bf16, fused_bf16, truth, strict=True):
        assert error(ours, true) < 1.2 * error(theirs, true) + BF16
    counts = [
        [int(count) for name, count in block.named_buffers() if name.endswith("tracked")]
        for block in (fused, plain)
    ]
    assert counts[0] == counts[1] == [1] * len(counts[0])


def test_equal_steps_give_equal_bits() -> None:
    steps = []
    for _ in range(2):
        model = models.build("xception", **SMALL, padding="same").train()
        init_weights(model, 0)
        steps.append(step(apply_fused_kernels(model), random(16, 1, 14, 14), bf16=True))
    assert all(torch.equal(*pair) for pair in zip(*steps, strict=True))


def test_every_kernel_propagates_nan() -> None:
    x = torch.full((1, 16, 4, 4), torch.nan)
    operators = torch.ops.sepablate
    ones = torch.ones(16)
    for y in (
        operators.depthwise(x, random(16, 1, 3, 3), 1, True),
        operators.max_pool(x, 1),
        operators.batch_norm(x, ones, ones, *fresh(16), 0.1, 1e-3, True, None),
        operators.convolution(x, random(4, 16, 1, 1), 1, 0, 0),
        operators.conv_norm(
            x,
            None,
            random(16, 16, 1, 1),
            1,
            0,
            0,
            False,
            False,
            ones,
            ones,
            *fresh(16),
            0.1,
            1,
            True,
        ),
    ):
        assert y.isnan().all()


def test_without_a_compiler_there_is_one_line_and_no_library(tmp_path: Path) -> None:
    code = "from sepablate.kernels.cpu import build; print(build.load_library())"
    environment = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "CXX": "c++"}
    process = fork_server.run(ROOT, "-c", code, **environment)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout == "no C++ compiler: 'c++' is not on the path\n"
    assert list(tmp_path.rglob("*.so")) == []
