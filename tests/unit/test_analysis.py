"""From run folders to tables, figures, verdicts and the report, on small made-up runs."""

import itertools
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.made_up_runs import IMAGES, make_runs
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from scipy import stats

from sepablate import study
from sepablate.analysis import (
    effects,
    formatting,
    learning_curves,
    load_runs,
    metrics,
)
from sepablate.analysis.effects import Divergence
from sepablate.paper import xception as paper
from sepablate.plots import point_labels, scores_against, style
from sepablate.report import outputs

STUDIES = study.names()
MAIN = ["xception_vs_inception", "residual_connections", "pointwise_activation"]
MANY = "xception_vs_inception_multilabel"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The declared studies and made-up runs of all their variants; the working folder."""
    shutil.copytree(study.FOLDER, tmp_path / "experiments")
    monkeypatch.chdir(tmp_path)
    for name in study.variants():
        make_runs(name)
    return tmp_path


def final(name, metric="final/test_accuracy_averaged"):
    """The final accuracies of a variant by seed, read without the package."""
    files = sorted((Path("results/tiny/runs") / name).glob("*.csv"))
    rows = pd.concat(map(pd.read_csv, files))
    return rows[rows.metric == metric].set_index("seed").value


def test_table_against_pandas(project):
    make_runs("no_residual", diverged=[2])
    outputs.study_outputs("residual_connections", "tiny")
    found = pd.read_csv("results/tiny/residual_connections/table.csv").set_index("variant")
    for name in found.index:
        own, differences = final(name), (final(name) - final("xception")).dropna()
        assert found.accuracy[name] == pytest.approx(own.mean())
        assert found.raw_accuracy[name] == pytest.approx(own.mean() - 0.01)
        assert found.difference[name] == pytest.approx(differences.mean())
        assert found.n[name] == len(own) == (5 if name == "no_residual" else 6)
    half = (found.accuracy_high - found.accuracy_low) / 2
    assert half["xception"] == pytest.approx(2.5705818 * final("xception").sem())
    text = Path("results/tiny/residual_connections/table.md").read_text()
    assert "5; seed 2 diverged at step 5" in text
    assert f"| {100 * final('no_residual').mean():.2f} [" in text
    assert "| 2.50 | 1e-5 |" in text


@pytest.mark.parametrize(("score", "named"), [(0.1, True), (0.163, True), (0.164, False)])
def test_a_run_that_scores_like_a_guess_is_named(project, score, named):
    """Of 203 images in 10 classes: the third binomial standard error is at 0.1632."""
    path = Path("results/tiny/runs/no_residual/seed-3.csv")
    rows = pd.read_csv(path, dtype=str)
    rows.loc[rows.metric == "final/test_accuracy_averaged", "value"] = str(score)
    rows.to_csv(path, index=False)
    outputs.study_outputs("residual_connections", "tiny")
    text = Path("results/tiny/residual_connections/table.md").read_text()
    assert ("| 6; seed 3 at chance |" in text) == named
    assert text.count("at chance") == named
    found = pd.read_csv("results/tiny/residual_connections/table.csv").set_index("variant")
    assert found.accuracy["no_residual"] == pytest.approx(final("no_residual").mean())  # it counts


def test_claims_against_the_files(project):
    make_runs("no_residual", diverged=[2])
    outputs.study_outputs("residual_connections", "tiny")
    path = Path("results/tiny/residual_connections/claims.json")
    accuracy, speed = effects.read(path)
    assert effects.to_json([accuracy, speed]) == path.read_text()
    expected = (final("xception") - final("no_residual")).dropna()
    assert accuracy.seeds == speed.seeds == (0, 1, 3, 4, 5)
    assert accuracy.differences == pytest.approx(expected.tolist())
    assert accuracy.images_low < accuracy.mean < accuracy.images_high
    assert (accuracy.images_low + accuracy.images_high) / 2 == pytest.approx(accuracy.mean)
    assert accuracy.diverged == (Divergence("no_residual", "No shortcuts", 2, 5),)
    curve = [
        pd.read_csv(f"results/tiny/runs/{name}/seed-0.csv")
        .query("metric == 'validation/accuracy'")
        .value.mean()
        for name in ("xception", "no_residual")
    ]
    assert speed.differences[0] == pytest.approx(curve[0] - curve[1])
    assert math.isnan(speed.images_low)


def test_many_labels_are_scored_by_their_precision(project):
    make_runs("inception_v3_multilabel", diverged=[2])
    outputs.study_outputs(MANY, "tiny")
    table = pd.read_csv(f"results/tiny/{MANY}/table.csv").set_index("variant")
    own = final("xception_multilabel", "final/test_map_100_averaged")
    theirs = final("inception_v3_multilabel", "final/test_map_100_averaged")
    assert table.map_100["xception_multilabel"] == pytest.approx(own.mean())
    assert table.raw_map_100["xception_multilabel"] == pytest.approx(own.mean() - 0.01)
    assert not [column for column in table if "accuracy" in column]
    assert "Test MAP@100 (%)" in Path(f"results/tiny/{MANY}/table.md").read_text()
    curve = pd.read_csv(f"results/tiny/{MANY}/curves.csv")
    columns = learning_curves.columns(metrics.TASK_METRICS["multi_label"])
    assert list(curve.columns) == [*columns, "colour"]
    assert curve.validation_map_100.between(0.6, 0.9).all()
    first, *_ = effects.read(Path(f"results/tiny/{MANY}/claims.json"))
    assert first.differences == pytest.approx((own - theirs).dropna().tolist())
    runs, seeds = Path("results/tiny/runs"), (0, 1, 3, 4, 5)
    left, right = (
        np.stack([np.fromfile(runs / name / f"seed-{k}.precision.bin", "<f4") for k in seeds])
        for name in ("xception_multilabel", "inception_v3_multilabel")
    )
    images = (left.astype(float) - right).mean(0)
    expected = stats.t.interval(0.95, IMAGES - 1, images.mean(), stats.sem(images))
    assert (first.images_low, first.images_high) == pytest.approx(expected)


def test_a_study_of_two_tasks_is_refused(project):
    path = Path("results/tiny/runs/no_residual/config.json")
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "task": "multi_label"}))
    with pytest.raises(ValueError, match="no_residual is of task multi_label, xception of single"):
        outputs.study_outputs("residual_connections", "tiny")
    path.write_text(json.dumps({**config, "task": "two_labels"}))
    with pytest.raises(
        ValueError, match="task 'two_labels'; run `sepablate train no_residual --scale tiny`"
    ):
        outputs.study_outputs("residual_connections", "tiny")


def test_a_claim_on_the_other_task_s_score_is_refused(project):
    runs = load_runs.load_runs(study.load(MANY).all_variants, "tiny")
    assert set(runs.scores("speed").columns) == {
        each.name for each in study.load(MANY).all_variants
    }
    with pytest.raises(ValueError, match=r"metric 'accuracy' of runs of .*: choose map_100, speed"):
        runs.scores("accuracy")


def test_report_names_every_claim_and_divergence(project):
    make_runs("no_residual", diverged=[2])
    for name in MAIN:
        outputs.study_outputs(name, "tiny")
    outputs.report_outputs(MAIN, "tiny")
    report = Path("results/tiny/REPORT.md").read_text()
    decided = json.loads(Path("results/tiny/verdicts.json").read_text())
    declared = [claim for name in MAIN for claim in study.load(name).claims]
    assert len(decided) == len(declared)
    assert all(claim.statement[1:] in report for claim in declared)
    assert "Seed 2 of No shortcuts diverged at step 5" in report
    assert "22,855,952" in report
    assert "| `batch_size` | 64 | not given |" in report
    assert "nan" not in report.lower().replace("finan", "")


def test_outputs_are_the_same_bytes_when_made_again(project):
    written = []
    for _ in range(2):
        outputs.study_outputs("pointwise_activation", "tiny")
        outputs.report_outputs(["pointwise_activation"], "tiny")
        files = [path for path in sorted(Path("results/tiny").glob("*/*.*")) if path.is_file()]
        written.append({path: path.read_bytes() for path in [*files, *Path().rglob("REPORT.md")]})
        shutil.rmtree("results/tiny/pointwise_activation")
    assert len(written[0]) == 9
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda runs: shutil.rmtree(runs / "elu_between"),
            "config.json: missing; run `sepablate t",
        ),
        (lambda runs: (runs / "elu_between/seed-3.csv").unlink(), "seed-3.csv: missing"),
        (lambda runs: (runs / "elu_between/seed-0.correct.bin").unlink(), "correct.bin: missing"),
        (lambda runs: make_runs("elu_between", range(5)), "seeds of elu_between"),
        (
            lambda runs: swap(runs, "0000000000000003", "00000000000000ff"),
            "run_key 00000000000000f",
        ),
        (lambda runs: swap(runs, "final/test_accuracy_averaged", "other"), "no final result"),
        (lambda runs: swap(runs, ",6,validation", ",7,validation"), "evaluation steps of elu_"),
    ],
)
def test_broken_runs_are_refused_with_the_command_that_helps(project, damage, message):
    damage(project / "results/tiny/runs")
    with pytest.raises(ValueError, match=message) as caught:
        outputs.study_outputs("pointwise_activation", "tiny")
    assert "`sepablate train elu_between --scale tiny`" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_precision_file_of_another_length_is_refused(project):
    path = Path("results/tiny/runs/xception_multilabel/seed-1.precision.bin")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"precision.bin: 808 bytes for 203 images; run `sepab"):
        outputs.study_outputs(MANY, "tiny")


@pytest.mark.parametrize(("name", "claims"), [("borders", 1), ("residual_connections", 2)])
def test_a_report_counts_its_claims_in_words_that_fit_the_number(project, name, claims):
    assert len(study.load(name).claims) == claims
    outputs.study_outputs(name, "tiny")
    outputs.report_outputs([name], "tiny")
    text = " ".join(Path("results/tiny/REPORT.md").read_text().split())
    page = Path("results/tiny/report.html").read_text()
    assert not re.search(r"\b1 claims\b", text + page)
    assert ("With one claim there is nothing to correct for." in text) == (claims == 1)
    for words in ("| For all 2 claims |", "over the 2 claims of", "Intervals for all 2 claims are"):
        assert (words in text) == (claims == 2)
    for words in ("| For the one claim |", "over the one claim of", "for the one claim at once ["):
        assert (words in text) == (claims == 1)


def swap(runs, old, new):
    path = runs / "elu_between/seed-3.csv"
    path.write_text(path.read_text().replace(old, new))


def test_a_report_without_its_studies_says_what_to_run(project):
    with pytest.raises(ValueError, match="run `sepablate study residual_connections --scale tiny`"):
        outputs.report_outputs(["residual_connections"], "tiny")


@pytest.mark.filterwarnings("error")
def test_runs_that_all_diverged_leave_gaps_not_errors(project):
    for lost in (["no_residual"], ["xception", "no_residual", "no_residual_wide"]):
        for name in lost:
            make_runs(name, diverged=range(6))
        outputs.study_outputs("residual_connections", "tiny")
        outputs.report_outputs(["residual_connections"], "tiny")
        report = Path("results/tiny/REPORT.md").read_text()
        assert report.count("**inconclusive**") == 2
        assert "| – [–, –] |" in report


def test_a_variant_looks_the_same_in_every_figure_and_no_two_look_alike_in_one():
    everywhere = {}
    for name in STUDIES:
        found = style.variant_styles([variant.name for variant in study.load(name).all_variants])
        for part in zip(*found.values(), strict=True):
            assert len(set(part)) == len(found), (name, part)
        for variant, look in found.items():
            assert everywhere.setdefault(variant, look) == look
    many = style.variant_styles([f"unknown_{index}" for index in range(40)])
    assert len(set(many.values())) == 40


@pytest.mark.parametrize("name", ["mobilenet_v1", "channel_segments"])
def test_final_scores_against_a_field_of_the_config(project, name):
    each = study.load(name)
    make_runs(each.variants[0].name, diverged=[4])
    runs = load_runs.load_runs(each.all_variants, "tiny")
    places = scores_against.positions(runs.configs, each.against)
    axis = Figure(figsize=(3, 3.6)).subplots()
    assert scores_against.scores_against(runs, each.against, places, axis) is axis
    assert axis.get_xscale() == "log"
    strokes, intervals, means = axis.lines[::3], axis.lines[1::3], axis.lines[2::3]
    for variant, *drawn in zip(each.all_variants, strokes, intervals, means, strict=True):
        values = 100 * final(variant.name)
        assert sorted(drawn[0].get_ydata()) == pytest.approx(sorted(values))
        expected = stats.t.interval(0.95, len(values) - 1, values.mean(), values.sem())
        assert list(drawn[1].get_ydata()) == pytest.approx(expected)
        assert list(drawn[2].get_ydata()) == pytest.approx([values.mean()])
        assert {x for line in drawn for x in line.get_xdata()} == {places[variant.name]}
    assert "6 seeds" in axis.get_title()


def test_no_segments_stand_beyond_the_most_and_are_named(project):
    each = study.load("channel_segments")
    runs = load_runs.load_runs(each.all_variants, "tiny")
    places = scores_against.positions(runs.configs, each.against)
    assert [places[f"segments_{count}"] for count in (1, 2, 32)] == [1, 2, 32]
    assert places["segments_all"] > 2 * 32
    axis = Figure().subplots()
    scores_against.scores_against(runs, each.against, places, axis)
    axis.get_figure().draw_without_rendering()
    ticks = [label.get_text().replace("\n", " ") for label in axis.get_xticklabels()]
    assert ticks == ["1", "2", "4", "8", "16", "32", "one per channel"]


def test_against_wants_a_positive_number_of_every_variant():
    for number, said in (
        (None, "no number"),
        ("x", "no number"),
        (0, "log axis"),
        (-1, "log axis"),
    ):
        with pytest.raises(ValueError, match=f"against 'mult_adds'.* b.*{said}"):
            scores_against.positions(
                {"a": {"mult_adds": 5}, "b": {"mult_adds": number}}, "mult_adds"
            )


@pytest.mark.parametrize("seed", range(4))
def test_names_of_points_cover_nothing(seed):
    draw = np.random.default_rng(seed)
    axis = Figure(figsize=(4, 4)).subplots()
    axis.set(xlim=(0, 1), ylim=(0, 1))
    places = draw.permutation(9)[:5]  # of a grid
    points = [
        point_labels.Point(f"point {k}", "black", x, y, y - 0.02, y + 0.02)
        for k, (x, y) in enumerate((0.2 + 0.3 * (at % 3), 0.2 + 0.3 * (at // 3)) for at in places)
    ]
    points += [points[0]._replace(name="near", x=points[0].x + 0.02)]
    point_labels.place_labels(points, axis)
    axis.get_figure().draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axis.texts]
    assert [text.get_text() for text in axis.texts] == [point.name for point in points]
    for one, other in itertools.combinations(boxes, 2):
        assert Bbox.intersection(one, other) is None
    for point, box in itertools.product(points, boxes):
        assert not box.contains(*axis.transData.transform((point.x, point.y)))


def test_networks_of_both_tasks_share_their_colour():
    for name in ("xception", "inception_v3"):
        assert style.VARIANT_STYLES[f"{name}_multilabel"] == style.VARIANT_STYLES[name]


def test_markdown_and_published_numbers():
    assert formatting.markdown_table(["a|b"], [["c"]]) == "| a\\|b |\n| --- |\n| c |\n"
    assert formatting.percent(-0.01234) == "−1.23"
    assert formatting.percent(-0.001, "+", 0) == "+0"
    gap = paper.TABLE_3["Inception V3"].parameters / paper.TABLE_3["Xception"].parameters - 1
    assert 0.03 < gap < 0.035  # "within 3.5 %", section 4.5.2
