"""The optimizers and their groups of weights, against timm's."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from helpers.project import ROOT
from helpers.tiny_runs import tiny
from timm.optim import RMSpropTF as TimmRMSpropTF
from timm.optim import param_groups_weight_decay
from torch import nn

from sepablate import models, scales
from sepablate.training import optim
from sepablate.training.rmsprop_tf import RMSpropTF


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("epsilon", [1e-10, 1e-3])
def test_rmsprop_is_tensorflow_s(momentum: float, epsilon: float) -> None:
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.Linear(3, 2))
    theirs = copy.deepcopy(ours)
    groups = [param_groups_weight_decay(network, 0.01) for network in (ours, theirs)]
    optimizers = [
        RMSpropTF(groups[0], 0.02, momentum, 0.8, epsilon),
        TimmRMSpropTF(groups[1], 0.02, alpha=0.8, eps=epsilon, momentum=momentum),
    ]
    for step in range(20):
        images = torch.randn(6, 5)
        for network, optimizer in zip((ours, theirs), optimizers, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = 0.02 * 0.9**step
            optimizer.zero_grad()
            hidden = network[:3](images)  # the last layer has no gradient
            hidden.square().sum().backward()
            optimizer.step()
    for weight, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rmsprop_from_zero_is_keras(momentum: float) -> None:
    """Against Keras 3's update, entered as a fact: zeros, epsilon under the root."""
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    optimizer = RMSpropTF([weight], 0.1, momentum, 0.9, 1e-7, initial_square=0.0)
    expected, velocity, heat = weight.detach().numpy().copy(), np.zeros(3), np.zeros(3)
    for step in range(5):
        gradient = expected * (step + 1)
        velocity = 0.9 * velocity + 0.1 * gradient**2
        heat = momentum * heat + 0.1 * gradient / np.sqrt(velocity + 1e-7)
        expected = expected - heat
        weight.grad = weight.detach() * (step + 1)
        optimizer.step()
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-12)


def test_recipes_start_the_squares_as_their_source_does() -> None:
    recipes = scales.load("laptop", ROOT / "params.yaml")[1]
    assert {name: recipes[name].initial_square for name in ("jft", "example")} == {
        "jft": 1,  # TensorFlow 1
        "example": 0,  # Keras
    }
    for name in ("jft", "example"):
        run = dataclasses.replace(tiny(), recipe=recipes[name])
        optimizer = optim.make_optimizer(nn.Linear(2, 2), run)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        squares = [state["square"].max().item() for state in optimizer.state.values()]
        assert squares == pytest.approx([0.9 * recipes[name].initial_square] * 2, abs=1e-6)


def test_rmsprop_goes_on_from_what_it_saved() -> None:
    whole, resumed = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    gradient = torch.tensor([1.0, -2.0, 3.0])
    first, second, third = (
        RMSpropTF([it], 0.1, 0.9, 0.9, 1e-10) for it in (whole, resumed, resumed)
    )
    for step in range(4):
        whole.grad, resumed.grad = gradient.clone(), gradient.clone()
        if step == 2:
            third.load_state_dict(copy.deepcopy(second.state_dict()))
        first.step()
        (second if step < 2 else third).step()
    assert torch.equal(whole, resumed)


@pytest.mark.parametrize("decay_depthwise", [True, False])
@pytest.mark.parametrize("variant", ["xception", "inception_v3", "xception_multilabel"])
def test_weight_decay_acts_on_kernels_as_timm_groups_them(
    variant: str, decay_depthwise: bool
) -> None:
    run = dataclasses.replace(tiny(variant), weight_decay=0.3, decay_depthwise=decay_depthwise)
    model = models.build(run.model, **run.options)
    spared = [] if decay_depthwise else ["*.depthwise.weight"]
    expected = param_groups_weight_decay(model, 0.3, no_weight_decay_list=spared)
    found = optim.make_optimizer(model, run).param_groups
    for one, other in zip(found, expected, strict=True):
        assert one["weight_decay"] == other["weight_decay"]
        assert list(map(id, one["params"])) == list(map(id, other["params"]))


def test_without_weight_decay_there_is_one_group() -> None:
    run = dataclasses.replace(tiny(), weight_decay=0.0)
    model = models.build(run.model, **run.options)
    (group,) = optim.make_optimizer(model, run).param_groups
    assert len(group["params"]) == len(list(model.parameters()))
