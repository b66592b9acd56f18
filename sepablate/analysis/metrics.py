"""How the networks of a task are scored: in the rows of a run, in tables and in words."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """The score of a task, a fraction.

    name: in the rows of a run, the columns of a table and a study's claims; label: in a heading.
    images: the ending of the file with the score of each test image.
    """

    name: str
    label: str
    images: str

    @property
    def final(self) -> str:
        """On the test images, of the averaged weights."""
        return f"final/test_{self.name}_averaged"

    @property
    def raw_final(self) -> str:
        """On the test images, of the raw weights."""
        return f"final/test_{self.name}"

    @property
    def curve(self) -> str:
        """On the validation images, of the raw weights."""
        return f"validation/{self.name}"


TASK_METRICS = {
    "single_label": Metric("accuracy", "accuracy", "correct.bin"),
    "multi_label": Metric("map_100", "MAP@100", "precision.bin"),
}


def metric_of_columns(columns: Iterable[str]) -> Metric:
    """The measure of a table that has these columns."""
    found = set(columns)
    return next(each for each in TASK_METRICS.values() if each.name in found)
