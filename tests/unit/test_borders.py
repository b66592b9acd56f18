"""TensorFlow's borders, against a reference in numpy that follows its documentation.

The reference fills the padding with NaN for pools, which the maximum and the mean of a window then
leave out, and with zeros for convolutions.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.networks import generator, seeded
from helpers.project import ROOT
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn

from sepablate import scales, study
from sepablate.models import build
from sepablate.models.layers import (
    BORDERS,
    Depthwise,
    SameAvgPool,
    SameConv,
    SameDepthwise,
    SameMaxPool,
    bordered,
)
from sepablate.runs import confounds
from sepablate.runs.run import resolve

NARROW: dict[str, Any] = {"classes": 10, "width": 1 / 16}
NETWORKS: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("xception", {}, (71, 96, 224)),
    ("xception", {"padding": "same"}, (71, 96)),
    ("xception", {"padding": "same", "stem_stride": 1}, (28,)),
    ("inception_v3", {}, (75, 96, 224)),
    ("inception_v3", {"keras_2016": True}, (96,)),
    ("inception_v3", {"padding": "same"}, (71, 96)),
    ("inception_v3", {"padding": "same", "stem_stride": 1, "keras_2016": True}, (28,)),
    ("mobilenet_v1", {}, (71, 96, 224)),
    ("mobilenet_v1", {"separable": False}, (96,)),
]


def padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "SAME" padding before and after (tf.nn, "Notes on padding")."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def windows(x: Tensor, kernel: int, stride: int, value: float) -> Any:
    """The windows of x (N, C, H, W): (N, C, H', W', kernel, kernel)."""
    pads = [padding(size, kernel, stride) for size in x.shape[2:]]
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), *pads), constant_values=value)
    return sliding_window_view(padded, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride]


def max_pool(module: nn.MaxPool2d, x: Tensor) -> Tensor:
    return torch.from_numpy(np.nanmax(windows(x, 3, int(module.stride), np.nan), (4, 5)))


def average_pool(module: nn.AvgPool2d, x: Tensor) -> Tensor:
    return torch.from_numpy(np.nanmean(windows(x, 3, int(module.stride), np.nan), (4, 5)))


def convolution(module: nn.Conv2d, x: Tensor) -> Tensor:
    found, weight = windows(x, 3, module.stride[0], 0.0), module.weight.detach().numpy()
    if module.groups > 1:
        y = np.einsum("nchwij,cij->nchw", found, weight[:, 0])
    else:
        y = np.einsum("nchwij,ocij->nohw", found, weight, optimize=True)
    bias = 0.0 if module.bias is None else module.bias.detach().numpy()[:, None, None]
    return torch.from_numpy(y + bias)


def by_reference(name: str, **options: Any) -> nn.Module:
    """The network, with each layer at which the borders matter computed by the reference."""
    model = seeded(name, **options).double()
    references: dict[type[nn.Module], Callable[..., Tensor]] = {
        nn.MaxPool2d: max_pool,
        nn.AvgPool2d: average_pool,
        nn.Conv2d: convolution,
        Depthwise: convolution,
    }
    for module in model.modules():
        padded = getattr(module, "padding", 0) not in (0, (0, 0))
        strided = getattr(module, "stride", 1) not in (1, (1, 1))
        if padded and (strided or isinstance(module, nn.AvgPool2d)):
            module.forward = functools.partial(references[type(module)], module)  # type: ignore[method-assign]
    return model


@torch.no_grad()
@pytest.mark.parametrize("size", range(1, 21))
def test_layers_with_stride_2(size: int) -> None:
    layers: list[tuple[nn.Module, Callable[..., Tensor]]] = [
        (SameConv(3, 5, 3, 2, padding=1), convolution),
        (SameDepthwise(3, 2), convolution),
        (SameMaxPool(3, stride=2, padding=1), max_pool),
        (SameAvgPool(3, stride=2, padding=1), average_pool),
    ]
    for other in (size, size + 1, size + 2):
        x = torch.randn(2, 3, size, other, generator=generator(), dtype=torch.float64)
        for layer, reference in layers:
            found, expected = layer.double()(x), reference(layer, x)
            assert found.shape[2:] == (-(-size // 2), -(-other // 2))
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("size", range(1, 21))
def test_average_pool_with_stride_1(size: int) -> None:
    options = {**NARROW, "borders": "tensorflow"}
    pools = [each for each in build("inception_v3", **options).modules() if is_average(each)]
    assert len(pools) == 9
    x = torch.randn(2, 3, size, size + 1, generator=generator(), dtype=torch.float64)
    for pool in pools:
        torch.testing.assert_close(pool(x), average_pool(pool, x), rtol=1e-12, atol=1e-12)


def is_average(module: nn.Module) -> bool:
    return isinstance(module, nn.AvgPool2d)


@pytest.mark.parametrize("kind", [SameMaxPool, SameAvgPool, SameConv])
@pytest.mark.parametrize("size", [6, 7])
def test_gradients_of_layers_with_stride_2(kind: type[nn.Module], size: int) -> None:
    layer = SameConv(2, 2, 3, 2, padding=1) if kind is SameConv else kind(3, stride=2, padding=1)
    x = torch.randn(1, 2, size, size, generator=generator(), dtype=torch.float64)
    assert torch.autograd.gradcheck(layer.double(), x.requires_grad_())


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [(name, options, size) for name, options, sizes in NETWORKS for size in sizes],
    ids=str,
)
def test_networks(name: str, options: dict[str, Any], size: int) -> None:
    options = {**NARROW, **options}
    images = torch.randn(2, 3, size, size, generator=generator(1), dtype=torch.float64)
    ours = seeded(name, **options, borders="tensorflow").double()
    theirs = seeded(name, **options).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    with torch.no_grad():
        found, expected = ours(images), by_reference(name, **options)(images)
        plain = theirs(images)
    assert (found - expected).abs().max() < 1e-12 * expected.abs().max()
    same = (name, size) == ("xception", 71) and options.get("padding") != "same"
    assert torch.equal(found, plain) == same
    assert same or (found - plain).std() > 1e-3 * plain.std()


@pytest.mark.parametrize(("name", "size"), [("xception", 71), ("mobilenet_v1", 33)])
def test_borders_are_the_same_where_all_maps_are_odd(name: str, size: int) -> None:
    images = torch.randn(2, 3, size, size, generator=generator(1))
    with torch.inference_mode():
        one, other = (seeded(name, **NARROW, borders=each)(images) for each in BORDERS)
    assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["xception", "inception_v3", "mobilenet_v1"])
def test_borders_of_torch_are_torchs_own_layers(name: str) -> None:
    kinds = (SameConv, SameDepthwise, SameMaxPool, SameAvgPool)
    for options in ({}, {"padding": "same"} if name != "mobilenet_v1" else {}):
        for module in build(name, **NARROW, **options, borders="torch").modules():
            assert not isinstance(module, kinds)
            assert getattr(module, "count_include_pad", True)
    assert bordered(nn.Conv2d, "torch") is nn.Conv2d


def test_a_variant_sets_the_borders_and_the_guard_names_them() -> None:
    scale, recipes = scales.load("smoke", ROOT / "params.yaml")

    def config(variant: study.Variant) -> dict[str, Any]:
        return resolve(variant, "smoke", scale, recipes, 0, "fp32").config

    changed = study.INCEPTION_V3.but("changed", "Changed", borders="tensorflow")
    declared = study.load("xception_vs_inception", ROOT / "experiments")
    assert confounds.undeclared(declared, config(study.XCEPTION), config(changed)) == {
        "model.borders": ("torch", "tensorflow")
    }
    assert study.INCEPTION_V3_2016.options["borders"] == "tensorflow"
