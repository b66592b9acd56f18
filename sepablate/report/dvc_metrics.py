"""A report's numbers for people: `dvc metrics show`, `dvc metrics diff`, `dvc exp show`."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from sepablate.analysis import effects, metrics, wording
from sepablate.analysis.verdicts import Verdict


def to_json(tables: Mapping[str, pd.DataFrame], decided: Sequence[Verdict]) -> str:
    """Return score -> variant -> mean, and how many claims have which verdict.

    So few that `dvc exp show` fits a screen; table.csv and verdicts.json have the details. All
    digits, as fractions; null for nan.

    Args:
        tables: by study, as `summary_table.summarise` makes them.
        decided: the verdicts of the report.
    """
    numbers: dict[str, dict[str, float]] = {}
    for table in tables.values():
        score = metrics.metric_of_columns(table).name
        numbers.setdefault(score, {}).update(zip(table["variant"], table[score], strict=True))
    counts = Counter(verdict.outcome for verdict in decided)
    numbers["claims"] = {outcome: counts[outcome] for outcome in wording.OUTCOMES}
    return json.dumps(effects.without_nan(numbers), indent=1, allow_nan=False) + "\n"
