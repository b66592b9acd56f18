"""made_by.json: the commit that made results of older code, which this code cannot recompute."""

from dataclasses import dataclass

from sepablate.errors import UserError
from sepablate.store import layout
from sepablate.store.files import read_json


@dataclass(frozen=True)
class MadeBy:
    """The commit that made a scale's results, a note on how, and of which reports; () for all."""

    commit: str
    note: str = ""
    reports: tuple[str, ...] = ()

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        results = f"The results of {', '.join(self.reports)}" if self.reports else "These results"
        return (
            f"{results} were made by commit {self.commit}{note}. The code has changed since, "
            "so that it cannot recompute their run keys."
        )


def read_made_by(scale: str) -> MadeBy | None:
    """Return which commit made the results of a scale; None if this code can recompute them.

    Raises UserError for a file with other entries than "commit", "note" and "reports".
    """
    path = layout.scale_folder(scale) / layout.MADE_BY
    if not path.is_file():
        return None
    entries = read_json(path, dict)
    reports = entries.pop("reports", [])
    if not {"commit"} <= entries.keys() <= {"commit", "note"} or not isinstance(reports, list):
        raise UserError(
            f'{path}: choose "commit", "note" and a list "reports" as entries, not {[*entries]}'
        )
    texts = {name: str(text) for name, text in entries.items()}
    return MadeBy(**texts, reports=tuple(map(str, reports)))


def whole_scale(scale: str) -> MadeBy | None:
    """Return which commit made all results of a scale; None if this code made any of them."""
    made_by = read_made_by(scale)
    return None if made_by is None or made_by.reports else made_by
