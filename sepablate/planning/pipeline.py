"""The pipeline's stages, and which of them DVC would run."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from sepablate import scales, study
from sepablate.errors import UserError
from sepablate.store import layout

RUNS, UNCHANGED = "runs", "unchanged"


@dataclass(frozen=True)
class Stage:
    """A stage of a pipeline.

    Args:
        name: as DVC addresses it, with the path of its file unless that is the project's dvc.yaml.
        state: RUNS or UNCHANGED.
    """

    name: str
    state: str

    @property
    def pipeline(self) -> str:
        """The path of its file as DVC writes it; empty for the project's dvc.yaml."""
        return self.name.rpartition(":")[0]

    @property
    def short_name(self) -> str:
        """The name without the path of its file."""
        return self.name.rpartition(":")[2]

    @property
    def variant(self) -> str | None:
        """The variant that the stage trains, if it trains one."""
        _, trains, variant = self.short_name.partition("train@")
        return variant if trains else None

    @property
    def settings(self) -> str | None:
        """The robustness study whose settings the stage trains, if it does."""
        _, trains, name = self.short_name.partition("train_")
        return name if trains else None

    @property
    def compared_variants(self) -> set[str | None]:
        """The variants whose runs the stage compares, if it is that of a study.

        Of a robustness study, its settings count as one.
        """
        if self.short_name in study.robustness_names():
            return {self.short_name, *study.robustness_variants(self.short_name)}
        if not self.compares:
            return set()
        return {variant.name for variant in study.load(self.short_name).all_variants}

    @property
    def compares(self) -> bool:
        """Whether it is the stage of a study."""
        return self.short_name in study.names()

    @property
    def reports(self) -> bool:
        """Whether it decides the verdicts of its pipeline's studies."""
        return self.short_name == "report"

    def layer_timing_seconds(self, scale: str) -> float:
        """Return the most that it spends on timing layers, unless their times are stored."""
        if self.short_name not in study.layer_names():
            return 0.0
        return study.load_layers(self.short_name).at(scale).seconds


def paper_variants() -> list[str]:
    """Return the variants of the paper's studies, in an order that ends whole studies first."""
    stages = [Stage(name, RUNS) for name in _stage_names(layout.PAPER_PIPELINE)]
    return [stage.variant for stage in stages if stage.variant]


def report_name(studies: Sequence[str]) -> str:
    """Return the name of a report on some studies, if none is given.

    A single study that is no stage of the paper's pipeline has a report by its own name, which
    replaces no other.
    """
    file = layout.PAPER_PIPELINE
    of_paper = set(_stage_names(file)) if Path(file).exists() else set()
    return layout.REPORT if len(studies) > 1 or studies[0] in of_paper else studies[0].upper()


def stage_names() -> set[str]:
    """Return the names of the stages of both pipelines, without the paths of their files."""
    files = [file for file in layout.PIPELINES if Path(file).exists()]
    return {Stage(name, RUNS).short_name for file in files for name in _stage_names(file)}


def query_dvc(scale: str, everything: bool) -> list[Stage]:
    """Return the stages of the paper's pipeline, or of all, with those that DVC would run.

    A stage that DVC reports as changed runs; it takes runs that are finished from .sepablate/. DVC
    records one scale: at another than the selected one, every stage runs.

    Raises UserError if DVC is not installed or cannot read the project.
    """
    files = layout.PIPELINES if everything else (layout.PAPER_PIPELINE,)
    changed = _changed(files)
    names = [name for file in files for name in _stage_names(file)]
    if scale != scales.current():
        changed = set(names)
    return [Stage(name, RUNS if name in changed else UNCHANGED) for name in names]


def of_study(name: str) -> list[Stage]:
    """Return what the commands of a study do, as stages: it need not be in a pipeline."""
    variants = [f"train@{variant.name}" for variant in study.load(name).all_variants]
    return [Stage(each, RUNS) for each in (*variants, name, "report")]


def anything_to_do(stages: list[Stage]) -> bool:
    """Return whether DVC would run a stage."""
    return any(stage.state == RUNS for stage in stages)


def _changed(files: Sequence[str]) -> set[str]:
    """Return the stages that `dvc status` reports as changed."""
    if importlib.util.find_spec("dvc") is None:
        raise UserError("dvc is not installed in this environment: run `make env`")
    command = [sys.executable, "-m", "dvc", "status", "--json", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = errors[0].removeprefix("ERROR: ") if errors else " ".join(done.stderr.split())
        raise UserError(f"`dvc status` failed: {reason[:200]}")
    return set(json.loads(done.stdout))


def _stage_names(file: str) -> Iterator[str]:
    """Yield the names of a file's stages, in its order, each variant of a `foreach` by itself."""
    prefix = "" if file == layout.PAPER_PIPELINE else f"{file}:"
    for name, stage in yaml.safe_load(Path(file).read_text())["stages"].items():
        variants = stage.get("foreach")
        if variants is None:
            yield prefix + name
        else:
            yield from (f"{prefix}{name}@{variant}" for variant in variants)
