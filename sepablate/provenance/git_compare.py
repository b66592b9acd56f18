"""The tables on disk compared with those in git's HEAD, to show what a fresh run reproduced."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pandas as pd

from sepablate.analysis import summary_table
from sepablate.analysis.summary_table import Row
from sepablate.store import git, layout

EXACT = summary_table.COUNTS
SAME, WITHIN, NOT = "bit for bit", "within the committed 95 % interval", "not reproduced"


@dataclass
class Reproduction:
    """How often each outcome occurs, and a line for every number that is not the same.

    Args:
        counts: by outcome.
        within: the lines of the numbers within the committed interval.
        lost: the lines of those that are not reproduced.
        not_compared: why no number could be compared; empty if some were.
    """

    counts: Counter[str] = field(default_factory=Counter)
    within: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    not_compared: str = ""

    @property
    def summary(self) -> str:
        """The counts in one line."""
        counts = ", ".join(f"{self.counts[outcome]} {outcome}" for outcome in (SAME, WITHIN, NOT))
        total = self.counts.total()
        return f"{total} committed number{'s' * (total != 1)}: {counts}"


def compare_with_head(scale: str, studies: Sequence[str]) -> Reproduction:
    """Compare the table.csv of each comparison with the one in git's HEAD, number by number.

    Raises GitRefused if git does not read the repository that is there.
    """
    reproduction = Reproduction()
    try:
        git.head()
    except git.NoCommit as reason:
        reproduction.not_compared = str(reason)
        return reproduction
    for name in studies:
        path = layout.study_folder(scale, name) / layout.TABLE
        try:
            text = git.committed(path.as_posix())
        except git.NotInCommit:
            continue
        committed = summary_table.from_csv(text, f"{path} in git's HEAD")
        for outcome, line in _compare(committed, summary_table.read(path)):
            reproduction.counts[outcome] += 1
            if outcome != SAME:
                lines = reproduction.within if outcome == WITHIN else reproduction.lost
                lines.append(f"{path}, {line}: {outcome}")
    if not reproduction.counts:
        reproduction.not_compared = f"git's HEAD has no tables of scale {scale}"
    return reproduction


def _compare(committed: pd.DataFrame, current: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Yield the outcome for each number of the committed table, and a line on it."""
    rows: dict[str, Row] = {row["variant"]: row for row in current.to_dict("records")}
    for old in committed.to_dict("records"):
        new = rows.get(old["variant"], {})
        estimates = [column for column in map(str, old) if f"{column}_low" in old]
        for column in [*(column for column in EXACT if column in old), *estimates]:
            values = f"{new.get(column, 'nothing')} for the committed {old[column]}"
            yield _outcome(column, old, new), f"{old['variant']} {column}: {values}"


def _outcome(column: str, old: Row, new: Row) -> str:
    was, now = old[column], new.get(column)
    if now is not None and (was == now or (pd.isna(was) and pd.isna(now))):
        return SAME
    low, high = (old.get(f"{column}_{end}", math.nan) for end in ("low", "high"))
    return WITHIN if now is not None and low <= now <= high else NOT
