"""`sepablate new dataset`: what it refuses, in one line, and then writes nothing."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.environments import refused
from helpers.own_images import CLASSES, class_folders, register
from helpers.project import contents, sepablate

from sepablate.errors import UserError
from sepablate.planning import new_dataset

Change = Callable[[Path], object]


def unlink(name: str) -> Change:
    return lambda root: [path.unlink() for path in root.glob(name)]


def put(name: str, content: bytes = b"") -> Change:
    def change(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    return change


def cut(name: str) -> Change:
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:-60])


def only_one_class(root: Path) -> None:
    shutil.rmtree(root / "dog")
    shutil.rmtree(root / "owl")


def images_with_a_list(root: Path) -> None:
    only_one_class(root)
    (root / "list.csv").write_text("image,label\ncat/00.png,1\n")


def lying_directly(root: Path) -> None:
    shutil.move(root / "cat/00.png", root)
    for name in CLASSES:
        shutil.rmtree(root / name)


FOLDERS: list[tuple[Change, list[str]]] = [
    (shutil.rmtree, ["pets: there is no such folder: choose"]),
    (lambda root: [shutil.rmtree(path) for path in root.iterdir()], ["no class folders in it"]),
    (lying_directly, ["images lie in it directly"]),
    (only_one_class, ["only the class 'cat': choose two classes or more"]),
    (images_with_a_list, ["only the class 'cat'", "a CSV file lists, give that: ", "/list.csv"]),
    (unlink("owl/*"), ["pets/owl: no .jpg or .jpeg or .png file in this class"]),
    (put("pig/a.gif"), ["pets/pig: no .jpg", "1 other file"]),
    (put("owl/bad.png", b"no image"), ["1 of 31 images are bad: ", "owl/bad.png: no JPEG or PNG"]),
    (put("owl/bad.png"), ["owl/bad.png: empty"]),
    (cut("owl/03.png"), ["1 of 30 images are bad", "owl/03.png: "]),
    (lambda root: [cut(f"owl/0{i}.png")(root) for i in range(7)], ["7 of 30", "; and 2 more"]),
    (unlink("owl/0[2-9].png"), ["'owl' has too few different images, 2: choose at least 3, for"]),
    (lambda root: shutil.copytree(root / "cat", root / "cat "), ["'cat' and 'cat '"]),
    (
        lambda root: [shutil.copytree(root / "cat", root / name) for name in ("e\u0301", "\u00e9")],
        ["rename one, or join them"],
    ),
    (lambda root: [shutil.copytree(root / "cat", root / name) for name in ("1", "01")], ["'01'"]),
    (lambda root: (root / "owl/again").symlink_to(root.absolute() / "cat"), ["the same folder as"]),
    (lambda root: (root / "owl/loop").symlink_to(root.absolute()), ["the same folder as"]),
    (lambda root: (root / "owl/a.png").symlink_to("nothing"), ["owl/a.png: not a regular file"]),
    (lambda root: os.mkfifo(root / "owl/a.png"), ["owl/a.png: not a regular file"]),
    (lambda root: shutil.copytree(root / "cat", root / "a\nb"), ["'a\\nb'", "printable"]),
    (lambda root: os.mkdir(os.fsencode(root) + b"/\xff"), ["\udcff: no .jpg"]),
    (
        lambda root: shutil.copy(root / "cat/00.png", os.fsencode(root) + b"/cat/\xff.png"),
        ["no file name in UTF-8"],
    ),
    (
        lambda root: [(root / "cat").rename(root / "train"), (root / "dog").rename(root / "val")],
        ["train and val are splits, but 'owl' is none"],
    ),
    (put("classes.txt", b"cat\ncat\n"), ["classes.txt:2: 'cat'"]),
]  # fmt: skip

TABLES: list[tuple[str, list[str]]] = [
    ("", ["pets.csv:1: column 'image': missing"]),
    ("image,label\n", ["pets.csv: lists no image"]),
    ("image,lable\npets/cat/00.png,1\n", ["pets.csv:1: column 'lable'", "did you mean label?"]),
    ("image,label,label\n", ["column 'label': twice"]),
    ("image\n", ["column 'label': missing"]),
    ("image,label\npets/cat/00.png\n", ["pets.csv:2: 1 fields: choose image, label"]),
    ("image,label\npets/cat/zz.png,1\n", ["pets.csv:2: 'pets/cat/zz.png': there is no such file"]),
    ("image,label\n/etc/passwd,1\n", ["pets.csv:2: '/etc/passwd': choose a path relative"]),
    ("image,label\npets/../../x.png,1\n", ["pets.csv:2: ", "without .."]),
    ("image,label\npets/cat,1\n", ["pets.csv:2: 'pets/cat': there is no such file"]),
    (
        "image,label\npets/cat/00.png,1\n\npets/./cat/00.png,2\n",
        ["pets.csv:4: 'pets/cat/00.png': duplicate of line 2"],
    ),
    ("image,label\npets/cat/00.png,\n", ["pets.csv:2: 'pets/cat/00.png' has no label"]),
    ("image,label,split\npets/cat/00.png,1,tran\n", ["split 'tran': ", "did you mean train?"]),
    ("image,label,split\npets/cat/00.png,1,\n", ["split '': choose train, validation, test"]),
    ('image,label\n"pets/cat/00.png,1\n', ["no CSV file in UTF-8"]),
    ("image,label\npets/cat/00.png,\xff\n", ["no CSV file in UTF-8"]),
    ("image,label\npets/cat/00.png,1\npets/cat/01.png,1\n", ["only the class '1'"]),
    (
        "image,label,split\npets/cat/00.png,1,train\npets/cat/01.png,2,test\n",
        ["class '1' has too few different images, 1: choose at least 2, for train, validation"],
    ),
    (
        "image,label,split\npets/cat/00.png,1,train\npets/cat/01.png,2,test\n"
        "pets/cat/02.png,1,validation\n",
        ["class '2' has too few different images, 0: choose at least 1, for train"],
    ),
]


@pytest.mark.parametrize(("change", "words"), FOLDERS, ids=[words[0] for _, words in FOLDERS])
def test_bad_folders_are_refused(small: Path, change: Change, words: list[str]) -> None:
    class_folders(Path("pets"))
    change(Path("pets"))
    with pytest.raises(UserError) as error:
        new_dataset.examine("pets", Path("pets"))
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(("text", "words"), TABLES, ids=[words[0] for _, words in TABLES])
def test_bad_lists_are_refused(small: Path, text: str, words: list[str]) -> None:
    class_folders(Path("pets"))
    Path("pets.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError) as error:
        new_dataset.examine("pets", Path("pets.csv"))
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Pets", "pets"], ["data set 'Pets': choose lower-case letters"]),
        (["class", "pets"], ["data set 'class': choose lower-case letters"]),
        (["../pets", "pets"], ["choose lower-case letters"]),
        (["cifar10", "pets"], ["'cifar10': sepablate has one of that name"]),
        (["taken", "pets"], ["data set 'taken': datasets/taken.json exists already"]),
        (
            ["smoke", "pets", "--add-scale"],
            ["params.yaml: scales.smoke: exists already: leave out --add-scale"],
        ),
        (["pets", "pets", "--scale", "huge"], ["--scale 'huge'", "smoke, laptop"]),
        (["pets", "params.yaml"], ["params.yaml: neither a folder nor a .csv file"]),
        (["pets", "pets/cat"], ["pets/cat: images lie in it directly"]),
    ],
)
def test_the_command_refuses_in_one_line_and_writes_nothing(
    small: Path, arguments: list[str], words: list[str]
) -> None:
    register(class_folders(Path("pets")), "taken")
    before = contents(small)
    assert refused(sepablate(small, "new", "dataset", *arguments), *words)
    assert contents(small) == before
