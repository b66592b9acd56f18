"""Finished runs travel as one file: the same bytes on the other side, or a line and nothing."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.project import contents, sepablate

pytestmark = pytest.mark.slow


def add(archive: tarfile.TarFile, name: str, kind: bytes = tarfile.REGTYPE) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, "/etc/passwd", 0
    archive.addfile(member, io.BytesIO())


def without_weights(folder: Path) -> dict[str, object]:
    """An archive leaves weights out, and names none in its manifests."""
    found: dict[str, object] = {}
    for name, content in contents(folder).items():
        if name.endswith("done.json"):
            digests = json.loads(content).items()
            found[name] = {file: digest for file, digest in digests if not is_weights(file)}
        elif not is_weights(name):
            found[name] = content
    return found


def is_weights(name: str) -> bool:
    return name.endswith(".safetensors")


def test_runs_arrive_as_they_left(whole: Path, half: Path, tmp_path_factory) -> None:
    """`whole` is `half` with results, here also in a setting: the other machine has none."""
    for kind in ("runs", "measured"):
        folder = whole / "results/smoke"
        shutil.copytree(folder / kind, folder / "settings/wide" / kind)
    before = without_weights(whole / "results")
    done = sepablate(whole, "export-runs", "runs.tar.gz")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "runs.tar.gz: smoke: xception\nruns.tar.gz: smoke.wide: xception\n"
    packed = (whole / "runs.tar.gz").read_bytes()
    assert sepablate(whole, "export-runs", "again.tar.gz").returncode == 0
    assert (whole / "again.tar.gz").read_bytes() == packed
    for folder in ("results", ".sepablate"):
        shutil.rmtree(whole / folder)
    for _ in range(2):  # the second time all is here already
        done = sepablate(whole, "import-runs", "runs.tar.gz")
        assert done.returncode == 0, done.stderr
        assert done.stdout == "smoke: xception\nsmoke.wide: xception\n"
        assert without_weights(whole / "results") == before
    config = whole / "results/smoke/runs/xception/config.json"
    config.write_text(config.read_text() + " ")
    (config.parent / "done.json").unlink()
    refused = sepablate(whole, "import-runs", "runs.tar.gz")
    assert refused.returncode == 2
    assert "has other runs; move it away" in refused.stderr


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def no_archive(path: Path) -> None:
    path.write_text("<html>")


def made_of(name: str, kind: bytes = tarfile.REGTYPE) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with tarfile.open(path, "w:gz") as archive:
            add(archive, name, kind)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (cut, "runs.tar.gz: "),
        (flip, "runs.tar.gz: "),
        (no_archive, "not an archive of runs"),
        (Path.unlink, "not an archive of runs"),
        (made_of("results/smoke/runs/x/../../../../../../tmp/y"), "is no file of a run"),
        (made_of("/etc/cron.d/x"), "is no file of a run"),
        (made_of("results/smoke/runs/x/done.json", tarfile.SYMTYPE), "is no file of a run"),
        (made_of("results/smoke/runs/.x/done.json"), "is no file of a run"),
        (made_of("results/smoke/REPORT.md"), "is no file of a run"),
        (made_of("results/smoke/runs/x/run.csv"), "are not those of its manifest"),
        (made_of("results/smoke/measured/x/seed-0.json"), "has no runs"),
    ],
)
def test_another_file_is_refused_and_nothing_is_written(
    spoil: Callable[[Path], None], complaint: str, whole: Path
) -> None:
    assert sepablate(whole, "export-runs", "runs.tar.gz").returncode == 0
    shutil.rmtree(whole / "results")
    spoil(whole / "runs.tar.gz")
    done = sepablate(whole, "import-runs", "runs.tar.gz")
    assert done.returncode == 2
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (whole / "results").exists()


def test_there_must_be_something_to_export(half: Path) -> None:
    done = sepablate(half, "export-runs", "runs.tar.gz")
    assert done.returncode == 2
    assert "no finished variant to export" in done.stderr
    assert not (half / "runs.tar.gz").exists()
