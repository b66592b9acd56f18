"""Names beside the points of a figure, none on another."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

# Where a name may stand, the best place first: points right and up of its point, alignment.
Place = tuple[float, float, str, str]
PLACES: tuple[Place, ...] = (
    *((6, up, "left", "center") for up in (0, 9, -9, 18, -18)),
    *((-9, up, "right", "center") for up in (0, 9, -9, 18, -18)),
    (0, 24, "center", "bottom"),
    (0, -24, "center", "top"),
)
LEFT, RIGHT, ABOVE = 8, 3, 2  # points around what is drawn that no name may enter


class Point(NamedTuple):
    """low, high: the ends of all that is drawn at x, as an interval about y."""

    name: str
    colour: str
    x: float
    y: float
    low: float
    high: float


def place_labels(points: Sequence[Point], axis: Axes) -> Axes:
    """Each name at the first of PLACES where it covers nothing, or else covers the least."""
    figure = axis.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # names are placed on the final layout
    pixels = figure.dpi / 72
    taken = [_taken(point, pixels, axis) for point in points]
    for point in points:
        boxes = [_box(point, place, axis) for place in PLACES]
        covered = [_covered(box, taken, axis.bbox) for box in boxes]
        best = covered.index(min(covered))
        taken.append(boxes[best].padded(pixels))
        _annotate(point, PLACES[best], axis, _line_to(point, PLACES[best]))
    return axis


def _taken(point: Point, pixels: float, axis: Axes) -> Bbox:
    x, low = axis.transData.transform((point.x, point.low))
    _, high = axis.transData.transform((point.x, point.high))
    left, right, above = LEFT * pixels, RIGHT * pixels, ABOVE * pixels
    return Bbox([[x - left, low - above], [x + right, high + above]])


def _box(point: Point, place: Place, axis: Axes) -> Bbox:
    """What the name would cover there, in pixels."""
    tried = _annotate(point, place, axis, None)
    box = tried.get_window_extent()
    tried.remove()
    return box


def _line_to(point: Point, place: Place) -> dict[str, Any] | None:
    """A thin line to the point, where the name is not at its height."""
    _, up, ha, _ = place
    start = {"left": (0, 0.5), "right": (1, 0.5)}.get(ha, (0.5, 0.5))
    line = {"arrowstyle": "-", "color": point.colour, "linewidth": 0.6}
    return {**line, "relpos": start, "shrinkA": 1, "shrinkB": 3} if up else None


def _annotate(point: Point, place: Place, axis: Axes, line: dict[str, Any] | None) -> Annotation:
    right, up, ha, va = place
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


def _covered(name: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
    """The area of a name that lies on others or outside of the frame, in squared pixels."""
    shared = [both for each in taken if (both := Bbox.intersection(name, each))]
    inside = Bbox.intersection(name, frame)
    return _area(name) - (_area(inside) if inside else 0) + sum(map(_area, shared))


def _area(box: Bbox) -> float:
    return box.width * box.height
