"""Show studies in MLflow. Nothing heavy is imported before it is needed."""

import sys

from sepablate.errors import UserError


def publish_studies(scale: str, names: list[str], retry: bool = False) -> bool:
    """Show studies in MLflow, or print one warning if it cannot be reached.

    Args:
        scale: the scale's name.
        names: the studies.
        retry: try even if an earlier command has just given up on MLflow.

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


def publish_model(scale: str, name: str) -> str:
    """Log the best network of a study, which is published, as an MLflow model; return a line.

    Raises UserError if no run of it is finished, its weights are not here, or MLflow cannot be
    written.
    """
    from sepablate import tracking
    from sepablate.pretrained import run_weights

    record = tracking.best_run(name, scale)
    model = tracking.log_model(name, scale, record, run_weights.load(record.key))
    chosen = "the best on validation images of the variant that is the best"
    return f"{record.name}, {chosen}: mlflow.pytorch.load_model({model!r})"


def _changes(count: int) -> str:
    """Return how many runs MLflow got or lost, and that it has one for a study as well."""
    if not count:
        return "has these results already"
    runs = "1 run" if count == 1 else f"{count} runs"
    return f"{runs} added, updated or removed (one for each seed, and one for each study)"
