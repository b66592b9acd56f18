"""Forecast what `dvc repro` would run now, and the time, memory and disk that it would take."""

import sys

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

    table.show(forecast.forecast(stages, scale, lambda line: print(line, file=sys.stderr)))
    return True
