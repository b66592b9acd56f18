"""Train all seeds of one variant, or one of its runs."""

from collections.abc import Iterator
from dataclasses import replace

from sepablate import data, study
from sepablate.errors import UserError
from sepablate.execution.backend import select_backend
from sepablate.execution.collect import collect
from sepablate.execution.job import Job, make_jobs
from sepablate.execution.launch import TrainRequest
from sepablate.execution.lr_search import (
    TRIAL_SEEDS,
    TrialScores,
    best_rate,
    trial_jobs,
    validation_scores,
)
from sepablate.execution.progress import shown
from sepablate.execution.trainer import Progress, Trainer
from sepablate.runs import confounds, settings
from sepablate.runs.run import Run, resolve
from sepablate.store import layout


def train_variant(request: TrainRequest, trainer: Trainer) -> Progress:
    """Train a variant; if all its runs succeed, write results/<scale>/runs/<variant>/.

    A request for one run only writes nothing to results/. Raises UserError for anything unknown,
    out of range or confounded, Stopped if the user asked to stop.
    """
    variant, scale = request.variant, request.scale
    if request.only:
        return train_shown(trainer.resolve(lambda: [_known_job(request)]), trainer, request)
    trials = trainer.resolve(lambda: _trials(variant, scale))
    if trials:
        progress = train_shown(trials, trainer, request)
        if progress.failures:
            return progress
    scores = trainer.agree(validation_scores(trials) if trainer.is_main else {})
    jobs = trainer.resolve(lambda: seed_jobs(variant, scale, scores))
    progress = train_shown(jobs, trainer, request)
    if trainer.is_main and not progress.failures:
        collect(jobs, scores)
    return progress


def train_shown(jobs: list[Job], trainer: Trainer, request: TrainRequest) -> Progress:
    """Train jobs, shown on the main process's terminal, and in MLflow if it is asked for."""
    jobs = [replace(job, raw_weights=request.raw_weights) for job in jobs]
    if not trainer.is_main:
        return trainer.train(jobs, lambda progress: None)
    rest = [] if all(job.finished for job in jobs) else _rest_of_pipeline(request)
    with shown(jobs, request.mlflow, rest=rest) as observe:
        progress = trainer.train(jobs, observe)
    for line in _raw_weights(jobs):
        print(line)
    return progress


def _raw_weights(jobs: list[Job]) -> Iterator[str]:
    """Yield where the raw weights are that were asked for, or why a finished run has none."""
    for job in jobs:
        path = job.folder / layout.RAW_WEIGHTS
        if job.raw_weights and path.is_file():
            yield f"{job.name}: raw weights in {path}"
        elif job.raw_weights and (job.folder / layout.WEIGHTS).is_file():
            again = f"delete {job.folder}/ to train it again, to the same numbers"
            yield f"{job.name}: was trained without raw weights; {again}"


def _rest_of_pipeline(request: TrainRequest) -> list[Job]:
    """Return the runs of the pipeline's other variants; none where one does not resolve."""
    others = [name for name in request.pipeline if name != request.variant]
    try:
        return [job for name in others for job in seed_jobs(name, request.scale, {})]
    except UserError:  # its own stage says why
        return []


def known_jobs(variant: str, scale: str) -> list[Job]:
    """Return the runs that choose a learning rate, if any; once they are finished, all runs."""
    trials = _trials(variant, scale)
    if not all(job.finished for job in trials):
        return trials
    return [*trials, *seed_jobs(variant, scale, validation_scores(trials))]


def job_rounds(variant: str, scale: str) -> list[list[Job]]:
    """Return the jobs of a variant in rounds: trials of a learning rate come before the rest."""
    trials = _trials(variant, scale)
    if not trials:
        return [seed_jobs(variant, scale, {})]
    known = all(job.finished for job in trials)
    jobs = seed_jobs(variant, scale, validation_scores(trials) if known else {})
    return [trials, jobs[TRIAL_SEEDS:]]  # the first seeds are among the trials


def seed_jobs(variant: str, scale: str, trial_scores: TrialScores) -> list[Job]:
    """Return a run of each seed, at the best learning rate of the trials or the recipe's."""
    runs = _runs(variant, scale)
    if trial_scores:
        runs = [run.with_learning_rate(best_rate(trial_scores)) for run in runs]
    return make_jobs(runs, study.variant(variant).label)


def check(variant: str, scale: str) -> None:
    """Raise UserError for what is unknown, out of range or confounded, before any training."""
    run = _resolve(variant, scale)
    data.check_files(run.dataset, run.classes, run.image_counts)
    confounds.check(variant, lambda name: _resolve(name, scale).config)


def _trials(variant: str, scale: str) -> list[Job]:
    check(variant, scale)
    return trial_jobs(variant, _runs(variant, scale))


def _known_job(request: TrainRequest) -> Job:
    known = {job.key: job for job in known_jobs(request.variant, request.scale)}
    if request.only not in known:
        raise UserError(
            f"run {request.only!r} of {request.variant} at scale {request.scale}: choose "
            f"{', '.join(known)}; keys follow the code, the data, precision, kernels and torch"
        )
    return known[request.only]


def _runs(variant: str, scale: str) -> list[Run]:
    first = select_backend(_resolve(variant, scale), layout.STATE)
    return [first.with_seed(seed) for seed in first.scale.seeds]


def _resolve(variant: str, scale: str) -> Run:
    """Return the variant's run with the scale's first seed, before a backend is selected."""
    loaded, recipes = settings.load(scale)
    declared = study.variant(variant)
    return resolve(declared, scale, loaded, recipes, loaded.seeds[0], loaded.precision)
