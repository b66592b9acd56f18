"""A study's best network as an MLflow model: a graph that loads without this package."""

import importlib.metadata
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from sepablate.errors import UserError, command
from sepablate.store import run_files
from sepablate.study import TASK_SCORES, Study
from sepablate.tracking.connection import address, connect, one_line
from sepablate.tracking.experiment import KEY, Experiment
from sepablate.tracking.records import Record, finished

if TYPE_CHECKING:
    from torch import nn

EXAMPLES = 2  # images that trace the network: of one, the graph would take one only
NEEDED = ("mlflow", "torch")


def best_run(study: Study, scale: str) -> Record:
    """Return the best run of the study's best variant: chosen on validation images.

    Args:
        study: of which a variant is compared with the baseline.
        scale: the name of the scale.

    Raises UserError if no variant but the baseline has a run: MLflow does not show the study then.
    """
    scores: dict[str, list[tuple[float, Record]]] = {}
    for variant in study.all_variants:
        metric = run_files.validation_metric(TASK_SCORES[variant.task], averaged=True)
        for record in finished(scale, variant.name):
            last = run_files.last_value(record.rows, metric)
            if record.status == "FINISHED" and last is not None:
                scores.setdefault(variant.name, []).append((last, record))
    if not scores.keys() - {study.baseline.name}:
        remedy = command(f"train {study.variants[0].name}", scale)
        raise UserError(f"study {study.title!r}: no finished run of a variant: {remedy}")
    best = max(scores.values(), key=lambda runs: statistics.mean(score for score, _ in runs))
    return max(best, key=lambda run: run[0])[1]


def log_model(study: str, scale: str, record: Record, network: "nn.Module") -> str:
    """Log the network of a run of a study, once; return a line on how MLflow loads it.

    Args:
        study: its name.
        scale: the name of the scale.
        record: the run, which MLflow has.
        network: with its weights, in evaluation mode.

    Raises UserError if MLflow cannot be written.
    """
    try:
        client = connect()
        experiment = Experiment(client, study, scale)
        model = _logged(client, experiment, record) or _log(client, experiment, record, network)
    except (MlflowException, SQLAlchemyError) as error:
        raise UserError(f"MLflow at {address()}: {one_line(error)}") from None
    chosen = "the best run, on validation images, of the best variant"
    return f"{record.name}, {chosen}: mlflow.pytorch.load_model('models:/{model.model_id}')"


def _logged(client: MlflowClient, experiment: Experiment, record: Record) -> LoggedModel | None:
    """Return the model of that run, if it is whole; delete the experiment's others."""
    found = None
    for model in client.search_logged_models([experiment.id]):
        whole = model.tags.get(KEY) == record.key and model.status == "READY"
        if whole and client.list_logged_model_artifacts(model.model_id):
            found = model
        elif KEY in model.tags:
            client.delete_logged_model(model.model_id)
    return found


def _log(
    client: MlflowClient, experiment: Experiment, record: Record, network: "nn.Module"
) -> LoggedModel:
    from mlflow import pytorch  # imports torch

    run_id = experiment.runs[record.slot].info.run_id
    sides = 2 * [int(record.config["image_size"])]
    example = np.zeros((EXAMPLES, int(record.config["model.in_channels"]), *sides), np.float32)
    needed = [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in NEEDED]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        pytorch.save_model(network, folder, pip_requirements=needed, input_example=example)
        tags = {**experiment.tags, KEY: record.key}
        name = f"{record.variant}-seed-{record.seed}"
        model = client.create_logged_model(experiment.id, name, run_id, tags, record.parameters)
        client.log_model_artifacts(model.model_id, str(folder))
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
    return client.finalize_logged_model(model.model_id, "READY")
