"""Small pictures in class folders, as a user may have them."""

from pathlib import Path

import numpy as np
from PIL import Image

from sepablate.planning import new_dataset
from sepablate.planning.new_dataset import NewDataset
from sepablate.store import datasets

CLASSES = ("cat", "dog", "owl")


def picture(index: int, size: tuple[int, int] = (12, 12), mode: str = "RGB") -> Image.Image:
    """Noise, another for each index; in colour the first channel grows with index % 3."""
    draw = np.random.default_rng(index)
    pixels = draw.integers(0, 80, (size[1], size[0], 3), dtype=np.uint8)
    pixels[..., 0] += np.uint8(80 * (index % 3))
    return Image.fromarray(pixels).convert(mode)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    """Save an image, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def class_folders(
    root: Path,
    count: int = 10,
    classes: tuple[str, ...] = CLASSES,
    size: tuple[int, int] = (12, 12),
    mode: str = "RGB",
) -> Path:
    """`root`/<class>/<number>.png, so many of each class; gives `root`."""
    for number, name in enumerate(classes):
        for index in range(count):
            image = picture(3 * (index + 1000 * number) + number, size, mode)
            save(root / name / f"{index:02}.png", image)
    return root


def register(source: Path, name: str = "pets") -> NewDataset:
    made = new_dataset.examine(name, source)
    datasets.write(name, made.registered, made.rows)
    return made
