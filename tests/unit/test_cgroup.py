"""A container's limits, read from a made-up tree of control groups."""

import contextlib
import errno
import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.project import ROOT, wait_for

from sepablate.errors import UserError
from sepablate.execution import cgroup
from sepablate.planning import calibration


def write_groups(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")


GIB = 2**30
SWAPS = Path("/proc/swaps")  # a line of titles, and one for each
GROUPS = {
    "v2": (
        "0::/pod/own",
        {
            "pod/cpu.max": "150000 100000",
            "pod/own/cpu.max": "max 100000",
            "pod/memory.max": str(2 * GIB),
            "pod/memory.current": str(GIB),
            "pod/memory.stat": f"anon 1\ninactive_file {GIB // 2}",
            "pod/own/memory.max": "max",
            "pod/own/memory.current": str(GIB),
        },
    ),
    "v2, seen from a container": (
        "0::/",
        {
            "cpu.max": "150000 100000",
            "memory.max": str(2 * GIB),
            "memory.current": str(GIB),
            "memory.stat": f"inactive_file {GIB // 2}",
        },
    ),
    "v1": (
        "4:memory:/docker/c0ffee\n2:cpu,cpuacct:/docker/c0ffee\n0::/",
        {
            "cpu/cpu.cfs_quota_us": "150000",
            "cpu/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": str(2 * GIB),
            "memory/memory.usage_in_bytes": str(GIB),
            "memory/memory.stat": f"total_inactive_file {GIB // 2}",
        },
    ),
}


@pytest.mark.parametrize("version", GROUPS)
def test_a_container_s_quota_and_memory_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    own, files = GROUPS[version]
    write_groups(tmp_path / "fs", files)
    write_groups(tmp_path, {"own": own, "meminfo": f"MemAvailable: {64 * GIB // 1024} kB"})
    monkeypatch.setattr(cgroup, "ROOT", tmp_path / "fs")
    monkeypatch.setattr(cgroup, "OWN", tmp_path / "own")
    monkeypatch.setattr(cgroup, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert cgroup.cores() == 2
    assert cgroup.memory_free() == GIB + GIB // 2


def test_without_limits_all_cores_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ROOT", "OWN", "MEMINFO"):
        monkeypatch.setattr(cgroup, name, tmp_path / "nothing")
    assert cgroup.cores() == len(os.sched_getaffinity(0))
    assert cgroup.memory_free() is None


def test_the_cores_of_taskset_are_those_that_are_used() -> None:
    own = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(own)})
        assert cgroup.cores() == 1
    finally:
        os.sched_setaffinity(0, own)


REAL = {  # by the file that the group then has: the controllers, and what limits a group
    "cpu.cfs_quota_us": (
        ("cpu", "memory"),
        {"cpu.cfs_quota_us": "90000", "memory.limit_in_bytes": str(GIB)},
    ),
    "cpu.max": (("",), {"cpu.max": "90000 100000", "memory.max": str(GIB)}),
}


@pytest.fixture
def real_group() -> Iterator[list[Path]]:
    """Control groups of this machine for less than a core and 1 GiB, of v1 or v2."""
    made: list[Path] = []
    try:
        for file, (controllers, limits) in REAL.items():
            folders = [cgroup.ROOT / each / f"test-{os.getpid()}" for each in controllers]
            with contextlib.suppress(OSError):
                for folder in folders:
                    folder.mkdir()
                    made.append(folder)
                    for name in limits.keys() & {path.name for path in folder.iterdir()}:
                        (folder / name).write_text(limits[name])
                if (made[0] / file).exists():
                    yield made
                    return
        pytest.skip("may not make control groups")
    finally:
        for folder in made:
            wait_for(functools.partial(removed, folder), seconds=20)


def removed(group: Path) -> bool:
    """Remove a control group, unless a process that was killed in it is not gone yet."""
    try:
        group.rmdir()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


JOIN = """
import os, sys
for folder in sys.argv[1:]:
    with open(f"{folder}/cgroup.procs", "w") as file:
        file.write(str(os.getpid()))
"""
SHOW = """
from sepablate.execution import cgroup, environment
print(cgroup.cores(), cgroup.memory_free())
environment.warn_of_little_memory()
"""


def test_the_limits_of_a_real_group_are_seen(real_group: list[Path]) -> None:
    command = [sys.executable, "-c", JOIN + SHOW, *map(str, real_group)]
    own = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=own, capture_output=True, text=True)
    cores, free = done.stdout.split()
    assert cores == "1", done.stderr
    assert GIB // 2 < int(free) <= GIB
    words = r"\d+ MiB of memory are free, of about 1024 that this takes; it may be killed"
    assert re.fullmatch(f"sepablate: {words}\n", done.stderr), done.stderr


TRAIN = """
for name in ("memory.limit_in_bytes", "memory.max"):
    if os.path.exists(f"{folder}/{name}"):
        with open(f"{folder}/{name}", "w") as file:
            file.write(str(650 << 20))
os.execv(sys.executable, [sys.executable, "-m", "sepablate", "train", "xception", "--no-mlflow"])
"""


@pytest.mark.slow
@pytest.mark.skipif(len(SWAPS.read_text().splitlines()) > 1, reason="memory that is swapped out")
def test_a_training_without_the_memory_for_it_says_so(real_group: list[Path], half: Path) -> None:
    command = [sys.executable, "-c", JOIN + TRAIN, *map(str, real_group)]
    done = subprocess.run(command, cwd=half, capture_output=True, text=True)
    assert done.returncode in (1, 2), done.stdout + done.stderr
    warning, *lines = done.stderr.strip().splitlines()
    assert warning.endswith("of about 1024 that this takes; it may be killed")
    assert lines, done.stdout
    assert all("a process was killed, perhaps for lack of memory: free" in line for line in lines)


@pytest.mark.parametrize(
    "code", ["import os; os.kill(os.getpid(), 9)", "import os; os.abort()", "raise EOFError"]
)
def test_a_killed_process_of_the_plan_is_one_line(code: str) -> None:
    """As by a container that has less memory than a start takes; it, or the server it starts."""
    with pytest.raises(UserError, match="was killed, perhaps for lack of memory"):
        calibration.time_startup(code)
