"""Gradient steps per second of several networks, measured in turns in one process."""

import dataclasses
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from sepablate.execution import backend, hardware, worker
from sepablate.paper import xception as paper
from sepablate.profiling.complexity_table import empty_table, print_table
from sepablate.profiling.fixed_batch import random_batch
from sepablate.runs.run import Run
from sepablate.store import layout
from sepablate.store.files import write_atomically
from sepablate.training import engine
from sepablate.training.detection import by_task
from sepablate.training.step import TrainContext

CONDITIONS = (
    "batch_size",
    "image_size",
    "precision",
    "kernels",
    "threads",
    "processor",
    "accelerator",
    "torch",
)


@dataclass(frozen=True)
class Speed:
    """The measured steps of a variant, and their conditions.

    Args:
        seconds: of each step; steps of several variants with the same index are neighbours in time.
    """

    variant: str
    seconds: tuple[float, ...]
    batch_size: int
    image_size: int
    precision: str
    kernels: str
    threads: int
    processor: str
    accelerator: str
    torch: str

    @property
    def median(self) -> float:
        """Steps per second of the median step."""
        return 1 / statistics.median(self.seconds)

    @property
    def lowest(self) -> float:
        """Steps per second of the slowest step."""
        return 1 / max(self.seconds)

    @property
    def highest(self) -> float:
        """Steps per second of the fastest step."""
        return 1 / min(self.seconds)


class StepTimer:
    """One network in training on random images, of which single steps are timed."""

    def __init__(self, run: Run, batch_size: int, device: str) -> None:
        scale = dataclasses.replace(run.scale, batch_size=batch_size, micro_batch=0)
        run = dataclasses.replace(run, scale=scale, precision=scale.precision)
        self.run = backend.select_backend(run, layout.STATE)
        self.device = device
        batches = random_batch(self.run, batch_size)
        self.state = engine.start(self.run, device)
        setting = TrainContext(self.run, by_task.make_objective(run, batches.labels), device)
        self.train_step = worker.make_train_step(self.state, batches, setting)

    def time_step(self) -> float:
        """Return the seconds of a gradient step with the moving average of the weights."""
        began = time.perf_counter()
        self.train_step()
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - began


def measure(runs: list[Run], batch_size: int, rounds: int) -> list[Speed]:
    """Time steps of each run on the first accelerator or the CPU, in turns of one step.

    Args:
        runs: the networks.
        batch_size: images a step.
        rounds: measured steps of each run.
    """
    device = hardware.devices()[0]
    timers = [StepTimer(run, batch_size, device) for run in runs]
    for _ in range(hardware.warm_up_steps(device)):
        for timer in timers:
            timer.time_step()
    turns = [[timer.time_step() for timer in timers] for _ in range(rounds)]
    machine = hardware.describe()
    return [
        Speed(
            variant=timer.run.variant,
            seconds=seconds,
            batch_size=batch_size,
            image_size=timer.run.image_size,
            precision=timer.run.precision,
            kernels=timer.run.kernels,
            threads=timer.run.threads,
            processor=machine["processor"],
            accelerator=machine["accelerator"],
            torch=torch.__version__,
        )
        for timer, seconds in zip(timers, zip(*turns, strict=True), strict=True)
    ]


def ratio(left: Speed, right: Speed) -> float:
    """Return the steps of `left` for each step of `right`: the median over the rounds."""
    pairs = zip(left.seconds, right.seconds, strict=True)
    return statistics.median(theirs / ours for ours, theirs in pairs)


def show(speeds: list[Speed]) -> None:
    """Print steps per second, and the ratio of Xception's to Inception V3's."""
    table = empty_table("variant", "steps/s", "lowest", "highest", "images/s")
    for speed in speeds:
        numbers = (speed.median, speed.lowest, speed.highest, speed.median * speed.batch_size)
        table.add_row(speed.variant, *(f"{number:.3g}" for number in numbers))
    print_table(table)
    print()
    first = speeds[0]
    device = first.accelerator if first.accelerator != "none" else first.processor
    print(
        f"{len(first.seconds)} steps of {first.batch_size} random images each, in turns; "
        f"{first.precision}, kernels: {first.kernels}, threads: {first.threads}; {device}; "
        f"torch {first.torch}"
    )
    for xception in (speed for speed in speeds if speed.variant.startswith("xception")):
        for inception in (speed for speed in speeds if speed.variant.startswith("inception_v3")):
            pair = f"{xception.variant} / {inception.variant}"
            print(
                f"{pair}: {ratio(xception, inception):.2f} (the paper's networks: {_published()})"
            )


def save(speeds: list[Speed], scale: str) -> Path:
    """Write results/<scale>/speed.csv: a row per variant, speeds in gradient steps per second."""
    rows = [
        {
            "variant": speed.variant,
            "steps_per_second": f"{speed.median:.4g}",
            "lowest": f"{speed.lowest:.4g}",
            "highest": f"{speed.highest:.4g}",
            "steps": len(speed.seconds),
            **{key: getattr(speed, key) for key in CONDITIONS},
        }
        for speed in speeds
    ]
    path = layout.scale_folder(scale) / layout.SPEEDS
    write_atomically(path, pd.DataFrame(rows).to_csv(index=False))
    return path


def _published() -> str:
    """Return the ratio of the steps per second in the Xception paper's table 3."""
    ours, theirs = (paper.TABLE_3[name].steps_per_second for name in ("Xception", "Inception V3"))
    return f"{ours}/{theirs} = {ours / theirs:.2f}"
