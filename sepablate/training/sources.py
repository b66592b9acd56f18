"""The source that decides a run's numbers: hashed into its key."""

import functools
import hashlib
import inspect
from pathlib import Path

from sepablate import data, models

PACKAGE = Path(__file__).parents[1]
COMPUTES = (
    "models/initial.py",
    "models/layers.py",
    "training/batches.py",
    "training/engine.py",
    "training/evaluation.py",
    "training/ranks.py",
    "training/recipe.py",
    "training/rmsprop.py",
    "training/step.py",
    "training/task.py",
)
KERNELS = {  # the source of what computes a run's layers, where torch does not
    "fused": [
        PACKAGE / "kernels" / "fuse.py",
        *sorted((PACKAGE / "kernels" / "cpu").glob("[a-z]*.*")),
    ],
    "triton": [
        PACKAGE / "kernels" / "fuse.py",
        *sorted((PACKAGE / "kernels" / "triton").glob("*.py")),
        PACKAGE / "training" / "captured.py",
    ],
}


@functools.cache
def source_digest(model: str, dataset: str, kernels: str) -> str:
    """A hash of the source that decides the numbers of a run of `model` on `dataset`."""
    digest = hashlib.sha256(Path(inspect.getfile(models.MODELS[model])).read_bytes())
    sources = [PACKAGE / path for path in (*COMPUTES, *data.dataset(dataset).SOURCES)]
    for path in (*sources, *KERNELS.get(kernels, ())):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def kernels_digest(kernels: str) -> str:
    """A hash of the source of these kernels."""
    content = b"".join(path.read_bytes() for path in KERNELS[kernels])
    return hashlib.sha256(content).hexdigest()[:16]
