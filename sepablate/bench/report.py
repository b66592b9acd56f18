"""The benchmark as a table and a figure, from its CSV file alone."""

from pathlib import Path

import numpy as np
import pandas as pd

from sepablate.analysis import statistics
from sepablate.bench.cases import BEST, CASES, GPU
from sepablate.plots import bench_figure
from sepablate.plots.bench_figure import OURS, latest, machine, on_accelerator, values
from sepablate.store.files import write_atomically

FOLDER = Path("results/bench")
README = Path("README.md")
BEGIN, END = "<!-- benchmark -->\n", "<!-- /benchmark -->\n"
MARGIN = 1.0  # percentage points: a difference in accuracy that a user would not mind
TITLES = {case.name: case.title for case in CASES}
ON_GPU = {case.name: case.title for case in GPU}


def write(rows: pd.DataFrame, name: str) -> Path:
    """Put cases into <name>.csv, in place of what it has of them; then its figure, and the README.

    rows: case, contender, metric, turn, value, and what machine and versions it was.
    """
    path = FOLDER / f"{name}.csv"
    known = [pd.read_csv(path)] if path.exists() else []
    others = [old[~old.case.isin(rows.case)] for old in known]
    order = {case: place for place, case in enumerate((*TITLES, "suite", "accuracy"))}
    frame = pd.concat([*others, rows]).sort_values(
        "case", key=lambda of: of.map(order), kind="stable"
    )
    write_atomically(path, frame.to_csv(index=False))
    frame = pd.read_csv(path)
    write_atomically(path.with_suffix(".png"), bench_figure.draw(frame, titles(frame)))
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    write_atomically(README, before + BEGIN + sections() + END + after)
    return path


def sections() -> str:
    """What the README says of each machine that has a CSV file, accelerators last."""
    frames = [(path.stem, pd.read_csv(path)) for path in sorted(FOLDER.glob("*.csv"))]
    frames.sort(key=lambda named: on_accelerator(named[1]))
    return "".join(section(frame, name) for name, frame in frames)


def titles(frame: pd.DataFrame) -> dict[str, str]:
    """The title of each case, as it is on the machine of the numbers."""
    return ON_GPU if on_accelerator(frame) else TITLES


def section(frame: pd.DataFrame, name: str) -> str:
    """The README's table, figure and sentence on the machine."""
    first = latest(frame)
    versions = ", ".join(f"{key} {first[key]}" for key in VERSIONS if str(first[key]) != "nan")
    told = (
        f"{machine(frame)}, {first.date}; {versions}. Medians [lowest, highest] over turns; a "
        f"ratio is of two neighbouring turns."
    )
    if on_accelerator(frame):
        told += (
            " All started side by side, and their times to the first step have that in them. "
            "Memory is the GPU's."
        )
    return f"{told}\n\n{table(frame)}\n![Step times]({FOLDER}/{name}.png)\n\n"


VERSIONS = ("python", "torch", "timm", "keras", "jax", "lightning")


def table(frame: pd.DataFrame) -> str:
    """Seconds of a step, of the first step and of the suite, and memory, beside ours."""
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
    """What the table has no column for."""
    found = []
    wall = frame[frame.case == "suite"]
    if len(wall):
        ours, theirs = (values(frame, "suite", name, "seconds") for name in (OURS, BEST))
        found.append(
            f"* Four seeds of a variant: {spread(ours)} s as a stage, {spread(theirs)} s in the "
            f"best single loop ({BEST}), one after another: {spread(theirs / ours)} times."
        )
    if "tiny" in set(frame.case):
        bare = values(frame, "tiny", "bare loop", "seconds")
        over = {
            name: spread(1e6 * (values(frame, "tiny", name, "seconds") - bare))
            for name in frame[
                (frame.case == "tiny") & (frame.metric == "seconds")
            ].contender.unique()
            if name != "bare loop"
        }
        told = ", ".join(f"{name} {each}" for name, each in over.items())
        found.append(f"* Microseconds a step over a bare loop, on the smallest network: {told}.")
    if "accuracy" in set(frame.case):
        ours, plain = (
            100 * values(frame, "accuracy", name, "accuracy") for name in (OURS, "plain fp32 loop")
        )
        mean, low, high = statistics.interval(ours - plain)
        p = float(statistics.tost(ours - plain, MARGIN))
        found.append(
            f"* Test accuracy, ours less that of a plain fp32 loop on the same {len(ours)} seeds: "
            f"{mean:+.2f} [{low:+.2f}, {high:+.2f}] points, 95 % interval; equivalence within "
            f"±{MARGIN:g}: p = {p:.2g}."
        )
    return found


def spread(numbers: np.ndarray) -> str:
    """Median [lowest, highest], to three digits."""
    low, middle, high = (_three(each) for each in np.quantile(numbers, (0, 0.5, 1)))
    return f"{middle} [{low}, {high}]" if len(numbers) > 1 else middle


def _three(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"
