"""Scales: named budgets, read from params.yaml and checked to the last field."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml

T = TypeVar("T")
PARAMS = Path("params.yaml")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")  # safe in a path and on a command line


@dataclass(frozen=True)
class Recipe:
    """How every network is trained, as far as the paper says it, at every scale.

    decay: factor on the learning rate; decays: how often it is applied over a whole run.
    averaging_horizon: time constant of the weights' moving average, as a fraction of the run.
    shift: largest random shift in pixels; flip: mirror half of the images.
    """

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


@dataclass(frozen=True)
class Scale:
    """A named budget. Sizes in images and pixels; evaluations: points of a training curve.

    precision: "fp32", "bf16", or "auto": bf16 where a check on the machine finds it fast and right.
    """

    dataset: str
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

    @property
    def steps(self) -> int:
        """Gradient steps of one run; the last, incomplete batch of an epoch is dropped."""
        return max(1, round(self.epochs * (self.images // self.batch_size)))


CHOICES = {
    "padding": ("same", "valid"),
    "precision": ("auto", "fp32", "bf16"),
    "stem_stride": (1, 2),
    "dataset": ("fashion_mnist",),
}
LIMITS = {
    "images": (1, 50_000),
    "validation_images": (1, 10_000),
    "test_images": (1, 10_000),
    "image_size": (28, 28),
    "epochs": (0, 100_000),
    "width": (0, 16),
    "shift": (0, 28),
}
MAY_BE_ZERO = {"dropout", "momentum", "shift", "averaging_horizon", "seeds"}
FRACTIONS = {"dropout", "momentum", "decay", "averaging_horizon", "norm_momentum"}


def current(path: Path = PARAMS) -> str:
    """The scale that params.yaml selects."""
    return _scale_name(_read(path), _read(path).get("scale"), path)


def load(name: str, path: Path = PARAMS) -> tuple[Scale, Recipe]:
    """The scale of that name and the recipe; ValueError with the value, the place, the choices."""
    params = _read(path)
    scales = params["scales"]
    name = _scale_name(params, name, path)
    scale = _parse(Scale, scales[name], f"{path}: scales.{name}")
    recipe = _parse(Recipe, params.get("recipe"), f"{path}: recipe")
    if scale.batch_size > scale.images:
        raise ValueError(
            f"{path}: scales.{name}.batch_size: {scale.batch_size}: choose at most images "
            f"({scale.images})"
        )
    if scale.evaluations > scale.steps:
        raise ValueError(
            f"{path}: scales.{name}.evaluations: {scale.evaluations}: choose at most the "
            f"{scale.steps} steps of a run"
        )
    return scale, recipe


def _read(path: Path) -> dict[str, Any]:
    try:
        params = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; run from the project's root folder") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(params, dict) or not isinstance(params.get("scales"), dict):
        raise ValueError(f"{path}: must be a mapping with scale, recipe and scales")
    return params


def _scale_name(params: dict[str, Any], name: object, path: Path) -> str:
    if not isinstance(name, str) or name not in params["scales"]:
        choices = ", ".join(map(str, params["scales"]))
        raise ValueError(f"{path}: scale: {name!r}: choose {choices}")
    if not NAME.fullmatch(name):
        raise ValueError(f"{path}: scale: {name!r}: choose a name of letters, digits, - and _")
    return name


def _parse(cls: type[T], values: object, place: str) -> T:
    """A dataclass from a mapping that has exactly its fields, each of the declared type."""
    fields = {field.name: field.type for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if not isinstance(values, dict):
        raise ValueError(f"{place}: {values!r}: must be a mapping of {', '.join(fields)}")
    for key in values:
        if key not in fields:
            raise ValueError(f"{place}.{key}: unknown: choose {', '.join(fields)}")
    for key in fields:
        if key not in values:
            raise ValueError(f"{place}.{key}: missing")
    return cls(**{key: _value(kind, key, values[key], place) for key, kind in fields.items()})


def _value(kind: Any, key: str, value: Any, place: str) -> Any:
    if get_origin(kind) is tuple:
        return _seeds(get_args(kind)[0], key, value, place)
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{place}.{key}: {value!r}: must be of type {kind.__name__}")
    if key in CHOICES and value not in CHOICES[key]:
        raise ValueError(f"{place}.{key}: {value!r}: choose {', '.join(map(str, CHOICES[key]))}")
    if isinstance(value, (int, float)) and kind is not bool:
        _check_range(key, value, place)
    return kind(value)


def _seeds(kind: type, key: str, value: Any, place: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{place}.{key}: {value!r}: must be a list of whole numbers")
    seeds = tuple(_value(kind, key, each, place) for each in value)
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise ValueError(f"{place}.{key}: {seed}: duplicate; choose different seeds")
    return seeds


def _check_range(key: str, value: float, place: str) -> None:
    low, high = LIMITS.get(key, (0, 1 if key in FRACTIONS else float("inf")))
    inside = low <= value <= high and (value > 0 or key in MAY_BE_ZERO) and value != float("inf")
    if key == "dropout" and value == 1:
        raise ValueError(f"{place}.{key}: {value!r}: choose at least 0 and less than 1")
    if not inside:
        bound = f"at least {low}" if key in MAY_BE_ZERO or low else "more than 0"
        limit = "" if high == float("inf") else f" and at most {high}"
        raise ValueError(f"{place}.{key}: {value!r}: choose {bound}{limit}")
