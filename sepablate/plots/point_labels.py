"""Labels of the points of a figure, placed so that none covers another."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

# Positions of a label, the best first: points right and up of its point, alignment.
Offset = tuple[float, float, str, str]
OFFSETS: tuple[Offset, ...] = (
    *((6, up, "left", "center") for up in (0, 9, -9, 18, -18)),
    *((-9, up, "right", "center") for up in (0, 9, -9, 18, -18)),
    (0, 24, "center", "bottom"),
    (0, -24, "center", "top"),
)
LEFT, RIGHT, ABOVE = 8, 3, 2  # points around the drawn marks that no label may enter


class Point(NamedTuple):
    """A labelled point; low and high are the ends of the marks at x, around y."""

    name: str
    colour: str
    x: float
    y: float
    low: float
    high: float


def place_labels(points: Sequence[Point], axis: Axes) -> Axes:
    """Write each label at the first of OFFSETS where it covers nothing, or else the least."""
    figure = axis.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # labels are placed on the final layout
    pixels = figure.dpi / 72
    taken = [_taken(point, pixels, axis) for point in points]
    for point in points:
        found: list[tuple[float, Bbox, Offset]] = []
        for offset in OFFSETS:
            box = _box(point, offset, axis)
            found.append((_covered(box, taken, axis.bbox), box, offset))
            if not found[-1][0]:
                break  # no later one covers less
        _, box, offset = min(found, key=itemgetter(0))
        taken.append(box.padded(pixels))
        _annotate(point, offset, axis, _line_to(point, offset))
    return axis


def _taken(point: Point, pixels: float, axis: Axes) -> Bbox:
    x, low = axis.transData.transform((point.x, point.low))
    _, high = axis.transData.transform((point.x, point.high))
    left, right, above = LEFT * pixels, RIGHT * pixels, ABOVE * pixels
    return Bbox([[x - left, low - above], [x + right, high + above]])


def _box(point: Point, offset: Offset, axis: Axes) -> Bbox:
    """Return the area of the label at that offset, in pixels."""
    label = _annotate(point, offset, axis, None)
    box = label.get_window_extent()
    label.remove()
    return box


def _line_to(point: Point, offset: Offset) -> dict[str, Any] | None:
    """Return a thin line to the point, unless the label is at its height."""
    _, up, ha, _ = offset
    start = {"left": (0, 0.5), "right": (1, 0.5)}.get(ha, (0.5, 0.5))
    line = {"arrowstyle": "-", "color": point.colour, "linewidth": 0.6}
    return {**line, "relpos": start, "shrinkA": 1, "shrinkB": 3} if up else None


def _annotate(point: Point, offset: Offset, axis: Axes, line: dict[str, Any] | None) -> Annotation:
    right, up, ha, va = offset
    text = axis.annotate(
        point.name,
        (point.x, point.y),
        (right, up),
        textcoords="offset points",
        ha=ha,
        va=va,
        fontsize=7.5,
        arrowprops=line,
    )
    text.set_in_layout(False)
    return text


def _covered(label: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
    """Return the area of a label that covers others or lies outside the frame, in pixels."""
    shared = [overlap for box in taken if (overlap := Bbox.intersection(label, box))]
    inside = Bbox.intersection(label, frame)
    return _area(label) - (_area(inside) if inside else 0) + sum(map(_area, shared))


def _area(box: Bbox) -> float:
    return box.width * box.height
