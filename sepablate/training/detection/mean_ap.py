"""COCO's mean average precision, computed by faster-coco-eval, and its spread over test images.

Lin et al. 2014, arXiv:1405.0312; the metric is defined at cocodataset.org, "Detection evaluation":
the mean over classes and over IoU thresholds of 0.50, 0.55, ..., 0.95, of the precision at recalls
of 0, 0.01, ..., 1. -1 where there is no true box.
"""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from torch import Tensor

from sepablate.rng import stream_seed

NUMBERS = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")
RESAMPLES = 200


class MeanAP:
    """The detections of some images, compared with the true boxes.

    Args:
        detections: (N, 100, 6), as of `DetectionObjective.detections`.
        labels: (N, most boxes, 6), as of `data.DetectionDataSet`.
        classes: how many there are.
        areas: in pixels: the largest small and the smallest large box.
    """

    def __init__(
        self, detections: Tensor, labels: Tensor, classes: int, areas: tuple[float, float]
    ) -> None:
        truth = COCO(_annotations(labels, classes))
        predicted = truth.loadRes(_results(detections))
        self._evaluation = COCOeval_faster(
            truth, predicted, "bbox", print_function=_silent, separate_eval=True
        )
        small, large = areas
        self._evaluation.params.areaRng = [
            [0, 1e10],
            [0, small],
            [small, large],
            [large, 1e10],
        ]
        self._evaluation.params.maxDets = [detections.shape[1]]
        self._evaluation.evaluate()

    def numbers(self) -> dict[str, float]:
        """Return the NUMBERS, by name."""
        self._evaluation.accumulate()
        precision = np.asarray(self._evaluation.eval["precision"])[..., 0]  # the only limit
        thresholds = self._evaluation.params.iouThrs
        at = [precision[np.isclose(thresholds, iou)][..., 0] for iou in (0.5, 0.75)]
        areas = [precision[..., area] for area in range(4)]
        return dict(zip(NUMBERS, map(_mean, (areas[0], *at, *areas[1:])), strict=True))

    def resampled(self, count: int = RESAMPLES) -> Tensor:
        """Return (count,) float64: the mAP of as many images, drawn with replacement.

        The draws depend on the number of images only, so that all networks have the same.
        """
        evaluation = self._evaluation
        images, limits = len(evaluation.params.imgIds), len(evaluation.params.areaRng)
        compared = np.empty(len(evaluation._evalImgs_cpp), dtype=object)
        compared[:] = evaluation._evalImgs_cpp  # of classes, areas and images
        all_sizes = copy.copy(evaluation)
        all_sizes._paramsEval = copy.copy(evaluation._paramsEval)
        all_sizes._paramsEval.areaRng = evaluation.params.areaRng[:1]
        compared = compared.reshape(-1, limits, images)[:, 0]
        values = []
        for draw in _draws(images, count):
            all_sizes._evalImgs_cpp = list(compared[:, draw].ravel())
            all_sizes.accumulate()
            values.append(_mean(np.asarray(all_sizes.eval["precision"])))
        return torch.tensor(values, dtype=torch.float64)


def _draws(images: int, count: int) -> Iterator[np.ndarray]:
    for index in range(count):
        generator = np.random.default_rng(stream_seed("resample", images, index))
        yield generator.integers(0, images, images)


def _mean(precision: np.ndarray) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else -1.0


def _annotations(labels: Tensor, classes: int) -> dict[str, list[dict[str, object]]]:
    """Return true boxes as COCO's files have them."""
    annotations: list[dict[str, object]] = []
    for image, boxes in enumerate(labels.double()):
        for kind, left, top, right, bottom, crowd in boxes[boxes[:, 0] >= 0].tolist():
            width, height = right - left, bottom - top
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(kind),
                    "bbox": [left, top, width, height],
                    "area": width * height,
                    "iscrowd": int(crowd),
                }
            )
    return {
        "images": [{"id": image} for image in range(len(labels))],
        "annotations": annotations,
        "categories": [{"id": kind} for kind in range(classes)],
    }


def _results(detections: Tensor) -> np.ndarray:
    """Return the predicted boxes: (M, 7) of image, left, top, width, height, score, class."""
    images, places = (detections[..., 4] > 0).nonzero(as_tuple=True)
    left, top, right, bottom, score, kind = detections[images, places].unbind(1)
    columns = images.double(), left, top, right - left, bottom - top, score, kind
    return torch.stack(columns, 1).numpy()


def _silent(*_: object) -> None:
    """Print nothing."""
