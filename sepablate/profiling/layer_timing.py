"""How long a standard convolution and its separable twin take, forward and backward."""

import hashlib
import math
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from rich.progress import track
from torch import Tensor, nn

from sepablate import study
from sepablate.execution import hardware
from sepablate.execution.backend import select_precision
from sepablate.store import layout
from sepablate.store.files import write_atomically
from sepablate.study import LayerStudy

KEPT = layout.LAYER_TIMES  # times, by what they depend on
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SHORTEST = 0.002  # seconds of a timing: a shorter call is repeated within it
FEWEST = 3  # rounds, however long they take


class Case(NamedTuple):
    """What is timed against each other: the same call of the standard and the separable layer."""

    kernel: int
    channels: int
    precision: str
    direction: str
    standard: Callable[[], object]
    separable: Callable[[], object]


def study_times(name: str, scale: str) -> None:
    """Write results/<scale>/<name>/measured.csv: a row per kernel, width, precision and direction.

    Times are in seconds for one pass of a batch: the median of n rounds, the fastest, the slowest.
    `ratio` is separable through standard, timed one right after the other: the median of n, and the
    quartiles. They are measured once for a machine, its versions and this file, and kept, so that
    whatever is made again from them is made of the same numbers.

    Raises UserError if there is no such study, or if it is one that trains.
    """
    each = study.load_layers(name).at(scale)
    device = hardware.devices()[0]
    fast = select_precision("auto", KEPT.parent)
    precisions = ["fp32"] + ["bf16"] * (fast == "bf16")
    kept = KEPT / f"{_key(each, precisions)}.csv"
    if kept.exists():
        print(f"{name} · {scale}: measured before; delete {kept} to measure again")
    else:
        print(f"{name} · {scale}: at most {each.repeats} rounds in about {each.seconds:g} s")
        write_atomically(kept, measure(each, precisions, device).to_csv(index=False))
    path = layout.study_folder(scale, name) / layout.LAYER_MEASUREMENTS
    write_atomically(path, kept.read_bytes())


def measure(each: LayerStudy, precisions: list[str], device: str) -> pd.DataFrame:
    """The rows that `study_times` describes. One thread on a CPU; channels last."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    cases = list(_cases(each, precisions, device))
    timers = [[_timer(call, device) for call in case[-2:]] for case in cases]
    taken: list[list[tuple[float, float]]] = [[] for _ in cases]
    began = time.monotonic()
    for turn in track(range(each.repeats), description="Timing layers"):
        if turn >= FEWEST and time.monotonic() - began > each.seconds:
            break
        for (standard, separable), times in zip(timers, taken, strict=True):
            if turn % 2:  # neither of the two always comes first
                second = separable()
                times.append((standard(), second))
            else:
                times.append((standard(), separable()))
    told = {"map_size": each.map_size, "batch": each.batch, "threads": 1, "device": _device(device)}
    told |= hardware.versions()
    rows = zip(cases, taken, strict=True)
    return pd.DataFrame([_summary(case, times) | told for case, times in rows])


def _cases(each: LayerStudy, precisions: list[str], device: str) -> Iterator[Case]:
    for kernel in each.kernels:
        for channels in each.widths:
            layers = [make(kernel, channels) for make in (standard, separable)]
            for layer in layers:
                layer.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            size = (each.batch, channels, each.map_size, each.map_size)
            for precision in precisions:
                images = torch.ones(size, device=device, dtype=DTYPES[precision])
                images = images.to(memory_format=torch.channels_last).requires_grad_()
                forwards = [partial(_forward, layer, images) for layer in layers]
                backwards = [
                    partial(_backward, call(), [images, *layer.parameters()])
                    for call, layer in zip(forwards, layers, strict=True)
                ]
                yield Case(kernel, channels, precision, "forward", *forwards)
                yield Case(kernel, channels, precision, "backward", *backwards)


def standard(kernel: int, channels: int) -> nn.Module:
    """(N, channels, H, W) -> the same shape, all channels mixed at every place of the kernel."""
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)


def separable(kernel: int, channels: int) -> nn.Module:
    """(N, channels, H, W) -> the same shape: each channel by itself, then 1x1 over all."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
    )


def _forward(layer: nn.Module, images: Tensor) -> Tensor:
    """As in training: with the graph, and with weights that autocast converts once a pass."""
    bf16 = images.dtype == torch.bfloat16
    with torch.autocast(images.device.type, torch.bfloat16, bf16, cache_enabled=False):
        return layer(images)


def _backward(output: Tensor, inputs: list[Tensor]) -> object:
    return torch.autograd.grad(output, inputs, torch.ones_like(output), retain_graph=True)


def _timer(call: Callable[[], object], device: str) -> Callable[[], float]:
    """A function that gives the seconds of one call; the first calls, which prepare, are made."""
    _seconds(call, 1, device)
    calls = math.ceil(SHORTEST / _seconds(call, 1, device))
    return partial(_seconds, call, calls, device)


def _seconds(call: Callable[[], object], calls: int, device: str) -> float:
    # One thread's processor time is its wall time, less what other programs take of the core.
    clock = time.process_time if device == "cpu" else time.perf_counter
    began = clock()
    for _ in range(calls):
        call()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return (clock() - began) / calls


def _summary(case: Case, times: list[tuple[float, float]]) -> dict[str, Any]:
    standard_times, separable_times = zip(*times, strict=True)
    ratios = [second / first for first, second in times]
    low, middle, high = statistics.quantiles(ratios, n=4)
    found = {"ratio": middle, "ratio_low": low, "ratio_high": high}
    for name, values in (("standard", standard_times), ("separable", separable_times)):
        found |= {name: statistics.median(values)}
        found |= {f"{name}_min": min(values), f"{name}_max": max(values)}
    row = dict(zip(Case._fields[:4], case[:4], strict=True)) | {"n": len(times)}
    return row | {name: float(f"{value:.4g}") for name, value in found.items()}


def _device(device: str) -> str:
    machine = hardware.describe()
    return str(machine["processor" if device == "cpu" else "accelerator"])


def _key(each: LayerStudy, precisions: list[str]) -> str:
    decides = (
        each,
        precisions,
        hardware.describe(),
        hardware.versions(),
        Path(__file__).read_text(),
    )
    return hashlib.sha256(repr(decides).encode()).hexdigest()[:16]
