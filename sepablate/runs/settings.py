"""Settings of a robustness study: scales derived from others, by names such as `laptop.cifar10`.

A derived scale is used like any other: its runs have keys of their own, and are those of the base
wherever nothing that decides numbers differs.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from sepablate import scales, study
from sepablate.errors import UserError, choices
from sepablate.runs import confounds
from sepablate.scales import Recipe, RecipeChange, Scale
from sepablate.store import datasets
from sepablate.store.run_key import run_key
from sepablate.study import BASE, Change, RobustnessStudy, Setting, Times
from sepablate.validation import parse

SEPARATOR = "."
SCALE_FIELDS = [
    field.name for field in dataclasses.fields(Scale) if field.name not in ("seeds", "recipes")
]
RECIPE_FIELDS = [
    field.name for field in dataclasses.fields(RecipeChange) if field.name not in SCALE_FIELDS
]
# Fields of a config that a setting may always change, and that decide no number of a run.
FOLLOWS = ("scale", "seeds", "source_digest")

Configs = Callable[[str, str], dict[str, Any]]


def load(name: str, origin: str = "") -> tuple[Scale, dict[str, Recipe]]:
    """Return a scale of params.yaml or a setting of one, `<scale>.<setting>`, and all recipes.

    Args:
        name: of the scale.
        origin: where the name comes from, for an error.

    Raises UserError for an unknown name, or if the setting gives no valid scale.
    """
    base, _, setting = name.partition(SEPARATOR) if isinstance(name, str) else (name, "", "")
    scale, recipes = scales.load(base, origin=origin)
    if not setting:
        return scale, recipes
    declared, chosen = study.setting(setting)
    return derive(scale, recipes, declared, chosen), recipes


def names(declared: RobustnessStudy, scale_name: str) -> dict[str, str]:
    """Return the scale name of each setting at a scale, by the setting's; the base comes first.

    A departure that changes nothing at this scale, which has it already, is left out.
    """
    scale, recipes = scales.load(scale_name)
    departures = [
        setting.name for setting in declared.settings if departs(scale, recipes, declared, setting)
    ]
    return {BASE: scale_name} | {name: f"{scale_name}{SEPARATOR}{name}" for name in departures}


def load_all(name: str, scale_name: str) -> dict[str, Scale]:
    """Return the scale of each setting of a robustness study; UserError if one is invalid."""
    study.robustness_claims(name)
    derived = names(study.load_robustness(name), scale_name)
    return {setting: load(each)[0] for setting, each in derived.items()}


def departs(
    scale: Scale, recipes: dict[str, Recipe], declared: RobustnessStudy, setting: Setting
) -> bool:
    """Return whether each level of a setting changes something at a scale."""
    recipe = scale.changed(declared.recipe, recipes[declared.recipe])

    def differs(field: str, change: Change) -> bool:
        owner = scale if field in SCALE_FIELDS else recipe
        return isinstance(change, Times) or getattr(owner, field, None) != change

    return all(
        any(differs(*change) for change in declared.factor(name).levels[level].items())
        for name, level in setting.levels.items()
    )


def derive(
    scale: Scale, recipes: dict[str, Recipe], declared: RobustnessStudy, setting: Setting
) -> Scale:
    """Return the scale of a setting.

    Images have the size that the data set has; where it has fewer of them than the scale uses, they
    are seen more often, so that as many are seen. A curve has at most a point for each step.

    Raises UserError for an unknown field, or if a field gets an invalid value.
    """
    place = f"{study.FOLDER}/: setting {setting.name!r}"
    values = {field.name: getattr(scale, field.name) for field in dataclasses.fields(scale)}
    recipe = scale.changed(declared.recipe, recipes[declared.recipe])
    recipe_changes: dict[str, Any] = {}
    for field, change in declared.changes(setting):
        if field not in {*SCALE_FIELDS, *RECIPE_FIELDS}:
            valid = choices(field, [*SCALE_FIELDS, *RECIPE_FIELDS])
            raise UserError(f"{place}: field {field!r}: {valid}")
        if field in SCALE_FIELDS:
            values[field] = _changed(values[field], change, f"{place}: {field}")
        else:
            before = recipe_changes.get(field, getattr(recipe, field))
            recipe_changes[field] = _changed(before, change, f"{place}: {field}")
    values["recipes"] = _with_changes(scale, declared.recipe, recipe_changes, place)
    values["seeds"] = scale.seeds[: declared.seeds]
    derived = parse(Scale, values | _follow_data(values), place)
    derived = dataclasses.replace(derived, evaluations=min(scale.evaluations, derived.steps))
    scales.check_together(derived, place)
    return derived


def check(name: str, scale_name: str, config_of: Configs) -> None:
    """Raise UserError if a setting is confounded, or two settings are the same at a scale.

    A setting may differ from the scale itself in the fields of its factors; in it, the two sides of
    a claim in what their study declares.

    Args:
        name: of the robustness study.
        scale_name: the scale.
        config_of: the resolved config of a variant, by its name, at a scale, by its name.
    """
    declared, claims = study.load_robustness(name), study.robustness_claims(name)
    by_name = {setting.name: setting for setting in declared.settings}
    keys: dict[str, str] = {}
    for setting, derived in names(declared, scale_name).items():
        for owner, claim in claims:
            sides = [(side, config_of(side, derived)) for side in (claim.left, claim.right)]
            confounds.refuse(owner, f" in setting {setting}", *sides)
        first = claims[0][1].left
        key = run_key(config_of(first, derived), 0)
        if keys.setdefault(key, setting) != setting:
            raise UserError(f"study {name}: settings {keys[key]!r} and {setting!r} are the same")
        if setting != BASE:
            allowed = declared.fields(by_name[setting])
            pair = config_of(first, derived), config_of(first, scale_name)
            _refuse_undeclared(name, by_name[setting], allowed, *pair)


def _refuse_undeclared(
    name: str, setting: Setting, allowed: set[str], ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    for field in sorted(ours.keys() | theirs.keys()):
        if ours.get(field) != theirs.get(field) and field not in {*allowed, *FOLLOWS}:
            raise UserError(
                f"study {name}: setting {setting.name!r} differs from the scale in {field} "
                f"({ours.get(field)!r}, {theirs.get(field)!r}), which its factors "
                f"({', '.join(setting.levels)}) do not declare: add it to the fields of one"
            )


def _with_changes(
    scale: Scale, name: str, changes: dict[str, Any], place: str
) -> dict[str, RecipeChange]:
    """Return what a scale changes in recipes, with further changes of the recipe of that name."""
    before = scale.recipes.get(name, RecipeChange())
    values = {field.name: getattr(before, field.name) for field in dataclasses.fields(before)}
    return {**scale.recipes, name: parse(RecipeChange, values | changes, place)}


def _changed(value: Any, change: Change, place: str) -> Any:
    """Return a changed number, whole where it was whole."""
    if not isinstance(change, Times):
        return change
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{place}: {value!r} times {change.factor:g}: choose a number to multiply")
    number = value * change.factor
    if isinstance(value, float):
        return number
    if number != round(number):
        raise UserError(f"{place}: {value} times {change.factor:g}: choose a whole number")
    return round(number)


def _follow_data(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that the data set decides."""
    known = datasets.limits(values["dataset"])
    if known is None:
        return {}
    size, images, *_ = known
    follows: dict[str, Any] = {"image_size": size} if size else {}
    if values["images"] > images:
        follows |= {"images": images, "epochs": values["epochs"] * values["images"] / images}
    return follows
