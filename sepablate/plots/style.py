"""The style of all figures, and of every variant in them.

Colours with a contrast of 3:1 or more on white (WCAG 2.1, 1.4.11), which readers who see no red or
no green can tell apart, and a line style and a marker of its own for every variant, so that a
figure also reads in black and white. Variants that differ in a number are shades from light to
dark.
"""

import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.typing import LineStyleType

from sepablate.errors import UserError


class Style(NamedTuple):
    """The colour, line and marker of a variant, the same in every figure."""

    colour: str
    line: LineStyleType
    marker: str


COLOURS = ("#0050C8", "#E06000", "#009E73", "#A0257F", "#5A4000", "#4F96E8", "#000000")
LINES: tuple[LineStyleType, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1, 1)),
    (0, (5, 1, 1, 1)),
    (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (2.5, 1)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLES = tuple(
    Style(colour, LINES[(i + turn) % 7], MARKERS[(i + turn) % 7])
    for turn in range(7)
    for i, colour in enumerate(COLOURS)
)


def _shades(first: int, *shades: tuple[str, str]) -> dict[str, Style]:
    """Return a style per variant of a series: its own colour, lines and markers from `first`."""
    return {
        name: Style(colour, LINES[i % 7], MARKERS[i % 7])
        for i, (name, colour) in enumerate(shades, first)
    }


VARIANT_STYLES = {
    "xception": STYLES[0],
    "inception_v3": STYLES[1],
    "no_residual": STYLES[2],
    "no_residual_wide": STYLES[3],
    "relu_between": STYLES[4],
    "elu_between": STYLES[5],
    "none_after": STYLES[6],
    "xception_multilabel": STYLES[0],
    "inception_v3_multilabel": STYLES[1],
    "xception_multilabel_fc": STYLES[5],
    "inception_v3_multilabel_fc": STYLES[4],
    "separable_example": STYLES[0],
    "example_standard": STYLES[1],
    "example_standard_narrow": STYLES[4],
    "mobilenet_standard": STYLES[1],
    "mobilenet_shallow": STYLES[2],
    **_shades(
        3,
        ("mobilenet_v1", "#0A1F44"),
        ("mobilenet_075", "#0F4C92"),
        ("mobilenet_050", "#2A7DD1"),
        ("mobilenet_025", "#7B93B8"),
    ),
    **_shades(
        0,
        ("segments_1", "#8C9A00"),
        ("segments_2", "#3FA055"),
        ("segments_4", "#1B8F80"),
        ("segments_8", "#2A7490"),
        ("segments_16", "#365C8D"),
        ("segments_32", "#46327E"),
        ("segments_all", "#000000"),
    ),
    "pointwise_first": STYLES[1],
    "ssd_xception": STYLES[0],
    "ssd_inception_v3": STYLES[1],
    "ssd_mobilenet_standard": STYLES[2],
    **_shades(3, ("ssd_mobilenet_v1", "#0A1F44"), ("ssd_mobilenet_050", "#7B93B8")),
}


def _prefer_bundled_fonts() -> None:
    """Make matplotlib take its own fonts where the system has some of the same name.

    They may be of another version, with other outlines and glyph numbers: figures then differ in
    bytes. A list of fonts that matplotlib keeps in a user's cache may even lack its own.
    """
    manager = font_manager.fontManager
    system, manager.ttflist = manager.ttflist, []
    for path in sorted(Path(matplotlib.get_data_path(), "fonts/ttf").glob("*.ttf")):
        manager.addfont(path)
    bundled = {font.name for font in manager.ttflist}
    manager.ttflist += [font for font in system if font.name not in bundled]


_prefer_bundled_fonts()

MUTED = "#666666"  # of what is no variant: lines at zero, constant scores, footers
RC_PARAMS = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "lines.linewidth": 1.3,
    "svg.hashsalt": "sepablate",
    "pdf.fonttype": 42,  # TrueType, which journals and conferences ask for
}


def write_footer(figure: Figure, text: str) -> None:
    """Write what a figure shows below it, so that it can be shown without a text.

    Args:
        figure: with constrained layout, which makes room.
        text: data set, scale, n, and the meaning of bands and bars.
    """
    figure.supxlabel(text, x=0.008, ha="left", fontsize=6.5, color=MUTED)


def variant_styles(variants: Sequence[str]) -> dict[str, Style]:
    """Return the style of each variant of a figure, no two alike.

    A variant that VARIANT_STYLES does not list gets the style that a hash of its name selects, or
    the next one whose colour, line and marker are the least used in this figure.
    """
    chosen = {name: VARIANT_STYLES[name] for name in variants if name in VARIANT_STYLES}
    for name in variants:
        if name not in chosen:
            start = zlib.crc32(name.encode()) % len(STYLES)
            used_styles = set(chosen.values())
            free = [style for style in STYLES[start:] + STYLES[:start] if style not in used_styles]
            if not free:
                raise UserError(f"{len(variants)} variants in a figure: at most {len(STYLES)}")
            used = Counter(part for style in chosen.values() for part in style)
            chosen[name] = min(free, key=lambda style: [used[part] for part in style])
    return chosen
