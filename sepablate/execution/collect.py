"""Collect the finished runs of a variant into results/<scale>/runs/ and measured/."""

import contextlib
import json
import shutil
from typing import Any

from sepablate import data
from sepablate.errors import UserError
from sepablate.execution.job import Job
from sepablate.execution.lr_search import TrialScores
from sepablate.runs.run import Run
from sepablate.store import layout
from sepablate.store.files import locked, write_atomically, write_manifest
from sepablate.training.objective import make_objective


def collect(jobs: list[Job], trial_scores: TrialScores) -> None:
    """Copy curves, scores, weights and the config to runs/, times and hardware to measured/.

    Whoever trained the same at the same time collects the same, one after the other.
    """
    run = jobs[0].run
    name = f"collect-{run.scale_name}-{run.variant}.lock"
    with locked(layout.STATE / name):
        _collect(jobs, trial_scores)


def _collect(jobs: list[Job], trial_scores: TrialScores) -> None:
    run = jobs[0].run
    place = run.scale_name, run.variant
    runs = layout.variant_runs(*place)
    for folder in (runs, layout.variant_measurements(*place)):
        shutil.rmtree(folder, ignore_errors=True)
    for job in jobs:
        seed = job.run.seed
        targets = {
            layout.RESULT: layout.seed_rows(*place, seed),
            layout.SCORES[run.task]: layout.seed_scores(*place, seed, run.task),
            layout.EXAMPLES: layout.seed_examples(*place, seed),
            layout.WEIGHTS: layout.seed_weights(*place, seed),
            layout.MEASURED: layout.seed_measurements(*place, seed),
        }
        for source, target in targets.items():
            if (job.folder / source).exists():  # a run that diverged has no scores and weights
                write_atomically(target, (job.folder / source).read_bytes())
    keys = {str(job.run.seed): job.key for job in jobs}
    config: dict[str, Any] = {**run.config, "label": jobs[0].label, "run_keys": keys}
    if run.task == "multi_label":
        with contextlib.suppress(UserError):  # a scheduler's machine may lack the images
            config[layout.CONSTANT_SCORES] = constant_scores(run)
    if trial_scores:
        config["learning_rate_trials"] = trial_scores
    write_atomically(layout.variant_config(*place), json.dumps(config, indent=1) + "\n")
    write_manifest(runs, [path.name for path in runs.iterdir()])


def constant_scores(run: Run) -> dict[str, float]:
    """Return the score, by split, of the training labels' frequencies as scores of every image."""
    splits = data.load(run.dataset)
    objective = make_objective(run.task, splits["train"].first(run.scale.images).labels)
    counts = {"validation": run.scale.validation_images, "test": run.scale.test_images}
    scores = {}
    for name, count in counts.items():
        labels = splits[name].first(count).labels
        constant = objective.class_weights.expand(len(labels), -1)
        scores[name] = objective.scores(constant, labels).mean().item()
    return scores
