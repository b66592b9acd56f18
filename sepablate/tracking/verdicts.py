"""The verdicts on a study's claims, as tags and metrics of its parent run."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sepablate.tracking.records import RESULTS

TAG = "verdict: "
# MLflow allows no such signs in the name of a tag.
COMPARED = {">": "above", "<": "below", "=": "equal to"}
OF_THE_CLAIM = ("low", "high", "p", "p_equivalence")
OF_THE_REPORT = ("p_adjusted", "p_equivalence_adjusted")


def files(study: str, scale: str) -> list[Path]:
    """The verdicts of the reports that have claims of `study`."""
    found = sorted((RESULTS / scale).glob("*verdicts.json"))
    return [path for path in found if any(_verdicts(path, study))]


def shown(study: str, scale: str) -> tuple[dict[str, str], dict[str, float]]:
    """Tags and metrics: the word on each claim of `study`, and the numbers behind it."""
    tags: dict[str, str] = {}
    metrics: dict[str, float] = {}
    for path in files(study, scale):
        for verdict in _verdicts(path, study):
            claim = verdict["measured"]["claim"]
            compared = f"{claim['left']} {COMPARED[claim['comparison']]} {claim['right']}"
            tags[f"{TAG}{compared} in {claim['metric']}"] = verdict["outcome"]
            metrics |= _numbers(verdict)
    return tags, metrics


def _verdicts(path: Path, study: str) -> Iterator[dict[str, Any]]:
    yield from (each for each in json.loads(path.read_text()) if each["measured"]["study"] == study)


def _numbers(verdict: dict[str, Any]) -> dict[str, float]:
    """The numbers behind a verdict; those that the runs cannot give are left out."""
    measured, claim = verdict["measured"], verdict["measured"]["claim"]
    numbers = {"difference": measured["mean"], "n": len(measured["seeds"])}
    numbers |= {name: measured[name] for name in OF_THE_CLAIM}
    numbers |= {name: verdict[name] for name in OF_THE_REPORT}
    prefix = f"verdict/{claim['left']}_vs_{claim['right']}/{claim['metric']}"
    return {f"{prefix}/{name}": float(n) for name, n in numbers.items() if n is not None}
