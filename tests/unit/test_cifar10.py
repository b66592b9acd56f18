"""CIFAR-10 as published, and colour images: augmented, evaluated, trained on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.cifar10_forms import NAMES, python2_pickle, sheet
from helpers.project import ROOT
from helpers.tiny_runs import tiny
from torch import Tensor
from torchvision.transforms.v2 import functional

from sepablate import data
from sepablate.data import cifar10, cifar10_forms, fashion_mnist
from sepablate.data.cifar10_forms import TEST
from sepablate.data.split import TensorSplit
from sepablate.paper import accuracies
from sepablate.rng import generator
from sepablate.store import datasets
from sepablate.training import engine
from sepablate.training.batches import TensorBatches, eval_batches, scale_images


@pytest.fixture(scope="session")
def cifar_folder() -> Path:
    """The real data, where they are; no test downloads 139 MB."""
    missing = [name for name in NAMES if not (ROOT / "data/cifar-10" / name).exists()]
    if missing:
        pytest.skip("CIFAR-10 is not there; `sepablate fetch cifar10` gets it")
    return ROOT / "data"


def test_splits_are_the_published_data(cifar_folder: Path) -> None:
    splits = cifar10.load(cifar_folder)
    limits = datasets.IN_MEMORY["cifar10"]
    assert [len(split) for split in splits.values()] == list(limits[1:])
    assert all(split.images.shape[1:] == (32, 32, 3) for split in splits.values())
    assert splits["train"].labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert splits["test"].labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    assert torch.bincount(splits["test"].labels).tolist() == [1000] * 10
    train = torch.cat([splits["train"].images, splits["validation"].images])
    means = [train[..., channel].double().mean() / 255 for channel in range(3)]
    assert means == pytest.approx([0.49139968, 0.48215841, 0.44653091], abs=1e-8)


def test_the_real_files_go_through_sheets_and_pickles(cifar_folder: Path) -> None:
    content = (cifar_folder / "cifar-10" / TEST).read_bytes()[: 500 * 3073]
    records = np.frombuffer(content, np.uint8).reshape(-1, 3073)
    labels, images = records[:, 0].tolist(), np.ascontiguousarray(records[:, 1:])
    assert cifar10_forms.from_pickle(python2_pickle(labels, images)) == content
    assert cifar10_forms.from_sheet(sheet(images), labels) == content


def colours(count: int = 96) -> TensorSplit:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 32, 32, 3), generator=draw, dtype=torch.uint8)
    return TensorSplit(images, torch.arange(count) % 10)


COLOUR = {"dataset": "cifar10", "image_size": 32, "shift": 4}


def test_augmentation_is_torchvision_s_crop_and_mirror_with_the_same_draws() -> None:
    split, run = colours(), tiny(**COLOUR)
    batches, seen = TensorBatches(split, run), set()
    for step in (0, 3, 7):
        images, labels = batches.batch(step)
        order = torch.randperm(96, generator=generator(0, "order", step // 6))
        chosen = order[16 * (step % 6) :][:16]
        draw = generator(0, "augment", step)
        rows, columns = torch.randint(0, 9, (2, 16, 1), generator=draw).squeeze(2).tolist()
        mirrored = (torch.rand(16, 1, generator=draw) < 0.5).squeeze(1).tolist()
        assert torch.equal(labels, split.labels[chosen])
        assert images.is_contiguous(memory_format=torch.channels_last)
        for index, image, *place in zip(chosen, images, rows, columns, mirrored, strict=True):
            expected = augmented(split.images[index].permute(2, 0, 1), *place)
            assert torch.equal(image, expected.float().div(127.5).sub(1))
            seen.add(tuple(place))
    assert len(seen) > 40
    assert images.min() == -1


def augmented(image: Tensor, row: int, column: int, mirror: bool) -> Tensor:
    """(3, 32, 32) bytes."""
    cropped = functional.crop(functional.pad(image, [4]), row, column, 32, 32)
    return functional.horizontal_flip(cropped) if mirror else cropped


def test_a_grey_image_is_augmented_as_its_colour_copy() -> None:
    grey = TensorSplit(colours().images[..., 0], colours().labels)
    colour = TensorSplit(grey.images.unsqueeze(3).expand(-1, -1, -1, 3), grey.labels)
    run = tiny(**COLOUR)
    for step in (0, 5):
        ours, theirs = (TensorBatches(split, run).batch(step)[0] for split in (grey, colour))
        assert torch.equal(ours, theirs)
    assert torch.equal(scale_images(grey.images, run), scale_images(colour.images, run))


def test_evaluation_sees_the_plain_images() -> None:
    split = colours()
    images, labels = next(eval_batches(split, tiny(**COLOUR)))
    assert torch.equal(images, split.images.permute(0, 3, 1, 2) / 127.5 - 1)
    assert torch.equal(labels, split.labels)


def test_a_scale_s_shift_is_that_of_its_data_set_and_in_the_key() -> None:
    grey, colour = tiny(), tiny(**COLOUR)
    assert (grey.recipe.shift, grey.config["shift"]) == (1, 1)
    assert (colour.recipe.shift, colour.config["shift"]) == (4, 4)
    assert colour.key != tiny(**COLOUR | {"shift": 3}).key
    assert tiny(shift=1).key == grey.key
    scenes = tiny("xception_multilabel", **COLOUR)
    assert (scenes.dataset, scenes.image_size, scenes.in_channels) == ("garment_scenes", 28, 1)
    assert scenes.recipe.shift == 1
    assert colour.in_channels == 3
    assert colour.config["model.in_channels"] == 3


@pytest.mark.parametrize(
    "variant", ["xception", "inception_v3", "mobilenet_v1", "separable_example"]
)
def test_networks_train_on_colour_images(variant: str, tmp_path: Path) -> None:
    run = tiny(variant, **COLOUR)
    splits = dict.fromkeys(("train", "validation", "test"), colours())
    outcome = engine.fit(run, splits, tmp_path, engine.Monitor())
    values = [value for _, _, value in outcome.rows]
    assert np.isfinite(values).all()
    assert outcome.scores is not None
    assert len(outcome.scores) == run.scale.test_images


def test_the_limits_of_scales_follow_the_data() -> None:
    for name, limits in datasets.IN_MEMORY.items():
        module = data.dataset(name)
        if name in data.DETECTION:
            assert limits[1:] == tuple(module.SCENES.values())  # type: ignore[attr-defined]
            continue
        assert limits.image_size == module.IMAGE_SIZE
        source = fashion_mnist if name == "garment_scenes" else module
        assert limits.images == source.TRAINING_POOL  # type: ignore[attr-defined]


def test_references_are_fractions_with_a_source() -> None:
    for name, module in data.DATASETS.items():
        assert accuracies.BY_DATA_SET.get(name, ()) == module.REFERENCES
        assert bool(module.REFERENCES) == (name in {"cifar10", "fashion_mnist", "imagenet"})
        for each in module.REFERENCES:
            assert 0.7 < each.accuracy < 1
            assert each.network
            assert each.source
