"""The machine that trains: what it is, and whether bf16 is fast and right on it."""

import ctypes
import functools
import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sepablate.store.files import write_atomically

RIGHT = 0.05  # largest relative error of a bf16 gradient against fp32: bf16 keeps 8 bits
POWERCAP = Path("/sys/class/powercap")
Counter = tuple[Callable[[], float], float]  # joules so far, and where they start again at 0
FAST = 0.9  # bf16 must take at most this fraction of the time of fp32


def devices() -> list[str]:
    """One name per accelerator, or the CPU."""
    count = torch.cuda.device_count()
    return [f"cuda:{index}" for index in range(count)] or ["cpu"]


def warm_up_steps(device: str) -> int:
    """Gradient steps that take longer than later ones: they choose algorithms, or are recorded."""
    return 2 if device == "cpu" else 5


def describe() -> dict[str, Any]:
    """Processor, cores and accelerator, as they stand beside every time."""
    accelerator = torch.cuda.get_device_name(0) if torch.cuda.device_count() else "none"
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "accelerator": accelerator,
    }


def versions() -> dict[str, str]:
    """Versions that a run's numbers or speed may hang on."""
    return {"python": platform.python_version(), "torch": torch.__version__}


def commit() -> str:
    """The commit that is checked out, with a plus if the code differs; "unknown" without git."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--", "sepablate") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def energy_meter(device: str) -> Callable[[], float | None]:
    """A function that tells the joules used from now on, or None where the machine does not tell.

    It counts the accelerator, or without one the processor's packages: whatever runs on them, so
    that two runs side by side each count both. Ask it often: counters start again after a while.
    """
    counters = _packages() if device == "cpu" else _accelerator(device)
    last, total = [joules() for joules, _ in counters], 0.0

    def meter() -> float | None:
        nonlocal total
        for index, (joules, size) in enumerate(counters):
            now = joules()
            total += (now - last[index]) % size
            last[index] = now
        return round(total, 1) if counters else None

    return meter


def _packages() -> list[Counter]:
    """Each processor package that Linux lets us read: often only root may."""

    def joules(path: Path) -> float:
        return int(path.read_text()) / 1e6

    found: list[Counter] = []
    for zone in sorted(POWERCAP.glob("intel-rapl:*")):
        try:
            if (zone / "name").read_text().startswith("package"):  # the other zones are parts of it
                counter = functools.partial(joules, zone / "energy_uj")
                counter()
                found.append((counter, joules(zone / "max_energy_range_uj")))
        except OSError:
            continue
    return found


def _accelerator(device: str) -> list[Counter]:
    """NVIDIA's counter of that GPU, if its library is there and knows it."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return []
    handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
    name = f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()

    def failed() -> int:
        return library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules))

    def joules() -> float:
        failed()  # leaves the last value
        return millijoules.value / 1e3

    if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByUUID(name, ctypes.byref(handle)):
        return []
    return [] if failed() else [(joules, math.inf)]


def precision(wanted: str, folder: Path) -> str:
    """ "fp32" or "bf16": as wanted, or for "auto" what a check on this machine says."""
    return kept(folder / "precision.json", _checked_precision) if wanted == "auto" else wanted


def kept(path: Path, find: Callable[[], str], *more: str) -> str:
    """What `find` says of this machine, and of `more`: kept in a file, so that it stays the same.

    A busy moment must not change it between runs.
    """
    machine = json.dumps([describe(), versions(), *more], sort_keys=True)
    known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    if machine not in known:
        known[machine] = find()
        write_atomically(path, json.dumps(known, indent=1))
    return known[machine]


def _checked_precision() -> str:
    device = devices()[0]
    if bf16_error(device) >= RIGHT:
        return "fp32"
    if device == "cpu":
        return "bf16" if bf16_time(device) < FAST else "fp32"
    # A GPU computes so small a probe in no time, and tells nothing of real networks.
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def bf16_error(device: str) -> float:
    """Relative error of the worst bf16 weight gradient of a small separable network."""
    gradients = []
    for enabled in (False, True):
        network, images = _probe(device)
        _pass(network, images, device, enabled)
        gradients.append([weight.grad for weight in network.parameters()])
    pairs = zip(*gradients, strict=True)
    return max(((fine - rough).norm() / fine.norm()).item() for fine, rough in pairs)


def bf16_time(device: str) -> float:
    """Time of a forward and backward pass in bf16 as a fraction of fp32's: medians, interleaved."""
    torch.set_num_threads(1)
    network, images = _probe(device)
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(12):
        for enabled, taken in times.items():
            began = time.perf_counter()
            _pass(network, images, device, enabled)
            taken.append(time.perf_counter() - began)
    fp32, bf16 = (statistics.median(taken[2:]) for taken in times.values())
    return bf16 / fp32


def _probe(device: str) -> tuple[nn.Module, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    layers = [
        nn.Conv2d(96, 96, 3, padding=1, groups=96, bias=False),
        nn.Conv2d(96, 96, 1, bias=False),
        nn.Conv2d(96, 96, 3, padding=1, bias=False),
    ]
    network = nn.Sequential(*layers)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * weight[0].numel() ** -0.5)
    images = torch.randn(64, 96, 8, 8, generator=draw)
    last = torch.channels_last
    return network.to(device, memory_format=last), images.to(device, memory_format=last)  # type: ignore[call-overload]


def _pass(network: nn.Module, images: torch.Tensor, device: str, bf16: bool) -> None:
    network.zero_grad()
    with torch.autocast(torch.device(device).type, torch.bfloat16, bf16):
        output = network(images)
    output.float().square().sum().backward()
    if device != "cpu":
        torch.cuda.synchronize()


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
