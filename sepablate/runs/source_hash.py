"""Hash the source that decides a run's numbers, by a rule on folders.

Every file of `sepablate/training` and the random streams, layers and initial weights are hashed
into the key of every run; a network, a data set and a backend's kernels only where a run uses them.
`training/population`, which only a GPU runs, counts to the Triton kernels, and `training/detection`
to the detectors.
"""

import functools
import hashlib
from pathlib import Path

from sepablate import data, models

PACKAGE = Path(__file__).parents[1]
SHARED = ("rng.py", "models/layers.py", "models/weight_init.py", "training/*.py")
DETECTION = ("training/detection/*.py", "models/detectors.py", "models/ssd.py")
SUFFIXES = (".py", ".cpp", ".h")  # all else is a copy of an editor
KERNELS = {
    "fused": ("kernels/fuse.py", "kernels/cpu/*.*"),
    "triton": ("kernels/fuse.py", "kernels/triton/*.py", "training/population/*.py"),
}


@functools.cache
def source_digest(model: str, dataset: str, kernels: str) -> str:
    """Return a hash of the source that decides the numbers of a run.

    Args:
        model: the network's name in `sepablate.models.MODELS`.
        dataset: the data set's name in `sepablate.data.DATASETS`.
        kernels: the backend: "torch", "fused" or "triton".
    """
    task = DETECTION if model in models.DETECTORS else ()
    files = [
        models.source(model),
        *source_files(*SHARED, *data.dataset(dataset).SOURCES),
        *source_files(*KERNELS.get(kernels, ()), *task),
    ]
    return _digest(files)


@functools.cache
def kernels_digest(kernels: str) -> str:
    """Return a hash of the source of a backend's kernels."""
    return _digest(source_files(*KERNELS[kernels]))


def source_files(*patterns: str) -> list[Path]:
    """Return the package's files that match the patterns, each pattern's in alphabetical order."""
    found = (path for pattern in patterns for path in sorted(PACKAGE.glob(pattern)))
    return [path for path in found if path.suffix in SUFFIXES and path.name[0] not in ".#"]


def _digest(files: list[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
