"""Studies of which only some variants are trained, such as for lack of GPU time."""

import dataclasses
from collections.abc import Collection

from sepablate import study
from sepablate.analysis import summary_table
from sepablate.errors import UserError
from sepablate.store import collected_runs, layout
from sepablate.study import Study


def trained_part(name: str, scale: str) -> Study:
    """Return a study with its variants that have runs at `scale`, and the claims on them.

    Raises UserError if its baseline has none, or no other variant has.
    """
    whole, runs = study.load(name), collected_runs.trained_variants(scale)
    trained = [variant.name for variant in whole.all_variants if variant.name in runs]
    if whole.baseline.name not in trained or len(trained) < 2:
        others = ", ".join(variant.name for variant in whole.variants)
        needed = f"{whole.baseline.name} and one of {others}"
        raise UserError(f"study {name!r} at scale {scale}: no runs: train {needed}")
    return _restrict(whole, trained)


def tabulated_part(name: str, scale: str) -> Study:
    """Return a study with the variants that its table at `scale` has, in the study's order."""
    table = summary_table.read(layout.study_folder(scale, name) / layout.TABLE)
    return _restrict(study.load(name), set(table["variant"]))


def missing_sentence(name: str, part: Study) -> str:
    """Return which variants and claims a part of a study leaves out; "" for a whole one."""
    whole = study.load(name)
    missing = [variant.label for variant in whole.all_variants if variant not in part.all_variants]
    if not missing:
        return ""
    omitted = len(whole.claims) - len(part.claims)
    claims = f"; of {len(whole.claims)} claims {omitted} are left out" if omitted else ""
    return f"**Not trained at this scale: {', '.join(missing)}{claims}.**\n"


def _restrict(whole: Study, names: Collection[str]) -> Study:
    variants = tuple(variant for variant in whole.variants if variant.name in names)
    present = {whole.baseline.name, *(variant.name for variant in variants)}
    claims = tuple(claim for claim in whole.claims if {claim.left, claim.right} <= present)
    shown = {
        number: tuple(name for name in figure if name in present)
        for number, figure in whole.figures.items()
    }
    figures = {number: figure for number, figure in shown.items() if len(figure) > 1}
    return dataclasses.replace(whole, variants=variants, claims=claims, figures=figures)
