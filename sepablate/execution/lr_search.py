"""Choose a variant's learning rate from its grid, on validation images of its first seeds."""

import statistics
from collections.abc import Mapping

from sepablate import study
from sepablate.execution.job import Job, make_jobs
from sepablate.runs.run import Run
from sepablate.store import layout, run_files
from sepablate.study import TASK_SCORES

TRIAL_SEEDS = 2  # of the variant's seeds

TrialScores = dict[str, list[float]]  # by learning rate, a score per trial seed


def trial_jobs(variant: str, runs: list[Run]) -> list[Job]:
    """Return the runs that choose a learning rate, on the first seeds; none without a grid.

    Args:
        variant: its name.
        runs: the variant's run of each seed, at the recipe's rate.
    """
    declared = study.variant(variant)
    trials = [
        run.with_learning_rate(rate)
        for rate in declared.learning_rates
        for run in runs[:TRIAL_SEEDS]
    ]
    return make_jobs(trials, declared.label)


def validation_scores(trials: list[Job]) -> TrialScores:
    """Return the final validation scores of finished trials; 0 for one that diverged."""
    scores: TrialScores = {}
    for job in trials:
        metric = run_files.validation_metric(TASK_SCORES[job.run.task], averaged=True)
        score = last_score(job, metric)
        scores.setdefault(repr(job.run.recipe.learning_rate), []).append(score)
    return scores


def last_score(job: Job, metric: str) -> float:
    """Return the last value of a finished run's metric; 0 if it diverged."""
    rows = run_files.read_rows(job.folder / layout.RESULT)
    diverged = run_files.last_value(rows, run_files.DIVERGED) is not None
    return 0.0 if diverged else run_files.last_value(rows, metric) or 0.0


def best_rate(scores: Mapping[str, list[float]]) -> float:
    """Return the learning rate with the highest mean score."""
    return float(max(scores, key=lambda rate: statistics.mean(scores[rate])))
