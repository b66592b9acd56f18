"""The training profile of a study: validation score against gradient steps, over seeds."""

import pandas as pd

from sepablate.analysis import statistics
from sepablate.analysis.metrics import Metric
from sepablate.store.run_files import DIVERGED


def columns(metric: Metric) -> list[str]:
    """Return the columns of a training profile."""
    return ["variant", "label", "step", "n", metric.validation_column, "low", "high"]


def profile(frame: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Return one row per variant and step: n, mean and 95 % t interval of the whole runs.

    A variant whose runs all diverged has no row. Scores are fractions.

    Args:
        frame: as in `load_runs.Runs`.
        metric: the score of its runs.
    """
    whole, _ = split_diverged(frame, metric)
    profiles = []
    for (name, label), runs in whole.groupby(["variant", "label"], sort=False):
        points = runs.pivot(index="step", columns="seed", values="value")
        mean, low, high = statistics.interval(points.to_numpy())
        rows = {"variant": name, "label": label, "step": points.index, "n": points.shape[1]}
        rows |= {metric.validation_column: mean, "low": low, "high": high}
        profiles.append(pd.DataFrame(rows))
    return pd.concat(profiles) if profiles else pd.DataFrame(columns=columns(metric), dtype=float)


def split_diverged(frame: pd.DataFrame, metric: Metric) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the curves of the whole runs, and of those that diverged."""
    curves = frame[frame.metric == metric.curve]
    diverged = set(_runs(frame[frame.metric == DIVERGED]))
    lost = _runs(curves).isin(diverged)
    return curves[~lost], curves[lost]


def _runs(rows: pd.DataFrame) -> pd.Series:
    """Return the (variant, seed) of each row."""
    return pd.Series(list(zip(rows.variant, rows.seed, strict=True)), rows.index, dtype=object)
