"""Files that no person made: one line with the file's name; no hang, no traceback, no gigabytes."""

import gzip
import os
import resource
import socket
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.images import add
from PIL import Image

from sepablate import data, recipes, study
from sepablate.analysis import detector_costs
from sepablate.data import imagenet
from sepablate.errors import UserError
from sepablate.store import archive_files, files, params_file, run_files

DATA_FILES = {
    "fashion-mnist/train-images-idx3-ubyte": "fashion_mnist",
    "fashion-mnist/t10k-labels-idx1-ubyte.gz": "fashion_mnist",
    "cifar-10/test_batch.bin": "cifar10",
    "cifar-10/cifar-10-binary.tar.gz": "cifar10",
    "labelled_images/train.csv": "labelled_images",
}


def header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    """Return a tar header with a right checksum."""
    content = bytearray(512)
    for start, field in ((0, name), (100, b"0000644\0"), (124, size), (156, kind)):
        content[start : start + len(field)] = field
    content[257:265] = b"ustar\x0000"
    content[148:156] = b"        "
    content[148:156] = b"%06o\0 " % sum(content)
    return bytes(content)


def octal(size: int) -> bytes:
    return b"%011o\0" % size


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


LONG_NAME = b"././@LongLink"
TARS = {
    "a size beyond any disk": header(b"a.jpg", b"\x80" + (1 << 60).to_bytes(11)),
    "a negative size": header(b"a.jpg", b"\xff" + (-512).to_bytes(11, signed=True)),
    "a name of three gigabytes": header(LONG_NAME, b"\x80" + (3 << 30).to_bytes(11), b"L"),
    "a name of three megabytes": header(LONG_NAME, octal(3 << 20), b"L")
    + padded(b"a" * (3 << 20))
    + header(b"a.jpg", octal(5)),
    "a name of 5,000 letters": header(LONG_NAME, octal(5000), b"L")
    + padded(b"a" * 4995 + b".jpg\0")
    + header(b"a.jpg", octal(5)),
    "long names within long names": (header(LONG_NAME, octal(5), b"L") + padded(b"abcd\0")) * 3000,
    "a size of 22 digits in an extended header": header(b"x", octal(40), b"x")
    + padded(b"40 size=9999999999999999999999999999999\n")
    + header(b"a.jpg", octal(5)),
    "an extended header longer than it is": header(b"x", octal(16), b"x")
    + padded(b"99999999 path=x\n"),
    "a sparse file": header(b"a.jpg", octal(5), b"S"),
    "a device": header(b"a.jpg", octal(0), b"3"),
    "a file that is cut": header(b"a.jpg", octal(5000)),
}


@pytest.fixture
def three_gigabytes() -> Iterator[None]:
    """Let this process have as much more memory."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", TARS)
def test_a_hostile_shard_is_named(name: str, tmp_path: Path, three_gigabytes: None) -> None:
    (tmp_path / "x.tar").write_bytes(TARS[name] + bytes(1024))
    with pytest.raises(UserError, match=str(tmp_path)) as error:
        imagenet.images(tmp_path)
    assert "\n" not in str(error.value)
    assert "MemoryError" not in str(error.value)
    assert len(str(error.value)) < 500


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def circle(path: Path) -> None:
    path.symlink_to(path.name)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def named_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def sparse(path: Path) -> None:
    """A file of two gigabytes that takes no room on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(2 << 30)


@pytest.mark.parametrize("make", [pipe, dangling, circle, device])
def test_a_shard_that_is_no_file_is_named(make: Callable[[Path], None], tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        add(archive, "a.jpg", b"image")
        add(archive, "a.cls", b"0")
    make(tmp_path / "1.tar")
    with pytest.raises(UserError, match=r"1\.tar: not a regular file"):
        imagenet.images(tmp_path)


@pytest.mark.parametrize("label", [b"99999999", b"1000000", b"-1", b"", b"\xd9\xa3", b"1e3"])
def test_a_label_is_a_number_of_a_class(label: bytes, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add(archive, "a.jpg", b"image")
        add(archive, "a.cls", label)
    with pytest.raises(UserError, match=r"x\.tar: 'a\.cls': .* must be a class, counted from 0"):
        imagenet.images(tmp_path)


@pytest.mark.parametrize("name", DATA_FILES)
@pytest.mark.parametrize("make", [pipe, folder, dangling, circle])
def test_what_is_no_file_is_named_and_never_opened(
    name: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    (tmp_path / name).parent.mkdir()
    make(tmp_path / name)
    with pytest.raises(UserError, match=f"{name}: not a regular file; move it away"):
        data.dataset(DATA_FILES[name]).fetch(tmp_path)


def test_a_pipe_in_the_place_of_a_lock_is_named(tmp_path: Path) -> None:
    pipe(tmp_path / "lock")
    with pytest.raises(UserError, match="lock: a pipe"), files.locked(tmp_path / "lock"):
        pass


@pytest.mark.parametrize("make", [pipe, device, named_socket, sparse])
def test_what_never_ends_in_the_place_of_a_result_is_named(
    make: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    three_gigabytes: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    make(Path("x"))
    named = "^x: (a pipe, device or socket|holds more than)"
    for read in (
        archive_files.read,
        archive_files.unpacked,
        detector_costs.read,
        run_files.read_rows,
        lambda path: files.read_json(path, dict),
    ):
        with pytest.raises(UserError, match=named) as error:
            read(Path("x"))
        assert "\n" not in str(error.value)
    for name in ("done.json", "run.json", "study.py", "params.yaml"):
        make(Path(name))
    assert not run_files.is_finished(Path(), "0" * 16)
    with pytest.raises(UserError, match=r"^study\.py: (not a regular file|holds more than)"):
        study.names(Path())
    with pytest.raises(UserError, match=r"^params\.yaml: choose a regular file of at most"):
        params_file.read_params(Path("params.yaml"))


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a": ' * 100_000, "9" * 5000])
def test_json_that_no_program_wrote_is_one_line(content: str, tmp_path: Path) -> None:
    for name in ("done.json", "run.json"):
        (tmp_path / name).write_text(content)
    assert files.corrupt_files(tmp_path) == ["done.json"]
    assert not run_files.is_finished(tmp_path, "0" * 16)
    for kind in (dict, list):
        with pytest.raises(UserError, match=r"run\.json: not valid JSON"):
            files.read_json(tmp_path / "run.json", kind)


def test_a_list_of_a_million_is_no_work() -> None:
    """Each compared with each would take hours."""
    many = tuple(range(1_000_000))
    assert recipes._distinct(many) == many
    with pytest.raises(UserError, match="7 is a duplicate"):
        recipes._distinct((*many, 7))


@pytest.mark.parametrize("make", [pipe, folder])
def test_lists_of_classes_are_regular_files(make: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "imagenet/train/n01").mkdir(parents=True)
    make(tmp_path / "imagenet/classes.txt")
    with pytest.raises(UserError, match=r"classes\.txt: not a regular file"):
        imagenet.load(tmp_path)


def gzip_bomb(path: Path) -> None:
    """A kilobyte for each megabyte, and 700 of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(bytes(1 << 20)) * 700)


@pytest.mark.parametrize(
    ("name", "make", "read"),
    [
        *(
            (name, sparse, read)
            for read in (data.fetch, data.load)
            for name in (
                "fashion-mnist/train-images-idx3-ubyte",
                "cifar-10/test_batch.bin",
                "imagenet/train/a/0.jpg",
                "imagenet/classes.txt",
                "labelled_images/0.jpg",
                "labelled_images/train.csv",
                "coco/annotations/instances_train2017.json",
            )
        ),
        ("fashion-mnist/train-images-idx3-ubyte.gz", gzip_bomb, data.fetch),
        ("cifar-10/cifar-10-binary.tar.gz", gzip_bomb, data.fetch),
    ],
)
def test_a_file_far_too_large_is_refused_before_it_is_read(
    name: str,
    make: Callable[[Path], None],
    read: Callable[[str], object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    three_gigabytes: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    for split in ("train", "validation"):
        picture(Path("data/imagenet", split, "a/1.jpg"))
    for image, split in enumerate(("train", "validation", "test")):
        picture(Path(f"data/labelled_images/{image}.jpg"))
        Path(f"data/labelled_images/{split}.csv").write_text(f"image,labels\n{image}.jpg,a\n")
    make(Path("data", name))
    first = name.partition("/")[0]
    dataset = {"fashion-mnist": "garment_boxes", "cifar-10": "cifar10"}.get(first, first)
    with pytest.raises(UserError, match=f"data/{name}: holds more than [0-9]+ bytes") as error:
        read(dataset)
    assert "\n" not in str(error.value)


def picture(path: Path, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 9)).save(path, **options)
