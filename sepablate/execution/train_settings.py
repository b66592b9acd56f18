"""Train the settings of a robustness study: all their runs in one go, so that no process waits."""

from sepablate import data, study
from sepablate.execution.backend import select_backend
from sepablate.execution.collect import collect
from sepablate.execution.job import Job, make_jobs
from sepablate.execution.launch import TrainRequest
from sepablate.execution.progress import shown
from sepablate.execution.trainer import Progress, Trainer
from sepablate.runs import settings
from sepablate.runs.run import Run, resolve
from sepablate.store import layout

Jobs = dict[tuple[str, str], list[Job]]  # by scale, `<scale>.<setting>`, and variant


def train_settings(request: TrainRequest, trainer: Trainer) -> Progress:
    """Train the departures of a robustness study, and collect those of which all runs succeeded.

    The runs of the scale itself are those of the studies whose claims it takes. Data sets that are
    not there are fetched. Curves in MLflow appear with `sepablate publish`.

    Raises UserError for anything unknown, out of range or confounded, Stopped if the user asked to
    stop; the same call then goes on from the checkpoints.
    """
    name, scale = request.variant, request.scale
    grouped: Jobs = {}

    def jobs() -> list[Job]:
        if trainer.is_main:
            fetch(name, scale)
        grouped.update(setting_jobs(name, scale))
        return [job for each in grouped.values() for job in each]

    resolved = trainer.resolve(jobs)
    if not trainer.is_main:
        return trainer.train(resolved, lambda progress: None)
    with shown(resolved, mlflow=False, title=f"{name} · {scale}") as observe:
        progress = trainer.train(resolved, observe)
    for each in grouped.values():
        if not any(job.name in progress.failures for job in each):
            collect(each, {})
    return progress


def fetch(name: str, scale: str) -> None:
    """Fetch the data sets of all settings; those that are there are only verified."""
    for dataset in sorted({each.dataset for each in settings.load_all(name, scale).values()}):
        data.fetch(dataset)


def setting_jobs(name: str, scale: str) -> Jobs:
    """Return the jobs of the departures, those of a setting together; UserError if confounded."""
    runs: dict[tuple[str, str], Run] = {}

    def first_run(variant: str, derived: str) -> Run:
        if (derived, variant) not in runs:
            loaded, recipes = settings.load(derived)
            declared, precision = study.variant(variant), loaded.precision
            run = resolve(declared, derived, loaded, recipes, loaded.seeds[0], precision)
            runs[derived, variant] = run
        return runs[derived, variant]

    settings.check(name, scale, lambda variant, derived: first_run(variant, derived).config)
    _, *departures = settings.names(study.load_robustness(name), scale).values()
    return {
        (derived, variant): _jobs(first_run(variant, derived))
        for derived in departures
        for variant in study.robustness_variants(name)
    }


def _jobs(first: Run) -> list[Job]:
    """Return a job for each seed."""
    chosen = select_backend(first, layout.STATE)
    runs = [chosen.with_seed(seed) for seed in first.scale.seeds]
    return make_jobs(runs, study.variant(first.variant).label)
