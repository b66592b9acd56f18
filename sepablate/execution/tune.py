"""Choose a scale's recipe: train the baseline with each candidate, compare on validation images.

No trial reads a test image, and none has a seed of the scale. To write the choice into params.yaml
is left to the user.
"""

import dataclasses
import itertools
from collections.abc import Mapping

from sepablate import data, scales
from sepablate.execution.backend import select_backend
from sepablate.execution.job import Job, make_jobs
from sepablate.execution.launch import TrainRequest
from sepablate.execution.lr_search import last_score
from sepablate.execution.train_variant import train_shown
from sepablate.execution.trainer import Progress, Trainer
from sepablate.runs.run import Run, resolve
from sepablate.scales import Recipe, RecipeChange, Scale
from sepablate.store import datasets, layout, run_files
from sepablate.store.files import write_atomically
from sepablate.store.tuning_file import Candidate, Result, TuningRow, format_rows, summarise
from sepablate.study import TASK_SCORES, XCEPTION


def tune(request: TrainRequest, trainer: Trainer) -> Progress:
    """Train the trials of a scale's search; if all succeed, write results/<scale>/tuning.csv.

    Raises UserError for a search that is missing or invalid, Stopped if the user asked to stop.
    """
    trials = trainer.resolve(lambda: make_trials(request.scale))
    progress = train_shown(trials, trainer, request)
    if trainer.is_main and not progress.failures:
        write_atomically(layout.tuning(request.scale), format_rows(finished_rows(trials)))
    return progress


def make_trials(scale_name: str) -> list[Job]:
    """Return a run of the baseline for each candidate and seed of the scale's search."""
    scale, recipes = scales.load(scale_name)
    search = scales.load_search(scale_name, scale)
    now = current(scale, recipes)
    grid = itertools.product(
        search.learning_rate or [now.learning_rate],
        search.decays or [now.decays],
        search.batch_size or [now.batch_size],
        search.shift or [now.shift],
        search.flip or [now.flip],
    )
    firsts = [_first_run(scale_name, scale, recipes, Candidate(*values)) for values in grid]
    runs = [first.with_seed(seed) for first in firsts for seed in search.seeds]
    data.check_files(runs[0].dataset, runs[0].classes, runs[0].image_counts)
    return make_jobs(runs, XCEPTION.label)


def current(scale: Scale, recipes: Mapping[str, Recipe]) -> Candidate:
    """Return what params.yaml has."""
    recipe = scale.changed(XCEPTION.recipe, recipes[XCEPTION.recipe])
    return _candidate(recipe, scale)


def results(trials: list[Job]) -> list[Result]:
    """Return all candidates with their finished trials, the best mean first."""
    return summarise(finished_rows(trials), [candidate_of(job.run) for job in trials])


def finished_rows(trials: list[Job]) -> list[TuningRow]:
    """Return a row of tuning.csv for each finished trial."""
    return [
        TuningRow(
            *candidate_of(job.run),
            seed=job.run.seed,
            steps=job.run.scale.steps,
            validation_images=job.run.trial_images,
            validation_accuracy=accuracy(job),
            run_key=job.key,
        )
        for job in trials
        if job.finished
    ]


def candidate_of(run: Run) -> Candidate:
    """Return the candidate that a run tries."""
    return _candidate(run.recipe, run.scale)


def _candidate(recipe: Recipe, scale: Scale) -> Candidate:
    return Candidate(
        recipe.learning_rate, recipe.decays, scale.batch_size, recipe.shift, recipe.flip
    )


def accuracy(job: Job) -> float:
    """Return the accuracy of averaged weights after the last step; 0 if the run diverged."""
    score = TASK_SCORES[job.run.task]
    return last_score(job, run_files.final_metric(score, averaged=True, trial=True))


def _first_run(
    scale_name: str, scale: Scale, recipes: Mapping[str, Recipe], candidate: Candidate
) -> Run:
    """Return the baseline's run with a candidate, as if params.yaml had it."""
    name = XCEPTION.recipe
    change = dataclasses.replace(
        scale.recipes.get(name, RecipeChange()),
        learning_rate=candidate.learning_rate,
        decays=candidate.decays,
        shift=candidate.shift,
        flip=candidate.flip,
    )
    scale = dataclasses.replace(
        scale, batch_size=candidate.batch_size, recipes={**scale.recipes, name: change}
    )
    run = resolve(XCEPTION, scale_name, scale, recipes, scale.seeds[0], scale.precision)
    known = datasets.limits(run.dataset)
    images = known.validation_images if known else scale.validation_images
    return select_backend(run.as_trial(images), layout.STATE)
