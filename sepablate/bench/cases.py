"""What every contender trains alike: networks, batches, and how often it is timed."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from sepablate import scales, study
from sepablate.data import fashion_mnist
from sepablate.data.split import Batches, TensorSplit
from sepablate.execution import hardware
from sepablate.runs.run import Run, resolve
from sepablate.store import layout
from sepablate.training.batches import make_batches, scale_images
from sepablate.training.process_group import SINGLE

TUNED = "timm, channels_last, bf16"
BEST = f"{TUNED}, from memory"  # what a peer is at its best, without a minute of compiling
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

# On a GPU. The JAX that is installed here is for CPUs.
SMALL_GPU = ("sepablate", "timm", TUNED, BEST, f"{BEST}, compiled", "Keras on torch")
LARGE_GPU = ("sepablate", "timm", TUNED, f"{TUNED}, compiled", "Keras on torch")
TINY_GPU = ("sepablate", "bare loop", "Lightning", "Keras on torch")


@dataclass(frozen=True)
class Case:
    """One network on one budget.

    batch, image_size: images a step, and their pixels; 0 for the scale's. turn: steps before the
    next contender's turn; rounds: turns of each. starts: how often the time to the first step is
    taken. noise: one batch of random images, whose loading is no part of the time. device: where
    all contenders train.
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
        """The suite's run, long enough never to end; all cores for a large network."""
        scale, recipes = scales.load(self.scale)
        size = self.batch or scale.batch_size
        precision = "auto" if self.device == "cpu" else scale.precision  # of large ones: bf16
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
        variant = study.variant(self.variant)
        found = resolve(variant, self.scale, scale, recipes, 0, scale.precision)
        cores = torch.get_num_threads()
        return dataclasses.replace(
            found,
            threads=cores if self.noise else 1,
            image_size=self.image_size or found.image_size,
        )

    def split(self) -> TensorSplit:
        """Training images (N, H, W) of Fashion-MNIST, or one batch of noise."""
        run = self.run()
        if not self.noise:
            return fashion_mnist.load(layout.DATA)["train"].first(run.scale.images)
        draw = torch.Generator().manual_seed(0)
        size, pixels = run.scale.batch_size, run.image_size
        images = torch.randint(256, (size, pixels, pixels), generator=draw, dtype=torch.uint8)
        return TensorSplit(images, torch.randint(10, (size,), generator=draw))

    def feed(self) -> Batches:
        """The suite's batches, or the same one each time, on the case's device."""
        run, split = self.run(), self.split()
        if self.noise:
            return Same(split, run, self.device)
        return make_batches(split, run, SINGLE, self.device)


class Same:
    """One batch for all steps: images (N, C, H, W) in [-1, 1] and labels."""

    def __init__(self, split: TensorSplit, run: Run, device: str) -> None:
        images = scale_images(split.images.to(device), run).contiguous()
        self.fixed = images, split.labels.to(device)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch."""
        return self.fixed


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
GPU = (
    Case("small", "Xception, 28 px, 5.3 M", "xception", "workstation", SMALL_GPU, 30, 5),
    dataclasses.replace(CASES[1], contenders=TINY_GPU),
    *(
        dataclasses.replace(case, contenders=LARGE_GPU, turn=10, rounds=5, batch=64)
        for case in CASES[2:]
    ),
)


def on(device: str) -> tuple[Case, ...]:
    """The cases of the CPU, or those of a GPU on that one."""
    if device == "cpu":
        return CASES
    return tuple(dataclasses.replace(case, device=device) for case in GPU)


def here() -> tuple[Case, ...]:
    """The cases of this machine."""
    return on(hardware.devices()[0])


def named(name: str) -> Case:
    """This machine's case of that name."""
    return next(case for case in here() if case.name == name)
