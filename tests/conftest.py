"""Fixtures: the real data, and copies of the project.

No torch is imported here: the process that shares the tests among others waits for this file only.
"""

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: workers of pytest share the cores

from helpers import fork_server
from helpers.project import (
    QUICK,
    ROOT,
    TINY,
    TRAIN,
    copy_project,
    edit_params,
    made_once,
    sepablate,
)

MEMORY, ROOM = Path("/dev/shm"), 6 << 30


def pytest_configure() -> None:
    """Work in memory if it has room: on a busy disk, flushes double the time of many tests."""
    gc.set_threshold(fork_server.GARBAGE)  # while tests are collected as well
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long tests, shared among the processes, so that none waits for the last."""
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    slow = [item for item in items if item.get_closest_marker("slow")]
    others = [item for item in items if not item.get_closest_marker("slow")]
    part = -(-len(others) // count)
    parts = [(slow[n::count], others[n * part : (n + 1) * part]) for n in range(count)]
    items[:] = [item for both in parts for each in both for item in each]


def pytest_collection_finish() -> None:
    gc.freeze()  # else each full collection goes through all modules and tests


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # else what ends with the process seems to be a leak


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """A training flushes them for its whole process, where hypothesis then draws no floats."""
    import torch

    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Fashion-MNIST, fetched if it is not there."""
    from sepablate.data import fashion_mnist

    fashion_mnist.fetch(ROOT / "data")
    return ROOT / "data"


@pytest.fixture
def project(tmp_path: Path, data_folder: Path) -> Path:
    """A copy of the project with the data in place, without results, runs or a git history."""
    return copy_project(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Path:
    """A project in which Xception is trained, undisturbed; look, do not touch.

    Tiny, in fp32, three seeds, by two processes.
    """

    def make(folder: Path) -> None:
        edit_params(copy_project(folder, [QUICK]), **TINY, epochs=2, evaluations=6, seeds=[0, 1, 2])
        done = sepablate(folder, *TRAIN, "--processes", "2")
        assert done.returncode == 0, done.stderr

    return made_once(tmp_path_factory, "finished", make)


@pytest.fixture
def half(tmp_path: Path, finished: Path) -> Path:
    """A project like `finished` in which nothing is trained yet."""
    copy_project(tmp_path, [QUICK])
    shutil.copy(finished / "params.yaml", tmp_path)
    return tmp_path


@pytest.fixture
def whole(half: Path, finished: Path) -> Path:
    """A copy of `finished`."""
    for name in ("results", ".sepablate"):
        shutil.copytree(finished / name, half / name)
    return half


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow takes seconds to create one; tests get copies.

    Made in a folder in which another command was killed while it made one.
    """

    def make(folder: Path) -> None:
        for name in ("mlflow.db.tmp", "mlflow.db.tmp-journal"):
            (folder / name).write_bytes(b"half")
        code = "import os; os.environ.pop('MLFLOW_TRACKING_URI', None)\n"
        code += "from sepablate.tracking import connection; connection.connect()"
        done = fork_server.run(folder, "-c", code, PYTHONPATH=str(ROOT))
        assert done.returncode == 0, done.stderr

    return made_once(tmp_path_factory, "mlflow", make) / "mlflow.db"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of params.yaml and an empty folder of studies, as the current folder."""
    (tmp_path / "experiments").mkdir()
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
