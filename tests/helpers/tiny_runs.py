"""Runs of a few steps, and their contexts."""

import dataclasses
import functools

from helpers.project import ROOT, TINY
from sepablate import scales, study
from sepablate.data.split import Split
from sepablate.runs.run import Run, resolve
from sepablate.training.objective import make_objective
from sepablate.training.step import TrainContext


@functools.cache
def tiny(
    variant: str = "xception", seed: int = 0, shift: int | None = None, **changes: object
) -> Run:
    """shift: the scale's own, of the recipes for one label an image."""
    scale, settings = scales.load("smoke", ROOT / "params.yaml")
    scale = dataclasses.replace(scale, **(TINY | {"evaluations": 3} | changes))  # type: ignore[arg-type]
    recipes = dict.fromkeys(("imagenet", "example"), scales.RecipeChange(shift=shift))
    scale = dataclasses.replace(scale, recipes=recipes)
    declared = study.variant(variant, ROOT / "experiments")
    return resolve(declared, "smoke", scale, settings, seed, "fp32")


def context(run: Run, split: Split) -> TrainContext:
    return TrainContext(run, make_objective(run.task, split.labels))
