"""Nothing is unpickled, nothing phones home, no name escapes its folder, no result tells of you."""

import ast
import hashlib
import os
import pickle
import re
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from helpers import fork_server
from helpers.bomb import Bomb
from helpers.processes import ended, start
from helpers.project import ROOT, STUDY, TINY, contents, edit_params
from hypothesis import given
from hypothesis import strategies as st

from sepablate import scales, study
from sepablate.store import checkpoint

SOURCES = [
    *sorted((ROOT / "sepablate").rglob("*.py")),
    *sorted((ROOT / "experiments").glob("*.py")),
]
FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.Loader"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "pandas.read_pickle", "pd.read_pickle"),
    *("np.load", "numpy.load", "joblib.load", "shelve.open", "marshal.loads"),
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_runs_what_a_file_says(path: Path) -> None:
    """Safe YAML, weights only, no shell. A study file is code, and is imported as such."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called, options = ast.unparse(node.func), {each.arg: each.value for each in node.keywords}
        assert called not in FORBIDDEN, (node.lineno, called)
        if called == "torch.load":
            assert ast.unparse(options["weights_only"]) == "True", node.lineno
        assert "shell" not in options, node.lineno


def test_a_checkpoint_with_code_in_it_is_not_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Even one whose digest is right."""
    content = pickle.dumps({"step": 1, "model": Bomb(tmp_path / "bomb")})
    digest = hashlib.sha256(content).hexdigest()[:32]
    (tmp_path / f"checkpoint-000000001-{digest}.pt").write_bytes(content)
    assert checkpoint.load(tmp_path) is None
    assert "not a checkpoint (UnpicklingError); deleted" in capfd.readouterr().err
    assert not (tmp_path / "bomb").exists()


RESUMED = """
import pickle, sys
from pathlib import Path
from sepablate import data, scales, study
from sepablate.runs.run import resolve
from sepablate.store import layout
from sepablate.training import engine

class Stop(engine.Monitor):
    def should_stop(self):
        return True

scale, recipes = scales.load("smoke")
run = resolve(study.variant("xception"), "smoke", scale, recipes, 0, "fp32")
splits, found = data.dataset(scale.dataset).load(layout.DATA), []
try:
    engine.fit(run, splits, Path("state"), Stop())
except engine.Interrupted:
    pass
classes, unpicklers, loads = [], [], []

def hook(event, arguments):
    if event == "pickle.find_class":
        classes.append(arguments)

sys.addaudithook(hook)
safe = sys.modules["torch._weights_only_unpickler"].Unpickler
load = safe.load
safe.load = lambda *a, **o: loads.append(1) or load(*a, **o)
engine.fit(run, splits, Path("state"), engine.Monitor())
resumed = list(classes)
pickle.loads(pickle.dumps(Path("x")))  # the hook does see an ordinary unpickling
print(resumed, len(loads) > 0, len(classes) > 0)
"""


@pytest.mark.slow
def test_a_resume_unpickles_no_class(project: Path) -> None:
    """torch reads the checkpoint with an unpickler of its own, which only knows tensors."""
    edit_params(project, **TINY)
    done = fork_server.run(project, "-c", RESUMED)
    assert done.stdout.strip() == "[] True True", done.stdout + done.stderr


NO_NETWORK = """
import os, sys

def hook(event, arguments):
    local = event == "socket.connect" and not isinstance(arguments[1], tuple)
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname") and not local:
        log = os.open(os.environ["CONNECTIONS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(log, repr((event, arguments[1:], sys.argv)).encode())

sys.addaudithook(hook)
"""


COMMANDS = (
    ("train", "xception", "--no-mlflow"),
    ("train", "inception_v3", "--no-mlflow"),
    ("study", STUDY, "--no-mlflow"),
    ("report", STUDY, "--no-mlflow"),
)


@pytest.mark.slow
def test_two_people_get_the_same_bytes_and_none_of_the_other(
    half: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """From nothing to a report, in two folders: no connection, no difference, nothing of yours.

    The first person starts `python` to train, all else is forked. The second person has trained
    Xception already: in `finished`, which nobody watched.
    """
    project, copy = half, tmp_path_factory.mktemp("another") / "copy"
    shutil.copytree(finished, copy)
    for each in (project, copy):
        shutil.copy2(ROOT / f"experiments/{STUDY}.py", each / "experiments")
    logs = [watched(each.parent / f"{each.name}-home") for each in (project, copy)]
    environments = [personal(log) for log in logs]
    first = by_python(project, environments[0], COMMANDS[0])
    with ThreadPoolExecutor() as both:
        assert [*both.map(middle, (project, copy), environments)] == [0, 0]
    last = [forked(*each, COMMANDS[-1]) for each in zip((project, copy), environments, strict=True)]
    assert [first, *last] == [0, 0, 0]
    assert not [log.read_text() for log in logs if log.exists()]
    probe = "import socket\ntry: socket.create_connection(('127.0.0.1', 9), 1)\nexcept OSError: 0"
    subprocess.run([sys.executable, "-c", probe], env=environments[0], check=True)
    assert logs[0].exists()  # the watch was awake

    yours = [
        str(project),
        str(ROOT),
        str(logs[0].parent),
        "someone-in-particular",
        "a-secret-of-mine",
    ]
    for path, content in contents(project / "results").items():
        assert not [each for each in yours if each.encode() in content], path
    assert forked(project, environments[0], ("publish",)) == 0
    messages = in_mlflow(project / "mlflow.db")
    assert "inception_v3" in messages
    assert not [each for each in yours if each in messages]
    for each in (project, copy):
        shutil.rmtree(each / "results/smoke/measured")
        (each / "results/smoke/runs.tar.gz").unlink()  # has the times as well
    ours, theirs = (contents(each / "results") for each in (project, copy))
    assert ours == theirs
    assert {name.rpartition(".")[2] for name in ours} >= {"csv", "md", "json", "svg", "png"}


def by_python(project: Path, environment: dict[str, str], command: tuple[str, ...]) -> int:
    """The exit status of a command."""
    whole = [sys.executable, "-m", "sepablate", *command]
    return subprocess.run(whole, cwd=project, env=environment).returncode


def forked(project: Path, environment: dict[str, str], command: tuple[str, ...]) -> int:
    process = start(project, "sepablate", *command, before=NO_NETWORK, **environment)
    return ended(process)[0]


def middle(project: Path, environment: dict[str, str]) -> int:
    return max(forked(project, environment, each) for each in COMMANDS[1:-1])


def watched(home: Path) -> Path:
    """A home whose Python notes every connection in the file that is returned."""
    home.mkdir()
    (home / "sitecustomize.py").write_text(NO_NETWORK)
    return home / "connections"


def personal(log: Path) -> dict[str, str]:
    """An environment that tells who you are."""
    own = {
        "HOME": str(log.parent),
        "USER": "someone-in-particular",
        "LOGNAME": "someone-in-particular",
    }
    own |= {"PYTHONPATH": str(log.parent), "CONNECTIONS": str(log), "TOKEN": "a-secret-of-mine"}
    return {**os.environ, **own}


def in_mlflow(database: Path) -> str:
    """All text of the tracking store but where its artifacts lie."""
    messages = []
    with sqlite3.connect(database) as connection:
        connection.row_factory = sqlite3.Row
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in tables.fetchall():
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                messages += [str(row[key]) for key in row.keys() if "artifact" not in key]  # noqa: SIM118
    return "\n".join(messages)


SAFE = re.compile(r"[A-Za-z0-9_.+-]+")


@given(name=st.text(max_size=12) | st.text("abc._+-/ ;$`'\n", max_size=6))
def test_a_variant_s_name_is_safe_in_a_path_and_a_shell(name: str) -> None:
    try:
        study.Variant(name, "A label", model="xception", weight_decay=0.0)
        taken = True
    except ValueError:
        taken = False
    safe = bool(SAFE.fullmatch(name)) and name[0] not in ".-+"
    assert taken == safe


@pytest.mark.parametrize("name", ["../x", "..", "a b", "a;b", "-rf", "$(ls)", "a\nb", ""])
def test_names_of_studies_and_scales_are_safe(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="study"):
        study.load(name, ROOT / "experiments")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["scales"][name] = params["scales"]["smoke"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(ValueError, match="choose a name"):
        scales.load(name, tmp_path / "params.yaml")
