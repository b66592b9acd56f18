"""Differences between two versions of a result, with their positions."""

import math
from collections.abc import Iterator
from pathlib import Path

ROUNDING = 1e-9  # of one number computed on two machines
CONTEXT = 24  # characters shown on either side of a difference


def byte_differences(path: Path, expected: bytes, origin: str) -> Iterator[str]:
    """Yield a line if a file has other bytes than those that follow from its origin.

    Args:
        path: the file.
        expected: its bytes, computed again.
        origin: from which they were computed.
    """
    if not path.is_file():
        yield f"{path}: missing, but follows from {origin}"
        return
    with path.open("rb") as file:
        content = file.read(len(expected) + 1)  # as much as it takes to see a difference
    if content != expected:
        yield f"{path}, {_position(content, expected)}; does not follow from {origin}"


def _position(content: bytes, expected: bytes) -> str:
    """Return the first difference: a byte of a binary file, a line of text with its context."""
    pairs = enumerate(zip(content, expected, strict=False))
    shorter = min(len(content), len(expected))
    at = next((index for index, (a, b) in pairs if a != b), shorter)
    try:
        texts = content.decode(), expected.decode()
    except UnicodeDecodeError:
        return f"byte {at + 1}"
    at = len(content[:at].decode(errors="ignore"))
    shown = [" ".join(text[max(at - CONTEXT, 0) : at + CONTEXT].split()) for text in texts]
    line = texts[0][:at].count("\n") + 1
    return f"line {line}: '...{shown[0]}...' for '...{shown[1]}...'"


def number_differences(value: object, expected: object, path: str = "") -> Iterator[str]:
    """Yield the paths at which two JSON values differ by more than rounding.

    Args:
        value: of the file.
        expected: computed again.
        path: of the two values within the file.
    """
    if isinstance(value, dict) and isinstance(expected, dict) and value.keys() == expected.keys():
        for key in value:
            yield from number_differences(value[key], expected[key], f"{path}.{key}".lstrip("."))
    elif isinstance(value, list) and isinstance(expected, list) and len(value) == len(expected):
        for index, (item, expected_item) in enumerate(zip(value, expected, strict=True)):
            yield from number_differences(item, expected_item, f"{path}[{index}]")
    elif not _equal(value, expected):
        yield f"{path}: has {value!r} for {expected!r}"


def _equal(value: object, expected: object) -> bool:
    if type(value) in (int, float) and type(expected) in (int, float):
        return math.isclose(value, expected, rel_tol=ROUNDING, abs_tol=ROUNDING**2)  # type: ignore[arg-type]
    return value == expected
