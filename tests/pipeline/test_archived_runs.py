"""A clone without runs reads them from the archive that is committed with each report."""

import json
import os
import shutil
import signal
import socket
import urllib.request
from pathlib import Path

import pytest
import yaml
from helpers.processes import ended, start
from helpers.project import ROOT, contents, sepablate, wait_for
from helpers.published import REPORTS, TINY, current, made, variants, without_runs
from mlflow import MlflowClient

from sepablate.errors import UserError
from sepablate.provenance.trace import trace
from sepablate.provenance.verify import verify
from sepablate.report import outputs
from sepablate.store import archive_files, collected_runs, layout
from sepablate.store.files import write_manifest
from sepablate.store.run_archive import renewed
from sepablate.tracking import connection, publish

__all__ = ["current", "made"]
pytestmark = pytest.mark.usefixtures("current")
ARCHIVE = TINY / "runs.tar.gz"
BASELINE = "xception"


def write_reports() -> None:
    for report, names in REPORTS.items():
        for name in names:
            outputs.study_outputs(name, "tiny")
        outputs.report_outputs(names, "tiny", report)


def test_a_clone_makes_the_same_files_and_finds_them_right(empty_database: Path) -> None:
    shutil.copy(empty_database, connection.DATABASE)
    before, origin = contents(TINY), trace(TINY / "REPORT.md")
    without_runs(archives=True)
    committed = contents(TINY)
    assert committed.items() < before.items()
    found = verify("tiny")
    assert found.wrong == []
    assert f"REPORT: made again from the runs of 3 variants in {ARCHIVE}" in found.checked
    write_reports()
    assert contents(TINY) == committed
    config = f"{TINY}/runs/{BASELINE}/config.json"
    assert trace(TINY / "REPORT.md").replace(f" in {ARCHIVE}\n", "\n") == origin
    assert f"{config} in {ARCHIVE}\n" in trace(TINY / "REPORT.md")
    assert publish("tiny", ["residual_connections"]) == 19


@pytest.mark.slow
def test_the_page_of_a_clone_shows_the_committed_runs(empty_database: Path) -> None:
    """The real server, which no other test starts: asked as a browser asks it."""
    shutil.copy(empty_database, connection.DATABASE)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["scales"]["tiny"] = params["scales"]["smoke"]
    Path("params.yaml").write_text(yaml.safe_dump({**params, "scale": "tiny"}))
    without_runs(archives=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    page = f"http://127.0.0.1:{port}"
    server = start(Path(), "sepablate", "ui", "--port", str(port), PYTHONPATH=str(ROOT))
    try:
        wait_for(lambda: server.poll() is not None or answers(page))
        client = MlflowClient(page)
        found = {each.name: each.experiment_id for each in client.search_experiments()}
        shown = {name: len(client.search_runs([number])) for name, number in found.items()}
    finally:
        os.killpg(server.pid, signal.SIGKILL)
    _, said = ended(server)
    studies = {f"{name} · tiny": 1 + 6 * len(variants([name])) for (name,) in REPORTS.values()}
    assert shown == {"Default": 0, **studies}
    for name in studies:
        view = f"{page}/#/experiments/{found[name]}/runs?workflowType=machine_learning"
        assert f"\n{name}: {view}&viewStateShareKey=final\n" in said


def answers(page: str) -> bool:
    try:
        return bool(urllib.request.urlopen(page).status == 200)
    except OSError:
        return False


def test_runs_on_disk_win_and_only_their_own_variant() -> None:
    path = TINY / "runs/no_residual/seed-1.csv"
    for name in (BASELINE, "no_residual_wide"):
        shutil.rmtree(TINY / "runs" / name)
    head, first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([head, first.rpartition(",")[0] + ",0.5", *rest]) + "\n")
    found = verify("tiny")
    line = f"1 variant in {TINY}/runs and 2 variants in {ARCHIVE}"
    assert f"REPORT: made again from the runs of {line}" in found.checked
    remedy = "`sepablate report residual_connections --scale tiny`"
    assert f"{ARCHIVE}: has other runs; {remedy} writes it again" in found.wrong


def test_another_time_makes_no_other_archive_but_another_run_or_machine_does() -> None:
    variants = collected_runs.trained_variants("tiny")[:2]
    committed = renewed({"tiny": variants}, ARCHIVE)
    Path("archive").write_bytes(committed)
    assert renewed({"tiny": variants}, Path("none")) == committed
    path = TINY / f"measured/{variants[0]}/seed-0.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"seconds": 1.0, "commit": "f" * 12}))
    assert renewed({"tiny": variants}, Path("archive")) == committed
    path.write_text(json.dumps(record | {"hardware": {"processor": "loom"}}))
    assert renewed({"tiny": variants}, Path("archive")) != committed
    path.write_text(json.dumps(record))
    scores = TINY / f"runs/{variants[0]}/seed-0.correct.bin"
    scores.write_bytes(bytes(len(scores.read_bytes())))
    assert renewed({"tiny": variants}, Path("archive")) != committed
    Path("archive").write_bytes(committed[:-9])
    assert archive_files.read(ARCHIVE)
    assert len(renewed({"tiny": variants}, Path("archive"))) > 1000


@pytest.mark.parametrize("content", ["null", "x", "[" * 100_000])
def test_measurements_that_cannot_be_read_are_archived_as_they_are(content: str) -> None:
    path = TINY / f"measured/{BASELINE}/seed-0.json"
    whole = renewed({"tiny": [BASELINE]}, Path("none"))
    path.write_text(content)
    damaged = renewed({"tiny": [BASELINE]}, Path("none"))
    Path("archive").write_bytes(damaged)
    assert renewed({"tiny": [BASELINE]}, Path("archive")) == damaged != whole
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=f"{path}: not a regular file; move it away"):
        renewed({"tiny": [BASELINE]}, Path("archive"))


def test_weights_stay_out_and_what_remains_is_whole() -> None:
    folder = TINY / "runs" / BASELINE
    (folder / "seed-0.safetensors").write_bytes(b"weights")
    write_manifest(folder, [path.name for path in folder.iterdir()])
    Path("archive").write_bytes(renewed({"tiny": [BASELINE]}, Path("none")))
    names = {path.name for path in folder.iterdir()} - {"seed-0.safetensors"}
    unpacked = archive_files.unpacked(Path("archive")) / "tiny/runs" / BASELINE
    assert {path.name for path in unpacked.iterdir()} == names


def test_a_damaged_unpacked_copy_is_unpacked_again() -> None:
    without_runs(archives=True)
    path = collected_runs.seed_rows("tiny", BASELINE, 0)
    assert path.is_relative_to(layout.UNPACKED)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    archive_files._is_whole.cache_clear()  # as in a new process
    assert collected_runs.seed_rows("tiny", BASELINE, 0).read_bytes() == whole


def test_a_damaged_archive_is_one_line() -> None:
    without_runs(archives=True)
    content = bytearray(ARCHIVE.read_bytes())
    content[len(content) // 2] ^= 1
    ARCHIVE.write_bytes(content)
    for command in (
        lambda: verify("tiny"),
        lambda: trace(TINY / "REPORT.md"),
        lambda: publish("tiny", ["residual_connections"]),
        lambda: outputs.study_outputs("residual_connections", "tiny"),
    ):
        with pytest.raises(UserError, match=f"^{ARCHIVE}: not an archive of runs: "):
            command()
    shutil.copy(ROOT / "params.yaml", ".")
    TINY.rename("results/smoke")
    done = sepablate(Path(), "verify", "--scale", "smoke")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
