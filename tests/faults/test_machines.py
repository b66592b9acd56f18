"""Machines that lack something: instructions, locks of files, the environment's packages."""

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import images
from helpers.environments import command, python, refused
from helpers.project import QUICK, ROOT, STUDY, TRAIN, copy_project, edit_params
from helpers.records import folder, write_results

from sepablate.kernels.cpu import build

__all__ = ["folder"]
C_COMPILER = shutil.which("cc")
needs_c = pytest.mark.skipif(C_COMPILER is None, reason="no C compiler")


def compiled(source: str, library: Path) -> Path:
    """A shared library of C code."""
    library.parent.mkdir(parents=True, exist_ok=True)
    options = ["-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run([str(C_COMPILER), *options], input=source, text=True, check=True)
    return library


AT_LOAD = "#include <unistd.h>\n__attribute__((constructor)) static void at_load(void) {{ {} }}"
LIBRARIES = {
    "trap": AT_LOAD.format("__builtin_trap();"),  # an instruction that no processor has
    "crash": AT_LOAD.format("*(volatile int *)0 = 1;"),
    "abort": "#include <stdlib.h>\n" + AT_LOAD.format("abort();"),
    "hang": AT_LOAD.format("for (;;) pause();"),
    "empty": "int nothing;",
}
OLD_PROCESSOR = """
import dataclasses, os, sys, torch
from pathlib import Path
from helpers.tiny_runs import tiny
from sepablate.execution import backend
for name in sys.argv[1:]:
    os.environ["XDG_CACHE_HOME"] = name
    backend.PATIENCE = 1 if name.endswith("hang") else 600
    backend.build.load_library.cache_clear()
    backend.cpu_failure.cache_clear()
    print(backend.why_unavailable("cpu"))
os.environ["XDG_CACHE_HOME"] = sys.argv[1]
backend.build.load_library.cache_clear()
backend.cpu_failure.cache_clear()
run = dataclasses.replace(tiny(), kernels="auto", precision="bf16", threads=1)
print(backend.select_backend(run, Path()).kernels)
print(torch.backends.nnpack.set_flags(False))
"""


@needs_c
def test_kernels_of_another_processor_are_a_line_and_pytorch_trains(tmp_path: Path) -> None:
    """Such a library ends a process without a word; this one goes on."""
    name = f"sepablate/sepablate_kernels_{build.digest()}.so"
    for each, source in LIBRARIES.items():
        compiled(source, tmp_path / each / name)
    (tmp_path / "cut" / name).parent.mkdir(parents=True)
    (tmp_path / "cut" / name).write_bytes((tmp_path / "empty" / name).read_bytes()[:40])
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    own = {"PYTHONPATH": paths, "ATEN_CPU_CAPABILITY": "default"}
    folders = [str(tmp_path / each) for each in (*LIBRARIES, "cut")]
    done = python(tmp_path, "-c", OLD_PROCESSOR, *folders, **own)
    *reasons, kernels, nnpack = done.stdout.splitlines()
    ends = ("SIGILL", "SIGSEGV", "SIGABRT", "no answer in 1 s")
    for reason, end, each in zip(reasons, ends, LIBRARIES, strict=False):
        remedy = f"delete {tmp_path / each}/sepablate to compile them again"
        assert reason == f"{end} on this processor; {remedy}"
    assert "convolution" in reasons[4]
    assert name in reasons[5]
    assert kernels == "torch"
    (line,) = done.stderr.splitlines()
    assert line.startswith("sepablate: fused kernels unavailable (SIGILL on this processor; ")
    assert line.endswith("; using PyTorch kernels")
    assert nnpack == "(False,)"  # or PyTorch warns, at each convolution, that it needs AVX2


NO_DRIVER = """
#include <stdlib.h>
int nvmlInit(void) { return 0; }
int nvmlDeviceGetCount_v2(int *count) { *count = 1; return 0; }
int cuInit(unsigned flags) { return atoi(getenv("DRIVER")); }
int cuDriverGetVersion(int *version) { *version = 13020; return 0; }
int cuGetProcAddress_v2(char *name, void **function, int version, long flags, int *found) {
    *function = (void *)cuInit; return 0; }
"""
BACKWARD = """
import torch
from sepablate.execution import hardware
print(hardware.devices(), hardware.devices(), hardware.describe()["accelerator"])
print(torch.cuda.is_available())  # by which the loader of images decides
torch.ones(1, requires_grad=True).sum().backward()
"""


@pytest.fixture(scope="module")
def broken_gpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of a process that counts a GPU, of which the driver then knows nothing."""
    folder = tmp_path_factory.mktemp("driver")
    for name in ("libnvidia-ml.so.1", "libcuda.so.1"):
        compiled(NO_DRIVER, folder / name)
    counted = {"LD_LIBRARY_PATH": str(folder), "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
    return {**counted, "DRIVER": "100"}


needs_cuda = pytest.mark.skipif(torch.version.cuda is None, reason="needs PyTorch with CUDA")
UNUSABLE = r"sepablate: GPU unusable \([^\n]+\); using the CPU\n"


@needs_c
@needs_cuda
@pytest.mark.parametrize(("number", "counted"), [("999", False), ("804", True)])
def test_a_gpu_that_is_there_but_unusable_is_one_line(
    tmp_path: Path, broken_gpu: dict[str, str], number: str, counted: bool
) -> None:
    """Where it is not counted, PyTorch warns in two lines that the driver fails."""
    variables = {**broken_gpu, "DRIVER": number}
    if not counted:
        (tmp_path / "libcuda.so.1").symlink_to(Path(broken_gpu["LD_LIBRARY_PATH"]) / "libcuda.so.1")
        (tmp_path / "libnvidia-ml.so.1").write_text("")
        variables |= {"LD_LIBRARY_PATH": str(tmp_path), "PYTORCH_NVML_BASED_CUDA_CHECK": "0"}
    done = python(tmp_path, "-c", BACKWARD, **variables)
    assert done.stdout == "['cpu'] ['cpu'] none\nFalse\n", done.stderr
    assert re.fullmatch(UNUSABLE, done.stderr), done.stderr


@needs_c
@needs_cuda
@pytest.mark.slow
def test_images_on_disk_are_trained_on_without_the_gpu_that_is_counted(
    tmp_path: Path, data_folder: Path, broken_gpu: dict[str, str]
) -> None:
    """The loader would copy each batch to memory of the driver."""
    project = copy_project(tmp_path, [QUICK])
    images.class_folders(project / "data/imagenet", data_folder)
    small = {"image_size": 32, "images": 27, "batch_size": 9, "validation_images": 3}
    small |= {"dataset": "imagenet", "classes": 3, "test_images": 12, "seeds": [0]}
    edit_params(project, **small, epochs=1, evaluations=1, workers=1)
    done = command(project, *TRAIN, **broken_gpu, PYTHONPATH=None)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(UNUSABLE, done.stderr), done.stderr  # by no worker again


NO_LOCKS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
static int refuse(void) { errno = atoi(getenv("NO_LOCKS")); return -1; }
int flock(int file, int wanted) { return refuse(); }
#define REFUSING(name) int name(int file, int wanted, ...) { \\
    va_list rest; va_start(rest, wanted); void *value = va_arg(rest, void *); va_end(rest); \\
    int (*real)(int, int, ...) = dlsym(RTLD_NEXT, #name); \\
    if (wanted == F_SETLK || wanted == F_SETLKW) return refuse(); \\
    return real(file, wanted, value); }
REFUSING(fcntl)
REFUSING(fcntl64)
"""


@pytest.fixture(scope="module")
def without_locks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of a process for which no file system has locks."""
    library = compiled(NO_LOCKS, tmp_path_factory.mktemp("library") / "no_locks.so")
    return {"LD_PRELOAD": str(library), "NO_LOCKS": str(errno.ENOLCK)}


LOCK = "from pathlib import Path; from sepablate.store import files\n"
LOCK += "with files.locked(Path('lock')): pass"


@needs_c
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_named(
    tmp_path: Path, without_locks: dict[str, str], number: int
) -> None:
    done = python(tmp_path, "-c", LOCK, **{**without_locks, "NO_LOCKS": str(number)})
    words = f"lock: this file system has no locks ({os.strerror(number)}), without which two "
    assert words in done.stderr.splitlines()[-1]


@needs_c
def test_training_is_refused_without_locks_and_the_doctor_says_why(
    small: Path, without_locks: dict[str, str]
) -> None:
    shutil.copy(ROOT / f"experiments/{STUDY}.py", "experiments")
    Path("data").symlink_to(ROOT / "data")
    train = command(small, *TRAIN, "--scale", "smoke", **without_locks)
    assert refused(train, ".lock: this file system has no locks", "work on another disk")
    doctor = command(small, "doctor", **without_locks)
    words = "this file system has no locks (No locks available), which training, DVC and MLflow"
    assert f"{small}: {words} need: work on another disk" in doctor.stdout
    assert not list(Path("results").glob("*"))


@needs_c
@pytest.mark.usefixtures("folder")
def test_mlflow_is_a_line_without_locks(without_locks: dict[str, str]) -> None:
    write_results()
    shutil.copy(ROOT / "params.yaml", ".")
    done = command(Path.cwd(), "publish", "--scale", "smoke", **without_locks)
    assert refused(done, "MLflow at sqlite:", "`sepablate publish` fills the gap", status=1)
    Path("mlflow.db").unlink()
    done = command(Path.cwd(), "publish", "--scale", "smoke", **without_locks)
    assert refused(done, "mlflow.lock: this file system has no locks", "work on another disk")
    assert not [path for path in Path().iterdir() if path.name.startswith("mlflow.db")]


NO_HARD_LINKS = """
#include <errno.h>
int link(const char *from, const char *to) { errno = EPERM; return -1; }
int linkat(int a, const char *from, int b, const char *to, int how) { errno = EPERM; return -1; }
"""


@needs_c
@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_mlflow_needs_no_hard_links(tmp_path: Path) -> None:
    write_results()
    shutil.copy(ROOT / "params.yaml", ".")
    Path("mlflow.db").unlink()
    library = str(compiled(NO_HARD_LINKS, tmp_path / "library/no_links.so"))
    refuses = (
        "import os\ntry: os.link('params.yaml', 'linked')\nexcept PermissionError: print('no')"
    )
    assert python(Path.cwd(), "-c", refuses, LD_PRELOAD=library).stdout == "no\n"
    done = command(Path.cwd(), "publish", "--scale", "smoke", LD_PRELOAD=library)
    assert (done.returncode, done.stderr) == (0, "")
    assert "MLflow: " in done.stdout


@pytest.mark.parametrize("arguments", [["list"], ["doctor"], ["--help"]])
def test_a_python_without_the_packages_is_one_line(tmp_path: Path, arguments: list[str]) -> None:
    """As where DVC is started by its path, and `python` is the system's."""
    done = python(tmp_path, "-S", "-m", "sepablate", *arguments)
    assert refused(done, f"{sys.executable} has no typer", "`source .venv/bin/activate`")
