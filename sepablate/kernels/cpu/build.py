"""Compile the C++ kernels for this machine, and load them as torch.ops.sepablate."""

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from sepablate.kernels.cpu import layers
from sepablate.kernels.cpu.fake import register_fakes

SOURCES = sorted(
    path
    for path in Path(__file__).parent.iterdir()
    if path.suffix in (".cpp", ".h") and path.name[0] not in ".#"  # else an editor's copy
)
FLAGS = ("-O3", "-march=native", "-mprefer-vector-width=512", "-fno-math-errno", "-fopenmp")


@functools.cache
def load_library() -> str | None:
    """Load the operators, their fakes and layers; compile them first, in half a minute, if needed.

    Returns None, or the reason in one line why the kernels cannot be used on this machine.
    """
    name = f"sepablate_kernels_{digest()}"
    library = _cache_folder() / f"{name}.so"
    try:
        if not library.exists():
            _compile(name, library)
        torch.ops.load_library(library)
    except (OSError, RuntimeError) as error:
        return str(error).strip().partition("\n")[0] or type(error).__name__
    register_fakes()
    layers.register()
    return None


def require() -> None:
    """Load the operators, or raise RuntimeError with the reason why they cannot be used."""
    if reason := load_library():
        raise RuntimeError(f"fused kernels unavailable ({reason})")


def digest() -> str:
    """Return a hash of what decides the compiled code: sources, flags, torch, processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    features = [line for line in lines if line.startswith(("flags", "Features"))][:1]
    text = [torch.__version__, platform.machine(), *FLAGS, *features]
    text += [path.read_text() for path in SOURCES]
    return hashlib.sha256(repr(text).encode()).hexdigest()[:16]


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "sepablate"


def _compile(name: str, library: Path) -> None:
    """Compile `library`, whole or not at all.

    In a process of its own, because torch's extension builder also loads what it compiles.
    """
    compiler = os.environ.get("CXX", "c++")  # the one that torch's builder takes
    if not shutil.which(compiler):
        raise RuntimeError(f"no C++ compiler: {compiler!r} is not on the path")
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        options = {
            "name": name,
            "sources": [str(path) for path in SOURCES if path.suffix == ".cpp"],
            "extra_cflags": ["-std=c++20", *FLAGS],
            "extra_ldflags": ["-fopenmp"],  # finds the OpenMP that torch has loaded
            "build_directory": folder,
            "is_python_module": False,
        }
        code = f"from torch.utils.cpp_extension import load; load(**{options!r})"
        python_folder = Path(sys.executable).parent  # where ninja is
        process = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": f"{python_folder}{os.pathsep}{os.environ.get('PATH', '')}"},
        )
        if process.returncode:
            raise RuntimeError(_error_line(process.stderr))
        (Path(folder) / library.name).replace(library)


def _error_line(output: str) -> str:
    """Return the first line of the compiler's output that reports an error, or the last line."""
    lines = output.strip().splitlines() or ["no reason given"]
    return next((line for line in lines if "error:" in line), lines[-1])
