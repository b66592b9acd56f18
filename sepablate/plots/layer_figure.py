"""Measured against predicted savings of separable convolutions: time and mult-adds."""

from typing import Any

import matplotlib.style
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.typing import LineStyleType

from sepablate.analysis import layer_costs
from sepablate.plots import study_figure
from sepablate.plots.style import COLOURS, MARKERS, RC_PARAMS, write_footer

PRECISIONS: dict[str, tuple[LineStyleType, float]] = {
    "fp32": ("-", 1.0),
    "bf16": ((0, (3, 1.2)), 1.022),
}  # line style, and a factor on the position, so that no line covers another
MARGIN = 1.3  # factor between the outermost point and the frame


def draw(frame: pd.DataFrame, kind: str, scale: str) -> bytes:
    """Return the figure of a layer study as a file; the same bytes for the same frame.

    Args:
        frame: as `layer_costs.read` gives it.
        kind: "png" or "svg".
        scale: the name of the scale.
    """
    with matplotlib.style.context(["default", RC_PARAMS]):
        description = layer_costs.figure_description(frame)
        return study_figure.render(make(frame, scale), kind, description)


def make(frame: pd.DataFrame, scale: str) -> Figure:
    """Return the figure of a layer study; frame and scale: as in `draw`."""
    with matplotlib.style.context(["default", RC_PARAMS]):
        figure = Figure(figsize=(7, 4.4), dpi=200, layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for direction, axis in zip(("forward", "backward"), panels, strict=True):
            ratios(frame[frame.direction == direction], axis)
            axis.set_title(direction.capitalize())
            axis.set_xlabel("Mult-adds, separable / standard")
        low = min(frame.ratio_low.min(), frame.predicted.min()) / MARGIN
        high = max(frame.ratio_high.max(), 1.0) * MARGIN
        panels[0].set_ylim(low, high)
        panels[0].set_xlim(frame.predicted.min() / MARGIN**1.5, frame.predicted.max() * MARGIN)
        panels[0].set_ylabel("Time, separable / standard")
        _widths(frame[frame.direction == "forward"], panels[0])
        write_footer(
            figure,
            f"Images of ones; scale {scale}; {layer_costs.measured_on(frame)}.\n"
            "Points: medians; bars: quartiles. Predicted: 1/N + 1/k² (N channels, kernel k).",
        )
        _legend(frame, figure)
        return figure


def ratios(frame: pd.DataFrame, axis: Axes) -> Axes:
    """Draw median and quartiles of the measured ratio over the predicted one, for one direction."""
    axis.set(xscale="log", yscale="log")
    axis.axline((0.01, 0.01), (1, 1), color="#666666", linewidth=1)
    axis.axhline(1, color="#666666", linewidth=1, linestyle=(0, (1, 1.5)))
    lines = frame[["kernel", "precision"]].drop_duplicates()
    for kernel, precision in zip(lines.kernel, lines.precision, strict=True):
        rows = frame[(frame.kernel == kernel) & (frame.precision == precision)]
        colour, marker = _line_style(frame, kernel)
        line, shift = PRECISIONS[precision]
        axis.errorbar(
            rows.predicted * shift,
            rows.ratio,
            [rows.ratio - rows.ratio_low, rows.ratio_high - rows.ratio],
            color=colour,
            marker=marker,
            markersize=4.5,
            markerfacecolor=colour if precision == "fp32" else "white",
            linestyle=line,
            linewidth=0.9,
            elinewidth=0.9,
        )
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
        scale.set_major_formatter(plain)
        scale.set_minor_formatter(NullFormatter())
    return axis


def _widths(frame: pd.DataFrame, axis: Axes) -> None:
    """Write the channels at the points of the leftmost line, which has nothing to its left."""
    last = frame[frame.precision == frame.precision.iloc[-1]]
    rows = last[last.kernel == last.kernel.max()]
    _, shift = PRECISIONS[rows.precision.iloc[0]]
    style: dict[str, Any] = {"ha": "right", "va": "bottom", "fontsize": 7, "color": "#333333"}
    for row in rows.to_dict("records"):
        text = (
            f"N = {row['channels']}" if row["channels"] == rows.channels.min() else row["channels"]
        )
        point = (row["predicted"] * shift, row["ratio"])
        axis.annotate(text, point, (-4, 2), textcoords="offset points", **style)


def _line_style(frame: pd.DataFrame, kernel: int) -> tuple[str, str]:
    """Return the colour and the marker of a kernel size."""
    index = sorted(frame.kernel.unique()).index(kernel) % len(COLOURS)
    return COLOURS[index], MARKERS[index]


def _legend(frame: pd.DataFrame, figure: Figure) -> None:
    """Draw the legend above both panels, where it hides no point."""
    handles = []
    for kernel in sorted(frame.kernel.unique()):
        colour, marker = _line_style(frame, kernel)
        handles.append(Line2D([], [], color=colour, marker=marker, label=f"{kernel}x{kernel}"))
    for precision in frame.precision.unique():
        line, _ = PRECISIONS[precision]
        handle = Line2D([], [], color="black", marker="o", linestyle=line, label=precision)
        handle.set_markerfacecolor("black" if precision == "fp32" else "white")
        handles.append(handle)
    handles.append(Line2D([], [], color="#666666", label="as predicted"))
    handles.append(Line2D([], [], color="#666666", linestyle=(0, (1, 1.5)), label="no time saved"))
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), handlelength=2.4)
