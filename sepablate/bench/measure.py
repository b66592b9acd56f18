"""Start the contenders, check that they compute the same function, and time them in turns."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sepablate import models
from sepablate.bench import published
from sepablate.bench.cases import Case
from sepablate.models.initial import initialise

TOLERANCE = {"fp32": 1e-3, "bf16": 0.1}  # of the largest output
CHECKED = 8  # images


@dataclass
class Measured:
    """What one contender took in one case.

    difference: of its outputs to timm's in fp32, of the largest output. first_step: seconds from
    the start of its process. seconds: of a step, one number a turn. memory: peak bytes.
    """

    contender: str
    difference: float = 0.0
    first_step: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    memory: int = 0


class Failed(Exception):  # noqa: N818 (says what happened)
    """A contender ended without an answer."""


def measure(case: Case, tell: Callable[[str], None] = lambda what: None) -> list[Measured]:
    """Check and time all contenders of a case; one that is not installed is left out.

    Raises ValueError if outputs differ for equal weights.
    """
    found = _checked(case, tell)
    for _ in range(case.starts - 1):
        for each in found:
            tell(f"{case.name}: start of {each.contender}")
            process = Process(case, each.contender)
            each.first_step.append(process.first_step)
            process.end()
    processes = []
    for each in found:
        tell(f"{case.name}: start of {each.contender}")
        process = Process(case, each.contender)
        each.first_step.append(process.first_step)
        process.turn(max(1, case.turn // 5))  # what later steps do not do again
        processes.append(process)
    for number in range(case.rounds):
        for each, process in zip(found, processes, strict=True):
            tell(f"{case.name}: turn {number + 1} of {case.rounds}, {each.contender}")
            each.seconds.append(process.turn(case.turn) / case.turn)
    for each, process in zip(found, processes, strict=True):
        each.memory = process.end()
    return found


class Process:
    """A contender that trains in turns."""

    def __init__(self, case: Case, contender: str) -> None:
        self.contender = contender
        began = time.time()
        self.process = subprocess.Popen(
            _command(case, contender, ""),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.first_step = self._answer("first_step") - began

    def turn(self, steps: int) -> float:
        """The seconds that so many steps take."""
        self._ask(f"{steps}\n")
        return self._answer("seconds")

    def end(self) -> int:
        """Its peak memory in bytes, as it ends."""
        self._ask("\n")
        memory = int(self._answer("memory"))
        self.process.communicate()
        return memory

    def _ask(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def _answer(self, key: str) -> float:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"{self.contender} ended with status {self.process.wait()}")
        return float(json.loads(line)[key])


def _checked(case: Case, tell: Callable[[str], None]) -> list[Measured]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = _reference(case, folder)
        found = []
        for contender in case.contenders:
            tell(f"{case.name}: outputs of {contender}")
            done = subprocess.run(
                _command(case, contender, name), stderr=subprocess.PIPE, text=True
            )
            path = folder / f"{contender}.safetensors"
            if done.returncode or not path.exists():
                reason = (done.stderr.strip().splitlines() or ["no reason"])[-1]
                tell(f"{case.name}: without {contender}: {reason}\n")
                continue
            outputs = load_file(path)["outputs"]
            difference = ((outputs - expected).abs().max() / expected.abs().max()).item()
            precision = "bf16" if contender == "sepablate" or "bf16" in contender else "fp32"
            if not difference < TOLERANCE[precision]:
                raise ValueError(f"{case.name}: outputs of {contender} differ by {difference:.2g}")
            found.append(Measured(contender, difference))
        return found


def _reference(case: Case, folder: Path) -> Tensor:
    """Outputs of the plain network in fp32; its weights and images are left in the folder."""
    run = case.run()
    known = run.model in published.NAMES
    network = published.network(run) if known else models.build(run.model, **run.options)
    initialise(network, 1)
    network.eval()
    images = case.feed().at(0)[0][:CHECKED].contiguous()
    with torch.inference_mode():
        expected = network(images)
    tensors = {key: value.clone() for key, value in network.state_dict().items()}
    save_file({**tensors, "images": images}, folder / "weights.safetensors")
    return expected


def _command(case: Case, contender: str, folder: str) -> list[str]:
    return [sys.executable, "-m", "sepablate.bench.contender", case.name, contender, folder]
