"""The numbers of a report in one file, for `dvc metrics show` and `dvc metrics diff`."""

import json
from collections.abc import Mapping, Sequence

import pandas as pd

from sepablate.analysis import effects, metrics
from sepablate.analysis.verdicts import Verdict


def to_json(tables: Mapping[str, pd.DataFrame], decided: Sequence[Verdict]) -> str:
    """Return study -> variant -> final score, n and cost; study -> claim -> difference, verdict.

    All digits, as fractions; null for nan.

    Args:
        tables: by study, as `summary_table.summarise` makes them.
        decided: the verdicts of the report.
    """
    numbers: dict[str, dict[str, dict[str, object]]] = {
        study: {
            row["variant"]: {key: row[key] for key in _columns(table)}
            for row in table.to_dict("records")
        }
        for study, table in tables.items()
    }
    for verdict in decided:
        measured, claim = verdict.measured, verdict.measured.claim
        name = f"{claim.left} {claim.comparison} {claim.right}, {claim.metric}"
        numbers[measured.study][name] = {
            "difference": measured.mean,
            "low": measured.low,
            "high": measured.high,
            "n": len(measured.seeds),
            "verdict": verdict.outcome,
        }
    return json.dumps(effects.without_nan(numbers), indent=1, allow_nan=False) + "\n"


def _columns(table: pd.DataFrame) -> list[str]:
    score = metrics.metric_of_columns(table).name
    return [score, f"{score}_low", f"{score}_high", "n", "parameters", "mult_adds"]
