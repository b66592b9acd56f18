"""Gradient steps per second of several networks, measured in turns in one process."""

import dataclasses
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from torch import Tensor

from sepablate.execution import backend, hardware
from sepablate.paper import xception as paper
from sepablate.profiling.complexity_table import columns
from sepablate.runs.run import Run
from sepablate.store import layout
from sepablate.store.files import write_atomically
from sepablate.training import engine
from sepablate.training.objective import make_objective
from sepablate.training.step import TrainContext

RESULTS = Path("results")
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
    """seconds: of each measured step; those of one index were taken one after the other."""

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


class Noise:
    """The same random images (N, C, H, W) in [-1, 1] and labels at every step."""

    def __init__(self, run: Run, size: int) -> None:
        draw = torch.Generator().manual_seed(run.seed)
        shape = (size, run.options["in_channels"], run.image_size, run.image_size)
        self.images = torch.rand(shape, generator=draw) * 2 - 1
        classes = run.options["classes"]
        if run.task == "single_label":
            self.labels = torch.randint(classes, (size,), generator=draw)
        else:
            self.labels = torch.randint(2, (size, classes), generator=draw, dtype=torch.uint8)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch, whatever the step."""
        return self.images, self.labels


class Stepper:
    """One network in training, of which single steps are timed."""

    def __init__(self, run: Run, batch_size: int, device: str) -> None:
        scale = dataclasses.replace(run.scale, batch_size=batch_size, micro_batch=0)
        run = dataclasses.replace(run, scale=scale, precision=scale.precision)
        self.run = backend.select_backend(run, layout.STATE)
        self.device = device
        self.noise = Noise(self.run, batch_size)
        self.state = engine.start(self.run, device)
        setting = TrainContext(self.run, make_objective(run.task, self.noise.labels), device)
        self.advance = engine.make_train_step(self.state, self.noise, setting)

    def step(self) -> float:
        """The seconds of a gradient step, the moving average of the weights included."""
        began = time.perf_counter()
        self.advance()
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - began


def measure(runs: list[Run], batch_size: int, rounds: int) -> list[Speed]:
    """Time `rounds` steps of each run on the first accelerator or the CPU: one each, in turns."""
    device = hardware.devices()[0]
    steppers = [Stepper(run, batch_size, device) for run in runs]
    for _ in range(hardware.warm_up_steps(device)):
        for stepper in steppers:
            stepper.step()
    taken = [[stepper.step() for stepper in steppers] for _ in range(rounds)]
    machine = hardware.describe()
    return [
        Speed(
            variant=stepper.run.variant,
            seconds=seconds,
            batch_size=batch_size,
            image_size=stepper.run.image_size,
            precision=stepper.run.precision,
            kernels=stepper.run.kernels,
            threads=stepper.run.threads,
            processor=machine["processor"],
            accelerator=machine["accelerator"],
            torch=torch.__version__,
        )
        for stepper, seconds in zip(steppers, zip(*taken, strict=True), strict=True)
    ]


def ratio(left: Speed, right: Speed) -> float:
    """Steps of `left` for each step of `right`: the median over the rounds."""
    pairs = zip(left.seconds, right.seconds, strict=True)
    return statistics.median(other / own for own, other in pairs)


def show(found: list[Speed]) -> None:
    """Print steps per second, and how Xception's compare to Inception V3's."""
    table = columns("variant", "steps/s", "lowest", "highest", "images/s")
    for each in found:
        numbers = (each.median, each.lowest, each.highest, each.median * each.batch_size)
        table.add_row(each.variant, *(f"{number:.3g}" for number in numbers))
    console = Console(highlight=False)
    console.print(table)
    console.print()
    first = found[0]
    device = first.accelerator if first.accelerator != "none" else first.processor
    print(
        f"{len(first.seconds)} steps of {first.batch_size} random images each, in turns; "
        f"{first.precision}, kernels: {first.kernels}, threads: {first.threads}; {device}; "
        f"torch {first.torch}"
    )
    for xception in (each for each in found if each.variant.startswith("xception")):
        for inception in (each for each in found if each.variant.startswith("inception_v3")):
            said = f"{xception.variant} / {inception.variant}: {ratio(xception, inception):.2f}"
            print(f"{said} (the paper's networks: {_in_the_paper()})")


def save(found: list[Speed], scale: str) -> Path:
    """Write results/<scale>/speed.csv: a row per variant, speeds in gradient steps per second."""
    rows = [
        {
            "variant": each.variant,
            "steps_per_second": f"{each.median:.4g}",
            "lowest": f"{each.lowest:.4g}",
            "highest": f"{each.highest:.4g}",
            "steps": len(each.seconds),
            **{key: getattr(each, key) for key in CONDITIONS},
        }
        for each in found
    ]
    path = RESULTS / scale / "speed.csv"
    write_atomically(path, pd.DataFrame(rows).to_csv(index=False))
    return path


def _in_the_paper() -> str:
    ours, theirs = (paper.TABLE_3[name].steps_per_second for name in ("Xception", "Inception V3"))
    return f"{ours}/{theirs} = {ours / theirs:.2f}"
