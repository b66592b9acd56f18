"""What the task of a run decides: its objective, its batches, its training and its score.

Only a detector imports the rest of this folder, and so torchvision.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from sepablate.data.split import Batches, Split
from sepablate.runs.run import Run
from sepablate.training import batches, engine, objective
from sepablate.training.objective import Objective
from sepablate.training.process_group import SINGLE, World
from sepablate.training.step import TrainContext, evaluate


def is_detection(run: Run) -> bool:
    """Return whether a run detects objects: its steps cannot be recorded on a GPU."""
    return run.task == "detection"


def make_objective(run: Run, labels: Tensor) -> Objective:
    """Return the objective of a run; `labels`: those of its training images."""
    if is_detection(run):
        from sepablate.training.detection.objective import make_detection_objective

        return make_detection_objective(run)
    return objective.make_objective(run.task, labels)


def make_batches(split: Split, run: Run, device: str = "cpu") -> Batches:
    """Return the batches of a training split: on `device` if the split is in memory."""
    if is_detection(run):
        from sepablate.training.detection.batches import make_batches

        return make_batches(split, run, device=device)
    return batches.make_batches(split, run, device=device)


def random_labels(run: Run, count: int, draw: torch.Generator) -> Tensor:
    """Draw labels of a run's shape: (count,), or (count, classes), or a box for each image."""
    if is_detection(run):
        labels = torch.zeros(count, 1, 6)
        labels[:, 0, 0] = torch.randint(run.classes, (count,), generator=draw)
        labels[:, 0, 3:5] = run.image_size / 2  # the upper left quarter
        return labels
    if run.task == "single_label":
        return torch.randint(run.classes, (count,), generator=draw)
    return torch.randint(2, (count, run.classes), generator=draw, dtype=torch.uint8)


def fit(
    run: Run,
    splits: Mapping[str, Split],
    folder: Path,
    monitor: engine.Monitor,
    device: str = "cpu",
    world: World = SINGLE,
) -> tuple[engine.TrainResult, str]:
    """Train a run, as `engine.fit`; return its result, and the examples of a detector.

    The examples are test images with true and predicted boxes, as JSON; empty for other tasks, and
    for a run that diverged.
    """
    if is_detection(run):
        from sepablate.training.detection import fit as detection

        return detection.fit(run, splits, folder, monitor, device, world)
    return engine.fit(run, splits, folder, monitor, device, world), ""


def score(model: nn.Module, images: Split, context: TrainContext) -> float:
    """Return the score of a network on images, by the name of `context.objective.score`."""
    if is_detection(context.run):
        from sepablate.training.detection import fit as detection

        return detection.evaluate(model, images, context).mean_ap.numbers()["map"]
    return evaluate(model, images, context).mean().item()
