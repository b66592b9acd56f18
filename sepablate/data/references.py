"""Published accuracies on the data sets: the tables of `paper/accuracies.py`, as reports print."""

from sepablate.paper.accuracies import CIFAR10, FASHION_MNIST, IMAGENET, Reference

__all__ = ["CIFAR10", "FASHION_MNIST", "IMAGENET", "Reference"]
