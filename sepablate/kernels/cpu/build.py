"""The kernels, compiled for this machine by torch's own tool and loaded into torch."""

import functools
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

SOURCES = sorted([*Path(__file__).parent.glob("*.cpp"), *Path(__file__).parent.glob("*.h")])
FLAGS = ("-O3", "-march=native", "-mprefer-vector-width=512", "-fno-math-errno")


@functools.cache
def load() -> str | None:
    """Load the kernels into torch, compiled for this machine if they are not yet: half a minute.

    Returns None, or the reason in one line why they cannot be used here.
    """
    name = f"sepablate_kernels_{digest()}"
    library = _cache() / f"{name}.so"
    try:
        if not library.exists():
            _compile(name, library)
        torch.ops.load_library(library)
    except (OSError, RuntimeError) as error:
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return None


def require() -> None:
    """Load them; RuntimeError with the reason if they cannot be used here."""
    if reason := load():
        raise RuntimeError(f"kernels: fused: {reason}")


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "sepablate"


def digest() -> str:
    """Of what a compiled library hangs on: source, flags, torch, the processor's features."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    features = [line for line in lines if line.startswith(("flags", "Features"))][:1]
    text = [torch.__version__, platform.machine(), *FLAGS, *features]
    text += [path.read_text() for path in SOURCES]
    return hashlib.sha256(repr(text).encode()).hexdigest()[:16]


def _compile(name: str, library: Path) -> None:
    """Whole or not at all; in a process of its own, because torch's tool loads what it makes."""
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        options = {
            "name": name,
            "sources": [str(path) for path in SOURCES if path.suffix == ".cpp"],
            "extra_cflags": ["-std=c++20", *FLAGS],
            "build_directory": folder,
            "is_python_module": False,
        }
        code = f"from torch.utils.cpp_extension import load; load(**{options!r})"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # of ninja
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": path},
        )
        if done.returncode:
            raise RuntimeError(_reason(done.stderr))
        (Path(folder) / library.name).replace(library)


def _reason(output: str) -> str:
    """The first line that tells of an error, or the last one."""
    lines = output.strip().splitlines() or ["no reason given"]
    return next((line for line in lines if "error:" in line), lines[-1])
