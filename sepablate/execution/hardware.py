"""The machine that trains: its devices, its description, the energy it uses."""

import ctypes
import functools
import importlib.util
import math
import os
import platform
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sepablate.execution import cgroup
from sepablate.store import git

CUDA_WARNING = "CUDA initialization: "
POWERCAP = Path("/sys/class/powercap")
Counter = tuple[Callable[[], float], float]  # joules so far, and where they overflow to 0

if platform.machine() == "x86_64" and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
    torch.backends.nnpack.set_flags(False)  # without AVX2 it only warns, at each convolution


@functools.cache
def devices() -> list[str]:
    """Return one name per accelerator, or the CPU's; a GPU that cannot be used is named, once."""
    with warnings.catch_warnings(record=True) as warned:
        count = torch.cuda.device_count()
    reason = _gpu_failure() if count else _first_line(warned[0].message if warned else "")
    if reason:
        print(f"sepablate: GPU unusable ({reason}); using the CPU", file=sys.stderr)
        hide_gpus()
        count = 0
    return [f"cuda:{index}" for index in range(count)] or ["cpu"]


def hide_gpus() -> None:
    """Let PyTorch find no GPU, in this process and those that it starts.

    Where it counts one, its DataLoader copies each batch to memory that the driver has to give.
    """
    warnings.filterwarnings("ignore", CUDA_WARNING, UserWarning)  # at the first backward pass
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.cuda.is_available = lambda: False  # it may have been counted already


def _gpu_failure() -> str | None:
    """Return why the first GPU computes nothing, in one line; None if it does."""
    try:
        torch.ones(1, device="cuda:0").item()
    except (RuntimeError, AssertionError) as error:
        return _first_line(error) or type(error).__name__
    if importlib.util.find_spec("triton") is None:  # nor are NVIDIA's libraries: see gpu_stubs.py
        return "the environment is for the CPU only"
    return None


def _first_line(problem: object) -> str:
    """Return the first line of an error or a warning, without what PyTorch adds to each."""
    line = str(problem).strip().partition("\n")[0].partition(" (Triggered internally")[0]
    return line.removeprefix(CUDA_WARNING)


def warm_up_steps(device: str) -> int:
    """Return how many first steps take longer: they choose algorithms, or are recorded."""
    return 2 if device == "cpu" else 5


def describe() -> dict[str, Any]:
    """Return processor, cores and accelerator, which are written with every time."""
    accelerator = "none" if devices() == ["cpu"] else torch.cuda.get_device_name(0)
    return {
        "processor": _processor(),
        "cores": cgroup.cores(),
        "accelerator": accelerator,
    }


def versions() -> dict[str, str]:
    """Return the versions that a run's numbers or speed may depend on."""
    return {"python": platform.python_version(), "torch": torch.__version__}


def commit() -> str:
    """Return the checked-out commit, with a plus if the code differs; "unknown" without git."""
    try:
        return git.head() + ("+" if git.changed("sepablate") else "")
    except git.NoCommit:
        return "unknown"
    except git.GitRefused:  # its reason names folders, which results must not
        return "unknown: git refused to read the repository"


def energy_meter(device: str) -> Callable[[], float | None]:
    """Return a function that returns the joules used from now on, or None where unknown.

    It counts the accelerator, or without one the processor's packages, with everything that runs
    on them: two runs at the same time each count both. Call it often: counters overflow.
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
    """Return the counters of the processor packages that this user may read: often only root."""

    def joules(path: Path) -> float:
        return int(path.read_text()) / 1e6

    counters: list[Counter] = []
    for zone in sorted(POWERCAP.glob("intel-rapl:*")):
        try:
            if (zone / "name").read_text().startswith("package"):  # the other zones are parts of it
                counter = functools.partial(joules, zone / "energy_uj")
                counter()
                counters.append((counter, joules(zone / "max_energy_range_uj")))
        except OSError:
            continue
    return counters


def _accelerator(device: str) -> list[Counter]:
    """Return NVIDIA's counter of that GPU, if its library is there and knows it."""
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


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
