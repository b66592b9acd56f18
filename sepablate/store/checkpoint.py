"""Checkpoints: whole or absent, verified by the digest in their name, the last two kept.

`torch.save` by itself is neither atomic nor verified: a flipped bit in its file loads silently.
"""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from sepablate.store.files import write_atomically

KEPT = 2


def save(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write `state` as checkpoint-<step>-<digest>.pt and delete all but the last two."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    write_atomically(folder / f"checkpoint-{step:09d}-{_digest(content)}.pt", content)
    for old in _newest_first(folder)[KEPT:]:
        old.unlink(missing_ok=True)


def load(folder: Path) -> dict[str, Any] | None:
    """Return the newest checkpoint whose bytes agree with the digest in its name, or None."""
    content = read(folder)
    return None if content is None else parse(content)


def read(folder: Path) -> bytes | None:
    """Return the bytes of the newest whole checkpoint, or None.

    A corrupt one is deleted, so that it does not count among the last two.
    """
    for path in _newest_first(folder):
        content = path.read_bytes()
        if path.stem.rpartition("-")[2] == _digest(content):
            return content
        path.unlink()
    return None


def parse(content: bytes) -> dict[str, Any]:
    """Return the state in a checkpoint's bytes, its tensors on the CPU.

    The device that saved them may not be there any more. No code in the bytes is run.
    """
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def newest_step(folder: Path) -> int:
    """Return the step of the newest checkpoint, by its name; 0 if there is none."""
    return max((int(path.name.split("-")[1]) for path in _newest_first(folder)), default=0)


def clear(folder: Path) -> None:
    """Delete the checkpoints of a finished run."""
    for path in _newest_first(folder):
        path.unlink(missing_ok=True)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-[0-9]*-*.pt"), reverse=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
