"""The networks, by name. Every ablation is an option of a constructor."""

import importlib
import inspect
from pathlib import Path
from typing import Any

from torch import nn

from sepablate.errors import UserError
from sepablate.models.constructor import construct, default_options
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
# Classes of models/detectors.py, which is imported only where they are used: it needs torchvision.
DETECTORS: dict[str, str] = {
    "ssd_inception_v3": "SSDInceptionV3",
    "ssd_mobilenet_v1": "SSDMobileNetV1",
    "ssd_xception": "SSDXception",
}


def build(name: str, **options: Any) -> nn.Module:
    """Build the network `name` with these options; UserError for unknown ones.

    The weights are PyTorch's defaults until `weight_init.init_weights` draws them from a seed.
    """
    return construct(_kind(name), name, options)


def defaults(name: str) -> dict[str, Any]:
    """Return every option of the network `name` with its default; UserError for an unknown name."""
    return default_options(_kind(name))


def source(name: str) -> Path:
    """Return the file of the network `name`, or of a detector's base."""
    return Path(inspect.getfile(MODELS[name.removeprefix("ssd_")]))


def _kind(name: str) -> type[nn.Module]:
    if name in DETECTORS:
        kind: type[nn.Module] = getattr(
            importlib.import_module("sepablate.models.detectors"), DETECTORS[name]
        )
        return kind
    if name not in MODELS:
        raise UserError(f"unknown network {name!r}; choose from {sorted([*MODELS, *DETECTORS])}")
    return MODELS[name]
