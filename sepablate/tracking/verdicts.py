"""The verdicts on a study's claims, as tags and metrics of its parent run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sepablate.errors import UserError
from sepablate.store import layout
from sepablate.store.files import read_json

TAG = "verdict: "
# MLflow allows no such signs in the name of a tag.
COMPARISONS = {">": "above", "<": "below", "=": "equal to"}
MEASURED_NUMBERS = ("low", "high", "p", "p_equivalence")
ADJUSTED_NUMBERS = ("p_adjusted", "p_equivalence_adjusted")


def verdict_files(study: str, scale: str) -> list[Path]:
    """Return the verdicts of the reports that have claims of `study`."""
    return [path for path in layout.verdict_files(scale) if any(_verdicts(path, study))]


def pages(study: str, scale: str) -> list[Path]:
    """Return the HTML pages of the reports that have claims of `study`."""
    names = [path.name.removesuffix("verdicts.json") for path in verdict_files(study, scale)]
    reports = [prefix.rstrip("_") or layout.REPORT for prefix in names]
    paths = [layout.scale_folder(scale) / layout.report_page(report) for report in reports]
    return [path for path in paths if path.is_file()]


def sentences(study: str, scale: str) -> list[str]:
    """Return the result of each claim of `study` in full, as its reports have it."""
    found = [each for path in verdict_files(study, scale) for each in _verdicts(path, study)]
    return [str(verdict["sentence"]) for verdict in found if "sentence" in verdict]


def tags_and_metrics(study: str, scale: str) -> tuple[dict[str, str], dict[str, float]]:
    """Return the outcome of each claim of `study` as tags, and its numbers as metrics.

    Raises UserError if a file with verdicts cannot be parsed.
    """
    tags: dict[str, str] = {}
    metrics: dict[str, float] = {}
    for path in verdict_files(study, scale):
        for verdict in _verdicts(path, study):
            try:
                claim = verdict["measured"]["claim"]
                compared = f"{claim['left']} {COMPARISONS[claim['comparison']]} {claim['right']}"
                tags[f"{TAG}{compared} in {claim['metric']}"] = verdict["outcome"]
                metrics |= _numbers(verdict)
            except (KeyError, TypeError) as error:
                raise _invalid(path, error) from None
    return tags, metrics


def _verdicts(path: Path, study: str) -> Iterator[dict[str, Any]]:
    for verdict in read_json(path, list):
        try:
            if verdict["measured"]["study"] == study:
                yield verdict
        except (KeyError, TypeError) as error:
            raise _invalid(path, error) from None


def _invalid(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: not the verdicts of a report: {error!r}")


def _numbers(verdict: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a verdict; those that the runs cannot give are left out."""
    measured, claim = verdict["measured"], verdict["measured"]["claim"]
    numbers = {"difference": measured["mean"], "n": len(measured["seeds"])}
    numbers |= {name: measured[name] for name in MEASURED_NUMBERS}
    numbers |= {name: verdict[name] for name in ADJUSTED_NUMBERS}
    prefix = f"verdict/{claim['left']}_vs_{claim['right']}/{claim['metric']}"
    return {f"{prefix}/{name}": float(n) for name, n in numbers.items() if n is not None}
