"""The networks, by name. Every ablation is an option of a constructor."""

import inspect
from typing import Any

from torch import nn

from sepablate.errors import UserError
from sepablate.models.inception_v3 import InceptionV3
from sepablate.models.mobilenet_v1 import MobileNetV1
from sepablate.models.separable_example import SeparableExample
from sepablate.models.xception import Xception

MODELS: dict[str, type[nn.Module]] = {
    "inception_v3": InceptionV3,
    "mobilenet_v1": MobileNetV1,
    "separable_example": SeparableExample,
    "xception": Xception,
}


def build(name: str, **options: Any) -> nn.Module:
    """Build the network `name` with these options; UserError for unknown ones.

    The weights are PyTorch's defaults until `weight_init.init_weights` draws them from a seed.
    """
    valid = list(defaults(name))
    if unknown := sorted(set(options) - set(valid)):
        raise UserError(f"unknown options {unknown} for {name}; choose from {valid}")
    return MODELS[name](**options)


def defaults(name: str) -> dict[str, Any]:
    """Return every option of the network `name` with its default; UserError for an unknown name."""
    if name not in MODELS:
        raise UserError(f"unknown network {name!r}; choose from {sorted(MODELS)}")
    parameters = inspect.signature(MODELS[name]).parameters
    return {option: parameter.default for option, parameter in parameters.items()}
