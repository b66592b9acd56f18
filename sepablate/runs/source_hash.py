"""Hash the source that decides a run's numbers, by a rule on folders.

Every file of `sepablate/training` and the random streams, layers and initial weights are hashed
into the key of every run; a network, a data set and a backend's kernels only where a run uses them.
With a network count the files of `sepablate/models` that its file imports, directly or not.
`training/population`, which only a GPU runs, counts to the Triton kernels, and `training/detection`
to the detectors.
"""

import ast
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
    shared = source_files(*SHARED, *data.dataset(dataset).SOURCES)
    network = [path for path in with_imports(models.source(model)) if path not in shared]
    return _digest([*network, *shared, *source_files(*KERNELS.get(kernels, ()), *task)])


@functools.cache
def kernels_digest(kernels: str) -> str:
    """Return a hash of the source of a backend's kernels."""
    return _digest(source_files(*KERNELS[kernels]))


def source_files(*patterns: str) -> list[Path]:
    """Return the package's files that match the patterns, each pattern's in alphabetical order."""
    found = (path for pattern in patterns for path in sorted(PACKAGE.glob(pattern)))
    return [path for path in found if path.suffix in SUFFIXES and path.name[0] not in ".#"]


def with_imports(path: Path) -> list[Path]:
    """Return a file, and the files of `sepablate/models` that it imports, directly or not."""
    files = [path]
    for file in files:  # which grows
        files += [each for each in _imported(file) if each not in files]
    return files


def _imported(path: Path) -> dict[Path, None]:
    """Return the files of `sepablate/models` that a file imports, also inside its functions."""
    places: list[Path] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            places += [PACKAGE.parent.joinpath(*each.name.split(".")) for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1] if node.level else PACKAGE.parent
            module = base.joinpath(*(node.module or "").split("."))
            places += [module / each.name for each in node.names]
    return dict.fromkeys(file for file in map(_file_of, places) if file)


def _file_of(place: Path) -> Path | None:
    """Return the file of `sepablate/models` that has a module, or a name in one; None if none."""
    while place.is_relative_to(PACKAGE / "models"):
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                return file
        place = place.parent
    return None


def _digest(files: list[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
