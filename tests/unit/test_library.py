"""sepablate as a library: what `import sepablate` gives, and the notebook that shows it."""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import fork_server
from helpers.made_up_runs import make_runs
from helpers.project import ROOT

import sepablate
from sepablate import study
from sepablate.analysis import run_table
from sepablate.store import layout
from sepablate.store.params_file import read_params

MULTILABEL = "xception_multilabel"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The declared studies and made-up runs at scale `tiny`; one run diverged."""
    home = tmp_path_factory.mktemp("library")
    shutil.copytree(ROOT / study.FOLDER, home / study.FOLDER)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for name in ("xception", "no_residual_wide", MULTILABEL):
            make_runs(name)
        make_runs("no_residual", diverged=(2,))
        layout.PARAMS.write_text("scale: tiny\nscales: {}\n")
        yield home


@pytest.fixture(scope="module")
def table(project: Path) -> pd.DataFrame:
    return sepablate.results("tiny")


def test_a_row_for_each_run(table: pd.DataFrame) -> None:
    assert len(table) == len(table.drop_duplicates(["variant", "seed"])) == 4 * 6
    assert list(table.columns) == [
        *("scale", "variant", "label", "model", "task", "seed", "run_key"),
        *("accuracy", "raw_accuracy", "map_100", "raw_map_100", "map", "raw_map"),
        *("speed", "diverged_at"),
        *("images_seen", "width", *run_table.CONFIG),
    ]
    assert set(table.scale) == {"tiny"}
    assert set(table.label) >= {"Xception", "No shortcuts"}
    assert set(table.images_seen) == {9 * 64}
    first = table[table.variant == "xception"].iloc[0]
    assert (first.seed, first.run_key, first.task) == (0, "0" * 16, "single_label")


def test_the_scores_are_those_of_the_files(table: pd.DataFrame) -> None:
    row = table.query("variant == 'xception' and seed == 3").iloc[0]
    rows = pd.read_csv(layout.seed_rows("tiny", "xception", 3))
    values = rows.groupby("metric").value.mean()
    assert row.accuracy == values["final/test_accuracy_averaged"]
    assert row.raw_accuracy == values["final/test_accuracy"]
    assert row.speed == pytest.approx(values["validation/accuracy"])


def test_each_task_has_its_own_score(table: pd.DataFrame) -> None:
    multi = table.task == "multi_label"
    assert set(table[multi].variant) == {MULTILABEL}
    assert table[multi].accuracy.isna().all()
    assert table[multi].map_100.notna().all()
    assert table[~multi].map_100.isna().all()


def test_a_run_that_diverged_has_no_scores(table: pd.DataFrame) -> None:
    diverged = table[table.diverged_at.notna()]
    assert list(zip(diverged.variant, diverged.seed, diverged.diverged_at, strict=True)) == [
        ("no_residual", 2, 5.0)
    ]
    assert np.isnan(diverged[["accuracy", "raw_accuracy", "speed"]].to_numpy()).all()


def test_a_variant_that_no_study_has_any_more_goes_by_its_name(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(project / "results", tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    assert set(sepablate.results("tiny").label) >= {"xception", "no_residual"}


def test_the_selected_scale_is_the_default(project: Path) -> None:
    assert set(sepablate.results().scale) == {"tiny"}


def test_a_setting_is_read_like_a_scale(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = layout.variant_runs("tiny.half", "xception")
    shutil.copytree(project / "results/tiny/runs/xception", tmp_path / setting)
    monkeypatch.chdir(tmp_path)
    assert set(sepablate.results("tiny.half").scale) == {"tiny.half"}
    with pytest.raises(ValueError, match=r"scale 'tiny': .* choose tiny\.half"):
        sepablate.results("tiny")


@pytest.mark.parametrize("scale", ["tyny", "../results", "tiny.half", ""])
def test_an_unknown_scale_is_refused_with_the_choices(project: Path, scale: str) -> None:
    for function in (sepablate.results, lambda name: sepablate.figure("borders", name)):
        with pytest.raises(ValueError, match=rf"scale {scale!r}: no runs in results/: .*tiny"):
            function(scale)


def test_a_folder_without_results_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no runs in results/: go to the project's root"):
        sepablate.results("laptop")
    with pytest.raises(ValueError, match=r"params\.yaml: No such file"):
        sepablate.results()


def test_the_figure_of_a_study(project: Path) -> None:
    figure = sepablate.figure("residual_connections", "tiny")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["Xception", "No shortcuts (1 diverged)", "No shortcuts, widened"]
    assert "scale tiny" in str(figure.get_supxlabel())


def test_the_figure_of_a_study_that_no_file_declares(project: Path) -> None:
    variants = study.variants()
    own = sepablate.Study("t", "s", variants["xception"], (variants["no_residual_wide"],), (), ())
    legend = sepablate.figure(own).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["Xception", "No shortcuts, widened"]


def test_figures_of_nothing_are_refused(project: Path) -> None:
    with pytest.raises(ValueError, match=r"study 'residuals' .*did you mean residual_connections"):
        sepablate.figure("residuals", "tiny")
    with pytest.raises(
        ValueError, match=r"inception_v3.*run `sepablate train inception_v3 --scale tiny`"
    ):
        sepablate.figure("xception_vs_inception", "tiny")
    with pytest.raises(ValueError, match="run `sepablate robustness"):
        sepablate.figure("robustness", "tiny")


def test_the_figure_of_a_study_of_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    figure = sepablate.figure("separable_cost", "laptop")
    assert [axis.get_title("left") for axis in figure.axes] == ["Forward", "Backward"]


def test_the_package_gives_what_it_lists_and_imports_little() -> None:
    code = (
        "import sys, sepablate\n"
        "print([name for name in ('torch', 'pandas', 'matplotlib') if name in sys.modules])\n"
        "print(set(sepablate.__all__) <= set(dir(sepablate)))\n"
        "print(all(getattr(sepablate, name) is not None for name in sepablate.__all__))\n"
        "try: sepablate.lood\nexcept AttributeError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    expected = "[]\nTrue\nTrue\nmodule 'sepablate' has no attribute 'lood'\n"
    assert done.stdout == expected, done.stderr


def test_type_checkers_see_all_that_the_package_lists() -> None:
    text = (ROOT / "sepablate/__init__.py").read_text()
    (block,) = [node for node in ast.parse(text).body if isinstance(node, ast.If)]
    imported = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == sepablate._MODULES
    assert set(sepablate.__all__) == {*imported, "__version__"}


def test_the_notebook_runs_and_is_committed_without_outputs() -> None:
    cells = json.loads((ROOT / "notebooks/tour.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells if cell["cell_type"] == "code")
    done = fork_server.run(
        ROOT / "notebooks", "-c", AS_JUPYTER, json.dumps(code), PYTHONPATH=str(ROOT)
    )
    assert done.returncode == 0, done.stderr
    for words in ("No shortcuts", "with 3 Axes>", "torch.Size([2, 10])", "356,353 parameters"):
        assert words in done.stdout


AS_JUPYTER = """
import ast, json, sys
names = {}
for cell in json.loads(sys.argv[1]):
    lines = [line for line in cell.splitlines() if not line.startswith("%")]  # IPython's own
    *body, last = ast.parse("\\n".join(lines)).body
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    if isinstance(last, ast.Expr):
        print(repr(eval(compile(ast.Expression(last.value), "cell", "eval"), names)))
    else:
        exec(compile(ast.Module([last], []), "cell", "exec"), names)
"""


def test_files_that_are_edited_while_python_runs_are_read_again(small: Path) -> None:
    path, params = Path("experiments/residual_connections.py"), Path("params.yaml")
    text = "import dataclasses\n" + (ROOT / path).read_text()
    for title in ("one", "another"):
        path.write_text(f"{text}\nSTUDY = dataclasses.replace(STUDY, title={title!r})\n")
        assert study.load("residual_connections").title == title
    read_params(params)["scales"].clear()  # what a caller does to it is its own
    assert "smoke" in read_params(params)["scales"]
    params.write_text("scales: {other: {}}")
    assert {*read_params(params)["scales"]} == {"other"}
