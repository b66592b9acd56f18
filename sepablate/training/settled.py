"""What "auto" means on this machine: settled once, by a check, before a run gets its key."""

import copy
import functools
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
from sepablate.models.initial import initialise
from sepablate.training import machine
from sepablate.training.run import Run

FAST = 0.9  # the kernels must take at most this fraction of torch's time
RIGHT = 0.2  # largest relative difference of a deep network's outputs, both in bf16
PROBE = {"classes": 10, "in_channels": 1, "width": 0.125, "stem_stride": 1, "padding": "same"}


def settle(run: Run, folder: Path) -> Run:
    """The run with its precision and its kernels; ValueError if it wants what cannot be had.

    Answers to "auto" are kept in `folder`, so that a busy moment cannot change them between runs.
    """
    precision = machine.precision(run.precision, folder)
    return run.computed(precision, _kernels(run, precision, folder))


def _kernels(run: Run, precision: str, folder: Path) -> str:
    """ "fused" in C++ on a CPU or "triton" on a GPU, or "torch"."""
    device = machine.devices()[0]
    suits = precision == "bf16" and (run.threads == 1 or device != "cpu")
    if run.kernels == "torch" or (run.kernels == "auto" and not suits):
        return "torch"
    if run.kernels == "auto":
        check = functools.partial(_checked, device)
        return machine.kept(folder / "kernels.json", check, compiled.digest())
    reason = _reason(device) if suits else "they compute in bf16, on a CPU in one thread"
    if reason:
        raise ValueError(
            f"scale {run.scale_name!r}: kernels: 'fused': {reason}; choose auto, torch"
        )
    return "fused" if device == "cpu" else "triton"


def _checked(device: str) -> str:
    if reason := _reason(device):
        print(f"sepablate: torch's own kernels, for want of the fused: {reason}", file=sys.stderr)
        return "torch"
    if device != "cpu":
        return "triton"  # what they save shows in a recorded step, not in one pass
    return "fused" if fused_time() < FAST else "torch"


def _reason(device: str) -> str | None:
    """Why there are no kernels here, if so, in one line."""
    if device != "cpu":
        return _reason_on_gpu(device)
    compiler = os.environ.get("CXX", "c++")  # as torch's tool chooses it
    if (reason := compiled.load()) and not shutil.which(compiler):
        return f"no C++ compiler: {compiler!r} is not on the path"
    return reason


def _reason_on_gpu(device: str) -> str | None:
    plain = models.build("xception", **PROBE, dropout=0.0)
    initialise(plain, 0)
    plain = plain.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    images = torch.randn(16, 1, 28, 28, generator=torch.Generator().manual_seed(0)).to(device)
    outputs = []
    try:
        for network in (plain, take_on(copy.deepcopy(plain))):
            with torch.autocast("cuda", torch.bfloat16):
                found = network(images).float()
            found.square().sum().backward()
            outputs.append(found)
    except Exception as error:  # Triton's own errors have no base in common
        return f"Triton: {str(error).strip().partition(chr(10))[0] or type(error).__name__}"
    difference = ((outputs[1] - outputs[0]).norm() / outputs[0].norm()).item()
    if difference < RIGHT:
        return None
    return f"Triton: outputs differ from torch's by {difference:.2g} of them"


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
