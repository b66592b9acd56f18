"""A contender's process: it trains, and waits after each of its turns.

    python -m sepablate.bench.contender CASE CONTENDER FOLDER

It writes a line of JSON at its first step, then reads the number of steps of the next turn and
writes the seconds that the turn took. An empty line ends it, with its peak memory in bytes, which
is the GPU's if it trains there. With a FOLDER, it writes its outputs for the weights there, and
ends.
"""

import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from sepablate.bench.cases import Case, local_case


class StopTraining(BaseException):
    """Ends a training loop after the last turn; a BaseException, so that no loop catches it."""


class Contender(Protocol):
    """A way to train a case's network."""

    def outputs(self, weights: dict[str, Tensor], images: Tensor) -> Tensor:
        """Return logits (N, classes) in evaluation mode, with weights under timm's names."""

    def train(self, after_step: Callable[[], None]) -> None:
        """Train without end; call `after_step` after each step, which a GPU may not have done."""


def make_contender(case: Case, name: str) -> Contender:
    """Return the contender of that name; imports only what it needs."""
    if name == "sepablate":
        from sepablate.bench.suite import Suite

        return Suite(case)
    if name.startswith("Keras"):
        os.environ["KERAS_BACKEND"] = name.rpartition(" ")[2].lower()
        from sepablate.bench.keras_fit import Keras

        return Keras(case)
    if name == "Lightning":
        from sepablate.bench.lightning_fit import Lightning

        return Lightning(case)
    from sepablate.bench import loops

    return loops.BareLoop(case) if name == "bare loop" else loops.TimmLoop(case, name)


class TurnTimer:
    """Times a turn, then waits for the next one; the wait is not timed.

    A turn synchronises with the GPU at its end only.

    Args:
        answer: writes an answer to the process that measures.
        device: where the contender trains.
    """

    def __init__(self, answer: Callable[[dict[str, Any]], None], device: str) -> None:
        self.answer, self.device, self.left, self.began = answer, device, 1, 0.0

    def after_step(self) -> None:
        """Count a step; at the end of a turn, answer and wait for the next one."""
        self.left -= 1
        if self.left:
            return
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)
        now = time.monotonic()
        first = not self.began
        self.answer({"first_step": time.time()} if first else {"seconds": now - self.began})
        line = sys.stdin.readline().strip()
        if not line:
            raise StopTraining
        self.left, self.began = int(line), time.monotonic()


def main() -> None:
    """Run the contender that the command line names."""
    case_name, name, folder = sys.argv[1:]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to stderr, not into the answers

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=out, flush=True)

    case = local_case(case_name)
    contender = make_contender(case, name)
    if folder:
        torch.backends.cudnn.allow_tf32 = False
        _write_outputs(contender, Path(folder), name)
    else:
        with contextlib.suppress(StopTraining):
            contender.train(TurnTimer(answer, case.device).after_step)
        answer({"memory": _peak_memory(case.device)})
    out.flush()
    os._exit(0)  # without waiting for loader threads and compilers


def _peak_memory(device: str) -> int:
    """Return the peak bytes of the GPU, or of the process.

    Linux's getrusage includes the peak of the parent before the exec; VmHWM does not.
    """
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _write_outputs(contender: Contender, folder: Path, name: str) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "weights.safetensors")
    images = weights.pop("images")
    outputs = contender.outputs(weights, images).detach().float().cpu().contiguous()
    save_file({"outputs": outputs}, folder / f"{name}.safetensors")


if __name__ == "__main__":
    main()
