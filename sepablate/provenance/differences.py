"""Two versions of a result compared, and where they part."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROUNDING = 1e-9  # of one number computed on two machines
AROUND = 24  # characters shown on either side of a difference


def in_bytes(path: Path, expected: bytes, origin: str) -> Iterator[str]:
    """A line if the file is not, byte for byte, the `expected` that follows from `origin`."""
    found = path.read_bytes() if path.is_file() else b""
    if not path.is_file():
        yield f"{path}: missing, but follows from {origin}"
    elif found != expected:
        yield f"{path}, {_place(found, expected)}; does not follow from {origin}"


def _place(found: bytes, expected: bytes) -> str:
    pairs = enumerate(zip(found, expected, strict=False))
    at = next((at for at, (a, b) in pairs if a != b), min(len(found), len(expected)))
    try:
        ours, theirs = found.decode(), expected.decode()
    except UnicodeDecodeError:
        return f"byte {at + 1}"
    at = len(found[:at].decode(errors="ignore"))
    shown = [" ".join(each[max(at - AROUND, 0) : at + AROUND].split()) for each in (ours, theirs)]
    line = ours[:at].count("\n") + 1
    return f"line {line}: '...{shown[0]}...' for '...{shown[1]}...'"


def in_numbers(found: Any, expected: Any, place: str = "") -> Iterator[str]:
    """The places in two JSON values that differ by more than rounding."""
    if isinstance(found, dict) and isinstance(expected, dict) and found.keys() == expected.keys():
        for key in found:
            yield from in_numbers(found[key], expected[key], f"{place}.{key}".lstrip("."))
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            yield from in_numbers(ours, theirs, f"{place}[{index}]")
    elif not _equal(found, expected):
        yield f"{place}: has {found!r} for {expected!r}"


def _equal(found: Any, expected: Any) -> bool:
    numbers = [each for each in (found, expected) if type(each) in (int, float)]
    if len(numbers) == 2:
        return math.isclose(found, expected, rel_tol=ROUNDING, abs_tol=ROUNDING**2)
    return bool(found == expected)
