"""The numbers of one claim, as a study's runs give them; what they mean is for `verdicts`."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sepablate.analysis import statistics
from sepablate.analysis.load_runs import Runs
from sepablate.analysis.statistics import Array, Interval
from sepablate.study import Claim


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

    p: of the t-test against zero, or against the margin for a claim of equality.
    images_low, images_high: interval over test images, for final scores alone.
    """

    study: str
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


def measure(study: str, claim: Claim, runs: Runs, labels: Mapping[str, str]) -> Measured:
    """The numbers of `claim` from the seeds that ended well on both sides."""
    sides = [claim.left, claim.right]
    scores = runs.scores(claim.metric)[sides].dropna()
    seeds = [int(seed) for seed in scores.index]
    differences = (scores[claim.left] - scores[claim.right]).to_numpy()
    images = _interval_over_images(claim, runs, seeds)
    return Measured(
        study=study,
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
        **paired_effect(claim, differences),
    )


def paired_effect(claim: Claim, differences: Array) -> dict[str, float]:
    """Everything that a claim's paired differences say, by the fields of Measured."""
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


def _interval_over_images(claim: Claim, runs: Runs, seeds: list[int]) -> Interval:
    if claim.metric == "speed" or not seeds:
        return Interval(*np.full(3, math.nan))
    return statistics.interval_over_images(
        runs.of_images(claim.left, seeds), runs.of_images(claim.right, seeds)
    )


def to_json(records: Sequence[Any]) -> str:
    """Strict JSON of dataclasses: null for nan."""
    plain = [without_nan(dataclasses.asdict(record)) for record in records]
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> list[Measured]:
    """What `to_json` wrote."""
    return [_measured(entry) for entry in json.loads(text)]


def _measured(entry: dict[str, Any]) -> Measured:
    fields: dict[str, Any] = dict(entry)
    fields |= {key: math.nan for key, value in entry.items() if value is None}
    fields["claim"] = Claim(**entry["claim"])
    fields["seeds"] = tuple(entry["seeds"])
    fields["differences"] = tuple(entry["differences"])
    fields["diverged"] = tuple(Divergence(**each) for each in entry["diverged"])
    return Measured(**fields)


def without_nan(value: Any) -> Any:
    """The same data with None for every nan in it."""
    if isinstance(value, dict):
        return {key: without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
