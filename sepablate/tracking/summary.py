"""A study in MLflow: the numbers and the words on its parent run, a saved view of its runs."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from sepablate.store import layout, run_files
from sepablate.store.files import read_text
from sepablate.study import FOLDER, TASK_SCORES, Study
from sepablate.tracking import verdicts
from sepablate.tracking.records import COMMIT, SOURCE, SOURCE_TYPE, Record

VIEW = "final"  # the key of the saved view, in its link
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
VIEW_NAME = "Final results by variant"
ESTIMATE = ("", "_low", "_high")  # ends of a table's columns: the mean and its interval


def files(study: str, scale: str) -> list[Path]:
    """Return the files that the parent run of a study carries, of those that there are."""
    folder = layout.study_folder(scale, study)
    paths = [folder / layout.TABLE_MARKDOWN, folder / layout.TABLE]
    paths += [
        *layout.figures(folder),
        folder / layout.CLAIMS,
        *verdicts.verdict_files(study, scale),
    ]
    paths += [*verdicts.pages(study, scale), FOLDER / f"{study}.py"]
    return [path for path in paths if path.is_file()]


def variant_metrics(study: str, scale: str) -> dict[str, float]:
    """Return mean and 95 % interval of each variant's final score: accuracy/<variant>, ..."""
    path = layout.study_folder(scale, study) / layout.TABLE
    if not path.is_file():
        return {}
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
    columns = [f"{score}{end}" for score in TASK_SCORES.values() for end in ESTIMATE]
    return {
        f"{column}/{row['variant']}": float(row[column])
        for row in rows
        for column in columns
        if row.get(column)
    }


def cost(records: Iterable[Record]) -> dict[str, float]:
    """Return the time of all runs together, as a system metric; nothing if none was measured."""
    seconds = [each.measured["seconds"] for each in records if "seconds" in each.measured]
    return {"system/seconds": float(sum(seconds))} if seconds else {}


def source(study: str, scale: str, records: Iterable[Record]) -> dict[str, str]:
    """Return the tags on the command that makes a study, and on the commit that its runs share."""
    tags = {SOURCE: f"sepablate study {study} --scale {scale}", SOURCE_TYPE: "LOCAL"}
    commits = {str(each.measured.get("commit", "")) for each in records}
    return tags | ({COMMIT: commits.pop()} if len(commits) == 1 and commits != {""} else {})


def description(study: str, scale: str, declared: Study, artifacts: str) -> str:
    """Return the text on a study: its title, the verdicts in full, its table, links to files.

    Args:
        study: its name.
        scale: the name of the scale.
        declared: the study.
        artifacts: address of the parent run's files in MLflow.
    """
    table = layout.study_folder(scale, study) / layout.TABLE_MARKDOWN
    linked = [*verdicts.pages(study, scale), FOLDER / f"{study}.py"]
    links = ", ".join(f"[{path.name}]({artifacts}/{path.name})" for path in linked)
    parts = [
        f"{declared.title}. {declared.source}\n",
        "".join(f"- {sentence}\n" for sentence in verdicts.sentences(study, scale)),
        table.read_text() if table.exists() else "",
        f"Files: {links}\n",
    ]
    return "\n".join(filter(None, parts))


def saved_view(
    records: Iterable[Record], created: int, groups: Sequence[str] = ("variant",)
) -> str:
    """Return a view of an experiment, as MLflow saves those that users make.

    Its runs in groups with the mean of their final scores, the best first.

    Args:
        records: of the experiment's runs.
        created: Unix time in ms.
        groups: the tags to group by.
    """
    finals = {metric for each in records for metric, _ in each.points if run_files.is_final(metric)}
    # Of averaged weights first; and before a detector's further numbers, whose names are longer.
    scores = sorted(
        finals - {run_files.DIVERGED},
        key=lambda name: (not name.endswith("_averaged"), len(name), name),
    )
    columns = [f"metrics.`{metric}`" for metric in scores]
    state = {
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "tag", "groupByData": group} for group in groups],
        },
        "selectedColumns": [
            *columns,
            "metrics.`system/seconds`",
            "params.`parameters`",
            "attributes.`Version`",
        ],
        "searchFilter": "tags.variant != ''",
        "orderByAsc": False,
    } | ({"orderByKey": columns[0]} if columns else {})
    saved = {"name": VIEW_NAME, "createdAt": created, "updatedAt": created}
    return json.dumps(saved | {"state": json.dumps(state)})
