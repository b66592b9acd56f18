"""Time a standard and a separable convolution, forward and backward."""

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

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SHORTEST = 0.002  # seconds of a timing: a shorter call is repeated
FEWEST_ROUNDS = 3  # however long they take


class Case(NamedTuple):
    """The same call of a standard and of a separable layer, whose times are compared."""

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
    quartiles. They are measured once for a machine, its versions and this file, and stored in
    .sepablate/, so that a table or figure made again shows the same numbers.

    Raises UserError if there is no such study, or if it is one that trains.
    """
    layers = study.load_layers(name).at(scale)
    device = hardware.devices()[0]
    fast = select_precision("auto", layout.STATE)
    precisions = ["fp32"] + ["bf16"] * (fast == "bf16")
    stored = layout.LAYER_TIMES / f"{_key(layers, precisions)}.csv"
    if stored.exists():
        print(f"{name} · {scale}: measured before; delete {stored} to measure again")
    else:
        print(f"{name} · {scale}: at most {layers.repeats} rounds in about {layers.seconds:g} s")
        write_atomically(stored, measure(layers, precisions, device).to_csv(index=False))
    target = layout.study_folder(scale, name) / layout.LAYER_MEASUREMENTS
    write_atomically(target, stored.read_bytes())


def measure(layers: LayerStudy, precisions: list[str], device: str) -> pd.DataFrame:
    """Return the rows that `study_times` describes. One thread on a CPU; channels last.

    Args:
        layers: the study, at a scale.
        precisions: of "fp32" and "bf16".
        device: the CPU or a GPU.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    cases = list(_cases(layers, precisions, device))
    timers = [[_timer(call, device) for call in case[-2:]] for case in cases]
    times: list[list[tuple[float, float]]] = [[] for _ in cases]
    began = time.monotonic()
    for turn in track(range(layers.repeats), description="Timing layers"):
        if turn >= FEWEST_ROUNDS and time.monotonic() - began > layers.seconds:
            break
        for (time_standard, time_separable), pairs in zip(timers, times, strict=True):
            if turn % 2:  # neither of the two always comes first
                second = time_separable()
                pairs.append((time_standard(), second))
            else:
                pairs.append((time_standard(), time_separable()))
    conditions: dict[str, object] = {"map_size": layers.map_size, "batch": layers.batch}
    conditions |= {"threads": 1, "device": _device(device), **hardware.versions()}
    rows = zip(cases, times, strict=True)
    return pd.DataFrame([_summary(case, pairs) | conditions for case, pairs in rows])


def _cases(layer_study: LayerStudy, precisions: list[str], device: str) -> Iterator[Case]:
    for kernel in layer_study.kernels:
        for channels in layer_study.widths:
            layers = [make(kernel, channels) for make in (standard, separable)]
            for layer in layers:
                layer.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            size = (layer_study.batch, channels, layer_study.map_size, layer_study.map_size)
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
    """Return a standard convolution: (N, channels, H, W) -> the same shape."""
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)


def separable(kernel: int, channels: int) -> nn.Module:
    """Return a depthwise convolution and a 1x1 one: (N, channels, H, W) -> the same shape."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
    )


def _forward(layer: nn.Module, images: Tensor) -> Tensor:
    """Run a layer as in training: with a graph, and weights that autocast converts once a pass."""
    bf16 = images.dtype == torch.bfloat16
    with torch.autocast(images.device.type, torch.bfloat16, bf16, cache_enabled=False):
        output: Tensor = layer(images)
        return output


def _backward(output: Tensor, inputs: list[Tensor]) -> object:
    return torch.autograd.grad(output, inputs, torch.ones_like(output), retain_graph=True)


def _timer(call: Callable[[], object], device: str) -> Callable[[], float]:
    """Warm `call` up, and return a function that measures the seconds of one call."""
    _seconds(call, 1, device)
    calls = math.ceil(SHORTEST / _seconds(call, 1, device))
    return partial(_seconds, call, calls, device)


def _seconds(call: Callable[[], object], calls: int, device: str) -> float:
    # One thread's processor time is its wall time without the time of other programs on the core.
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
    numbers = {"ratio": middle, "ratio_low": low, "ratio_high": high}
    for name, values in (("standard", standard_times), ("separable", separable_times)):
        numbers |= {name: statistics.median(values)}
        numbers |= {f"{name}_min": min(values), f"{name}_max": max(values)}
    row = dict(zip(Case._fields[:4], case[:4], strict=True)) | {"n": len(times)}
    return row | {name: float(f"{value:.4g}") for name, value in numbers.items()}


def _device(device: str) -> str:
    machine = hardware.describe()
    return str(machine["processor" if device == "cpu" else "accelerator"])


def _key(layers: LayerStudy, precisions: list[str]) -> str:
    """Hash all that decides the times: study, precisions, hardware, versions and this file."""
    source = Path(__file__).read_text()
    parts = (layers, precisions, hardware.describe(), hardware.versions(), source)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
