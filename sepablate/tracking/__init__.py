"""MLflow as a view of the files: updated live, rebuilt at any time, never the only copy.

An experiment per study and scale; in it one run per variant and seed, below a parent run that
carries the study's table and figure. Logging twice stores once. Nothing else imports mlflow.
"""

import os

# Before mlflow is imported, which reads them.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")  # seconds

from sepablate.tracking.connection import given_up, ui
from sepablate.tracking.live import Live
from sepablate.tracking.lookup import run_ids
from sepablate.tracking.models import best_run, log_model
from sepablate.tracking.publishing import publish
from sepablate.tracking.records import Record

__all__ = ["Live", "Record", "best_run", "given_up", "log_model", "publish", "run_ids", "ui"]
