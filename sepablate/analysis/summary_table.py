"""The table of a study: the cost and the scores of each variant."""

import io
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from sepablate.analysis import metrics, statistics
from sepablate.analysis.formatting import markdown_table, percent, scientific, with_interval
from sepablate.analysis.load_runs import RAW, Config, Runs
from sepablate.analysis.metrics import Metric
from sepablate.errors import UserError
from sepablate.store.files import read_text
from sepablate.store.run_files import final_metric
from sepablate.study import Study

Row = Mapping[Hashable, Any]  # of a table, by column
TEXTS = ("variant", "label", "baseline", "diverged", "run_keys")
COUNTS = ("parameters", "mult_adds", "weight_decay", "n", "pairs")
HEADER = (
    "Variant",
    "Parameters",
    "Mult-adds (M)",
    "Weight decay",
    "n",
    "Test {metric} (%)",
    "Raw weights (%)",
    "Difference to {baseline} (points)",
)


def summarise(study: Study, runs: Runs) -> pd.DataFrame:
    """Return one row per variant; scores and differences as fractions, with 95 % t intervals.

    The columns of the scores have the metric's name in theirs: accuracy, raw_accuracy. n counts the
    seeds that did not diverge, pairs those of them that the baseline has too. The column
    "diverged" names those that did, and those that have a score, but no better than chance.
    """
    score = runs.metric.name
    final, raw = runs.scores(score), runs.scores(RAW)
    rows = []
    for variant in study.all_variants:
        name, config = variant.name, runs.configs[variant.name]
        scores = final[name].dropna().to_numpy()
        differences = (final[name] - final[study.baseline.name]).dropna().to_numpy()
        rows.append(
            {
                "variant": name,
                "label": variant.label,
                "baseline": study.baseline.name,
                "parameters": config["parameters"],
                "mult_adds": config["mult_adds"],
                "weight_decay": config["weight_decay"],
                "n": len(scores),
                **_interval(score, scores),
                **_interval(f"raw_{score}", raw[name].dropna().to_numpy()),
                **{name: _mean_of(name, variant.name, runs) for name in runs.metric.details},
                "pairs": len(differences),
                **_interval("difference", differences),
                "diverged": ", ".join([*_diverged(name, runs), *_at_chance(config, final[name])]),
                "run_keys": " ".join(f"{k}:{config['run_keys'][str(k)]}" for k in runs.seeds),
            }
        )
    return pd.DataFrame(rows)


def to_csv(summary: pd.DataFrame) -> str:
    """Return the table as CSV: all digits, as fractions."""
    return summary.to_csv(index=False, lineterminator="\n")


def read(path: Path) -> pd.DataFrame:
    """Return the table in a file that `to_csv` wrote; UserError if it is another file."""
    return from_csv(read_text(path), str(path))


def from_csv(text: str, source: str) -> pd.DataFrame:
    """Return the table that `to_csv` wrote, to the last digit.

    Args:
        text: the CSV.
        source: where it comes from, for errors.

    Raises UserError for another table.
    """
    try:
        summary = pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(TEXTS, str))
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{source}: not a CSV table: {error}") from None
    scores = [task.name for task in metrics.TASK_METRICS.values() if task.name in summary]
    estimates = [*scores[:1], *(f"raw_{name}" for name in scores[:1]), "difference"]
    numbers = [*COUNTS, *(f"{name}{end}" for name in estimates for end in ("", "_low", "_high"))]
    missing = [name for name in (*TEXTS, *numbers) if name not in summary]
    if missing or not scores or summary.empty:
        raise UserError(f"{source}: not the table of a study: lacks {', '.join(missing) or 'rows'}")
    summary = summary.fillna({"diverged": ""})
    wrong = [name for name in numbers if not is_numeric_dtype(summary[name])]
    wrong += [name for name in TEXTS if summary[name].isna().any()]
    if wrong:
        raise UserError(f"{source}: invalid values in column {', '.join(wrong)}")
    return summary


def run_keys(summaries: Iterable[pd.DataFrame]) -> str:
    """Return the runs of some tables as `variant seed:key seed:key; variant ...`, each once."""
    keys: dict[str, str] = {}
    for summary in summaries:
        keys |= zip(summary.variant, summary.run_keys, strict=True)
    return "; ".join(f"{variant} {pairs}" for variant, pairs in keys.items())


def to_markdown(summary: pd.DataFrame) -> str:
    """Return the table rounded, in percent and percentage points; the baseline comes first."""
    header, *rows = to_rows(summary)
    return markdown_table(header, rows)


def to_rows(summary: pd.DataFrame) -> list[list[str]]:
    """Return the header and the cells of `to_markdown`."""
    metric, baseline = metrics.metric_of_columns(summary), summary.label[0]
    header = [head.format(baseline=baseline, metric=metric.label) for head in HEADER]
    return [header, *(_cells(row, metric) for row in summary.to_dict("records"))]


def details(summary: pd.DataFrame) -> str:
    """Return a table of the metric's further numbers, means over seeds; empty if it has none."""
    heads = metrics.metric_of_columns(summary).details
    rows = [
        [row["label"], *(percent(row[name]) for name in heads)]
        for row in summary.to_dict("records")
    ]
    return markdown_table(("Variant", *heads.values()), rows) if heads else ""


def score_cell(row: Row, metric: Metric) -> str:
    """Return the final score of a row of a table, with its interval, in percent."""
    return with_interval(*(row[f"{metric.name}{end}"] for end in ("", "_low", "_high")))


def _cells(row: Row, metric: Metric) -> list[str]:
    if row["variant"] == row["baseline"]:
        difference = "–"
    else:
        difference = with_interval(
            row["difference"], row["difference_low"], row["difference_high"], sign="+"
        )
    return [
        row["label"],
        f"{row['parameters']:,}",
        f"{row['mult_adds'] / 1e6:,.2f}",
        scientific(row["weight_decay"]),
        "; ".join(filter(None, [str(row["n"]), row["diverged"]])),
        score_cell(row, metric),
        percent(row[f"raw_{metric.name}"]),
        difference + (f", {row['pairs']} pairs" if row["pairs"] < row["n"] else ""),
    ]


def _mean_of(name: str, variant: str, runs: Runs) -> float:
    """Return the mean over seeds of a further number of a variant; nan if all diverged."""
    frame, column = runs.frame, final_metric(name, averaged=True)
    return float(frame[(frame.variant == variant) & (frame.metric == column)].value.mean())


def _interval(name: str, values: statistics.Array) -> dict[str, float]:
    mean, low, high = map(float, statistics.interval(values))
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def _diverged(variant: str, runs: Runs) -> list[str]:
    return [
        f"seed {seed} diverged at step {step}"
        for (name, seed), step in runs.diverged.items()
        if name == variant
    ]


def _at_chance(config: Config, scores: pd.Series) -> list[str]:
    """Return the seeds that score at most three standard errors above a guess of the class."""
    if config["task"] != "single_label":
        return []
    guess = 1 / config["model.classes"]
    limit = guess + 3 * (guess * (1 - guess) / config["test_images"]) ** 0.5
    return [f"seed {seed} at chance" for seed, score in scores.items() if score <= limit]
