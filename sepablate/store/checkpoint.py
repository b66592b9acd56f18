"""Checkpoints: whole or absent, verified by the digest in their name, the last two kept."""

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
    for old in _all(folder)[KEPT:]:
        old.unlink(missing_ok=True)


def load(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint whose bytes agree with the digest in its name, or None.

    One that is damaged is deleted, lest it count among the last two. Its tensors are on the CPU:
    the device that saved them may not be there any more.
    """
    for path in _all(folder):
        content = path.read_bytes()
        if path.stem.rpartition("-")[2] == _digest(content):
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        path.unlink()
    return None


def newest_step(folder: Path) -> int:
    """The step of the newest checkpoint, by its name; 0 if there is none."""
    return max((int(path.name.split("-")[1]) for path in _all(folder)), default=0)


def clear(folder: Path) -> None:
    """Delete the checkpoints of a finished run."""
    for path in _all(folder):
        path.unlink(missing_ok=True)


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.pt"), reverse=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
