"""sepablate as a contender: its engine, as a worker runs it."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sepablate.bench.cases import Case
from sepablate.execution import backend, worker
from sepablate.models.timm_weights import from_timm
from sepablate.store import layout
from sepablate.training import engine
from sepablate.training.step import TrainState, forward


class Suite:
    """`engine.fit` on the case's run."""

    def __init__(self, case: Case) -> None:
        self.case, self.run = case, backend.select_backend(case.run(), layout.STATE)

    def outputs(self, weights: dict[str, Tensor], images: Tensor) -> Tensor:
        device = self.case.device
        model = engine.start(self.run, device).model
        known = self.run.model in ("xception", "inception_v3", "mobilenet_v1")
        model.load_state_dict(from_timm(self.run.model, weights) if known else weights)
        with torch.inference_mode():
            return forward(model.eval(), images, self.run, device)

    def train(self, after_step: Callable[[], None]) -> None:
        worker.tune_allocator()
        splits = dict.fromkeys(("train", "validation", "test"), self.case.split())
        with tempfile.TemporaryDirectory() as folder:
            monitor = AfterStep(after_step)
            engine.fit(self.run, splits, Path(folder), monitor, self.case.device)


class AfterStep(engine.Monitor):
    """Calls a function after each step."""

    def __init__(self, after_step: Callable[[], None]) -> None:
        self.after_step = after_step

    def on_step(self, state: TrainState) -> None:
        """Call the function."""
        self.after_step()
