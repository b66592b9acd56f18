"""The numbers of a report in one file, for `dvc metrics show` and `dvc metrics diff`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from sepablate.analysis import claims
from sepablate.analysis.verdicts import Verdict

OF_A_VARIANT = ("accuracy", "accuracy_low", "accuracy_high", "n", "parameters", "mult_adds")


def to_json(tables: Mapping[str, pd.DataFrame], decided: Sequence[Verdict]) -> str:
    """Study -> variant -> test accuracy, n and cost; study -> claim -> difference and verdict.

    tables: by study, as `tables.summarise` makes them. All digits, as fractions; null for nan.
    """
    found: dict[str, dict[str, Any]] = {
        study: {row["variant"]: {key: row[key] for key in OF_A_VARIANT} for row in rows}
        for study, rows in ((name, table.to_dict("records")) for name, table in tables.items())
    }
    for verdict in decided:
        measured, claim = verdict.measured, verdict.measured.claim
        name = f"{claim.left} {claim.comparison} {claim.right}, {claim.metric}"
        found[measured.study][name] = {
            "difference": measured.mean,
            "low": measured.low,
            "high": measured.high,
            "n": len(measured.seeds),
            "verdict": verdict.word,
        }
    return json.dumps(claims.without_nan(found), indent=1, allow_nan=False) + "\n"
