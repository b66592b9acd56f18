"""Images in folders and shards: the pixels and labels that other readers give, bad ones named."""

import io
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.images import CLASSES, add, class_folders, picture, shards
from PIL import Image
from torchvision.datasets import ImageFolder

from sepablate.data import fashion_mnist, imagenet
from sepablate.data.image_files import ImageFiles, check_classes, check_headers


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Path:
    root = tmp_path_factory.mktemp("folders")
    class_folders(root / "imagenet", data_folder)
    return root


@pytest.fixture(scope="module")
def tars(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tars")
    shards(folders / "imagenet", root / "imagenet")
    return root


@pytest.fixture
def mine(folders: Path, tmp_path: Path) -> Path:
    """A copy of the folders, to damage."""
    shutil.copytree(folders, tmp_path, dirs_exist_ok=True)
    return tmp_path


def content(split: ImageFiles) -> list[tuple[bytes, int]]:
    return sorted((split.read(i).tobytes(), int(split.labels[i])) for i in range(len(split)))


def test_folders_are_what_torchvision_reads(folders: Path) -> None:
    splits = imagenet.load(folders)
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 27,
        "validation": 3,
        "test": 12,
    }
    theirs = {
        name: [
            (image.convert("RGB").tobytes(), label)
            for image, label in ImageFolder(str(folders / "imagenet" / name))
        ]
        for name in ("train", "validation")
    }
    assert content(splits["test"]) == sorted(theirs["validation"])
    both = content(splits["train"]) + content(splits["validation"])
    assert sorted(both) == sorted(theirs["train"])
    assert splits["test"].classes == CLASSES
    assert splits["train"].labels.dtype == torch.int64


def test_shards_hold_the_same(folders: Path, tars: Path) -> None:
    ours, theirs = imagenet.load(tars), imagenet.load(folders)
    assert content(ours["test"]) == content(theirs["test"])
    both = [content(each["train"]) + content(each["validation"]) for each in (ours, theirs)]
    assert sorted(both[0]) == sorted(both[1])
    assert ours["test"].classes == ("0", "1", "2")


@pytest.mark.parametrize("kind", ["folders", "tars"])
def test_splits_are_always_the_same_and_of_all_classes(
    kind: str, request: pytest.FixtureRequest
) -> None:
    root = request.getfixturevalue(kind)
    first, second = imagenet.load(root), imagenet.load(root)
    for name, split in first.items():
        names = [split.name(index) for index in range(len(split))]
        assert names == [second[name].name(index) for index in range(len(split))]
    assert set(first["train"].first(12).labels.tolist()) == {0, 1, 2}
    copy = pickle.loads(pickle.dumps(first["test"]))
    assert content(copy) == content(first["test"])


def test_digest_follows_names_sizes_and_nothing_else(mine: Path) -> None:
    before = imagenet.digest(mine)
    assert len(before) == 16
    files = sorted((mine / "imagenet/train").glob("*/*"))
    (files[0].parent / ".DS_Store").write_bytes(b"no image")
    assert imagenet.digest(mine) == before
    files[0].write_bytes(files[0].read_bytes() + b"\0")
    longer = imagenet.digest(mine)
    files[0].write_bytes(files[0].read_bytes()[:-1])
    assert imagenet.digest(mine) == before
    files[0].rename(files[0].with_name("other.JPEG"))
    assert len({before, longer, imagenet.digest(mine)}) == 3


def test_what_colours_a_file_has_is_no_matter(mine: Path, data_folder: Path) -> None:
    folder = mine / "imagenet/validation/n01"
    shutil.rmtree(folder)
    folder.mkdir()
    rgb = picture(fashion_mnist.load(data_folder)["train"], 0)
    rgb.convert("L").save(folder / "grey.jpg")
    rgb.convert("CMYK").save(folder / "cmyk.jpeg", quality=95)
    rgb.convert("P").save(folder / "palette.png")
    rgb.convert("RGBA").save(folder / "alpha.png")
    rgb.convert("1").save(folder / "bits.png")
    rgb.save(folder / "a png called.JPEG", "PNG")
    split = imagenet.load(mine)["test"]
    check_headers({"test": split})
    found = {Path(split.name(i)).name: split.read(i) for i in range(len(split))}
    assert all(image.mode == "RGB" for image in found.values())
    pixels = np.asarray(rgb, dtype=float)
    assert np.array_equal(found["alpha.png"], pixels)
    assert np.array_equal(found["a png called.JPEG"], pixels)
    for name, limit in {"cmyk.jpeg": 12, "palette.png": 25}.items():
        assert np.abs(np.asarray(found[name], dtype=float) - pixels).mean() < limit
    grey = np.asarray(found["grey.jpg"])
    assert np.array_equal(grey[..., 0], grey[..., 2])


def bomb(width: int, height: int) -> bytes:
    """A valid PNG header of an image that would take width x height bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


BAD = {
    "empty.jpg": b"",
    "text.jpg": b"<html>404 Not Found</html>" * 3000,
    "cut.jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF",
    "bomb.png": bomb(20_000, 20_000),
    "gif.png": b"GIF89a\x01\x00\x01\x00\x00\x00\x00;",
    "zeros.jpg": bytes(5000),
}


@pytest.mark.parametrize("kind", ["folders", "tars"])
def test_bad_images_are_all_named_before_training(
    kind: str, mine: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = mine
    for name, each in BAD.items():
        (mine / "imagenet/train/n02" / name).write_bytes(each)
    if kind == "tars":
        root = tmp_path_factory.mktemp("bad")
        for path in (mine / "imagenet/train/n02").iterdir():
            path.rename(path.with_suffix(".JPEG"))
        shards(mine / "imagenet", root / "imagenet")
    with pytest.raises(ValueError, match=rf"^{len(BAD)} of 48 images are bad: ") as raised:
        imagenet.fetch(root)
    message = str(raised.value)
    named = [name for name in BAD if name.split(".")[0] + "." in message]
    assert len(named) == 5
    assert message.endswith("; and 1 more")
    assert "0x" not in message


@pytest.mark.parametrize("name", BAD)
def test_each_bad_image_is_refused_for_its_reason(name: str, mine: Path) -> None:
    path = mine / "imagenet/train/n02" / name
    path.write_bytes(BAD[name])
    reasons = {"empty.jpg": "empty", "bomb.png": "400000000 pixels", "cut.jpg": "Truncated"}
    reason = reasons.get(name, "no JPEG or PNG image")
    with pytest.raises(ValueError, match=rf"^1 of 3 images are bad: {path}: .*{reason}") as raised:
        check_headers({"train": only(mine, path)})
    assert "\n" not in str(raised.value)
    split = only(mine, path)
    index = next(i for i in range(len(split)) if split.name(i) == str(path))
    with pytest.raises(ValueError, match=rf"^{path}: .*{reason}"):
        split.read(index)


def only(root: Path, path: Path) -> ImageFiles:
    """Three images of the training folder, of which `path` is one."""
    split = imagenet.images(root / "imagenet/train")
    names = [split.name(index) for index in range(len(split))]
    return split[torch.tensor([names.index(str(path)), 0, 1])]


def test_a_long_header_is_no_bad_one(mine: Path, data_folder: Path) -> None:
    path = mine / "imagenet/train/n02/long.jpg"
    image = picture(fashion_mnist.load(data_folder)["train"], 0)
    image.save(path, icc_profile=bytes(300_000))
    check_headers({"train": only(mine, path)})


def test_a_damaged_body_is_named_when_it_is_read(mine: Path) -> None:
    split = imagenet.load(mine)["train"]
    path = Path(split.name(0))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    check_headers({"train": split})
    with pytest.raises(ValueError, match=rf"^{path}: .*truncated"):
        split.read(0)
    path.unlink()
    with pytest.raises(ValueError, match=rf"^{path}: .*No such file"):
        split.read(0)


def test_what_is_missing_is_said_with_the_way_to_get_it(tmp_path: Path, folders: Path) -> None:
    with pytest.raises(ValueError, match=r"imagenet/train: missing; .*registration at image-net"):
        imagenet.fetch(tmp_path)
    shutil.copytree(folders / "imagenet/train", tmp_path / "imagenet/train")
    (tmp_path / "imagenet/validation").mkdir()
    (tmp_path / "imagenet/validation/ILSVRC2012_val_00000001.JPEG").touch()
    with pytest.raises(ValueError, match="validation: images lie in it directly"):
        imagenet.fetch(tmp_path)
    (tmp_path / "imagenet/validation/n01").mkdir()
    with pytest.raises(ValueError, match=r"n01: no \.jpg or \.jpeg or \.png file in this class"):
        imagenet.fetch(tmp_path)
    (tmp_path / "imagenet/validation/a.tar").touch()
    with pytest.raises(ValueError, match=r"shards \(a.tar\) and class folders \(n01\)"):
        imagenet.fetch(tmp_path)


def test_classes_must_agree(mine: Path) -> None:
    check_classes(imagenet.load(mine), 3)
    with pytest.raises(ValueError, match="3 classes in the train images, but 1000 in the network"):
        check_classes(imagenet.load(mine), 1000)
    shutil.copytree(mine / "imagenet/train/n02", mine / "imagenet/train/n99")
    with pytest.raises(
        ValueError, match="4 classes in train and 3 in validation: 'n99' is only in"
    ):
        imagenet.load(mine)


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ({"a.jpg": b"x"}, "'a' needs an image and a .cls file; unpack tar files of one class each"),
        ({"a.cls": b"1"}, "'a' needs an image and a .cls file"),
        ({"a.jpg": b"x", "a.cls": b"cat"}, "'a.cls': b'cat': must be a class"),
        ({"a.jpg": b"x", "a.cls": b"-1"}, "must be a class"),
        ({"a.jpg": b"x", "a.cls": b"9" * 400}, "must be a class"),
        ({"a.jpg": b"x", "a.cls": b""}, "must be a class"),
        ({"a.jpg": b"x", "a.png": b"x", "a.cls": b"1"}, "'a' is there twice"),
        ({"../a.jpg": b"x", "../a.cls": b"1"}, "without / at the start and without"),
        ({"/etc/a.jpg": b"x", "/etc/a.cls": b"1"}, "without / at the start and without"),
        ({"a.txt": b"x"}, "no images in 1 shards"),
    ],
)
def test_odd_shards_are_refused(members: dict[str, bytes], complaint: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "odd.tar", "w") as archive:
        for name, each in members.items():
            add(archive, name, each)
    with pytest.raises(ValueError, match=complaint) as raised:
        imagenet.images(tmp_path)
    assert len(str(raised.value)) < 500


def test_a_shard_reads_nothing_but_its_own_regular_files(tmp_path: Path, data_folder: Path) -> None:
    """Links, devices and dot files are passed over; names may have folders and a leading ./"""
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    buffer = io.BytesIO()
    picture(fashion_mnist.load(data_folder)["train"], 1).save(buffer, "JPEG")
    folder = tmp_path / "shards"
    folder.mkdir()
    with tarfile.open(folder / "odd.tar", "w") as archive:
        for kind, name in ((tarfile.SYMTYPE, "b.jpg"), (tarfile.CHRTYPE, "c.jpg")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, str(secret)
            archive.addfile(link)
        add(archive, "./x/a.jpg", buffer.getvalue())
        add(archive, "./x/a.cls", b"1\n")
        add(archive, "x/._a.jpg", b"resource fork")
    split = imagenet.images(folder)
    assert len(split) == 1
    assert split.read(0).size == Image.open(buffer).size
    assert split.labels.tolist() == [1]
    assert sorted(path.name for path in folder.iterdir()) == ["odd.tar"]


def test_damaged_or_compressed_shards_are_refused(tars: Path, tmp_path: Path) -> None:
    whole = next((tars / "imagenet/train").glob("*.tar")).read_bytes()
    for content_, name in ((whole[:7000], "cut.tar"), (zlib.compress(whole), "packed.tar")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_bytes(content_)
        with pytest.raises(ValueError, match=rf"{name}: no whole, uncompressed tar file"):
            imagenet.images(folder)


# Tag, type, count, value: a text longer than the file; two resolution units, where one is expected.
ENTRIES = [struct.pack(">HHLL", 0x010F, 2, 9999, 8), struct.pack(">HHLHH", 0x0128, 3, 2, 2, 2)]


READ = """
import os, sys
from pathlib import Path
from sepablate.data import imagenet
for folder in sys.argv[1:]:
    os.chdir(folder)
    imagenet.fetch(Path())
    print(imagenet.load(Path())["test"].read(0).size)
"""


def odd_pictures() -> Iterator[bytes]:
    """With damage beyond the pixels: EXIF data, further images in a file, a transparent palette."""
    for entries in (*([each] for each in ENTRIES), [], [ENTRIES[1][:7]]):
        picture, file = Image.new("RGB", (9, 9)), io.BytesIO()
        count = struct.pack(">H", max(1, len(entries)))
        exif = b"Exif\0\0MM\0*\0\0\0\x08" + count + b"".join(entries)
        picture.save(file, "JPEG", exif=exif)
        yield file.getvalue()
    tags = struct.pack(">HHLL", 0xB002, 7, 32, 9999)  # MPO: a list of images that is cut
    segment = b"MPF\0MM\0*\0\0\0\x08\0\1" + tags
    head = file.getvalue()[:2] + b"\xff\xe2" + struct.pack(">H", 2 + len(segment))
    yield head + segment + file.getvalue()[2:]
    file = io.BytesIO()
    picture.save(file, "PNG")
    frames = b"acTL" + bytes(8)  # an animation of no frames
    chunk = struct.pack(">L", 8) + frames + struct.pack(">L", zlib.crc32(frames))
    yield file.getvalue()[:33] + chunk + file.getvalue()[33:]
    file = io.BytesIO()
    picture.convert("P").save(file, "PNG", transparency=bytes([0, 10, 255]))
    yield file.getvalue()


def test_damage_beyond_the_pixels_is_no_news(tmp_path: Path) -> None:
    """In a process of its own, as pytest would show no warning there."""
    for number, content_ in enumerate(odd_pictures()):
        for name in ("train", "validation"):
            (tmp_path / str(number) / "imagenet" / name / "a").mkdir(parents=True)
            (tmp_path / str(number) / "imagenet" / name / "a/1.JPEG").write_bytes(content_)
    places = sorted(tmp_path.iterdir())
    done = subprocess.run([sys.executable, "-c", READ, *places], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert done.stdout.count("(9, 9)") == len(places) == 7
