"""The costs of a standard and a separable convolution: counted, and compared with measured times.

The table follows from the study only; the sentences and the figure from measured.csv.
"""

import hashlib

import pandas as pd
from pandas.api.types import is_numeric_dtype

from sepablate.analysis.formatting import markdown_table
from sepablate.errors import UserError, command
from sepablate.paper import mobilenets
from sepablate.store import layout
from sepablate.store.files import refuse_endless
from sepablate.study import LayerStudy

TEXTS = ("precision", "direction", "device", "torch")
RATIOS = ("ratio", "ratio_low", "ratio_high")
NUMBERS = ("kernel", "channels", "n", "map_size", "batch", "threads", *RATIOS)
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
    """Return parameters and mult-adds of a convolution without bias, on a square map."""
    parameters = kernel**2 * inputs * outputs
    return parameters, parameters * map_size**2


def separable(kernel: int, inputs: int, outputs: int, map_size: int) -> tuple[int, int]:
    """Return the same for a depthwise and a pointwise step (arXiv:1704.04861, equation 5)."""
    parameters = kernel**2 * inputs + inputs * outputs
    return parameters, parameters * map_size**2


def predicted(kernel: int, outputs: int) -> float:
    """Return the mult-adds of a separable convolution, as a fraction of the standard one's."""
    return 1 / outputs + 1 / kernel**2


def summarise(study: LayerStudy) -> pd.DataFrame:
    """Return one row per kernel size and width."""
    rows = []
    for kernel in study.kernels:
        for channels in study.widths:
            row = {"kernel": kernel, "channels": channels, "map_size": study.map_size}
            for cost in (standard, separable):
                parameters, mult_adds = cost(kernel, channels, channels, study.map_size)
                row[f"{cost.__name__}_parameters"] = parameters
                row[f"{cost.__name__}_mult_adds"] = mult_adds
            rows.append({**row, "predicted_ratio": predicted(kernel, channels)})
    return pd.DataFrame(rows)


def to_markdown(summary: pd.DataFrame) -> str:
    """Return two tables: our layers, and the paper's one layer with its numbers and ours."""
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
        f"Of one image on {size}x{size} places:\n\n{markdown_table(HEADER, rows)}\n"
        f"The layer of MobileNets (Howard et al. 2017), table 3, with its numbers and ours:\n\n"
        f"{markdown_table(TABLE_3, mobilenets_table_3())}"
    )


def mobilenets_table_3() -> list[tuple[str, ...]]:
    """Return one layer of 512 channels on 14x14 places: separable, then narrower, then smaller."""
    ours = (
        standard(3, 512, 512, 14),
        separable(3, 512, 512, 14),
        separable(3, 384, 384, 14),
        separable(3, 384, 384, 10),
    )
    pairs = zip(mobilenets.TABLE_3.items(), ours, strict=True)
    return [
        (
            name,
            f"{printed.mult_adds:g}",
            f"{printed.parameters:g}",
            f"{mult_adds / 1e6:.2f}",
            f"{parameters:,}",
        )
        for (name, printed), (parameters, mult_adds) in pairs
    ]


def read(scale: str, name: str) -> pd.DataFrame:
    """Return the times in a study's measured.csv, with the predicted ratio.

    Raises UserError if there is none, or if it is another file.
    """
    path = layout.study_folder(scale, name) / layout.LAYER_MEASUREMENTS
    if not path.is_file():
        raise UserError(f"{path}: missing; run {command(f'layers {name}', scale)}")
    refuse_endless(path)
    try:
        frame = pd.read_csv(path)
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{path}: not a CSV table: {error}") from None
    missing = [column for column in (*TEXTS, *NUMBERS) if column not in frame]
    if missing or frame.empty:
        raise UserError(f"{path}: not the times of layers: lacks {', '.join(missing) or 'rows'}")
    for column in NUMBERS:
        if not is_numeric_dtype(frame[column]):
            raise UserError(f"{path}: invalid values in column {column}")
    pairs = zip(frame.kernel, frame.channels, strict=True)
    return frame.assign(predicted=[predicted(*pair) for pair in pairs])


def measured_on(frame: pd.DataFrame) -> str:
    """Return the hardware, versions and sizes of the times, for wherever a time is printed."""
    first = frame.iloc[0]
    threads = "one thread" if first.threads == 1 else f"{first.threads} threads"
    return (
        f"{first.device}, {threads}, torch {first.torch}; {first.batch} images of "
        f"{first.map_size}x{first.map_size}, n = {first.n}"
    )


def figure_description(frame: pd.DataFrame) -> str:
    """Return the same with a digest of the times, for a figure's metadata."""
    digest = hashlib.sha256(frame.to_csv().encode()).hexdigest()[:16]
    return f"{measured_on(frame)}; times {digest}"


def sentences(frame: pd.DataFrame) -> str:
    """Return where less time than mult-adds is saved, and where none is."""
    less, none = frame[frame.ratio_low > frame.predicted], frame[frame.ratio_low >= 1]
    worst = frame.iloc[(frame.ratio / frame.predicted).argmax()]
    parts = [
        f"Times are medians and quartiles, measured on {measured_on(frame)}.",
        f"The separable layer takes a larger part of the standard one's time than of its mult-adds "
        f"in {len(less)} of {len(frame)} cases, and more time than it in {len(none)}, by the lower "
        f"quartile. The count misleads most {_case(worst)}: {worst.ratio:.3g} times the time for "
        f"{worst.predicted:.2g} times the mult-adds. The separable layer is the faster one at "
        f"every kernel size {_faster(frame)}.",
    ]
    return " ".join(parts) + "\n"


def _case(row: pd.Series) -> str:
    kernel = f"{row.kernel}x{row.kernel}"
    return f"at {kernel} and {row.channels} channels, {row.direction} in {row.precision}"


def _faster(frame: pd.DataFrame) -> str:
    """Return from how many channels on, for each precision and direction."""
    parts = []
    for (precision, direction), rows in frame.groupby(["precision", "direction"], sort=False):
        slowest = rows.groupby("channels").ratio.max()
        slower = slowest.index[slowest >= 1]
        enough = slowest.index if slower.empty else slowest.index[slowest.index > slower.max()]
        where = f"from {enough.min()} channels on" if len(enough) else "at no width tried"
        parts.append(f"{where} ({direction}, {precision})")
    return ", ".join(parts)
