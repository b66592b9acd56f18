"""The data set: from each source, verified, whole or absent; one clear line when it is wrong."""

import dataclasses
import gzip
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from helpers.project import sepablate

from sepablate.data import dataset, download, fashion_mnist
from sepablate.data.download import Source

NAMES = list(fashion_mnist.SOURCE.expected)
LABELS = "t10k-labels-idx1-ubyte"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Source:
    """Fashion-MNIST without any source in reach but the user's own files."""
    monkeypatch.setattr(download.shutil, "which", lambda name: None)
    folder = str(tmp_path / "installed")
    origins = (
        download.debian_folder(folder),
        download.site("http://127.0.0.1:9"),
        download.debian_archive("none", folder),
    )
    return dataclasses.replace(fashion_mnist.SOURCE, origins=origins)


def put(data_folder: Path, folder: Path, name: str, packed: bool, cut: int | None = None) -> Path:
    content = (data_folder / "fashion-mnist" / name).read_bytes()[:cut]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    return path


def test_splits_are_the_published_data(data_folder: Path) -> None:
    splits = fashion_mnist.load(data_folder)
    sizes = {name: len(split.labels) for name, split in splits.items()}
    assert sizes == {"train": 50_000, "validation": 10_000, "test": 10_000}
    assert all(split.images.shape[1:] == (28, 28) for split in splits.values())
    assert torch.bincount(splits["test"].labels).tolist() == [1000] * 10
    training = torch.cat([splits["train"].labels, splits["validation"].labels])
    assert torch.bincount(training).tolist() == [6000] * 10
    pixels = torch.cat([splits["train"].images, splits["validation"].images]).double() / 255
    assert pixels.mean().item() == pytest.approx(0.2860, abs=1e-4)
    assert pixels.std().item() == pytest.approx(0.3530, abs=1e-4)


def test_parsed_as_torchvision_parses_it(data_folder: Path) -> None:
    folder = data_folder / "fashion-mnist"
    read = torchvision.datasets.mnist
    test = fashion_mnist.load(data_folder)["test"]
    assert torch.equal(test.images, read.read_image_file(folder / "t10k-images-idx3-ubyte"))
    assert torch.equal(test.labels, read.read_label_file(folder / "t10k-labels-idx1-ubyte"))


@pytest.mark.parametrize("packed", [True, False])
def test_the_user_s_own_files_come_first(
    offline: Source, data_folder: Path, tmp_path: Path, packed: bool
) -> None:
    for name in NAMES:
        put(data_folder, tmp_path / "user", name, packed)
    download.fetch(offline, tmp_path / "user")
    for name in NAMES:
        assert download.verified(offline, tmp_path / "user", name)
    left = {path.name for path in (tmp_path / "user").iterdir()}
    assert left == {*NAMES, *(f"{name}.gz" for name in NAMES if packed)}


def test_debian_s_installed_package(offline: Source, data_folder: Path, tmp_path: Path) -> None:
    for name in NAMES:
        put(data_folder, tmp_path / "installed", name, packed=True)
    download.fetch(offline, tmp_path / "out", say=lambda line: None)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(NAMES)


def test_a_wrong_package_falls_through_to_an_error(
    offline: Source, data_folder: Path, tmp_path: Path
) -> None:
    for name in NAMES:
        put(data_folder, tmp_path / "installed", name, packed=True, cut=5000)
    with pytest.raises(ValueError, match="5000 bytes decompressed"):
        download.fetch(offline, tmp_path / "out", say=lambda line: None)
    assert not (tmp_path / "out").exists()


def break_off(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")


def be_silent(_: socket.socket) -> None:
    time.sleep(0.3)


def answer_with_a_page(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n<html>Log in to this network</html>")


def answer_otherwise(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


@pytest.mark.parametrize("misbehave", [break_off, be_silent, answer_with_a_page, answer_otherwise])
def test_after_a_download_that_breaks_off_the_next_source_is_tried(
    misbehave: Callable[[socket.socket], None],
    offline: Source,
    data_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    expected = {LABELS: offline.expected[LABELS]}
    put(data_folder, tmp_path / "installed", LABELS, packed=True)
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                misbehave(connection)

        site = download.site(f"http://127.0.0.1:{server.getsockname()[1]}")
        origins = (site, offline.origins[0])
        source = dataclasses.replace(offline, expected=expected, origins=origins)
        thread = threading.Thread(target=serve)
        thread.start()
        download.fetch(source, tmp_path / "out", say=said.append)
        thread.join()
    assert said == [f"Fashion-MNIST: {LABELS} verified, from Debian's installed package"]


def test_nothing_in_reach_says_what_to_do(offline: Source, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not found anywhere") as error:
        download.fetch(offline, tmp_path / "out")
    message = str(error.value)
    assert "\n" not in message
    for part in (NAMES[0], offline.expected[NAMES[0]], str(tmp_path / "out"), "own site"):
        assert part in message


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
@pytest.mark.parametrize("packed", [True, False])
def test_a_wrong_file_of_the_user_is_named_and_kept(
    offline: Source, data_folder: Path, tmp_path: Path, packed: bool, damage: str
) -> None:
    path = put(data_folder, tmp_path, NAMES[1], packed)
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "cut": whole[:middle],
            "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            "empty": b"",
        }[damage]
    )
    wrong = path.read_bytes()
    with pytest.raises(ValueError, match=path.name) as error:
        download.fetch(offline, tmp_path, say=lambda line: None)
    assert "delete it" in str(error.value)
    assert path.read_bytes() == wrong
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_training_refuses_a_changed_byte(data_folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "fashion-mnist"
    shutil.copytree(data_folder / "fashion-mnist", target)
    labels = target / "t10k-labels-idx1-ubyte"
    content = np.fromfile(labels, np.uint8)
    content[5000] ^= 1
    content.tofile(labels)
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte"):
        fashion_mnist.load(tmp_path)
    labels.unlink()
    with pytest.raises(ValueError, match="sepablate fetch"):
        fashion_mnist.load(tmp_path)


def test_unknown_data_set() -> None:
    with pytest.raises(ValueError, match=r"cifar.*fashion_mnist"):
        dataset("cifar")


def test_command_verifies_what_is_there(project: Path) -> None:
    assert sepablate(project, "fetch", "--scale", "smoke").returncode == 0
    (project / "data/fashion-mnist" / NAMES[3]).write_bytes(b"no labels")
    done = sepablate(project, "fetch", "--scale", "smoke")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert NAMES[3] in done.stderr
