"""The effect of each claim against the training budget, up to where the paper's lies."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from sepablate.analysis.formatting import capitalize, percent
from sepablate.analysis.robustness import Carrying, on_budget_line
from sepablate.paper import xception as paper
from sepablate.plots import specification_curve, study_figure
from sepablate.plots.style import MUTED, RC_PARAMS, Style, variant_styles, write_footer
from sepablate.study import RobustnessStudy

COLUMNS = 2
REACH = 1.0  # how far the paper's interval may widen an axis, of what the effects span
EXPLAINED = (
    "{dataset}; scale {scale}; n = {counts} paired seeds; bars and bands: 95 % Student's t "
    "interval over seeds. Dotted: 95 % interval of\n"
    "the effect at the paper's budget if a straight line through these points went on so far; "
    "arrows: it goes beyond the frame."
)


def draw(claims: Sequence[Carrying], declared: RobustnessStudy, kind: str, scale: str) -> bytes:
    """Return the figure, a panel for each claim; the same bytes for the same effects.

    Args:
        claims: with a trend; others have no panel.
        declared: the study, for its factors.
        kind: "png" or "svg".
        scale: the name of the scale.
    """
    styles = variant_styles([each.effects.claim.right for each in claims])  # as in all figures
    shown = [(styles[each.effects.claim.right], each) for each in claims if each.trend]
    rows = max(math.ceil(len(shown) / COLUMNS), 1)
    with matplotlib.style.context(["default", RC_PARAMS]):
        layout = ConstrainedLayoutEngine(wspace=0.06, hspace=0.04)
        figure = Figure(figsize=(7, 2.15 * rows + 0.5), dpi=200, layout=layout)
        axes = [*figure.subplots(rows, COLUMNS, sharex=True, squeeze=False).flat]
        for axis in axes[len(shown) :]:
            axis.set_visible(False)
        for axis, (style, carrying) in zip(axes, shown, strict=False):
            panel(carrying, declared, style, axis)
        drawn = [each for _, c in shown for each in _line(c, declared)]
        counts = " or ".join(map(str, sorted({len(each.seeds) for each in drawn})))
        dataset = ", ".join(dict.fromkeys(each.dataset for each in drawn))
        write_footer(figure, EXPLAINED.format(dataset=dataset, scale=scale, counts=counts))
        keys = specification_curve.run_keys([each for _, each in shown])
        return study_figure.render(figure, kind, keys)


def panel(carrying: Carrying, declared: RobustnessStudy, style: Style, axis: Axes) -> Axes:
    """Draw one claim: mean and interval at each budget, and the trend's interval at the paper's."""
    line, trend = _line(carrying, declared), carrying.trend
    assert trend is not None
    by_name = dict(zip([e.setting for e in carrying.effects.settings], carrying.means, strict=True))
    means, lows, highs = ([100 * by_name[each.setting][part] for each in line] for part in range(3))
    images = [each.images_seen for each in line]
    drawn: dict[str, Any] = {"color": style.colour, "linestyle": style.line}
    axis.fill_between(images, lows, highs, color=style.colour, alpha=0.15, linewidth=0)
    axis.plot(images, means, marker=style.marker, markersize=4, **drawn)
    axis.vlines(images, lows, highs, color=style.colour, linewidth=0.8)
    axis.axhline(0, color="black", linewidth=0.8)
    low, high = 100 * trend.at_paper_low, 100 * trend.at_paper_high
    bottom, top = _limits([*lows, *highs, 0.0], low, high)
    axis.axvline(paper.IMAGES_SEEN, color="#8C8C8C", linewidth=0.8)
    seen = min(max(low, bottom), top), min(max(high, bottom), top)
    axis.plot([paper.IMAGES_SEEN] * 2, seen, color=style.colour, linewidth=2, linestyle=":")
    for beyond, edge, arrow in ((low < bottom, bottom, "v"), (high > top, top, "^")):
        if beyond:
            axis.plot(paper.IMAGES_SEEN, edge, arrow, color=style.colour, clip_on=False)
    axis.set_ylim(bottom, top)
    axis.set_xscale("log")
    axis.set_xlim(images[0] / 1.8, paper.IMAGES_SEEN * 2.5)
    interval = f"[{percent(low / 100, '+', 0)}, {percent(high / 100, '+', 0)}]"
    axis.annotate(
        f"the paper's budget\n{interval}",
        (paper.IMAGES_SEEN / 1.5, 0.97),
        xycoords=("data", "axes fraction"),
        ha="right",
        va="top",
        fontsize=7,
        color=MUTED,
    )
    _label(carrying, axis)
    return axis


def _label(carrying: Carrying, axis: Axes) -> None:
    claim = carrying.effects
    axis.set_title(capitalize(f"{claim.left_label} minus {claim.right_label}"))
    axis.set_ylabel("Difference (points)")
    if axis.get_subplotspec() is None or axis.get_subplotspec().is_last_row():  # type: ignore[union-attr]
        axis.set_xlabel("Images seen in training a run")


def _line(carrying: Carrying, declared: RobustnessStudy) -> list[Any]:
    known = [each for each in carrying.effects.settings if each.differences]
    return on_budget_line(known, declared)


def _limits(values: Sequence[float], low: float, high: float) -> tuple[float, float]:
    """Return limits that show the values, and the paper's interval as far as it fits."""
    least, most = min(values), max(values)
    reach = REACH * (most - least)
    bottom, top = max(min(least, low), least - reach), min(max(most, high), most + reach)
    room = 0.06 * (top - bottom)
    return bottom - room, top + room
