"""A container's limits, read from a made-up tree of control groups."""

import os
from pathlib import Path

import pytest

from sepablate.execution import cgroup


def write_groups(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")


GIB = 2**30
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
