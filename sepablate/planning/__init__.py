"""Forecast what `dvc repro` would run now, and the time, memory and disk that it would take."""

import sys
from typing import Any

from sepablate.planning import pipeline


def show(scale: str, everything: bool) -> bool:
    """Print the plan for a scale, of all pipelines if `everything`. Imports torch only if needed.

    Returns whether there is anything to do. Raises UserError if DVC cannot read the project, or if
    a stage would refuse to run.
    """
    stages = pipeline.query_dvc(scale, everything)
    if not pipeline.anything_to_do(stages):
        print(f"{scale}: nothing to do, all {len(stages)} stages are up to date")
        return False
    from sepablate.planning import forecast, table

    table.show(forecast.forecast(stages, scale, _to_stderr))
    return True


def as_json(scale: str, everything: bool) -> dict[str, Any]:
    """Return the plan for a scale as `show` prints it: seconds and bytes; None for unknown.

    Args:
        scale: the scale's name.
        everything: of all pipelines, not only of the paper's.

    Raises:
        UserError: As `show` does.
    """
    stages = pipeline.query_dvc(scale, everything)
    if pipeline.anything_to_do(stages):
        from sepablate.planning import forecast, table

        return {"scale": scale, **table.as_json(forecast.forecast(stages, scale, _to_stderr))}
    rows = [{"name": stage.name, "state": stage.state} for stage in stages]
    return {"scale": scale, "stages": rows, "seconds": 0.0}


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)
