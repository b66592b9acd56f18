"""What "auto" means on this machine: settled once, by a check, before a run gets its key."""

import copy
import functools
import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sepablate import models
from sepablate.kernels.cpu import build
from sepablate.kernels.fuse import apply_fused_kernels
from sepablate.models.initial import initialise
from sepablate.training import machine
from sepablate.training.run import Run
from sepablate.training.sources import kernels_digest

FAST = 0.9  # the kernels must take at most this fraction of torch's time
FAR, BF16 = 1.5, 0.02  # they may be so much farther from fp32 than torch's operators in bf16 are
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
        digest = build.digest() if device == "cpu" else kernels_digest("triton")
        return machine.kept(folder / "kernels.json", check, digest)
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
    if (reason := build.load_library()) and not shutil.which(compiler):
        return f"no C++ compiler: {compiler!r} is not on the path"
    return reason


def _reason_on_gpu(device: str) -> str | None:
    try:
        torchs, ours = differences(device)
    except torch.cuda.OutOfMemoryError:
        raise ValueError(f"{device}: no memory for a check of the kernels; free some") from None
    except Exception as error:  # Triton's own errors have no base in common
        return f"Triton: {str(error).strip().partition(chr(10))[0] or type(error).__name__}"
    if ours < FAR * torchs + BF16:
        return None
    return f"Triton: outputs and gradients are {ours:.2g} off, torch's in bf16 {torchs:.2g}"


def differences(device: str) -> tuple[float, float]:
    """How far outputs and gradients in bf16 are from those in fp32, relatively: by torch's
    operators, and by the kernels. The mean over the weights of Xception's first blocks, which have
    every kind of layer: in a deep network the errors grow until they hide all others."""
    whole: Any = models.build("xception", **PROBE)
    initialise(whole, 0)
    plain = nn.Sequential(whole.stem, whole.entry, whole.middle[0])
    plain.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    images = torch.randn(16, 1, 28, 28, generator=torch.Generator().manual_seed(0)).to(device)
    torchs, ours = copy.deepcopy(plain), apply_fused_kernels(copy.deepcopy(plain))
    exact = _numbers(plain, images, False)
    return _error(_numbers(torchs, images, True), exact), _error(
        _numbers(ours, images, True), exact
    )


def _numbers(network: nn.Module, images: torch.Tensor, bf16: bool) -> list[torch.Tensor]:
    with torch.autocast(images.device.type, torch.bfloat16, bf16):
        outputs = network(images).float()
    outputs.square().sum().backward()
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    return [outputs.detach(), *gradients]


def _error(found: list[torch.Tensor], exact: list[torch.Tensor]) -> float:
    pairs = zip(found, exact, strict=True)
    return statistics.mean(((one - true).norm() / true.norm()).item() for one, true in pairs)


def fused_time() -> float:
    """Time of a training step's two passes by the kernels as a fraction of torch's: medians."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    images = torch.rand(16, 1, 28, 28)
    plain, fused = (models.build("xception", **PROBE) for _ in range(2))
    networks = [plain.train(), apply_fused_kernels(fused).train()]
    taken = [[_seconds(network, images) for network in networks] for _ in range(9)]
    torchs, ours = (statistics.median(times) for times in zip(*taken[2:], strict=True))
    return ours / torchs


def _seconds(network: nn.Module, images: torch.Tensor) -> float:
    began = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        network(images).float().square().sum().backward()
    return time.perf_counter() - began
