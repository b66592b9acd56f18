"""All seeds of one variant, and the files that a finished variant leaves in results/."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from sepablate import scales, study
from sepablate.files import write_atomically
from sepablate.training import machine, parallel, worker
from sepablate.training.run import resolve
from sepablate.training.worker import Job

RESULTS = Path("results")


def prepare(variant_name: str, scale_name: str) -> list[Job]:
    """One job per seed, resolved and named; ValueError for anything unknown or out of range."""
    variant = study.variant(variant_name)
    scale, recipe = scales.load(scale_name)
    precision = machine.precision(scale.precision, worker.FOLDER.parent)
    first = resolve(variant, scale_name, scale, recipe, scale.seeds[0], precision)
    return parallel.jobs_for([first.with_seed(seed) for seed in scale.seeds], variant.label)


def train(
    jobs: list[Job], processes: int, observe: Callable[[parallel.Progress], None]
) -> parallel.Progress:
    """Train the jobs of a variant; if all succeeded, write results/<scale>/runs/<variant>/.

    Raises parallel.Stopped if the user asked to stop.
    """
    progress = parallel.train(jobs, processes, observe)
    if not progress.failures:
        _collect(jobs)
    return progress


def _collect(jobs: list[Job]) -> None:
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
            ("measured.json", measured / f"{name}.json"),
        ):
            if (job.folder / source).exists():  # a run that diverged has no correct images
                write_atomically(target, (job.folder / source).read_bytes())
    keys = {str(job.run.seed): job.key for job in jobs}
    config = {**run.config, "label": jobs[0].label, "run_keys": keys}
    write_atomically(runs / "config.json", json.dumps(config, indent=1) + "\n")
