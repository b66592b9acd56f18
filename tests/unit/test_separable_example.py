"""The example network: its costs by hand, and its equality with its standard twin."""

from typing import Any

import pytest
import torch
from helpers.networks import generator, trainable
from helpers.torch_count import count
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sepablate.models import build
from sepablate.models.complexity import match_width
from sepablate.models.weight_init import init_weights

# (inputs, outputs, side of the output map) of each convolution, of 64 x 64 pixels
LAYERS = (
    (3, 32, 62),
    (32, 64, 60),
    (64, 64, 28),
    (64, 128, 26),
    (128, 64, 11),
    (64, 128, 9),
)
DENSE = 128 * 32 + 32 * 10


def drawn(separable: bool = True, **options: Any) -> nn.Module:
    """A network whose biases are not zero either."""
    model = build("separable_example", separable=separable, **options)
    init_weights(model, 0)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data.normal_(std=0.1, generator=generator())
    return model


def test_cost_of_the_separable_network() -> None:
    parameters = sum(9 * c + c * n + n for c, n, _ in LAYERS) + DENSE + 32 + 10
    mult_adds = sum((9 * c + c * n) * side**2 for c, n, side in LAYERS) + DENSE
    cost = count(build("separable_example"), 64)
    assert (cost.parameters, cost.mult_adds) == (parameters, mult_adds)
    assert parameters == 38_949  # Keras 3 counts the same for the same layers


def test_cost_of_the_standard_twin() -> None:
    parameters = sum(9 * c * n + n for c, n, _ in LAYERS) + DENSE + 32 + 10
    mult_adds = sum(9 * c * n * side**2 for c, n, side in LAYERS) + DENSE
    cost = count(build("separable_example", separable=False), 64)
    assert (cost.parameters, cost.mult_adds) == (parameters, mult_adds)


def test_a_separable_convolution_is_a_standard_one_of_a_product_kernel() -> None:
    """The standard twin computes the same when its kernels are pointwise times depthwise."""
    ours, twin = drawn(), drawn(separable=False)
    state = ours.state_dict()
    composed: dict[str, Tensor] = {}
    for key in twin.state_dict():
        name, _, tensor = key.rpartition(".full.")
        if not name:
            composed[key] = state[key]
        elif tensor == "bias":
            composed[key] = state[f"{name}.pointwise.bias"]
        else:
            spatial = state[f"{name}.depthwise.weight"].squeeze(1)  # (inputs, 3, 3)
            channel = state[f"{name}.pointwise.weight"].flatten(1)  # (outputs, inputs)
            composed[key] = torch.einsum("oi,ihw->oihw", channel, spatial)
    images = torch.randn(2, 3, 64, 64, generator=generator())
    with torch.inference_mode():
        untouched = twin(images)
        twin.load_state_dict(composed)
        expected, found = ours(images), twin(images)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert not torch.allclose(untouched, expected, rtol=0.1)


def test_layers_in_order() -> None:
    model = build("separable_example")
    names = [type(module).__name__ for module in model.modules() if not list(module.children())]
    convolution = ["Conv2d", "Conv2d", "ReLU"]
    stage = [*convolution, *convolution]
    assert names == [
        *stage,
        "MaxPool2d",
        *stage,
        "MaxPool2d",
        *stage,
        *("Linear", "ReLU", "Linear"),
    ]
    outputs = [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert outputs[1::2] == [32, 64, 64, 128, 64, 128]


@pytest.mark.parametrize(("separable", "precision"), [(True, torch.bfloat16), (False, torch.float)])
def test_learns(separable: bool, precision: torch.dtype) -> None:
    model = build("separable_example", width=0.5, separable=separable)
    model.to(memory_format=torch.channels_last)
    init_weights(model, 0)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, alpha=0.9)
    labels = torch.randint(2, (16,), generator=generator())
    images = torch.randn(16, 3, 32, 32, generator=generator()) + labels.view(-1, 1, 1, 1)
    losses = []
    for _ in range(30):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            loss = cross_entropy(model(images).float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_match_width() -> None:
    assert match_width("separable_example", 38_949) == 1.0
    # All channels are multiples of 32, so the steps are coarse: none lies within 1 %.
    matched = match_width("separable_example", 38_949, tolerance=0.02, separable=False)
    assert (matched, trainable("separable_example", width=matched, separable=False)) == (
        0.37,
        39_440,
    )


def test_smallest_image() -> None:
    model = build("separable_example").eval()
    assert model(torch.zeros(1, 3, 32, 40)).shape == (1, 10)
    with pytest.raises(ValueError, match="32 x 32, not 31 x 40"):
        model(torch.zeros(1, 3, 31, 40))


def test_bad_switch() -> None:
    with pytest.raises(ValueError, match=r"separable must be one of .*'no'"):
        build("separable_example", separable="no")
