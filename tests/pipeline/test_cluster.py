"""Runs on a real dask cluster of two worker processes on this machine."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import fork_server
from helpers.processes import start
from helpers.project import (
    PATIENCE,
    TRAIN,
    checkpoints,
    edit_params,
    living,
    results,
    sepablate,
    wait_for,
)

distributed = pytest.importorskip("distributed")

from sepablate.execution import dask_cluster  # noqa: E402
from sepablate.store.files import verify_manifest  # noqa: E402


@pytest.fixture(scope="module")
def workers() -> Iterator[distributed.LocalCluster]:
    """Two processes that take one task at a time, each with a nanny that replaces it."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as started:
        yield started


def start_on(cluster: distributed.LocalCluster, project: Path) -> fork_server.Command:
    return start(project, "sepablate", *TRAIN, "--cluster", cluster.scheduler_address)


def trainers(project: Path, parents: set[int]) -> dict[int, int]:
    """The processes in `project` that these have started, each with its parent."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in parents and (path / "cwd").readlink() == project:
                found[int(path.name)] = parent
        except OSError:
            continue
    return found


def pids(workers: distributed.LocalCluster) -> set[int]:
    return {each.process.pid for each in workers.workers.values() if each.process}


@pytest.mark.slow
def test_a_cluster_trains_the_same_bytes_even_if_it_loses_a_worker(
    half: Path, finished: Path, workers: distributed.LocalCluster
) -> None:
    keys = sepablate(half, *TRAIN, "--keys").stdout.split()
    assert len(keys) == 3
    for key in keys[:2]:
        done = sepablate(half, *TRAIN, "--only", key)
        assert done.returncode == 0, done.stderr
        assert not (half / "results").exists()
        assert verify_manifest(half / ".sepablate/runs" / key)
    process = start_on(workers, half)
    wait_for(lambda: checkpoints(half))
    parents = trainers(half, pids(workers)).values()
    os.kill(next(iter(parents)), signal.SIGKILL)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    assert "3/3 runs" in output
    assert results(half) == results(finished)
    assert not list((half / ".sepablate").glob("cluster-*"))
    refused = sepablate(half, *TRAIN, "--only", "0" * 16)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"sepablate: run {'0' * 16!r} of xception at scale smoke: ")
    assert keys[2] in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_trainers_end_with_the_command_that_asked_for_them(
    half: Path, workers: distributed.LocalCluster, number: int
) -> None:
    edit_params(half, images=50_000, epochs=3, evaluations=500, seeds=[0])
    process = start_on(workers, half)
    wait_for(lambda: checkpoints(half))
    assert len(trainers(half, pids(workers))) == 1
    process.send_signal(number)
    output, _ = process.communicate(timeout=PATIENCE)
    wait_for(lambda: not trainers(half, pids(workers)))
    assert not living(process.pid)
    assert process.returncode == (os.EX_TEMPFAIL if number == signal.SIGINT else -number)
    assert output.count("the same command goes on from here") == (number == signal.SIGINT)
    assert checkpoints(half)


@pytest.mark.slow
def test_a_worker_that_does_not_share_the_folder_is_named(
    tmp_path: Path, workers: distributed.LocalCluster
) -> None:
    with workers.get_client() as client:
        (tmp_path / "token").touch()
        dask_cluster.check_shared_folder(client, tmp_path / "token")
        with pytest.raises(ValueError, match=rf"^worker tcp://\S+ does not see {tmp_path}: share"):
            dask_cluster.check_shared_folder(client, tmp_path / "missing")


def test_no_cluster_and_no_library_are_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "TIMEOUT", 0.5)
    for address in ("tcp://127.0.0.1:1", "nonsense://there", "no address"):
        with pytest.raises(ValueError, match=f"^--cluster {address}: choose") as raised:
            dask_cluster.connect(address).__enter__()
        assert "\n" not in str(raised.value)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"pip install 'sepablate\[cluster\]'"):
        dask_cluster.connect("tcp://127.0.0.1:1").__enter__()
