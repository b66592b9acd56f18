"""Forecast what `dvc repro` would run now, and the time, memory and disk that it would take."""

import sys
from typing import Any

from sepablate.planning import pipeline


def show(scale: str, everything: bool, study: str | None = None) -> bool:
    """Print the plan for a scale. Imports torch only if needed.

    Args:
        scale: the scale's name.
        everything: of all pipelines, not only of the paper's.
        study: of its commands instead, whether or not a pipeline has it.

    Returns:
        Whether there is anything to do.

    Raises:
        UserError: If DVC cannot read the project, or if a stage would refuse to run.
    """
    stages = pipeline.of_study(study) if study else pipeline.query_dvc(scale, everything)
    if not pipeline.anything_to_do(stages):
        print(f"{scale}: nothing to do, all {len(stages)} stages are up to date")
        return False
    from sepablate.planning import forecast, table

    table.show(forecast.forecast(stages, scale, _to_stderr))
    return True


def as_json(scale: str, everything: bool, study: str | None = None) -> dict[str, Any]:
    """Return the plan for a scale as `show` prints it: seconds and bytes; None for unknown.

    Args:
        scale: the scale's name.
        everything: as for `show`.
        study: as for `show`.

    Raises:
        UserError: As `show` does.
    """
    stages = pipeline.of_study(study) if study else pipeline.query_dvc(scale, everything)
    if pipeline.anything_to_do(stages):
        from sepablate.planning import forecast, table

        return {"scale": scale, **table.as_json(forecast.forecast(stages, scale, _to_stderr))}
    rows = [{"name": stage.name, "state": stage.state} for stage in stages]
    return {"scale": scale, "stages": rows, "seconds": 0.0}


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)
