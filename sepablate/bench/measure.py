"""Start the contenders, check that they compute the same function, and time them in turns."""

import contextlib
import dataclasses
import json
import math
import os
import select
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
LATE = "not done in its time"
OURS = "sepablate"
WARMING = 0.7  # of the time that is left, which contenders have to start and to warm up
LAST_TURN = 20.0  # seconds after the end that a turn which has begun may take


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


@dataclass
class Work:
    """A case that is being measured.

    Args:
        case: the case.
        say: called with a line at each new step of the work.
        end: the second of `time.monotonic` at which it has to be done.
        opened: the processes that were started.
    """

    case: Case
    say: Callable[[str], None]
    end: float
    opened: "list[ContenderProcess]" = field(default_factory=list)

    def warmed_up(self) -> float:
        """Return the second at which a contender has to be warm, so that all get their turns."""
        now = time.monotonic()
        return now + WARMING * (self.end - now)

    def leave_out(self, contender: str, error: ContenderError) -> None:
        """Say that a peer on a GPU is left out; raise the error of any other contender."""
        if self.case.device == "cpu" or contender == OURS:
            raise error
        self.say(f"{self.case.name}: without {error}\n")


def measure(
    case: Case, say: Callable[[str], None] = lambda line: None, end: float = math.inf
) -> list[Measurement]:
    """Check and time all contenders of a case, without those that are not installed.

    On a GPU they start in parallel, which takes a core each, and one that cannot start, or not in
    time, is left out as well. If the time is up there are fewer turns, at least one.

    Args:
        case: the case.
        say: called with a line at each new step of the work.
        end: the second of `time.monotonic` at which it has to be done.

    Raises UserError if outputs differ for equal weights, or if there is no time for a turn.
    """
    gpu = case.device != "cpu"
    if gpu:
        backend.select_backend(case.run(), layout.STATE)  # while nothing else runs
    work = Work(case, say, end)
    try:
        with ThreadPoolExecutor(os.cpu_count() if gpu else 1) as pool:
            measurements = _check_outputs(work, pool)
            for _ in range(case.starts - 1):
                for measurement in measurements:
                    _start(work, measurement, end).end()
            warm = work.warmed_up()
            pairs = pool.map(lambda each: _start_and_warm_up(work, each, warm), measurements)
            started = [pair for pair in pairs if pair]
        return _take_turns(work, started)
    finally:
        for process in work.opened:
            process.stop()


def _take_turns(
    work: Work, started: "list[tuple[Measurement, ContenderProcess]]"
) -> list[Measurement]:
    """Time the contenders in turns, until all rounds are done or the time is up."""
    case = work.case
    for number in range(case.rounds):
        if number and time.monotonic() > work.end:
            work.say(f"{case.name}: turn {number} of {case.rounds} is the last: its time is up\n")
            break
        for measurement, process in [*started]:
            work.say(f"{case.name}: turn {number + 1} of {case.rounds}, {measurement.contender}")
            try:
                measurement.seconds.append(process.turn(case.turn) / case.turn)
            except ContenderError as error:
                work.leave_out(measurement.contender, error)
                started.remove((measurement, process))
    for measurement, process in started:
        measurement.memory = process.end()
    return [measurement for measurement, _ in started]


def _start(work: Work, measurement: Measurement, end: float) -> "ContenderProcess":
    """Start a contender, and note the time to its first step."""
    work.say(f"{work.case.name}: start of {measurement.contender}")
    process = ContenderProcess(work.case, measurement.contender, end)
    work.opened.append(process)
    measurement.first_step.append(process.wait_for_first_step())
    return process


def _start_and_warm_up(
    work: Work, measurement: Measurement, end: float
) -> "tuple[Measurement, ContenderProcess] | None":
    """Start a contender and train the steps that are slower than later ones; None: left out."""
    case = work.case
    try:
        process = _start(work, measurement, end)
        process.turn(max(hardware.warm_up_steps(case.device) - 1, case.turn // 5))
    except ContenderError as error:
        work.leave_out(measurement.contender, error)
        return None
    process.deadline = work.end + LAST_TURN
    return measurement, process


class ContenderProcess:
    """A contender that trains in turns, in a process.

    Its answers raise ContenderError if it has ended, or after the deadline.
    """

    def __init__(self, case: Case, contender: str, deadline: float = math.inf) -> None:
        self.contender, self.deadline = contender, deadline
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed at its end)
        self.began = time.time()
        self.process = subprocess.Popen(
            _command(case, contender, ""),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def wait_for_first_step(self) -> float:
        """Return the seconds from the start of the process to the end of its first step."""
        return self._answer("first_step") - self.began

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

    def stop(self) -> None:
        """End the process if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _ask(self, line: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `_answer` raises the reason
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def _answer(self, key: str) -> float:
        answers = self.process.stdout
        assert answers is not None
        if not select.select([answers], [], [], seconds_left(self.deadline))[0]:
            self.stop()
            raise ContenderError(f"{self.contender}: {LATE}")
        line = answers.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            raise ContenderError(f"{self.contender}: {reason(self.errors.read())}")
        return float(json.loads(line)[key])


def seconds_left(end: float) -> float | None:
    """Return the seconds that are left; None without an end."""
    return None if end == math.inf else max(end - time.monotonic(), 0.0)


def _check_outputs(work: Work, pool: ThreadPoolExecutor) -> list[Measurement]:
    """Compare the outputs of all contenders for equal weights; without those not installed."""
    case, say = work.case, work.say
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = _reference(case, folder)

        def check(contender: str) -> Measurement | None:
            say(f"{case.name}: outputs of {contender}")
            errors = _write_outputs(case, contender, folder, seconds_left(work.end))
            path = folder / f"{contender}.safetensors"
            if errors is not None or not path.exists():
                error = ContenderError(f"{contender}: {errors or 'no outputs'}")
                if contender == OURS:
                    raise error
                say(f"{case.name}: without {error}\n")
                return None
            return Measurement(contender, _difference(case, contender, path, expected))

        checked = pool.map(check, case.contenders)
        return [measurement for measurement in checked if measurement]


def _write_outputs(case: Case, contender: str, folder: Path, seconds: float | None) -> str | None:
    """Let a contender write its outputs to the folder; return why it did not."""
    command = _command(case, contender, str(folder))
    try:
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return LATE
    return reason(done.stderr) if done.returncode else None


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
