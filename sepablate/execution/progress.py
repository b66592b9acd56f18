"""Show a stage's progress: one bar, or a line now and then without a terminal."""

import contextlib
import itertools
import operator
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

from sepablate import study
from sepablate.execution.job import BUSY, NO_SPACE, Job
from sepablate.execution.trainer import Observer, Progress
from sepablate.store import collected_runs, layout
from sepablate.store.files import MANIFEST
from sepablate.store.run_files import images_seen

LINE_EVERY = 15.0  # seconds between lines without a terminal


@contextlib.contextmanager
def shown(
    jobs: list[Job], mlflow: bool, title: str = "", rest: Sequence[Job] = ()
) -> Iterator[Observer]:
    """Show the progress of jobs, and follow them in MLflow if asked to.

    Args:
        jobs: of one variant, if they are to be followed.
        mlflow: whether to follow them.
        title: of the bar; default: variant and scale.
        rest: the other runs of the pipeline, of which the bar then tells as well.
    """
    run = jobs[0].run
    with contextlib.ExitStack() as stack:
        show = stack.enter_context(_bar(jobs, title or f"{run.variant} · {run.scale_name}", rest))
        if mlflow and not all(job.finished for job in jobs):
            stack.enter_context(_followed(jobs))
        yield show


def explain(name: str, status: int | str) -> str:
    """Return one line on why a run did not finish: by its exit status, or the reason itself."""
    if isinstance(status, str):
        return f"{name}: {status}"
    if status == BUSY:
        return f"{name} is being trained by another process; wait for it, then run this again"
    if status == NO_SPACE:
        return f"{name} has no room on the disk; make room, and the same command resumes it"
    if status < 0:
        return f"{name} was ended by {signal.Signals(-status).name}; the same command resumes it"
    return f"{name} failed: see {layout.ERROR} in its folder in {layout.RUN_FOLDERS}"


@contextlib.contextmanager
def _bar(jobs: list[Job], title: str, rest: Sequence[Job]) -> Iterator[Observer]:
    images = [job.run.scale.batch_size for job in jobs]  # of a step
    whole = [_images(job) for job in jobs]
    later = [_images(job) for job in rest if not job.finished]
    finished = [job.finished for job in jobs]
    total, already = sum(whole), sum(itertools.compress(whole, finished))
    before = sum(map(_images, rest)) - sum(later)
    console, began = Console(), time.monotonic()
    last_line = began
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
    with ProgressBar(*columns, TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task(title, total=total, note="", completed=already)
        pipeline = bar.add_task(
            "pipeline", total=before + total + sum(later), note="", visible=bool(rest)
        )
        bar.live.auto_refresh = console.is_terminal

        def show(progress: Progress) -> None:
            nonlocal last_line
            done, now = sum(map(operator.mul, progress.steps, images)), time.monotonic()
            rate = max(done - already, 0) / max(now - began, 1e-9)
            left = _time_left(total - done, rate) or ", starting"
            note = f"{progress.finished}/{len(jobs)} runs, {rate:,.0f} images/s{left}"
            bar.update(task, completed=done, note=note)
            # The networks to come are taken to be as fast as these.
            runs = f"{progress.finished + len(rest) - len(later)}/{len(jobs) + len(rest)} runs"
            runs += _time_left(total - done + sum(later), rate)
            bar.update(pipeline, completed=before + done, note=runs)
            if not console.is_terminal and now - last_line > LINE_EVERY:
                last_line = now
                print(f"{title}: {note}{f' · pipeline: {runs}' if rest else ''}", flush=True)

        _print_state(console, jobs, sum(finished))
        yield show


def _images(job: Job) -> int:
    """Return how many images a run trains on."""
    return images_seen(job.run.scale.steps, job.run.scale.batch_size)


def _time_left(images: int, rate: float) -> str:
    """Return in words how long images take; "" before any rate is known."""
    if not rate:
        return ""
    seconds = images / rate
    return f", {seconds:.0f} s left" if seconds < 120 else f", {seconds / 60:.0f} min left"


def _print_state(console: Console, jobs: list[Job], finished: int) -> None:
    for job in jobs:
        if job.corrupt_files:
            path = job.folder / job.corrupt_files[0]
            print(f"{path} is damaged: {job.name} is trained again")
        elif (job.folder / MANIFEST).exists() and not job.finished:
            print(f"{job.folder} is of another run: {job.name} is trained again")
    if finished:
        console.print(f"{finished} of {len(jobs)} runs are on disk already")


def _shown_in(variant: str, scale: str) -> list[str]:
    """Return the studies to show a variant in: a baseline where it is not without the others.

    It is not if one of them is trained, or will be, in the paper's pipeline.
    """
    pipeline = Path(layout.PAPER_PIPELINE)
    text = pipeline.read_text() if pipeline.is_file() else ""
    with_others = {variant, *collected_runs.trained_variants(scale)}
    return [
        name
        for name in study.studies_with(variant)
        if with_others & {each.name for each in study.load(name).variants}
        or f"sepablate study {name} " in text
    ]


@contextlib.contextmanager
def _followed(jobs: list[Job]) -> Iterator[None]:
    from sepablate import tracking

    run = jobs[0].run
    studies = _shown_in(run.variant, run.scale_name)
    follower = tracking.Live(studies, run.scale_name, [job.key for job in jobs])
    try:
        yield
    finally:
        follower.close()
