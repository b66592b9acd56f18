"""Show the search for a scale's recipe: its candidates, what is known of them, the time left."""

import math
import sys

from rich import box
from rich.console import Console
from rich.table import Table

from sepablate import scales
from sepablate.execution import pool, tune
from sepablate.execution.environment import TABLE_WIDTH
from sepablate.execution.job import Job
from sepablate.planning import calibration, forecast, table
from sepablate.planning.work import StageRuns
from sepablate.store import layout
from sepablate.store.tuning_file import Candidate, Result
from sepablate.study import XCEPTION


def show_forecast(scale: str) -> None:
    """Print the candidates and the time that the unfinished trials would take; train none."""
    trials = tune.make_trials(scale)
    show_results(tune.results(trials))
    unfinished = [job for job in trials if not job.finished]
    print(f"{len(trials) - len(unfinished)} of {len(trials)} trials are finished")
    if unfinished:
        print("timing a few steps on this machine", file=sys.stderr)
        processes = pool.default_processes(trials)
        seconds = _seconds(unfinished, processes)
        print(f"time    {table.duration(seconds)}, {processes} trials in parallel")


def show_choice(scale: str) -> None:
    """Print the candidates of a finished search, and what to write into params.yaml."""
    results = tune.results(tune.make_trials(scale))
    show_results(results)
    print(f"tuning: {layout.tuning(scale)}")
    best = results[0].candidate
    if best == tune.current(*scales.load(scale)):
        print(f"{layout.PARAMS} has the best candidate already")
        return
    print(f"the best candidate is not in {layout.PARAMS}; to take it, set there:")
    print(params_lines(scale, best), end="")


def show_results(results: list[Result]) -> None:
    """Print a line per candidate; the first is marked as the best if all have as many trials.

    The accuracy is the mean over seeds, on validation images; std is the deviation over seeds.
    """
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", *Candidate._fields, "n", "accuracy", "std"):
        shown.add_column(name, justify="right", no_wrap=True)
    complete = results[0].accuracies and len({len(each.accuracies) for each in results}) == 1
    for result in results:
        mark = "best" if complete and result is results[0] else ""
        deviation = "" if math.isnan(result.deviation) else f"{100 * result.deviation:.2f} %"
        mean = f"{100 * result.mean:.2f} %" if result.accuracies else ""
        shown.add_row(
            mark, *map(str, result.candidate), str(len(result.accuracies)), mean, deviation
        )
    Console(highlight=False, width=TABLE_WIDTH).print(shown)


def params_lines(scale: str, candidate: Candidate) -> str:
    """Return the lines of params.yaml that give a scale a candidate."""
    return (
        f"scales:\n  {scale}:\n    batch_size: {candidate.batch_size}\n    recipes:\n"
        f"      {XCEPTION.recipe}:\n        learning_rate: {candidate.learning_rate!r}\n"
        f"        decays: {candidate.decays}\n        shift: {candidate.shift}\n"
        f"        flip: {str(candidate.flip).lower()}\n"
    )


def _seconds(unfinished: list[Job], processes: int) -> float:
    """Return the predicted seconds: a batch's size decides the time of a step."""
    networks = forecast.networks_of([unfinished]).items()
    costs = {network: calibration.calibrate(jobs[:processes]) for network, jobs in networks}
    runs = StageRuns([unfinished])
    return forecast.training_seconds(runs, lambda job: costs[forecast.network_of(job)], processes)
