"""MobileNet is the published one: its tables' costs, timm's outputs, and each of its switches."""

from typing import Any

import pytest
import timm
import torch
from helpers.networks import generator, seeded, trainable
from helpers.torch_count import count
from timm.layers import make_divisible
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sepablate.models import build
from sepablate.models.complexity import match_width
from sepablate.models.layers import Depthwise, scaled
from sepablate.models.timm_weights import from_timm, to_timm
from sepablate.models.weight_init import init_weights

SMALL: dict[str, Any] = {"classes": 10, "in_channels": 1, "width": 1 / 8, "stem_stride": 1}
VARIANTS: list[dict[str, Any]] = [{}, {"separable": False}, {"shallow": True}]


def kind(module: nn.Module) -> str:
    if isinstance(module, nn.Conv2d):
        return "depthwise" if module.groups > 1 else f"conv{module.kernel_size[0]}"
    return "dense"


def census(image_size: int = 224, inside: str = "", **options: Any) -> dict[str, tuple[int, int]]:
    """Mult-adds and kernel weights (no BN, no biases) per kind of layer, from the layers' maps."""
    found: dict[str, tuple[int, int]] = {}

    def note(module: nn.Module, _: Any, output: Tensor) -> None:
        weight = module.get_parameter("weight")
        mult_adds, weights = found.get(kind(module), (0, 0))
        mult_adds += output.numel() * weight[0].numel()
        found[kind(module)] = mult_adds, weights + weight.numel()

    with torch.device("meta"):
        model = build("mobilenet_v1", **options).eval()
        for module in model.get_submodule(inside).modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(note)
        model(torch.empty(1, 3, image_size, image_size))
    return found


def totals(found: dict[str, tuple[int, int]]) -> tuple[int, int]:
    return sum(mult_adds for mult_adds, _ in found.values()), sum(
        weights for _, weights in found.values()
    )


@pytest.mark.parametrize(
    ("options", "image_size", "mult_adds", "weights", "printed"),
    [
        ({}, 224, 568_740_352, 4_209_088, (569, 4.2)),  # tables 4, 6, 7
        ({"separable": False}, 224, 4_867_293_184, 29_281_120, (4866, 29.3)),  # table 4
        ({"shallow": True}, 224, 307_323_392, 2_875_328, (307, 2.9)),  # table 5
        ({"width": 0.75}, 224, 325_400_448, 2_568_144, (325, 2.6)),  # tables 5, 6
        ({"width": 0.5}, 224, 149_497_088, 1_319_648, (149, 1.3)),  # table 6
        ({"width": 0.25}, 224, 41_030_272, 463_600, (41, 0.5)),  # table 6
        ({}, 192, 418_121_728, 4_209_088, (418, 4.2)),  # table 7
        ({}, 160, 290_675_200, 4_209_088, (290, 4.2)),  # table 7
        ({}, 128, 186_400_768, 4_209_088, (186, 4.2)),  # table 7
        ({"width": 0.5}, 160, 76_524_800, 1_319_648, (76, 1.32)),  # table 9
    ],
    ids=str,
)
def test_costs_of_the_tables(
    options: dict[str, Any],
    image_size: int,
    mult_adds: int,
    weights: int,
    printed: tuple[float, float],
) -> None:
    found = census(image_size, **options)
    assert totals(found) == (mult_adds, weights)
    with torch.device("meta"):
        cost = count(build("mobilenet_v1", **options), image_size)
    assert cost.mult_adds == mult_adds
    # The table of the full convolutions leaves the dense layer out, of 1.0 M mult-adds.
    dense = 0 if options.get("separable", True) else found["dense"][0]
    assert (mult_adds - dense) / 1e6 == pytest.approx(printed[0], abs=1)
    assert weights / 1e6 == pytest.approx(printed[1], abs=0.05)


def test_shares_of_each_kind_of_layer() -> None:
    found = census()
    mult_adds, weights = totals(found)
    shares = {
        name: (round(100 * operations / mult_adds, 2), round(100 * numbers / weights, 2))
        for name, (operations, numbers) in found.items()
    }
    assert shares == {
        "conv1": (94.86, 74.59),
        "depthwise": (3.06, 1.06),
        "conv3": (1.91, 0.02),  # table 2 prints 1.19, and its column then sums to 99.29
        "dense": (0.18, 24.33),
    }


@pytest.mark.parametrize(
    ("image_size", "options", "mult_adds", "weights"),
    [
        (224, {"separable": False}, 462.4, 2.36),
        (224, {}, 52.3, 0.27),
        (224, {"width": 0.75}, 29.6, 0.15),
        (160, {"width": 0.75}, 15.1, 0.15),  # maps of 10 x 10: 160 is 0.714 of 224
    ],
)
def test_one_layer_of_table_3(
    image_size: int, options: dict[str, Any], mult_adds: float, weights: float
) -> None:
    operations, numbers = totals(census(image_size, "body.layer7", **options))
    assert (round(operations / 1e6, 1), round(numbers / 1e6, 2)) == (mult_adds, weights)


@pytest.mark.parametrize(
    ("options", "layers"), [({}, 28), ({"shallow": True}, 18), ({"separable": False}, 15)], ids=str
)
def test_layers_counted_as_in_the_paper(options: dict[str, Any], layers: int) -> None:
    modules = list(build("mobilenet_v1", **SMALL, **options).modules())
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in modules) == layers
    for module in modules:
        children = [type(child).__name__ for child in module.children()]
        if any(isinstance(child, nn.Conv2d) for child in module.children()):
            assert children[0] in ("Conv2d", "Depthwise")
            assert children[1:] == ["BatchNorm2d", "ReLU"]


@pytest.mark.parametrize(
    ("published", "width"), [("mobilenetv1_100", 1), ("mobilenetv1_125", 1.25)]
)
def test_same_function_as_timm(published: str, width: float) -> None:
    options = {"norm_epsilon": 1e-5, "activation": "relu6", "width": width}
    ours = seeded("mobilenet_v1", **options)
    theirs = timm.create_model(published).eval()
    state = ours.state_dict()
    theirs.load_state_dict(to_timm("mobilenet_v1", state), strict=True)
    image = torch.randn(1, 3, 224, 224, generator=generator(1))
    with torch.inference_mode():
        expected, found = theirs(image), ours(image)
    assert expected.std() > 0
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()

    back = from_timm("mobilenet_v1", theirs.state_dict())
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_parameters_at_the_size_of_the_paper() -> None:
    assert trainable("mobilenet_v1") == 4_231_976
    assert sum(tensor.numel() for tensor in timm.create_model("mobilenetv1_100").parameters()) == (
        4_231_976
    )


@pytest.mark.parametrize("width", [0.25, 0.5, 0.75, 1.0])
def test_published_widths_need_no_rounding(width: float) -> None:
    for channels in (32, 64, 128, 256, 512, 1024):
        assert scaled(channels, width) == make_divisible(channels * width, 8)


def test_weights_of_a_variant_are_refused() -> None:
    for options in VARIANTS[1:]:
        state = build("mobilenet_v1", **SMALL, **options).state_dict()
        with pytest.raises(ValueError, match="layer"):
            to_timm("mobilenet_v1", state)


@pytest.mark.parametrize(
    ("image_size", "stem_stride", "sizes"),
    [
        (28, 1, [28, 28, 14, 14, 7, 7, 4, 4, 4, 4, 4, 4, 2, 2]),
        (224, 2, [112, 112, 56, 56, 28, 28, 14, 14, 14, 14, 14, 14, 7, 7]),
    ],
)
def test_maps_of_each_layer(image_size: int, stem_stride: int, sizes: list[int]) -> None:
    found: list[int] = []
    with torch.device("meta"):
        model = build("mobilenet_v1", stem_stride=stem_stride).eval()
        for layer in (model.get_submodule("stem"), *model.get_submodule("body").children()):
            layer.register_forward_hook(lambda *args: found.append(args[2].shape[2]))
        model(torch.empty(1, 3, image_size, image_size))
    assert found == sizes


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_strided_depthwise_step_on_small_maps(size: int) -> None:
    layer = Depthwise(4, stride=2)
    maps = torch.randn(2, 4, size, size, generator=generator())
    expected = nn.functional.conv2d(maps, layer.weight, stride=2, padding=1, groups=4)
    torch.testing.assert_close(layer(maps), expected)


@pytest.mark.parametrize(
    "switch", [*VARIANTS[1:], {"activation": "relu6"}, {"stem_stride": 2}], ids=str
)
def test_every_switch_is_live(switch: dict[str, Any]) -> None:
    image = 10 * torch.randn(2, 1, 28, 28, generator=generator())
    with torch.inference_mode():
        baseline = seeded("mobilenet_v1", **SMALL)(image)
        changed = seeded("mobilenet_v1", **SMALL | switch)(image)
    assert not torch.allclose(changed, baseline)


def test_shallow_leaves_out_five_layers_and_keeps_the_weights_of_the_others() -> None:
    deep, shallow = (build("mobilenet_v1", **SMALL, **options) for options in ({}, VARIANTS[2]))
    for model in (deep, shallow):
        init_weights(model, 3)
    ours, theirs = deep.state_dict(), shallow.state_dict()
    assert not theirs.keys() - ours.keys()
    missing = {".".join(key.split(".")[:2]) for key in ours.keys() - theirs.keys()}
    assert missing == {f"body.layer{number}" for number in range(7, 12)}
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_learns_in_bfloat16(options: dict[str, Any]) -> None:
    model = build("mobilenet_v1", **SMALL, **options).to(memory_format=torch.channels_last)
    init_weights(model, 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    labels = torch.arange(32) % 2
    images = torch.randn(32, 1, 28, 28, generator=generator())
    images[labels == 1] = images[labels == 1].cumsum(3) / 5  # stripes, unlike noise
    losses = []
    for _ in range(8):
        with torch.autocast("cpu", torch.bfloat16):
            loss = cross_entropy(model(images).float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_match_width(options: dict[str, Any]) -> None:
    target = trainable("mobilenet_v1", classes=10, in_channels=1, width=0.5)
    options = {"classes": 10, "in_channels": 1, **options}
    matched = match_width("mobilenet_v1", target, **options)
    assert trainable("mobilenet_v1", width=matched, **options) == pytest.approx(target, rel=0.01)
    assert (matched == 0.5) == ("separable" not in options and "shallow" not in options)


@pytest.mark.parametrize(
    ("option", "value"), [("separable", "no"), ("shallow", 5), ("activation", "elu")]
)
def test_bad_switches(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{option} must be one of .*{value}"):
        build("mobilenet_v1", **{option: value})
