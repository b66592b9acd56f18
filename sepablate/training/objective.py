"""What a network learns, and how its predictions on one image are scored.

Single label: softmax and cross-entropy, scored by whether the likeliest class is the label.
Multi-label: a logistic regression per class, scored by the average precision of the first
100 predictions, as on FastEval14k (arXiv:1610.02357, section 4.1).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

PREDICTIONS = 100
METRICS = {"single_label": "accuracy", "multi_label": f"map_{PREDICTIONS}"}


@dataclass(frozen=True)
class Task:
    """class_weights: (classes,), how much a class counts; only multi-label scores use it."""

    name: str
    class_weights: Tensor

    @property
    def metric(self) -> str:
        """The name of the mean score of a set of images."""
        return METRICS[self.name]

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over the images (N, classes), and over the classes if there are many labels."""
        if self.name == "single_label":
            return cross_entropy(logits, labels)
        return binary_cross_entropy_with_logits(logits, labels.float())

    def scores(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(N,) float64: of each image, 0 or 1, or its average precision."""
        if self.name == "single_label":
            return (logits.argmax(1).cpu() == labels).double()
        return average_precision(logits.cpu(), labels, self.class_weights)


def of(name: str, labels: Tensor) -> Task:
    """The task of that name; a class weighs what its share of the training labels is.

    The paper weighs a class by how common it is, in numbers that it does not publish.
    labels: (N,) int64, or (N, classes) of 0 and 1.
    """
    if name == "single_label":
        return Task(name, torch.empty(0))
    counts = labels.sum(0, dtype=torch.float64)
    return Task(name, counts / counts.sum())


def average_precision(
    scores: Tensor, labels: Tensor, class_weights: Tensor, predictions: int = PREDICTIONS
) -> Tensor:
    """(N,) float64: the weighted average precision of each image's first `predictions` classes.

    scores: (N, classes); labels: (N, classes) of 0 and 1; class_weights: (classes,), positive.
    The precision at the rank of each relevant class counts with the class's weight, over the
    largest sum of weights that so many predictions could reach; 0 for an image without labels.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :predictions]
    relevant = labels.gather(1, order).double()
    ranks = torch.arange(1, order.shape[1] + 1, dtype=torch.float64)
    precision = relevant.cumsum(1) / ranks
    weights = class_weights.double()
    best = (labels * weights).sort(1, descending=True).values[:, :predictions].sum(1)
    found = (precision * relevant * weights[order]).sum(1)
    return torch.where(best > 0, found / best.clamp_min(1e-300), 0.0)
