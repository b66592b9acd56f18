"""Studies of which only some variants are trained, as where a GPU was at hand for a few minutes."""

import dataclasses
from collections.abc import Collection
from pathlib import Path

from sepablate import study
from sepablate.analysis import summary_table
from sepablate.analysis.load_runs import RESULTS
from sepablate.errors import UserError
from sepablate.study import AnyStudy, Study


def trained(name: str, scale: str) -> AnyStudy:
    """The study with those of its variants that have runs at `scale`, and the claims on them.

    Raises UserError if its baseline has none, or no other variant has.
    """
    each = study.load(name)
    if not isinstance(each, Study):
        return each
    there = [v.name for v in each.all_variants if (RESULTS / scale / "runs" / v.name).is_dir()]
    if each.baseline.name not in there or len(there) < 2:
        needed = f"{each.baseline.name} and one of {', '.join(v.name for v in each.variants)}"
        raise UserError(f"study {name!r} at scale {scale}: no runs: train {needed}")
    return _only(each, there)


def shown(name: str, folder: Path) -> AnyStudy:
    """The study with the variants that the table in `folder` has, in the study's order."""
    each = study.load(name)
    if not isinstance(each, Study):
        return each
    return _only(each, set(summary_table.from_csv((folder / "table.csv").read_text())["variant"]))


def sentence(name: str, part: AnyStudy) -> str:
    """What a part of a study says nothing of; "" for a whole one."""
    whole = study.load(name)
    missing = [variant.label for variant in whole.all_variants if variant not in part.all_variants]
    if not missing:
        return ""
    untold = len(whole.claims) - len(part.claims)
    claims = f"; of {len(whole.claims)} claims {untold} are left out" if untold else ""
    return f"**Not trained at this scale: {', '.join(missing)}{claims}.**\n"


def _only(each: Study, names: Collection[str]) -> Study:
    variants = tuple(variant for variant in each.variants if variant.name in names)
    left = {each.baseline.name, *(variant.name for variant in variants)}
    claims = tuple(claim for claim in each.claims if {claim.left, claim.right} <= left)
    return dataclasses.replace(each, variants=variants, claims=claims)
