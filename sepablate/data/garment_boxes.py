"""Scenes of one to six Fashion-MNIST garments with a box around each, for object detection.

An open stand-in for COCO (arXiv:1405.0312) that trains in minutes: real images of ten classes, at
random sizes and places on a black canvas, some of them cut by the border or partly on each other.
Scenes are made in memory and always the same; those of different splits share no garment.
"""

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sepablate.data import fashion_mnist
from sepablate.data.references import Reference
from sepablate.data.split import TensorSplit
from sepablate.rng import generator

CLASSES = 10
CHANNELS = 1
IMAGE_SIZE = 64
SOURCES = (*fashion_mnist.SOURCES, "data/garment_boxes.py")
REFERENCES: tuple[Reference, ...] = ()
MOST = 6  # garments of a scene
SIZES = 12, 40  # pixels of the side of a garment's image
TRIES = 8  # places to choose from
OVERLAP = 0.3  # the largest IoU of the images of two garments
CUT = 0.25  # the largest part of a garment's side outside the canvas
VISIBLE = 32  # the darkest byte that counts as garment
SHORTEST = 4  # pixels of a box's sides; a garment of which less is visible is left out
SCENES = {"train": 20_000, "validation": 1_000, "test": 4_000}
# In pixels, the largest small box and the smallest large one; COCO's, of images of 640 pixels, have
# sides of 32 and 96.
AREAS = 16.0**2, 24.0**2

fetch = fashion_mnist.fetch


def digest(folder: Path) -> str:
    """Return the hash of the garments; how scenes are made of them is in the source."""
    return fashion_mnist.digest(folder)


def load(folder: Path, test: bool = True) -> dict[str, TensorSplit]:
    """Return the splits: images (N, 64, 64) uint8 and their boxes.

    Labels are (N, 6, 6), as of `DetectionDataSet`; none is a crowd. A box is that of the garment's
    visible pixels on the canvas, also of those that another garment covers.
    """
    garments = fashion_mnist.load(folder, test)
    return {name: _scenes(name, split) for name, split in garments.items()}


class Places(NamedTuple):
    """Where the garments of all scenes are: sizes, left and upper edges, (N, 6) int64 each.

    Args:
        present: (N, 6), whether there is such a garment.
    """

    size: Tensor
    left: Tensor
    top: Tensor
    present: Tensor


def _scenes(name: str, garments: TensorSplit) -> TensorSplit:
    draw, count = generator("boxes", name), SCENES[name]
    places = _draw_places(count, draw)
    picks = torch.randint(0, len(garments), (count, MOST), generator=draw)
    margin = SIZES[1]  # a canvas on which no garment is cut
    canvas = torch.zeros(count, *(IMAGE_SIZE + 2 * margin,) * 2, dtype=torch.uint8)
    labels = torch.full((count, MOST, 6), -1.0)
    inside = torch.arange(-margin, IMAGE_SIZE + margin)
    inside = (inside >= 0) & (inside < IMAGE_SIZE)
    for size in range(SIZES[0], SIZES[1] + 1):
        scenes, slots = (places.present & (places.size == size)).nonzero(as_tuple=True)
        chosen = picks[scenes, slots]
        images = garments.images[chosen].unsqueeze(1).float()
        images = interpolate(images, (size, size), mode="bilinear", antialias=True)
        images = images.squeeze(1).round().byte()
        rows = places.top[scenes, slots, None] + margin + torch.arange(size)  # (M, size)
        columns = places.left[scenes, slots, None] + margin + torch.arange(size)
        visible = (images >= VISIBLE) & inside[rows][:, :, None] & inside[columns][:, None, :]
        boxes = _tight_boxes(visible) + torch.stack([columns[:, 0], rows[:, 0]] * 2, 1) - margin
        seen = (boxes[:, 2:] - boxes[:, :2] >= SHORTEST).all(1)
        labels[scenes[seen], slots[seen], 0] = garments.labels[chosen[seen]].float()
        labels[scenes[seen], slots[seen], 1:5] = boxes[seen].float()
        labels[scenes[seen], slots[seen], 5] = 0.0
        for slot in range(MOST):  # the garments of one scene one after the other
            of = seen & (slots == slot)
            index = scenes[of, None, None], rows[of][:, :, None], columns[of][:, None, :]
            canvas[index] = torch.maximum(canvas[index], images[of])
    images = canvas[:, margin:-margin, margin:-margin].contiguous()
    return TensorSplit(images, labels)


def _draw_places(count: int, draw: torch.Generator) -> Places:
    """Draw one to six garments a scene: each at the first of TRIES places that is free enough."""
    from torchvision.ops import box_iou  # only here: its import takes a second

    low, high = map(math.log, SIZES)
    shape = count, MOST
    size = torch.exp(low + (high - low) * torch.rand(shape, generator=draw)).round().long()
    wanted = torch.arange(MOST) < torch.randint(1, MOST + 1, (count, 1), generator=draw)
    present = torch.zeros(shape, dtype=torch.bool)
    boxes = torch.zeros(*shape, 4)
    for slot in range(MOST):
        side = size[:, slot, None, None].float()
        corners = torch.rand(count, 2, TRIES, generator=draw) * (IMAGE_SIZE - (1 - 2 * CUT) * side)
        corners = (corners - CUT * side).round()
        tried = torch.cat([corners, corners + side], 1).transpose(1, 2)  # (N, TRIES, 4)
        free = box_iou(tried, boxes).amax(2) <= OVERLAP
        chosen = tried[torch.arange(count), free.int().argmax(1)]
        present[:, slot] = wanted[:, slot] & free.any(1)
        boxes[:, slot] = chosen * present[:, slot, None]
    left, top = boxes[:, :, 0].long(), boxes[:, :, 1].long()
    return Places(size, left, top, present)


def _tight_boxes(visible: Tensor) -> Tensor:
    """Return (M, 4) int64: left, upper, right and lower edge of the pixels set in (M, H, W)."""
    edges = []
    for axis in (1, 2):
        line = visible.any(axis)  # (M, W), then (M, H)
        length = line.shape[1]
        edges.append((line.int().argmax(1), length - line.flip(1).int().argmax(1)))
    (left, right), (top, bottom) = edges
    return torch.stack([left, top, right, bottom], 1)
