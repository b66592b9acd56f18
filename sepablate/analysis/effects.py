"""The effect that a claim is about, as a study's runs measure it; `verdicts` interprets it."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sepablate.analysis import statistics
from sepablate.analysis.load_runs import Runs
from sepablate.analysis.statistics import Array, Interval
from sepablate.errors import UserError
from sepablate.paper.accuracies import FAR, lowest_of_the_same_kind
from sepablate.store.files import read_json
from sepablate.study import PER_COST, SPEED, Claim

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class Divergence:
    """A run that gave no score."""

    variant: str
    label: str
    seed: int
    step: int


@dataclass(frozen=True)
class Measured:
    """The numbers of one claim. Differences are left - right, as fractions, one per seed.

    p is that of the t-test against zero, or against the margin for a claim of equality. images_low
    and images_high are the interval over test images, for final scores only. below_published is by
    how much the study's baseline ends below the lowest published accuracy of networks of its kind,
    for final accuracies on a data set that has one.
    """

    study: str
    dataset: str
    claim: Claim
    left_label: str
    right_label: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    diverged: tuple[Divergence, ...]
    mean: float
    low: float
    high: float
    deviation: float
    cohens_dz: float
    p: float
    p_sign_flip: float
    p_equivalence: float
    images_low: float
    images_high: float
    below_published: float

    @property
    def far_below(self) -> bool:
        """Whether the baseline is too far from known accuracies for a claim on the final one."""
        return self.below_published > FAR


NUMBERS = [field.name for field in dataclasses.fields(Measured) if field.type is float]


def measure(study: str, claim: Claim, runs: Runs, labels: Mapping[str, str]) -> Measured:
    """Return the numbers of a claim, from the seeds that ended well on both sides.

    Args:
        study: the name of the study that has the claim.
        claim: on two of its variants.
        runs: of its variants.
        labels: the variants' labels, by name.
    """
    sides = [claim.left, claim.right]
    scores = runs.scores(claim.metric)[sides].dropna()
    seeds = [int(seed) for seed in scores.index]
    differences = (scores[claim.left] - scores[claim.right]).to_numpy()
    images = _interval_over_images(claim, runs, seeds, differences)
    return Measured(
        study=study,
        dataset=str(next(iter(runs.configs.values()))["dataset"]),
        claim=claim,
        left_label=labels[claim.left],
        right_label=labels[claim.right],
        seeds=tuple(seeds),
        differences=tuple(map(float, differences)),
        diverged=tuple(
            Divergence(name, labels[name], seed, step)
            for (name, seed), step in runs.diverged.items()
            if name in sides
        ),
        images_low=float(images.low),
        images_high=float(images.high),
        below_published=_below_published(claim, runs),
        **paired_effect(claim, differences),
    )


def paired_effect(claim: Claim, differences: Array) -> dict[str, float]:
    """Return the statistics of a claim's paired differences, by the fields of Measured."""
    mean, low, high = statistics.interval(differences)
    if claim.comparison == "=":
        p = statistics.margin_test(differences, claim.margin)
    else:
        p = statistics.t_test(differences)
    return {
        "mean": float(mean),
        "low": float(low),
        "high": float(high),
        "deviation": float(statistics.deviation(differences)),
        "cohens_dz": float(statistics.cohens_dz(differences)),
        "p": float(p),
        "p_sign_flip": statistics.sign_flip(differences, np.random.default_rng(0)),
        "p_equivalence": float(statistics.tost(differences, claim.margin)),
    }


def _interval_over_images(
    claim: Claim, runs: Runs, seeds: list[int], differences: Array
) -> Interval:
    if claim.metric in (SPEED, PER_COST) or not seeds:
        return Interval(*np.full(3, math.nan))
    left, right = (runs.image_scores(side, seeds) for side in (claim.left, claim.right))
    if runs.metric.resampled:
        return statistics.bootstrap_interval(float(differences.mean()), left, right)
    return statistics.interval_over_images(left, right)


def _below_published(claim: Claim, runs: Runs) -> float:
    """Return the lowest accuracy of its kind minus the baseline's, which is the first variant."""
    baseline = next(iter(runs.configs))
    lowest = lowest_of_the_same_kind(runs.configs[baseline]["dataset"])
    if claim.metric in (SPEED, PER_COST) or lowest is None:
        return math.nan
    return lowest.accuracy - float(runs.scores(claim.metric)[baseline].mean())


def to_json(records: Sequence["DataclassInstance"]) -> str:
    """Return dataclasses as strict JSON: null for nan."""
    return dump_json([dataclasses.asdict(record) for record in records])


def dump_json(value: object) -> str:
    """Return the JSON text of a value, null for nan."""
    plain = without_nan(value)
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def number(value: Any) -> float:
    """Return a number that `dump_json` wrote: nan for null."""
    return math.nan if value is None else float(value)


def read(path: Path) -> list[Measured]:
    """Return the numbers of the claims that `to_json` wrote; UserError if it is another file."""
    try:
        return [_parse(entry) for entry in read_json(path, list)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not the claims of a study: {error!r}") from None


def _parse(entry: Mapping[str, Any]) -> Measured:
    numbers = {name: number(entry[name]) for name in NUMBERS}
    return Measured(
        **{
            **entry,
            **numbers,
            "claim": Claim(**entry["claim"]),
            "seeds": tuple(map(int, entry["seeds"])),
            "differences": tuple(map(float, entry["differences"])),
            "diverged": tuple(Divergence(**run) for run in entry["diverged"]),
        }
    )


def without_nan(value: object) -> object:
    """Return the same data with None for every nan in it."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
