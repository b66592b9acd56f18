"""The networks are the published ones, and each of their switches does something."""

from typing import Any

import pytest
import timm
import torch
import torchvision
from helpers.networks import generator, seeded, trainable
from helpers.torch_count import count
from torch import Tensor, nn

from sepablate.models import MODELS, build, defaults
from sepablate.models.layers import scaled
from sepablate.models.timm_weights import from_timm, to_timm
from sepablate.models.weight_init import init_weights

SMALL: dict[str, Any] = {
    "classes": 10,
    "in_channels": 1,
    "width": 1 / 16,
    "stem_stride": 1,
    "padding": "same",
}
SMALLEST_IMAGE = {"separable_example": 32}
XCEPTION_SWITCHES: list[dict[str, Any]] = [
    {"residual": False},
    {"activation_between": "relu"},
    {"activation_between": "elu"},
    {"activation_after": "none"},
    {"norm_between": True},
]
SWITCHES: list[tuple[str, dict[str, Any]]] = [
    *(("xception", switch) for switch in XCEPTION_SWITCHES),
    *(
        (name, option)
        for name in MODELS
        for option in (
            {"classes": 7},
            {"width": 1 / 8},
            {"stem_stride": 2},
            {"padding": "valid"},
            {"borders": "tensorflow"},
            {"norm_epsilon": 0.5},
        )
        if option.keys() <= defaults(name).keys()
    ),
]


def small(name: str) -> dict[str, Any]:
    """Those of the small network's options that this one has."""
    return {option: value for option, value in SMALL.items() if option in defaults(name)}


def having(*options: str) -> list[str]:
    """The networks that have all of these options."""
    return [name for name in MODELS if defaults(name).keys() >= set(options)]


def small_image(name: str, images: int = 1) -> Tensor:
    size = SMALLEST_IMAGE.get(name, 28)
    return torch.randn(images, 1, size, size, generator=generator())


def kinds(model: nn.Module) -> list[str]:
    return [f"{name}: {type(module).__name__}" for name, module in model.named_modules()]


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("xception", {}, 22_855_952),
        ("xception", {"residual": False}, 21_878_880),
        ("xception", {"classes": 10}, 20_827_442),
        ("xception", {"norm_between": True}, 22_902_048),
        ("inception_v3", {}, 23_834_568),
    ],
)
def test_parameters_at_the_size_of_the_paper(
    name: str, options: dict[str, Any], parameters: int
) -> None:
    assert trainable(name, **options) == parameters


def test_cost() -> None:
    with torch.device("meta"):
        cost = count(build("xception"), 299)
    assert cost.parameters == 22_855_952
    assert cost.mult_adds == pytest.approx(8_357e6, rel=1e-3)


def timm_xception() -> nn.Module:
    return timm.create_model("legacy_xception")


def timm_inception() -> nn.Module:
    return timm.create_model("inception_v3")


def torchvision_inception() -> nn.Module:
    return torchvision.models.inception_v3(aux_logits=False, init_weights=False)


@pytest.mark.parametrize(
    ("name", "options", "published"),
    [
        ("xception", {"norm_epsilon": 1e-5}, timm_xception),
        ("inception_v3", {}, timm_inception),
        ("inception_v3", {}, torchvision_inception),
    ],
)
def test_same_function_as_the_published_network(
    name: str, options: dict[str, Any], published: Any
) -> None:
    ours, theirs = seeded(name, **options), published().eval()
    state = ours.state_dict()
    theirs.load_state_dict(to_timm(name, state), strict=True)
    image = torch.randn(1, 3, 299, 299, generator=generator(1))
    with torch.inference_mode():
        expected, found = theirs(image), ours(image)
    assert expected.std() > 0
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()

    back = from_timm(name, theirs.state_dict())
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_weights_leave_the_auxiliary_tower_out() -> None:
    with torch.device("meta"):
        theirs = torchvision.models.inception_v3(aux_logits=True, init_weights=False)
        ours = build("inception_v3").state_dict()
    assert from_timm("inception_v3", theirs.state_dict()).keys() == ours.keys()


def test_weights_of_another_network_are_refused() -> None:
    with torch.device("meta"):
        state = build("xception", residual=False).state_dict()
    with pytest.raises(ValueError, match="shortcut"):
        to_timm("xception", state)
    with pytest.raises(ValueError, match="resnet"):
        to_timm("resnet", state)
    with pytest.raises(ValueError, match="resnet"):
        from_timm("resnet", state)


@pytest.mark.parametrize(("name", "switch"), SWITCHES, ids=str)
def test_every_switch_is_live(name: str, switch: dict[str, Any]) -> None:
    image = torch.randn(2, 1, 75, 75, generator=generator())
    with torch.inference_mode():
        baseline = seeded(name, **small(name))(image)
        changed = seeded(name, **(small(name) | switch))(image)
    assert changed.shape != baseline.shape or not torch.allclose(changed, baseline)


@pytest.mark.parametrize("switch", XCEPTION_SWITCHES, ids=str)
def test_every_ablation_changes_the_modules(switch: dict[str, Any]) -> None:
    assert kinds(build("xception", **SMALL)) != kinds(build("xception", **SMALL, **switch))


@pytest.mark.parametrize("name", having("dropout"))
def test_dropout_is_live_in_training_only(name: str) -> None:
    image = small_image(name, 2)
    for dropout in (0.0, 0.5):
        model = seeded(name, **small(name), dropout=dropout)
        head = model.get_submodule("classifier")
        features = torch.ones(1, head.get_parameter("dense.weight").shape[1], 2, 2)
        assert torch.equal(model(image), model(image))
        assert torch.equal(head.train()(features), head(features)) == (dropout == 0)
        assert any(isinstance(module, nn.Dropout) for module in model.modules()) == (dropout > 0)


@pytest.mark.parametrize("name", having("norm_epsilon", "norm_momentum"))
def test_norm_settings_reach_every_norm(name: str) -> None:
    model = build(name, **small(name), norm_epsilon=0.25, norm_momentum=0.75)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(0.25, 0.75)}


def test_relus_that_follow_a_separable_convolution() -> None:
    def relus(**options: Any) -> int:
        modules = build("xception", **SMALL, **options).modules()
        return sum(isinstance(module, nn.ReLU) for module in modules)

    assert relus() == 2 + 5 + 24 + 2 + 2  # stem, entry, middle, block 13, last module
    assert relus(activation_after="none") == 2 + 2 + 8 + 1  # the stem's and the blocks' heads


def test_separable_convolution_has_one_norm_after_the_pointwise() -> None:
    for name, module in build("xception", **SMALL, activation_between="elu").named_modules():
        if name.rpartition(".")[2].startswith("separable"):
            children = [type(child).__name__ for child in module.children()]
            assert children == ["Depthwise", "ELU", "Conv2d", "BatchNorm2d"]


@pytest.mark.parametrize(
    ("name", "switch"), [*((name, {}) for name in MODELS), *SWITCHES[: len(XCEPTION_SWITCHES)]]
)
def test_nothing_is_done_in_place(name: str, switch: dict[str, Any]) -> None:
    model = seeded(name, **small(name), **switch)
    for module in model.modules():
        assert not getattr(module, "inplace", False)

    def unchanged(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        versions[module] = inputs[0], inputs[0]._version

    versions: dict[nn.Module, tuple[Tensor, int]] = {}
    for module in model.modules():
        module.register_forward_pre_hook(unchanged)
    model(small_image(name))
    assert all(tensor._version == version for tensor, version in versions.values())


@pytest.mark.parametrize("switch", [{}, *XCEPTION_SWITCHES], ids=str)
def test_identity_shortcut_carries_the_unchanged_input(switch: dict[str, Any]) -> None:
    block = seeded("xception", **SMALL, **switch).get_submodule("middle.0")
    x = torch.randn(1, scaled(728, SMALL["width"]), 5, 5, generator=generator())
    with torch.inference_mode():
        shortcut = block(x) - block.get_submodule("body")(x)
    expected = x if switch.get("residual", True) else torch.zeros_like(x)
    torch.testing.assert_close(shortcut, expected)


def test_strided_shortcut_is_a_strided_convolution() -> None:
    shortcut = seeded("xception", **SMALL).get_submodule("entry.1.shortcut")
    weight = shortcut.get_parameter("conv.weight")
    for size in (9, 10):
        x = torch.randn(2, 8, size, size, generator=generator())
        strided = nn.functional.conv2d(x, weight, stride=2)
        torch.testing.assert_close(shortcut(x), shortcut.get_submodule("norm")(strided))


@pytest.mark.parametrize("switch", [*XCEPTION_SWITCHES, {"stem_stride": 2}, {"dropout": 0.0}])
def test_variants_start_from_the_same_weights(switch: dict[str, Any]) -> None:
    baseline, variant = build("xception", **SMALL), build("xception", **SMALL | switch)
    init_weights(baseline, 3)
    init_weights(variant, 3)
    ours, theirs = baseline.state_dict(), variant.state_dict()
    missing = ours.keys() - theirs.keys()
    added = theirs.keys() - ours.keys()
    assert all(".shortcut." in key for key in missing)
    assert bool(missing) == (switch == {"residual": False})
    assert all(".norm_between." in key for key in added)
    assert bool(added) == (switch == {"norm_between": True})
    assert all(torch.equal(ours[key], theirs[key]) for key in ours.keys() & theirs.keys())


@pytest.mark.parametrize("name", MODELS)
def test_initial_weights(name: str) -> None:
    first, again, other = (build(name, **small(name)) for _ in range(3))
    for model, seed in ((first, 0), (again, 0), (other, 1)):
        init_weights(model, seed)
    weights, repeated = dict(first.named_parameters()), dict(again.named_parameters())
    assert all(torch.equal(weights[key], repeated[key]) for key in weights)
    # Each from its own generator: no two are multiples of each other.
    kernels = [weight.flatten()[:8] for weight in weights.values() if weight.dim() == 4]
    directions = {tuple((kernel / kernel.norm()).tolist()) for kernel in kernels}
    assert len(directions) == len(kernels)
    for key, parameter in other.named_parameters():
        drawn = parameter.dim() > 1
        assert torch.equal(parameter, weights[key]) != drawn, key

    wide = build(name, classes=1000, width=0.25)
    init_weights(wide, 0)
    for key, parameter in wide.named_parameters():
        if parameter.dim() == 1:
            assert torch.all(parameter == (1.0 if key.endswith("norm.weight") else 0.0)), key
        elif parameter.numel() > 2000:
            expected = 0.01 if parameter.dim() == 2 else (2 / parameter[0].numel()) ** 0.5
            assert parameter.std().item() == pytest.approx(expected, rel=0.08), key


def test_initialise_refuses_a_layer_without_a_rule() -> None:
    with pytest.raises(TypeError, match="GRU"):
        init_weights(nn.Sequential(nn.GRU(2, 2)), 0)


@pytest.mark.parametrize("name", having("stem_stride"))
def test_small_images_end_at_two_by_two(name: str) -> None:
    sizes: list[tuple[int, ...]] = []
    model = build(name, **small(name)).eval()
    head = model.get_submodule("classifier")
    head.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[2:])))
    assert model(torch.zeros(1, 1, 28, 28)).shape == (1, 10)
    assert sizes == [(2, 2)]


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    options = small(name) | {option: 0.0 for option in ("dropout",) if option in defaults(name)}
    model = seeded(name, **options).train()
    model(small_image(name, 2)).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
