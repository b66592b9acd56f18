"""The documentation's network, added to a project by one file, its import and its name."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.project import NETWORK, QUICK, ROOT, TINY, copy_project, edit_params, sepablate

from sepablate import models
from sepablate.runs import source_hash

OWN_STUDY = '''"""The shortcut. A question of one's own.

Question   Does it help?
Paper      None.
Deviates   Nothing.
"""

from sepablate.study import Claim, Study, Variant

THREE = Variant("three_layers", "Three layers", model="three_layers", weight_decay=1e-5)
STUDY = Study(
    title="A shortcut over one layer",
    source="A question of one's own",
    baseline=THREE,
    variants=(THREE.but("no_shortcut", "No shortcut", shortcut=False),),
    claims=(
        Claim("three_layers", ">", "no_shortcut", "accuracy", 0.005, "own", "the shortcut helps"),
    ),
    factors=("model.shortcut",),
)
'''
ASKED = (
    "test_models.py",
    "test_model_options.py",
    "test_cost.py",
    "test_variant_options.py",
)


@pytest.fixture
def extended(tmp_path: Path, data_folder: Path) -> Path:
    """A project whose package has the network."""
    project = copy_project(tmp_path, [QUICK])
    edit_params(project, **TINY, seeds=[0])
    shutil.copy(ROOT / NETWORK, project / "sepablate/models")
    index = project / "sepablate/models/registry.py"
    text = index.read_text()
    for line, new in (
        ("from sepablate.models.xc", "from sepablate.models.three_layers import ThreeLayers\n"),
        ('    "xception": Xc', '    "three_layers": ThreeLayers,\n'),
    ):
        assert text.count(line) == 1
        text = text.replace(line, new + line)
    index.write_text(text)
    return project


@pytest.mark.slow
def test_it_trains_is_compared_and_changes_no_other_key(extended: Path, tmp_path: Path) -> None:
    (extended / "experiments/shortcut.py").write_text(OWN_STUDY)

    def run(project: Path, *arguments: str) -> str:
        done = sepablate(project, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "no_shortcut" in run(extended, "list")
    for variant in ("three_layers", "no_shortcut"):
        run(extended, "train", variant, "--no-mlflow")
    run(extended, "study", "shortcut", "--no-mlflow")
    assert "| Three layers |" in (extended / "results/smoke/shortcut/table.md").read_text()
    asked = ("new", "study", "wide", "--baseline", "three_layers", "--change", "relative_width=2")
    assert "sepablate train wide" in run(extended, *asked)
    plain = copy_project(tmp_path / "plain", [QUICK])
    shutil.copy(extended / "params.yaml", plain)
    keys = run(extended, "train", "xception", "--keys")
    assert keys == run(plain, "train", "xception", "--keys")


def test_an_edit_to_what_it_builds_on_changes_its_key(
    extended: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here through another file and inside a function; what it does not import changes nothing."""
    folder = extended / "sepablate/models"
    (folder / "between.py").write_text("from . import xception\n\nBase = xception.Xception\n")
    network = folder / "three_layers.py"
    inside = "    def base(self):\n        from sepablate.models.between import Base\n"
    network.write_text(network.read_text() + "\n" + inside)
    monkeypatch.setattr(source_hash, "PACKAGE", extended / "sepablate")
    spec = importlib.util.spec_from_file_location("sepablate.models.three_layers", network)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(models.MODELS, "three_layers", module.ThreeLayers)

    def digest(edited: str | None = None) -> str:
        if edited:
            with (folder / edited).open("a") as file:
                file.write("# an edit\n")
        return source_hash.source_digest.__wrapped__("three_layers", "fashion_mnist", "torch")

    before = digest()
    assert digest("inception_v3.py") == before
    of_base = digest("xception.py")
    assert of_base != before
    assert digest("between.py") not in (before, of_base)


@pytest.mark.slow
def test_it_passes_the_tests_that_run_over_all_networks(extended: Path) -> None:
    shutil.copytree(ROOT / "tests", extended / "tests")
    shutil.copy(ROOT / "pyproject.toml", extended)
    shutil.copytree(ROOT / "docs", extended / "docs")
    files = [f"tests/unit/{name}" for name in ASKED]
    options = ("-n", "0", "-k", "three_layers", "-p", "no:cacheprovider")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files],
        cwd=extended,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
