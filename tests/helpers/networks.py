"""Networks with seeded weights, and counts of their parameters."""

from typing import Any

import torch
from torch import nn

from sepablate.models import build
from sepablate.models.weight_init import init_weights


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trainable(name: str, **options: Any) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(name, **options).parameters())


def seeded(name: str, seed: int = 0, **options: Any) -> nn.Module:
    """A network in eval mode with BN statistics and weights that leave nothing at its default."""
    model = build(name, **options)
    init_weights(model, seed)
    draw = generator(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for tensor, low, high in (
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.2, 0.2),
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
            ):
                tensor.uniform_(low, high, generator=draw)
    return model.eval()
