"""What a person sees while a stage trains: one bar, or a line now and then without a terminal."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from sepablate import study
from sepablate.execution import pool
from sepablate.execution.job import BUSY, FOLDER, NO_SPACE, Job

LINE_EVERY = 15.0  # seconds between lines without a terminal


@contextlib.contextmanager
def shown(
    variant: str, scale: str, jobs: list[Job], live: bool
) -> Iterator[Callable[[pool.Progress], None]]:
    """Show the progress of `jobs`, and follow them in MLflow if `live`."""
    with contextlib.ExitStack() as stack:
        show = stack.enter_context(_bar(variant, scale, jobs))
        if live and not all(job.finished for job in jobs):
            stack.enter_context(_followed(variant, scale, jobs))
        yield show


def explain(name: str, status: int | str) -> str:
    """One line on why a run did not finish. status: its exit status, or the reason itself."""
    if isinstance(status, str):
        return f"{name}: {status}"
    if status == BUSY:
        return f"{name} is being trained by another process; wait for it, then run this again"
    if status == NO_SPACE:
        return f"{name} has no room on the disk; make some, and the same command goes on"
    if status < 0:
        return f"{name} was ended by {signal.Signals(-status).name}; the same command resumes it"
    return f"{name} failed: see error.txt in its folder in {FOLDER}"


@contextlib.contextmanager
def _bar(variant: str, scale: str, jobs: list[Job]) -> Iterator[Callable[[pool.Progress], None]]:
    batch, steps = jobs[0].run.scale.batch_size, jobs[0].run.scale.steps
    total, began = steps * len(jobs), time.monotonic()
    console, already, last = Console(), sum(steps for job in jobs if job.finished), [began]
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=False) as bar:
        task = bar.add_task(f"{variant} · {scale}", total=total, note="", completed=already)
        bar.live.auto_refresh = console.is_terminal

        def show(progress: pool.Progress) -> None:
            done, seconds = sum(progress.steps), time.monotonic() - began
            rate = max(done - already, 0) / max(seconds, 1e-9)
            left = f"{(total - done) / rate:.0f} s left" if rate else "starting"
            note = f"{progress.finished}/{len(jobs)} runs, {rate * batch:.0f} images/s, {left}"
            bar.update(task, completed=done, note=note)
            now = time.monotonic()
            if not console.is_terminal and now - last[0] > LINE_EVERY:
                last[0] = now
                print(f"{variant} · {scale}: {note}", flush=True)

        for job in jobs:
            if job.corrupt_files:
                where = f"{job.folder}/{job.corrupt_files[0]}"
                print(f"{where} is damaged: {variant} seed {job.run.seed} is trained again")
        if already:
            console.print(f"{already // steps} of {len(jobs)} runs are on disk already")
        yield show


@contextlib.contextmanager
def _followed(variant: str, scale: str, jobs: list[Job]) -> Iterator[None]:
    from sepablate import tracking

    follower = tracking.Live(study.studies_with(variant), scale, [job.key for job in jobs])
    try:
        yield
    finally:
        follower.close()
