"""Scales: named budgets, read from params.yaml and checked to the last field."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sepablate.errors import UserError
from sepablate.strict import parse

PARAMS = Path("params.yaml")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")  # safe in a path and on a command line


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, as far as the paper says it, at every scale.

    optimiser: "sgd", or "rmsprop" with TensorFlow's semantics, of which rho is the decay of the
    squared gradients and epsilon is added to them under the root.
    decay: factor on the learning rate; decays: how often it is applied over a whole run.
    averaging_horizon: time constant of the weights' moving average, as a fraction of the run.
    shift: largest random shift in pixels; flip: mirror half of the images.
    """

    optimiser: str
    learning_rate: float
    momentum: float
    decay: float
    decays: int
    dropout: float
    averaging_horizon: float
    norm_epsilon: float
    norm_momentum: float
    shift: int
    flip: bool
    rho: float = 0.9
    epsilon: float = 1e-10


@dataclass(frozen=True)
class Scale:
    """A named budget. Sizes in images and pixels; evaluations: points of a training curve.

    precision: "fp32", "bf16", or "auto": bf16 where a check on the machine finds it fast and right.
    kernels: what computes the layers in training: "torch" for its own operators, "fused" for those
    of `sepablate.kernels`, "auto" for the fused ones where a check finds them fast.
    dataset, multi_label_dataset: the data set of each task. widths: of the networks, by name, whose
    width is not `width`. classes: 0 where the data set knows. batch_size: images of a gradient
    step; micro_batch: of a forward pass and its batch norm, 0 for the whole batch. workers:
    processes that read images from disk, for each accelerator.
    """

    dataset: str
    multi_label_dataset: str
    images: int
    image_size: int
    validation_images: int
    test_images: int
    width: float
    stem_stride: int
    padding: str
    batch_size: int
    epochs: float
    evaluations: int
    precision: str
    seeds: tuple[int, ...]
    widths: dict[str, float] = field(default_factory=dict)
    classes: int = 0
    micro_batch: int = 0
    workers: int = 0
    kernels: str = "auto"

    @property
    def steps(self) -> int:
        """Gradient steps of one run; the last, incomplete batch of an epoch is dropped."""
        return max(1, round(self.epochs * (self.images // self.batch_size)))


IN_MEMORY_LIMITS = {  # of the data sets made of Fashion-MNIST
    "images": 50_000,
    "validation_images": 10_000,
    "test_images": 10_000,
}


def current(path: Path = PARAMS) -> str:
    """The scale that params.yaml selects."""
    return _scale_name(_read(path), _read(path).get("scale"), path)


def load(name: str, path: Path = PARAMS) -> tuple[Scale, dict[str, Recipe]]:
    """The scale of that name and the recipes; ValueError with the value, the place, the choices."""
    params = _read(path)
    scales = params["scales"]
    name = _scale_name(params, name, path)
    scale = parse(Scale, scales[name], f"{path}: scales.{name}")
    if not isinstance(params.get("recipes"), dict) or not params["recipes"]:
        raise UserError(f"{path}: recipes: {params.get('recipes')!r}: must be a mapping by name")
    recipes = {
        key: parse(Recipe, value, f"{path}: recipes.{key}")
        for key, value in params["recipes"].items()
    }
    _check_together(scale, f"{path}: scales.{name}")
    return scale, recipes


def _check_together(scale: Scale, place: str) -> None:
    """ValueError for fields that do not go with each other."""
    most = {"batch_size": ("images", scale.images), "evaluations": ("steps", scale.steps)}
    for key, (name, limit) in most.items():
        if getattr(scale, key) > limit:
            raise UserError(
                f"{place}.{key}: {getattr(scale, key)}: choose at most the {name} ({limit})"
            )
    if scale.micro_batch and scale.batch_size % scale.micro_batch:
        raise UserError(
            f"{place}.micro_batch: {scale.micro_batch}: choose a divisor of batch_size "
            f"({scale.batch_size})"
        )
    if scale.dataset == "fashion_mnist":
        if scale.image_size != 28:
            raise UserError(f"{place}.image_size: {scale.image_size}: choose 28 for fashion_mnist")
        for key, limit in IN_MEMORY_LIMITS.items():
            if getattr(scale, key) > limit:
                raise UserError(f"{place}.{key}: {getattr(scale, key)}: choose at most {limit}")


def _read(path: Path) -> dict[str, Any]:
    try:
        params = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; run from the project's root folder") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(params, dict) or not isinstance(params.get("scales"), dict):
        raise UserError(f"{path}: must be a mapping with scale, recipes and scales")
    return params


def _scale_name(params: dict[str, Any], name: object, path: Path) -> str:
    if not isinstance(name, str) or name not in params["scales"]:
        choices = ", ".join(map(str, params["scales"]))
        raise UserError(f"{path}: scale: {name!r}: choose {choices}")
    if not NAME.fullmatch(name):
        raise UserError(f"{path}: scale: {name!r}: choose a name of letters, digits, - and _")
    return name
