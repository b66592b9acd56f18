"""Scenes of garments with boxes: what they must be, and always the same."""

import hashlib

import pytest
import torch
from helpers.project import ROOT

from sepablate.data import garment_boxes
from sepablate.data.split import TensorSplit


@pytest.fixture(scope="module")
def splits() -> dict[str, TensorSplit]:
    return garment_boxes.load(ROOT / "data")


def test_scenes_are_always_the_same(splits: dict[str, TensorSplit]) -> None:
    total = hashlib.sha256()
    for split in splits.values():
        total.update(split.images.numpy().tobytes() + split.labels.numpy().tobytes())
    assert total.hexdigest()[:16] == "10b5ee739d48c553"


def test_scenes_have_one_to_six_garments_of_all_classes_and_sizes(
    splits: dict[str, TensorSplit],
) -> None:
    for name, split in splits.items():
        assert split.images.shape == (garment_boxes.SCENES[name], 64, 64)
        present = split.labels[:, :, 0] >= 0
        assert present.sum(1).unique().tolist() in ([*range(7)], [*range(1, 7)])
        boxes = split.labels[present]
        assert boxes[:, 0].unique().tolist() == [*range(10)]
        assert boxes[:, 1:5].min() == 0
        assert boxes[:, 1:5].max() == 64
        sides = boxes[:, 3:5] - boxes[:, 1:3]
        assert (sides.min(), sides.max()) == (4, 40)
        areas = sides.prod(1)
        shares = [(areas < garment_boxes.AREAS[0]), (areas > garment_boxes.AREAS[1])]
        assert all(0.15 < share.float().mean() < 0.5 for share in shares)
        assert split.labels[~present].eq(-1).all()
        touching = (boxes[:, 1:3] == 0).any(1) | (boxes[:, 3:5] == 64).any(1)
        assert 0.1 < touching.float().mean() < 0.5  # cut by the border


def test_boxes_are_tight_around_visible_pixels(splits: dict[str, TensorSplit]) -> None:
    """Of the only garment of a scene, pixels touch each edge, and none lies outside the box."""
    split = splits["test"]
    one = (split.labels[:, :, 0] >= 0).sum(1) == 1
    checked = 0
    for image, labels in zip(split.images[one], split.labels[one], strict=True):
        left, top, right, bottom = labels[labels[:, 0] >= 0][0, 1:5].int().tolist()
        visible = image >= garment_boxes.VISIBLE
        rows, columns = visible.any(1).nonzero(), visible.any(0).nonzero()
        found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert tuple(map(int, found)) == (left, top, right, bottom)
        checked += 1
    assert checked > 300


def test_garments_overlap_only_in_part(splits: dict[str, TensorSplit]) -> None:
    from torchvision.ops import box_iou

    overlaps = torch.cat(
        [
            box_iou(boxes, boxes).triu(1).flatten()
            for boxes in (each[each[:, 0] >= 0, 1:5] for each in splits["test"].labels[:500])
        ]
    )
    assert (overlaps > 0).any()
    assert overlaps.quantile(0.999) < 0.5


def test_splits_share_no_garment(splits: dict[str, TensorSplit]) -> None:
    """They are made of the splits of Fashion-MNIST, which share none."""
    garments = garment_boxes.fashion_mnist.load(ROOT / "data")
    assert {name: len(each) for name, each in garments.items()} == {
        "train": 50_000,
        "validation": 10_000,
        "test": 10_000,
    }
    assert splits.keys() == garments.keys()
