"""The tables on disk beside those that git has: what a fresh run reproduced, and how well."""

import math
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sepablate import study
from sepablate.analysis import summary_table
from sepablate.analysis.load_runs import RESULTS

EXACT = ("parameters", "mult_adds", "weight_decay", "n", "pairs")
BITS, WITHIN, NOT = "bit for bit", "within the committed 95 % interval", "not reproduced"


@dataclass(frozen=True)
class Reproduction:
    """How often each word applies, and a line for every number that is not the same bit for bit."""

    counts: Counter[str]
    within: list[str]
    lost: list[str]

    @property
    def summary(self) -> str:
        """The counts in one line."""
        counts = ", ".join(f"{self.counts[word]} {word}" for word in (BITS, WITHIN, NOT))
        total = self.counts.total()
        if not total:
            return "git has no committed tables to compare with"
        return f"{total} committed numbers: {counts}"


def compare_with_head(scale: str, studies: list[str]) -> Reproduction:
    """Compare each study's table.csv with the one in git's HEAD, number by number."""
    found = Reproduction(Counter(), [], [])
    for name in studies:
        path = RESULTS / scale / name / "table.csv"
        text = _committed(path)
        if text is None or not study.load(name).all_variants:
            continue
        for word, line in _compare(
            summary_table.from_csv(text), summary_table.from_csv(path.read_text())
        ):
            found.counts[word] += 1
            if word != BITS:
                lines = found.within if word == WITHIN else found.lost
                lines.append(f"{path}, {line}: {word}")
    return found


def _committed(path: Path) -> str | None:
    """The content of a file in git's HEAD; None without git or where it was never committed."""
    command = ["git", "show", f"HEAD:./{path.as_posix()}"]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode()


def _compare(committed: pd.DataFrame, here: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """A word for each number of the committed table, and what it is about."""
    rows = {row["variant"]: row for row in here.to_dict("records")}
    for old in committed.to_dict("records"):
        new: dict[Any, Any] = rows.get(old["variant"], {})
        estimates = [column for column in map(str, old) if f"{column}_low" in old]
        for column in [*(each for each in EXACT if each in old), *estimates]:
            told = f"{new.get(column, 'nothing')} for the committed {old[column]}"
            yield _word(column, old, new), f"{old['variant']} {column}: {told}"


def _word(column: str, old: dict[Any, Any], new: dict[Any, Any]) -> str:
    was, now = old[column], new.get(column)
    if now is not None and (was == now or (pd.isna(was) and pd.isna(now))):
        return BITS
    low, high = (old.get(f"{column}_{end}", math.nan) for end in ("low", "high"))
    return WITHIN if now is not None and low <= now <= high else NOT
