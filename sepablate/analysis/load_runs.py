"""The runs of a study, read from disk into one tidy frame."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sepablate.analysis import metrics
from sepablate.analysis.metrics import Metric
from sepablate.errors import UserError
from sepablate.store.files import corrupt_files
from sepablate.study import Variant

RESULTS = Path("results")
COLUMNS = ["run_key", "variant", "seed", "step", "metric", "value"]
DIVERGED = "final/diverged_at_step"


@dataclass(frozen=True)
class Runs:
    """frame: one row per number: variant, label, seed, run_key, step, metric, value.

    configs: the resolved config of each variant, by name; seeds: the same in every variant.
    measure: how their networks are scored.
    """

    frame: pd.DataFrame
    configs: dict[str, dict[str, Any]]
    seeds: list[int]
    folder: Path
    measure: Metric

    @property
    def diverged(self) -> dict[tuple[str, int], int]:
        """The step at which a run diverged, by variant and seed; no entry for a whole run."""
        rows = self.frame[self.frame.metric == DIVERGED]
        return dict(zip(zip(rows.variant, rows.seed, strict=True), rows.step, strict=True))

    def scores(self, metric: str) -> pd.DataFrame:
        """One number per run: seeds x variants, nan for a run that diverged.

        metric: the measure's name (final, test images, averaged weights), "raw" (the same of the
        raw weights), "speed" (mean of the validation curve, raw weights). UserError for others.
        """
        measure = self.measure
        rows_of = {measure.name: measure.final, "raw": measure.raw_final, "speed": measure.curve}
        if metric not in rows_of:
            of = f"runs of {', '.join(self.configs)}"
            raise UserError(f"metric {metric!r} of {of}: choose {measure.name}, speed")
        rows = self.frame[self.frame.metric == rows_of[metric]]
        means = rows.groupby(["seed", "variant"]).value.mean()
        for variant, seed in self.diverged:
            means = means.drop((seed, variant), errors="ignore")
        return means.unstack().reindex(index=self.seeds, columns=list(self.configs))

    def of_images(self, variant: str, seeds: Sequence[int]) -> NDArray[np.float64]:
        """(seeds, test images): how the averaged weights score on each image, from 0 to 1."""
        images = self.configs[variant]["test_images"]
        return np.array([self._of_images(variant, seed, images) for seed in seeds])

    def _of_images(self, variant: str, seed: int, images: int) -> NDArray[np.float64]:
        """A bit for right or wrong, or float32 precisions."""
        path = self.folder / variant / f"seed-{seed}.{self.measure.images}"
        content, bits = _content(path, variant), path.name.endswith("correct.bin")
        if len(content) != (-(-images // 8) if bits else 4 * images):
            found = f"{len(content)} bytes for {images} images"
            raise UserError(f"{path}: {found}; {_remedy(variant)}")
        if bits:
            return np.unpackbits(np.frombuffer(content, np.uint8), count=images).astype(float)
        return np.frombuffer(content, "<f4").astype(float)


def load_runs(variants: Sequence[Variant], scale: str) -> Runs:
    """All runs of `variants` at `scale`.

    Raises UserError, with the command that helps, if runs are missing, unfinished or of another
    training than their config says, or if the variants' tasks, seeds or evaluation steps differ.
    """
    folder = RESULTS / scale / "runs"
    configs = {each.name: load_config(scale, each.name) for each in variants}
    seeds = {name: sorted(map(int, each["run_keys"])) for name, each in configs.items()}
    measure = _measure({name: each["task"] for name, each in configs.items()})
    frames = []
    for each in variants:
        for seed in seeds[each.name]:
            key = configs[each.name]["run_keys"][str(seed)]
            run = _run(folder / each.name / f"seed-{seed}.csv", each.name, key, measure)
            frames.append(run.assign(label=each.label))
    frame = pd.concat(frames, ignore_index=True)
    _check_pairing(frame, seeds, measure)
    return Runs(frame, configs, seeds[variants[0].name], folder, measure)


def load_config(scale: str, variant: str) -> dict[str, Any]:
    """The resolved config of a variant's runs; UserError if there is none."""
    path = RESULTS / scale / "runs" / variant / "config.json"
    if wrong := corrupt_files(path.parent):
        raise UserError(f"{path.parent / wrong[0]}: damaged; {_remedy(variant)}")
    found = json.loads(_content(path, variant))
    if not found.get("run_keys"):
        raise UserError(f"{path}: no run_keys; {_remedy(variant)}")
    if found.get("task") not in metrics.TASK_METRICS:
        raise UserError(f"{path}: task {found.get('task')!r}; {_remedy(variant)}")
    return found


def _measure(tasks: dict[str, str]) -> Metric:
    """Of the task that all variants share."""
    first, *others = tasks
    for name in others:
        if tasks[name] != tasks[first]:
            said = f"{name} is of task {tasks[name]}, {first} of {tasks[first]}"
            raise UserError(f"{said}: one study compares variants of one task")
    return metrics.TASK_METRICS[tasks[first]]


def _run(path: Path, variant: str, key: str, measure: Metric) -> pd.DataFrame:
    _content(path, variant)
    run = pd.read_csv(path, dtype=str)  # a key may look like a number
    if list(run.columns) != COLUMNS:
        raise UserError(f"{path}: columns must be {','.join(COLUMNS)}; {_remedy(variant)}")
    found = sorted(set(run.run_key))
    if found != [key]:
        raise UserError(
            f"{path}: run_key {', '.join(found)}, but config.json says {key}; {_remedy(variant)}"
        )
    if run.metric.isin([measure.final, DIVERGED]).sum() != 1:
        raise UserError(f"{path}: has no final result; {_remedy(variant)}")
    return run.astype({"seed": int, "step": int, "value": float})


def _check_pairing(frame: pd.DataFrame, seeds: dict[str, list[int]], measure: Metric) -> None:
    first, *others = seeds
    whole = frame[frame.metric == measure.curve]
    ended = frame[frame.metric == measure.final].set_index(["variant", "seed"]).index
    whole = whole[whole.set_index(["variant", "seed"]).index.isin(ended)]
    steps = {name: set(rows.step) for name, rows in whole.groupby("variant")}
    for name in others:
        if seeds[name] != seeds[first]:
            raise UserError(
                f"seeds of {name}: {seeds[name]}, of {first}: {seeds[first]}; "
                f"{_remedy(first)} and `sepablate train {name}`"
            )
        if steps.get(name, set()) != steps.get(first, set()) and name in steps and first in steps:
            raise UserError(
                f"evaluation steps of {name} are not those of {first}; "
                f"{_remedy(first)} and `sepablate train {name}`"
            )


def _content(path: Path, variant: str) -> bytes:
    if not path.is_file():
        raise UserError(f"{path}: missing; {_remedy(variant)}")
    return path.read_bytes()


def _remedy(variant: str) -> str:
    return f"run `sepablate train {variant}`"
