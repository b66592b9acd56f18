"""A standard convolution and its separable twin: what they cost on paper, and what times say of it.

The table follows from the study alone; the sentence and the figure from measured.csv beside it.
"""

import hashlib
from pathlib import Path

import pandas as pd

from sepablate.analysis.summary_table import markdown
from sepablate.errors import UserError
from sepablate.paper import mobilenets
from sepablate.study import LayerStudy

MEASURED = "measured.csv"
HEADER = (
    "Kernel",
    "Channels",
    "Parameters, standard",
    "Parameters, separable",
    "Mult-adds (M), standard",
    "Mult-adds (M), separable",
    "Ratio 1/N + 1/k²",
)
TABLE_3 = (
    "Layer",
    "Paper: mult-adds (M)",
    "Paper: parameters (M)",
    "Mult-adds (M)",
    "Parameters",
)


def standard(kernel: int, inputs: int, outputs: int, map_size: int) -> tuple[int, int]:
    """Parameters and mult-adds of a convolution without bias on `map_size` squared places."""
    parameters = kernel**2 * inputs * outputs
    return parameters, parameters * map_size**2


def separable(kernel: int, inputs: int, outputs: int, map_size: int) -> tuple[int, int]:
    """The same of a depthwise step and a pointwise one (arXiv:1704.04861, equation 5)."""
    parameters = kernel**2 * inputs + inputs * outputs
    return parameters, parameters * map_size**2


def predicted(kernel: int, outputs: int) -> float:
    """Mult-adds of a separable convolution as a fraction of the standard one's, at any map size."""
    return 1 / outputs + 1 / kernel**2


def summarise(each: LayerStudy) -> pd.DataFrame:
    """One row per kernel size and width."""
    rows = []
    for kernel in each.kernels:
        for channels in each.widths:
            row = {"kernel": kernel, "channels": channels, "map_size": each.map_size}
            for cost in (standard, separable):
                parameters, mult_adds = cost(kernel, channels, channels, each.map_size)
                row[f"{cost.__name__}_parameters"] = parameters
                row[f"{cost.__name__}_mult_adds"] = mult_adds
            rows.append({**row, "predicted_ratio": predicted(kernel, channels)})
    return pd.DataFrame(rows)


def to_markdown(summary: pd.DataFrame) -> str:
    """Both tables: ours, and the paper's one layer with our numbers beside."""
    rows = [
        (
            f"{row['kernel']}x{row['kernel']}",
            f"{row['channels']}",
            f"{row['standard_parameters']:,}",
            f"{row['separable_parameters']:,}",
            f"{row['standard_mult_adds'] / 1e6:,.2f}",
            f"{row['separable_mult_adds'] / 1e6:,.2f}",
            f"{row['predicted_ratio']:.4f}",
        )
        for row in summary.to_dict("records")
    ]
    size = summary.map_size[0]
    return (
        f"Of one image on {size}x{size} places:\n\n{markdown(HEADER, rows)}\n"
        f"The layer of MobileNets (Howard et al. 2017), table 3, its numbers beside ours:\n\n"
        f"{markdown(TABLE_3, mobilenets_table_3())}"
    )


def mobilenets_table_3() -> list[tuple[str, ...]]:
    """One layer of 512 channels on 14x14 places made separable, then narrower, then smaller."""
    ours = (
        standard(3, 512, 512, 14),
        separable(3, 512, 512, 14),
        separable(3, 384, 384, 14),
        separable(3, 384, 384, 10),
    )
    pairs = zip(mobilenets.TABLE_3.items(), ours, strict=True)
    return [
        (name, f"{told.mult_adds:g}", f"{told.parameters:g}", f"{own[1] / 1e6:.2f}", f"{own[0]:,}")
        for (name, told), own in pairs
    ]


def read(folder: Path, name: str) -> pd.DataFrame:
    """measured.csv of a study's folder with the predicted ratio beside; UserError without it."""
    path = folder / MEASURED
    if not path.is_file():
        raise UserError(f"{path}: missing; run `sepablate study {name}`")
    frame = pd.read_csv(path)
    pairs = zip(frame.kernel, frame.channels, strict=True)
    return frame.assign(predicted=[predicted(*pair) for pair in pairs])


def measured_on(frame: pd.DataFrame) -> str:
    """What the times are of: they stand nowhere without it."""
    first = frame.iloc[0]
    threads = "one thread" if first.threads == 1 else f"{first.threads} threads"
    return (
        f"{first.device}, {threads}, torch {first.torch}; {first.batch} images of "
        f"{first.map_size}x{first.map_size}, n = {first.n}"
    )


def origin(frame: pd.DataFrame) -> str:
    """The same with a digest of the times, by which a figure can be told from one of others."""
    digest = hashlib.sha256(frame.to_csv().encode()).hexdigest()[:16]
    return f"{measured_on(frame)}; times {digest}"


def sentences(frame: pd.DataFrame) -> str:
    """Where the saving in time is less than that in mult-adds, and where there is none."""
    less, none = frame[frame.ratio_low > frame.predicted], frame[frame.ratio_low >= 1]
    worst = frame.iloc[(frame.ratio / frame.predicted).argmax()]
    told = [
        f"Times are medians and quartiles, measured on {measured_on(frame)}.",
        f"The separable layer takes a larger part of the standard one's time than of its mult-adds "
        f"in {len(less)} of {len(frame)} cases, and more time than it in {len(none)}, by the lower "
        f"quartile. The count misleads most {_case(worst)}: {worst.ratio:.3g} times the time for "
        f"{worst.predicted:.2g} times the mult-adds. The separable layer is the faster one at "
        f"every kernel size {_faster(frame)}.",
    ]
    return " ".join(told) + "\n"


def _case(row: pd.Series) -> str:
    kernel = f"{row.kernel}x{row.kernel}"
    return f"at {kernel} and {row.channels} channels, {row.direction} in {row.precision}"


def _faster(frame: pd.DataFrame) -> str:
    """From how many channels on, for each precision and direction."""
    parts = []
    for (precision, direction), rows in frame.groupby(["precision", "direction"], sort=False):
        slowest = rows.groupby("channels").ratio.max()
        slower = slowest.index[slowest >= 1]
        enough = slowest.index if slower.empty else slowest.index[slowest.index > slower.max()]
        where = f"from {enough.min()} channels on" if len(enough) else "at no width tried"
        parts.append(f"{where} ({direction}, {precision})")
    return ", ".join(parts)
