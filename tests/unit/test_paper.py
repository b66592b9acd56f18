"""The papers' tables against our own networks, and their misprints against what is right."""

from functools import cache
from typing import Any

import pytest
import torch
from helpers.torch_count import count
from torch import Tensor, nn

from sepablate.models import build
from sepablate.models.complexity import Breakdown, breakdown
from sepablate.models.layers import Depthwise
from sepablate.paper import mobilenets, xception
from sepablate.paper.mobilenets import MISPRINTS, Cost, Misprint, Network

PRINTED: dict[str, Network] = {
    **mobilenets.TABLE_4,
    **mobilenets.TABLE_5,
    **mobilenets.TABLE_6,
    **mobilenets.TABLE_7,
    "0.50 MobileNet-160": mobilenets.TABLE_9["0.50 MobileNet-160"],
}
OPTIONS: dict[str, tuple[dict[str, Any], int]] = {
    "Conv MobileNet": ({"separable": False}, 224),
    "MobileNet": ({}, 224),
    "0.75 MobileNet": ({"width": 0.75}, 224),
    "Shallow MobileNet": ({"shallow": True}, 224),
}


def trainable(name: str, **options: Any) -> int:
    with torch.device("meta"):
        return count(build(name, **options), 299).parameters


@cache
def mobilenet(size: int = 224, **options: Any) -> Breakdown:
    with torch.device("meta"):
        return breakdown(build("mobilenet_v1", **options), size)


def weights(found: Breakdown) -> dict[str, int]:
    """Parameters as that paper counts them: without batch norm and the biases of 1000 classes."""
    kinds = {name: each.parameters for name, each in found.kinds.items() if name != "norm"}
    return kinds | {"dense": kinds["dense"] - 1000}


def of(name: str) -> Breakdown:
    """Our network of that name in the MobileNets paper."""
    if name in OPTIONS:
        options, size = OPTIONS[name]
        return mobilenet(size, **options)
    width, _, size_printed = name.partition(" MobileNet-")
    return mobilenet(int(size_printed), width=float(width))


def test_table_3_of_xception() -> None:
    printed = {name: size.parameters for name, size in xception.TABLE_3.items()}
    assert printed["Xception"] == trainable("xception")
    assert printed["Inception V3"] == trainable("inception_v3", keras_2016=True)
    gap = printed["Inception V3"] / printed["Xception"] - 1
    canonical = trainable("inception_v3") / printed["Xception"] - 1
    assert gap == pytest.approx(0.0337, abs=5e-5)
    assert gap < xception.WITHIN < 0.042 < canonical < 0.043


def test_gains_in_table_2_of_xception() -> None:
    def gain(head: str) -> float:
        table = xception.TABLE_2
        return table[f"Xception, {head} FC layers"] / table[f"Inception V3, {head} FC layers"] - 1

    assert gain("no") == pytest.approx(0.0535, abs=5e-5)
    assert gain("with") == pytest.approx(0.0431, abs=5e-5)
    assert round(gain("with"), 3) == xception.JFT_GAIN


@pytest.mark.parametrize("name", ["inception_v3", "xception"])
def test_heads_of_section_4_5(name: str) -> None:
    """Two dense layers of 4096 between 2048 features and 17,000 classes."""
    without, with_both = (trainable(name, classes=17_000, hidden=layers) for layers in (0, 2))
    dense = (2048 + 1) * 4096 + (4096 + 1) * 4096
    assert with_both - without == dense + (4096 - 2048) * 17_000


def test_inception_as_keras_had_it() -> None:
    model, canonical = (build("inception_v3", width=1 / 8, keras_2016=k) for k in (True, False))
    convolutions = [each for each in model.modules() if isinstance(each, nn.Conv2d)]
    assert len(convolutions) == 94
    assert all(each.bias is not None for each in convolutions)
    outputs = {
        name: (model.get_submodule(name).out_channels, canonical.get_submodule(name).out_channels)  # type: ignore[operator]
        for name, each in model.named_modules()
        if isinstance(each, nn.Conv2d)
    }
    assert {name: both for name, both in outputs.items() if both[0] != both[1]} == {
        "mixed_5c.branch_pool.1.conv": (4, 8),
        "mixed_5d.branch_pool.1.conv": (4, 8),
        "mixed_6e.branch7x7dbl.0.conv": (20, 24),
    }
    assert isinstance(model.get_submodule("mixed_7a.branch_pool"), nn.AvgPool2d)
    assert isinstance(canonical.get_submodule("mixed_7a.branch_pool"), nn.MaxPool2d)
    assert not least_inputs_of_norms(model) < 0
    assert least_inputs_of_norms(canonical) < 0


def least_inputs_of_norms(model: nn.Module) -> float:
    """The least number that any batch norm is given: none below 0 if a ReLU is in front of it."""
    found: list[float] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0].min().item())

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(note)
    model(torch.randn(2, 3, 75, 75, generator=torch.Generator().manual_seed(0)))
    return min(found)


def test_inception_as_keras_had_it_counts_like_keras_with_statistics() -> None:
    with torch.device("meta"):
        state = build("inception_v3", keras_2016=True).state_dict()
    floats = sum(each.numel() for each in state.values() if each.is_floating_point())
    assert floats == 23_660_968


def test_body_of_mobilenet() -> None:
    found: list[mobilenets.Layer] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Linear):
            found.append(mobilenets.Layer("FC", 0, 1, *reversed(module.weight.shape), 1))
        elif isinstance(module, nn.Conv2d):
            kind = "Conv dw" if isinstance(module, Depthwise) else "Conv"
            kernel, stride = module.kernel_size[0], module.stride[0]
            channels = module.in_channels, module.out_channels
            found.append(mobilenets.Layer(kind, kernel, stride, *channels, inputs[0].shape[-1]))

    with torch.device("meta"):
        model = build("mobilenet_v1").eval()
        for module in model.modules():
            module.register_forward_hook(note)
        model(torch.empty(1, 3, 224, 224))
    assert len(found) == 28
    differ = [both for both in zip(mobilenets.TABLE_1, found, strict=True) if both[0] != both[1]]
    [(printed, ours)] = differ
    assert (printed.stride, ours.stride) == (2, 1)
    assert printed._replace(stride=1) == ours


def test_shares_of_mobilenet() -> None:
    found = mobilenet()
    names = {"1x1": "Conv 1x1", "depthwise": "Conv DW 3x3", "k x k": "Conv 3x3"}
    names["dense"] = "Fully Connected"
    for kind, parameters in weights(found).items():
        printed = mobilenets.TABLE_2[names[kind]]
        share = 100 * parameters / sum(weights(found).values())
        assert share == pytest.approx(printed.parameters, abs=0.006)
        share = 100 * found.kinds[kind].mult_adds / found.total.mult_adds
        assert (share == pytest.approx(printed.mult_adds, abs=0.006)) == (kind != "k x k")


def test_one_layer_of_mobilenet() -> None:
    def separable(channels: int) -> nn.Module:
        return nn.Sequential(Depthwise(channels), nn.Conv2d(channels, channels, 1, bias=False))

    layers = {
        "Convolution": (nn.Conv2d(512, 512, 3, padding=1, bias=False), 14),
        "Depthwise Separable Conv": (separable(512), 14),
        "width 0.75": (separable(384), 14),
        "resolution 0.714": (separable(384), round(0.714 * 14)),
    }
    assert layers.keys() == mobilenets.TABLE_3.keys()
    for name, (layer, size) in layers.items():
        cost = count(layer, size)
        digits = 0 if name == "Convolution" else 1
        millions = round(cost.mult_adds / 1e6, digits), round(cost.parameters / 1e6, 2)
        assert Cost(*millions) == mobilenets.TABLE_3[name]


@pytest.mark.parametrize("name", PRINTED)
def test_costs_of_mobilenets(name: str) -> None:
    """Millions are printed rounded or cut off."""
    found, printed = of(name), PRINTED[name]
    digits = 2 if name == "0.50 MobileNet-160" else 1
    assert round(sum(weights(found).values()) / 1e6, digits) == printed.parameters
    # Only in this row the dense layer is not counted.
    left_out = found.kinds["dense"].mult_adds if name == "Conv MobileNet" else 0
    assert abs((found.total.mult_adds - left_out) / 1e6 - printed.mult_adds) < 1


def test_rows_that_stand_in_several_tables_agree() -> None:
    tables = [getattr(mobilenets, f"TABLE_{number}") for number in (4, 5, 6, 7, 8)]
    names = ("MobileNet", "0.75 MobileNet", "0.75 MobileNet-224", "1.0 MobileNet-224")
    rows = [table[name] for table in tables for name in names if name in table]
    assert len(rows) == 6
    assert len(set(rows)) == 2


def recomputed(misprint: Misprint) -> float:
    """The right value of a misprint, from our network or another table of the paper."""
    where = misprint.place
    if where.startswith("table 1,"):
        before, last, after = mobilenets.TABLE_1[-4:-1]
        assert (last.stride, last.size, after.size) == (misprint.printed, before.size, last.size)
        return last.size / after.size
    if where.startswith("table 2,"):
        assert sum(share.mult_adds for share in mobilenets.TABLE_2.values()) < 99.3
        assert mobilenets.TABLE_2["Conv 3x3"].mult_adds == misprint.printed
        return round(100 * mobilenet().kinds["k x k"].mult_adds / mobilenet().total.mult_adds, 2)
    if where.startswith("section 4.4"):  # the body, and a last layer of 10 million parameters
        found = mobilenet()
        return round((found.total.mult_adds - found.kinds["dense"].mult_adds) / 1e9 + 0.01, 2) * 1e9
    if where.startswith("section 4.5"):
        return mobilenets.TABLE_12["Baseline"].parameters * 1e6
    assert where.startswith("table 14,")
    first, second = mobilenets.TABLE_14[3:]
    assert first[0] == second[0] == f"0.75 MobileNet-{misprint.printed:.0f}"
    sizes = (224, 192, 160, 128)
    return min(
        sizes,
        key=lambda size: abs(
            mobilenet(size, width=0.75).total.mult_adds / 1e6 - first[1].mult_adds
        ),
    )


@pytest.mark.parametrize("misprint", MISPRINTS, ids=lambda misprint: misprint.place)
def test_misprints(misprint: Misprint) -> None:
    assert recomputed(misprint) == misprint.correct != misprint.printed
