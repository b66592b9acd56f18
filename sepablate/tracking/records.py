"""The record of each run, finished or in training, read from the files."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sepablate.store import collected_runs, layout, run_files
from sepablate.store.files import read_json
from sepablate.store.run_files import Row

# May change where the run key does not.
NOT_PARAMETERS = ("label", "run_key", "run_keys", "seeds", layout.CONSTANT_SCORES)
# The columns "Source" and "Version" of MLflow's tables.
PLACE = "sepablate.place"  # of a run in a setting: what stands for its variant
SOURCE, SOURCE_TYPE, COMMIT = "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit"
MEASURED = ("seconds", "images_per_second", "peak_memory_mib")


@dataclass(frozen=True)
class Record:
    """One run.

    Args:
        key: the run key.
        seed: of the run.
        config: resolved, flat.
        rows: step, metric, value.
        measured: times and hardware.
    """

    key: str
    seed: int
    config: dict[str, Any]
    rows: list[Row]
    measured: dict[str, Any]

    @property
    def variant(self) -> str:
        """The name in its study."""
        return str(self.config["variant"])

    @property
    def slot(self) -> tuple[str, str]:
        """Variant and seed: a study has one run of each."""
        return self.variant, str(self.seed)

    @property
    def name(self) -> str:
        """The run's name."""
        return f"{self.variant} seed {self.seed}"

    @cached_property
    def status(self) -> str:
        """RUNNING, FINISHED, or FAILED if the run diverged."""
        final = {metric for _, metric, _ in self.rows if run_files.is_final(metric)}
        if not final:
            return "RUNNING"
        return "FAILED" if run_files.DIVERGED in final else "FINISHED"

    @cached_property
    def points(self) -> dict[tuple[str, int], float]:
        """(metric, step) -> value: the curve, and after it the final metrics and the cost.

        The last two are one number per run, which MLflow draws as bars if logged at step 0. The
        cost is a system metric, for which MLflow has a tab.
        """
        points = {
            (metric, 0 if run_files.is_final(metric) else step): value
            for step, metric, value in self.rows
        }
        if self.status != "RUNNING":
            cost = {name: self.measured[name] for name in MEASURED if name in self.measured}
            points |= {(f"system/{name}", 0): float(value) for name, value in cost.items()}
        return points

    def time(self, step: int) -> int:
        """Return the Unix time in ms of the last evaluation up to `step`, or else 1 s a step."""
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
        """Tags to group and filter by."""
        tags = {key: str(self.config.get(key)) for key in ("variant", "label", "scale")}
        tags |= {"seed": str(self.seed), "data_digest": str(self.config.get("data_digest"))}
        tags[SOURCE] = f"sepablate train {self.variant} --scale {tags['scale']}"
        tags[SOURCE_TYPE] = "LOCAL"
        if "commit" in self.measured:
            tags |= dict.fromkeys(("commit", COMMIT), str(self.measured["commit"]))
        if "hardware" in self.measured:
            hardware = self.measured["hardware"]
            tags["hardware"] = ", ".join(f"{key} {value}" for key, value in hardware.items())
        if self.status == "FAILED":
            tags["diverged"] = "true"
        return tags

    @cached_property
    def digest(self) -> str:
        """A hash of everything above."""
        content = (self.key, self.parameters, self.tags, sorted(self.points.items()), self.measured)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def finished(scale: str, variant: str) -> Iterator[Record]:
    """Yield the collected runs of a variant, by seed; none if it was not trained."""
    for seed in collected_runs.collected_seeds(scale, variant):
        config = read_json(collected_runs.variant_config(scale, variant), dict)
        rows = run_files.read_rows(collected_runs.seed_rows(scale, variant, seed))
        measured = _read(collected_runs.seed_measurements(scale, variant, seed))
        yield Record(config["run_keys"][seed], int(seed), config, rows, measured)


def training(run_key: str) -> Record | None:
    """Return the run that trains, or has trained, under that key; None before it starts.

    The curve is read before its times, because the trainer writes the times first.
    """
    folder = layout.run_folder(run_key)
    config = _read(folder / layout.RUN_CONFIG)
    if not config:
        return None
    rows = run_files.read_rows(folder / layout.RESULT) or run_files.read_rows(folder / layout.CURVE)
    return Record(run_key, int(config["seed"]), config, rows, _read(folder / layout.MEASURED))


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, dict) if path.exists() else {}
