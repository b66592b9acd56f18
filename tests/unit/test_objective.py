"""Scores of one and of many labels, against scikit-learn and by hand."""

import pytest
import torch
from sklearn.metrics import label_ranking_average_precision_score
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, cross_entropy

from sepablate.training import objective

SCORES = torch.tensor([[0.9, 0.8, 0.7, 0.6]])
LABELS = torch.tensor([[1, 0, 1, 0]], dtype=torch.uint8)
WEIGHTS = torch.tensor([1.0, 2.0, 3.0, 4.0])


def drawn(images: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Scores without ties, and at least one label for every image."""
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randn(images, classes, generator=draw, dtype=torch.float64)
    labels = (torch.rand(images, classes, generator=draw) < 0.2).to(torch.uint8)
    labels[torch.arange(images), torch.randint(classes, (images,), generator=draw)] = 1
    return scores, labels


@pytest.mark.parametrize(("classes", "predictions"), [(20, 100), (20, 20), (7, 8)])
def test_equal_weights_and_all_predictions_give_scikit_learn_s_score(
    classes: int, predictions: int
) -> None:
    scores, labels = drawn(300, classes, seed=classes)
    found = objective.average_precision(scores, labels, torch.full((classes,), 0.3), predictions)
    assert found.dtype == torch.float64
    expected = label_ranking_average_precision_score(labels.numpy(), scores.numpy())
    assert found.mean().item() == pytest.approx(expected, abs=1e-12)
    for one in range(5):
        single = label_ranking_average_precision_score(labels[[one]].numpy(), scores[[one]].numpy())
        assert found[one].item() == pytest.approx(single, abs=1e-12)


@pytest.mark.parametrize(
    ("predictions", "expected"),
    [
        (4, (1 * 1 + 3 * 2 / 3) / (1 + 3)),  # precision 1 at rank 1, 2/3 at rank 3
        (2, 1 * 1 / (1 + 3)),  # the second label is not reached, but could have been
        (1, 1 * 1 / 3),  # one prediction could at best have been the heavier label
    ],
)
def test_weighted_and_cut_off_by_hand(predictions: int, expected: float) -> None:
    found = objective.average_precision(SCORES, LABELS, WEIGHTS, predictions)
    assert found.tolist() == pytest.approx([expected])


def test_best_and_worst_images() -> None:
    perfect, none = (SCORES * LABELS, LABELS), (SCORES, torch.zeros_like(LABELS))
    assert objective.average_precision(*perfect, WEIGHTS).tolist() == [1.0]
    assert objective.average_precision(*none, WEIGHTS).tolist() == [0.0]
    assert objective.average_precision(*perfect, WEIGHTS, 1).tolist() == pytest.approx([1 / 3])


def test_a_weight_is_a_class_s_share_of_the_training_labels() -> None:
    labels = torch.tensor([[1, 1, 0], [1, 0, 0]], dtype=torch.uint8)
    learns = objective.make_objective("multi_label", labels)
    assert learns.score == "map_100"
    assert learns.class_weights.tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    logits, truth = drawn(4, 3, seed=1)
    expected = objective.average_precision(logits, truth, learns.class_weights)
    assert learns.scores(logits, truth).tolist() == expected.tolist()


def test_losses_are_means_over_images_and_over_classes() -> None:
    logits, labels = drawn(6, 5, seed=2)
    many = objective.make_objective("multi_label", labels).loss(logits, labels)
    each = binary_cross_entropy(logits.sigmoid(), labels.double(), reduction="none")
    assert many.item() == pytest.approx(each.sum().item() / 30)
    classes = labels.argmax(1)
    one = objective.make_objective("single_label", classes)
    assert one.score == "accuracy"
    assert one.loss(logits, classes).item() == cross_entropy(logits, classes).item()
    assert one.scores(logits, classes).tolist() == (logits.argmax(1) == classes).double().tolist()
