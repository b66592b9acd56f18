"""All seeds of one variant, and the files that a finished variant leaves in results/."""

import json
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sepablate import data, scales, study
from sepablate.errors import UserError
from sepablate.execution import backend, pool
from sepablate.execution.job import FOLDER, Job
from sepablate.runs import confounds
from sepablate.runs.run import Run, resolve
from sepablate.store.files import locked, write_atomically, write_manifest
from sepablate.training.objective import METRICS

RESULTS = Path("results")
TRIAL_SEEDS = 2  # of the variant's seeds, to choose a learning rate with
Train = Callable[[list[Job]], pool.Progress]


def train(variant_name: str, scale_name: str, train_jobs: Train) -> pool.Progress:
    """Train a variant; if all its runs succeed, write results/<scale>/runs/<variant>/.

    train_jobs trains a list of jobs, and shows how far it is. Raises UserError for anything
    unknown, out of range or confounded, parallel.Stopped if the user asked to stop.
    """
    check(variant_name, scale_name)
    trials = trial_jobs(variant_name, scale_name)
    if trials:
        progress = train_jobs(trials)
        if progress.failures:
            return progress
    chosen = validated(trials)
    jobs = seed_jobs(variant_name, scale_name, chosen)
    progress = train_jobs(jobs)
    if not progress.failures:
        lock = FOLDER.parent / f"collect-{scale_name}-{variant_name}.lock"
        with locked(lock):  # who trained the same at the same time collects the same
            _collect(jobs, chosen)
    return progress


def train_only(variant_name: str, scale_name: str, key: str, train_jobs: Train) -> pool.Progress:
    """Train one run of a variant, by its key, and write nothing to results/."""
    check(variant_name, scale_name)
    known = {job.key: job for job in known_jobs(variant_name, scale_name)}
    if key not in known:
        raise UserError(
            f"run {key!r} of {variant_name} at scale {scale_name}: choose {', '.join(known)}; keys "
            f"follow the code, the data, precision, kernels and torch"
        )
    return train_jobs([known[key]])


def known_jobs(variant_name: str, scale_name: str) -> list[Job]:
    """The runs that choose a learning rate, if any; once they are finished, those of each seed."""
    trials = trial_jobs(variant_name, scale_name)
    if not all(job.finished for job in trials):
        return trials
    return [*trials, *seed_jobs(variant_name, scale_name, validated(trials))]


def check(variant_name: str, scale_name: str) -> None:
    """Raise UserError for what is unknown, out of range or confounded, before any training."""
    run = _resolved(variant_name, scale_name)
    data.check_classes(run.dataset, run.options["classes"])
    confounds.check(variant_name, lambda name: _resolved(name, scale_name).config)


def trial_jobs(variant_name: str, scale_name: str) -> list[Job]:
    """The runs that choose a learning rate, on the first seeds; none for the recipe's rate."""
    variant = study.variant(variant_name)
    runs = [
        run.with_learning_rate(rate)
        for rate in variant.learning_rates
        for run in _runs(variant_name, scale_name)[:TRIAL_SEEDS]
    ]
    return pool.jobs_for(runs, variant.label)


def seed_jobs(variant_name: str, scale_name: str, chosen: dict[str, list[float]]) -> list[Job]:
    """A run of each seed, at the best learning rate of `chosen` or else at the recipe's."""
    runs = _runs(variant_name, scale_name)
    if chosen:
        best = max(chosen, key=lambda rate: statistics.mean(chosen[rate]))
        runs = [run.with_learning_rate(float(best)) for run in runs]
    return pool.jobs_for(runs, study.variant(variant_name).label)


def _runs(variant_name: str, scale_name: str) -> list[Run]:
    scale, _ = scales.load(scale_name)
    first = backend.settle(_resolved(variant_name, scale_name), FOLDER.parent)
    return [first.with_seed(seed) for seed in scale.seeds]


def _resolved(variant_name: str, scale_name: str) -> Run:
    """The variant's run with the scale's first seed, before the machine settles what is "auto"."""
    scale, recipes = scales.load(scale_name)
    variant = study.variant(variant_name)
    return resolve(variant, scale_name, scale, recipes, scale.seeds[0], scale.precision)


def validated(trials: list[Job]) -> dict[str, list[float]]:
    """Learning rate -> final validation accuracy of each trial seed; 0 for one that diverged."""
    found: dict[str, list[float]] = {}
    for job in trials:
        last, metric = 0.0, f",validation/{METRICS[job.run.task]}_averaged,"
        for line in (job.folder / "result.csv").read_text().splitlines():
            if metric in line:
                last = float(line.rpartition(",")[2])
            elif ",final/diverged_at_step," in line:
                last = 0.0
        found.setdefault(repr(job.run.recipe.learning_rate), []).append(last)
    return found


def _collect(jobs: list[Job], chosen: dict[str, list[float]]) -> None:
    """Copy curves, correct bits and the config to runs/, times and hardware to measured/."""
    run = jobs[0].run
    runs, measured = (
        RESULTS / run.scale_name / kind / run.variant for kind in ("runs", "measured")
    )
    for folder in (runs, measured):
        shutil.rmtree(folder, ignore_errors=True)
    for job in jobs:
        name = f"seed-{job.run.seed}"
        for source, target in (
            ("result.csv", runs / f"{name}.csv"),
            ("correct.bin", runs / f"{name}.correct.bin"),
            ("precision.bin", runs / f"{name}.precision.bin"),
            ("measured.json", measured / f"{name}.json"),
        ):
            if (job.folder / source).exists():  # a run that diverged has no correct images
                write_atomically(target, (job.folder / source).read_bytes())
    keys = {str(job.run.seed): job.key for job in jobs}
    config: dict[str, Any] = {**run.config, "label": jobs[0].label, "run_keys": keys}
    if chosen:
        config["learning_rate_trials"] = chosen
    write_atomically(runs / "config.json", json.dumps(config, indent=1) + "\n")
    write_manifest(runs, [path.name for path in runs.iterdir()])
