"""Label tables of the user: read as they are meant, or refused with their line."""

import csv
from pathlib import Path

import pytest
import torch
from helpers.images import picture

from sepablate.data import fashion_mnist, labelled_images
from sepablate.data.image_files import check_classes

LISTS = {
    "train": [("a.jpg", "shoe;shirt"), ("b.jpg", "shirt"), ("c.jpg", "")],
    "validation": [("d.jpg", "shirt ; shoe")],
    "test": [("sub/e.jpg", "shoe")],
}


@pytest.fixture
def lists(tmp_path: Path, data_folder: Path) -> Path:
    root = tmp_path / "labelled_images"
    (root / "sub").mkdir(parents=True)
    source = fashion_mnist.load(data_folder)["train"]
    for name, rows in LISTS.items():
        with (root / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("image", "labels"), *rows])
        for image, _ in rows:
            picture(source, ord(Path(image).stem)).save(root / image)
    return tmp_path


def test_labels_of_a_list(lists: Path) -> None:
    labelled_images.fetch(lists)
    splits = labelled_images.load(lists)
    assert splits["train"].classes == ("shirt", "shoe")
    assert splits["train"].labels.tolist() == [[1, 1], [1, 0], [0, 0]]
    assert splits["validation"].labels.tolist() == [[1, 1]]
    assert splits["test"].labels.tolist() == [[0, 1]]
    assert splits["train"].labels.dtype == torch.uint8
    check_classes(splits, 2)
    before = labelled_images.digest(lists)
    path = lists / "labelled_images/test.csv"
    path.write_text(path.read_text().replace("shoe", "coat").replace("coat", "shirt"))
    assert labelled_images.digest(lists) != before


def test_a_list_of_classes_gives_their_order(lists: Path) -> None:
    (lists / "labelled_images/classes.txt").write_text("shoe\nbag\nshirt\n")
    splits = labelled_images.load(lists)
    assert splits["test"].classes == ("shoe", "bag", "shirt")
    assert splits["train"].labels.tolist() == [[1, 0, 1], [0, 0, 1], [0, 0, 0]]
    (lists / "labelled_images/classes.txt").write_text("shoe\nshirt\nshoe\n")
    with pytest.raises(ValueError, match=r"classes.txt:3: 'shoe': choose one name, different"):
        labelled_images.load(lists)


@pytest.mark.parametrize(
    ("name", "line", "complaint"),
    [
        ("train", "b.jpg,shirt", r"train.csv:5: 'b.jpg': duplicate of .*train.csv:3"),
        ("test", "b.jpg,shirt", r"test.csv:3: 'b.jpg': duplicate of .*train.csv:3"),
        ("test", "./b.jpg,shirt", r"test.csv:3: './b.jpg': duplicate of .*train.csv:3"),
        ("test", "a/../../x.jpg,shirt", r"test.csv:3: .*choose a path relative to"),
        ("test", "/etc/passwd,shirt", r"test.csv:3: .*choose a path relative to"),
        ("test", "none.jpg,shirt", r"test.csv:3: 'none.jpg': there is no such file"),
        ("validation", "sub,shirt", r"validation.csv:3: 'sub': there is no such file"),
        ("train", "c.jpg", r"train.csv:5: 1 fields: must be 2"),
        ("train", "x,y,z", r"train.csv:5: 3 fields: must be 2"),
    ],
)
def test_bad_rows_are_refused_with_their_line(
    name: str, line: str, complaint: str, lists: Path
) -> None:
    with (lists / f"labelled_images/{name}.csv").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=complaint):
        labelled_images.load(lists)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", r"test.csv:1: \[\]: the columns must be \['image', 'labels'\]"),
        ("file,labels\n", r"test.csv:1: \['file', 'labels'\]: the columns"),
        ("image,labels\nsub/e.jpg,hat\n", r"test.csv:2: label 'hat': unknown: train.csv does not"),
        ("image,labels\nsub/e.jpg,shoe;shoe\n", r"test.csv:2: 'shoe;shoe': duplicate label"),
        ("image,labels\nsub/\x00.jpg,shoe\n", "test.csv"),
        (b"image,labels\n\xff.jpg,shoe\n", r"test.csv: no CSV file in UTF-8"),
        ('image,labels\nsub/e.jpg,"shoe\nsub/e.jpg,shirt\n', r"test.csv: .*unexpected end of data"),
        ('image,labels\nsub/e.jpg,"shoe\nshirt"\n', r"test.csv:3: a field goes over several lines"),
    ],
)
def test_bad_lists_are_refused(text: str | bytes, complaint: str, lists: Path) -> None:
    content_ = text if isinstance(text, bytes) else text.encode()
    (lists / "labelled_images/test.csv").write_bytes(content_)
    with pytest.raises(ValueError, match=complaint):
        labelled_images.load(lists)


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train.csv: missing; it lists images and their labels"):
        labelled_images.fetch(tmp_path)
