"""The benchmark's cases: networks, batches, contenders and how often they are timed."""

import dataclasses
import math
from dataclasses import dataclass

import torch

from sepablate import scales, study
from sepablate.data import fashion_mnist
from sepablate.data.split import Batches, TensorSplit
from sepablate.execution import hardware
from sepablate.profiling.fixed_batch import FixedBatch
from sepablate.runs.run import Run, resolve
from sepablate.store import layout
from sepablate.training.batches import make_batches, scale_images
from sepablate.training.process_group import SINGLE

TUNED = "timm, channels_last, bf16"
BEST = f"{TUNED}, from memory"  # the fastest peer that does not compile for a minute
SMALL = (
    "sepablate",
    "timm",
    "timm, channels_last",
    "timm, bf16",
    TUNED,
    f"{TUNED}, compiled",
    BEST,
    "Keras on torch",
    "Keras on JAX",
)
LARGE = ("sepablate", "timm", "timm, channels_last", TUNED, "Keras on torch", "Keras on JAX")
TINY = ("sepablate", "bare loop", "Lightning", "Keras on torch", "Keras on JAX")

# On a GPU. The JAX of requirements-bench.lock is for CPUs.
SMALL_GPU = ("sepablate", "timm", TUNED, BEST, f"{BEST}, compiled", "Keras on torch")
LARGE_GPU = (
    "sepablate",
    TUNED,
    f"{TUNED}, compiled",
    f"{TUNED}, max-autotune",
    "timm",
    "Keras on torch",
)
TINY_GPU = ("sepablate", "bare loop", "Lightning", "Keras on torch")

# What is most worth measuring comes first, with about the seconds that it takes on two cores, and
# those that it gets on a GPU: six minutes in all.
WORTH = {
    "small": (240, 60),
    "xception": (120, 110),
    "suite": (110, 40),
    "inception_v3": (100, 60),
    "mobilenet_v1": (90, 50),
    "tiny": (90, 20),
    "accuracy": (150, 20),
}
PATIENCE = 5  # times the seconds of two cores, which a slower machine may take
GPU_MINUTES = 6.0


@dataclass(frozen=True)
class Case:
    """One network on one budget.

    Args:
        name, title: in the CSV file, and in the table.
        variant, scale: whose network and recipe all contenders train.
        contenders: their names.
        turn: steps before the next contender's turn.
        rounds: turns of each contender.
        batch: images a step; 0 for the scale's.
        starts: how often the time to the first step is measured.
        noise: train on one batch of random images, so that their loading is not timed.
        image_size: pixels; 0 for the scale's.
        device: where all contenders train.
    """

    name: str
    title: str
    variant: str
    scale: str
    contenders: tuple[str, ...]
    turn: int
    rounds: int
    batch: int = 0
    starts: int = 1
    noise: bool = False
    image_size: int = 0
    device: str = "cpu"

    def run(self) -> Run:
        """Return the suite's run, too long to end; on all cores for a large network."""
        scale, recipes = scales.load(self.scale)
        size = self.batch or scale.batch_size
        precision = "auto" if self.device == "cpu" else scale.precision  # bf16 for large networks
        tiny = self.name == "tiny"
        scale = dataclasses.replace(
            scale,
            batch_size=size,
            micro_batch=0,
            epochs=1000.0,
            evaluations=1,
            precision="fp32" if tiny else precision,
            kernels="torch" if tiny else scale.kernels,
        )
        if not self.noise:  # as `split`
            scale = dataclasses.replace(scale, dataset="fashion_mnist", image_size=28)
        variant = study.variant(self.variant)
        run = resolve(variant, self.scale, scale, recipes, 0, scale.precision)
        cores = torch.get_num_threads()
        return dataclasses.replace(
            run,
            threads=cores if self.noise else 1,
            image_size=self.image_size or run.image_size,
        )

    def split(self) -> TensorSplit:
        """Return training images (N, H, W) of Fashion-MNIST, or one batch of noise."""
        run = self.run()
        if not self.noise:
            return fashion_mnist.load(layout.DATA)["train"].first(run.scale.images)
        draw = torch.Generator().manual_seed(0)
        size, pixels = run.scale.batch_size, run.image_size
        images = torch.randint(256, (size, pixels, pixels), generator=draw, dtype=torch.uint8)
        return TensorSplit(images, torch.randint(10, (size,), generator=draw))

    def batches(self) -> Batches:
        """Return the suite's batches, or one batch of noise for all steps, on the device."""
        run, split = self.run(), self.split()
        if self.noise:
            images = scale_images(split.images.to(self.device), run).contiguous()
            return FixedBatch(images, split.labels.to(self.device))
        return make_batches(split, run, SINGLE, self.device)


CASES = (
    Case("small", "Xception, 28 px, 0.36 M", "xception", "laptop", SMALL, 10, 9, starts=2),
    Case(
        "tiny",
        "Small separable network",
        "separable_example",
        "smoke",
        TINY,
        400,
        5,
        batch=2,
        image_size=32,
    ),
    Case("xception", "Xception, 299 px", "xception", "paper", LARGE, 1, 3, 4, noise=True),
    Case(
        "inception_v3", "Inception V3, 299 px", "inception_v3", "paper", LARGE, 1, 3, 4, noise=True
    ),
    Case(
        "mobilenet_v1",
        "MobileNet v1, 224 px",
        "mobilenet_v1",
        "paper",
        LARGE,
        1,
        3,
        8,
        noise=True,
        image_size=224,
    ),
)
GPU_CASES = (
    Case("small", "Xception, 28 px, 5.3 M", "xception", "workstation", SMALL_GPU, 30, 5),
    dataclasses.replace(CASES[1], contenders=TINY_GPU),
    *(
        dataclasses.replace(case, contenders=LARGE_GPU, turn=10, rounds=5, batch=64)
        for case in CASES[2:]
    ),
)


def cases_for(device: str) -> tuple[Case, ...]:
    """Return the cases for a CPU, or those for a GPU."""
    if device == "cpu":
        return CASES
    return tuple(dataclasses.replace(case, device=device) for case in GPU_CASES)


def local_cases() -> tuple[Case, ...]:
    """Return the cases for this machine."""
    return cases_for(hardware.devices()[0])


def local_case(name: str) -> Case:
    """Return this machine's case of that name."""
    return next(case for case in local_cases() if case.name == name)


def choose(minutes: float | None, device: str) -> list[str]:
    """Return the cases that fit into the minutes, those most worth it first; None: all."""
    left, chosen = math.inf if minutes is None else 60 * minutes, []
    for name in WORTH:
        seconds = usual_seconds(name, device)
        if seconds <= left:
            left -= seconds
            chosen.append(name)
    return chosen


def usual_seconds(name: str, device: str) -> int:
    """Return about how long a case takes, on two cores or on a GPU."""
    return WORTH[name][device != "cpu"]


def time_limit(name: str, device: str) -> float:
    """Return the seconds after which a case is ended."""
    return usual_seconds(name, device) * (PATIENCE if device == "cpu" else 1)
