"""made_by.json: the commit that made results of older code, which this code cannot recompute."""

from dataclasses import dataclass

from sepablate.errors import UserError
from sepablate.store import layout
from sepablate.store.files import read_json


@dataclass(frozen=True)
class MadeBy:
    """The commit that made a scale's results, and a note on how."""

    commit: str
    note: str = ""

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return (
            f"These results were made by commit {self.commit}{note}. The code has changed since, "
            "so that it cannot recompute their run keys."
        )


def read_made_by(scale: str) -> MadeBy | None:
    """Return which commit made the results of a scale; None if this code can recompute them.

    Raises UserError for a file with other entries than "commit" and "note".
    """
    path = layout.scale_folder(scale) / layout.MADE_BY
    if not path.is_file():
        return None
    entries = read_json(path, dict)
    if not {"commit"} <= entries.keys() <= {"commit", "note"}:
        raise UserError(f'{path}: choose the entries "commit" and "note", not {[*entries]}')
    return MadeBy(**{name: str(text) for name, text in entries.items()})
