"""Damage of MLflow's database and of the artifacts that it names.

Read by SQLite itself, without a change to it and without MLflow, which takes seconds to import.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse
from urllib.request import pathname2url

from sepablate.errors import UserError
from sepablate.provenance.finding import HINT, Finding
from sepablate.store import layout
from sepablate.store.files import is_regular

DATABASE = layout.MLFLOW_DATABASE
# The runs that carry a study's table and figures, whose digest is logged after them.
STUDIES = """
SELECT runs.artifact_uri, scale.value, study.value FROM runs
JOIN tags AS digest ON digest.run_uuid = runs.run_uuid AND digest.key = 'sepablate.digest'
JOIN tags AS scale ON scale.run_uuid = runs.run_uuid AND scale.key = 'scale'
JOIN tags AS study ON study.run_uuid = runs.run_uuid AND study.key = 'study'
WHERE runs.lifecycle_stage = 'active'
AND runs.run_uuid NOT IN (SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId')
"""
BUSY = ("locked", "readonly")  # another process writes, or was killed while it wrote


def tracking_damage(repair: bool) -> Iterator[Finding]:
    """Yield what is wrong with mlflow.db. It is a view of the files, and can be made again."""
    try:
        if not is_regular(DATABASE):
            return
    except UserError as error:
        yield Finding(str(error))
        return
    try:
        damage, missing = _examine()
    except sqlite3.OperationalError as error:
        if not any(word in str(error) for word in BUSY):
            yield Finding(f"{DATABASE}: {error}")
        return
    except sqlite3.DatabaseError as error:
        damage, missing = str(error), []
    done = f"{HINT} renames it, and `sepablate publish` makes a new one"
    if repair and (damage or missing):
        renamed = DATABASE.with_name(f"{DATABASE}.broken")
        DATABASE.replace(renamed)
        done = f", kept as {renamed}; `sepablate publish` makes a new one"
    if damage:
        yield Finding(f"{DATABASE}: damaged ({damage}){done}", repair)
    for folder in missing:
        yield Finding(f"{folder}: missing, but {DATABASE} refers to it{done}", repair)


def _examine() -> tuple[str, list[Path]]:
    """Return SQLite's complaint, or nothing, and the folders of artifacts that are gone."""
    address = f"file:{pathname2url(str(DATABASE.resolve()))}?mode=ro"
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=1)) as connection:
        (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            return " ".join(str(answer).split()), []
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if not {"runs", "tags"} <= tables:
            return "", []  # new, and still empty
        rows = connection.execute(STUDIES).fetchall()
    logged = [
        Path(unquote(urlparse(uri).path))
        for uri, scale, study in rows
        if uri.startswith("file:") and (layout.study_folder(scale, study) / layout.TABLE).exists()
    ]
    return "", sorted(folder for folder in logged if not folder.is_dir())
