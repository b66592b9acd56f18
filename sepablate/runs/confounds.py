"""Refuse a confounded comparison before anything is trained."""

from collections.abc import Callable
from typing import Any

from sepablate import study
from sepablate.errors import UserError
from sepablate.study import Study

FOLLOWS = ("variant", "source_digest")  # the name, and the file of the model


def check(variant: str, config_of: Callable[[str], dict[str, Any]]) -> None:
    """Raise UserError if a study compares `variant` to one that differs in an undeclared field.

    config_of: the resolved config of a variant by its name.
    """
    for name in study.studies_with(variant):
        declared = study.load(name)
        for left, right in sorted(declared.pairs_with(variant)):
            refuse(name, "", (left, config_of(left)), (right, config_of(right)))


def refuse(
    name: str, where: str, left: tuple[str, dict[str, Any]], right: tuple[str, dict[str, Any]]
) -> None:
    """Raise UserError if two variants of a study differ in a field that it does not declare.

    Args:
        name: the study's name.
        where: appended to it in the error, such as a setting.
        left: a variant's name, and its resolved config.
        right: the same of the other one.
    """
    found = undeclared(study.load(name), left[1], right[1])
    if found:
        fields = ", ".join(f"{field} {values!r}" for field, values in found.items())
        raise UserError(
            f"study {name}{where}: {left[0]} and {right[0]} differ in {fields}, which the study "
            f"does not declare: make them equal, or add {', '.join(found)} to its confounds with "
            f"the reason"
        )


def undeclared(
    declared: Study, left: dict[str, Any], right: dict[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """The fields in which two resolved configs differ and may not, with both values.

    An option that only one of two different models has is part of that difference.
    """
    allowed = {*declared.factors, *declared.confounds, *FOLLOWS}
    return {
        field: (left.get(field), right.get(field))
        for field in sorted(left.keys() | right.keys())
        if left.get(field) != right.get(field)
        and field not in allowed
        and not ("model" in declared.factors and (field in left) != (field in right))
    }
