"""A run's trained weights: a .safetensors file that says which run's they are, and vouches for all.

The header's metadata has one entry, "sepablate", a JSON object: safetensors writes several entries
in any order, and the same weights must be the same bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sepablate.errors import UserError
from sepablate.store.files import is_regular
from sepablate.store.run_files import Row, is_final
from sepablate.store.run_key import NOT_IN_KEY, run_key

ENTRY = "sepablate"  # of the header's metadata


@dataclass(frozen=True)
class Weights:
    """A trained network's weights.

    Args:
        run_key: of the run that trained them.
        seed: of that run.
        config: the resolved config, as far as it decides the run's numbers.
        final: the run's final metrics by name, on the test images.
        tensors: the network's state dict on the CPU; batch norm's statistics included.
        averaged: over the training; else they are those of the last step.
    """

    run_key: str
    seed: int
    config: Mapping[str, Any]
    final: Mapping[str, float]
    tensors: Mapping[str, Tensor]
    averaged: bool = True


def encode(
    run_key: str,
    seed: int,
    config: Mapping[str, Any],
    rows: list[Row],
    state: Mapping[str, Tensor],
    averaged: bool = True,
) -> bytes:
    """Return the bytes of a weights file, the same for the same run.

    Args:
        run_key: of the run.
        seed: of the run.
        config: its resolved config.
        rows: its metrics, of which the file keeps the final ones.
        state: the network's state dict, on any device and in any memory format.
        averaged: whether it is averaged over the training; the header names only what is not.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    header = {
        "config": {key: value for key, value in config.items() if key not in NOT_IN_KEY},
        "final": {metric: value for _, metric, value in rows if is_final(metric)},
        "run_key": run_key,
        "seed": seed,
    }
    header |= {} if averaged else {"averaged": False}
    header["sha256"] = _digest(header, tensors)
    return save(tensors, {ENTRY: json.dumps(header, sort_keys=True)})


def read(path: Path) -> Weights:
    """Return the weights in a file.

    Raises UserError if there is none, or if any byte is not as a run wrote it.
    """
    if not is_regular(path):
        raise UserError(f"{path}: there is no such file")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if ENTRY not in metadata:
                raise UserError(f"{path}: no weights of a run: its header has no {ENTRY!r}")
            header = json.loads(metadata[ENTRY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        digest = header.pop("sha256")
        weights = Weights(tensors=tensors, **header)
        whole = _digest(header, tensors) == digest
        whole = whole and run_key(weights.config, weights.seed) == weights.run_key
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: damaged, or no .safetensors file ({reason})") from None
    if not whole:
        raise UserError(f"{path}: damaged: its bytes are not those that the run wrote")
    return weights


def _digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the header without its digest, and of all names, shapes and numbers."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {[*tensor.shape]}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
