"""The C++ kernels against PyTorch's: forward, backward, batch norm's statistics, registration."""

import copy
import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.kernel_results import NO_CPU_KERNELS, error, random, results
from torch import Tensor, nn
from torch.library import opcheck
from torch.nn import functional

from sepablate import models
from sepablate.kernels.fuse import apply_fused_kernels
from sepablate.models.weight_init import init_weights

ROOT = Path(__file__).parents[2]
BF16 = 0.004  # relative error of numbers that were rounded to 8 bits
CHANNELS = (2, 3, 4, 8, 13, 16, 91, 128, 200)  # whole vectors, parts, blocks that overlap, groups
SIZES = ((7, 7), (5, 8), (4, 4), (2, 2), (1, 1))
SMALL = {"classes": 10, "in_channels": 1, "width": 0.125, "stem_stride": 1, "dropout": 0.0}

pytestmark = pytest.mark.skipif(
    NO_CPU_KERNELS is not None, reason=f"no C++ kernels: {NO_CPU_KERNELS}"
)


@pytest.fixture(autouse=True, scope="module")
def _as_in_training() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


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


def fresh(channels: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(channels), torch.ones(channels)


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


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("xception", {}),
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
    ):
        assert y.isnan().all()


def test_without_a_compiler_there_is_one_line_and_no_library(tmp_path: Path) -> None:
    code = "from sepablate.kernels.cpu import build; print(build.load_library())"
    environment = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout == "no C++ compiler: 'c++' is not on the path\n"
    assert list(tmp_path.rglob("*.so")) == []


def activation(*shape: int, bf16: bool, seed: int = 0) -> Tensor:
    """Return random activations as the layers hand them on (bf16, channels_last), or fp32."""
    x = random(*shape, seed=seed)
    return x.bfloat16().to(memory_format=torch.channels_last) if bf16 else x


BOTH_FORMATS = pytest.mark.parametrize("bf16", [True, False], ids=["bf16", "fp32"])
IMAGES = pytest.mark.parametrize("shape", [(3, 16, 4, 4), (2, 5, 7, 6)], ids=str)


@BOTH_FORMATS
@IMAGES
@pytest.mark.parametrize("stride", [1, 2])
def test_opcheck_depthwise(shape: tuple[int, ...], bf16: bool, stride: int) -> None:
    operators = torch.ops.sepablate
    x, weight = activation(*shape, bf16=bf16), random(shape[1], 1, 3, 3)
    y = operators.depthwise(x, weight, stride, True)
    grad = activation(*y.shape, bf16=bf16)
    opcheck(operators.depthwise_backward.default, (grad, x, weight, stride, True))
    x.requires_grad_(), weight.requires_grad_()
    opcheck(operators.depthwise.default, (x, weight, stride, True))


@BOTH_FORMATS
@IMAGES
@pytest.mark.parametrize(
    ("kernel", "geometry"), [((1, 1), (1, 0, 0)), ((3, 3), (2, 1, 1)), ((1, 3), (1, 0, 1))]
)
def test_opcheck_convolution(
    shape: tuple[int, ...], bf16: bool, kernel: tuple[int, int], geometry: tuple[int, int, int]
) -> None:
    operators = torch.ops.sepablate
    x, weight = activation(*shape, bf16=bf16), random(8, shape[1], *kernel)
    y = operators.convolution(x, weight, *geometry)
    grad = activation(*y.shape, bf16=bf16)
    opcheck(operators.convolution_input_grad.default, (grad, x, weight, *geometry))
    opcheck(operators.convolution_weight_grad.default, (grad, x, weight, *geometry))
    opcheck(operators.convolution.default, (x, weight.requires_grad_(), *geometry))
    opcheck(operators.convolution.default, (x.requires_grad_(), weight, *geometry))


@BOTH_FORMATS
@IMAGES
@pytest.mark.parametrize("padding", [0, 1])
def test_opcheck_max_pool(shape: tuple[int, ...], bf16: bool, padding: int) -> None:
    operators = torch.ops.sepablate
    x = activation(*shape, bf16=bf16)
    y, indices = operators.max_pool_with_indices(x, padding)
    opcheck(operators.max_pool_with_indices.default, (x, padding))
    grad = activation(*y.shape, bf16=bf16)
    opcheck(operators.max_pool_backward.default, (grad, indices, *shape[2:], padding))
    opcheck(operators.max_pool.default, (x.requires_grad_(), padding))


@BOTH_FORMATS
@IMAGES
@pytest.mark.parametrize(("relu", "residual"), [(True, False), (False, True), (True, True)])
def test_opcheck_batch_norm(shape: tuple[int, ...], bf16: bool, relu: bool, residual: bool) -> None:
    operators, channels = torch.ops.sepablate, shape[1]
    x, weight, bias = activation(*shape, bf16=bf16), random(channels), random(channels, seed=1)
    added = activation(*shape, bf16=bf16, seed=2) if residual else None
    count = torch.tensor(0) if residual else None
    statistics = (*fresh(channels), 0.1, 1e-3)
    opcheck(operators.bn_forward.default, (x, weight, bias, *statistics, relu, added, count))
    _, mean, rstd = operators.bn_forward(x, weight, bias, *statistics, relu, added, count)
    grad = activation(*shape, bf16=bf16, seed=3)
    opcheck(operators.bn_backward.default, (grad, x, weight, bias, mean, rstd, relu))
    for tensor in (x, weight, bias, *([] if added is None else [added])):
        tensor.requires_grad_()
    opcheck(operators.batch_norm.default, (x, weight, bias, *statistics, relu, added, count))


def test_opcheck_covers_every_operator() -> None:
    names = {
        schema.name.partition("::")[2]
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("sepablate::")
    }
    text = Path(__file__).read_text()
    assert names
    assert all(f"opcheck(operators.{name}.default" in text for name in names)


def test_a_changed_statistic_is_noticed_by_a_graph_that_saved_it() -> None:
    x, ones = random(2, 4, 3, 3), torch.ones(4)
    running_mean, running_var = fresh(4)
    scale = torch.ones(4, requires_grad=True)
    loss = (scale * running_mean).sum()
    torch.ops.sepablate.batch_norm(x, ones, ones, running_mean, running_var, 0.1, 1e-3, False)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_gradients_of_gradients_and_wrong_shapes_are_refused() -> None:
    operators = torch.ops.sepablate
    x, weight = random(2, 4, 3, 3).requires_grad_(), random(4, 1, 3, 3)
    y = operators.depthwise(x, weight, 1, False).float().square().sum()
    with pytest.raises(RuntimeError, match="depthwise: gradients of gradients"):
        torch.autograd.grad(y, x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"weight must be \(4, 1, 3, 3\), not \[5, 1, 3, 3\]"):
        operators.depthwise(x, random(5, 1, 3, 3), 1, False)
    with pytest.raises(RuntimeError, match="at least 2 channels"):
        operators.max_pool(random(2, 1, 4, 4), 1)
