"""The options of variants: typos in them, and variants that differ in nothing but their name.

`sepablate list` asks for both, so the signatures of the networks are read without importing torch.
"""

import ast
import dataclasses
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sepablate import study
from sepablate.errors import UserError, choices
from sepablate.study import Variant

MODELS = Path(__file__).parents[1] / "models"
# Options whose value, where a variant gives none, is the scale's or the recipe's.
BY_SCALE = {"classes", "in_channels", "width", "stem_stride", "padding"}
BY_RECIPE = {"dropout", "norm_epsilon", "norm_momentum"}


@functools.cache
def options_of(model: str) -> Mapping[str, Any]:
    """Return the options of a network's constructor with their defaults, as `models.defaults`.

    A default that is no literal is None. Raises UserError for an unknown network.
    """
    index = ast.parse((MODELS / "registry.py").read_text()).body
    files = {
        alias.name: f"{(node.module or '').rpartition('.')[2]}.py"
        for node in index
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    classes, detectors = _table(index, "MODELS"), _table(index, "DETECTORS")
    if model in detectors:
        return _signature((MODELS / "detectors.py").read_text(), ast.literal_eval(detectors[model]))
    if model not in classes:
        raise UserError(f"network {model!r}: {choices(model, [*classes, *detectors])}")
    return _signature((MODELS / files[classes[model]]).read_text(), classes[model])


def _table(module: list[ast.stmt], name: str) -> dict[str, str]:
    """Return the values of a dict of that name in a module, as they are written."""
    (table,) = (
        node.value
        for node in module
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name
    )
    assert isinstance(table, ast.Dict)
    return {
        ast.literal_eval(key): ast.unparse(value)
        for key, value in zip(table.keys, table.values, strict=True)
        if key is not None
    }


def _signature(source: str, name: str) -> dict[str, Any]:
    """Return the arguments of a class's constructor with their defaults."""
    (constructor,) = (
        member
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == name
        for member in node.body
        if isinstance(member, ast.FunctionDef) and member.name == "__init__"
    )
    defaults = constructor.args.defaults
    names = [argument.arg for argument in constructor.args.args[-len(defaults) :]]
    return dict(zip(names, map(_literal, defaults), strict=True))


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def check(variants: Iterable[Variant]) -> None:
    """Raise UserError for an option that a variant's network lacks, or a value of another type."""
    for variant in variants:
        valid = options_of(variant.model)
        for option, value in variant.options.items():
            place = f"variant {variant.name!r}: option {option!r}"
            if option not in valid:
                raise UserError(f"{place}: {choices(option, valid)}")
            if not _fits(value, valid[option]):
                kind = type(valid[option]).__name__
                raise UserError(f"{place}: {value!r}: choose a value of type {kind}")


def check_compared(variant: str) -> None:
    """Raise UserError for a bad option of a variant or of one that a study compares it with."""
    check(v for name in study.studies_with(variant) for v in study.load(name).all_variants)


def _fits(value: object, default: object) -> bool:
    """Return whether a value has the type of an option's default; whole numbers are floats too."""
    if default is None or type(value) is type(default):
        return True
    return isinstance(default, float) and type(value) is int


def same(variants: Mapping[str, Variant]) -> dict[str, str]:
    """Return, by name, the earlier variant that has a variant's network and recipe."""
    first: dict[object, str] = {}
    names = {name: first.setdefault(identity(each), name) for name, each in variants.items()}
    return {name: other for name, other in names.items() if name != other}


def identity(variant: Variant) -> object:
    """Return what decides a variant's numbers: equal for variants that differ in the name only."""
    fields = {field.name: getattr(variant, field.name) for field in dataclasses.fields(variant)}
    del fields["name"], fields["label"]
    defaults, reference = options_of(variant.model), variant.same_parameters_as
    fields["options"] = frozenset(
        (option, value)
        for option, value in variant.options.items()
        if option in BY_SCALE | BY_RECIPE or value != defaults.get(option)
    )
    fields["learning_rates"] = tuple(variant.learning_rates)
    fields["same_parameters_as"] = reference and identity(reference)
    return tuple(fields.items())


def same_line(variant: str) -> str:
    """Return a line that names the other variant of equal network and recipe; "" without one."""
    other = same(study.variants()).get(variant)
    return f"{variant} has the network and the recipe of {other}" if other else ""
