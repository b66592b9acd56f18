"""One contender in a process of its own: it trains, and waits after each of its turns.

    python -m sepablate.bench.contender CASE CONTENDER FOLDER

It writes a line of JSON at its first step, then reads how many steps the next turn has, and writes
the seconds that the turn took. An empty line ends it, with its peak memory in bytes, which is the
GPU's if it trains there. With a FOLDER, it writes its outputs for the weights there, and ends.
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

from sepablate.bench.cases import Case, named


class Over(BaseException):
    """The last turn is over; nothing may catch it on its way out of a training loop."""


class Contender(Protocol):
    """A way to train a case's network."""

    def outputs(self, weights: dict[str, Tensor], images: Tensor) -> Tensor:
        """Logits (N, classes) in evaluation mode, with weights under timm's names."""

    def train(self, after_step: Callable[[], None]) -> None:
        """Train for ever, and call `after_step` after each step, which a GPU may be still at."""


def contender(case: Case, name: str) -> Contender:
    """The contender of that name; only what it needs is imported."""
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

    return loops.Bare(case) if name == "bare loop" else loops.Timm(case, name)


class Turns:
    """Counts the steps of a turn, and waits for the next one; the wait is not timed.

    Only at its end does a turn wait for the GPU.
    """

    def __init__(self, say: Callable[[dict[str, Any]], None], device: str) -> None:
        self.say, self.device, self.left, self.began = say, device, 1, 0.0

    def after_step(self) -> None:
        self.left -= 1
        if self.left:
            return
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)
        now = time.monotonic()
        self.say({"first_step": time.time()} if not self.began else {"seconds": now - self.began})
        line = sys.stdin.readline().strip()
        if not line:
            raise Over
        self.left, self.began = int(line), time.monotonic()


def main() -> None:
    """Be the contender that the command line names."""
    case_name, name, folder = sys.argv[1:]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def say(what: dict[str, Any]) -> None:
        print(json.dumps(what), file=out, flush=True)

    case = named(case_name)
    chosen = contender(case, name)
    if folder:
        torch.backends.cudnn.allow_tf32 = False
        _check(chosen, Path(folder), name)
    else:
        with contextlib.suppress(Over):
            chosen.train(Turns(say, case.device).after_step)
        say({"memory": _peak_memory(case.device)})
    out.flush()
    os._exit(0)  # loader threads and compilers have nothing left to say


def _peak_memory(device: str) -> int:
    """Bytes of the GPU, or of the process.

    Linux hands the peak of the process before the exec down in getrusage, not here.
    """
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _check(chosen: Contender, folder: Path, name: str) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "weights.safetensors")
    images = weights.pop("images")
    outputs = chosen.outputs(weights, images).detach().float().cpu().contiguous()
    save_file({"outputs": outputs}, folder / f"{name}.safetensors")


if __name__ == "__main__":
    main()
