"""The command `bench`. Nothing heavy is imported before it runs."""

import datetime
import re
import time
from typing import Annotated, Any

import typer

from sepablate.errors import UserError

WHOLE = ("suite", "accuracy")
Rows = list[tuple[str, str, str, int, float]]  # case, contender, metric, turn, value


def bench(
    only: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CASE]...", help="Measure these alone again."),
    ] = None,
) -> None:
    """Time the suite beside its peers: `make bench` installs them.

    The cases are small, tiny, xception, inception_v3, mobilenet_v1, suite and accuracy: about 15
    minutes on two cores, on which nothing else should run. With a GPU, the first one trains.
    """
    import pandas as pd
    from rich.console import Console

    from sepablate.bench import report
    from sepablate.bench.cases import CASES
    from sepablate.execution import hardware

    choices = [*(case.name for case in CASES), *WHOLE]
    for name in only or []:
        if name not in choices:
            raise UserError(f"case {name!r}: choose {', '.join(choices)}")
    console, began = Console(stderr=True, highlight=False), time.monotonic()
    with console.status("") as status:

        def tell(what: str) -> None:
            if what.endswith("\n"):
                console.print(what.strip())
            status.update(f"{time.monotonic() - began:5.0f} s  {what.strip()}")

        for name in only or choices:
            columns = ("case", "contender", "metric", "turn", "value")
            frame = pd.DataFrame(_rows(name, tell), columns=columns)
            written = report.write(frame.assign(**_machine()), file_name(hardware.describe()))
            console.print(f"{name}: done after {time.monotonic() - began:.0f} s")
    print(report.table(pd.read_csv(written)))
    print(f"written: {written}, with a table and a figure, and README.md")


def _rows(name: str, tell: Any) -> Rows:
    from sepablate.bench import end_to_end, measure
    from sepablate.bench.cases import named

    if name == "suite":
        found = end_to_end.wall_clock(tell)
        return [
            (name, contender, "seconds", turn, seconds)
            for contender, taken in found.items()
            for turn, seconds in enumerate(taken)
        ]
    if name == "accuracy":
        frame = end_to_end.accuracies(tell)
        return [
            (name, contender, "accuracy", int(seed), float(value))
            for contender, column in (("sepablate", "sepablate"), ("plain fp32 loop", "plain"))
            for seed, value in zip(frame.seed, frame[column], strict=True)
        ]
    rows: Rows = []
    for each in measure.measure(named(name), tell):
        several = {"first_step": each.first_step, "seconds": each.seconds}
        several |= {"memory": [each.memory], "difference": [each.difference]}
        rows += [
            (name, each.contender, metric, turn, value)
            for metric, values in several.items()
            for turn, value in enumerate(values)
        ]
    return rows


def _machine() -> dict[str, Any]:
    """Hardware, versions and the date, as they stand beside every number."""
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
    """The accelerator, or else the processor and its cores, as a file name."""
    gpu = hardware["accelerator"] != "none"
    text = hardware["accelerator"] if gpu else hardware["processor"]
    words = re.sub(r"\((?:R|TM)\)|CPU|Processor|@.*", " ", text).lower()
    name = "-".join(re.findall(r"[a-z0-9.]+", words))
    return name if gpu else f"{name}-{hardware['cores']}-cores"
