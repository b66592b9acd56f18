"""One MLflow experiment per study and scale, updated from the files."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from rich.console import Console
from rich.progress import track

from sepablate.store import datasets
from sepablate.study import Study
from sepablate.tracking import summary, verdicts
from sepablate.tracking.connection import artifact_location
from sepablate.tracking.records import PLACE, Record, finished

KEY, DIGEST, PARENT = "sepablate.run_key", "sepablate.digest", "mlflow.parentRunId"
NOTE = "mlflow.note.content"
BATCH = 800  # metrics in a request; MLflow takes 1,000 numbers, with parameters and tags


class Experiment:
    """The MLflow experiment of a study at a scale.

    Its runs are kept by variant and seed; their parent run carries the study's table, figure and
    verdicts.
    """

    def __init__(self, client: MlflowClient, study: str, scale: str) -> None:
        self.client, self.study, self.scale = client, study, scale
        self.id = self._open(experiment_name(study, scale))
        self.tags = {"study": study, "scale": scale, "mlflow.user": "sepablate"}
        self.runs: dict[tuple[str | None, str | None], Run] = {}
        for run in client.search_runs([self.id], max_results=50_000, order_by=["start_time ASC"]):
            place = run.data.tags.get(PLACE, run.data.tags.get("variant"))
            slot = place, run.data.tags.get("seed")
            if KEY in run.data.tags and self.runs.setdefault(slot, run) is not run:
                client.delete_run(run.info.run_id)
        if (None, None) not in self.runs:
            self.runs[None, None] = self._create_parent()
        self.parent = self.runs.pop((None, None))

    def _open(self, name: str) -> str:
        experiment = self.client.get_experiment_by_name(name)
        location = artifact_location(self.study, self.scale)
        if experiment is not None:
            if experiment.lifecycle_stage == "deleted":
                self.client.restore_experiment(experiment.experiment_id)
            if location in (None, experiment.artifact_location):
                return experiment.experiment_id
            # The project was moved or copied: MLflow would write to the folder where it was.
            old = experiment.experiment_id
            self.client.rename_experiment(old, f"{name} · {old}, of another folder")
            self.client.delete_experiment(old)
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return self.client.create_experiment(name, location, tags)

    def _create_parent(self) -> Run:
        """Create the run that holds the others. Nothing would end it, so it is ended at once."""
        tags = self.tags | {KEY: self.study}
        parent = self.client.create_run(self.id, tags=tags, run_name=self.study)
        self.client.set_terminated(parent.info.run_id)
        return parent

    def publish(self, study: Study) -> int:
        """Log every finished run, archive those that left the files; return how many changed."""
        tags, metrics = verdicts.tags_and_metrics(self.study, self.scale)
        stored = [run for v in study.all_variants for run in finished(self.scale, v.name)]
        metrics |= summary.variant_metrics(self.study, self.scale) | summary.cost(stored)
        tags |= summary.source(self.study, self.scale, stored)
        self.archive_other_verdicts(tags, metrics)
        changed = self.log_all(stored)
        run_id = self.parent.info.run_id
        artifacts = f"#/experiments/{self.id}/runs/{run_id}/artifacts"
        text = summary.description(self.study, self.scale, study, artifacts)
        view = summary.saved_view(stored, self.parent.info.start_time)
        files = summary.files(self.study, self.scale)
        title = f"{study.title}. {study.source}\n\n"
        return changed + self.describe(title, text, view, files, tags, metrics)

    def log_all(self, stored: Sequence[Record]) -> int:
        """Log runs, archive those that are not among them; return how many changed."""
        gone = self.runs.keys() - {record.slot for record in stored}
        # A run that trains, or was interrupted, is not among the results.
        gone = {slot for slot in gone if self.runs[slot].info.status in ("FINISHED", "FAILED")}
        for slot in gone:
            self.client.delete_run(self.runs.pop(slot).info.run_id)
        console = Console(stderr=True)
        shown = track(
            stored,
            f"MLflow, {self.study}",
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        return len(gone) + sum([self.log(record) for record in shown])

    def log(self, record: Record) -> bool:
        """Add the missing parts of a run; return False if none. Archive a run that differs."""
        tags = record.tags | self.tags | {PARENT: self.parent.info.run_id, KEY: record.key}
        tags[DIGEST] = record.digest
        run = self.runs.get(record.slot)
        if run and run.info.status == record.status and tags.items() <= run.data.tags.items():
            return False
        logged = self._points(run) if run else {}
        if run and not self._agrees(run, logged, record):
            self.client.delete_run(run.info.run_id)
            run, logged = None, {}
        if run is None:
            first_tags = {key: value for key, value in tags.items() if key != DIGEST}
            run = self.client.create_run(self.id, record.started, first_tags, record.name)
        new = [point for point in record.points if point not in logged]
        self._write(run.info.run_id, record, new, tags)
        self.runs[record.slot] = self.client.get_run(run.info.run_id)
        return True

    def stop(self, record: Record, status: str) -> None:
        """Mark a run that ended without a result."""
        self.client.set_terminated(self.runs[record.slot].info.run_id, status)

    def _points(self, run: Run) -> dict[tuple[str, int], float]:
        histories = [
            self.client.get_metric_history(run.info.run_id, key) for key in run.data.metrics
        ]
        return {(p.key, p.step): p.value for history in histories for p in history}

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
        """Log the `new` points, and the digest last: a run that has it is complete."""
        metrics = [Metric(at[0], record.points[at], record.time(at[1]), at[1]) for at in new]
        while len(metrics) > BATCH:
            self.client.log_batch(run_id, metrics[:BATCH])
            metrics = metrics[BATCH:]
        self.client.log_inputs(run_id, datasets=[_dataset(record)])
        params = [Param(key, value) for key, value in record.parameters.items()]
        self.client.log_batch(run_id, metrics, params, [RunTag(*tag) for tag in tags.items()])
        if record.status == "RUNNING":
            self.client.update_run(run_id, record.status)
        else:
            self.client.set_terminated(run_id, record.status, record.ended)

    def archive_other_verdicts(self, tags: dict[str, str], metrics: dict[str, float]) -> None:
        """Create a new parent run if the old one has verdicts that are no longer valid."""
        old = self.parent.data
        outcomes = {key: word for key, word in old.tags.items() if key.startswith(verdicts.TAG)}
        if not (outcomes.items() <= tags.items() and old.metrics.items() <= metrics.items()):
            self.client.delete_run(self.parent.info.run_id)
            self.parent = self._create_parent()

    def describe(
        self,
        title: str,
        text: str,
        view: str,
        files: Sequence[Path],
        tags: dict[str, str],
        metrics: dict[str, float],
    ) -> bool:
        """Log a study's files and numbers on its parent run; return False if all is there.

        The files may be gone where the tag is not: they lie in a folder, not in the database.

        Args:
            title: of the experiment.
            text: on the study, in Markdown.
            view: saved, of its runs.
            files: that the parent run carries.
            tags: of the parent run.
            metrics: of the parent run.
        """
        run_id = self.parent.info.run_id
        texts = (text, view, json.dumps([tags, metrics]))
        content = [*map(str.encode, texts), *(path.read_bytes() for path in files)]
        digest = hashlib.sha256(b"\0".join(content)).hexdigest()[:16]
        there = {Path(file.path).name for file in self.client.list_artifacts(run_id)}
        complete = {path.name for path in files} <= there
        if complete and self.parent.data.tags.get(DIGEST) == digest:
            return False
        for path in files:
            self.client.log_artifact(run_id, str(path))
        self.client.set_experiment_tag(self.id, NOTE, title)
        self.client.set_experiment_tag(self.id, summary.VIEW_TAG, view)
        self.client.set_tag(run_id, NOTE, text)
        start = self.parent.info.start_time  # the same however often it is logged
        points = [Metric(key, value, start, 0) for key, value in metrics.items()]
        self.client.log_batch(run_id, points, (), [RunTag(*tag) for tag in tags.items()])
        self.client.set_tag(run_id, DIGEST, digest)
        self.client.set_terminated(run_id, "FINISHED")
        return True


def experiment_name(study: str, scale: str) -> str:
    """Return the name of the MLflow experiment of a study at a scale."""
    return f"{study} · {scale}"


def _dataset(record: Record) -> DatasetInput:
    """Return the data set by name and digest; its source is what fetches or registers it."""
    name = str(record.config.get("dataset"))
    sizes = {key: value for key, value in record.config.items() if key.endswith("images")}
    registered = name in datasets.registered_names()
    file = (
        {"file": str(datasets.path(name))} if registered else {"module": f"sepablate.data.{name}"}
    )
    source = json.dumps(file)
    digest = str(record.config.get("data_digest"))
    data = Dataset(name, digest, "code", source, profile=json.dumps(sizes))
    return DatasetInput(data, [InputTag("mlflow.data.context", "training")])
