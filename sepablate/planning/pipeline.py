"""Which stages DVC would run: asked of DVC itself, and read from what it prints."""

import importlib.util
import re
import subprocess
import sys
from dataclasses import dataclass

from sepablate import scales, study
from sepablate.errors import UserError

RUNS, CACHED, UNCHANGED = "runs", "cached", "unchanged"
PRINTED = {
    r"Running stage '(.+)':": RUNS,
    r"Stage '(.+)' is cached - skipping run": CACHED,
    r"Stage '(.+)' didn't change, skipping": UNCHANGED,
}


@dataclass(frozen=True)
class Stage:
    """A stage as DVC addresses it; state: RUNS, CACHED (restored, not run) or UNCHANGED."""

    name: str
    state: str

    @property
    def pipeline(self) -> str:
        """The folder of its dvc.yaml as DVC writes it; none for the project's own."""
        return self.name.rpartition(":")[0]

    @property
    def variant(self) -> str | None:
        """The variant that the stage trains, if it trains one."""
        _, trains, variant = self._short.partition("train@")
        return variant if trains else None

    @property
    def reads(self) -> set[str | None]:
        """The variants whose runs the stage compares, if it is that of a study."""
        if self._short not in study.names():
            return set()
        return {variant.name for variant in study.load(self._short).all_variants}

    @property
    def compares(self) -> bool:
        """Whether it is the stage of a study."""
        return self._short in study.names()

    def measuring(self, scale: str) -> float:
        """The seconds that it may spend on timing layers, unless it has kept the times."""
        declared = study.load(self._short) if self.compares else None
        return declared.at(scale).seconds if isinstance(declared, study.LayerStudy) else 0.0

    @property
    def reports(self) -> bool:
        """Whether it decides the verdicts of its pipeline's studies."""
        return self._short == "report"

    @property
    def _short(self) -> str:
        return self.name.rpartition(":")[2]


def query_dvc(scale: str, everything: bool) -> list[Stage]:
    """The stages of the paper's pipeline, or of all, in the order in which DVC comes to them.

    DVC remembers one scale: at another than the selected one, every stage runs.

    Raises UserError if DVC is not installed or cannot read the project.
    """
    options = ["--all-pipelines"] * everything
    if scale != scales.current():
        return parse(_dry("--force", *options).stdout)
    done = _dry("--keep-going", *options)
    found = parse(done.stdout)
    if not done.returncode:
        return found
    # DVC cannot look at a stage that reads what another one has yet to write.
    known = {stage.name: stage for stage in found}
    return [known.get(stage.name, stage) for stage in parse(_dry("--force", *options).stdout)]


def _dry(*options: str) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec("dvc") is None:
        raise UserError("dvc is not installed beside sepablate: run `make env`")
    command = [sys.executable, "-m", "dvc", "repro", "--dry", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "--keep-going" not in options:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = errors[0] if errors else done.stderr.strip()[-200:]
        raise UserError(f"`dvc repro --dry` failed: {reason.removeprefix('ERROR: ')}")
    return done


def anything_to_do(stages: list[Stage]) -> bool:
    """Whether DVC would run a stage, or bring one back from its cache."""
    return any(stage.state != UNCHANGED for stage in stages)


def parse(printed: str) -> list[Stage]:
    """The stages that `dvc repro --dry` names; of a cached one it says that it runs as well."""
    found: dict[str, str] = {}
    for line in printed.splitlines():
        for pattern, state in PRINTED.items():
            match = re.match(pattern, line)
            if match:
                found.setdefault(match[1], state)
    return [Stage(name, state) for name, state in found.items()]
