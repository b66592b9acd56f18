"""The manifest of a report (digests.json): the SHA-256 of every file of it and of its studies.

It lets a copy of the results be checked where the runs are not on disk.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sepablate.errors import UserError, command
from sepablate.store import layout
from sepablate.store.files import read_json, sha256, write_atomically

LAYERS, SETTINGS = "layers", "settings"


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest.

    Args:
        report: the report's name.
        studies: their names, in the order of the report.
        files: SHA-256 by path, relative to the manifest's folder.
        kind: "layers" for a report on layer studies, "settings" on a robustness study, and else
            empty: on comparisons.
    """

    report: str
    studies: list[str]
    files: dict[str, str]
    kind: str = ""

    def remedy(self, scale: str, study: str | None = None) -> str:
        """Return the command that writes the report again, or the files of one of its studies.

        Args:
            scale: the name of the scale.
            study: the study; None for the report.
        """
        if self.pools_settings:
            return command(f"robustness {self.studies[0]}", scale)
        if self.times_layers:
            return command(f"layers {' '.join(self.studies)}", scale)
        if study:
            return command(f"study {study}", scale)
        name = "" if self.report == layout.REPORT else f" --name {self.report}"
        return command(f"report {' '.join(self.studies)}{name}", scale)

    @property
    def times_layers(self) -> bool:
        """Whether the report is on layer studies, whose times no runs can give again."""
        return self.kind == LAYERS

    @property
    def pools_settings(self) -> bool:
        """Whether the report is on a robustness study."""
        return self.kind == SETTINGS


def write(
    scale: str, report: str, studies: Sequence[str], files: Sequence[str], kind: str = ""
) -> None:
    """Write the manifest of a report.

    Args:
        scale: the name of the scale.
        report: the report's name.
        studies: its studies, of whose folders all files are listed; in the order of the report.
        files: the names of the report's other files.
        kind: as in `Manifest`.
    """
    folder = layout.scale_folder(scale)
    paths = [folder / name for name in files]
    for study in studies:
        found = layout.study_folder(scale, study).glob("*")
        paths += (path for path in found if not layout.is_backup(path))
    digests = {path.relative_to(folder).as_posix(): sha256(path) for path in paths}
    content: dict[str, object] = {"report": report, "studies": [*studies]}
    content |= ({"kind": kind} if kind else {}) | {"files": dict(sorted(digests.items()))}
    write_atomically(folder / layout.manifest_name(report), json.dumps(content, indent=1) + "\n")


def read(path: Path) -> Manifest:
    """Return the content of a manifest; UserError if it is another file."""
    content = read_json(path, dict)
    try:
        manifest = Manifest(**content)
    except TypeError as error:
        raise UserError(f"{path}: not the manifest of a report: {error}") from None
    texts = [manifest.report, manifest.kind]
    if isinstance(manifest.studies, list) and isinstance(manifest.files, dict):
        texts += [*manifest.studies, *manifest.files.values()]
        if all(isinstance(text, str) for text in texts):
            return manifest
    raise UserError(f"{path}: not the manifest of a report: choose names and digests")
