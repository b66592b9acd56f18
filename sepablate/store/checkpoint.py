"""Checkpoints: whole or absent, verified by the digest in their name, the last two kept.

`torch.save` by itself is neither atomic nor verified: a flipped bit in its file loads silently.
"""

import hashlib
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sepablate.store.files import write_atomically

KEPT = 2
DIGITS = 32  # of the digest in a name
NAME = re.compile(r"checkpoint-(\d{9})-([0-9a-f]{32})\.pt")

State = dict[str, Any]


def save(folder: Path, step: int, state: State) -> None:
    """Write `state` as checkpoint-<step>-<digest>.pt and delete all but the last two."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    write_atomically(folder / f"checkpoint-{step:09d}-{_digest(content)}.pt", content)
    for old in _newest_first(folder)[KEPT:]:
        old.unlink(missing_ok=True)


def load(folder: Path) -> State | None:
    """Return the newest checkpoint whose bytes agree with the digest in its name, or None."""
    content = read(folder)
    return None if content is None else parse(content)


def read(folder: Path, problem: Callable[[State], str | None] = lambda state: None) -> bytes | None:
    """Return the bytes of the newest checkpoint that is whole and fits, or None.

    Any other is deleted, with a line on stderr, so that it does not count among the last two.

    Args:
        folder: of the run.
        problem: returns why a state is not one of this run; None if it is.
    """
    for path in _newest_first(folder):
        reason: str | None = "damaged"
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS] in path.name:
                file.seek(0)
                content = file.read()
                reason = _problem(content, problem)
        if reason is None:
            return content
        print(f"sepablate: {path}: {reason}; deleted", file=sys.stderr, flush=True)
        path.unlink()
    return None


def _problem(content: bytes, problem: Callable[[State], str | None]) -> str | None:
    try:
        return problem(parse(content))
    except Exception as error:  # of other bytes torch.load raises nearly anything
        return f"not a checkpoint ({type(error).__name__})"


def parse(content: bytes) -> State:
    """Return the state in a checkpoint's bytes, its tensors on the CPU.

    The device that saved them may not be there any more. No code in the bytes is run.
    """
    state: State = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def newest_step(folder: Path) -> int:
    """Return the step of the newest checkpoint, by its name; 0 if there is none."""
    return max((int(path.name.split("-")[1]) for path in _newest_first(folder)), default=0)


def clear(folder: Path) -> None:
    """Delete the checkpoints of a finished run."""
    for path in _newest_first(folder):
        path.unlink(missing_ok=True)


def _newest_first(folder: Path) -> list[Path]:
    paths = [path for path in folder.glob("checkpoint-*.pt") if NAME.fullmatch(path.name)]
    return sorted((path for path in paths if path.is_file()), reverse=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGITS]
