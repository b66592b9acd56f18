"""Whole commands: the seeds of a variant side by side, and what their precision costs."""

import contextlib
import dataclasses
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
import yaml
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel

from sepablate import data, scales
from sepablate.bench import cases, loops, published
from sepablate.bench.contender import Over
from sepablate.data.fashion_mnist import Split
from sepablate.models.weights import to_timm
from sepablate.training import batches, engine, recipe
from sepablate.training.run import Run

SMALL = cases.CASES[0]
SEEDS, IMAGES, TEST_IMAGES = 4, 6400, 2000  # of the suite's wall clock
ROUNDS = 2
METRIC = "final/test_accuracy_averaged"


def wall_clock(tell: Callable[[str], None]) -> dict[str, list[float]]:
    """Seconds that the same runs take: as a stage of the suite, and in one loop after another."""
    taken: dict[str, list[float]] = {"sepablate": [], cases.BEST: []}
    change = {"images": IMAGES, "test_images": TEST_IMAGES, "seeds": list(range(SEEDS))}
    change |= {"evaluations": 1, "validation_images": 1}  # the peer follows no curve
    with project(change) as folder:
        for number in range(ROUNDS + 1):
            tell(f"suite: turn {number} of {ROUNDS}, sepablate")
            for name in ("runs", "results"):
                shutil.rmtree(folder / ".sepablate" / name, ignore_errors=True)
            taken["sepablate"].append(_seconds("sepablate", *TRAIN, folder=folder))
            tell(f"suite: turn {number} of {ROUNDS}, {cases.BEST}")
            taken[cases.BEST].append(_seconds("sepablate.bench.whole"))
    return {name: seconds[1:] for name, seconds in taken.items()}  # the first one fills caches


TRAIN = ("train", SMALL.variant, "--scale", SMALL.scale, "--no-mlflow")


@contextmanager
def project(change: dict[str, object]) -> Iterator[Path]:
    """A folder with the studies, the data and params.yaml, in which nothing is trained yet."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        params = yaml.safe_load(scales.PARAMS.read_text())
        params["scales"][SMALL.scale] |= change
        (folder / scales.PARAMS).write_text(yaml.safe_dump(params))
        shutil.copytree("experiments", folder / "experiments")
        (folder / data.FOLDER).symlink_to(data.FOLDER.absolute())
        yield folder


def _seconds(module: str, *arguments: str, folder: Path = Path()) -> float:
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.monotonic() - began


def one_after_another() -> None:
    """The best peer's loop for each seed: train, evaluate raw and averaged weights."""
    run = SMALL.run()
    steps = IMAGES // run.scale.batch_size
    test = data.dataset("fashion_mnist").load(data.FOLDER)["test"].first(TEST_IMAGES)
    for _ in range(SEEDS):
        loop, left = loops.Timm(SMALL, cases.BEST), iter(range(steps - 1))

        def count(left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise Over

        with contextlib.suppress(Over):
            loop.train(count)
        for network in (loop.network, loop.average.module):
            accuracy(test, run, functools.partial(loop.forward, network.eval()))


def accuracy(split: Split, run: Run, forward: Callable[[Tensor], Tensor]) -> float:
    """The share of the images whose likeliest class is the label."""
    with torch.inference_mode():
        right = [
            (forward(images).argmax(1) == labels).double()
            for images, labels in batches.evaluation(split, run)
        ]
    return torch.cat(right).mean().item()


def accuracies(tell: Callable[[str], None]) -> pd.DataFrame:
    """Test accuracy of each seed at laptop scale: the suite's, and a plain loop's in fp32.

    Both start from the same weights and see the same batches. Columns seed, sepablate, plain.
    """
    with project({}) as folder:
        tell("accuracy: sepablate, all seeds")
        _seconds("sepablate", *TRAIN, folder=folder)
        found = folder / "results" / SMALL.scale / "runs" / SMALL.variant
        ours = {}
        for path in sorted(found.glob("seed-*.csv")):
            rows = pd.read_csv(path)
            ours[int(path.stem.removeprefix("seed-"))] = rows[rows.metric == METRIC].value.item()
    tell("accuracy: plain fp32 loop, all seeds")
    context = get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context) as pool:
        plain = list(pool.map(plain_fp32, ours))
    return pd.DataFrame({"seed": list(ours), "sepablate": list(ours.values()), "plain": plain})


def plain_fp32(seed: int) -> float:
    """Test accuracy of timm's blocks in fp32 and NCHW, by the recipe, in torch's own parts."""
    scale, _ = scales.load(SMALL.scale)
    run = dataclasses.replace(SMALL.run(), scale=scale, seed=seed)
    splits = data.dataset("fashion_mnist").load(data.FOLDER)
    network = published.network(run)
    network.load_state_dict(to_timm(run.model, engine.start(run).model.state_dict()))
    decayed = [weight for weight in network.parameters() if weight.ndim > 1]
    spared = [weight for weight in network.parameters() if weight.ndim == 1]
    optimiser = SGD(
        [  # as in TensorFlow-slim
            {"params": decayed, "weight_decay": run.weight_decay},
            {"params": spared, "weight_decay": 0.0},
        ],
        lr=run.recipe.learning_rate,
        momentum=run.recipe.momentum,
    )
    horizon = run.recipe.averaging_horizon * scale.steps

    def averaged(old: Tensor, new: Tensor, updates: Tensor | int) -> Tensor:
        before = int(updates) - 1
        decay = min(max(0.0, 1 - 1 / horizon), (1 + before) / (10 + before))
        return decay * old + (1 - decay) * new

    average = AveragedModel(network, avg_fn=averaged, use_buffers=True)
    average.n_averaged += 1  # else the first update is a copy
    feed = batches.training(splits["train"].first(scale.images), run)
    for step in range(scale.steps):
        images, labels = feed.at(step)
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate(step, run)
        torch.manual_seed(recipe.stream_seed(seed, "dropout", step))
        optimiser.zero_grad()
        cross_entropy(network.train()(images), labels).backward()
        optimiser.step()
        average.update_parameters(network)
    return accuracy(splits["test"].first(scale.test_images), run, average.eval())


if __name__ == "__main__":
    one_after_another()
