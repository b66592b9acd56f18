"""Batches from disk: a function of seed and step, whatever reads them, and whoever was killed."""

import dataclasses
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.images import class_folders, shards
from helpers.processes import start
from helpers.project import ROOT, wait_for
from PIL import Image
from timm.data import create_transform

from sepablate import scales, study
from sepablate.data import imagenet
from sepablate.data.image_files import ImageFiles
from sepablate.rng import generator, stream_seed
from sepablate.runs.run import Run, resolve
from sepablate.training.file_batches import FileBatches, eval_file_batches
from sepablate.training.process_group import World

HALF = (0.5, 0.5, 0.5)
TEST_FOLDERS = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests/unit")))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("loader")
    class_folders(folder / "imagenet", data_folder, train=100, validation=13)
    return folder


@pytest.fixture(scope="module")
def splits(root: Path) -> dict[str, ImageFiles]:
    return imagenet.load(root)


@functools.cache
def run_of(seed: int = 0, **changes: object) -> Run:
    scale, recipes = scales.load("smoke", ROOT / "params.yaml")
    tiny = {"dataset": "imagenet", "classes": 3, "images": 24, "image_size": 64, "batch_size": 8}
    tiny |= {"epochs": 3.0, "evaluations": 1, "workers": 0}
    scale = dataclasses.replace(scale, **(tiny | changes))
    return resolve(study.XCEPTION, "smoke", scale, recipes, seed, "fp32")


def steps(split: ImageFiles, run: Run, *at: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    batches = FileBatches(split, run)
    return [batches.batch(step) for step in at]


def same(first: tuple[torch.Tensor, ...], second: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_batches_are_timms_transform_of_the_seeds_order(splits: dict[str, ImageFiles]) -> None:
    """Written out by hand; 72 images are more than a worker hands over at once."""
    run = run_of(seed=3, images=90, batch_size=72, epochs=4.0)
    transform = create_transform(
        64, is_training=True, color_jitter=None, interpolation="bicubic", mean=HALF, std=HALF
    )
    for step in (0, 2):  # one step an epoch
        images, labels = FileBatches(splits["train"], run).batch(step)
        assert images.shape == (72, 3, 64, 64)
        assert images.dtype == torch.float32
        order = torch.randperm(90, generator=generator(3, "order", step))[:72].tolist()
        assert labels.tolist() == [int(splits["train"].labels[index]) for index in order]
        for place in (0, 63, 64, 71):
            seed = stream_seed(3, "augment", step, order[place])
            random.seed(seed)
            torch.manual_seed(seed)
            expected = transform(splits["train"].read(order[place]))
            assert torch.equal(images[place], expected)
            assert -1 <= images[place].min() < images[place].max() <= 1


def test_neither_workers_nor_a_resume_change_a_batch(splits: dict[str, ImageFiles]) -> None:
    expected = steps(splits["train"], run_of(), *range(9))
    for workers in (1, 2):
        found = steps(splits["train"], run_of(workers=workers), *range(9))
        assert all(map(same, expected, found))
    jumps = steps(splits["train"], run_of(workers=1), 4, 5, 0, 8, 8)
    assert all(same(expected[step], got) for step, got in zip((4, 5, 0, 8, 8), jumps, strict=True))
    assert not any(same(expected[0], other) for other in expected[1:])
    assert not same(expected[0], steps(splits["train"], run_of(seed=1), 0)[0])


def test_workers_that_shared_memory_has_no_room_for_are_left_out(
    splits: dict[str, ImageFiles],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A container has 64 MB: three batches of 64 images of 64 pixels are 9.4 MB a worker."""
    expected = steps(splits["train"], run_of(), 0)
    usage = shutil.disk_usage("/dev/shm")
    for free, fitting in ((20_000_000, 2), (10_000_000, 1), (5_000_000, 0)):
        small = usage._replace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, small=small: small)
        found = steps(splits["train"], run_of(workers=4), 0)
        assert same(expected[0], found[0])
        line = f"/dev/shm is too small for 4 loader processes; using {fitting}"
        assert capfd.readouterr().err == f"sepablate: {line}\n"


CONTAINER = """
import sys
from pathlib import Path
from test_loader import digests, run_of
from sepablate.data import imagenet

for size in map(int, sys.argv[2:]):
    run = run_of(images=64, batch_size=64, image_size=size, workers=4)
    print(digests(imagenet.load(Path(sys.argv[1]))["train"], run))
"""


def digests(split: ImageFiles, run: Run) -> list[str]:
    """Of the images of two steps."""
    return [sha256(images.numpy()).hexdigest() for images, _ in steps(split, run, 0, 1)]


@pytest.mark.slow
def test_a_containers_shared_memory_of_64_mb_is_enough(
    root: Path, splits: dict[str, ImageFiles]
) -> None:
    """A real one, where this user may mount it: more workers would find no space left in it.

    The images may lie in the shared memory of the tests, and are mounted elsewhere before.
    """
    namespace = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    mount = f"mount --bind {root} /mnt && mount -t tmpfs -o size=64m tmpfs /dev/shm"
    try:
        subprocess.run([*namespace, "sh", "-c", mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no mount of one's own here: {error}")
    trainer = [sys.executable, "-c", CONTAINER, "/mnt", "128", "299"]
    done = subprocess.run(
        [*namespace, "sh", "-c", f'{mount} && exec "$@"', "sh", *trainer],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": TEST_FOLDERS},
        capture_output=True,
        text=True,
    )
    line = "sepablate: /dev/shm is too small for 4 loader processes; using {}\n"
    assert (done.returncode, done.stderr) == (0, line.format(1) + line.format(0))
    runs = [run_of(images=64, batch_size=64, image_size=size) for size in (128, 299)]
    assert done.stdout == "".join(f"{digests(splits['train'], run)}\n" for run in runs)


def test_an_epoch_has_each_image_once(root: Path) -> None:
    """Told apart by labels that are numbers of their own."""
    split = imagenet.load(root)["train"]
    split = dataclasses.replace(split, labels=torch.arange(len(split)))
    found = [labels for _, labels in steps(split, run_of(), *range(6))]
    assert torch.cat(found[:3]).sort().values.tolist() == list(range(24))
    assert torch.cat(found[3:]).sort().values.tolist() == list(range(24))
    assert torch.cat(found[:3]).tolist() != torch.cat(found[3:]).tolist()


def test_many_labels_are_batched(splits: dict[str, ImageFiles]) -> None:
    hot = torch.nn.functional.one_hot(splits["train"].labels, 3).byte()
    split = dataclasses.replace(splits["train"], labels=hot)
    _, labels = FileBatches(split, run_of()).batch(0)
    assert labels.shape == (8, 3)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels.argmax(1), FileBatches(splits["train"], run_of()).batch(0)[1])


@pytest.mark.parametrize("size", [2, 4, 8])
def test_ranks_share_a_batch(size: int, splits: dict[str, ImageFiles]) -> None:
    expected = FileBatches(splits["train"], run_of()).batch(1)
    parts = [
        FileBatches(splits["train"], run_of(), World(rank, size)).batch(1) for rank in range(size)
    ]
    images, labels = zip(*parts, strict=True)
    assert all(len(each) == 8 // size for each in labels)
    assert same(expected, (torch.cat(images), torch.cat(labels)))


@pytest.mark.parametrize("size", [1, 2, 5, 20])
def test_ranks_evaluate_each_image_once_and_in_order(
    size: int, splits: dict[str, ImageFiles]
) -> None:
    split = dataclasses.replace(splits["test"], labels=torch.arange(13))
    workers = 1 if size == 2 else 0
    found = [
        batch
        for rank in range(size)
        for batch in eval_file_batches(split[World(rank, size).part(13)], run_of(workers=workers))
    ]
    assert torch.cat([labels for _, labels in found]).tolist() == list(range(13))


def test_evaluation_is_one_central_crop(splits: dict[str, ImageFiles]) -> None:
    """Written out by hand: 64 of 71 pixels, as 299 of 333."""
    ((images, labels),) = eval_file_batches(splits["test"], run_of())
    assert torch.equal(labels, splits["test"].labels)
    for index in range(13):
        image = splits["test"].read(index)
        width, height = image.size
        assert width >= height
        image = image.resize((int(71 * width / height), 71), Image.Resampling.BICUBIC)
        left = round((image.width - 64) / 2)
        crop = np.asarray(image, dtype=np.float64)[4:68, left : left + 64]  # 3.5 rounds to even
        expected = torch.from_numpy(crop.transpose(2, 0, 1) / 127.5 - 1)
        assert (images[index] - expected).abs().max() < 1e-6


def test_nobody_elses_draws_move(splits: dict[str, ImageFiles]) -> None:
    random.seed(7)
    torch.manual_seed(7)
    for workers in (0, 1):
        python, cpu = random.getstate(), torch.get_rng_state()
        FileBatches(splits["train"], run_of(workers=workers)).batch(0)
        list(eval_file_batches(splits["test"], run_of(workers=workers)))
        assert random.getstate() == python
        assert torch.equal(torch.get_rng_state(), cpu)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_is_named_in_one_line(
    workers: int, tmp_path: Path, data_folder: Path
) -> None:
    class_folders(tmp_path / "imagenet", data_folder)
    split = imagenet.load(tmp_path)["train"]
    path = Path(split.name(5))
    path.write_bytes(path.read_bytes()[:400])
    batches = FileBatches(split, run_of(images=8, workers=workers))
    with pytest.raises(ValueError, match=rf"^{path}: .*[Tt]runcated") as raised:
        batches.batch(0)
    assert "\n" not in str(raised.value)


def test_what_does_not_fit_is_refused(splits: dict[str, ImageFiles]) -> None:
    with pytest.raises(ValueError, match=r"batch_size: 8: choose a multiple of the 3 processes"):
        FileBatches(splits["train"], run_of(), World(0, 3))


def test_shards_give_the_same_batches_as_folders_of_the_same_order(
    root: Path, tmp_path: Path, splits: dict[str, ImageFiles]
) -> None:
    packed = imagenet.load(Path(shards(root / "imagenet", tmp_path / "imagenet")).parent)["test"]
    names = [Path(splits["test"].name(index)).stem for index in range(13)]
    order = [names.index(Path(packed.name(index).rpartition(" ")[2]).stem) for index in range(13)]
    ((expected, labels),) = eval_file_batches(splits["test"][torch.tensor(order)], run_of())
    ((found, theirs),) = eval_file_batches(packed, run_of(workers=1))
    assert same((expected, labels), (found, theirs))


TRAINER = """
import signal, sys, time
from pathlib import Path
from test_loader import run_of
from sepablate.data import imagenet
from sepablate.training.file_batches import FileBatches

stop = []
signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
batches = FileBatches(imagenet.load(Path(sys.argv[1]))["train"], run_of(workers=2, epochs=1e5))
step = 0
while not stop:
    batches.batch(step)
    step += 1
    if step == 1:
        print("reading", flush=True)
for later in range(step, step + 12):  # more than lay in memory
    batches.batch(later)
print("still reading", flush=True)
while Path(sys.argv[2]).exists():
    time.sleep(0.01)
raise SystemExit(3)  # with workers that still have something to do
"""


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_workers_outlive_a_signal_to_the_group_but_not_the_trainer(
    killed: bool, root: Path, tmp_path: Path
) -> None:
    waiting = tmp_path / "waiting"
    waiting.touch()
    process = start(ROOT, "-c", TRAINER, str(root), str(waiting), PYTHONPATH=TEST_FOLDERS)
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    os.killpg(process.pid, signal.SIGTERM)
    assert process.stdout.readline() == "still reading\n"
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len([each for each in workers if alive(int(each))]) == 2
    if killed:
        process.kill()
    waiting.unlink()
    process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if killed else 3)
    wait_for(lambda: not any(alive(int(each)) for each in workers))
