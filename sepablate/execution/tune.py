"""Choose a scale's recipe: train the baseline with each candidate, compare on validation images.

No trial reads a test image, and none has a seed of the scale. To write the choice into params.yaml
is left to the user.
"""

import csv
import dataclasses
import io
import itertools
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sepablate import data, scales
from sepablate.execution.backend import select_backend
from sepablate.execution.job import Job, make_jobs
from sepablate.execution.launch import TrainRequest
from sepablate.execution.lr_search import last_score
from sepablate.execution.train_variant import train_shown
from sepablate.execution.trainer import Progress, Trainer
from sepablate.runs.run import Run, resolve
from sepablate.scales import IN_MEMORY, Recipe, RecipeChange, Scale
from sepablate.store import layout, run_files
from sepablate.store.files import write_atomically
from sepablate.study import TASK_SCORES, XCEPTION

BASELINE = XCEPTION.name


class Candidate(NamedTuple):
    """The fields of a recipe and its scale that a search tries."""

    learning_rate: float
    decays: int
    batch_size: int


class TuningRow(NamedTuple):
    """A line of tuning.csv, as its columns are: one finished trial."""

    learning_rate: float
    decays: int
    batch_size: int
    seed: int
    steps: int
    validation_images: int
    validation_accuracy: float
    run_key: str


@dataclass(frozen=True)
class Result:
    """A candidate with the accuracies of its finished trials, one for each seed."""

    candidate: Candidate
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Return the mean; 0 without trials."""
        return statistics.mean(self.accuracies or [0.0])

    @property
    def deviation(self) -> float | None:
        """Return the standard deviation over seeds; None for fewer than two."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None


def tune(request: TrainRequest, trainer: Trainer) -> Progress:
    """Train the trials of a scale's search; if all succeed, write results/<scale>/tuning.csv.

    Raises UserError for a search that is missing or invalid, Stopped if the user asked to stop.
    """
    trials = trainer.resolve(lambda: make_trials(request.scale))
    progress = train_shown(trials, trainer, request)
    if trainer.is_main and not progress.failures:
        write_atomically(layout.tuning(request.scale), format_rows(trials))
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
    )
    firsts = [_first_run(scale_name, scale, recipes, Candidate(*values)) for values in grid]
    runs = [first.with_seed(seed) for first in firsts for seed in search.seeds]
    data.check_files(runs[0].dataset, runs[0].classes, runs[0].image_counts)
    return make_jobs(runs, XCEPTION.label)


def current(scale: Scale, recipes: Mapping[str, Recipe]) -> Candidate:
    """Return what params.yaml has."""
    recipe = scale.changed(XCEPTION.recipe, recipes[XCEPTION.recipe])
    return Candidate(recipe.learning_rate, recipe.decays, scale.batch_size)


def results(trials: list[Job]) -> list[Result]:
    """Return all candidates with their finished trials, the best mean first."""
    accuracies: dict[Candidate, list[float]] = {candidate_of(job.run): [] for job in trials}
    for job in trials:
        if job.finished:
            accuracies[candidate_of(job.run)].append(accuracy(job))
    found = [Result(candidate, tuple(values)) for candidate, values in accuracies.items()]
    return sorted(found, key=lambda result: -result.mean)


def candidate_of(run: Run) -> Candidate:
    """Return the candidate that a run tries."""
    return Candidate(run.recipe.learning_rate, run.recipe.decays, run.scale.batch_size)


def accuracy(job: Job) -> float:
    """Return the accuracy of averaged weights after the last step; 0 if the run diverged."""
    score = TASK_SCORES[job.run.task]
    return last_score(job, run_files.final_metric(score, averaged=True, trial=True))


def format_rows(trials: list[Job]) -> str:
    """Return tuning.csv: a line for each trial, all digits kept."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(TuningRow._fields)
    for job in trials:
        run = job.run
        row = TuningRow(
            *candidate_of(run),
            seed=run.seed,
            steps=run.scale.steps,
            validation_images=run.trial_images,
            validation_accuracy=accuracy(job),
            run_key=job.key,
        )
        writer.writerow(row)
    return text.getvalue()


def _first_run(
    scale_name: str, scale: Scale, recipes: Mapping[str, Recipe], candidate: Candidate
) -> Run:
    """Return the baseline's run with a candidate, as if params.yaml had it."""
    name = XCEPTION.recipe
    change = dataclasses.replace(
        scale.recipes.get(name, RecipeChange()),
        learning_rate=candidate.learning_rate,
        decays=candidate.decays,
    )
    scale = dataclasses.replace(
        scale, batch_size=candidate.batch_size, recipes={**scale.recipes, name: change}
    )
    run = resolve(XCEPTION, scale_name, scale, recipes, scale.seeds[0], scale.precision)
    known = IN_MEMORY.get(run.dataset)
    images = known.validation_images if known else scale.validation_images
    return select_backend(run.as_trial(images), layout.STATE)
