"""Class folders of other people: what is an image, what is skipped, what stops, and which class."""

import os
import shutil
import struct
from pathlib import Path
from zlib import compress, crc32

import numpy as np
import pytest
import torch
from helpers.environments import python
from helpers.images import class_folders, shards
from helpers.project import edit_params, sepablate
from numpy.typing import NDArray
from PIL import Image

from sepablate.data import image_files, imagenet
from sepablate.errors import UserError
from sepablate.pretrained.evaluate import count_correct


@pytest.fixture
def root(tmp_path: Path, data_folder: Path) -> Path:
    class_folders(tmp_path / "imagenet", data_folder)
    return tmp_path


def images(root: Path) -> set[str]:
    splits = imagenet.load(root)
    return {split.name(i) for split in splits.values() for i in range(len(split))}


@pytest.mark.parametrize(
    "name",
    [
        "n01/.ipynb_checkpoints/0000.JPEG",
        "n01/@eaDir/0000.JPEG",
        "n01/__MACOSX/0000.JPEG",
        "n01/._0000.JPEG",
        "n01/0000.JPEG~",
        "n01/Thumbs.db",
        "n01/notes.txt",
        ".cache/0000.JPEG",
        "@eaDir/0000.JPEG",
    ],
)
def test_files_of_systems_and_editors_are_skipped_and_counted(
    name: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = images(root)
    path = root / "imagenet/validation" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"no image")
    assert images(root) == before
    imagenet.fetch(root)
    assert "1 other files or folders skipped; headers checked" in capsys.readouterr().out


def test_hidden_folders_next_to_shards_are_skipped(tmp_path: Path, root: Path) -> None:
    shards(root / "imagenet", tmp_path / "tars/imagenet")
    for name in (".cache", "@eaDir"):
        (tmp_path / "tars/imagenet/train" / name).mkdir()
    (tmp_path / "tars/imagenet/train/._train-000000.tar").write_bytes(b"no shard")
    assert len(images(tmp_path / "tars")) == 42


def test_images_in_subfolders_and_behind_links_are_read_once(root: Path, tmp_path: Path) -> None:
    folder = root / "imagenet/train/n01"
    moved = tmp_path / "elsewhere"
    shutil.move(folder, moved)
    folder.symlink_to(moved)
    (moved / "sub").mkdir()
    first = sorted(moved.glob("*.JPEG"))[0]
    first.rename(moved / "sub/linked.JPEG")
    (moved / first.name).symlink_to(moved / "sub/linked.JPEG")
    assert len(images(root)) == 43  # one of 42 under two names


def link_up(folder: Path) -> None:
    (folder / "up").symlink_to("..")


def link_to_itself(folder: Path) -> None:
    (folder / "again").symlink_to(".")


def link_in_a_circle(folder: Path) -> None:
    (folder / "a.jpg").symlink_to("b.jpg")
    (folder / "b.jpg").symlink_to("a.jpg")


def dangling_link(folder: Path) -> None:
    (folder / "gone.jpg").symlink_to("nowhere.jpg")


def fifo(folder: Path) -> None:
    os.mkfifo(folder / "x.jpg")


def folder_of_another_class(folder: Path) -> None:
    (folder / "twice").symlink_to(folder.parent / "n02")


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (link_up, "n01/up: the same folder as"),
        (link_to_itself, "n01/again: the same folder as"),
        (folder_of_another_class, "the same folder as"),
        (link_in_a_circle, "[ab].jpg: Too many levels of symbolic links"),
        (dangling_link, "gone.jpg: No such file"),
        (fifo, "x.jpg: not a regular file"),
    ],
)
def test_what_cannot_be_read_stops_with_its_name(spoil, complaint: str, root: Path) -> None:
    spoil(root / "imagenet/train/n01")
    with pytest.raises(UserError, match=complaint):
        imagenet.load(root)


FETCH = """
import os, sys
from sepablate import data
from sepablate.errors import UserError
for folder in sys.argv[1:]:
    os.chdir(folder)
    try:
        data.fetch("imagenet")
    except UserError as error:
        print(error)
"""
UNREADABLE = {
    "train/n01/locked": "{}: Permission denied",
    "train/n02": "{}: Permission denied",
    "validation": "{}: Permission denied",
    "train/n01/0003.JPEG": "1 of 42 images are bad: {}: [Errno 13] Permission denied",
    "classes.txt": "{}: no text file in UTF-8: [Errno 13] Permission denied",
    "shards/train/train-000007.tar": "{}: no whole, uncompressed tar file: [Errno 13] Permission",
}


def test_what_a_user_may_not_read_stops(root: Path, tmp_path: Path) -> None:
    """By a user's rights: root may read everything."""
    (root / "imagenet/train/n01/locked").mkdir()
    (root / "imagenet/classes.txt").write_text("n01\nn02\nn03\n")
    folders = []
    for number, name in enumerate(UNREADABLE):
        folders.append(tmp_path / str(number))
        target = folders[-1] / "data/imagenet"
        if name.startswith("shards"):
            shards(root / "imagenet", target)
        else:
            shutil.copytree(root / "imagenet", target)
        (target / name.removeprefix("shards/")).chmod(0)
    done = python(tmp_path, "-c", FETCH, *map(str, folders))
    lines = done.stdout.splitlines()
    assert len(lines) == len(UNREADABLE), done.stderr
    for line, (name, words) in zip(lines, UNREADABLE.items(), strict=True):
        assert line.startswith(words.format(f"data/imagenet/{name.removeprefix('shards/')}"))


def test_folders_named_by_numbers_are_in_the_order_of_the_numbers(tmp_path: Path) -> None:
    """22 of 44 images in folder 10: a network that always answers class 10 is right for half."""
    names = [str(number) for number in range(12)]
    for name in names:
        (tmp_path / "validation" / name).mkdir(parents=True)
        for index in range(22 if name == "10" else 2):
            Image.new("RGB", (4, 4)).save(tmp_path / "validation" / name / f"{index}.png")
    split = imagenet.images(tmp_path / "validation")
    assert split.classes == tuple(names)

    class AlwaysTen(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(torch.full((len(x),), 10), 12).float()

    def transform(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float()

    assert count_correct(AlwaysTen(), split, transform, 8, 4)[1] / len(split) == 0.5


def test_a_list_of_classes_decides_their_order(root: Path) -> None:
    assert imagenet.load(root)["test"].classes == ("n01", "n02", "n03")
    listed = root / "imagenet/classes.txt"
    listed.write_text("n03\nn01\nn02\n")
    split = imagenet.load(root)["test"]
    assert split.classes == ("n03", "n01", "n02")
    for index in range(len(split)):
        assert Path(split.name(index)).parent.name == split.classes[int(split.labels[index])]
    for text, complaint in (
        ("n03\nn01\n", "'n02' is not listed, but is a folder of"),
        ("n03\nn01\nn02\nn04\n", "'n04' has no folder in"),
        ("n03\nn01\nn03\nn02\n", "classes.txt:3: 'n03': choose one name"),
    ):
        listed.write_text(text)
        with pytest.raises(UserError, match=complaint):
            imagenet.load(root)


def png(values: NDArray[np.uint16], kind: int) -> bytes:
    """A PNG of 16 bits: (H, W, planes) of grey, grey and alpha, red green blue, or all of these."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc32(name + data))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.parametrize(("kind", "planes", "alpha"), [(0, 1, 0), (4, 1, 1), (2, 3, 0), (6, 3, 1)])
def test_sixteen_bits_keep_their_meaning(
    tmp_path: Path, kind: int, planes: int, alpha: int
) -> None:
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8, 1)
    opaque = np.full((8, 8, alpha), 65535, np.uint16)
    (tmp_path / "n01").mkdir()
    content = png(np.concatenate([values.repeat(planes, 2), opaque], 2), kind)
    (tmp_path / "n01/deep.png").write_bytes(content)
    pixels = np.asarray(image_files.from_class_folders(tmp_path).read(0))
    nearest = 0.5 if kind == 0 else 1  # Pillow cuts the lower bits of the others off
    assert np.abs(pixels - values / 257.0).max() <= nearest


def test_every_number_of_images_is_checked_before_training(root: Path) -> None:
    """30 training images, of which 3 are held out, and 12 others."""
    splits = imagenet.load(root)
    for split, most in {"train": 27, "validation": 3, "test": 12}.items():
        counts = {name: (f"scales.mine.{name}", 1) for name in splits}
        counts[split] = ("params.yaml: scales.mine.x", most)
        image_files.check_counts(splits, counts)
        counts[split] = ("params.yaml: scales.mine.x", most + 1)
        with pytest.raises(UserError, match=rf"scales.mine.x: {most + 1}: choose at most {most},"):
            image_files.check_counts(splits, counts)


def test_a_scale_that_asks_for_more_is_refused_by_the_command(root: Path, project: Path) -> None:
    (project / "data").mkdir(exist_ok=True)
    shutil.rmtree(project / "data/imagenet", ignore_errors=True)
    shutil.copytree(root / "imagenet", project / "data/imagenet")
    changes = {"dataset": "imagenet", "classes": 3, "images": 27, "image_size": 32}
    edit_params(project, **changes, batch_size=3, validation_images=3, test_images=13)
    done = sepablate(project, "train", "xception")
    assert done.returncode == 2
    assert "scales.smoke.test_images: 13: choose at most 12, the test images of" in done.stderr
    assert not (project / ".sepablate/runs").exists()


@pytest.mark.parametrize(
    ("rename", "complaint"),
    [
        ({"validation": "val"}, r"validation: missing, but there is .*val: rename it, or link it"),
        ({"validation/n01/0000.JPEG": "validation/0000.JPEG"}, None),
    ],
)
def test_other_layouts_are_named(rename: dict[str, str], complaint: str | None, root: Path) -> None:
    for old, new in rename.items():
        (root / "imagenet" / old).rename(root / "imagenet" / new)
    if complaint is None:
        for folder in (root / "imagenet/validation").glob("n*"):
            shutil.rmtree(folder)
        complaint = "images lie in it directly; put those of each class into a folder of its own"
    with pytest.raises(UserError, match=complaint):
        imagenet.load(root)
