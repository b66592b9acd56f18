"""Recipes that a scale has of its own, and the search that chooses them."""

import dataclasses
from pathlib import Path

import yaml
from helpers.project import ROOT

from sepablate import scales, study
from sepablate.runs.run import resolve


def edited(folder: Path, changes: dict[str, object]) -> Path:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["scales"]["smoke"]["recipes"] = changes
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder / "params.yaml"


def test_a_scale_changes_a_recipe_for_itself_alone(tmp_path: Path) -> None:
    changes: dict[str, object] = {"imagenet": {"decays": 15, "learning_rate": 1}}
    scale, recipes = scales.load("smoke", edited(tmp_path, changes))
    declared = study.variant("xception", ROOT / "experiments")
    changed = resolve(declared, "smoke", scale, recipes, 0, "fp32")
    expected = dataclasses.replace(recipes["imagenet"], decays=15, learning_rate=1)
    assert (changed.recipe, recipes["imagenet"].decays) == (expected, 90)
    assert (changed.config["decays"], changed.config["learning_rate"]) == (15, 1)
    assert "recipes" not in changed.config
    plain = resolve(declared, "smoke", dataclasses.replace(scale, recipes={}), recipes, 0, "fp32")
    assert plain.recipe == recipes["imagenet"]
    assert plain.key != changed.key
    assert plain.key == resolve(declared, "smoke", *unchanged(), 0, "fp32").key


def unchanged() -> tuple[scales.Scale, dict[str, scales.Recipe]]:
    """The smoke scale with changes that change nothing."""
    scale, recipes = scales.load("smoke", ROOT / "params.yaml")
    same = scales.RecipeChange(decays=recipes["imagenet"].decays)
    return dataclasses.replace(scale, recipes={"imagenet": same, "jft": same}), recipes
