"""Small libraries in the place of NVIDIA's, which a machine without a GPU does not need.

    python -m sepablate.execution.gpu_stubs

PyTorch of the package index does not load without libraries of 2 GB (cuBLAS, cuDNN, NCCL and
others), although it calls none of them where there is no GPU. This makes one for each that is
missing, in torch/lib, which PyTorch searches last: all its functions return an error. PyTorch's own
files stay as they are, and with them its version and the numbers that it computes.
"""

import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

from sepablate.errors import UserError

MAKERS = ("cuda", "cublas", "cudnn", "cufft", "cusolver", "cusparse", "nccl", "nvrtc", "nvshmem")
WHY = "the environment was made without NVIDIA's libraries"


def write_stubs(site: Path) -> list[str]:
    """Write the missing libraries of `site`/torch; return their names.

    Args:
        site: the folder of installed packages.

    Raises UserError without g++ and binutils.
    """
    for tool in ("g++", "nm", "objdump"):
        if shutil.which(tool) is None:
            raise UserError(f"{tool} not found: install g++, which brings it")
    folder = site / "torch/lib"
    users = sorted(folder.glob("libtorch*.so"))
    needed = {name for user in users for name in _needed(user) if maker(name)}
    present = {path.name for path in [*folder.iterdir(), *site.glob("nvidia/*/lib/*")]}
    symbols = {symbol for user in users for symbol in _undefined(user)}
    missing = sorted(needed - present)
    for name in missing:
        mine = {each for each in symbols if each[1] == name or not each[1].startswith("lib")}
        _compile(folder / name, {each for each in mine if each[0].startswith(maker(name))})
    return missing


def maker(library: str) -> str:
    """Return with what the names of a library's functions begin; "" if it is not NVIDIA's."""
    return next((each for each in MAKERS if library.startswith(f"lib{each}")), "")


def _needed(library: Path) -> list[str]:
    """Return the names of the libraries that a library needs."""
    lines = _output("objdump", "-p", library)
    return [line.split()[1] for line in lines if line.strip().startswith("NEEDED")]


def _undefined(library: Path) -> list[tuple[str, str]]:
    """Return the functions that a library needs of others, each with its version, or ""."""
    names = [line.split()[-1] for line in _output("nm", "-Du", "--with-symbol-versions", library)]
    return [(name, version) for name, _, version in (each.partition("@") for each in names)]


def _output(*command: str | Path) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def _compile(path: Path, symbols: set[tuple[str, str]]) -> None:
    """Compile a library whose functions return 1, which is an error, or say why."""
    code = [
        f'const char *{name}() {{ return "{WHY}"; }}'
        if "Error" in name or "String" in name
        else f"int {name}() {{ return 1; }}"
        for name in sorted({name for name, _ in symbols})
    ]
    version = max((version for _, version in symbols), default="")
    with tempfile.TemporaryDirectory() as folder:
        source, names = Path(folder, "stubs.cpp"), Path(folder, "versions")
        source.write_text('extern "C" {\n' + "\n".join(code) + "\n}\n")
        names.write_text(f"{version} {{ global: *; }};\n")
        flags = ["-shared", "-fPIC", "-nostdlib", f"-Wl,-soname,{path.name}"]
        flags += [f"-Wl,--version-script={names}"]
        subprocess.run(["g++", *flags, source, "-o", path], check=True)


if __name__ == "__main__":
    found = importlib.util.find_spec("torch")
    assert found is not None
    assert found.origin is not None
    print("stubs:", *write_stubs(Path(found.origin).parents[1]))
