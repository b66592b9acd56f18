"""Dataclasses from what a person typed: every field checked for its type, range and choices."""

import dataclasses
from dataclasses import MISSING
from typing import Any, TypeVar, get_args, get_origin

from sepablate.errors import UserError

T = TypeVar("T")

CHOICES = {
    "padding": ("same", "valid"),
    "precision": ("auto", "fp32", "bf16"),
    "kernels": ("auto", "fused", "torch"),
    "stem_stride": (1, 2),
    "optimiser": ("sgd", "rmsprop"),
    "dataset": ("fashion_mnist", "imagenet"),
    "multi_label_dataset": ("garment_scenes", "labelled_images"),
}
LIMITS = {
    "image_size": (1, 4096),
    "epochs": (0, 100_000),
    "width": (0, 16),
    "shift": (0, 28),
}
MAY_BE_ZERO = {"dropout", "momentum", "shift", "averaging_horizon", "seeds"} | {
    "classes",
    "micro_batch",
    "workers",
}
FRACTIONS = {"dropout", "momentum", "decay", "averaging_horizon", "norm_momentum", "rho"}


def parse(cls: type[T], values: object, place: str) -> T:
    """A dataclass from a mapping of exactly its fields, each of the declared type.

    A field with a default may be missing.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if not isinstance(values, dict):
        raise UserError(f"{place}: {values!r}: must be a mapping of {', '.join(fields)}")
    for key in values:
        if key not in fields:
            raise UserError(f"{place}.{key}: unknown: choose {', '.join(fields)}")
    for key, declared in fields.items():
        if key not in values and declared.default is declared.default_factory is MISSING:
            raise UserError(f"{place}.{key}: missing")
    return cls(**{key: _value(fields[key].type, key, values[key], place) for key in values})


def _value(kind: Any, key: str, value: Any, place: str) -> Any:
    if get_origin(kind) is tuple:
        return _seeds(get_args(kind)[0], key, value, place)
    if get_origin(kind) is dict:
        if not isinstance(value, dict):
            raise UserError(f"{place}.{key}: {value!r}: must be a mapping of numbers by name")
        return {
            name: _value(float, "width", each, f"{place}.{key}.{name}")
            for name, each in value.items()
        }
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{place}.{key}: {value!r}: must be of type {kind.__name__}")
    if key in CHOICES and value not in CHOICES[key]:
        raise UserError(f"{place}.{key}: {value!r}: choose {', '.join(map(str, CHOICES[key]))}")
    if isinstance(value, (int, float)) and kind is not bool:
        _check_range(key, value, place)
    return kind(value)


def _seeds(kind: type, key: str, value: Any, place: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{place}.{key}: {value!r}: must be a list of whole numbers")
    seeds = tuple(_value(kind, key, each, place) for each in value)
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise UserError(f"{place}.{key}: {seed}: duplicate; choose different seeds")
    return seeds


def _check_range(key: str, value: float, place: str) -> None:
    low, high = LIMITS.get(key, (0, 1 if key in FRACTIONS else float("inf")))
    inside = low <= value <= high and (value > 0 or key in MAY_BE_ZERO) and value != float("inf")
    if key == "dropout" and value == 1:
        raise UserError(f"{place}.{key}: {value!r}: choose at least 0 and less than 1")
    if not inside:
        bound = f"at least {low}" if key in MAY_BE_ZERO or low else "more than 0"
        limit = "" if high == float("inf") else f" and at most {high}"
        raise UserError(f"{place}.{key}: {value!r}: choose {bound}{limit}")
