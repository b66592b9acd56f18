"""Git that refuses, settings of git that change bytes, and files that editors leave."""

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.project import ROOT, contents
from helpers.published import TINY, current, made, without_runs
from typer.testing import CliRunner

from sepablate import study
from sepablate.cli.app import app
from sepablate.execution import hardware
from sepablate.provenance import git_compare
from sepablate.provenance.verify import verify
from sepablate.report import manifest
from sepablate.runs import source_hash
from sepablate.store import git, layout

__all__ = ["current", "made"]


def run_git(*arguments: str, folder: Path | None = None) -> None:
    author = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *author, *arguments], check=True, capture_output=True, cwd=folder)


def commit_results() -> None:
    run_git("init", "-q")
    run_git("add", "results")
    run_git("commit", "-qm", "Results")


@pytest.mark.usefixtures("current")
def test_a_repository_that_git_refuses_is_not_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    """As git does where the checkout belongs to somebody else."""
    without_runs()
    commit_results()
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    (wrong,) = verify("tiny").wrong
    assert wrong.startswith(f"{TINY}: not compared with git's HEAD: detected dubious ownership")
    assert "`git config --global --add safe.directory" in wrong
    assert hardware.commit() == "unknown: git refused to read the repository"


@pytest.mark.usefixtures("current")
def test_a_broken_repository_is_not_agreement() -> None:
    without_runs()
    commit_results()
    for path in Path(".git/objects").glob("??"):
        shutil.rmtree(path)
    (wrong,) = verify("tiny").wrong
    assert "not compared with git's HEAD" in wrong
    shutil.rmtree(".git")
    Path(".git").write_text("gitdir: /nowhere\n")  # a worktree whose repository is gone
    (wrong,) = verify("tiny").wrong
    assert "not compared with git's HEAD: not a git repository: /nowhere" in wrong


@pytest.mark.usefixtures("current")
def test_what_was_compared_with_no_commit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def unchecked() -> str:
        return git_compare.compare_with_head("tiny", ["residual_connections"]).not_compared

    assert unchecked() == "this folder is in no git repository"
    run_git("init", "-q")
    assert unchecked() == "the git repository has no commit yet"
    run_git("commit", "-qm", "Nothing", "--allow-empty")
    assert unchecked() == "git's HEAD has no tables of scale tiny"
    monkeypatch.setenv("PATH", "")
    assert unchecked() == "git is not installed"
    assert hardware.commit() == "unknown"


@pytest.mark.usefixtures("current")
def test_verify_never_says_that_all_agrees_without_a_commit() -> None:
    without_runs()
    shutil.copy(ROOT / "params.yaml", ".")
    TINY.rename("results/smoke")
    done = CliRunner().invoke(app, ["verify", "--scale", "smoke"])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == (
        "results/smoke: what was checked agrees; not compared with a commit: this folder is in no "
        "git repository"
    )
    commit_results()
    done = CliRunner().invoke(app, ["verify", "--scale", "smoke"])
    assert done.output.splitlines()[-1] == "results/smoke: all agrees"


def test_a_file_that_is_not_in_the_commit_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_git("init", "-q")
    run_git("commit", "-qm", "Nothing", "--allow-empty")
    Path("table.csv").write_text("")
    with pytest.raises(git.NotInCommit):
        git.committed("table.csv")
    assert len(git.head()) == 12


def test_no_setting_of_git_changes_a_byte(tmp_path: Path) -> None:
    """Under core.autocrlf, as on Windows, each run key and each digest would be another.

    Nor under another one that is a person's own.
    """
    source, clone = tmp_path / "source", tmp_path / "clone"
    source.mkdir()
    skip = shutil.ignore_patterns("__pycache__", "runs", "measured")
    for name in ("sepablate", "experiments", "results/laptop"):
        shutil.copytree(ROOT / name, source / name, ignore=skip)
    for name in (".gitattributes", "params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, source)
    run_git("init", "-q", folder=source)
    run_git("add", "-A", folder=source)
    run_git("commit", "-qm", "All", folder=source)
    attributes = tmp_path / "attributes"
    attributes.write_text("* text eol=crlf\n")
    for setting in ("autocrlf=true", "eol=crlf", f"attributesFile={attributes}"):
        run_git("clone", "-q", "-c", f"core.{setting}", str(source), str(clone))
        for name in ("sepablate", "experiments", "results"):
            assert contents(clone / name) == contents(source / name), (setting, name)
        shutil.rmtree(clone)


BACKUPS = ("{}~", ".#{}", "._{}", "#{}#", ".{}.swp", "{}.orig", "{}.bak")


def backup(path: Path, pattern: str) -> None:
    """Leave what an editor or a system leaves next to a file; Emacs locks it by a dangling link."""
    other = path.with_name(pattern.format(path.name))
    if pattern == ".#{}":
        other.symlink_to("someone@somewhere.4711:1")
    else:
        other.write_text("not Python, not JSON \0")


@pytest.mark.parametrize("pattern", BACKUPS)
def test_copies_of_editors_are_no_studies(tmp_path: Path, pattern: str) -> None:
    folder = tmp_path / "experiments"
    shutil.copytree(ROOT / "experiments", folder, ignore=shutil.ignore_patterns("__pycache__"))
    before = study.names(folder)
    backup(folder / "residual_connections.py", pattern)
    assert study.names(folder) == before


@pytest.mark.parametrize("pattern", BACKUPS)
def test_copies_of_editors_change_no_run_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    package = tmp_path / "sepablate"
    shutil.copytree(ROOT / "sepablate", package, ignore=shutil.ignore_patterns("__pycache__"))
    before = {
        patterns: source_hash.source_files(*patterns)
        for patterns in (source_hash.SHARED, *source_hash.KERNELS.values())
    }
    monkeypatch.setattr(source_hash, "PACKAGE", package)
    for path in ("training/engine.py", "kernels/cpu/gemm.h", "kernels/triton/blocks.py"):
        backup(package / path, pattern)
    for patterns, files in before.items():
        found = [path.relative_to(package) for path in source_hash.source_files(*patterns)]
        assert found == [path.relative_to(ROOT / "sepablate") for path in files]


def test_all_files_of_the_kernels_are_in_the_run_key() -> None:
    folder = ROOT / "sepablate/kernels/cpu"
    expected = sorted(path for path in folder.iterdir() if path.suffix in (".cpp", ".h", ".py"))
    assert source_hash.source_files("kernels/cpu/*.*") == expected


@pytest.mark.usefixtures("current")
def test_copies_of_editors_are_no_results() -> None:
    without_runs()
    names = ("REPORT.md", "digests.json", "verdicts.json", "residual_connections/figure.svg")
    for name in (*names, "residual_connections/table.csv"):
        for pattern in BACKUPS:
            backup(TINY / name, pattern)
    assert verify("tiny").wrong == []
    before = (TINY / "digests.json").read_bytes()
    listing = manifest.read(TINY / "digests.json")
    own = [name for name in listing.files if "/" not in name]
    manifest.write("tiny", listing.report, listing.studies, own)
    assert (TINY / "digests.json").read_bytes() == before
    assert [path.name for path in layout.figures(TINY / "residual_connections")] == [
        *("figure.png", "figure.svg", "like_figure_9.png", "like_figure_9.svg")
    ]
