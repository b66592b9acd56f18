"""PyTorch training loops as users write them, from the plainest to the best tuned."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from sepablate.bench import timm_networks
from sepablate.bench.cases import Case
from sepablate.data.split import TensorSplit
from sepablate.runs.run import Run
from sepablate.training import engine


class TimmLoop:
    """A loop that trains timm's model.

    `name` selects: channels_last, bf16, compiled (a small network on a GPU with CUDA graphs),
    max-autotune (compiled, and its kernels chosen by timing them), and "from memory" for the
    suite's batches instead of a DataLoader.
    """

    def __init__(self, case: Case, name: str) -> None:
        self.case, self.name, self.run = case, name, case.run()
        self.device = case.device
        torch.manual_seed(0)
        self.network: Any = timm_networks.build(self.run).to(self.device)
        if "channels_last" in name:
            self.network = self.network.to(memory_format=torch.channels_last)

    def outputs(self, weights: dict[str, Tensor], images: Tensor) -> Tensor:
        self.network.load_state_dict(weights)
        with torch.inference_mode():
            return self.forward(self.network.eval(), images)

    def train(self, after_step: Callable[[], None]) -> None:
        network = self.network.train()
        self.average = ModelEmaV3(network, decay=0.95)
        optimizer = torch.optim.SGD(
            network.parameters(),
            lr=self.run.recipe.learning_rate,
            momentum=self.run.recipe.momentum,
            weight_decay=self.run.weight_decay,
        )
        compiled: Any = network
        if is_compiled(self.name):
            compiled = torch.compile(network, mode=compile_mode(self.name, self.case))
        total = torch.zeros((), device=self.device)
        for images, labels in self._batches():
            optimizer.zero_grad()
            logits = self.forward(compiled, images)
            loss = cross_entropy(logits, labels.to(self.device, non_blocking=True))
            loss.backward()
            optimizer.step()
            self.average.update(network)
            total += loss.detach()  # without waiting for a GPU
            after_step()

    def forward(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return logits (N, classes) in float32."""
        images = images.to(self.device, non_blocking=True)
        if "channels_last" in self.name:
            images = images.to(memory_format=torch.channels_last)
        with self._precision():
            return network(images).float()

    def _precision(self) -> AbstractContextManager[None]:
        return torch.autocast(
            torch.device(self.device).type, torch.bfloat16, enabled="bf16" in self.name
        )

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.case.noise or "from memory" in self.name:
            yield from endless_batches(self.case)
        images = Augmented(self.case.split(), self.run)
        gpu = self.device != "cpu"
        loader = DataLoader(
            images,
            self.run.scale.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=min(8, os.cpu_count() or 1) if gpu else 0,
            pin_memory=gpu,
            persistent_workers=gpu,
        )
        while True:
            yield from loader


def is_compiled(name: str) -> bool:
    """Return whether torch compiles the contender of that name."""
    return "compiled" in name or "max-autotune" in name


def compile_mode(name: str, case: Case) -> str | None:
    """Return the mode of torch.compile; on a GPU small networks are recorded as CUDA graphs."""
    if "max-autotune" in name:
        return "max-autotune"
    return "reduce-overhead" if case.device != "cpu" and not case.noise else None


class Augmented(Dataset[tuple[Tensor, int]]):
    """Images one at a time: shifted and mirrored as in the run, converted to floats in [-1, 1]."""

    def __init__(self, split: TensorSplit, run: Run) -> None:
        self.split = split
        size, recipe = split.images.shape[-1], run.recipe
        transforms: list[nn.Module] = []
        if recipe.shift:
            transforms.append(v2.RandomCrop(size, padding=recipe.shift))
        if recipe.flip:
            transforms.append(v2.RandomHorizontalFlip())
        transforms += [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.5])]
        self.transform = v2.Compose(transforms)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.transform(self.split.images[index].unsqueeze(0))
        return image, int(self.split.labels[index])


class BareLoop:
    """The suite's network, batches, optimizer and average in the fewest lines that train them."""

    def __init__(self, case: Case) -> None:
        self.case, self.run, self.device = case, case.run(), case.device

    def outputs(self, weights: dict[str, Tensor], images: Tensor) -> Tensor:
        model = engine.start(self.run, self.device).model
        model.load_state_dict(weights)
        with torch.inference_mode():
            return model.eval()(images.to(self.device))

    def train(self, after_step: Callable[[], None]) -> None:
        state = engine.start(self.run, self.device)
        network, optimizer, average = state.model.train(), state.optimizer, state.average
        for step, (images, labels) in enumerate(endless_batches(self.case)):
            optimizer.zero_grad()
            images = images.to(memory_format=torch.channels_last)
            cross_entropy(network(images), labels).backward()
            optimizer.step()
            average.update(step)
            after_step()


def endless_batches(case: Case) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the suite's batches, without end."""
    batches, step = case.batches(), 0
    while True:
        yield batches.batch(step)
        step += 1
