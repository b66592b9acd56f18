"""The network that evaluates: equal predictions, equal bits, and weights that stay as they are."""

import functools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sepablate import models, scales
from sepablate.data.split import TensorSplit
from sepablate.kernels.cpu import build
from sepablate.kernels.fuse import apply_fused_kernels
from sepablate.models.layers import ConvNorm
from sepablate.runs.run import Run, resolve
from sepablate.study import registry
from sepablate.training import engine
from sepablate.training.batches import make_batches
from sepablate.training.inference import inference_network
from sepablate.training.objective import make_objective
from sepablate.training.step import TrainContext, TrainState, evaluate, forward, train_step
from tests.helpers.networks import generator, seeded

ROOT = Path(__file__).parents[2]
VARIANTS = registry.variants(ROOT / "experiments")
IMAGES = 24
BACKENDS = [("fp32", "torch"), ("bf16", "torch"), ("bf16", "fused")]
# Of the logits' root mean square: rounding to 8 bits in each of some 80 layers, and to 24.
TOLERANCE = {"bf16": 0.08, "fp32": 1e-4}


@functools.cache
def run_of(variant: str, precision: str = "fp32", kernels: str = "torch") -> Run:
    scale, recipes = scales.load("smoke", ROOT / "params.yaml")
    run = resolve(VARIANTS[variant], "smoke", scale, recipes, 0, precision)
    return run.with_backend(precision, kernels)


def split_of(run: Run, count: int = IMAGES) -> TensorSplit:
    draw = generator(1)
    shape = (count, run.image_size, run.image_size) + ((run.in_channels,) * (run.in_channels > 1))
    images = torch.randint(256, shape, dtype=torch.uint8, generator=draw)
    several = run.task == "multi_label"
    labels = torch.randint(
        2 if several else run.classes, (count, run.classes)[: 1 + several], generator=draw
    )
    return TensorSplit(images, labels)
