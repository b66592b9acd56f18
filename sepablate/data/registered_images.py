"""The user's own images, as `sepablate new dataset` registered them in datasets/.

The list of images has the digest of each: a file that has changed is refused when it is read. An
image is turned upright as its EXIF data say. Small images are held in memory; those that are not
square, or of another size than most, are scaled (bicubic) until they cover it, and cropped to the
centre. Large ones stay in their files, as ImageNet's do.
"""

# The members of `DataSet` are constants of modules:
# ruff: noqa: N802

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track

from sepablate.data import image_files
from sepablate.data.image_files import Bytes, ImageFiles
from sepablate.data.references import Reference
from sepablate.data.split import Split, TensorSplit
from sepablate.errors import UserError
from sepablate.store import datasets
from sepablate.store.datasets import SPLITS, Registered, Row

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class ListedFiles(ImageFiles):
    """Images in files that must be as they were listed; upright.

    Args:
        digests: (N,), of the images' bytes, as in the list.
        dataset: the name of the data set.
    """

    digests: Bytes = field(kw_only=True)
    dataset: str = field(kw_only=True)

    def __getitem__(self, part: slice | torch.Tensor) -> "ListedFiles":
        """Return the images of a slice, or those at the indices, in their order."""
        rows = part if isinstance(part, slice) else part.numpy()
        fields = {**vars(super().__getitem__(part)), "digests": self.digests[rows]}
        return ListedFiles(**fields, dataset=self.dataset)

    def read(self, index: int) -> Image.Image:
        """Decode an image and convert it to RGB; UserError names a bad or changed one."""
        return upright(super().read(index))

    def _bytes(self, index: int, limit: int | None = None) -> bytes:
        content = super()._bytes(index)
        if datasets.digest(content).encode() != self.digests[index]:
            files = f"{datasets.list_path(self.dataset)} and {datasets.path(self.dataset)}"
            raise UserError(
                f"changed after it was registered: restore it; or delete {files} and run "
                f"`sepablate new dataset {self.dataset}` again, which registers it as it is now"
            )
        return content[:limit]


def upright(image: Image.Image) -> Image.Image:
    """Return the image turned as its EXIF data say; as it is if they are damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow's reader of them raises nearly anything
        return image


@dataclass(frozen=True)
class RegisteredImages:
    """A registered data set; see `DataSet`.

    Args:
        name: of its files in datasets/.
        registered: the content of the first of them.
    """

    name: str
    registered: Registered

    SOURCES = ("data/registered_images.py", "data/image_files.py", "data/split.py")
    REFERENCES: ClassVar[tuple[Reference, ...]] = ()

    @property
    def CLASSES(self) -> int:
        """The number of labels."""
        return len(self.registered.classes)

    @property
    def CHANNELS(self) -> int:
        """1 if all images are grey and held in memory, else 3."""
        return self.registered.channels

    @property
    def IMAGE_SIZE(self) -> int | None:
        """Height and width of images in memory; None for those that stay in their files."""
        return self.registered.image_size

    def fetch(self, folder: Path, /) -> None:
        """Verify the list and every image; UserError names the bad ones."""
        splits = self.files()
        _verify(splits)
        print(f"{self.name}: {image_files.summary(splits)}; verified")

    def load(self, folder: Path, /, test: bool = True) -> Mapping[str, Split]:
        """Return the splits train, validation and, if asked for, test.

        Raises UserError if the folder or an image is missing; or if an image has changed, which for
        those that stay in their files is noticed when they are read.
        """
        splits = self.files(test)
        if self.IMAGE_SIZE is None:
            return splits
        return {name: self._in_memory(split, self.IMAGE_SIZE) for name, split in splits.items()}

    def digest(self, folder: Path, /) -> str:
        """Return the digest of the list, which has that of each image: 16 hexadecimal digits."""
        return self.registered.digest

    def check(self) -> None:
        """Raise UserError unless the images are there; those held in memory are read and verified.

        A change of one that stays in its file is noticed when it is read.
        """
        splits = self.files()
        if self.IMAGE_SIZE is not None:
            _verify(splits)

    def files(self, test: bool = True) -> dict[str, ListedFiles]:
        """Return the splits as files; UserError if the list was edited, or a file is missing."""
        rows = datasets.read_rows(self.name, self.registered)
        if not Path(self.registered.folder).is_dir():
            raise UserError(
                f"{datasets.path(self.name)}: folder: {self.registered.folder!r}: there is no such "
                "folder: bring the images back, or edit this entry"
            )
        return {name: self._listed(name, rows) for name in SPLITS if test or name != "test"}

    def _listed(self, split: str, rows: list[Row]) -> ListedFiles:
        chosen = [row for row in rows if row.split == split]
        number = {label: number for number, label in enumerate(self.registered.classes)}
        labels = torch.tensor([number[row.label] for row in chosen])
        folder, classes = Path(self.registered.folder), tuple(self.registered.classes)
        names = [row.image for row in chosen]
        try:
            files = image_files.from_files(folder, names, labels, classes)
        except OSError as error:
            listed = f"{datasets.list_path(self.name)} lists it"
            raise UserError(f"{error.filename}: {error.strerror}; {listed}") from None
        digests = np.array([row.digest for row in chosen], dtype=np.bytes_)
        fields = {each.name: getattr(files, each.name) for each in dataclasses.fields(files)}
        return ListedFiles(**fields, digests=digests, dataset=self.name)

    def _in_memory(self, files: ListedFiles, size: int) -> TensorSplit:
        """Return the images as bytes, (N, H, W) in grey or (N, H, W, 3) in colour."""
        mode, planes = ("L", ()) if self.CHANNELS == 1 else ("RGB", (3,))
        images = np.empty((len(files), size, size, *planes), np.uint8)
        for index in range(len(files)):
            image = files.read(index).convert(mode)
            if image.size != (size, size):
                image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
            images[index] = np.asarray(image)
        return TensorSplit(torch.from_numpy(images), files.labels)


def _verify(splits: Mapping[str, ListedFiles]) -> None:
    places = [(split, index) for split in splits.values() for index in range(len(split))]

    def problem(number: int) -> str | None:
        split, index = places[number]
        return split.bad_header(index)

    lines = for_each_image(problem, len(places), "verifying images")
    refuse_bad([line for line in lines if line is not None], len(places))


def for_each_image(call: Callable[[int], Result], count: int, title: str) -> list[Result]:
    """Return the results of `call` for 0 to `count` - 1, by several threads; show how far it is.

    Args:
        call: reads an image; what a thread of Python can do at the same time as another.
        count: of the images.
        title: of the bar, which only a terminal shows.
    """

    def chunk(start: int) -> list[Result]:
        return [call(index) for index in range(start, min(start + image_files.CHUNK, count))]

    starts, console = range(0, count, image_files.CHUNK), Console(stderr=True)
    with ThreadPoolExecutor(image_files.THREADS) as pool:
        chunks = pool.map(chunk, starts)
        if console.is_terminal:
            chunks = iter(track(chunks, title, len(starts), console=console, transient=True))
        return [result for results in chunks for result in results]


def refuse_bad(lines: Sequence[str], total: int) -> None:
    """Raise UserError if there are lines on bad images: with the first few, and their number."""
    if lines:
        named = image_files.NAMED
        rest = f"; and {len(lines) - named} more" if len(lines) > named else ""
        raise UserError(f"{len(lines)} of {total} images are bad: {'; '.join(lines[:named])}{rest}")
