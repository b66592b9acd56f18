"""Figures that are drawn, the texts that they show, and where these stand."""

from collections.abc import Iterator
from types import ModuleType

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def shown_texts(figure: Figure) -> Iterator[Text]:
    """Every text that can be seen: no label of a tick beyond its axis."""
    yield from figure.texts
    for axes in figure.axes:
        yield from (*axes.texts, axes._left_title, axes.xaxis.label, axes.yaxis.label)
        if legend := axes.get_legend():
            yield from legend.get_texts()
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if low <= tick.get_loc() <= high:
                    yield from (tick.label1, tick.label2)


def text_boxes(figure: Figure) -> list[tuple[str, Bbox]]:
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    return [
        (text.get_text(), text.get_window_extent(renderer))
        for text in shown_texts(figure)
        if text.get_text().strip() and text.get_visible()
    ]


def assert_no_overlaps(figure: Figure) -> None:
    boxes = text_boxes(figure)
    page = figure.bbox
    for index, (text, box) in enumerate(boxes):
        assert box.x0 >= page.x0 - 1, text
        assert box.x1 <= page.x1 + 1, text
        for other, against in boxes[:index]:
            assert not box.shrunk(0.96, 0.9).overlaps(against.shrunk(0.96, 0.9)), (text, other)


def kept_figures(monkeypatch: pytest.MonkeyPatch, words: str, *modules: ModuleType) -> list[Figure]:
    """A list of the figures that the modules draw from now on, which keep what they render.

    No texts of a figure overlap, and its description has the words.
    """
    figures: list[Figure] = []

    def keep(figure: Figure, kind: str, description: str) -> bytes:
        FigureCanvasAgg(figure)
        figures.append(figure)
        assert words in description
        assert_no_overlaps(figure)
        return b""

    for module in modules:
        monkeypatch.setattr(module.study_figure, "render", keep)
    return figures
