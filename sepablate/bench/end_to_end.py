"""Time a whole command, all seeds of a variant; and compare test accuracy to a plain fp32 loop."""

import contextlib
import dataclasses
import functools
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel

from sepablate import scales
from sepablate.bench import cases, loops, timm_networks
from sepablate.bench.contender import StopTraining
from sepablate.bench.measure import LATE, ContenderError, reason, seconds_left
from sepablate.data import fashion_mnist
from sepablate.data.split import TensorSplit
from sepablate.execution import backend, hardware
from sepablate.models.timm_weights import to_timm
from sepablate.rng import stream_seed
from sepablate.runs.run import Run
from sepablate.store import layout
from sepablate.training import batches, engine, optim
from sepablate.training.process_group import SINGLE

SEEDS, TEST_IMAGES = 4, 2000  # of `wall_clock`
IMAGES = {"laptop": 6400, "workstation": 45_000}
# The scale's changes in `accuracies`. After one epoch at laptop scale the difference of two runs
# has a standard deviation of 1.4 points over seeds: six pairs cannot show one within a point.
LENGTH: dict[str, dict[str, Any]] = {
    "laptop": {"epochs": 3.0, "evaluations": 1},
    "workstation": {"epochs": 1.0, "evaluations": 1, "seeds": (0, 1, 2, 3, 4, 5)},
}
METRIC = "final/test_accuracy_averaged"


def wall_clock(say: Callable[[str], None], end: float = math.inf) -> dict[str, list[float]]:
    """Return the seconds of the same runs by contender: a training stage, and sequential loops.

    On a CPU a first turn fills caches and is not counted. On a GPU, whose time is expensive, there
    is one turn, in which sepablate is first.

    Raises ContenderError if it is not done when `time.monotonic` is at `end`.
    """
    small = cases.local_case("small")
    start_forkserver, rounds = (1, 2) if small.device == "cpu" else (0, 1)
    seconds: dict[str, list[float]] = {"sepablate": [], cases.BEST: []}
    changes = {"images": IMAGES[small.scale], "test_images": TEST_IMAGES, "epochs": 1}
    changes |= {"evaluations": 1, "validation_images": 1}  # the peer evaluates no curve
    with project(small, {**changes, "seeds": list(range(SEEDS))}) as folder:
        for number in range(1 - start_forkserver, rounds + 1):
            say(f"suite: turn {number} of {rounds}, sepablate")
            for trained in (layout.RUN_FOLDERS, layout.RESULTS):
                shutil.rmtree(folder / trained, ignore_errors=True)
            seconds["sepablate"].append(_time_training(small, folder, end))
            say(f"suite: turn {number} of {rounds}, {cases.BEST}")
            seconds[cases.BEST].append(_time_module("sepablate.bench.end_to_end", end=end))
    return {name: turns[start_forkserver:] for name, turns in seconds.items()}


def _time_training(case: cases.Case, folder: Path, end: float) -> float:
    command = ("sepablate", "train", case.variant, "--scale", case.scale, "--no-mlflow")
    return _time_module(*command, folder=folder, end=end)


@contextmanager
def project(case: cases.Case, changes: Mapping[str, Any]) -> Iterator[Path]:
    """Make a temporary project in which nothing is trained.

    Args:
        case: names the scale and the device.
        changes: fields of the scale in its params.yaml.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        params = yaml.safe_load(layout.PARAMS.read_text())
        params["scales"][case.scale] |= changes
        (folder / layout.PARAMS).write_text(yaml.safe_dump(params))
        shutil.copytree("experiments", folder / "experiments")
        (folder / layout.DATA).symlink_to(layout.DATA.absolute())
        if case.device != "cpu":  # the choice of precision and kernels is not timed
            backend.select_backend(case.run(), layout.STATE)
            (folder / layout.STATE).mkdir()
            for path in layout.STATE.glob("*.json"):
                shutil.copy(path, folder / path)
        yield folder


def _time_module(
    module: str, *arguments: str, folder: Path = Path(), end: float = math.inf
) -> float:
    """Return the seconds of `python -m module arguments`; ContenderError if it fails."""
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-m", module, *arguments]
    with tempfile.TemporaryFile("w+") as output:
        began = time.monotonic()
        streams = {"stdout": output, "stderr": output, "timeout": seconds_left(end)}
        try:
            done = subprocess.run(command, cwd=folder, env=environment, **streams)  # type: ignore[call-overload]
        except subprocess.TimeoutExpired:
            raise ContenderError(f"{module}: {LATE}") from None
        seconds = time.monotonic() - began
        output.seek(0)
        if done.returncode:
            raise ContenderError(f"{module}: {reason(output.read())}")
    return seconds


def train_sequentially() -> None:
    """Run the best peer's loop for each seed: train, evaluate raw and averaged weights."""
    small = cases.local_case("small")
    run = small.run()
    steps = IMAGES[small.scale] // run.scale.batch_size
    test = fashion_mnist.load(layout.DATA)["test"].first(TEST_IMAGES)
    for _ in range(SEEDS):
        loop, left = loops.TimmLoop(small, cases.BEST), iter(range(steps - 1))

        def count(left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise StopTraining

        with contextlib.suppress(StopTraining):
            loop.train(count)
        for network in (loop.network, loop.average.module):
            accuracy(test, run, functools.partial(loop.forward, network.eval()))


def accuracy(split: TensorSplit, run: Run, forward: Callable[[Tensor], Tensor]) -> float:
    """Return the share of the images whose likeliest class is the label."""
    device = hardware.devices()[0]
    with torch.inference_mode():
        correct = [
            (forward(images.to(device)).argmax(1).cpu() == labels).double()
            for images, labels in batches.eval_batches(split, run)
        ]
    return torch.cat(correct).mean().item()


def accuracies(say: Callable[[str], None], end: float = math.inf) -> pd.DataFrame:
    """Return the small case's test accuracy for each seed, by sepablate and by a plain fp32 loop.

    Both start from the same weights and see the same batches. Columns seed, sepablate, plain.

    Raises ContenderError if it is not done when `time.monotonic` is at `end`.
    """
    small = cases.local_case("small")
    with project(small, LENGTH[small.scale]) as folder:
        say("accuracy: sepablate, all seeds")
        _time_training(small, folder, end)
        runs = folder / layout.variant_runs(small.scale, small.variant)
        ours = {}
        for path in sorted(runs.glob("seed-*.csv")):
            rows = pd.read_csv(path)
            ours[int(path.stem.removeprefix("seed-"))] = rows[rows.metric == METRIC].value.item()
    say("accuracy: plain fp32 loop, all seeds")
    context = get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context) as pool:
        try:
            plain = list(pool.map(train_plain_fp32, ours, timeout=seconds_left(end)))
        except TimeoutError:
            for process in active_children():
                process.kill()
            raise ContenderError(f"plain fp32 loop: {LATE}") from None
    return pd.DataFrame({"seed": list(ours), "sepablate": list(ours.values()), "plain": plain})


def train_plain_fp32(seed: int) -> float:
    """Train timm's network in fp32 and NCHW, by the recipe but with torch's optimizer and average.

    Returns the test accuracy of the averaged weights.
    """
    torch.backends.cudnn.allow_tf32 = False
    small = cases.local_case("small")
    scale = dataclasses.replace(scales.load(small.scale)[0], **LENGTH[small.scale])
    run = dataclasses.replace(small.run(), scale=scale, seed=seed)
    splits = fashion_mnist.load(layout.DATA)
    network = timm_networks.build(run)
    network.load_state_dict(to_timm(run.model, engine.start(run).model.state_dict()))
    network.to(small.device)
    optimizer, average = _plain_optimizer(network, run), _plain_average(network, run)
    training = batches.make_batches(splits["train"].first(scale.images), run, SINGLE, small.device)
    for step in range(scale.steps):
        images, labels = training.batch(step)
        for group in optimizer.param_groups:
            group["lr"] = optim.learning_rate(step, run)
        torch.manual_seed(stream_seed(seed, "dropout", step))
        optimizer.zero_grad()
        cross_entropy(network.train()(images), labels).backward()
        optimizer.step()
        average.update_parameters(network)
    return accuracy(splits["test"].first(scale.test_images), run, average.eval())


def _plain_optimizer(network: nn.Module, run: Run) -> SGD:
    """Return torch's SGD, with weight decay on kernels only, as in TensorFlow-slim."""
    kernels = [weight for weight in network.parameters() if weight.ndim > 1]
    others = [weight for weight in network.parameters() if weight.ndim == 1]
    groups = [
        {"params": kernels, "weight_decay": run.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return SGD(groups, lr=run.recipe.learning_rate, momentum=run.recipe.momentum)


def _plain_average(network: nn.Module, run: Run) -> AveragedModel:
    """Return torch's average of weights and statistics, with TensorFlow's warm-up of the decay."""
    horizon = run.recipe.averaging_horizon * run.scale.steps

    def average_tensor(old: Tensor, new: Tensor, updates: Tensor | int) -> Tensor:
        before = int(updates) - 1
        decay = min(max(0.0, 1 - 1 / horizon), (1 + before) / (10 + before))
        return decay * old + (1 - decay) * new

    average = AveragedModel(network, avg_fn=average_tensor, use_buffers=True)
    average.n_averaged += 1  # otherwise the first update is a copy
    return average


if __name__ == "__main__":
    train_sequentially()
