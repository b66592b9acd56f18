"""Options of the networks: widths that are solved for, and values that are refused."""

from typing import Any

import pytest
from helpers.networks import trainable

from sepablate.models import MODELS, build, defaults
from sepablate.models.complexity import match_width
from sepablate.models.layers import scaled

SMALL: dict[str, Any] = {
    "classes": 10,
    "in_channels": 1,
    "width": 1 / 16,
    "stem_stride": 1,
    "padding": "same",
}
BAD_OPTIONS: list[dict[str, Any]] = [
    {"classes": 0},
    {"in_channels": 0},
    {"width": 0.0},
    {"width": -1.0},
    {"width": float("nan")},
    {"stem_stride": 3},
    {"padding": "reflect"},
    {"borders": "keras"},
    {"dropout": 1.0},
    {"norm_epsilon": 0.0},
    {"norm_momentum": 0.0},
    {"widht": 1.0},
]


@pytest.mark.parametrize("width", [1 / 16, 1 / 2])
@pytest.mark.parametrize(
    ("name", "options"), [("inception_v3", {}), ("xception", {"residual": False})]
)
def test_match_width(name: str, options: dict[str, Any], width: float) -> None:
    target = trainable("xception", classes=10, in_channels=1, width=width)
    options = {"classes": 10, "in_channels": 1, **options}
    matched = match_width(name, target, **options)
    found = trainable(name, width=matched, **options)
    assert round(matched, 6) == matched
    assert found == pytest.approx(target, rel=0.01)
    # No neighbouring width, on a coarse grid, comes nearer.
    for nudge in (-20, -10, -5, -3, -2, -1, 1, 2, 3, 5, 10, 20):
        neighbour = trainable(name, width=matched * (1 + nudge / 1000), **options)
        assert abs(neighbour - target) >= abs(found - target)


def test_match_width_finds_the_width_itself() -> None:
    assert match_width("xception", 22_855_952) == 1.0
    target = trainable("xception", classes=10, in_channels=1, width=0.125)
    assert match_width("xception", target, tolerance=0.0, classes=10, in_channels=1) == 0.125


def test_match_width_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="5 parameters"):
        match_width("xception", 5)
    with pytest.raises(ValueError, match=r"within 0\.00%"):
        match_width("xception", 22_855_951, tolerance=0.0)
    with pytest.raises(ValueError, match="at least 1"):
        match_width("xception", 0)
    with pytest.raises(ValueError, match="width"):
        match_width("xception", 10**6, width=0.5)


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [(728, 1.0, 728), (728, 1 / 16, 46), (32, 1 / 64, 1), (32, 1e-6, 1), (5, 0.5, 3)],
)
def test_scaled_rounds_half_up(channels: int, width: float, expected: int) -> None:
    assert scaled(channels, width) == expected


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (name, bad)
        for name in MODELS
        for bad in BAD_OPTIONS
        if "widht" in bad or bad.keys() <= defaults(name).keys()
    ],
    ids=str,
)
def test_bad_options(name: str, options: dict[str, Any]) -> None:
    [(option, value)] = options.items()
    with pytest.raises(ValueError, match=option) as error:
        build(name, **options)
    assert option == "widht" or repr(value) in str(error.value)


@pytest.mark.parametrize(
    "options",
    [{"activation_between": "gelu"}, {"activation_after": "elu"}, {"residual": "no"}],
    ids=str,
)
def test_bad_switches(options: dict[str, Any]) -> None:
    [(option, value)] = options.items()
    with pytest.raises(ValueError, match=f"{option}.*{value}"):
        build("xception", **options)


def test_unknown_network() -> None:
    with pytest.raises(ValueError, match=r"vgg.*inception_v3.*xception"):
        build("vgg")
