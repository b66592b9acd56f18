"""Every claim at every scale: the matrix of results/across.png, and ACROSS.md."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.figure_texts import kept_figures, text_boxes
from helpers.made_up_settings import SETTINGS, claim_effects, made_up
from helpers.project import ROOT
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from sepablate.analysis import across, effects, robustness
from sepablate.errors import UserError
from sepablate.plots import across_matrix, forest, specification_curve
from sepablate.report import across as report
from sepablate.store import layout
from sepablate.study.study import METRICS

OUTCOMES = [*forest.OUTCOME_STYLES, *specification_curve.CARRYING_STYLES]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn, kept instead of rendered."""
    return kept_figures(monkeypatch, "verdicts of", across_matrix)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> across.Across:
    """The committed verdicts on the paper's claims."""
    monkeypatch.chdir(ROOT)
    return across.read(["laptop"]).of_report(layout.REPORT)


def with_another_scale(read: across.Across) -> across.Across:
    """With a made-up column, so that every outcome is there, and with long numbers."""
    verdicts, carrying = list(forest.OUTCOME_STYLES), list(specification_curve.CARRYING_STYLES)
    pooled, new = read.columns.index(("laptop", across.OVER_SETTINGS)), len(read.columns)
    cells = []
    for row, before in enumerate(read.cells):
        mean = (-1) ** row * 0.1888 / (1 + row)
        cell = across.Cell(mean, mean - 0.22, mean + 0.22, verdicts[row % len(verdicts)], 6)
        cells.append({**before, new: cell})
    for outcome, row in zip(carrying, (c for c in cells if pooled in c), strict=True):
        row[pooled] = dataclasses.replace(row[pooled], outcome=outcome)
    columns = (*read.columns, ("workstation", "cifar10"))
    return dataclasses.replace(read, columns=columns, cells=tuple(cells))


def test_the_matrix_has_a_cell_for_each_verdict(drawn: list[Figure], read: across.Across) -> None:
    verdicts = json.loads((ROOT / "results/laptop/verdicts.json").read_text())
    assert len(read.claims) == len(verdicts)
    for cells, verdict in zip(read.cells, verdicts, strict=True):
        assert cells[0].outcome == verdict["outcome"]
        assert cells[0].mean == verdict["measured"]["mean"]
    across_matrix.draw(read, "png")
    shown = [text for text, _ in text_boxes(drawn[-1])]
    for verdict in verdicts:
        n = len(verdict["measured"]["seeds"])
        assert f"{verdict['outcome']}, n = {n}" in shown


def test_each_outcome_has_a_symbol_of_its_own(drawn: list[Figure], read: across.Across) -> None:
    """In its cells the one of the legend, filled or not, apart from all texts."""
    assert len(set(across_matrix.MARKERS.values())) == len(OUTCOMES)
    across_matrix.draw(with_another_scale(read), "png")
    (axis,) = drawn[-1].axes
    legend = axis.get_legend()
    assert legend is not None
    lines = [line for line in axis.lines if len(line.get_xdata())]
    keys = {
        text.get_text(): key
        for text, key in zip(legend.get_texts(), legend.get_lines(), strict=True)
    }
    assert {*keys} == {*OUTCOMES}
    shown = text_boxes(drawn[-1])
    found = set()
    for line in lines:
        x, y = axis.transData.transform(line.get_xydata()[0])
        half = drawn[-1].dpi * (line.get_markersize() / 2 + line.get_markeredgewidth()) / 72
        box = Bbox([[x - half, y - half], [x + half, y + half]])
        assert not [text for text, other in shown if box.overlaps(other)]
        same_row = [(t, b) for t, b in shown if b.y0 < y < b.y1 and b.x0 - x > 0]
        outcome = min(same_row, key=lambda each: each[1].x0)[0].partition(",")[0]
        assert line.get_marker() == keys[outcome].get_marker()
        hollow = [each.get_markerfacecolor() == "none" for each in (line, keys[outcome])]
        assert hollow == [outcome in across_matrix.HOLLOW] * 2
        found.add(outcome)
    assert found == {*OUTCOMES}


def test_texts_are_read_on_every_colour() -> None:
    """With 4.5:1, as WCAG 2.1 asks for small texts."""

    def luminance(colour: str) -> float:
        c = np.array(to_rgb(colour))
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    inks = set()
    for difference in np.linspace(-0.3, 0.3, 61):
        colour = across_matrix.colour_of(difference)
        ink = across_matrix.ink_on(colour)
        darker, lighter = sorted((luminance(colour), luminance(ink)))
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (difference, colour)
        inks.add(ink)
    assert inks == {"black", "white"}


def test_colours_have_the_sign_of_the_difference() -> None:
    above, none, below = (across_matrix.colour_of(each) for each in (0.05, 0.0, -0.05))
    blue, orange = (int(each[5:], 16) - int(each[1:3], 16) for each in (above, below))
    assert blue > 0 > orange
    assert across_matrix.colour_of(0.2) == across_matrix.colour_of(0.5)
    assert none != across_matrix.colour_of(np.nan) or none == "#ffffff"


def test_across_needs_no_runs_and_no_experiments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for scale in ("laptop", "other"):
        Path(f"results/{scale}").mkdir(parents=True)
        text = (ROOT / "results/laptop/verdicts.json").read_text()
        Path(f"results/{scale}/verdicts.json").write_text(
            text if scale == "laptop" else text.replace("fashion_mnist", "cifar10")
        )
    with monkeypatch.context() as patch:
        patch.chdir(ROOT)
        claims = [robustness.judge(claim_effects(lambda levels: 0.02), made_up())]
    Path("results/laptop/robustness").mkdir()
    Path("results/laptop/robustness/carrying.json").write_text(effects.to_json(claims))
    report.outputs(["laptop", "other"])
    text = Path("results/ACROSS.md").read_text()
    assert "laptop, Fashion-MNIST | laptop, over settings | other, CIFAR-10 | Paper" in text
    assert f"k = {SETTINGS + 1}, **carries**" in text
    assert "+0.80" in text
    speed = [line for line in text.splitlines() if "| mean of the curve |" in line]
    assert [line.count("not pooled") for line in speed] == [1, 1, 1]
    assert "not run" not in text
    assert [across.read(["laptop"]).missing(column) for column in (0, 1)] == [
        "not run",
        "not pooled",
    ]
    assert Path("results/across.svg").is_file()
    with pytest.raises(UserError, match="no verdicts"):
        report.outputs(["laptop", "another"])
    Path("results/laptop/robustness/carrying.json").write_text("[{}]")
    with pytest.raises(UserError, match="not how far claims carry"):
        report.outputs(["laptop"])
    Path("results/other/verdicts.json").write_text('[{"outcome": "holds"}]')
    with pytest.raises(UserError, match="not the verdicts of a report"):
        report.outputs(["other"])


def test_metrics_and_data_sets_have_words_of_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = report.markdown(across.read(["laptop"]))
    assert not re.findall(r"(?<!`results/laptop/)\b\w+_\w+", text)
    assert {*report.METRICS} == {*METRICS}
    for words in ("laptop, boxes of garments", "mAP", "score per mult-add", "MAP@100"):
        assert f"| {words} |" in text
