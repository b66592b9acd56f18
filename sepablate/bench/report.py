"""Write the benchmark's CSV file, and from it the figure and the tables of the documentation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from sepablate.analysis import statistics
from sepablate.analysis.formatting import replace_section
from sepablate.bench.cases import BEST, CASES, GPU_CASES
from sepablate.plots import bench_figure
from sepablate.plots.bench_figure import OURS, latest, machine, on_accelerator, values
from sepablate.store import layout
from sepablate.store.files import read_text, write_atomically

FOLDER = layout.RESULTS / "bench"
README, PAGE = Path("README.md"), Path("docs/benchmarks.md")
DEFAULTS = "timm"  # the peer with PyTorch's defaults
MARGIN = 1.0  # percentage points of accuracy that count as equivalent
TITLES = {case.name: case.title for case in CASES}
GPU_TITLES = {case.name: case.title for case in GPU_CASES}
VERSIONS = ("python", "torch", "timm", "keras", "jax", "lightning")


def write(rows: pd.DataFrame, name: str) -> Path:
    """Replace cases in results/bench/<name>.csv, draw its figure, update the documentation.

    docs/benchmarks.md gets all tables and figures, the README a line for each network.

    Args:
        rows: the columns case, contender, metric, turn and value, and the hardware and versions.
        name: the machine's file name.

    Returns:
        The path of the CSV file.
    """
    path = FOLDER / f"{name}.csv"
    stored = [pd.read_csv(path)] if path.exists() else []
    others = [old[~old.case.isin(rows.case)] for old in stored]
    order = {case: index for index, case in enumerate((*TITLES, "suite", "accuracy"))}
    frame = pd.concat([*others, rows]).sort_values(
        "case", key=lambda names: names.map(order), kind="stable"
    )
    write_atomically(path, frame.to_csv(index=False))
    frame = pd.read_csv(path)
    write_atomically(path.with_suffix(".png"), bench_figure.draw(frame, titles(frame)))
    measured = frames()
    tables = "".join(section(*each) for each in measured)
    for page, key, content in (
        (PAGE, "benchmarks", tables),
        (README, "benchmark", summary(measured)),
    ):
        write_atomically(page, replace_section(read_text(page), key, content))
    return path


def frames() -> list[tuple[pd.DataFrame, str]]:
    """Return the measurements of each machine that has a CSV file, and its name; GPUs last."""
    measured = [(pd.read_csv(path), path.stem) for path in sorted(FOLDER.glob("*.csv"))]
    return sorted(measured, key=lambda pair: on_accelerator(pair[0]))


def summary(measured: Sequence[tuple[pd.DataFrame, str]]) -> str:
    """Return the README's table, a line for each network, and one figure.

    Of the CPUs that which was measured last, and of the GPUs.
    """
    by_date = sorted(measured, key=lambda pair: str(latest(pair[0])["date"]))
    newest = {on_accelerator(frame): (frame, name) for frame, name in by_date}
    shown = [newest[kind] for kind in sorted(newest)]
    lines = [
        "| network, on | ms a step | PyTorch's defaults (timm) | fastest alternative |",
        "|---|---|---|---|",
    ]
    for frame, _ in shown:
        lines += [_summary_line(frame, case, title) for case, title in _timed(frame).items()]
    _, first = shown[0]
    figure = f'<img src="{FOLDER}/{first}.png" width="560" alt="Step times of each contender">'
    return "\n".join([*lines, "", figure, ""])


def _summary_line(frame: pd.DataFrame, case: str, title: str) -> str:
    """Return our step time, and how many times ours that of the defaults and of the best is."""
    steps = frame[(frame.metric == "seconds") & (frame.case == case)]
    ours = values(frame, case, OURS, "seconds")
    ratios = {
        name: values(frame, case, name, "seconds") / ours
        for name in steps.contender.unique()
        if name != OURS
    }
    best = min(ratios, key=lambda name: float(np.median(ratios[name])))
    defaults = f"{spread(ratios[DEFAULTS])} times" if DEFAULTS in ratios else "–"
    return (
        f"| {title}; {machine(frame)} | {spread(1000 * ours)} | {defaults} | "
        f"{best}: {spread(ratios[best])} times |"
    )


def _timed(frame: pd.DataFrame) -> dict[str, str]:
    """Return the titles of the cases whose steps were timed, in their order."""
    timed = frame[frame.metric == "seconds"].case.unique()
    return {case: title for case, title in titles(frame).items() if case in timed}


def titles(frame: pd.DataFrame) -> dict[str, str]:
    """Return the title of each case, which differs on an accelerator."""
    return GPU_TITLES if on_accelerator(frame) else TITLES


def section(frame: pd.DataFrame, name: str) -> str:
    """Return the sentences, the table and the figure of one machine."""
    first = latest(frame)
    versions = ", ".join(f"{key} {first[key]}" for key in VERSIONS if str(first[key]) != "nan")
    text = (
        f"{machine(frame)}, {first.date}; {versions}. Medians [lowest, highest] over turns; a "
        f"ratio is of two neighbouring turns."
    )
    if on_accelerator(frame):
        text += (
            " All started side by side, and their times to the first step have that in them. "
            "Memory is the GPU's."
        )
    figure = f"![Step times on {machine(frame)}](../{FOLDER}/{name}.png)"
    return f"## {machine(frame)}\n\n{text}\n\n{table(frame)}\n{figure}\n\n"


def table(frame: pd.DataFrame) -> str:
    """Return a Markdown table of step times, their ratios to ours, first steps and memory."""
    lines = [
        "| | ms a step | times ours | first step (s) | memory (GiB) |",
        "|---|---|---|---|---|",
    ]
    known = titles(frame)
    steps = frame[(frame.metric == "seconds") & frame.case.isin(known)]
    for case, part in steps.groupby("case", sort=False):
        lines.append(f"| **{known[str(case)]}** | | | | |")
        for contender in part.contender.unique():
            seconds = values(frame, str(case), contender, "seconds")
            ratio = seconds / values(frame, str(case), OURS, "seconds")
            start = values(frame, str(case), contender, "first_step")
            memory = values(frame, str(case), contender, "memory")[0] / 2**30
            lines.append(
                f"| {contender} | {spread(1000 * seconds)} | {spread(ratio)} | {spread(start)} | "
                f"{memory:.2f} |"
            )
    return "\n".join([*lines, "", *sentences(frame), ""])


def sentences(frame: pd.DataFrame) -> list[str]:
    """Return a line on each of the whole stage, the overhead of a step, and the accuracy."""
    writers = {"suite": _stage_sentence, "tiny": _overhead_sentence, "accuracy": _accuracy_sentence}
    measured = set(frame.case)
    return [write(frame) for case, write in writers.items() if case in measured]


def _stage_sentence(frame: pd.DataFrame) -> str:
    ours, theirs = (values(frame, "suite", name, "seconds") for name in (OURS, BEST))
    return (
        f"* Four seeds of a variant: {spread(ours)} s as a stage, {spread(theirs)} s in the "
        f"best single loop ({BEST}), one after another: {spread(theirs / ours)} times."
    )


def _overhead_sentence(frame: pd.DataFrame) -> str:
    steps = frame[(frame.case == "tiny") & (frame.metric == "seconds")]
    bare = values(frame, "tiny", "bare loop", "seconds")
    overheads = [
        f"{name} {spread(1e6 * (values(frame, 'tiny', name, 'seconds') - bare))}"
        for name in steps.contender.unique()
        if name != "bare loop"
    ]
    return (
        f"* Microseconds a step over a bare loop, on the smallest network: {', '.join(overheads)}."
    )


def _accuracy_sentence(frame: pd.DataFrame) -> str:
    ours, plain = (
        100 * values(frame, "accuracy", name, "accuracy") for name in (OURS, "plain fp32 loop")
    )
    mean, low, high = statistics.interval(ours - plain)
    p = float(statistics.tost(ours - plain, MARGIN))
    return (
        f"* Test accuracy, ours less that of a plain fp32 loop on the same {len(ours)} seeds: "
        f"{mean:+.2f} [{low:+.2f}, {high:+.2f}] points, 95 % interval; equivalence within "
        f"±{MARGIN:g}: p = {p:.2g}."
    )


def spread(numbers: npt.NDArray[np.float64]) -> str:
    """Format the median [lowest, highest], to three digits."""
    low, middle, high = (_three_digits(value) for value in np.quantile(numbers, (0, 0.5, 1)))
    return f"{middle} [{low}, {high}]" if len(numbers) > 1 else middle


def _three_digits(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"
