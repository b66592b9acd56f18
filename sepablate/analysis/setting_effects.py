"""The effect of each claim in each setting of a robustness study, from the runs; and its file."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sepablate import study
from sepablate.analysis.load_runs import Runs, load_runs
from sepablate.errors import UserError, command
from sepablate.store import collected_runs, layout
from sepablate.store.files import read_json
from sepablate.store.run_files import images_seen
from sepablate.study import BASE, Claim, RobustnessStudy, Variant


@dataclass(frozen=True)
class SettingEffect:
    """The differences of one claim in one setting.

    Args:
        setting: its name; "base" for the scale itself.
        levels: the label of each factor's level, by the factor's name.
        dataset: the name of the data set.
        images_seen: in the training of a run, repeats counted.
        seeds: that ended well on both sides.
        differences: left - right as fractions, one per seed.
        diverged: the variants of which a run diverged.
        run_keys: of each side, by its name, and by seed.
    """

    setting: str
    levels: dict[str, str]
    dataset: str
    images_seen: int
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    diverged: tuple[str, ...]
    run_keys: dict[str, dict[str, str]]


@dataclass(frozen=True)
class ClaimEffects:
    """One claim over the settings; the scale itself comes first."""

    study: str
    claim: Claim
    left_label: str
    right_label: str
    settings: tuple[SettingEffect, ...]


def measure(name: str, scale: str) -> list[ClaimEffects]:
    """Return the effects of a robustness study's claims, from its runs at a scale.

    Settings without runs are those that the scale has already, and are left out. Raises
    UserError if the study is unknown, or if runs are missing, unfinished or damaged.
    """
    declared, claims = study.load_robustness(name), study.robustness_claims(name)
    variants = [study.variant(side) for side in study.robustness_variants(name)]
    runs = {
        setting: _load(variants, derived, name)
        for setting, derived in trained_settings(declared, scale).items()
    }
    levels = {setting.name: declared.levels(setting) for setting in declared.settings}
    levels[BASE] = declared.levels(None)
    return [
        ClaimEffects(
            study=owner,
            claim=claim,
            left_label=study.variant(claim.left).label,
            right_label=study.variant(claim.right).label,
            settings=tuple(
                _effect(setting, levels[setting], claim, each) for setting, each in runs.items()
            ),
        )
        for owner, claim in claims
    ]


def trained_settings(declared: RobustnessStudy, scale: str) -> dict[str, str]:
    """Return the scale name of each setting that has runs, by the setting's; the base is first.

    Raises UserError if there are too few to pool.
    """
    names = {setting.name: f"{scale}.{setting.name}" for setting in declared.settings}
    trained = {
        setting: derived
        for setting, derived in names.items()
        if collected_runs.trained_variants(derived)
    }
    if len(trained) < 2:
        folder = layout.scale_folder(scale) / layout.SETTINGS
        remedy = command("train robustness", scale)
        raise UserError(f"{folder}/: fewer than two settings; run {remedy}")
    return {BASE: scale} | trained


def _load(variants: list[Variant], derived: str, name: str) -> Runs:
    try:
        return load_runs(variants, derived)
    except UserError as error:
        if "." not in derived:
            raise
        scale, _, setting = derived.partition(".")
        message = str(error).partition("; run ")[0]
        remedy = command(f"train {name}", scale)
        raise UserError(f"setting {setting}: {message}; run {remedy}") from None


def _effect(setting: str, levels: dict[str, str], claim: Claim, runs: Runs) -> SettingEffect:
    sides = [claim.left, claim.right]
    scores = runs.scores(claim.metric)[sides].dropna()
    config = runs.configs[claim.left]
    return SettingEffect(
        setting=setting,
        levels=levels,
        dataset=str(config["dataset"]),
        images_seen=images_seen(config["steps"], config["batch_size"]),
        seeds=tuple(int(seed) for seed in scores.index),
        differences=tuple(map(float, scores[claim.left] - scores[claim.right])),
        diverged=tuple(sorted({name for name, _ in runs.diverged if name in sides})),
        run_keys={side: dict(runs.configs[side]["run_keys"]) for side in sides},
    )


def differences(effect: SettingEffect) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the differences as an array."""
    return np.array(effect.differences, np.float64)


def read(path: Path) -> list[ClaimEffects]:
    """Return what `effects.to_json` wrote; UserError if it is another file."""
    try:
        return [_parse(entry) for entry in read_json(path, list)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not the effects of a robustness study: {error!r}") from None


def _parse(entry: Mapping[str, Any]) -> ClaimEffects:
    names = [field.name for field in dataclasses.fields(SettingEffect)]
    settings = [{name: each[name] for name in names} for each in entry["settings"]]
    return ClaimEffects(
        study=str(entry["study"]),
        claim=Claim(**entry["claim"]),
        left_label=str(entry["left_label"]),
        right_label=str(entry["right_label"]),
        settings=tuple(
            SettingEffect(
                **{
                    **each,
                    "seeds": tuple(map(int, each["seeds"])),
                    "differences": tuple(map(float, each["differences"])),
                    "diverged": tuple(map(str, each["diverged"])),
                }
            )
            for each in settings
        ),
    )
