"""Run a network on images, and score what it says of each."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sepablate.runs.run import Run
from sepablate.training import batches
from sepablate.training.objective import Task
from sepablate.training.process_group import ALONE, Ranks


@dataclass(frozen=True)
class Setting:
    """What stays the same during a run: what is trained, on what, where and with whom."""

    run: Run
    learns: Task
    device: str = "cpu"
    ranks: Ranks = ALONE


def forward(model: nn.Module, images: Tensor, run: Run, device: str) -> Tensor:
    """Logits (N, classes) in float32; convolutions in the run's precision, channels last."""
    images = images.to(device, memory_format=torch.channels_last)
    if run.precision == "fp32":
        return model(images)
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        return model(images).float()


@torch.inference_mode()
def scores(model: nn.Module, split: Any, setting: Setting) -> Tensor:
    """(N,) float64: the score of each image of the split, each evaluated by one rank."""
    run, ranks = setting.run, setting.ranks
    model.eval()
    mine = ranks.part(len(split))
    found = torch.zeros(len(split), dtype=torch.float64)
    parts = [
        setting.learns.scores(forward(model, images, run, setting.device), labels)
        for images, labels in batches.evaluation(split[mine], run, setting.device)
    ]
    found[mine] = torch.cat(parts) if parts else found[mine]
    return ranks.sum(found)
