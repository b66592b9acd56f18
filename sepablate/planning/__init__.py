"""What `dvc repro` would run now, and the time, memory and disk that it would take here."""

import sys

from sepablate.planning import pipeline


def show(scale: str, everything: bool) -> None:
    """Print the plan for a scale, of all pipelines if `everything`; torch only if needed.

    Raises UserError if DVC cannot tell, or a stage would refuse.
    """
    stages = pipeline.query_dvc(scale, everything)
    if not pipeline.anything_to_do(stages):
        print(f"{scale}: nothing to do, all {len(stages)} stages are up to date")
        return
    from sepablate.planning import forecast, table

    table.show(forecast.forecast(stages, scale, lambda line: print(line, file=sys.stderr)))
