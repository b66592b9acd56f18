"""The cores and the memory that a container may use: limits of its control groups, v1 and v2."""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
MEMINFO = Path("/proc/meminfo")


def cores() -> int:
    """Return how many cores this process may use, by its affinity and by its quota of time."""
    count = getattr(os, "process_cpu_count", os.cpu_count)() or 1  # of Python 3.13
    if hasattr(os, "sched_getaffinity"):
        count = min(count, len(os.sched_getaffinity(0)))
    quotas = [math.ceil(quota) for folder in _folders("cpu") if (quota := _quota(folder))]
    return max(1, min([count, *quotas]))


def memory_free() -> int | None:
    """Return the bytes of memory that are free for this process; None where it is unknown."""
    lines = MEMINFO.read_text().splitlines() if MEMINFO.exists() else []
    sizes = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    limits = [left for folder in _folders("memory") if (left := _memory_left(folder)) is not None]
    return min([*sizes, *limits], default=None)


def _folders(controller: str) -> Iterator[Path]:
    """Yield this process's group and those above it. A container sees its own as the root."""
    for line in OWN.read_text().splitlines() if OWN.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = ROOT / controller if controllers else ROOT
        group = root / path.lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root))


def _quota(folder: Path) -> float | None:
    """Return the cores of a group's quota; None without one."""
    if both := _read(folder / "cpu.max", str.split):
        quota, period = both[0], both[1]
        return None if quota == "max" else int(quota) / int(period)
    quota_us = _read(folder / "cpu.cfs_quota_us", int)
    period_us = _read(folder / "cpu.cfs_period_us", int)
    return quota_us / period_us if quota_us and period_us and quota_us > 0 else None


def _memory_left(folder: Path) -> int | None:
    """Return the bytes below a group's limit; its cache of files counts as free."""
    for limit_name, used_name, cache_name in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, used = _read(folder / limit_name, int), _read(folder / used_name, int)
        if limit is not None and used is not None:
            statistics = dict(_read(folder / "memory.stat", _pairs) or ())
            return max(0, limit - used + int(statistics.get(cache_name, 0)))
    return None


def _pairs(text: str) -> list[list[str]]:
    return [words for line in text.splitlines() if len(words := line.split()) == 2]


def _read(path: Path, parse: Callable[[str], T]) -> T | None:
    """Return the content of a file of the kernel; None if there is none, or "max"."""
    try:
        return parse(path.read_text())
    except (OSError, ValueError):
        return None
