"""No confounded comparison gets as far as training."""

from typing import Any

import pytest
from helpers.project import ROOT, contents, edit_params, sepablate

from sepablate import scales, study
from sepablate.runs import confounds
from sepablate.runs.run import resolve

FOLDER = ROOT / "experiments"
PAIRS = [
    (name, pair)
    for name in study.names(FOLDER)
    for pair in sorted(
        {
            pair
            for each in study.load(name, FOLDER).all_variants
            for pair in study.load(name, FOLDER).pairs_with(each.name)
        }
    )
]


@pytest.fixture(scope="module")
def configs() -> dict[str, dict[str, Any]]:
    scale, recipes = scales.load("smoke", ROOT / "params.yaml")
    return {
        name: resolve(variant, "smoke", scale, recipes, 0, "fp32").config
        for name, variant in study.variants(FOLDER).items()
    }


@pytest.mark.parametrize(("name", "pair"), PAIRS, ids=str)
def test_declared_studies_are_clean_and_every_other_change_is_caught(
    configs: dict[str, dict[str, Any]], name: str, pair: tuple[str, str]
) -> None:
    declared = study.load(name, FOLDER)
    left, right = (configs[each] for each in pair)
    assert confounds.undeclared(declared, left, right) == {}
    for field, value in right.items():
        if field in {*declared.factors, *declared.confounds, *confounds.FOLLOWS}:
            continue
        if field in left:  # else it belongs to another network
            found = confounds.undeclared(declared, left, {**right, field: ("changed", value)})
            assert found == {field: (left[field], ("changed", value))}, field


def test_every_declared_difference_occurs(configs: dict[str, dict[str, Any]]) -> None:
    """A confound that never differs would be a loophole."""
    for name in study.names(FOLDER):
        declared = study.load(name, FOLDER)
        pairs = [pair for found, pair in PAIRS if found == name]
        for field in {*declared.factors, *declared.confounds} - {"learning_rate"}:
            differs = [configs[a].get(field) != configs[b].get(field) for a, b in pairs]
            assert any(differs), (name, field)


def test_training_refuses_confounds_and_names_all_with_both_values(project: Any) -> None:
    edit_params(project)
    path = project / "experiments/residual_connections.py"
    text = path.read_text()
    also = "weight_decay=3e-5, pointwise_first=True"
    path.write_text(text.replace("residual=False)", f"residual=False, {also})"))
    before = contents(project)
    for variant in ("no_residual", "xception"):
        done = sepablate(project, "train", variant, "--no-mlflow")
        assert done.returncode == 2
        line = "study residual_connections: xception and no_residual differ in "
        line += "model.pointwise_first (False, True), weight_decay (1e-05, 3e-05), which the study "
        line += "does not declare: make them equal, or add model.pointwise_first, weight_decay to "
        line += "its confounds with the reason"
        assert done.stderr == f"sepablate: {line}\n"
    after = {name: data for name, data in contents(project).items() if "__pycache__" not in name}
    assert after == before
