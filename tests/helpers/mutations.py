"""Files of every kind with random mutations: each ends in one line that names it, or is read right.

`python tests/helpers/mutations.py COUNT SEED` prints, as JSON, how many of each kind were tried and
lost, and a line for each that was lost: a traceback, a hang, more than two gigabytes, or other
content where a digest vouches for it.
"""

import contextlib
import json
import random
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from helpers.images import class_folders, shards
from helpers.project import ROOT, contents
from sepablate import scales
from sepablate.analysis import effects, summary_table
from sepablate.data import download, fashion_mnist, image_files, imagenet, labelled_images
from sepablate.data.image_files import ImageFiles
from sepablate.errors import UserError
from sepablate.pretrained import evaluate
from sepablate.report import manifest
from sepablate.store import archive_files, checkpoint, layout
from sepablate.store.files import write_manifest
from sepablate.store.run_files import format_rows, is_finished

SECONDS, MEMORY = 20, 2 << 30
KEY = "0" * 16


@dataclass(frozen=True)
class Kind:
    """Files that a command reads.

    Args:
        text: what they are, for a table.
        make: writes whole files into an empty folder; returns those to mutate.
        read: reads them; UserError refuses them.
        right: what `read` may return, where a digest vouches for the content; None for anything.
    """

    text: str
    make: Callable[[Path], list[Path]]
    read: Callable[[Path], object]
    right: tuple[object, ...] | None = None


def mutate(content: bytes, draw: random.Random) -> bytes:
    """Return other bytes: flipped, cut, doubled, zeroed, inserted or with a number made huge."""
    wrong, size = bytearray(content), max(1, len(content))
    start = draw.randrange(size) if draw.random() < 0.5 else draw.randrange(min(size, 600))
    length = draw.choice([1, 1, 2, 4, 16, 300])
    kind = draw.choice(["flip", "cut", "double", "zero", "insert", "huge", "swap"])
    if kind == "flip" and content:
        wrong[start] ^= 1 << draw.randrange(8)
    elif kind == "cut":
        del wrong[start:]
    elif kind == "double":
        wrong[start:start] = wrong[start : start + length]
    elif kind == "zero":
        wrong[start : start + length] = bytes(length)
    elif kind == "insert":
        wrong[start:start] = draw.randbytes(length)
    elif kind == "huge":
        text = draw.choice([b"9" * 30, b"-1", b"1e999", b"null", b"\xff" * 8, b"../../", b'"\n'])
        wrong[start : start + len(text)] = text
    else:
        wrong[start : start + length] = wrong[start : start + length][::-1]
    return bytes(wrong)


def make_params(folder: Path) -> list[Path]:
    return [shutil.copy(ROOT / "params.yaml", folder / "params.yaml")]


def make_table(folder: Path) -> list[Path]:
    root = folder / "labelled_images"
    class_folders(root, ROOT / "data", train=4, validation=2)
    rows = ["image,labels", "train/n01/0000.JPEG,a;b", "train/n02/0001.JPEG,b", ""]
    (root / "train.csv").write_text("\n".join(rows))
    for name, image in (("validation", "train/n03/0002.JPEG"), ("test", "train/n01/0003.JPEG")):
        (root / f"{name}.csv").write_text(f"image,labels\n{image},a\n")
    (root / "classes.txt").write_text("a\nb\nc\n")
    return [root / "train.csv", root / "test.csv", root / "classes.txt"]


def make_images(folder: Path) -> list[Path]:
    class_folders(folder / "imagenet", ROOT / "data", train=6, validation=3)
    (folder / "imagenet/classes.txt").write_text("n02\nn01\nn03\n")
    return sorted((folder / "imagenet").rglob("*.*"))


def make_shards(folder: Path) -> list[Path]:
    class_folders(folder / "folders", ROOT / "data", train=6, validation=3)
    shards(folder / "folders", folder / "imagenet")
    return sorted((folder / "imagenet").rglob("*.tar"))


def read_all(folder: Path) -> None:
    splits: dict[str, ImageFiles] = imagenet.load(folder)
    image_files.check_headers(splits)
    for split in splits.values():
        for index in range(len(split)):
            split.read(index)


def make_data(folder: Path) -> list[Path]:
    name = "t10k-labels-idx1-ubyte"
    return [shutil.copy(ROOT / "data/fashion-mnist" / name, folder / name)]


def read_data(folder: Path) -> str:
    download.verified(fashion_mnist.SOURCE, folder, "t10k-labels-idx1-ubyte")
    return "whole"


def make_checkpoints(folder: Path) -> list[Path]:
    for step in (1, 2):
        checkpoint.save(folder, step, {"step": step, "weight": torch.full((99,), float(step))})
    return sorted(folder.iterdir())[1:]


def read_checkpoint(folder: Path) -> int:
    state = checkpoint.load(folder) or {"step": 0, "weight": torch.zeros(99)}
    assert bool((state["weight"] == state["step"]).all())
    return int(state["step"])


def make_run(folder: Path) -> list[Path]:
    (folder / layout.RUN_CONFIG).write_text(json.dumps({"run_key": KEY}))
    (folder / layout.MEASURED).write_text(json.dumps({"run_key": KEY}))
    (folder / layout.RESULT).write_text(format_rows([(1, "final/test_accuracy", 0.5)], KEY, "x", 0))
    (folder / "correct.bin").write_bytes(b"\1")
    write_manifest(folder, [path.name for path in folder.iterdir()])
    return sorted(folder.iterdir())


def make_archive(folder: Path) -> list[Path]:
    """An archive of runs, and the runs in it, by which its content is judged."""
    (folder / "runs").mkdir()
    make_run(folder / "runs")
    files = {f"results/smoke/runs/x/{n}": c for n, c in contents(folder / "runs").items()}
    (folder / layout.ARCHIVE).write_bytes(archive_files.pack(files))
    return [folder / layout.ARCHIVE]


def read_archive(folder: Path) -> bool:
    with contextlib.chdir(folder):
        unpacked = archive_files.unpacked(Path(layout.ARCHIVE)) / "smoke/runs/x"
        return contents(unpacked) == contents(Path("runs"))


def make_weights(folder: Path) -> list[Path]:
    network = timm.create_model("mobilenetv1_100", num_classes=2)
    save_file(network.state_dict(), folder / "weights.safetensors")
    return [folder / "weights.safetensors"]


def make_results(folder: Path) -> list[Path]:
    source = ROOT / "results/laptop"
    names = ["residual_connections/table.csv", "residual_connections/claims.json", "digests.json"]
    return [shutil.copy(source / name, folder / Path(name).name) for name in names]


def read_results(folder: Path) -> None:
    summary_table.read(folder / "table.csv")
    effects.read(folder / "claims.json")
    manifest.read(folder / "digests.json")


KINDS = {
    "params": Kind("params.yaml", make_params, lambda f: scales.load("smoke", f / "params.yaml")),
    "table": Kind("a table of labels, a list of classes", make_table, labelled_images.load),
    "images": Kind("an image, a list of class folders", make_images, read_all),
    "shards": Kind("a shard", make_shards, read_all),
    "data": Kind("a file of a data set with a digest", make_data, read_data, ("whole",)),
    "checkpoint": Kind("a checkpoint", make_checkpoints, read_checkpoint, (1, 2)),
    "run": Kind("a file of a finished run", make_run, lambda f: is_finished(f, KEY), (False,)),
    "archive": Kind("an archive of runs", make_archive, read_archive, (True,)),
    "weights": Kind(
        "weights of others",
        make_weights,
        lambda f: evaluate.load("mobilenet_v1", f / "weights.safetensors") and None,
    ),
    "results": Kind("a table, claims or a manifest of results", make_results, read_results),
}


def attack(name: str, count: int, seed: int, folder: Path) -> list[str]:
    """Mutate files of one kind `count` times; return a line for each that was lost."""
    kind, draw, lost = KINDS[name], random.Random(seed), []
    whole = folder / "whole"
    whole.mkdir(parents=True)
    names = [path.relative_to(whole) for path in kind.make(whole)]
    for number in range(count):
        copy = folder / str(number)
        shutil.copytree(whole, copy)
        chosen = copy / draw.choice(names)
        before = chosen.read_bytes()
        chosen.write_bytes(mutate(before, draw))
        changed = chosen.read_bytes() != before
        if changed and (problem := _read(kind, copy)):
            lost.append(f"{name} {seed} {number}, {chosen.name}: {problem}")
        shutil.rmtree(copy)
    return lost


def _read(kind: Kind, folder: Path) -> str | None:
    """Return what went wrong, within the time and the memory that a file may take."""

    def too_long(*_: object) -> None:
        raise TimeoutError(f"longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        content = kind.read(folder)
    except UserError as error:
        if "\n" in str(error):
            return f"more than one line: {error}"
        return None
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return None if kind.right is None or content in kind.right else f"other content: {content}"


def main() -> None:
    count, seed = map(int, sys.argv[1:])
    warnings.simplefilter("ignore")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    rows, notes = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for index, (name, kind) in enumerate(KINDS.items()):
            tried = (count + index) // len(KINDS)
            lost = attack(name, tried, seed, Path(scratch) / name)
            rows.append((kind.text, tried, len(lost)))
            notes += lost
    print(json.dumps({"rows": rows, "notes": notes}))


if __name__ == "__main__":
    main()
