"""Show studies in MLflow. Nothing heavy is imported before it is needed."""

import sys
from typing import TYPE_CHECKING

from sepablate import study
from sepablate.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from sepablate.tracking import Record


def publish_studies(scale: str, names: list[str], retry: bool = False) -> bool:
    """Show studies in MLflow, or print one warning if it cannot be reached.

    Args:
        scale: the scale's name.
        names: the studies.
        retry: try even if an earlier command has just given up on a server.

    Returns:
        Whether MLflow was updated.
    """
    from sepablate import tracking

    if tracking.given_up() and not retry:
        return False
    try:
        changed = tracking.publish(scale, names)
    except (OSError, UserError) as error:  # UserError: a report of older code, or damaged
        if retry and isinstance(error, UserError):
            raise
        print(f"sepablate: {error}; `sepablate publish` fills the gap", file=sys.stderr)
        return False
    print(f"MLflow: {_changes(changed)}; `sepablate ui` shows them")
    return True


def best_network(scale: str, name: str) -> tuple["Record", "nn.Module"]:
    """Return the best run of a study, and its network.

    Raises UserError if the study has no runs of its own, or is on detectors, or if the run's
    weights are not here.
    """
    from sepablate import tracking
    from sepablate.pretrained import run_weights

    record = tracking.best_run(study.load(name), scale)
    if record.config.get("task") == "detection":
        raise UserError(
            f"--model {name!r}: choose a study of classifiers: MLflow takes no detector"
        )
    return record, run_weights.load(record.key)


def _changes(count: int) -> str:
    """Return how many runs MLflow got or lost, and that it has one for a study as well."""
    if not count:
        return "has these results already"
    runs = "1 run" if count == 1 else f"{count} runs"
    return f"{runs} added, updated or removed (one for each seed, and one for each study)"
