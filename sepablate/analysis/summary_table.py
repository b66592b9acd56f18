"""The table of a study: what each variant is, costs and reaches."""

import io
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from sepablate.analysis import metrics, statistics
from sepablate.analysis.load_runs import Runs
from sepablate.analysis.metrics import Metric
from sepablate.study import Study

HEADER = (
    "Variant",
    "Parameters",
    "Mult-adds (M)",
    "Weight decay",
    "n",
    "Test {measure} (%)",
    "Raw weights (%)",
    "Difference to {baseline} (points)",
)


def summarise(study: Study, runs: Runs) -> pd.DataFrame:
    """One row per variant; scores and differences as fractions, with 95 % t intervals.

    The columns of the scores have the measure's name in theirs: accuracy, raw_accuracy.
    n: seeds that did not diverge; pairs: those of them that the baseline has too.
    """
    measure = runs.measure.name
    final, raw = runs.scores(measure), runs.scores("raw")
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
                **_interval(measure, scores),
                **_interval(f"raw_{measure}", raw[name].dropna().to_numpy()),
                "pairs": len(differences),
                **_interval("difference", differences),
                "diverged": _diverged(name, runs),
                "run_keys": " ".join(f"{k}:{config['run_keys'][str(k)]}" for k in runs.seeds),
            }
        )
    return pd.DataFrame(rows)


def to_csv(summary: pd.DataFrame) -> str:
    """All digits, as fractions."""
    return summary.to_csv(index=False, lineterminator="\n")


def from_csv(text: str) -> pd.DataFrame:
    """What `to_csv` wrote, to the last digit."""
    strings = {"diverged": str, "run_keys": str}
    return pd.read_csv(io.StringIO(text), dtype=strings).fillna({"diverged": ""})


def run_keys(summaries: Iterable[pd.DataFrame]) -> str:
    """The runs behind tables as `variant seed:key seed:key; variant ...`, each variant once."""
    rows = [row for each in summaries for row in zip(each.variant, each.run_keys, strict=True)]
    return "; ".join(f"{variant} {keys}" for variant, keys in dict(rows).items())


def to_markdown(summary: pd.DataFrame) -> str:
    """Rounded, in percent and percentage points; the first row is the baseline."""
    measure, baseline = metrics.metric_of_columns(map(str, summary)), summary.label[0]
    header = [each.format(baseline=baseline, measure=measure.label) for each in HEADER]
    return markdown(header, [_cells(row, measure) for row in summary.to_dict("records")])


def score(row: Mapping[Hashable, Any], measure: Metric) -> str:
    """The final score of a row of a table, with its interval, in percent."""
    return with_interval(*(row[f"{measure.name}{end}"] for end in ("", "_low", "_high")))


def _cells(row: Mapping[Hashable, Any], measure: Metric) -> list[str]:
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
        score(row, measure),
        percent(row[f"raw_{measure.name}"]),
        difference + (f", {row['pairs']} pairs" if row["pairs"] < row["n"] else ""),
    ]


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A GitHub table."""
    lines = [header, ["---"] * len(header), *rows]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def percent(fraction: float, sign: str = "-") -> str:
    """A fraction in percent, or a difference of fractions in points: two decimals, – for nan."""
    return "–" if math.isnan(fraction) else f"{100 * fraction:{sign}.2f}".replace("-", "−")


def with_interval(mean: float, low: float, high: float, sign: str = "-") -> str:
    """A mean and its interval, in percent or points."""
    return f"{percent(mean, sign)} [{percent(low, sign)}, {percent(high, sign)}]"


def scientific(number: float) -> str:
    """1e-5 for 0.00001."""
    return f"{number:g}".replace("e-0", "e-")


def _interval(name: str, values: statistics.Array) -> dict[str, float]:
    mean, low, high = map(float, statistics.interval(values))
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def _diverged(variant: str, runs: Runs) -> str:
    return ", ".join(
        f"seed {seed} diverged at step {step}"
        for (name, seed), step in runs.diverged.items()
        if name == variant
    )
