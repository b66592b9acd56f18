"""A network's cost by torch's own counter of operations, with which the package must agree."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sepablate.models.complexity import Cost


def count(model: nn.Module, image_size: int) -> Cost:
    """Trainable parameters, and multiply-adds of convolutions and matrix products for one image."""
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    image = torch.empty(1, first.in_channels, image_size, image_size, device="meta")
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        copy.deepcopy(model).to("meta").eval()(image)
    parameters = sum(each.numel() for each in model.parameters() if each.requires_grad)
    return Cost(parameters, counter.get_total_flops() // 2)
