"""Start the contenders, check that they compute the same function, and time them in turns."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sepablate import models
from sepablate.bench import timm_networks
from sepablate.bench.cases import Case
from sepablate.errors import UserError
from sepablate.execution import backend, hardware
from sepablate.models.weight_init import init_weights
from sepablate.store import layout

TOLERANCE = {"fp32": 1e-3, "bf16": 0.1}  # of the largest output
CHECKED = 8  # images
OURS = "sepablate"


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


class Failed(UserError):  # noqa: N818 (says what happened)
    """A contender ended without an answer."""


def measure(case: Case, tell: Callable[[str], None] = lambda what: None) -> list[Measured]:
    """Check and time all contenders of a case; one that is not installed is left out.

    On a GPU they start side by side, which takes a core each, and one that cannot start is left out
    as well. Raises UserError if outputs differ for equal weights.
    """
    gpu = case.device != "cpu"
    if gpu:
        backend.select_backend(case.run(), layout.STATE)  # while nothing else runs

    def lost(each: Measured, error: Failed) -> None:
        if not gpu or each.contender == OURS:
            raise error
        tell(f"{case.name}: without {error}\n")

    def begin(each: Measured) -> tuple[Measured, Process] | None:
        tell(f"{case.name}: start of {each.contender}")
        try:
            process = Process(case, each.contender)
            each.first_step.append(process.first_step)
            # What later steps do not do again; the first step is done.
            process.turn(max(hardware.warm_up_steps(case.device) - 1, case.turn // 5))
        except Failed as error:
            lost(each, error)
            return None
        return each, process

    with ThreadPoolExecutor(os.cpu_count() if gpu else 1) as pool:
        found = _checked(case, tell, pool)
        for _ in range(case.starts - 1):
            for each in found:
                tell(f"{case.name}: start of {each.contender}")
                process = Process(case, each.contender)
                each.first_step.append(process.first_step)
                process.end()
        begun = [pair for pair in pool.map(begin, found) if pair]
    for number in range(case.rounds):
        for each, process in [*begun]:
            tell(f"{case.name}: turn {number + 1} of {case.rounds}, {each.contender}")
            try:
                each.seconds.append(process.turn(case.turn) / case.turn)
            except Failed as error:
                lost(each, error)
                begun.remove((each, process))
    for each, process in begun:
        each.memory = process.end()
    return [each for each, _ in begun]


class Process:
    """A contender that trains in turns."""

    def __init__(self, case: Case, contender: str) -> None:
        self.contender = contender
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed at its end)
        began = time.time()
        self.process = subprocess.Popen(
            _command(case, contender, ""),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
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
        with self.process, self.errors:  # waits for it, but not for who loads its images
            return memory

    def _ask(self, line: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `_answer` tells why
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def _answer(self, key: str) -> float:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            raise Failed(f"{self.contender}: {reason(self.errors.read())}")
        return float(json.loads(line)[key])


def _checked(case: Case, tell: Callable[[str], None], pool: ThreadPoolExecutor) -> list[Measured]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = _reference(case, folder)

        def check(contender: str) -> Measured | None:
            tell(f"{case.name}: outputs of {contender}")
            done = subprocess.run(
                _command(case, contender, name), stderr=subprocess.PIPE, text=True
            )
            path = folder / f"{contender}.safetensors"
            if done.returncode or not path.exists():
                if contender == OURS:
                    raise Failed(f"{contender}: {reason(done.stderr)}")
                tell(f"{case.name}: without {contender}: {reason(done.stderr)}\n")
                return None
            outputs = load_file(path)["outputs"]
            difference = ((outputs - expected).abs().max() / expected.abs().max()).item()
            precision = "bf16" if contender == OURS or "bf16" in contender else "fp32"
            if not difference < TOLERANCE[precision]:
                raise UserError(f"{case.name}: outputs of {contender} differ by {difference:.2g}")
            return Measured(contender, difference)

        return [each for each in pool.map(check, case.contenders) if each]


def reason(errors: str) -> str:
    """The last line of what a process wrote on stderr."""
    return (errors.strip().splitlines() or ["no reason"])[-1]


def _reference(case: Case, folder: Path) -> Tensor:
    """Outputs of the plain network in fp32; its weights and images are left in the folder."""
    run = case.run()
    known = run.model in timm_networks.NAMES
    network = timm_networks.build(run) if known else models.build(run.model, **run.options)
    init_weights(network, 1)
    network.eval()
    feed = dataclasses.replace(case, device="cpu").feed()
    images = feed.batch(0)[0][:CHECKED].contiguous()
    tensors = {key: value.clone() for key, value in network.state_dict().items()}
    save_file({**tensors, "images": images}, folder / "weights.safetensors")
    with torch.inference_mode():
        return network(images)  # on the CPU, whose fp32 is exact


def _command(case: Case, contender: str, folder: str) -> list[str]:
    return [sys.executable, "-m", "sepablate.bench.contender", case.name, contender, folder]
