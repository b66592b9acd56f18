"""Every claim at every scale, and in the paper: from the files with verdicts only."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sepablate.analysis import effects
from sepablate.errors import UserError, command
from sepablate.paper import xception as paper
from sepablate.store import layout
from sepablate.store.files import read_json
from sepablate.study import Claim

FEWEST_SEEDS = 3
OVER_SETTINGS = "over settings"  # the second word of a column with pooled settings


@dataclass(frozen=True)
class Cell:
    """What one column says of a claim.

    Args:
        mean, low, high: the difference and the interval that its verdict rests on, as fractions:
            for all claims of a report at once, or of one more setting; they may be nan.
        outcome: the verdict, or how far it carries; "" without either.
        n: paired seeds, or settings.
        differences: of each seed; none for pooled settings.
    """

    mean: float
    low: float
    high: float
    outcome: str
    n: int
    differences: tuple[float, ...] = ()


@dataclass(frozen=True)
class Across:
    """Claims by columns.

    Args:
        columns: scale and data set, or scale and "over settings".
        claims: in the order of the reports.
        labels: of the two sides of each claim.
        reports: the name of the report of each claim.
        cells: of each claim, by the index of its column.
        paper: the paper's own difference of each claim, None where it prints none.
    """

    columns: tuple[tuple[str, str], ...]
    claims: tuple[Claim, ...]
    labels: tuple[tuple[str, str], ...]
    reports: tuple[str, ...]
    cells: tuple[dict[int, Cell], ...]
    paper: tuple[float | None, ...]

    def missing(self, column: int) -> str:
        """Return what a column says of a claim without a cell there."""
        return "not pooled" if self.columns[column][1] == OVER_SETTINGS else "not run"

    def same_runs(self) -> list[tuple[int, int, list[int]]]:
        """Return the claims with an earlier one that has the same differences, seed by seed.

        Each with that one, and with the columns where it is so: in at least three seeds, for fewer
        may agree by chance. They compare runs of one training under two names.
        """
        found = []
        for row, cells in enumerate(self.cells):
            for before in range(row):
                alike = self.claims[row].metric == self.claims[before].metric
                columns = [
                    column
                    for column, cell in cells.items()
                    if column in self.cells[before]
                    and cell.differences == self.cells[before][column].differences
                    and len(cell.differences) >= FEWEST_SEEDS
                    and any(cell.differences)
                ]
                if alike and columns and len({*self.labels[row], *self.labels[before]}) == 3:
                    found.append((row, before, columns))
                    break
        return found

    def of_report(self, report: str) -> "Across":
        """Return the claims of one report, with the columns that have any of them."""
        rows = [i for i, name in enumerate(self.reports) if name == report]
        used = sorted({column for row in rows for column in self.cells[row]})
        return Across(
            columns=tuple(self.columns[column] for column in used),
            claims=tuple(self.claims[row] for row in rows),
            labels=tuple(self.labels[row] for row in rows),
            reports=tuple(self.reports[row] for row in rows),
            cells=tuple(
                {used.index(column): cell for column, cell in self.cells[row].items()}
                for row in rows
            ),
            paper=tuple(self.paper[row] for row in rows),
        )


def read(scales: Sequence[str]) -> Across:
    """Return the committed verdicts of some scales; UserError if one has none, or a damaged file.

    Claims that reports at two scales share are one row; the words are those of the first scale.
    """
    columns: list[tuple[str, str]] = []
    rows: dict[tuple[str, ...], tuple[Claim, tuple[str, str], str]] = {}
    cells: dict[tuple[str, ...], dict[int, Cell]] = {}
    for scale in scales:
        files = layout.verdict_files(scale)
        if not files:
            remedy = command("report STUDIES", scale)
            raise UserError(f"{layout.scale_folder(scale)}/: no verdicts; run {remedy}")
        for path in sorted(files, key=lambda path: path.name != layout.verdicts_name("REPORT")):
            report = path.name.removesuffix(layout.verdicts_name("REPORT")).strip("_").upper()
            for entry in read_json(path, list):
                measured, claim, outcome = _parse(entry, path)
                column = (scale, str(measured.get("dataset", "")))
                if column not in columns:
                    columns.append(column)
                labels = str(measured["left_label"]), str(measured["right_label"])
                rows.setdefault(_key(claim), (claim, labels, report or "REPORT"))
                numbers = measured["mean"], entry["corrected_low"], entry["corrected_high"]
                cell = _cell(numbers, outcome, len(measured["seeds"]))
                cell = replace(cell, differences=tuple(measured["differences"]))
                cells.setdefault(_key(claim), {})[columns.index(column)] = cell
        _add_settings(scale, columns, rows, cells)
    claims = tuple(claim for claim, _, _ in rows.values())
    return Across(
        columns=tuple(columns),
        claims=claims,
        labels=tuple(labels for _, labels, _ in rows.values()),
        reports=tuple(report for _, _, report in rows.values()),
        cells=tuple(cells[key] for key in rows),
        paper=tuple(paper.DIFFERENCES.get((c.left, c.right, c.metric)) for c in claims),
    )


def _add_settings(
    scale: str,
    columns: list[tuple[str, str]],
    rows: dict[tuple[str, ...], tuple[Claim, tuple[str, str], str]],
    cells: dict[tuple[str, ...], dict[int, Cell]],
) -> None:
    """Add a column with the pooled settings of a scale, if it has a robustness study."""
    for path in layout.carrying_files(scale):
        columns.append((scale, OVER_SETTINGS))
        for entry in read_json(path, list):
            try:
                claim, outcome = Claim(**entry["effects"]["claim"]), str(entry["outcome"])
                estimate = entry["estimate"]
                numbers = estimate["mean"], estimate["new_low"], estimate["new_high"]
                cell = _cell(numbers, outcome, int(estimate["k"]))
            except (KeyError, TypeError) as error:
                raise UserError(f"{path}: not how far claims carry: {error!r}") from None
            if _key(claim) in rows:
                cells[_key(claim)][len(columns) - 1] = cell


def _parse(entry: Any, path: Any) -> tuple[dict[str, Any], Claim, str]:
    try:
        measured = entry["measured"]
        for name in ("left_label", "right_label", "seeds", "differences", "mean"):
            measured[name]
        for name in ("corrected_low", "corrected_high"):
            entry[name]
        return measured, Claim(**measured["claim"]), str(entry["outcome"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: not the verdicts of a report: {error!r}") from None


def _cell(numbers: tuple[Any, Any, Any], outcome: str, n: int) -> Cell:
    mean, low, high = map(effects.number, numbers)
    return Cell(mean, low, high, outcome, n)


def _key(claim: Claim) -> tuple[str, ...]:
    return claim.left, claim.comparison, claim.right, claim.metric
