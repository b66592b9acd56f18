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
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel

from sepablate import scales
from sepablate.bench import cases, loops, timm_networks
from sepablate.bench.contender import Over
from sepablate.bench.measure import Failed, reason
from sepablate.data import fashion_mnist
from sepablate.data.split import TensorSplit
from sepablate.execution import backend, hardware
from sepablate.models.timm_weights import to_timm
from sepablate.rng import stream_seed
from sepablate.runs.run import Run
from sepablate.store import layout
from sepablate.training import batches, engine, optim
from sepablate.training.process_group import SINGLE

SEEDS, TEST_IMAGES = 4, 2000  # of the suite's wall clock
IMAGES = {"laptop": 6400, "workstation": 50_000}
# What `accuracy` makes of a scale. After one epoch at laptop scale the difference of two runs has a
# deviation of 1.4 points from seed to seed: six pairs cannot show one within a point.
LENGTH: dict[str, dict[str, Any]] = {
    "laptop": {"epochs": 3.0, "evaluations": 1},
    "workstation": {"epochs": 1.0, "evaluations": 1, "seeds": (0, 1, 2, 3, 4, 5)},
}
METRIC = "final/test_accuracy_averaged"


def wall_clock(tell: Callable[[str], None]) -> dict[str, list[float]]:
    """Seconds that the same runs take: as a stage of the suite, and in one loop after another.

    A first turn fills caches. A GPU's time is dear: there is one turn, in which we are first.
    """
    small = cases.named("small")
    warm, rounds = (1, 2) if small.device == "cpu" else (0, 1)
    taken: dict[str, list[float]] = {"sepablate": [], cases.BEST: []}
    change = {"images": IMAGES[small.scale], "test_images": TEST_IMAGES, "epochs": 1}
    change |= {"evaluations": 1, "validation_images": 1}  # the peer follows no curve
    with project(small, {**change, "seeds": list(range(SEEDS))}) as folder:
        for number in range(1 - warm, rounds + 1):
            tell(f"suite: turn {number} of {rounds}, sepablate")
            for name in ("runs", "results"):
                shutil.rmtree(folder / ".sepablate" / name, ignore_errors=True)
            taken["sepablate"].append(_train(small, folder))
            tell(f"suite: turn {number} of {rounds}, {cases.BEST}")
            taken[cases.BEST].append(_seconds("sepablate.bench.end_to_end"))
    return {name: seconds[warm:] for name, seconds in taken.items()}


def _train(case: cases.Case, folder: Path) -> float:
    return _seconds(
        "sepablate", "train", case.variant, "--scale", case.scale, "--no-mlflow", folder=folder
    )


@contextmanager
def project(case: cases.Case, change: Mapping[str, Any]) -> Iterator[Path]:
    """A folder with the studies, the data and params.yaml, in which nothing is trained yet."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        params = yaml.safe_load(scales.PARAMS.read_text())
        params["scales"][case.scale] |= change
        (folder / scales.PARAMS).write_text(yaml.safe_dump(params))
        shutil.copytree("experiments", folder / "experiments")
        (folder / layout.DATA).symlink_to(layout.DATA.absolute())
        if case.device != "cpu":  # what "auto" means there is known: no other check
            backend.select_backend(case.run(), layout.STATE)
            (folder / layout.STATE).mkdir()
            for path in layout.STATE.glob("*.json"):
                shutil.copy(path, folder / path)
        yield folder


def _seconds(module: str, *arguments: str, folder: Path = Path()) -> float:
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-m", module, *arguments]
    with tempfile.TemporaryFile("w+") as told:
        began = time.monotonic()
        done = subprocess.run(command, cwd=folder, env=environment, stdout=told, stderr=told)
        seconds = time.monotonic() - began
        told.seek(0)
        if done.returncode:
            raise Failed(f"{module}: {reason(told.read())}")
    return seconds


def one_after_another() -> None:
    """The best peer's loop for each seed: train, evaluate raw and averaged weights."""
    small = cases.named("small")
    run = small.run()
    steps = IMAGES[small.scale] // run.scale.batch_size
    test = fashion_mnist.load(layout.DATA)["test"].first(TEST_IMAGES)
    for _ in range(SEEDS):
        loop, left = loops.Timm(small, cases.BEST), iter(range(steps - 1))

        def count(left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise Over

        with contextlib.suppress(Over):
            loop.train(count)
        for network in (loop.network, loop.average.module):
            accuracy(test, run, functools.partial(loop.forward, network.eval()))


def accuracy(split: TensorSplit, run: Run, forward: Callable[[Tensor], Tensor]) -> float:
    """The share of the images whose likeliest class is the label."""
    device = hardware.devices()[0]
    with torch.inference_mode():
        right = [
            (forward(images.to(device)).argmax(1).cpu() == labels).double()
            for images, labels in batches.eval_batches(split, run)
        ]
    return torch.cat(right).mean().item()


def accuracies(tell: Callable[[str], None]) -> pd.DataFrame:
    """Test accuracy of each seed of the small case: the suite's, and a plain loop's in fp32.

    Both start from the same weights and see the same batches. Columns seed, sepablate, plain.
    """
    small = cases.named("small")
    with project(small, LENGTH[small.scale]) as folder:
        tell("accuracy: sepablate, all seeds")
        _train(small, folder)
        found = folder / "results" / small.scale / "runs" / small.variant
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
    torch.backends.cudnn.allow_tf32 = False
    small = cases.named("small")
    scale = dataclasses.replace(scales.load(small.scale)[0], **LENGTH[small.scale])
    run = dataclasses.replace(small.run(), scale=scale, seed=seed)
    splits = fashion_mnist.load(layout.DATA)
    network = timm_networks.build(run)
    network.load_state_dict(to_timm(run.model, engine.start(run).model.state_dict()))
    network.to(small.device)
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
    feed = batches.make_batches(splits["train"].first(scale.images), run, SINGLE, small.device)
    for step in range(scale.steps):
        images, labels = feed.batch(step)
        for group in optimiser.param_groups:
            group["lr"] = optim.learning_rate(step, run)
        torch.manual_seed(stream_seed(seed, "dropout", step))
        optimiser.zero_grad()
        cross_entropy(network.train()(images), labels).backward()
        optimiser.step()
        average.update_parameters(network)
    return accuracy(splits["test"].first(scale.test_images), run, average.eval())


if __name__ == "__main__":
    one_after_another()
