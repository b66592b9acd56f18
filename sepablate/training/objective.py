"""Objectives: the loss that a network minimises and the score of its predictions on an image.

Single label: softmax and cross-entropy, scored by whether the likeliest class is the label.
Multi-label: a logistic regression per class, scored by the average precision of the first
100 predictions, as on FastEval14k (arXiv:1610.02357, section 4.1).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from sepablate.study import TASK_SCORES

PREDICTIONS = 100


@dataclass(frozen=True)
class Objective:
    """The loss and the score of a task.

    Args:
        task: "single_label" or "multi_label".
        class_weights: (classes,), how much a class counts; only multi-label scores use it.
    """

    task: str
    class_weights: Tensor

    @property
    def score(self) -> str:
        """Return the name of the mean score of a set of images."""
        return TASK_SCORES[self.task]

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss over images (N, classes), and over classes if multi-label."""
        if self.task == "single_label":
            return cross_entropy(logits, labels)
        return binary_cross_entropy_with_logits(logits, labels.float())

    def scores(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return (N,) float64: 0 or 1 for each image, or its average precision."""
        if self.task == "single_label":
            return (logits.argmax(1).cpu() == labels).double()
        return average_precision(logits.cpu(), labels, self.class_weights)


def make_objective(task: str, labels: Tensor) -> Objective:
    """Return the objective of a task; a class weighs its share of the training labels.

    The paper weighs a class by how common it is, in numbers that it does not publish.

    Args:
        task: "single_label" or "multi_label".
        labels: of the training images, (N,) int64, or (N, classes) of 0 and 1.
    """
    if task == "single_label":
        return Objective(task, torch.empty(0))
    counts = labels.sum(0, dtype=torch.float64)
    return Objective(task, counts / counts.sum())


def average_precision(
    scores: Tensor, labels: Tensor, class_weights: Tensor, predictions: int = PREDICTIONS
) -> Tensor:
    """Return (N,) float64: the weighted average precision of each image's first predictions.

    The precision at the rank of each relevant class counts with the class's weight, over the
    largest sum of weights that so many predictions could reach; 0 for an image without labels.

    Args:
        scores: (N, classes).
        labels: (N, classes) of 0 and 1.
        class_weights: (classes,), positive.
        predictions: how many of the classes with the highest scores count.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :predictions]
    relevant = labels.gather(1, order).double()
    ranks = torch.arange(1, order.shape[1] + 1, dtype=torch.float64)
    precision = relevant.cumsum(1) / ranks
    weights = class_weights.double()
    best = (labels * weights).sort(1, descending=True).values[:, :predictions].sum(1)
    reached = (precision * relevant * weights[order]).sum(1)
    return torch.where(best > 0, reached / best.clamp_min(1e-300), 0.0)
