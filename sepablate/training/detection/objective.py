"""The objective of detection: SSD's loss, and the boxes that a network predicts.

Default boxes, their matching, the loss and the suppression of double detections are torchvision's.
Liu et al. 2016, arXiv:1512.02325, sections 2.2 and 3.1.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Identity
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from sepablate import models
from sepablate.errors import UserError
from sepablate.models import ssd
from sepablate.models.detectors import Detector
from sepablate.runs.run import Run
from sepablate.training.objective import Objective

KEPT = 100  # detections of an image, as COCO's metric takes


@dataclasses.dataclass(frozen=True)
class DetectionObjective(Objective):
    """SSD's loss on the predictions of a `Detector`.

    Args:
        detector: has torchvision's loss and suppression; no layers.
        boxes: (default boxes, 4), in pixels: left, upper, right and lower edge.
        image_size: height and width in pixels.
    """

    detector: SSD
    boxes: Tensor
    image_size: int

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over matched default boxes of the losses of class and place.

        Args:
            logits: the predictions of a `Detector`, (N, default boxes, classes + 1 + 4).
            labels: (N, most boxes, 6), as of `data.DetectionDataSet`.
        """
        boxes = self.boxes.to(logits.device)
        targets = [_target(each) for each in labels]
        matched = [self._match(target["boxes"], boxes) for target in targets]
        losses = self.detector.compute_loss(
            targets, _by_name(logits), [boxes] * len(labels), matched
        )
        total: Tensor = losses["bbox_regression"] + losses["classification"]
        return total

    def detections(self, logits: Tensor) -> Tensor:
        """Return (N, 100, 6) float64: box, score and class, from 0; the surest first, then zeros.

        Args:
            logits: as of `loss`.
        """
        count = len(logits)
        found = self.detector.postprocess_detections(
            _by_name(logits.cpu()), [self.boxes] * count, [(self.image_size,) * 2] * count
        )
        packed = torch.zeros(count, KEPT, 6, dtype=torch.float64)
        for row, image in zip(packed, found, strict=True):
            columns = image["boxes"], image["scores"][:, None], image["labels"][:, None] - 1
            row[: len(image["boxes"])] = torch.cat(columns, 1)
        return packed

    def _match(self, truth: Tensor, boxes: Tensor) -> Tensor:
        """Return (default boxes,): which true box each is matched to, or a negative number."""
        if not len(truth):
            return torch.full((len(boxes),), -1, device=boxes.device)
        matched: Tensor = self.detector.proposal_matcher(box_iou(truth, boxes))
        return matched


def make_detection_objective(run: Run) -> DetectionObjective:
    """Return the objective of a run of the task "detection"; UserError for too many maps."""
    maps = int(run.options["maps"])
    generator = DefaultBoxGenerator([*ssd.RATIOS[:maps]], ssd.SMALLEST, ssd.LARGEST)
    detector = SSD(
        Identity(),
        generator,
        (run.image_size,) * 2,
        run.classes + 1,
        head=Identity(),
        detections_per_img=KEPT,
    )
    image = torch.zeros(1, run.in_channels, run.image_size, run.image_size)
    found = _maps(run.model, run.options, image)
    sides = [each.shape[2] for each in found]
    # One pixel cannot be halved; and oneDNN's weight gradient of a 3x3 convolution with stride 2 on
    # it has, in bf16, values that were never written.
    if sides[-2] == 1:
        raise UserError(f"maps {maps}: of {run.image_size} pixels: choose {sides.index(1) + 1}")
    (boxes,) = generator(ImageList(image, [(run.image_size,) * 2]), found)
    return DetectionObjective(run.task, torch.empty(0), detector, boxes, run.image_size)


@torch.no_grad()
def _maps(model: str, options: Mapping[str, Any], image: Tensor) -> list[Tensor]:
    """Return the maps that the heads of a detector see of an image."""
    network = models.build(model, **options).eval()
    assert isinstance(network, Detector)
    return [*network.layers.backbone(image).values()]


def _by_name(logits: Tensor) -> dict[str, Tensor]:
    """Return predictions as torchvision names them."""
    classes, places = logits.tensor_split([logits.shape[2] - 4], 2)
    return {"cls_logits": classes.contiguous(), "bbox_regression": places}


def _target(labels: Tensor) -> dict[str, Tensor]:
    """Return the boxes of an image and their classes, from 1, as torchvision names them."""
    labels = labels[(labels[:, 0] >= 0) & (labels[:, 5] == 0)]
    return {"boxes": labels[:, 1:5], "labels": labels[:, 0].long() + 1}
