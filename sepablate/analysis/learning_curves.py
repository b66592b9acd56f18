"""The training profile of a study: validation score against gradient steps, over seeds."""

import pandas as pd

from sepablate.analysis import statistics
from sepablate.analysis.load_runs import DIVERGED
from sepablate.analysis.metrics import Metric


def columns(measure: Metric) -> list[str]:
    """Of a profile."""
    return ["variant", "label", "step", "n", f"validation_{measure.name}", "low", "high"]


def profile(frame: pd.DataFrame, measure: Metric) -> pd.DataFrame:
    """One row per variant and step: n, mean and 95 % t interval, as fractions, of the whole runs.

    frame: as in `results.Runs`. A variant whose runs all diverged has no row.
    """
    whole, _ = split(frame, measure)
    found = [pd.DataFrame(columns=columns(measure), dtype=float)]
    for (name, label), runs in whole.groupby(["variant", "label"], sort=False):
        points = runs.pivot(index="step", columns="seed", values="value")
        mean, low, high = statistics.interval(points.to_numpy())
        rows = {"variant": name, "label": label, "step": points.index, "n": points.shape[1]}
        rows |= {f"validation_{measure.name}": mean, "low": low, "high": high}
        found.append(pd.DataFrame(rows))
    return pd.concat(found[1:] or found)


def split(frame: pd.DataFrame, measure: Metric) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The curves of the runs that ended well, and of those that diverged."""
    curve = frame[frame.metric == measure.curve]
    diverged = set(_runs(frame[frame.metric == DIVERGED]))
    lost = _runs(curve).isin(diverged)
    return curve[~lost], curve[lost]


def _runs(rows: pd.DataFrame) -> pd.Series:
    """(variant, seed) of each row."""
    return pd.Series(list(zip(rows.variant, rows.seed, strict=True)), rows.index, dtype=object)
