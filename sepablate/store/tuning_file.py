"""The one writer and reader of tuning.csv: the trials that a scale's recipe was chosen from."""

import csv
import io
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sepablate.errors import UserError
from sepablate.store.files import is_regular, read_text


class Candidate(NamedTuple):
    """The fields of a recipe and its scale that a search tries."""

    learning_rate: float
    decays: int
    batch_size: int
    shift: int
    flip: bool


class TuningRow(NamedTuple):
    """A line of tuning.csv, as its columns are: a finished trial.

    Its accuracy is that of averaged weights after the last step; 0 if it diverged.
    """

    learning_rate: float
    decays: int
    batch_size: int
    shift: int
    flip: bool
    seed: int
    steps: int
    validation_images: int
    validation_accuracy: float
    run_key: str

    @property
    def candidate(self) -> Candidate:
        """Return what it tries."""
        return Candidate(self.learning_rate, self.decays, self.batch_size, self.shift, self.flip)


@dataclass(frozen=True)
class Result:
    """A candidate with the accuracies of its trials, one for each seed."""

    candidate: Candidate
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Return the mean; 0 without trials."""
        return statistics.mean(self.accuracies or [0.0])

    @property
    def deviation(self) -> float:
        """Return the standard deviation over seeds; nan for fewer than two."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else float("nan")


def summarise(rows: Iterable[TuningRow], candidates: Iterable[Candidate] = ()) -> list[Result]:
    """Return the candidates, those without trials too, the best mean first."""
    accuracies: dict[Candidate, list[float]] = {candidate: [] for candidate in candidates}
    for row in rows:
        accuracies.setdefault(row.candidate, []).append(row.validation_accuracy)
    results = [Result(candidate, tuple(values)) for candidate, values in accuracies.items()]
    return sorted(results, key=lambda result: -result.mean)


def format_rows(rows: Iterable[TuningRow]) -> str:
    """Return the CSV text, all digits kept."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(TuningRow._fields)
    writer.writerows(rows)
    return text.getvalue()


def read_rows(path: Path) -> list[TuningRow]:
    """Return the rows; none if there is no file. Raises UserError for another file."""
    if not is_regular(path):
        return []
    try:
        header, *lines = list(csv.reader(read_text(path).splitlines())) or [[]]
        if tuple(header) != TuningRow._fields or not lines:
            raise ValueError(f"columns must be {','.join(TuningRow._fields)}, and rows follow")
        return [
            TuningRow(
                float(rate),
                int(decays),
                int(batch),
                int(shift),
                {"True": True, "False": False}[flip],
                int(seed),
                int(steps),
                int(images),
                float(accuracy),
                key,
            )
            for rate, decays, batch, shift, flip, seed, steps, images, accuracy, key in lines
        ]
    except (csv.Error, KeyError, ValueError) as error:
        raise UserError(f"{path}: not the trials of a search: {error}") from None
