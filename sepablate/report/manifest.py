"""digests.json: the SHA-256 of every file of a report and of its studies.

It lets a copy of the committed results be checked where the runs behind them are not on disk.
"""

import hashlib
import json
from pathlib import Path

from sepablate.store.files import write_atomically


def write(path: Path, report: str, studies: list[str], own: list[str]) -> None:
    """List the files `own` of a report, and all of its studies' folders, which lie beside `path`.

    studies: in the order of the report.
    """
    folder = path.parent
    listed = [folder / name for name in own]
    listed += [file for name in studies for file in (folder / name).glob("[!.]*")]
    files = {file.relative_to(folder).as_posix(): sha256(file) for file in listed}
    content = {"report": report, "studies": studies, "files": dict(sorted(files.items()))}
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def sha256(path: Path) -> str:
    """The digest of a file: 64 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
