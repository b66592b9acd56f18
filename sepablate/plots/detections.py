"""Figures of detectors: test images with their boxes, and mAP against cost as in the paper."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from PIL import Image

from sepablate.analysis.load_runs import Runs
from sepablate.paper import mobilenets
from sepablate.plots import scores_against
from sepablate.plots.point_labels import Point, place_labels
from sepablate.plots.study_figure import footer, render, run_keys
from sepablate.plots.style import MUTED, RC_PARAMS, write_footer

Example = Mapping[str, Any]  # an image with its boxes, as a run wrote it
TRUE, RIGHT, WRONG = "#FFFFFF", "#56D0FF", "#FF9A2E"  # on dark pictures
MATCHED = 0.5  # the IoU from which a predicted box of the right class is right
FRAMEWORK = "SSD 300"


def draw_examples(runs: Runs, examples: Mapping[str, Sequence[Example]], kind: str) -> bytes:
    """Return the grid of test images with the boxes that each network predicts.

    Args:
        runs: of the study's variants.
        examples: of the first seed of each variant, by its name; the images are the same.
        kind: "png" or "svg".
    """
    names = [name for name in runs.configs if name in examples]
    labels = dict(zip(runs.frame.variant, runs.frame.label, strict=True))
    columns = min(len(examples[name]) for name in names)
    with matplotlib.style.context(["default", RC_PARAMS]):
        figure = Figure(figsize=(7, 0.9 * len(names) + 0.55), dpi=200)
        figure.set_layout_engine(ConstrainedLayoutEngine(wspace=0.01, hspace=0.01))
        grid = figure.subplots(len(names), columns, squeeze=False)
        for name, row in zip(names, grid, strict=True):
            for example, axis in zip(examples[name], row, strict=False):
                _scene(example, axis)
            row[0].set_ylabel(labels[name].replace(" ", "\n"), fontsize=7)
        write_footer(
            figure,
            f"{runs.configs[names[0]]['dataset']}; scale {runs.scale}; averaged weights of seed "
            f"{runs.seeds[0]}; scores of at least 0.3. The first test images, the same for all.\n"
            f"White: true boxes. Blue: predicted, right class, IoU of at least {MATCHED:g}; "
            "orange, dashed: other predicted boxes.",
        )
        return render(figure, kind, run_keys(runs.frame[runs.frame.seed == runs.seeds[0]]))


def draw_against_paper(runs: Runs, kind: str) -> bytes:
    """Return mAP against mult-adds, the paper's on the left, ours on the right.

    Args:
        runs: of the study's variants.
        kind: "png" or "svg".
    """
    with matplotlib.style.context(["default", RC_PARAMS]):
        figure = Figure(figsize=(7, 3.7), dpi=200, layout=ConstrainedLayoutEngine(wspace=0.06))
        left, right = figure.subplots(1, 2, width_ratios=(3, 5))
        write_footer(figure, footer(runs, "Right, bars"))
        _published(left)
        positions = scores_against.positions(runs.configs, "mult_adds")
        scores_against.scores_against(runs, "mult_adds", positions, right)
        return render(figure, kind, run_keys(runs.frame))


def _published(axis: Axes) -> None:
    """Draw the detectors of table 13, of one run each."""
    rows = {base: row for (frame, base), row in mobilenets.TABLE_13.items() if frame == FRAMEWORK}
    points = [
        Point(
            base,
            MUTED,
            row.mult_adds,
            row.mean_average_precision,
            row.mean_average_precision,
            row.mean_average_precision,
        )
        for base, row in rows.items()
    ]
    axis.set_xscale("log")
    for point in points:
        axis.plot(point.x, point.y, "o", color=MUTED, markersize=4.5)
    axis.set(xlim=(0.8, 80), ylim=(18.5, 23))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set(xlabel="Mult-adds for one image (billions)", ylabel="mAP (%) on COCO")
    axis.set_title(f"Table 13: {FRAMEWORK}, one run each")
    place_labels(points, axis)


def _scene(example: Example, axis: Axes) -> None:
    """Draw an image and its boxes."""
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(example["png"]))).convert("RGB"))
    height, width, _ = pixels.shape
    axis.imshow(pixels, extent=(0, width, height, 0), interpolation="nearest")
    for each in example["true"]:
        axis.add_patch(_rectangle(each["box"], TRUE, 0.5))
    for each in example["predicted"]:
        right = any(
            each["class"] == true["class"] and _iou(each["box"], true["box"]) >= MATCHED
            for true in example["true"]
        )
        axis.add_patch(_rectangle(each["box"], RIGHT if right else WRONG, 0.9, dashed=not right))
    axis.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)


def _rectangle(box: Sequence[float], colour: str, width: float, dashed: bool = False) -> Rectangle:
    left, top, right, bottom = box
    line = (0, (2, 1)) if dashed else "-"
    return Rectangle(
        (left, top),
        right - left,
        bottom - top,
        fill=False,
        edgecolor=colour,
        linewidth=width,
        linestyle=line,
    )


def _iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the intersection of two boxes over their union."""
    left, top = (max(first[axis], second[axis]) for axis in (0, 1))
    right, bottom = (min(first[axis], second[axis]) for axis in (2, 3))
    shared = max(0.0, right - left) * max(0.0, bottom - top)
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return shared / (sum(areas) - shared)
