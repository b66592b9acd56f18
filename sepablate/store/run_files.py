"""The one writer and reader of a run's CSV file, and the names of the metrics in it.

A tidy table: one line per step and metric, each with the run's key.
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sepablate.errors import UserError
from sepablate.store import layout
from sepablate.store.files import read_json, refuse_endless, verify_manifest

LEARNING_RATE, TRAIN_LOSS = "learning_rate", "train/loss"
DIVERGED = "final/diverged_at_step"  # in place of a run's final scores

Row = tuple[int, str, float]  # step, metric, value


class RunRow(NamedTuple):
    """A line of a run's CSV file, as its columns are."""

    run_key: str
    variant: str
    seed: int
    step: int
    metric: str
    value: float


COLUMNS = RunRow._fields


def validation_metric(score: str, averaged: bool = False) -> str:
    """Return the metric of a curve's points; averaged: of the averaged weights."""
    return f"validation/{score}{_suffix(averaged)}"


def final_metric(score: str, averaged: bool = False, trial: bool = False) -> str:
    """Return the metric of the test images after the last step.

    Args:
        score: of an image, such as accuracy.
        averaged: of the averaged weights.
        trial: of validation images, as in a run that helps to choose a recipe.
    """
    return f"final/{'validation' if trial else 'test'}_{score}{_suffix(averaged)}"


def is_final(metric: str) -> bool:
    """Return whether a metric is a run's last word: a final score, or its divergence."""
    return metric.startswith("final/")


def images_seen(steps: int, batch_size: int) -> int:
    """Return the training images of so many gradient steps, repeats counted."""
    return int(steps) * int(batch_size)


def format_rows(rows: Iterable[Row], run_key: str, variant: str, seed: int) -> str:
    """Return the CSV text of a run's rows, all digits kept."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for step, metric, value in rows:
        writer.writerow((run_key, variant, seed, step, metric, repr(value)))
    return text.getvalue()


def read_run(path: Path) -> list[RunRow]:
    """Return the lines of a run's CSV file; UserError if it is not one."""
    refuse_endless(path)
    try:
        with path.open(newline="") as file:
            header, *lines = list(csv.reader(file)) or [[]]
        if tuple(header) != COLUMNS:
            raise ValueError(f"columns must be {','.join(COLUMNS)}")
        return [
            RunRow(run_key, variant, int(seed), int(step), metric, float(value))
            for run_key, variant, seed, step, metric, value in lines
        ]
    except (csv.Error, ValueError) as error:
        raise UserError(f"{path}: not the rows of a run: {error}") from None


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a run's CSV file; none if there is no file.

    Raises UserError for a file that is not one of a run.
    """
    return [row[3:] for row in read_run(path)] if path.exists() else []


def is_finished(folder: Path, run_key: str) -> bool:
    """Return whether a folder holds the finished run of that key, every byte as it was written.

    A manifest that lists too little, or the folder of another run, is not one.
    """
    if not verify_manifest(folder, (layout.RUN_CONFIG, layout.MEASURED, layout.RESULT)):
        return False
    try:
        config, rows = read_json(folder / layout.RUN_CONFIG, dict), read_run(folder / layout.RESULT)
    except UserError:
        return False
    scored = any((folder / name).is_file() for name in layout.SCORES.values())
    whole = scored or any(row.metric == DIVERGED for row in rows)
    return whole and {config.get("run_key"), *(row.run_key for row in rows)} == {run_key}


def last_value(rows: Iterable[Row], metric: str) -> float | None:
    """Return the last value of a metric; None without one."""
    values = [value for _, name, value in rows if name == metric]
    return values[-1] if values else None


def _suffix(averaged: bool) -> str:
    return "_averaged" if averaged else ""
