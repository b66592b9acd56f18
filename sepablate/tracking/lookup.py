"""Look up the MLflow run of a run key."""

import os

from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from sepablate.tracking.connection import DATABASE, address, connect, one_line
from sepablate.tracking.experiment import KEY, experiment_name


def run_ids(study: str, scale: str) -> dict[str, str]:
    """Return run key -> MLflow run id for a study at a scale; OSError without an answer.

    Nothing is created: if nothing was published, there are no ids.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI") and not DATABASE.exists():
        return {}
    try:
        client = connect()
        experiment = client.get_experiment_by_name(experiment_name(study, scale))
        if experiment is None:
            return {}
        runs = client.search_runs([experiment.experiment_id], max_results=50_000)
    except (MlflowException, SQLAlchemyError) as error:
        raise OSError(f"MLflow at {address()}: {one_line(error)}") from error
    return {run.data.tags[KEY]: run.info.run_id for run in runs if KEY in run.data.tags}
