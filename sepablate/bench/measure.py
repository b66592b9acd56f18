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
from functools import partial
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
class Measurement:
    """The numbers of one contender in one case.

    Args:
        contender: its name.
        difference: of its outputs from timm's in fp32, relative to the largest output.
        first_step: seconds from the start of its process to its first step, for each start.
        seconds: of a step, the mean of each turn.
        memory: peak bytes.
    """

    contender: str
    difference: float = 0.0
    first_step: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    memory: int = 0


class ContenderError(UserError):
    """A contender ended without an answer."""


def measure(case: Case, say: Callable[[str], None] = lambda line: None) -> list[Measurement]:
    """Check and time all contenders of a case, without those that are not installed.

    On a GPU they start in parallel, which takes a core each, and one that cannot start is left out
    as well.

    Args:
        case: the case.
        say: called with a line at each new step of the work.

    Raises UserError if outputs differ for equal weights.
    """
    gpu = case.device != "cpu"
    if gpu:
        backend.select_backend(case.run(), layout.STATE)  # while nothing else runs
    with ThreadPoolExecutor(os.cpu_count() if gpu else 1) as pool:
        measurements = _check_outputs(case, say, pool)
        for _ in range(case.starts - 1):
            for measurement in measurements:
                _start(case, measurement, say).end()
        start = partial(_start_and_warm_up, case, say)
        started = [pair for pair in pool.map(start, measurements) if pair]
    for number in range(case.rounds):
        for measurement, process in [*started]:
            say(f"{case.name}: turn {number + 1} of {case.rounds}, {measurement.contender}")
            try:
                measurement.seconds.append(process.turn(case.turn) / case.turn)
            except ContenderError as error:
                _leave_out(case, measurement, say, error)
                started.remove((measurement, process))
    for measurement, process in started:
        measurement.memory = process.end()
    return [measurement for measurement, _ in started]


def _start(case: Case, measurement: Measurement, say: Callable[[str], None]) -> "ContenderProcess":
    """Start a contender, and note the time to its first step."""
    say(f"{case.name}: start of {measurement.contender}")
    process = ContenderProcess(case, measurement.contender)
    measurement.first_step.append(process.first_step)
    return process


def _start_and_warm_up(
    case: Case, say: Callable[[str], None], measurement: Measurement
) -> "tuple[Measurement, ContenderProcess] | None":
    """Start a contender and train the steps that are slower than later ones; None: left out."""
    try:
        process = _start(case, measurement, say)
        process.turn(max(hardware.warm_up_steps(case.device) - 1, case.turn // 5))
    except ContenderError as error:
        _leave_out(case, measurement, say, error)
        return None
    return measurement, process


def _leave_out(
    case: Case, measurement: Measurement, say: Callable[[str], None], error: ContenderError
) -> None:
    """Say that a peer on a GPU is left out; raise the error of any other contender."""
    if case.device == "cpu" or measurement.contender == OURS:
        raise error
    say(f"{case.name}: without {error}\n")


class ContenderProcess:
    """A contender that trains in turns, in a process."""

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
        """Return the seconds that so many steps take."""
        self._ask(f"{steps}\n")
        return self._answer("seconds")

    def end(self) -> int:
        """End the process and return its peak memory in bytes."""
        self._ask("\n")
        memory = int(self._answer("memory"))
        with self.process, self.errors:  # waits for the process, but not for its loader's workers
            return memory

    def _ask(self, line: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `_answer` raises the reason
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def _answer(self, key: str) -> float:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            raise ContenderError(f"{self.contender}: {reason(self.errors.read())}")
        return float(json.loads(line)[key])


def _check_outputs(
    case: Case, say: Callable[[str], None], pool: ThreadPoolExecutor
) -> list[Measurement]:
    """Compare the outputs of all contenders for equal weights; without those not installed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = _reference(case, folder)

        def check(contender: str) -> Measurement | None:
            say(f"{case.name}: outputs of {contender}")
            done = subprocess.run(
                _command(case, contender, name), stderr=subprocess.PIPE, text=True
            )
            path = folder / f"{contender}.safetensors"
            if done.returncode or not path.exists():
                if contender == OURS:
                    raise ContenderError(f"{contender}: {reason(done.stderr)}")
                say(f"{case.name}: without {contender}: {reason(done.stderr)}\n")
                return None
            return Measurement(contender, _difference(case, contender, path, expected))

        checked = pool.map(check, case.contenders)
        return [measurement for measurement in checked if measurement]


def _difference(case: Case, contender: str, path: Path, expected: Tensor) -> float:
    """Return the relative difference of a contender's outputs; UserError if it is too large."""
    outputs = load_file(path)["outputs"]
    difference = ((outputs - expected).abs().max() / expected.abs().max()).item()
    precision = "bf16" if contender == OURS or "bf16" in contender else "fp32"
    if not difference < TOLERANCE[precision]:
        raise UserError(f"{case.name}: outputs of {contender} differ by {difference:.2g}")
    return difference


def reason(errors: str) -> str:
    """Return the last line that a process wrote on stderr."""
    return (errors.strip().splitlines() or ["no reason"])[-1]


def _reference(case: Case, folder: Path) -> Tensor:
    """Return outputs of the plain network in fp32; write its weights and images to the folder."""
    run = case.run()
    known = run.model in timm_networks.NAMES
    network = timm_networks.build(run) if known else models.build(run.model, **run.options)
    init_weights(network, 1)
    network.eval()
    batches = dataclasses.replace(case, device="cpu").batches()
    images = batches.batch(0)[0][:CHECKED].contiguous()
    tensors = {key: value.clone() for key, value in network.state_dict().items()}
    save_file({**tensors, "images": images}, folder / "weights.safetensors")
    with torch.inference_mode():
        return network(images)  # on the CPU, whose fp32 is exact


def _command(case: Case, contender: str, folder: str) -> list[str]:
    return [sys.executable, "-m", "sepablate.bench.contender", case.name, contender, folder]
