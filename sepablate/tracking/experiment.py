"""One MLflow experiment per study and scale, brought up to the files."""

import hashlib
import json

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from sepablate.errors import UserError
from sepablate.study import AnyStudy, load
from sepablate.tracking import verdicts
from sepablate.tracking.connection import (
    address,
    artifact_location,
    connect,
    give_up,
    one_line,
    reached,
)
from sepablate.tracking.records import RESULTS, Record, finished

SHOWN = ("table.md", "table.csv", "figure.png", "figure.svg", "claims.json")
KEY, DIGEST, PARENT = "sepablate.run_key", "sepablate.digest", "mlflow.parentRunId"
NOTE = "mlflow.note.content"
BATCH = 1000  # metrics that MLflow takes at once


def publish(scale: str, studies: list[str]) -> int:
    """Bring MLflow up to the files of these studies; how many runs that changed.

    Raises UserError for an unknown study or scale, OSError if MLflow cannot be written.
    """
    if not (RESULTS / scale / "runs").is_dir():
        raise UserError(f"scale {scale!r}: no folder {RESULTS / scale / 'runs'}/")
    declared = {name: load(name) for name in studies}
    try:
        client = connect()
        changed = sum(
            Experiment(client, name, scale).publish(study) for name, study in declared.items()
        )
        reached()
        return changed
    except (MlflowException, SQLAlchemyError) as error:
        give_up()
        raise OSError(f"MLflow at {address()}: {one_line(error)}") from error


class Experiment:
    """One study at one scale. runs: by variant and seed; parent: carries what the study found."""

    def __init__(self, client: MlflowClient, study: str, scale: str) -> None:
        self.client, self.study, self.scale = client, study, scale
        self.id = self._open(f"{study} · {scale}")
        self.tags = {"study": study, "scale": scale, "mlflow.user": "sepablate"}
        self.runs: dict[tuple[str | None, str | None], Run] = {}
        for run in client.search_runs([self.id], max_results=50_000, order_by=["start_time ASC"]):
            place = run.data.tags.get("variant"), run.data.tags.get("seed")
            if KEY in run.data.tags and self.runs.setdefault(place, run) is not run:
                client.delete_run(run.info.run_id)
        if (None, None) not in self.runs:
            self.runs[None, None] = self._create_parent()
        self.parent = self.runs.pop((None, None))

    def _open(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            tags = {"mlflow.experimentKind": "custom_model_development"}
            location = artifact_location(self.study, self.scale)
            return self.client.create_experiment(name, location, tags)
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return found.experiment_id

    def _create_parent(self) -> Run:
        """A run that holds the others: nothing will ever end it, so it begins ended."""
        tags = self.tags | {KEY: self.study}
        parent = self.client.create_run(self.id, tags=tags, run_name=self.study)
        self.client.set_terminated(parent.info.run_id)
        return parent

    def publish(self, study: AnyStudy) -> int:
        """Log every finished run, archive those that left the files; how many changed."""
        found = verdicts.shown(self.study, self.scale)
        self._archive_other_verdicts(*found)
        stored = [run for each in study.all_variants for run in finished(self.scale, each.name)]
        gone = self.runs.keys() - {record.place for record in stored}
        # A run that trains, or was interrupted, is not among the results.
        gone = {at for at in gone if self.runs[at].info.status in ("FINISHED", "FAILED")}
        for place in gone:
            self.client.delete_run(self.runs.pop(place).info.run_id)
        changed = sum([self.log(record) for record in stored])
        self._describe(study, *found)
        return len(gone) + changed

    def log(self, record: Record) -> bool:
        """Add what the record's run lacks; False if nothing. A run that differs is archived."""
        tags = record.tags | self.tags | {PARENT: self.parent.info.run_id, KEY: record.key}
        tags[DIGEST] = record.digest
        run = self.runs.get(record.place)
        if run and run.info.status == record.status and tags.items() <= run.data.tags.items():
            return False
        logged = self._points(run) if run else {}
        if run and not self._agrees(run, logged, record):
            self.client.delete_run(run.info.run_id)
            run, logged = None, {}
        if run is None:
            name = f"{record.variant} seed {record.seed}"
            begun = {key: value for key, value in tags.items() if key != DIGEST}
            run = self.client.create_run(self.id, record.started, begun, name)
        new = [point for point in record.points if point not in logged]
        self._write(run.info.run_id, record, new, tags)
        self.runs[record.place] = self.client.get_run(run.info.run_id)
        return True

    def stop(self, record: Record, status: str) -> None:
        """Mark a run that ended without a result."""
        self.client.set_terminated(self.runs[record.place].info.run_id, status)

    def _points(self, run: Run) -> dict[tuple[str, int], float]:
        histories = [
            self.client.get_metric_history(run.info.run_id, key) for key in run.data.metrics
        ]
        return {(point.key, point.step): point.value for each in histories for point in each}

    @staticmethod
    def _agrees(run: Run, logged: dict[tuple[str, int], float], record: Record) -> bool:
        return (
            run.data.tags[KEY] == record.key
            and run.data.params.items() <= record.parameters.items()
            and logged.items() <= record.points.items()
        )

    def _write(
        self, run_id: str, record: Record, new: list[tuple[str, int]], tags: dict[str, str]
    ) -> None:
        """Log the `new` points, and the digest last: with it, everything is there."""
        metrics = [Metric(at[0], record.points[at], record.time(at[1]), at[1]) for at in new]
        for start in range(0, len(metrics), BATCH):
            self.client.log_batch(run_id, metrics[start : start + BATCH])
        self.client.log_inputs(run_id, datasets=[_dataset(record)])
        params = [Param(key, value) for key, value in record.parameters.items()]
        self.client.log_batch(run_id, (), params, [RunTag(*tag) for tag in tags.items()])
        if record.status == "RUNNING":
            self.client.update_run(run_id, record.status)
        else:
            self.client.set_terminated(run_id, record.status, record.ended)

    def _archive_other_verdicts(self, tags: dict[str, str], metrics: dict[str, float]) -> None:
        """Begin a new parent run if the old one says what is no longer so."""
        told = self.parent.data
        words = {key: word for key, word in told.tags.items() if key.startswith(verdicts.TAG)}
        if not (words.items() <= tags.items() and told.metrics.items() <= metrics.items()):
            self.client.delete_run(self.parent.info.run_id)
            self.parent = self._create_parent()

    def _describe(self, study: AnyStudy, tags: dict[str, str], metrics: dict[str, float]) -> None:
        """Table, figure, claims and verdicts on the parent run, unless they are there."""
        folder = RESULTS / self.scale / self.study
        files = [path for name in SHOWN if (path := folder / name).is_file()]
        files += verdicts.files(self.study, self.scale)
        table = folder / "table.md"
        note = f"{study.title}. {study.source}\n\n"
        content = [note.encode(), *(path.read_bytes() for path in files)]
        digest = hashlib.sha256(b"\0".join(content)).hexdigest()[:16]
        if self.parent.data.tags.get(DIGEST) == digest:
            return
        run_id = self.parent.info.run_id
        for path in files:
            self.client.log_artifact(run_id, str(path))
        self.client.set_experiment_tag(self.id, NOTE, note)
        self.client.set_tag(run_id, NOTE, note + (table.read_text() if table.exists() else ""))
        at = self.parent.info.start_time  # the same however often it is logged
        points = [Metric(key, value, at, 0) for key, value in metrics.items()]
        self.client.log_batch(run_id, points, (), [RunTag(*tag) for tag in tags.items()])
        self.client.set_tag(run_id, DIGEST, digest)
        self.client.set_terminated(run_id, "FINISHED")


def _dataset(record: Record) -> DatasetInput:
    """By name and digest; the source is the module that fetches and verifies it."""
    name = str(record.config.get("dataset"))
    sizes = {key: value for key, value in record.config.items() if key.endswith("images")}
    source = json.dumps({"module": f"sepablate.data.{name}"})
    digest = str(record.config.get("data_digest"))
    data = Dataset(name, digest, "code", source, profile=json.dumps(sizes))
    return DatasetInput(data, [InputTag("mlflow.data.context", "training")])
