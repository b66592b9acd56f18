"""Figures that can stand alone: palette, labels, footers, learning rates, constant scores."""

import itertools
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from helpers.made_up_runs import STEPS, make_runs
from helpers.project import ROOT
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from sepablate import study
from sepablate.analysis import effects, learning_curves, load_runs, verdicts
from sepablate.errors import UserError
from sepablate.plots import forest, study_figure, style
from sepablate.provenance.embedded_keys import read_run_keys
from sepablate.report import outputs

MANY = "xception_vs_inception_multilabel"
LIKE_PAPER = {number: name for name in study.names() for number in study.load(name).figures}
# Machado, Oliveira and Fernandes 2009, doi:10.1109/TVCG.2009.113, severity 1.0; for linear RGB.
SEEN = {
    "by all": np.eye(3),
    "without red cones": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "without green cones": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
XYZ = np.array(  # of linear sRGB, IEC 61966-2-1, with D65's white
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
WHITE = np.array([0.95047, 1.0, 1.08883])


def linear(colour):
    channels = np.array(to_rgb(colour))
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast_on_white(colour):
    """WCAG 2.1's contrast ratio."""
    return 1.05 / (linear(colour) @ [0.2126, 0.7152, 0.0722] + 0.05)


def lab(rgb):
    """CIE 1976 L*a*b* of a linear colour."""
    x = XYZ @ np.clip(rgb, 0, 1) / WHITE
    f = np.where(x > 216 / 24389, np.cbrt(x), (24389 / 27 * x + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def least_distance(colours):
    """The smallest CIE76 difference of two colours, to whichever reader sees it the smallest."""
    return min(
        float(np.linalg.norm(lab(view @ linear(one)) - lab(view @ linear(other))))
        for view in SEEN.values()
        for one, other in itertools.combinations(colours, 2)
    )


def test_the_formulas_give_known_values():
    assert contrast_on_white("black") == pytest.approx(21)
    assert contrast_on_white("#777777") == pytest.approx(4.48, abs=0.005)  # the usual example
    assert lab(linear("white")) == pytest.approx([100, 0, 0], abs=0.01)
    assert lab(linear("#0000FF")) == pytest.approx([32.3, 79.19, -107.86], abs=0.02)
    red, green = "#FF0000", "#9C8500"  # alike without green cones
    assert least_distance([red, green]) < 15 < np.linalg.norm(lab(linear(red)) - lab(linear(green)))


def test_every_colour_stands_out_on_white():
    styles = [*style.STYLES, *style.VARIANT_STYLES.values(), *forest.OUTCOME_STYLES.values()]
    colours = {each.colour for each in styles} | {style.MUTED, forest.SECTION}
    colours |= {forest.BAND["edgecolor"]}
    low = {colour: contrast_on_white(colour) for colour in colours if contrast_on_white(colour) < 3}
    assert not low


def test_colours_are_told_apart_without_red_or_green_cones():
    assert least_distance(style.COLOURS) > 25
    assert least_distance([each.colour for each in forest.OUTCOME_STYLES.values()]) > 10
    for name in study.names(ROOT / "experiments"):
        variants = study.load(name, ROOT / "experiments").all_variants
        styles = style.variant_styles([each.name for each in variants])
        assert least_distance([each.colour for each in styles.values()]) > 10, name


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    home = tmp_path_factory.mktemp("figures")
    shutil.copytree(study.FOLDER, home / "experiments")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for name in study.variants():
            make_runs(name)
        yield home


@pytest.fixture
def drawn(project, monkeypatch):
    """A function that returns the figure of a study, as it is drawn."""
    made = []
    monkeypatch.setattr(study_figure, "render", lambda figure, *_: made.append(figure) or b"")

    def draw(name, number=None):
        declared = study.load(name)
        runs = load_runs.load_runs(declared.all_variants, "tiny")
        if number is None:
            study_figure.draw(runs, "png", declared.against)
        else:
            study_figure.draw_like_paper(runs, declared, number, "png")
        return made[-1]

    return draw


def texts(figure: Figure):
    """All texts, without the ticks' that are outside the view."""
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    ticks = [
        (tick.label1, low <= tick.get_loc() <= high)
        for each in figure.axes
        for axis in (each.xaxis, each.yaxis)
        for low, high in [sorted(axis.get_view_interval())]
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    ]
    hidden = {label for label, inside in ticks if not inside}
    return [text for text in found if text not in hidden]


WITHOUT_POINTS = [name for name in study.names() if study.load(name).against != "mult_adds"]


@pytest.mark.parametrize("name", WITHOUT_POINTS)
def test_no_two_labels_of_a_figure_overlap(drawn, name):
    """Those of the points of a figure are placed, and tested, by `point_labels`."""
    check_labels(drawn(name))


@pytest.mark.parametrize("number", LIKE_PAPER)
def test_no_two_labels_of_a_figure_like_the_papers_overlap(drawn, number):
    check_labels(drawn(LIKE_PAPER[number], number))


def check_labels(figure: Figure):
    figure.draw_without_rendering()
    boxes = {text: text.get_window_extent() for text in texts(figure)}
    inside = figure.bbox.padded(1)
    for text, box in boxes.items():
        assert inside.contains(box.x0, box.y0), text
        assert inside.contains(box.x1, box.y1), text
    for (one, box), (other, second) in itertools.combinations(boxes.items(), 2):
        assert Bbox.intersection(box.shrunk(0.95, 0.95), second) is None, (one, other)


def test_a_figure_says_what_it_shows(drawn):
    footer = drawn("pointwise_activation").get_supxlabel()
    assert footer == (
        "toys, 28 x 28 x 1, 12,000 training images, epochs: 0.5; scale tiny; n = 6 seeds.\n"
        "Band and bars: 95 % Student's t interval of the mean over seeds."
    )


def test_each_figure_of_curves_of_the_paper_has_its_like():
    assert sorted(LIKE_PAPER) == [6, 7, 8, 9, 10]


def test_a_figure_of_variants_that_a_study_does_not_have_is_refused():
    with pytest.raises(UserError, match="figure 9 of 'resnet': choose xception, no_residual, no_r"):
        replace(study.load("residual_connections"), figures={9: ("xception", "resnet")})


def test_a_figure_like_the_papers_shows_what_that_one_compares(drawn):
    figure = drawn("pointwise_activation", 10)
    profile, text = figure.axes
    assert profile.get_title(loc="left") == "Like figure 10 of the paper"
    assert profile.get_xlabel() == "Gradient steps"
    assert profile.get_ylabel() == "Validation accuracy (%), raw weights"
    labels = [each.get_text() for each in text.get_legend().get_texts()]
    assert labels == ["Xception", "ReLU between", "ELU between"]
    runs = load_runs.load_runs(study.load("pointwise_activation").all_variants, "tiny")
    curves = learning_curves.profile(runs.frame, runs.metric)
    assert len(profile.lines) == len(profile.collections) == len(labels)
    for line, label in zip(profile.lines, labels, strict=True):
        rows = curves[curves.label == label]
        assert line.get_xdata() == pytest.approx(STEPS)
        assert line.get_ydata() == pytest.approx(100 * rows.validation_accuracy)
    (claims,) = text.texts
    assert claims.get_text().count("– No activation between depthwise and\n") == 4
    assert figure.get_supxlabel() == (
        "toys, 28 x 28 x 1, 12,000 training images, epochs: 0.5; scale tiny; n = 6 seeds.\n"
        "Band: 95 % Student's t interval of the mean over seeds."
    )


def test_a_figure_like_the_papers_says_in_the_report_and_in_the_file_what_it_shows(project):
    outputs.study_outputs("residual_connections", "tiny")
    outputs.report_outputs(["residual_connections"], "tiny")
    folder = Path("results/tiny/residual_connections")
    table = read_run_keys(folder / "table.csv")
    for kind in ("png", "svg"):
        shown = read_run_keys(folder / f"like_figure_9.{kind}")
        assert shown == {name: table[name] for name in ("xception", "no_residual")}
    text, page = (Path("results/tiny", name).read_text() for name in ("REPORT.md", "report.html"))
    alternative = "Like figure 9 of the paper: validation accuracy against gradient steps, "
    alternative += "of Xception, No shortcuts"
    figure = f"![{alternative}](residual_connections/like_figure_9.png)"
    assert text.index("| Xception |") < text.index(figure) < text.index("- *With shortcuts")
    assert f'alt="{alternative}. curves.csv has the numbers."' in page
    assert '>curves.csv</a>, <a href="residual_connections/like_figure_9.svg">' in page


def test_the_learning_rate_is_one_line_where_all_share_it_and_else_one_each(drawn):
    _, rate, _ = drawn("pointwise_activation").axes
    (line,) = rate.lines
    assert line.get_color() == style.MUTED
    assert line.get_xdata() == pytest.approx((0, *STEPS))
    assert line.get_ydata() == pytest.approx([0.045, *(0.045 * 0.94**step for step in STEPS)])
    assert rate.get_yscale() == "log"
    _, rate, _ = drawn("residual_learning_rate").axes
    assert [line.get_ydata()[0] for line in rate.lines] == [0.045, 0.015]
    styles = style.variant_styles(["xception", "no_residual_tuned"]).values()
    assert [line.get_color() for line in rate.lines] == [each.colour for each in styles]


def test_constant_scores_are_lines_on_both_axes_of_the_multi_label_figure_only(drawn):
    profile, _, final = drawn(MANY).axes
    assert profile.lines[-1].get_label() == "Constant scores"
    assert set(profile.lines[-1].get_ydata()) == {62.7}
    assert set(final.lines[-1].get_xdata()) == {62.9}
    assert profile.get_ylim()[0] < 62.7
    low, high = final.get_xlim()
    assert low < 62.9 < high
    profile, _, _ = drawn("pointwise_activation").axes
    assert "Constant scores" not in [line.get_label() for line in profile.lines]


def test_a_scorecard_says_what_it_shows(project):
    make_runs("no_residual", diverged=[2])
    outputs.study_outputs("residual_connections", "tiny")
    outputs.report_outputs(["residual_connections"], "tiny")
    make_runs("no_residual")
    text = " ".join(re.findall("<!-- (.*?) -->", Path("results/tiny/scorecard.svg").read_text()))
    assert "toys; scale tiny; n = 5 paired seeds. * †: see the report." in text
    assert "Thick: 95 % Student's t interval over seeds; thin: corrected for 2 claims." in text


def test_many_claims_stand_in_two_columns_of_one_scale(monkeypatch):
    figures = []
    monkeypatch.setattr(study_figure, "render", lambda figure, *_: figures.append(figure) or b"")
    names = ("channel_segments", "operation_order", "mobilenet_v1", "separable_example", MANY)
    paths = [ROOT / f"results/laptop/{name}/claims.json" for name in names]
    claims = [each for path in paths for each in effects.read(path)]
    forest.draw(verdicts.decide(claims), "png", "")
    figures[0].draw_without_rendering()
    left, right = figures[0].axes
    assert (len(left.collections), len(right.collections)) == (9, 9)
    assert left.get_xlim() == right.get_xlim()
    assert left.get_ylim() == right.get_ylim()
    ends, starts = (
        [getattr(text.get_window_extent(), end) for text in axis.texts]
        for axis, end in ((left, "x1"), (right, "x0"))
    )
    assert max(ends) < min(starts)
    assert max(text.get_window_extent().x1 for text in right.texts) < figures[0].bbox.x1


def test_fonts_of_the_system_change_no_figure(tmp_path):
    """As where matplotlib's list of fonts, in a cache, has only those of the system."""
    system = tmp_path / "DejaVuSans.ttf"
    shutil.copy(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans-Bold.ttf"), system)
    code = f"""
from matplotlib import font_manager as fonts
font = fonts.ttfFontProperty(fonts.get_font({str(system)!r}))
manager = fonts.fontManager
manager.ttflist = [fonts.FontEntry({str(system)!r}, "DejaVu Sans", "normal", "normal", 400)]
import sepablate.plots.style
print(fonts.findfont("DejaVu Sans"), fonts.findfont("STIXGeneral"), sep="\\n")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = Path(matplotlib.get_data_path()).resolve()  # the environment may be a link
    assert all(Path(line).resolve().is_relative_to(ours) for line in done.stdout.splitlines())
    assert done.stderr == ""


def test_the_four_verdicts_differ_in_shape_and_colour():
    assert len({style.marker for style in forest.OUTCOME_STYLES.values()}) == 4
    assert len({style.colour for style in forest.OUTCOME_STYLES.values()}) == 4
