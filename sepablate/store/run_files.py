"""The one writer and reader of a run's CSV file, and the names of the metrics in it.

A tidy table: one line per step and metric, each with the run's key.
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from sepablate.errors import UserError

COLUMNS = ("run_key", "variant", "seed", "step", "metric", "value")
LEARNING_RATE, TRAIN_LOSS = "learning_rate", "train/loss"
DIVERGED = "final/diverged_at_step"  # in place of a run's final scores

Row = tuple[int, str, float]  # step, metric, value


def validation_metric(score: str, averaged: bool = False) -> str:
    """Return the metric of a curve's points; averaged: of the averaged weights."""
    return f"validation/{score}{_suffix(averaged)}"


def final_metric(score: str, averaged: bool = False) -> str:
    """Return the metric of the test images after the last step; averaged: of averaged weights."""
    return f"final/test_{score}{_suffix(averaged)}"


def is_final(metric: str) -> bool:
    """Return whether a metric is a run's last word: a final score, or its divergence."""
    return metric.startswith("final/")


def format_rows(rows: Iterable[Row], run_key: str, variant: str, seed: int) -> str:
    """Return the CSV text of a run's rows, all digits kept."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for step, metric, value in rows:
        writer.writerow((run_key, variant, seed, step, metric, repr(value)))
    return text.getvalue()


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a run's CSV file; none if there is no file.

    Raises UserError for a file that is not one of a run.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="") as file:
            return [
                (int(row["step"]), row["metric"], float(row["value"]))
                for row in csv.DictReader(file)
            ]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not the rows of a run ({error!r})") from None


def read_keys(path: Path) -> set[str]:
    """Return the run keys that a run's CSV file names: one, unless it was damaged."""
    with path.open(newline="") as file:
        return {row.get("run_key") or "" for row in csv.DictReader(file)}


def last_value(rows: Iterable[Row], metric: str) -> float | None:
    """Return the last value of a metric; None without one."""
    values = [value for _, name, value in rows if name == metric]
    return values[-1] if values else None


def _suffix(averaged: bool) -> str:
    return "_averaged" if averaged else ""
