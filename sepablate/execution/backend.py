"""Select the backend of a run: the precision, and the kernels that compute the layers.

The answer to "auto" is measured once for a machine and kept in .sepablate/, so that a busy moment
cannot change it between runs. That kernels could not be built is no answer, and is not kept.
"""

import contextlib
import copy
import functools
import json
import os
import select
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sepablate import models
from sepablate.errors import UserError
from sepablate.execution import hardware
from sepablate.kernels.cpu import build
from sepablate.kernels.fuse import apply_fused_kernels
from sepablate.models.weight_init import init_weights
from sepablate.models.xception import Xception
from sepablate.runs.run import Run
from sepablate.runs.source_hash import kernels_digest
from sepablate.store.files import locked, read_json, write_atomically

MAX_BF16_ERROR = 0.05  # relative, of a gradient against fp32: bf16 keeps 8 bits
MAX_TIME_RATIO = 0.9  # bf16 must take at most this fraction of fp32's time, kernels of torch's
# The kernels' error against fp32 may be this many times that of torch's bf16 operators, and more.
ERROR_FACTOR, ERROR_MARGIN = 1.5, 0.02
KERNELS = ("fused", "triton", "torch")
PATIENCE = 600  # seconds for the C++ kernels to be compiled and tried
PROBE = {"classes": 10, "in_channels": 1, "width": 0.125, "stem_stride": 1, "padding": "same"}


class Unavailable(Exception):  # noqa: N818 (says what is missing)
    """Fused kernels cannot be used here; the message says why."""


def select_backend(run: Run, folder: Path) -> Run:
    """Return the run with its precision and its kernels selected.

    Args:
        folder: where the answers to "auto" are kept.

    Raises UserError if the run demands what this machine does not have.
    """
    precision = select_precision(run.precision, folder)
    return run.with_backend(precision, _select_kernels(run, precision, folder))


def select_precision(wanted: str, folder: Path) -> str:
    """Return "fp32" or "bf16": the one wanted, or for "auto" the better one on this machine."""
    if wanted != "auto":
        return wanted
    return remember(folder / "precision.json", _better_precision, ("fp32", "bf16"))


def remember(
    path: Path, measure: Callable[[], str], choices: Sequence[str], *depends_on: str
) -> str:
    """Return what `measure` returned on this machine the first time, kept in a file.

    Args:
        choices: the valid answers; in place of another one, it is measured again.
        depends_on: what the answer depends on in addition to hardware and versions.
    """
    machine = json.dumps([hardware.describe(), hardware.versions(), *depends_on], sort_keys=True)
    with locked(path.with_suffix(".lock")):  # processes of torchrun measure one after the other
        answers = _read_answers(path)
        answer = answers.get(machine)
        if answer not in choices:
            if answer is not None or machine in answers:
                valid = " or ".join(choices)
                _say(f"{path}: {answer!r} for this machine is not {valid}; measuring again")
            answer = answers[machine] = measure()
            write_atomically(path, json.dumps(answers, indent=1))
    return str(answer)


def _read_answers(path: Path) -> dict[str, Any]:
    """Return the answers of all machines; none if the file was damaged, which is said."""
    if not path.exists():
        return {}
    try:
        return read_json(path, dict)
    except UserError as error:
        _say(f"{error}; measuring again")
        return {}


@functools.cache
def _say(line: str) -> None:
    """Print a line on stderr, once."""
    print(f"sepablate: {line}", file=sys.stderr)


def _better_precision() -> str:
    torch.set_flush_denormal(True)  # before threads start, which take it over
    device = hardware.devices()[0]
    if bf16_error(device) >= MAX_BF16_ERROR:
        return "fp32"
    if device == "cpu":
        return "bf16" if bf16_time_ratio(device) < MAX_TIME_RATIO else "fp32"
    # A GPU computes so small a probe in no time, which says nothing of real networks.
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def bf16_error(device: str) -> float:
    """Return the relative error of the worst bf16 weight gradient of a small network."""
    gradients = []
    for enabled in (False, True):
        network, images = _separable_probe(device)
        _forward_backward(network, images, enabled)
        gradients.append(_gradients(network))
    pairs = zip(*gradients, strict=True)
    return max(((fp32 - bf16).norm() / fp32.norm()).item() for fp32, bf16 in pairs)


def bf16_time_ratio(device: str) -> float:
    """Return the time of both passes in bf16 as a fraction of fp32's: medians, interleaved."""
    torch.set_num_threads(1)
    network, images = _separable_probe(device)
    passes = [functools.partial(_forward_backward, network, images, bf16) for bf16 in (True, False)]
    return _time_ratio(passes, repeats=12)


def _select_kernels(run: Run, precision: str, folder: Path) -> str:
    """Return "fused" (C++, on a CPU), "triton" (on a GPU) or "torch"."""
    device = hardware.devices()[0]
    if run.kernels == "torch" or (run.kernels == "auto" and precision != "bf16"):
        return "torch"
    if run.kernels == "auto":
        digest = build.digest() if device == "cpu" else kernels_digest("triton")
        measure = functools.partial(_better_kernels, device, run.threads)
        try:
            return remember(
                folder / "kernels.json", measure, KERNELS, digest, f"{run.threads} threads"
            )
        except Unavailable as error:
            _say(f"fused kernels unavailable ({error}); using PyTorch kernels")
            return "torch"
    reason = why_unavailable(device) if precision == "bf16" else "they compute in bf16"
    if reason:
        raise UserError(f"scale {run.scale_name!r}: kernels: 'fused': {reason}; choose auto, torch")
    return "fused" if device == "cpu" else "triton"


def _better_kernels(device: str, threads: int) -> str:
    """Return the faster kernels; raise Unavailable where there are only PyTorch's."""
    if reason := why_unavailable(device):
        raise Unavailable(reason)
    if device != "cpu":
        return "triton"  # what they save shows in a recorded step, not in one pass
    return "fused" if fused_time_ratio(threads) < MAX_TIME_RATIO else "torch"


def why_unavailable(device: str) -> str | None:
    """Return why fused kernels cannot be used here, in one line; None if they can."""
    return triton_failure(device) if device != "cpu" else cpu_failure()


@functools.cache
def cpu_failure() -> str | None:
    """Return why the C++ kernels cannot be used here, in one line; None if they can.

    A fork tries, which compiles them if needed: an instruction that the processor does not have, as
    of a library that was compiled for another one, ends a process without a word.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):  # also of Ctrl-C, which its parent gets as well
            torch.set_num_threads(1)  # a fork has none of OpenMP's other threads
            os.write(writer, (_load_failure() or _matrix_product_failure() or "").encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, errors="replace") as answer:
        late = not select.select([answer], [], [], PATIENCE)[0]
        if late:
            os.kill(child, signal.SIGKILL)
        reason = answer.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        end = f"no answer in {PATIENCE} s" if late else signal.Signals(os.WTERMSIG(status)).name
        return f"{end} on this processor; delete {build._cache_folder()} to compile them again"
    return reason or _load_failure()


def _load_failure() -> str | None:
    """Return why the C++ kernels cannot be compiled or loaded, in one line; None if they are."""
    try:
        reason = build.load_library()
    except (AttributeError, RuntimeError) as error:  # a library without the operators
        reason = " ".join(str(error).split())[:200]
    python = sys.prefix
    space = f"; the space in {python} may be why: move the environment" if " " in python else ""
    return reason and reason + space


def _matrix_product_failure() -> str | None:
    """Return why this processor cannot compute ATen's bf16 brgemm; None if it can."""
    try:
        torch.ops.sepablate.convolution(torch.zeros(1, 2, 1, 1), torch.zeros(2, 2, 1, 1), 1, 0, 0)
    except RuntimeError:
        return "the processor has no bf16 matrix products: AVX-512 or AMX"
    return None


def triton_failure(device: str) -> str | None:
    """Return why the Triton kernels cannot be used on a GPU; None if they can."""
    try:
        torch_error, triton_error = kernel_errors(device)
    except torch.cuda.OutOfMemoryError:
        raise UserError(f"{device}: no memory for a check of the kernels; free some") from None
    except Exception as error:  # Triton's own errors have no base in common
        return f"Triton: {str(error).strip().partition(chr(10))[0] or type(error).__name__}"
    if triton_error < ERROR_FACTOR * torch_error + ERROR_MARGIN:
        return None
    return (
        f"Triton: outputs and gradients have a relative error of {triton_error:.2g}, "
        f"torch's in bf16 {torch_error:.2g}"
    )


def kernel_errors(device: str) -> tuple[float, float]:
    """Return the relative errors of outputs and gradients in bf16: torch's, and the kernels'.

    Means over the weights of Xception's first blocks, which have every kind of layer: in a deep
    network errors grow until they hide all others.
    """
    whole = Xception(**PROBE)  # type: ignore[arg-type]
    init_weights(whole, 0)
    plain = nn.Sequential(whole.stem, whole.entry, whole.middle[0])
    plain.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    images = torch.randn(16, 1, 28, 28, generator=torch.Generator().manual_seed(0)).to(device)
    by_torch, by_kernels = copy.deepcopy(plain), apply_fused_kernels(copy.deepcopy(plain))
    exact = _outputs_and_gradients(plain, images, False)
    return (
        _mean_error(_outputs_and_gradients(by_torch, images, True), exact),
        _mean_error(_outputs_and_gradients(by_kernels, images, True), exact),
    )


def fused_time_ratio(threads: int) -> float:
    """Return the time of both passes by the C++ kernels as a fraction of torch's: medians."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    images = torch.rand(16, 1, 28, 28)
    plain, fused = (models.build("xception", **PROBE).train() for _ in range(2))
    networks = (apply_fused_kernels(fused), plain)
    return _time_ratio([functools.partial(_forward_backward, n, images, True) for n in networks], 9)


def _time_ratio(passes: Sequence[Callable[[], object]], repeats: int) -> float:
    """Return the median time of the first pass as a fraction of the second's, interleaved."""
    times: list[list[float]] = [[] for _ in passes]
    for _ in range(repeats):
        for compute, taken in zip(passes, times, strict=True):
            began = time.perf_counter()
            compute()
            taken.append(time.perf_counter() - began)
    first, second = (statistics.median(taken[2:]) for taken in times)
    return first / second


def _separable_probe(device: str) -> tuple[nn.Module, Tensor]:
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


def _forward_backward(network: nn.Module, images: Tensor, bf16: bool) -> Tensor:
    """Compute gradients in bf16 or fp32; return the outputs in fp32."""
    network.zero_grad()
    with torch.autocast(images.device.type, torch.bfloat16, bf16):
        outputs: Tensor = network(images).float()
    outputs.square().sum().backward()
    if images.device.type != "cpu":
        torch.cuda.synchronize()
    return outputs.detach()


def _outputs_and_gradients(network: nn.Module, images: Tensor, bf16: bool) -> list[Tensor]:
    return [_forward_backward(network, images, bf16), *_gradients(network)]


def _gradients(network: nn.Module) -> list[Tensor]:
    return [weight.grad for weight in network.parameters() if weight.grad is not None]


def _mean_error(computed: list[Tensor], exact: list[Tensor]) -> float:
    pairs = zip(computed, exact, strict=True)
    return statistics.mean(((one - true).norm() / true.norm()).item() for one, true in pairs)
