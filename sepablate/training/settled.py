"""What "auto" means on this machine: settled once, by a check, before a run gets its key."""

import os
import shutil
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn

from sepablate import models
from sepablate.kernels import compiled
from sepablate.kernels.network import take_on
from sepablate.training import machine
from sepablate.training.run import Run

FAST = 0.9  # the kernels must take at most this fraction of torch's time
PROBE = {"classes": 10, "in_channels": 1, "width": 0.125, "stem_stride": 1, "padding": "same"}


def settle(run: Run, folder: Path) -> Run:
    """The run with its precision and its kernels; ValueError if it wants what cannot be had.

    Answers to "auto" are kept in `folder`, so that a busy moment cannot change them between runs.
    """
    precision = machine.precision(run.precision, folder)
    return run.computed(precision, _kernels(run, precision, folder))


def _kernels(run: Run, precision: str, folder: Path) -> str:
    """ "fused" or "torch"."""
    suits = precision == "bf16" and run.threads == 1 and machine.devices() == ["cpu"]
    if run.kernels == "torch" or (run.kernels == "auto" and not suits):
        return "torch"
    if run.kernels == "auto":
        return machine.kept(folder / "kernels.json", _checked, compiled.digest())
    reason = _reason() if suits else "they compute in bf16, in one thread of a CPU"
    if reason:
        raise ValueError(
            f"scale {run.scale_name!r}: kernels: 'fused': {reason}; choose auto, torch"
        )
    return "fused"


def _checked() -> str:
    if reason := _reason():
        print(f"sepablate: torch's own kernels, for want of the fused: {reason}", file=sys.stderr)
        return "torch"
    return "fused" if fused_time() < FAST else "torch"


def _reason() -> str | None:
    """Why there are no kernels here, if so, in one line."""
    compiler = os.environ.get("CXX", "c++")  # as torch's tool chooses it
    if (reason := compiled.load()) and not shutil.which(compiler):
        return f"no C++ compiler: {compiler!r} is not on the path"
    return reason


def fused_time() -> float:
    """Time of a training step's two passes by the kernels as a fraction of torch's: medians."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    images = torch.rand(16, 1, 28, 28)
    plain, fused = (models.build("xception", **PROBE) for _ in range(2))
    networks = [plain.train(), take_on(fused).train()]
    taken = [[_seconds(network, images) for network in networks] for _ in range(9)]
    torchs, ours = (statistics.median(times) for times in zip(*taken[2:], strict=True))
    return ours / torchs


def _seconds(network: nn.Module, images: torch.Tensor) -> float:
    began = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        network(images).float().square().sum().backward()
    return time.perf_counter() - began
