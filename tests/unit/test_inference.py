"""The network that evaluates: equal predictions, equal bits, and weights that stay as they are."""

import copy
import dataclasses
import functools

import pytest
import torch
from helpers.networks import generator, seeded
from helpers.project import ROOT
from torch import Tensor, nn

from sepablate import models, scales, study
from sepablate.data.split import TensorSplit
from sepablate.kernels.cpu import build
from sepablate.kernels.fuse import apply_fused_kernels
from sepablate.runs.run import Run, resolve
from sepablate.study import registry
from sepablate.training import engine
from sepablate.training.batches import make_batches
from sepablate.training.inference import inference_network
from sepablate.training.objective import make_objective
from sepablate.training.step import TrainContext, TrainState, evaluate, forward, train_step

VARIANTS = list(registry.variants(ROOT / "experiments"))
IMAGES = 32
STEPS = 24
BACKENDS = [("fp32", "torch"), ("bf16", "torch"), ("bf16", "fused")]


@functools.cache
def run_of(variant: str, precision: str, kernels: str) -> Run:
    scale, recipes = scales.load("smoke", ROOT / "params.yaml")
    scale = dataclasses.replace(scale, images=256, batch_size=32)
    declared = study.variant(variant, ROOT / "experiments")
    run = resolve(declared, "smoke", scale, recipes, 0, precision)
    return run.with_backend(precision, kernels)


def grey(run: Run, count: int) -> TensorSplit:
    """Return images of noise whose class is their brightness."""
    draw = generator(1)
    labels = torch.randint(run.classes, (count,), generator=draw)
    pixels = torch.randint(64, (count, run.image_size, run.image_size), generator=draw)
    return TensorSplit((pixels + 20 * labels[:, None, None]).to(torch.uint8), labels)


def inputs(run: Run) -> Tensor:
    """Return noise of different brightness and contrast, which networks tell apart."""
    draw, channels = generator(2), run.options["in_channels"]
    brightness, contrast = torch.rand(2, IMAGES, channels, 1, 1, generator=draw)
    pixels = torch.rand(IMAGES, channels, run.image_size, run.image_size, generator=draw)
    images = 2 * brightness - 1 + contrast * (2 * pixels - 1)
    return images.contiguous(memory_format=torch.channels_last)


def with_kernels(model: nn.Module, run: Run) -> nn.Module:
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if run.kernels == "fused":
        if reason := build.load_library():
            pytest.skip(reason)
        apply_fused_kernels(model)
    return model


@torch.inference_mode()
def check_predictions(model: nn.Module, exact: nn.Module, run: Run) -> float:
    """Compare logits and predictions with those of the network itself, in fp32 in eval mode.

    The default boxes of a detector count as images, and what it predicts of each as classes. Errors
    are measured by those of the network itself in the run's precision. Where two classes
    are nearer than twice the largest error that is allowed, either may be predicted. Returns the
    share of other images.
    """
    images = inputs(run)
    expected = exact(images).flatten(0, -2)
    logits = forward(inference_network(model, run), images, run, "cpu").flatten(0, -2)
    rounding = (forward(exact, images, run, "cpu").flatten(0, -2) - expected).abs()
    if run.precision == "fp32":
        rounding = expected.abs() * 1e-5
    errors, largest = (logits - expected).abs(), 2 * rounding.max()
    assert errors.mean() <= 1.5 * rounding.mean()
    assert errors.max() <= largest
    first, second = expected.topk(2, dim=1).values.T
    clear = first - second > 2 * largest
    assert torch.equal(logits.argmax(1)[clear], expected.argmax(1)[clear])
    return float(clear.float().mean())


@pytest.mark.parametrize("variant", VARIANTS)
def test_random_networks_are_the_same(variant: str) -> None:
    for backend in BACKENDS:
        run = run_of(variant, *backend)
        exact, model = seeded(run.model, **run.options), seeded(run.model, **run.options)
        assert check_predictions(with_kernels(model, run), exact, run) > 0.9 or "bf16" in backend


def trained(run: Run) -> TrainState:
    """Return the state after some steps; the kernels, where they are used, must be there."""
    split = grey(run, 256)
    state, batches = engine.start(run), make_batches(split, run)
    for _ in range(STEPS):
        train_step(state, batches, TrainContext(run, make_objective(run.task, split.labels)))
    return state


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_trained_network_evaluates_from_a_copy(backend: tuple[str, str]) -> None:
    """Equal to itself in eval mode; its state is untouched; a resumed state has equal bits."""
    run = run_of("xception", *backend)
    if run.kernels == "fused" and (reason := build.load_library()):
        pytest.skip(reason)
    state = trained(run)
    exact = models.build(run.model, **run.options)
    exact.load_state_dict(state.model.state_dict())
    assert check_predictions(state.model, exact.eval(), run) > 0.5
    before = copy.deepcopy(state.model.state_dict())
    classes = [type(module) for module in state.model.modules()]
    split = grey(run, 64)
    context = TrainContext(run, make_objective(run.task, split.labels))
    scores = evaluate(state.model, split, context)
    assert torch.equal(scores, evaluate(state.model, split, context))
    assert all(torch.equal(new, before[key]) for key, new in state.model.state_dict().items())
    assert all(weight.requires_grad for weight in state.model.parameters())
    assert [type(module) for module in state.model.modules()] == classes
    resumed = engine.start(run)
    resumed.restore(state.to_dict())
    images, (one, two) = (
        inputs(run),
        (inference_network(each.model, run) for each in (state, resumed)),
    )
    assert torch.equal(forward(one, images, run, "cpu"), forward(two, images, run, "cpu"))


@pytest.mark.parametrize("variant", ["xception", "mobilenet_v1", "inception_v3"])
def test_no_batch_norm_is_left(variant: str) -> None:
    run = run_of(variant, "fp32", "torch")
    layers = inference_network(seeded(run.model, **run.options), run).modules()
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in layers)


def test_a_batch_norm_after_a_relu_stays() -> None:
    """As in Inception V3 of 2016, whose outputs are the same nevertheless."""
    options = {"width": 0.0625, "keras_2016": True, "padding": "same", "stem_stride": 1}
    run = run_of("inception_v3", "fp32", "torch")
    model, images = seeded("inception_v3", **options), torch.rand(2, 3, 28, 28)
    network = inference_network(model, run)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()) == 94
    torch.testing.assert_close(network(images), model(images))
