"""Final scores against the quantity in which the variants of a series differ."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from sepablate.analysis import statistics
from sepablate.analysis.load_runs import Config, Runs
from sepablate.errors import UserError
from sepablate.plots.point_labels import Point, place_labels
from sepablate.plots.style import Style, variant_styles


class Quantity(NamedTuple):
    """A field of the resolved config on a log axis.

    Args:
        label: of the axis.
        unit: the divisor of the field's numbers.
        zero: the meaning of 0, which is drawn at the far end of the axis.
        named: every value has a tick, and so the points have no labels.
    """

    label: str
    unit: float = 1
    zero: str = ""
    named: bool = False


QUANTITIES = {
    "mult_adds": Quantity("Mult-adds for one image (M)", 1e6),
    "parameters": Quantity("Parameters (M)", 1e6),
    "model.segments": Quantity(
        "Segments of a layer's channels", zero="one per\nchannel", named=True
    ),
}
SHIFT = 5  # points between an interval and the strokes of its seeds
END = 4  # times the largest number: where 0 is drawn


def positions(configs: Mapping[str, Config], field: str) -> dict[str, float]:
    """Return each variant's x; UserError for a config without a positive number in the field."""
    quantity = QUANTITIES.get(field, Quantity(field))
    numbers = {name: config.get(field) for name, config in configs.items()}
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise UserError(f"against {field!r}: {number!r} in the config of {name}: no number")
        if number < 0 or not (number or quantity.zero):
            raise UserError(f"against {field!r}: {number!r} of {name}: not on a log axis")
    end = END * max(number or 1 for number in numbers.values())
    return {name: (number or end) / quantity.unit for name, number in numbers.items()}


def scores_against(runs: Runs, field: str, positions: Mapping[str, float], axis: Axes) -> Axes:
    """Draw mean and 95 % t interval of each variant's final score, and a stroke per seed.

    Args:
        runs: of the study's variants.
        field: of the resolved config.
        positions: each variant's x, as `positions` gives it.
        axis: to draw on.
    """
    frame, metric = runs.frame, runs.metric
    quantity, count = QUANTITIES.get(field, Quantity(field)), frame.seed.nunique()
    labels = dict(zip(frame.variant, frame.label, strict=True))
    rows = frame[frame.metric == metric.final]
    axis.set_xscale("log")
    points = []
    for name, style in variant_styles(list(labels)).items():
        values = 100 * rows[rows.variant == name].value.to_numpy()
        if len(values):
            missing = "" if len(values) == count else f" (n = {len(values)})"
            points.append(_point(labels[name] + missing, style, positions[name], values, axis))
    axis.set(xlabel=quantity.label, ylabel=f"Test {metric.label} (%), averaged weights")
    axis.set_title(f"Final: {count} seeds, mean, 95 % t interval")
    _set_ticks(quantity, positions, axis)
    if points:
        low, high = min(point.low for point in points), max(point.high for point in points)
        room = 0.09 * (high - low) or 1
        axis.set_ylim(low - room, high + room)
    return axis if quantity.named else place_labels(points, axis)


def _point(name: str, style: Style, x: float, values: statistics.Array, axis: Axes) -> Point:
    """Draw one variant, and return what its label must not cover."""
    mean, low, high = map(float, statistics.interval(values))
    figure = axis.get_figure(root=True)
    assert figure is not None
    left = axis.transData + ScaledTranslation(-SHIFT / 72, 0, figure.dpi_scale_trans)
    seeds = np.full(len(values), x)
    axis.plot(seeds, values, "_", color=style.colour, markersize=4, transform=left)
    axis.plot([x, x], [low, high], color=style.colour)
    axis.plot(x, mean, style.marker, color=style.colour, markersize=4.5)
    ends = [*values, *(end for end in (low, high) if not math.isnan(end))]
    return Point(name, style.colour, x, mean, min(ends), max(ends))


def _set_ticks(quantity: Quantity, positions: Mapping[str, float], axis: Axes) -> None:
    values = sorted(set(positions.values()))
    room = (values[-1] / values[0]) ** 0.12 * 1.1
    axis.set_xlim(values[0] / room, values[-1] * room)
    axis.xaxis.set_minor_locator(NullLocator())
    if quantity.named:
        axis.xaxis.set_major_locator(FixedLocator(values))
        last = values[-1] if quantity.zero else math.inf
        name = FuncFormatter(lambda x, _: quantity.zero if x == last else f"{x:g}")
    else:
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        name = FuncFormatter(lambda x, _: f"{x:g}")
    axis.xaxis.set_major_formatter(name)
