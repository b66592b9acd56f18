"""Detection: its loss, its detections and its metric, against torchvision's and pycocotools'."""

import contextlib
import dataclasses
import functools
import io
import json
from pathlib import Path

import pytest
import torch
from helpers.monitors import StopAfterEachStep
from helpers.project import ROOT
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from sepablate import models, scales, study
from sepablate.data.split import TensorSplit
from sepablate.errors import UserError
from sepablate.models import ssd
from sepablate.models.detectors import Detector
from sepablate.runs.run import Run, resolve
from sepablate.training import engine
from sepablate.training.detection import by_task, fit, mean_ap
from sepablate.training.detection.mean_ap import MeanAP
from sepablate.training.detection.objective import make_detection_objective
from sepablate.training.step import TrainContext, train_step

AREAS = 256.0, 576.0


@functools.cache
def tiny(variant: str = "ssd_mobilenet_v1", **counts: int) -> Run:
    scale, recipes = scales.load("smoke", ROOT / "params.yaml")
    assert scale.detection is not None
    few = {"images": 32, "validation_images": 4, "test_images": 12, "batch_size": 8, **counts}
    scale = dataclasses.replace(scale, detection=dataclasses.replace(scale.detection, **few))
    declared = study.variant(variant, ROOT / "experiments")
    return resolve(declared, "smoke", scale, recipes, 0, "fp32").with_backend("fp32", "torch")


def scenes(count: int, seed: int = 0) -> TensorSplit:
    """Bright rectangles of two classes on noise; one scene in four has none."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(60, (count, 64, 64), generator=draw, dtype=torch.uint8)
    labels = torch.full((count, 2, 6), -1.0)
    for index in range(count):
        for place in range(index % 4 and 1 + index % 2):
            left, top = torch.randint(30, (2,), generator=draw).tolist()
            width, height = torch.randint(8, 30, (2,), generator=draw).tolist()
            images[index, top : top + height, left : left + width] = 150 + 100 * place
            labels[index, place] = torch.tensor([place, left, top, left + width, top + height, 0.0])
    return TensorSplit(images, labels)


def random_boxes(count: int) -> tuple[Tensor, Tensor]:
    """Detections near true boxes, of other classes now and then; some of the true are crowds."""
    draw = torch.Generator().manual_seed(1)
    labels = torch.full((count, 6, 6), -1.0)
    detections = torch.zeros(count, 100, 6, dtype=torch.float64)
    for image in range(count):
        for place in range(int(torch.randint(7, (), generator=draw))):
            corner, size = 40 * torch.rand(2, generator=draw), torch.rand(2, generator=draw)
            end = corner + 4 + 30 * size
            crowd = float(torch.rand((), generator=draw) < 0.1)
            labels[image, place] = torch.tensor([(image + place) % 10, *corner, *end, crowd])
            for repeat in range(3):
                box = labels[image, place, 1:5] + 2 * torch.randn(4, generator=draw)
                kind = (image + place + int(torch.rand((), generator=draw) < 0.3)) % 10
                score = float(torch.rand((), generator=draw))
                detections[image, 3 * place + repeat] = torch.tensor([*box, score, kind])
    return detections, labels


def official(detections: Tensor, labels: Tensor) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = mean_ap._annotations(labels, 10)
        truth.createIndex()
        found = truth.loadRes(mean_ap._results(detections))
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.areaRng = [[0, 1e10], [0, AREAS[0]], [*AREAS], [AREAS[1], 1e10]]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    numbers: list[float] = evaluation.stats[:6].tolist()
    return numbers


def test_the_metric_is_that_of_pycocotools() -> None:
    detections, labels = random_boxes(200)
    ours = MeanAP(detections, labels, 10, AREAS).numbers()
    assert list(ours) == ["map", "map_50", "map_75", "map_small", "map_medium", "map_large"]
    assert [*ours.values()] == pytest.approx(official(detections, labels), abs=1e-6)
    assert 0.1 < ours["map"] < ours["map_50"] < 0.9


def test_resampled_images_are_as_if_evaluated_anew() -> None:
    detections, labels = random_boxes(60)
    whole = MeanAP(detections, labels, 10, AREAS)
    before, values = whole.numbers(), whole.resampled(3)
    assert whole.numbers() == before
    for value, draw in zip(values, mean_ap._draws(60, 3), strict=True):
        anew = MeanAP(detections[draw], labels[draw], 10, AREAS).numbers()
        assert value.item() == pytest.approx(anew["map"], abs=1e-12)
    assert len({*values.tolist()}) == 3


def test_images_without_boxes_have_no_precision() -> None:
    nothing = torch.zeros(3, 100, 6, dtype=torch.float64)
    assert {*MeanAP(nothing, torch.full((3, 2, 6), -1.0), 10, AREAS).numbers().values()} == {-1.0}
    one = torch.full((3, 2, 6), -1.0)
    one[0, 0] = torch.tensor([3, 5, 5, 20, 20, 0])
    assert MeanAP(nothing, one, 10, AREAS).numbers()["map"] == 0.0


def test_loss_and_detections_are_those_of_torchvisions_detector() -> None:
    """torchvision's SSD with our layers, which it puts together by itself."""
    run = tiny()
    split, objective = scenes(8), make_detection_objective(run)
    model = models.build(run.model, **run.options)
    assert isinstance(model, Detector)
    theirs = ssd.detector("mobilenet_v1", classes=10, image_size=64, width=0.125, in_channels=1)
    theirs.backbone, theirs.head = model.layers.backbone, model.layers.head
    theirs.anchor_generator = objective.detector.anchor_generator
    theirs.detections_per_img = 100
    images = split.images[:, None].float() / 255
    targets = [
        {"boxes": each[each[:, 0] >= 0, 1:5], "labels": each[each[:, 0] >= 0, 0].long() + 1}
        for each in split.labels
    ]
    expected = sum(theirs.train()([*images], targets).values())
    logits = model.train()(images * 2 - 1)
    torch.testing.assert_close(objective.loss(logits, split.labels), expected)
    found = theirs.eval()([*images])
    ours = objective.detections(model.eval()(images * 2 - 1).detach())
    for packed, each in zip(ours, found, strict=True):
        count = len(each["boxes"])
        assert 0 < count <= 100
        torch.testing.assert_close(packed[:count, :4].float(), each["boxes"])
        torch.testing.assert_close(packed[:count, 4].float(), each["scores"])
        assert torch.equal(packed[:count, 5].long() + 1, each["labels"])
        assert packed[count:].eq(0).all()


def test_a_crowd_is_not_learned() -> None:
    run, split = tiny(), scenes(4)
    objective = make_detection_objective(run)
    logits = models.build(run.model, **run.options)(torch.zeros(4, 1, 64, 64))
    crowded = torch.cat([split.labels, torch.tensor([2.0, 1, 1, 60, 60, 1]).expand(4, 1, 6)], 1)
    assert torch.equal(objective.loss(logits, crowded), objective.loss(logits, split.labels))


def test_the_loss_of_a_batch_of_two_falls_to_near_zero() -> None:
    run = tiny(images=2, batch_size=2)
    run = dataclasses.replace(run, scale=dataclasses.replace(run.scale, epochs=200))
    split = scenes(8)[torch.tensor([1, 3])]  # type: ignore[index]
    context = TrainContext(run, by_task.make_objective(run, split.labels))
    state = engine.start(run)
    batches = by_task.make_batches(split, run)
    losses = [train_step(state, batches, context) for _ in range(run.scale.steps)]
    assert losses[0] > 5
    assert losses[-1] < 0.1


@pytest.mark.parametrize("variant", ["ssd_mobilenet_v1", "ssd_xception", "ssd_inception_v3"])
def test_an_interrupted_run_ends_with_the_same_bytes(variant: str, tmp_path: Path) -> None:
    run = tiny(variant)
    splits = {"train": scenes(32), "validation": scenes(4, 1), "test": scenes(12, 2)}
    whole, examples = fit.fit(run, splits, tmp_path / "whole", engine.Monitor())
    for _ in range(run.scale.steps - 1):
        with pytest.raises(engine.Interrupted):
            fit.fit(run, splits, tmp_path / "parts", StopAfterEachStep())
    parts, same_examples = fit.fit(run, splits, tmp_path / "parts", StopAfterEachStep())
    assert parts.rows == whole.rows
    assert same_examples == examples
    assert whole.scores is not None
    assert parts.scores is not None
    assert torch.equal(parts.scores, whole.scores)
    assert whole.weights is not None
    assert parts.weights is not None
    assert all(torch.equal(parts.weights[name], each) for name, each in whole.weights.items())


def test_examples_have_the_images_and_their_true_boxes(tmp_path: Path) -> None:
    splits = {"train": scenes(32), "validation": scenes(4, 1), "test": scenes(12, 2)}
    _, text = fit.fit(tiny(), splits, tmp_path, engine.Monitor())
    examples = json.loads(text)
    assert len(examples) == fit.EXAMPLES
    for index, example in enumerate(examples):
        labels = splits["test"].labels[index]
        true = [[int(each[0]), each[1:5].tolist()] for each in labels[labels[:, 0] >= 0]]
        assert [[each["class"], each["box"]] for each in example["true"]] == true


def test_too_many_maps_are_refused() -> None:
    run = tiny()
    many = dataclasses.replace(run, options={**run.options, "maps": 5})
    with pytest.raises(UserError, match=r"maps 5: of 64 pixels: choose 3"):
        make_detection_objective(many)
