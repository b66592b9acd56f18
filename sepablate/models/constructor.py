"""The options of a network: the arguments of its constructor."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from sepablate.errors import UserError


def construct(kind: type[nn.Module], name: str, options: Mapping[str, Any]) -> nn.Module:
    """Return a network of that kind with these options; UserError, with its name, for others."""
    valid = list(default_options(kind))
    if unknown := sorted(set(options) - set(valid)):
        raise UserError(f"unknown options {unknown} for {name}; choose from {valid}")
    return kind(**options)


def default_options(kind: type[nn.Module]) -> dict[str, Any]:
    """Return every option of a kind of network with its default."""
    parameters = inspect.signature(kind).parameters
    return {option: parameter.default for option, parameter in parameters.items()}
