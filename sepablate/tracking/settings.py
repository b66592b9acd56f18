"""A robustness study in MLflow: its runs, with a tag for each factor to group them by."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sepablate.errors import UserError
from sepablate.store import layout
from sepablate.store.files import read_json
from sepablate.study import BASE, FOLDER, load_robustness, robustness_variants
from sepablate.tracking import summary, verdicts
from sepablate.tracking.experiment import Experiment
from sepablate.tracking.records import PLACE, Record, finished

FACTOR = "factor: "
NUMBERS = ("mean", "low", "high", "new_low", "new_high", "tau", "i_squared", "k")


@dataclass(frozen=True)
class SettingRecord(Record):
    """A run in a setting.

    Args:
        setting: its name.
        levels: of the factors, by their names.
    """

    setting: str
    levels: dict[str, str]

    @property
    def slot(self) -> tuple[str, str]:
        """Setting with variant, and seed."""
        return f"{self.setting}/{self.variant}", str(self.seed)

    @property
    def name(self) -> str:
        """The run's name."""
        return f"{self.variant} seed {self.seed}, {self.setting}"

    @cached_property
    def tags(self) -> dict[str, str]:
        """Those of a run, its setting, and a tag for each factor."""
        factors = {f"{FACTOR}{name}": level for name, level in self.levels.items()}
        return super().tags | factors | {"setting": self.setting, PLACE: self.slot[0]}


class SettingsExperiment(Experiment):
    """The MLflow experiment of a robustness study at a scale."""

    def publish_settings(self) -> int:
        """Log every finished run and how far the claims carry; return how many runs changed."""
        tags, metrics = _outcomes(layout.study_folder(self.scale, self.study) / layout.CARRYING)
        stored = list(_records(self.study, self.scale))
        metrics |= summary.cost(stored)
        self.archive_other_verdicts(tags, metrics)
        changed = self.log_all(stored)
        declared = load_robustness(self.study)
        title = f"{declared.title}. {declared.source}\n\n"
        view = summary.saved_view(stored, self.parent.info.start_time, ("setting", "variant"))
        return changed + self.describe(title, title, view, self._files(), tags, metrics)

    def _files(self) -> list[Path]:
        folder, report = layout.study_folder(self.scale, self.study), self.study.upper()
        base = layout.scale_folder(self.scale)
        paths = sorted(path for path in folder.glob("*") if not layout.is_backup(path))
        paths += [base / layout.report_text(report), base / layout.report_page(report)]
        return [path for path in [*paths, FOLDER / f"{self.study}.py"] if path.is_file()]


def _records(study: str, scale: str) -> Iterator[SettingRecord]:
    """Yield the finished runs of the claims' variants, in the scale itself and each setting."""
    declared, sides = load_robustness(study), robustness_variants(study)
    for setting in (None, *declared.settings):
        name = BASE if setting is None else setting.name
        derived = scale if setting is None else f"{scale}.{name}"
        for side in sides:
            for record in finished(derived, side):
                yield SettingRecord(**vars(record), setting=name, levels=declared.levels(setting))


def _outcomes(path: Path) -> tuple[dict[str, str], dict[str, float]]:
    """Return the outcome of each claim as tags, and the pooled numbers as metrics."""
    tags: dict[str, str] = {}
    metrics: dict[str, float] = {}
    for entry in read_json(path, list):
        try:
            claim: dict[str, Any] = entry["effects"]["claim"]
            sign = verdicts.COMPARISONS[claim["comparison"]]
            compared = f"{claim['left']} {sign} {claim['right']} in {claim['metric']}"
            tags[f"{verdicts.TAG}{compared}"] = str(entry["outcome"])
            prefix = f"pooled/{claim['left']}_vs_{claim['right']}"
            for name in NUMBERS:
                if entry["estimate"][name] is not None:
                    metrics[f"{prefix}/{name}"] = float(entry["estimate"][name])
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: not how far claims carry: {error!r}") from None
    return tags, metrics
