"""The runs of a study, read from disk into one tidy frame."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sepablate.analysis.metrics import TASK_METRICS, Metric
from sepablate.errors import UserError, command
from sepablate.store import collected_runs, run_files
from sepablate.store.files import corrupt_files, read_json
from sepablate.study import PER_COST, SPEED, Variant

RAW = "raw"  # in place of a metric's name: the same score, of the raw weights
Config = dict[str, Any]  # resolved, flat, as in config.json
RENAMED = {"optimiser": "optimizer"}  # in the config.json of older code


@dataclass(frozen=True)
class Runs:
    """The runs of a study's variants at a scale.

    Args:
        frame: one row per number: variant, label, seed, run_key, step, metric, value.
        configs: the resolved config of each variant, by name.
        seeds: the same in every variant.
        scale: the name of the scale.
        metric: the score of the variants' task.
    """

    frame: pd.DataFrame
    configs: dict[str, Config]
    seeds: list[int]
    scale: str
    metric: Metric

    @property
    def diverged(self) -> dict[tuple[str, int], int]:
        """The step at which a run diverged, by variant and seed; no entry for a whole run."""
        rows = self.frame[self.frame.metric == run_files.DIVERGED]
        return dict(zip(zip(rows.variant, rows.seed, strict=True), rows.step, strict=True))

    def scores(self, name: str) -> pd.DataFrame:
        """Return one number per run: seeds x variants, nan for a run that diverged.

        Args:
            name: the metric's (final, test images, averaged weights), "raw" (the same of the raw
                weights), "speed" (mean of the validation curve, raw weights) or "per_cost" (the
                first, times the first variant's multiply-adds over the variant's).

        Raises UserError for another name.
        """
        metric = self.metric
        if name == PER_COST:
            return self.scores(metric.name) * self._relative_cost()
        rows_of = {metric.name: metric.final, RAW: metric.raw_final, SPEED: metric.curve}
        if name not in rows_of:
            variants = f"runs of {', '.join(self.configs)}"
            valid = f"{metric.name}, {SPEED}, {PER_COST}"
            raise UserError(f"metric {name!r} of {variants}: choose {valid}")
        rows = self.frame[self.frame.metric == rows_of[name]]
        means = rows.groupby(["seed", "variant"]).value.mean()
        for variant, seed in self.diverged:
            means = means.drop((seed, variant), errors="ignore")
        return means.unstack().reindex(index=self.seeds, columns=list(self.configs))

    def _relative_cost(self) -> pd.Series:
        """Return the first variant's multiply-adds over each variant's."""
        costs = {name: float(config["mult_adds"]) for name, config in self.configs.items()}
        first = next(iter(costs.values()))
        return pd.Series({name: first / cost for name, cost in costs.items()})

    def image_scores(self, variant: str, seeds: Sequence[int]) -> NDArray[np.float64]:
        """Return (seeds, test images): the averaged weights' score on each image, from 0 to 1.

        Of detectors (seeds, resamples): the mAP of as many images, drawn with replacement.
        """
        return np.array([self._image_scores(variant, seed) for seed in seeds])

    def _image_scores(self, variant: str, seed: int) -> NDArray[np.float64]:
        """Return the bits that tell right from wrong, or the float32 precisions or mAPs."""
        images = self.configs[variant]["test_images"]
        path = collected_runs.seed_scores(self.scale, variant, seed, self.metric.task)
        _check_file(path, variant, self.scale)
        content, bits = path.read_bytes(), self.metric.task == "single_label"
        count = len(content) // 4 if self.metric.resampled else images
        if len(content) != (-(-images // 8) if bits else 4 * count) or not content:
            remedy = _remedy(variant, self.scale)
            raise UserError(f"{path}: {len(content)} bytes for {images} images; {remedy}")
        if bits:
            return np.unpackbits(np.frombuffer(content, np.uint8), count=images).astype(float)
        return np.frombuffer(content, "<f4").astype(float)


def load_runs(variants: Sequence[Variant], scale: str) -> Runs:
    """Return all runs of `variants` at `scale`.

    Raises UserError, with the command that helps, if runs are missing, unfinished or of another
    training than their config says, or if the variants' tasks, seeds or evaluation steps differ.
    """
    configs = {variant.name: load_config(scale, variant.name) for variant in variants}
    seeds = {name: sorted(map(int, config["run_keys"])) for name, config in configs.items()}
    metric = _shared_metric({name: config["task"] for name, config in configs.items()})
    frames = []
    for variant in variants:
        for seed in seeds[variant.name]:
            key = configs[variant.name]["run_keys"][str(seed)]
            path = collected_runs.seed_rows(scale, variant.name, seed)
            rows = _load_run(path, variant.name, scale, key, metric)
            frames.append(rows.assign(label=variant.label))
    frame = pd.concat(frames, ignore_index=True)
    _check_pairing(frame, seeds, metric, scale)
    return Runs(frame, configs, seeds[variants[0].name], scale, metric)


def load_config(scale: str, variant: str) -> Config:
    """Return the resolved config of a variant's runs; UserError if there is none."""
    path = collected_runs.variant_config(scale, variant)
    if corrupt := corrupt_files(path.parent):
        raise UserError(f"{path.parent / corrupt[0]}: damaged; {_remedy(variant, scale)}")
    _check_file(path, variant, scale)
    config = {RENAMED.get(key, key): value for key, value in read_json(path, dict).items()}
    if not isinstance(config.get("run_keys"), dict) or not config["run_keys"]:
        raise UserError(f"{path}: no run_keys; {_remedy(variant, scale)}")
    if config.get("task") not in TASK_METRICS:
        raise UserError(f"{path}: task {config.get('task')!r}; {_remedy(variant, scale)}")
    return config


def _shared_metric(tasks: dict[str, str]) -> Metric:
    """Return the metric of the task that all variants share."""
    first, *others = tasks
    for name in others:
        if tasks[name] != tasks[first]:
            differ = f"{name} is of task {tasks[name]}, {first} of {tasks[first]}"
            raise UserError(f"{differ}: one study compares variants of one task")
    return TASK_METRICS[tasks[first]]


def _load_run(path: Path, variant: str, scale: str, key: str, metric: Metric) -> pd.DataFrame:
    _check_file(path, variant, scale)
    try:
        rows = pd.DataFrame(run_files.read_run(path), columns=list(run_files.COLUMNS))
    except UserError as error:
        raise UserError(f"{error}; {_remedy(variant, scale)}") from None
    keys = sorted(set(rows.run_key))
    if keys != [key]:
        raise UserError(
            f"{path}: run_key {', '.join(keys)}, but config.json says {key}; "
            f"{_remedy(variant, scale)}"
        )
    if rows.metric.isin([metric.final, run_files.DIVERGED]).sum() != 1:
        raise UserError(f"{path}: has no final result; {_remedy(variant, scale)}")
    return rows


def _check_pairing(
    frame: pd.DataFrame, seeds: dict[str, list[int]], metric: Metric, scale: str
) -> None:
    """Raise UserError unless all variants have the same seeds and evaluation steps."""
    first, *others = seeds
    curves = frame[frame.metric == metric.curve]
    whole = frame[frame.metric == metric.final].set_index(["variant", "seed"]).index
    curves = curves[curves.set_index(["variant", "seed"]).index.isin(whole)]
    steps = {name: set(rows.step) for name, rows in curves.groupby("variant")}
    for name in others:
        both = f"{_remedy(first, scale)} and {command(f'train {name}', scale)}"
        if seeds[name] != seeds[first]:
            raise UserError(f"seeds of {name}: {seeds[name]}, of {first}: {seeds[first]}; {both}")
        if steps.get(name, set()) != steps.get(first, set()) and name in steps and first in steps:
            raise UserError(f"evaluation steps of {name} are not those of {first}; {both}")


def _check_file(path: Path, variant: str, scale: str) -> None:
    if not path.is_file():
        raise UserError(f"{path}: missing; {_remedy(variant, scale)}")


def _remedy(variant: str, scale: str) -> str:
    return f"run {command(f'train {variant}', scale)}"
