"""Typos in options, and variants that differ in nothing but the name, without importing torch."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.project import ROOT, sepablate

from sepablate import models, scales, study
from sepablate.execution import variant_options
from sepablate.runs.run import resolve
from sepablate.study import XCEPTION

FOLDER = ROOT / "experiments"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A project of one study, without data."""
    (tmp_path / "experiments").mkdir()
    for name in ("params.yaml", "experiments/residual_connections.py"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    return tmp_path


def edit(project: Path, old: str, new: str) -> None:
    path = project / "experiments/residual_connections.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize("name", [*models.MODELS, *models.DETECTORS])
def test_signatures_are_read_without_torch(name: str) -> None:
    assert variant_options.options_of(name) == models.defaults(name)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("residual=False", "resdual=False", r"'resdual': did you mean residual\?; choose "),
        ("residual=False", "residual='no'", r"'residual': 'no': choose a value of type bool"),
    ],
)
@pytest.mark.parametrize("command", [("list",), ("train", "xception", "--no-mlflow")])
def test_a_typo_in_an_option_is_one_line(
    small: Path, old: str, new: str, line: str, command: tuple[str, ...]
) -> None:
    edit(small, old, new)
    done = sepablate(small, *command)
    assert (done.returncode, done.stdout) == (2, "")
    expected = re.compile(f"sepablate: variant 'no_residual': option {line}")
    assert expected.match(done.stderr)
    assert done.stderr.count("\n") == 1


def test_list_points_out_variants_that_are_the_same(small: Path) -> None:
    assert "network and recipe of" not in sepablate(small, "list").stdout
    edit(
        small,
        'no_residual_wide", "No shortcuts, widened", same_parameters_as=XCEPTION',
        'copy", "A copy", activation_between="none"',
    )
    code = "import sys; from sepablate.cli.app import list_; list_(); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=small, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert "    copy                        A copy (network and recipe of no_residual)" in lines
    assert lines[-1] == "False"


@pytest.mark.parametrize("option", models.defaults("xception"))
def test_variants_that_are_called_the_same_resolve_to_the_same(option: str) -> None:
    """With each option at its default: the scale or the recipe may have another value."""
    scale, recipes = scales.load("smoke", ROOT / "params.yaml")
    copy = XCEPTION.but("copy", "Copy", **{option: models.defaults("xception")[option]})
    same = variant_options.same({"xception": XCEPTION, "copy": copy})
    assert (same == {"copy": "xception"}) is (
        option not in variant_options.BY_SCALE | variant_options.BY_RECIPE
    )
    if same:
        runs = [resolve(v, "smoke", scale, recipes, 0, "fp32").config for v in (XCEPTION, copy)]
        assert {key for key in runs[0] if runs[0][key] != runs[1][key]} == {"variant"}


def test_declared_variants_all_differ() -> None:
    variants = study.variants(FOLDER)
    assert variant_options.same(variants) == {}
    twice = {**variants, "again": variants["no_residual_wide"].but("again", "Again")}
    assert variant_options.same(twice) == {"again": "no_residual_wide"}
