"""Recipes: how networks are trained, as pydantic models, and the kinds of fields they have."""

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PositiveFloat
from pydantic.dataclasses import dataclass

from sepablate.errors import UserError

Number = TypeVar("Number", int, float)
Count = Annotated[int, Field(gt=0, le=1_000_000_000)]
CountOrZero = Annotated[int, Field(ge=0, le=1_000_000_000)]
Fraction = Annotated[float, Field(gt=0, le=1)]
FractionOrZero = Annotated[float, Field(ge=0, le=1)]
Epochs = Annotated[float, Field(gt=0, le=100_000)]
Shift = Annotated[int, Field(ge=0, le=28)]


def _tuple(value: object) -> object:
    """Return a list, which is what YAML has, as a tuple."""
    return tuple(value) if isinstance(value, list) else value


def _distinct(values: tuple[Number, ...]) -> tuple[Number, ...]:
    seen: set[Number] = set()
    for value in values:
        if value in seen:
            raise UserError(f"{value} is a duplicate: choose different values")
        seen.add(value)
    return values


# A list of one or more, each once.
LIST = (
    BeforeValidator(_tuple),
    AfterValidator(_distinct),
    Field(min_length=1, max_length=1000, json_schema_extra={"uniqueItems": True}),
)
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """How a network is trained, as far as the paper says it; a scale may change some of it."""

    optimizer: Literal["sgd", "rmsprop"]
    """sgd: with momentum; rmsprop: epsilon under the root, as in TensorFlow and Keras."""
    learning_rate: PositiveFloat
    """At the start of a run."""
    momentum: FractionOrZero
    """Of SGD, and of RMSprop's steps."""
    decay: Fraction
    """Factor on the learning rate, applied `decays` times over a run."""
    decays: Count
    """How often the learning rate is decayed over a whole run."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    """Fraction of the features that are dropped before the classifier."""
    averaging_horizon: FractionOrZero
    """Time constant of the weights' moving average, as a fraction of the run."""
    norm_epsilon: PositiveFloat
    """Added to the variance in batch norm."""
    norm_momentum: Fraction
    """Weight of a new batch in the running statistics of batch norm."""
    shift: Shift
    """Largest random shift of an image, in pixels."""
    flip: bool
    """Mirror half of the images."""
    rho: Fraction = 0.9
    """Decay of RMSprop's mean of squared gradients."""
    epsilon: PositiveFloat = 1e-10
    """Added to RMSprop's mean of squared gradients, under the root."""
    initial_square: FractionOrZero = 1.0
    """RMSprop's mean of squared gradients before the first step: 1 in TensorFlow 1, 0 in Keras."""


@dataclass(frozen=True, config=STRICT)
class RecipeChange:
    """What a scale changes in a recipe; null for what it leaves."""

    learning_rate: PositiveFloat | None = None
    """At the start of a run."""
    decays: Count | None = None
    """How often the learning rate is decayed over a whole run."""
    shift: Shift | None = None
    """Largest random shift of an image, in pixels."""
    flip: bool | None = None
    """Mirror half of the images."""
    epochs: Epochs | None = None
    """Passes over the training images, if not as many as the scale's."""
