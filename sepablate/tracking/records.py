"""What the files say of each run, finished or still training: read by whatever shows runs."""

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

RESULTS = Path("results")
TRAINING = Path(".sepablate/runs")
NOT_PARAMETERS = ("label", "run_key", "run_keys", "seeds")  # may change where the run key does not
MEASURED = ("seconds", "images_per_second", "peak_memory_mib")


@dataclass(frozen=True)
class Record:
    """One run. config: resolved, flat; rows: step, metric, value; measured: times and machine."""

    key: str
    seed: int
    config: dict[str, Any]
    rows: list[tuple[int, str, float]]
    measured: dict[str, Any]

    @property
    def variant(self) -> str:
        """The name in its study."""
        return str(self.config["variant"])

    @property
    def place(self) -> tuple[str, str]:
        """Variant and seed: a study has one run of each."""
        return self.variant, str(self.seed)

    @cached_property
    def status(self) -> str:
        """RUNNING, FINISHED, or FAILED if the run diverged."""
        final = {metric for _, metric, _ in self.rows if metric.startswith("final/")}
        if not final:
            return "RUNNING"
        return "FAILED" if "final/diverged_at_step" in final else "FINISHED"

    @cached_property
    def points(self) -> dict[tuple[str, int], float]:
        """(metric, step) -> value: the curve, and at the end the final metrics and the cost.

        These two are one number a run, of which MLflow draws bars if they come at step 0.
        """
        points = {
            (metric, 0 if metric.startswith("final/") else step): value
            for step, metric, value in self.rows
        }
        if self.status != "RUNNING":
            cost = {name: self.measured[name] for name in MEASURED if name in self.measured}
            points |= {(f"measured/{name}", 0): float(value) for name, value in cost.items()}
        return points

    def time(self, step: int) -> int:
        """Unix time in milliseconds of the last evaluation up to `step`; unmeasured, 1 s a step."""
        step = step or self.rows[-1][0]
        times = [time for at, time in self.measured.get("evaluations", []) if at <= step]
        return int(max(times, default=self.measured.get("started", 1000 * step)))

    @property
    def started(self) -> int | None:
        """Unix time in milliseconds, None if unmeasured."""
        return self.measured.get("started")

    @property
    def ended(self) -> int | None:
        """Unix time in milliseconds, None if unmeasured."""
        if self.started is None or "seconds" not in self.measured:
            return None
        return int(self.started + 1000 * self.measured["seconds"])

    @cached_property
    def parameters(self) -> dict[str, str]:
        """The resolved config and the seed; fixed by the run key."""
        config = {key: str(value) for key, value in self.config.items()}
        config = {key: value for key, value in config.items() if key not in NOT_PARAMETERS}
        return config | {"seed": str(self.seed)}

    @cached_property
    def tags(self) -> dict[str, str]:
        """What to group and filter by."""
        tags = {key: str(self.config.get(key)) for key in ("variant", "label", "scale")}
        tags |= {"seed": str(self.seed), "data_digest": str(self.config.get("data_digest"))}
        if "commit" in self.measured:
            tags["commit"] = str(self.measured["commit"])
        if "hardware" in self.measured:
            machine = self.measured["hardware"]
            tags["hardware"] = ", ".join(f"{key} {value}" for key, value in machine.items())
        if self.status == "FAILED":
            tags["diverged"] = "true"
        return tags

    @cached_property
    def digest(self) -> str:
        """A hash of everything above."""
        content = (self.key, self.parameters, self.tags, sorted(self.points.items()), self.measured)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def finished(scale: str, variant: str) -> Iterator[Record]:
    """The runs of that variant in results/<scale>/, by seed; none if it was not trained."""
    folder = RESULTS / scale / "runs" / variant
    for path in sorted(folder.glob("seed-*.csv")):
        config = json.loads((folder / "config.json").read_text())
        seed = path.stem.removeprefix("seed-")
        measured = _json(RESULTS / scale / "measured" / variant / f"seed-{seed}.json")
        yield Record(config["run_keys"][seed], int(seed), config, _rows(path), measured)


def training(run_key: str) -> Record | None:
    """The run that trains, or has trained, under that key; None before it starts.

    The curve is read before its times: the trainer writes the times first.
    """
    folder = TRAINING / run_key
    config = _json(folder / "run.json")
    if not config:
        return None
    rows = _rows(folder / "result.csv") or _rows(folder / "curve.csv")
    return Record(run_key, int(config["seed"]), config, rows, _json(folder / "measured.json"))


def _rows(path: Path) -> list[tuple[int, str, float]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            (int(row["step"]), row["metric"], float(row["value"])) for row in csv.DictReader(file)
        ]


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}
