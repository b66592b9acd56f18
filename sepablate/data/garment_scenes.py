"""Scenes of one to four Fashion-MNIST garments, with every class in them as a label.

An open stand-in for the multi-label half of the paper, whose data set JFT is closed: dense labels
of unequal frequency, made in memory and always the same. A scene has a garment at half its size in
one to four cells of a 2 x 2 grid. The 20 classes are the ten garments upright and upside down;
class k is drawn in proportion to 1 / (k + 1), so the commonest is 20 times as frequent as the
rarest. Scenes of different splits share no garment.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from sepablate.data import fashion_mnist
from sepablate.data.references import Reference
from sepablate.data.split import TensorSplit
from sepablate.rng import generator

GARMENTS = 10
CLASSES = 2 * GARMENTS
CHANNELS = 1
IMAGE_SIZE = 28
SOURCES = (*fashion_mnist.SOURCES, "data/garment_scenes.py")
REFERENCES: tuple[Reference, ...] = ()
CELLS, CELL = 4, 14

fetch = fashion_mnist.fetch


def digest(folder: Path) -> str:
    """Return the hash of the garments; how scenes are made of them is in the source."""
    return fashion_mnist.digest(folder)


def load(folder: Path, test: bool = True) -> dict[str, TensorSplit]:
    """Return the splits, with as many scenes as those of Fashion-MNIST have images.

    Labels are (N, 20) uint8 of 0 and 1.
    """
    garments = fashion_mnist.load(folder, test)
    return {name: _scenes(name, split) for name, split in garments.items()}


def _scenes(name: str, garments: TensorSplit) -> TensorSplit:
    """Compose the scenes of a split from its garments; images (N, 28, 28) uint8."""
    draw = generator("scenes", name)
    count = len(garments)
    frequencies = 1 / torch.arange(1, CLASSES + 1, dtype=torch.float64)
    classes = torch.multinomial(frequencies, count * CELLS, True, generator=draw).view(count, CELLS)
    filled = torch.randint(1, CELLS + 1, (count, 1), generator=draw)
    order = torch.rand(count, CELLS, generator=draw).argsort(1)
    present = order < filled  # (N, 4)
    small = avg_pool2d(garments.images.unsqueeze(1).float(), 2).round().byte().squeeze(1)
    cells = _draw_garments(small, garments.labels, classes, draw) * present[:, :, None, None]
    images = cells.view(count, 2, 2, CELL, CELL).permute(0, 1, 3, 2, 4).reshape(count, 28, 28)
    labels = torch.zeros(count, CLASSES, dtype=torch.uint8)
    labels.scatter_reduce_(1, classes, present.byte(), "amax")
    return TensorSplit(images.contiguous(), labels)


def _draw_garments(small: Tensor, kinds: Tensor, classes: Tensor, draw: torch.Generator) -> Tensor:
    """Draw an image of each class, the second half of the classes upside down.

    Args:
        small: (M, 14, 14), the garments at half their size.
        kinds: (M,), which of the ten kinds each garment is.
        classes: (N, 4), the classes to draw images of.
        draw: the generator.

    Returns:
        (N, 4, 14, 14).
    """
    indices = torch.empty_like(classes)
    for kind in range(GARMENTS):
        wanted = classes % GARMENTS == kind
        of_kind = (kinds == kind).nonzero().squeeze(1)
        picks = torch.randint(0, len(of_kind), (int(wanted.sum()),), generator=draw)
        indices[wanted] = of_kind[picks]
    cells = small[indices]
    return torch.where((classes >= GARMENTS)[:, :, None, None], cells.flip(2), cells)
