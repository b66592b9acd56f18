"""The metrics by which the networks of a task are scored: in run files, in tables and in prose."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sepablate.store.run_files import final_metric, validation_metric
from sepablate.study import TASK_SCORES


@dataclass(frozen=True)
class Metric:
    """The score of a task, a fraction.

    Args:
        task: "single_label", "multi_label" or "detection".
        name: in the rows of a run, the columns of a table and a study's claims.
        label: in a heading.
    """

    task: str
    name: str
    label: str

    @property
    def resampled(self) -> bool:
        """Whether it is no mean over images, so that its spread is known from resampled ones."""
        return self.task == "detection"

    @property
    def final(self) -> str:
        """The score on the test images, of the averaged weights."""
        return final_metric(self.name, averaged=True)

    @property
    def raw_final(self) -> str:
        """The score on the test images, of the raw weights."""
        return final_metric(self.name)

    @property
    def curve(self) -> str:
        """The score on the validation images, of the raw weights."""
        return validation_metric(self.name)

    @property
    def details(self) -> Mapping[str, str]:
        """Further numbers on the test images, of the averaged weights, with their heads."""
        return DETAILS if self.resampled else {}

    @property
    def validation_column(self) -> str:
        """The column of a training profile with the mean score."""
        return f"validation_{self.name}"


# Further numbers of COCO's metric: the column of a table, the head that it is printed under.
DETAILS = {
    "map_50": "AP50 (%)",
    "map_75": "AP75 (%)",
    "map_small": "Small (%)",
    "map_medium": "Medium (%)",
    "map_large": "Large (%)",
}
LABELS = {"single_label": "accuracy", "multi_label": "MAP@100", "detection": "mAP"}
TASK_METRICS = {task: Metric(task, name, LABELS[task]) for task, name in TASK_SCORES.items()}


def metric_of_columns(columns: Iterable[object]) -> Metric:
    """Return the metric of a table that has these columns."""
    names = set(columns)
    return next(metric for metric in TASK_METRICS.values() if metric.name in names)
