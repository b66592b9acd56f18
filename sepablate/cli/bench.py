"""The command `bench`. Nothing heavy is imported before it runs."""

import datetime
import re
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from sepablate.errors import UserError

COLUMNS = ("case", "contender", "metric", "turn", "value")
Rows = list[tuple[str, str, str, int, float]]  # of COLUMNS


def bench(
    only: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CASE]...", help="Measure only these again."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0, help="Measure what fits into so many minutes; 6 on a GPU."),
    ] = None,
) -> None:
    """Time sepablate and its peers: `make bench` installs them.

    The cases, most worth it first, are small, xception, suite, inception_v3, mobilenet_v1, tiny and
    accuracy: about 15 minutes on two cores, on which nothing else should run. With a GPU, the first
    one trains. A case that fails, or takes far too long, leaves the others.
    """
    import pandas as pd
    from rich.console import Console

    from sepablate.bench import report
    from sepablate.bench.cases import GPU_MINUTES
    from sepablate.execution import hardware

    device, failed, path = hardware.devices()[0], [], None
    if device != "cpu" and not only and minutes is None:
        minutes = GPU_MINUTES
    chosen = _chosen(only, minutes, device)
    console, began = Console(stderr=True, highlight=False), time.monotonic()
    with console.status("") as status:

        def say(line: str) -> None:
            if line.endswith("\n"):
                console.print(line.strip())
            status.update(f"{time.monotonic() - began:5.0f} s  {line.strip()}")

        for name in chosen:
            try:
                rows = _measure(name, say, _end(name, device, began, minutes))
            except UserError as error:
                failed.append(str(error) if str(error).startswith(name) else f"{name}: {error}")
                console.print(f"without {failed[-1]}")
                continue
            frame = pd.DataFrame(rows, columns=COLUMNS)
            path = report.write(frame.assign(**_conditions()), file_name(hardware.describe()))
            console.print(f"{name}: done after {time.monotonic() - began:.0f} s")
    if path:
        print(report.table(pd.read_csv(path)))
        print(f"written: {path}, with a figure, docs/benchmarks.md and README.md")
    if failed:
        raise UserError(f"not measured: {'; '.join(failed)}")


def _chosen(only: list[str] | None, minutes: float | None, device: str) -> list[str]:
    """Return the cases to measure: those named, or those that fit into the minutes."""
    from sepablate.bench.cases import WORTH, choose, usual_seconds

    for name in only or []:
        if name not in WORTH:
            raise UserError(f"case {name!r}: choose {', '.join(WORTH)}")
    if only and minutes is not None:
        raise UserError(f"--minutes {minutes:g} chooses cases: name none, or leave it out")
    chosen = only or choose(minutes, device)
    if not chosen:
        shortest = min(WORTH, key=lambda name: usual_seconds(name, device))
        least = usual_seconds(shortest, device) / 60
        raise UserError(f"--minutes {minutes:g}: choose {least:.2g} or more, for case {shortest}")
    return chosen


def _end(name: str, device: str, began: float, minutes: float | None) -> float:
    """Return when a case is ended: on a GPU with the minutes, which all cases share."""
    from sepablate.bench.cases import time_limit

    end = time.monotonic() + time_limit(name, device)
    return end if minutes is None or device == "cpu" else min(end, began + 60 * minutes)


def _measure(name: str, say: Callable[[str], None], end: float) -> Rows:
    """Measure one case or end-to-end comparison."""
    from sepablate.bench import end_to_end, measure
    from sepablate.bench.cases import local_case

    if name == "suite":
        return [
            (name, contender, "seconds", turn, seconds)
            for contender, turns in end_to_end.wall_clock(say, end).items()
            for turn, seconds in enumerate(turns)
        ]
    if name == "accuracy":
        frame = end_to_end.accuracies(say, end)
        return [
            (name, contender, "accuracy", int(seed), float(value))
            for contender, column in (("sepablate", "sepablate"), ("plain fp32 loop", "plain"))
            for seed, value in zip(frame.seed, frame[column], strict=True)
        ]
    rows: Rows = []
    for measurement in measure.measure(local_case(name), say, end):
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
