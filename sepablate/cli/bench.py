"""The command `bench`. Nothing heavy is imported before it runs."""

import datetime
import re
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from sepablate.errors import UserError

END_TO_END = ("suite", "accuracy")
COLUMNS = ("case", "contender", "metric", "turn", "value")
Rows = list[tuple[str, str, str, int, float]]  # of COLUMNS


def bench(
    only: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CASE]...", help="Measure only these again."),
    ] = None,
) -> None:
    """Time sepablate and its peers: `make bench` installs them.

    The cases are small, tiny, xception, inception_v3, mobilenet_v1, suite and accuracy: about 15
    minutes on two cores, on which nothing else should run. With a GPU, the first one trains.
    """
    import pandas as pd
    from rich.console import Console

    from sepablate.bench import report
    from sepablate.bench.cases import CASES
    from sepablate.execution import hardware

    choices = [*(case.name for case in CASES), *END_TO_END]
    for name in only or []:
        if name not in choices:
            raise UserError(f"case {name!r}: choose {', '.join(choices)}")
    console, began = Console(stderr=True, highlight=False), time.monotonic()
    with console.status("") as status:

        def say(line: str) -> None:
            if line.endswith("\n"):
                console.print(line.strip())
            status.update(f"{time.monotonic() - began:5.0f} s  {line.strip()}")

        for name in only or choices:
            frame = pd.DataFrame(_measure(name, say), columns=COLUMNS)
            path = report.write(frame.assign(**_conditions()), file_name(hardware.describe()))
            console.print(f"{name}: done after {time.monotonic() - began:.0f} s")
    print(report.table(pd.read_csv(path)))
    print(f"written: {path}, with a figure, docs/benchmarks.md and README.md")


def _measure(name: str, say: Callable[[str], None]) -> Rows:
    """Measure one case or end-to-end comparison."""
    from sepablate.bench import end_to_end, measure
    from sepablate.bench.cases import local_case

    if name == "suite":
        return [
            (name, contender, "seconds", turn, seconds)
            for contender, turns in end_to_end.wall_clock(say).items()
            for turn, seconds in enumerate(turns)
        ]
    if name == "accuracy":
        frame = end_to_end.accuracies(say)
        return [
            (name, contender, "accuracy", int(seed), float(value))
            for contender, column in (("sepablate", "sepablate"), ("plain fp32 loop", "plain"))
            for seed, value in zip(frame.seed, frame[column], strict=True)
        ]
    rows: Rows = []
    for measurement in measure.measure(local_case(name), say):
        metrics = {"first_step": measurement.first_step, "seconds": measurement.seconds}
        metrics |= {"memory": [measurement.memory], "difference": [measurement.difference]}
        rows += [
            (name, measurement.contender, metric, turn, value)
            for metric, values in metrics.items()
            for turn, value in enumerate(values)
        ]
    return rows


def _conditions() -> dict[str, Any]:
    """Return the hardware, the versions, the date and the commit, for columns of every row."""
    from importlib.metadata import PackageNotFoundError, version

    from sepablate.execution import hardware

    packages = {}
    for name in ("torch", "timm", "keras", "jax", "lightning"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = ""
    date = datetime.date.today().isoformat()
    return {
        **hardware.describe(),
        **hardware.versions(),
        **packages,
        "date": date,
        "commit": hardware.commit(),
    }


def file_name(hardware: dict[str, Any]) -> str:
    """Return the accelerator, or else the processor and its cores, as a file name."""
    gpu = hardware["accelerator"] != "none"
    text = hardware["accelerator"] if gpu else hardware["processor"]
    words = re.sub(r"\((?:R|TM)\)|CPU|Processor|@.*", " ", text).lower()
    name = "-".join(re.findall(r"[a-z0-9.]+", words))
    return name if gpu else f"{name}-{hardware['cores']}-cores"
