"""Final scores against what the variants of a series differ in: one axis, one point a variant."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox, ScaledTranslation

from sepablate.analysis import statistics
from sepablate.analysis.looks import Look, looks
from sepablate.analysis.measures import Measure


class Quantity(NamedTuple):
    """A field of the resolved config on a log axis; unit: what its numbers are divided by.

    zero: what 0 means, at the far end of the axis. named: every value has a tick, and so no label.
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
ASIDE = 5  # points between an interval and the strokes of its seeds
END = 4  # times the largest number: where 0 is drawn
# Where a label may stand beside its point, the best place first: points right and up, alignment.
PLACES: tuple[tuple[float, float, str, str], ...] = (
    *((5, up, "left", "center") for up in (0, 8, -8, 16, -16)),
    *((-8, up, "right", "center") for up in (0, 8, -8, 16, -16)),
    (0, 14, "center", "bottom"),
    (0, -14, "center", "top"),
)


def positions(configs: Mapping[str, Mapping[str, Any]], field: str) -> dict[str, float]:
    """Where each variant stands on the axis; ValueError for a config without a number for it."""
    quantity = QUANTITIES.get(field, Quantity(field))
    numbers = {name: config.get(field) for name, config in configs.items()}
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"against {field!r}: {number!r} in the config of {name}: no number")
        if number < 0 or not (number or quantity.zero):
            raise ValueError(f"against {field!r}: {number!r} of {name}: not on a log axis")
    end = END * max(number or 1 for number in numbers.values())
    return {name: (number or end) / quantity.unit for name, number in numbers.items()}


def scores_against(
    frame: pd.DataFrame, measure: Measure, field: str, places: Mapping[str, float], axis: Axes
) -> Axes:
    """Mean and 95 % t interval of each variant's final score, and a stroke per seed beside it.

    places: where each variant stands on the axis, as `positions` says.
    """
    quantity, count = QUANTITIES.get(field, Quantity(field)), frame.seed.nunique()
    labels = dict(zip(frame.variant, frame.label, strict=True))
    rows = frame[frame.metric == measure.final]
    axis.set_xscale("log")
    points = {}
    for name, look in looks(list(labels)).items():
        values = 100 * rows[rows.variant == name].value.to_numpy()
        missing = "" if len(values) == count else f" (n = {len(values)})"
        points[labels[name] + missing] = _point(values, places[name], look, axis)
    axis.set(xlabel=quantity.label, ylabel=f"Test {measure.words} (%), averaged weights")
    axis.set_title(f"At the end: each of n = {count}, mean, interval")
    _ticks(quantity, places, axis)
    if not quantity.named:
        label_points(points, axis)
    return axis


def _point(values: statistics.Array, x: float, look: Look, axis: Axes) -> tuple[float, Bbox]:
    """Draw one variant; its mean, and the box that the labels of others must not enter."""
    mean, low, high = map(float, statistics.interval(values))
    figure = axis.get_figure(root=True)
    assert figure is not None
    aside = axis.transData + ScaledTranslation(-ASIDE / 72, 0, figure.dpi_scale_trans)
    seeds = np.full(len(values), x)
    axis.plot(seeds, values, "_", color=look.colour, markersize=4, transform=aside)
    axis.plot([x, x], [low, high], color=look.colour)
    axis.plot(x, mean, look.marker, color=look.colour, markersize=4.5)
    ends = [each for each in (mean, low, high, *values) if not np.isnan(each)]
    return mean, Bbox([[x, min(ends, default=0)], [x, max(ends, default=0)]])


def _ticks(quantity: Quantity, places: Mapping[str, float], axis: Axes) -> None:
    values = sorted(set(places.values()))
    room = (values[-1] / values[0]) ** 0.12 * 1.1
    axis.set_xlim(values[0] / room, values[-1] * room)
    axis.xaxis.set_minor_formatter(NullFormatter())
    if quantity.named:
        axis.xaxis.set_major_locator(FixedLocator(values))
        axis.xaxis.set_minor_locator(NullLocator())
        last = values[-1] if quantity.zero else math.inf
        name = FuncFormatter(lambda x, _: quantity.zero if x == last else f"{x:g}")
    else:
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        name = FuncFormatter(lambda x, _: f"{x:g}")
    axis.xaxis.set_major_formatter(name)


def label_points(points: Mapping[str, tuple[float, Bbox]], axis: Axes) -> Axes:
    """Each name beside its point, at the first of PLACES that covers nothing, or covers least.

    points: the mean and the box around point and interval, in data coordinates.
    """
    figure = axis.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # labels are placed on the final layout
    pad = figure.dpi / 72
    taken = [
        axis.transData.transform_bbox(box).padded((ASIDE + 2) * pad, 2 * pad)
        for _, box in points.values()
    ]
    for name, (mean, box) in points.items():
        if np.isnan(mean):
            continue
        tried = [_annotate(name, (box.x0, mean), place, axis) for place in PLACES]
        covered = [_covered(each.get_window_extent(), taken, axis.bbox) for each in tried]
        best = covered.index(min(covered))
        taken.append(tried[best].get_window_extent().padded(pad))
        for index, each in enumerate(tried):
            if index != best:
                each.remove()
    return axis


def _annotate(
    name: str, at: tuple[float, float], place: tuple[float, float, str, str], axis: Axes
) -> Annotation:
    right, up, ha, va = place
    text = axis.annotate(name, at, (right, up), textcoords="offset points", ha=ha, va=va)
    text.set(in_layout=False, fontsize=7.5)
    return text


def _covered(label: Bbox, taken: list[Bbox], frame: Bbox) -> float:
    """The area of a label that lies on others or outside of the frame, in squared pixels."""
    shared = [both for each in taken if (both := Bbox.intersection(label, each))]
    inside = Bbox.intersection(label, frame)
    outside = label.width * label.height - (inside.width * inside.height if inside else 0)
    return outside + sum(each.width * each.height for each in shared)
