"""The multi-label data set: the same for ever, drawn as labelled, its splits apart."""

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from sepablate import data
from sepablate.data import fashion_mnist, garment_scenes
from sepablate.data.split import TensorSplit
from sepablate.errors import UserError

Splits = dict[str, TensorSplit]
DIGESTS = {
    "train": "511dc65980fc45a4",
    "validation": "0443104435a1d3bd",
    "test": "2c9f8a9ad53797a0",
}


@pytest.fixture(scope="module")
def garments(data_folder: Path) -> Splits:
    return fashion_mnist.load(data_folder)


@pytest.fixture(scope="module")
def scenes(data_folder: Path) -> Splits:
    return garment_scenes.load(data_folder)


def cells(images: Tensor) -> Tensor:
    """(N, 28, 28) images as their (N, 4, 14, 14) quarters, row by row."""
    quarters = [images[:, y : y + 14, x : x + 14] for y in (0, 14) for x in (0, 14)]
    return torch.stack(quarters, 1)


def known(garments: TensorSplit) -> dict[bytes, set[int]]:
    """The classes that each small garment may stand for, by its bytes."""
    small = avg_pool2d(garments.images.unsqueeze(1).float(), 2).round().byte().squeeze(1)
    found: dict[bytes, set[int]] = {}
    for kind, upright in zip(garments.labels.tolist(), small, strict=True):
        for label, garment in ((kind, upright), (kind + 10, upright.flip(0))):
            found.setdefault(garment.numpy().tobytes(), set()).add(label)
    return found


@pytest.mark.parametrize("name", DIGESTS)
def test_scenes_are_the_same_bytes_for_ever(scenes: Splits, name: str) -> None:
    split = scenes[name]
    assert split.images.dtype == split.labels.dtype == torch.uint8
    assert split.labels.shape == (len(split), garment_scenes.CLASSES)
    content = split.images.numpy().tobytes() + split.labels.numpy().tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == DIGESTS[name]


@pytest.mark.parametrize("name", ["validation", "test"])
def test_labels_are_what_is_drawn_and_of_garments_of_the_same_split(
    garments: Splits, scenes: Splits, name: str
) -> None:
    sources, split = known(garments[name]), scenes[name]
    counts = torch.zeros(5, dtype=torch.int64)
    for quarters, labels in zip(cells(split.images[:1000]), split.labels, strict=False):
        drawn = [sources[each.numpy().tobytes()] for each in quarters if each.any()]
        labelled = set(labels.nonzero().flatten().tolist())
        assert all(choices & labelled for choices in drawn)
        assert labelled <= set().union(*drawn)
        counts[len(drawn)] += 1
    assert counts[0] == 0
    assert (counts[1:] > 180).all()  # one to four garments, equally often


def test_splits_share_no_garment(garments: Splits, scenes: Splits) -> None:
    """But for pictures that Fashion-MNIST itself has twice, at half their size."""
    elsewhere = known(garments["validation"])
    drawn = [each for each in cells(scenes["test"].images[:1000]).flatten(0, 1) if each.any()]
    assert sum(each.numpy().tobytes() in elsewhere for each in drawn) < len(drawn) / 1000


def test_class_k_is_drawn_in_proportion_to_one_over_k_plus_one(scenes: Splits) -> None:
    """Against the probability that at least one of one to four draws is of the class."""
    share = scenes["train"].labels.double().mean(0)
    p = 1 / torch.arange(1, 21, dtype=torch.float64)
    p /= p.sum()
    expected = torch.stack([1 - (1 - p) ** drawn for drawn in range(1, 5)]).mean(0)
    error = (expected * (1 - expected) / len(scenes["train"])).sqrt()
    assert ((share - expected).abs() < 5 * error).all()
    assert share[0] / share[19] > 10


def test_more_scenes_than_there_are_are_refused_before_training(scenes: Splits) -> None:
    """A scale whose other data set is larger may ask for them."""
    place = "params.yaml: scales.mine.x"
    for split, images in scenes.items():
        data.check_files("garment_scenes", 20, {split: (place, len(images))})
        most = (
            rf"scales\.mine\.x: {len(images) + 1}: choose at most {len(images)} for garment_scenes"
        )
        with pytest.raises(UserError, match=most):
            data.check_files("garment_scenes", 20, {split: (place, len(images) + 1)})
