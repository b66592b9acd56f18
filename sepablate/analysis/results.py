"""The runs of a study, read from disk into one tidy frame."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sepablate.files import damaged
from sepablate.study import Variant

RESULTS = Path("results")
COLUMNS = ["run_key", "variant", "seed", "step", "metric", "value"]
ACCURACY = "final/test_accuracy_averaged"
RAW_ACCURACY = "final/test_accuracy"
CURVE = "validation/accuracy"
DIVERGED = "final/diverged_at_step"


@dataclass(frozen=True)
class Runs:
    """frame: one row per number: variant, label, seed, run_key, step, metric, value.

    configs: the resolved config of each variant, by name; seeds: the same in every variant.
    """

    frame: pd.DataFrame
    configs: dict[str, dict[str, Any]]
    seeds: list[int]
    folder: Path

    @property
    def diverged(self) -> dict[tuple[str, int], int]:
        """The step at which a run diverged, by variant and seed; no entry for a whole run."""
        rows = self.frame[self.frame.metric == DIVERGED]
        return dict(zip(zip(rows.variant, rows.seed, strict=True), rows.step, strict=True))

    def scores(self, metric: str) -> pd.DataFrame:
        """One number per run: seeds x variants, nan for a run that diverged.

        metric: "accuracy" (final, test images, averaged weights), "raw accuracy" (the same of the
        raw weights), "speed" (mean of the validation accuracy over the curve, raw weights).
        """
        name = {"accuracy": ACCURACY, "raw accuracy": RAW_ACCURACY, "speed": CURVE}[metric]
        rows = self.frame[self.frame.metric == name]
        means = rows.groupby(["seed", "variant"]).value.mean()
        for variant, seed in self.diverged:
            means = means.drop((seed, variant), errors="ignore")
        return means.unstack().reindex(index=self.seeds, columns=list(self.configs))

    def correct(self, variant: str, seeds: Sequence[int]) -> NDArray[np.bool_]:
        """(seeds, test images): which images the averaged weights classified correctly."""
        images = self.configs[variant]["test_images"]
        return np.array([self._correct(variant, seed, images) for seed in seeds])

    def _correct(self, variant: str, seed: int, images: int) -> NDArray[np.bool_]:
        path = self.folder / variant / f"seed-{seed}.correct.bin"
        packed = np.frombuffer(_content(path, variant), np.uint8)
        if len(packed) != -(-images // 8):
            raise ValueError(f"{path}: {len(packed)} bytes for {images} images; {_remedy(variant)}")
        return np.unpackbits(packed, count=images).astype(bool)


def read(variants: Sequence[Variant], scale: str) -> Runs:
    """All runs of `variants` at `scale`.

    Raises ValueError, with the command that helps, if runs are missing, unfinished or of another
    training than their config says, or if the variants' seeds or evaluation steps differ.
    """
    folder = RESULTS / scale / "runs"
    configs = {each.name: config(scale, each.name) for each in variants}
    seeds = {name: sorted(map(int, each["run_keys"])) for name, each in configs.items()}
    frames = []
    for each in variants:
        for seed in seeds[each.name]:
            key = configs[each.name]["run_keys"][str(seed)]
            run = _run(folder / each.name / f"seed-{seed}.csv", each.name, key)
            frames.append(run.assign(label=each.label))
    frame = pd.concat(frames, ignore_index=True)
    _check_pairing(frame, seeds)
    return Runs(frame, configs, seeds[variants[0].name], folder)


def config(scale: str, variant: str) -> dict[str, Any]:
    """The resolved config of a variant's runs; ValueError if there is none."""
    path = RESULTS / scale / "runs" / variant / "config.json"
    if wrong := damaged(path.parent):
        raise ValueError(f"{path.parent / wrong[0]}: damaged; {_remedy(variant)}")
    found = json.loads(_content(path, variant))
    if not found.get("run_keys"):
        raise ValueError(f"{path}: no run_keys; {_remedy(variant)}")
    return found


def _run(path: Path, variant: str, key: str) -> pd.DataFrame:
    _content(path, variant)
    run = pd.read_csv(path, dtype=str)  # a key may look like a number
    if list(run.columns) != COLUMNS:
        raise ValueError(f"{path}: columns must be {','.join(COLUMNS)}; {_remedy(variant)}")
    found = sorted(set(run.run_key))
    if found != [key]:
        raise ValueError(
            f"{path}: run_key {', '.join(found)}, but config.json says {key}; {_remedy(variant)}"
        )
    if run.metric.isin([ACCURACY, DIVERGED]).sum() != 1:
        raise ValueError(f"{path}: has no final result; {_remedy(variant)}")
    return run.astype({"seed": int, "step": int, "value": float})


def _check_pairing(frame: pd.DataFrame, seeds: dict[str, list[int]]) -> None:
    first, *others = seeds
    whole = frame[frame.metric == CURVE]
    ended = frame[frame.metric == ACCURACY].set_index(["variant", "seed"]).index
    whole = whole[whole.set_index(["variant", "seed"]).index.isin(ended)]
    steps = {name: set(rows.step) for name, rows in whole.groupby("variant")}
    for name in others:
        if seeds[name] != seeds[first]:
            raise ValueError(
                f"seeds of {name}: {seeds[name]}, of {first}: {seeds[first]}; "
                f"{_remedy(first)} and `sepablate train {name}`"
            )
        if steps.get(name, set()) != steps.get(first, set()) and name in steps and first in steps:
            raise ValueError(
                f"evaluation steps of {name} are not those of {first}; "
                f"{_remedy(first)} and `sepablate train {name}`"
            )


def _content(path: Path, variant: str) -> bytes:
    if not path.is_file():
        raise ValueError(f"{path}: missing; {_remedy(variant)}")
    return path.read_bytes()


def _remedy(variant: str) -> str:
    return f"run `sepablate train {variant}`"
