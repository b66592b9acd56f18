"""Environments in which a command cannot do its work: one line, and nothing is written."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.environments import command, python, refused
from helpers.project import ROOT, STUDY, TRAIN, contents, results

from sepablate.errors import explain, explain_memory
from sepablate.execution import job


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A project with its settings and one study, and nothing else."""
    folder = tmp_path / "bare"
    (folder / "experiments").mkdir(parents=True)
    shutil.copy(ROOT / f"experiments/{STUDY}.py", folder / "experiments")
    shutil.copy(ROOT / "params.yaml", folder)
    return folder


@pytest.mark.parametrize("name", ["list", "doctor", "ui", "verify"])
def test_a_wrong_folder_is_named(tmp_path: Path, name: str) -> None:
    done = command(tmp_path, name)
    assert refused(done, "no params.yaml and experiments", "run from the project's root folder")
    assert not list(tmp_path.iterdir())


def test_links_in_a_circle_are_one_line(bare: Path) -> None:
    (bare / "params.yaml").unlink()
    (bare / "params.yaml").symlink_to("again")
    (bare / "again").symlink_to("params.yaml")
    assert refused(command(bare, "verify"), "params.yaml")


def test_settings_that_are_a_folder_or_unreadable_are_one_line(bare: Path) -> None:
    (bare / "params.yaml").chmod(0)
    assert refused(command(bare, "verify"), "params.yaml", "Permission denied")
    (bare / "params.yaml").unlink()
    (bare / "params.yaml").mkdir()
    assert refused(command(bare, "verify"), "params.yaml", "Is a directory")


WRITE = """
import sys
from pathlib import Path
from sepablate import __main__, study
from sepablate.store.files import write_atomically

name = sys.argv[1]
study.names = lambda: write_atomically(Path(name), "x") or []
sys.argv = ["sepablate", "list"]
__main__.main()
"""


def test_results_that_cannot_be_written_are_one_line(bare: Path) -> None:
    """A read-only folder, a file or a link to nothing in its place, a folder for the file."""

    def write(name: str = "x") -> subprocess.CompletedProcess[str]:
        return python(bare, "-c", WRITE, f"results/smoke/{name}")

    path = bare / "results"
    path.mkdir(mode=0o555)
    assert refused(write(), "results/smoke: Permission denied; change its owner or its mode")
    path.rmdir()
    path.write_text("")
    assert refused(write(), "results/smoke: Not a directory; a file stands where a folder")
    path.unlink()
    path.symlink_to("away/from/here")
    assert refused(write(), "results: its link leads to nothing; remove it")
    path.unlink()
    (path / "smoke/x").mkdir(parents=True)
    assert refused(write(), "results/smoke/x: Is a directory; a folder stands where a file")
    assert not contents(path)
    (path / "smoke/x").rmdir()
    assert write().returncode == 0
    assert refused(write("long" * 100), "File name too long; choose a shorter name or folder")
    path.rename(bare / "other")
    path.symlink_to("results")
    assert refused(write(), "its links lead in a circle: remove one")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "change its owner or its mode"),
        (errno.EROFS, "work in a folder that can be written"),
        (errno.EISDIR, "a folder stands where a file is needed"),
        (errno.ENOTDIR, "a file stands where a folder is needed"),
        (errno.ELOOP, "its links lead in a circle"),
        (errno.ENAMETOOLONG, "choose a shorter name"),
        (errno.EMFILE, "ulimit -n"),
    ],
)
def test_what_the_environment_refuses_is_explained(number: int, words: str) -> None:
    line = explain(OSError(number, os.strerror(number), "results/x"))
    assert line is not None
    assert line.startswith(f"results/x: {os.strerror(number)}; ")
    assert words in line


def test_other_errors_of_files_are_bugs() -> None:
    assert explain(FileNotFoundError(errno.ENOENT, "No such file", "results/x")) is None
    assert explain(OSError(errno.EACCES, "Permission denied")) is None  # of no file
    assert explain(OSError("a message")) is None


def test_no_folder_for_temporary_files_is_explained() -> None:
    words = "No usable temporary directory found in ['/tmp']"
    assert explain(FileNotFoundError(errno.ENOENT, words)) == f"TMPDIR: {words}"


def test_an_output_that_cannot_be_written_is_no_traceback(bare: Path) -> None:
    whole = [sys.executable, "-m", "sepablate", "list"]
    own = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with open("/dev/full", "w") as full:
        done = subprocess.run(whole, cwd=bare, env=own, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == os.EX_IOERR
    assert done.stderr == b"sepablate: standard output: No space left on device\n"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(whole, cwd=bare, env=own, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")
    done = subprocess.run(["sh", "-c", '"$@" >&-', "-", *whole], cwd=bare, env=own)
    assert done.returncode == 0


def test_a_command_that_writes_files_goes_on_without_its_output(bare: Path) -> None:
    code = (
        "import sys, time\nfrom sepablate.execution import environment\n"
        "environment.prepare_output()\nenvironment.go_on_without_output()\n"
        "for _ in range(3): print('a line', flush=True)\n"
        "open('result', 'w').close()"
    )
    reader, writer = os.pipe()
    os.close(reader)
    own = {**os.environ, "PYTHONPATH": str(ROOT)}
    whole = [sys.executable, "-c", code]
    done = subprocess.run(whole, cwd=bare, env=own, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (bare / "result").exists()


def test_a_character_that_the_output_lacks_is_no_error(bare: Path) -> None:
    path = bare / f"experiments/{STUDY}.py"
    title = "Xception and Inception V3 at nearly equal parameter counts"
    path.write_text(path.read_text().replace(title, "\xb7\u2014"))
    done = command(bare, "list", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert f"{STUDY}: \\xb7\\u2014" in done.stdout


def test_half_of_torchrun_is_one_line(bare: Path) -> None:
    done = command(bare, *TRAIN, "--scale", "smoke", TORCHELASTIC_RUN_ID="left", RANK=None)
    assert refused(done, "TORCHELASTIC_RUN_ID is set, but not RANK", "unset")


@pytest.mark.parametrize("megabytes", [300, 600, 2000])
def test_little_address_space_is_one_line(bare: Path, megabytes: int) -> None:
    code = f"""if True:
        import resource, sys
        from sepablate.__main__ import main
        resource.setrlimit(resource.RLIMIT_AS, ({megabytes} << 20,) * 2)
        sys.argv = ["sepablate", "train", "xception", "--no-mlflow"]
        main()"""
    assert refused(python(bare, "-c", code), "no memory left for this process", "`ulimit -v`")


def test_an_import_that_fails_otherwise_is_a_bug() -> None:
    assert explain_memory(ImportError("No module named 'x'")) is None
    assert explain_memory(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))) is not None
    assert "(MemoryError)" in (explain_memory(MemoryError()) or "")


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_another_operating_system_is_one_line(bare: Path, system: str) -> None:
    code = f"import sys; from sepablate.__main__ import main; sys.platform = {system!r}; main()"
    assert refused(python(bare, "-c", code), "runs on Linux; elsewhere use a Linux container")


def test_a_long_folder_for_temporary_files_gets_short_sockets(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    code = (
        "import multiprocessing.util, tempfile\n"
        "from sepablate.execution import environment\n"
        "environment.use_short_socket_folder()\n"
        "from multiprocessing.connection import Listener\n"
        "listener = Listener(family='AF_UNIX')\n"
        "print(tempfile.gettempdir(), len(listener.address))"
    )
    own = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True)
    place, length = done.stdout.split()
    assert place == str(folder), done.stderr
    assert int(length) <= 107


@pytest.mark.parametrize("home", ["params.yaml", "read-only", "."])
def test_kernels_are_kept_in_the_project_without_a_home(bare: Path, home: str) -> None:
    code = (
        "from sepablate.execution import environment\nenvironment.use_writable_cache()\n"
        "import os; print(os.environ.get('XDG_CACHE_HOME'))"
    )
    (bare / "read-only").mkdir(mode=0o555)
    done = python(bare, "-c", code, HOME=str(bare / home), XDG_CACHE_HOME=None)
    expected = None if home == "." else bare / ".sepablate/cache"
    assert done.stdout.strip() == str(expected), done.stderr
    assert {path.name for path in bare.iterdir()} == {"experiments", "params.yaml", "read-only"}


DVC = """
import subprocess, sys
subprocess.Popen(["sh", "-c", sys.argv[1]]).wait()
"""
TRAINER = """
import os, signal, sys, time
from sepablate.execution import process_lifetime
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
process_lifetime.die_with_parent()
print("trains", flush=True)
for _ in range(1000):  # a signal that comes just before a sleep does not shorten it
    time.sleep(0.1)
print("outlives it", flush=True)
"""


@pytest.mark.parametrize("shells", [0, 1, 2])
def test_a_trainer_ends_with_dvc_whatever_stands_between(tmp_path: Path, shells: int) -> None:
    """A shell that runs its command as a child does not end with DVC, and does not tell."""
    for name, text in (("dvc", DVC), ("trainer.py", TRAINER)):
        (tmp_path / name).write_text(text)
    trainer_command = f"{sys.executable} {tmp_path / 'trainer.py'}"
    wrapped = [
        f"exec {trainer_command}",
        f"{trainer_command}; true",
        f"sh -c '{trainer_command}; true'; true",
    ][shells]
    own = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_STAGE": "train"}
    whole = [sys.executable, str(tmp_path / "dvc"), wrapped]
    dvc = subprocess.Popen(whole, env=own, stdout=subprocess.PIPE, text=True)
    assert dvc.stdout is not None
    assert dvc.stdout.readline() == "trains\n"
    dvc.kill()
    dvc.wait()
    with dvc.stdout:
        assert dvc.stdout.read() == ""  # at the end of the last process that could write


def test_a_reason_crosses_processes() -> None:
    outcomes = job.SharedOutcomes(multiprocessing.get_context("forkserver"), [-1000, 0])
    outcomes[1] = "\xb7" * 400
    assert (outcomes[0], outcomes[1]) == (-1000, "\xb7" * 250)
    outcomes[0] = "x"
    assert outcomes[0] == "x"


@pytest.mark.slow
def test_runs_that_cannot_be_written_say_why_and_the_others_go_on(
    half: Path, finished: Path, tmp_path: Path
) -> None:
    """A file for a run's folder, a folder for a lock; in an unlucky environment besides."""
    keys = json.loads(results(finished)["config.json"])["run_keys"]
    runs = half / ".sepablate/runs"
    (runs / keys["1"] / "lock").mkdir(parents=True)
    (runs / keys["0"]).write_text("")
    long = tmp_path / ("long" * 30)
    long.mkdir()
    unlucky = {"HOME": "/dev/null", "TMPDIR": str(long), "PYTHONIOENCODING": "ascii"}
    done = command(half, *TRAIN, PYTHONPATH=None, XDG_CACHE_HOME=None, **unlucky)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    lines = sorted(line for line in done.stderr.splitlines() if line.startswith("sepablate: "))
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith(f"sepablate: xception seed 0: .sepablate/runs/{keys['0']}")
    assert "a file stands where a folder is needed: move it away" in lines[0]
    assert f"seed 1: .sepablate/runs/{keys['1']}/lock: Is a directory; a folder" in lines[1]
    assert (runs / keys["2"] / "done.json").exists()


@pytest.mark.slow
def test_a_state_that_cannot_be_written_is_one_line(half: Path) -> None:
    (half / ".sepablate").mkdir(mode=0o555)
    done = command(half, *TRAIN, PYTHONPATH=None)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("sepablate: ")]
    assert len(lines) == 3  # one for each seed
    assert all(".sepablate/runs: Permission denied; change its" in line for line in lines)
    (half / ".sepablate").chmod(0o755)
    assert not contents(half / ".sepablate")
