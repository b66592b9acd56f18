"""The figures of detectors: which boxes are right, and that both panels show what they say."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.made_up_runs import make_runs
from helpers.project import ROOT
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sepablate import study
from sepablate.analysis import load_runs, statistics
from sepablate.paper.mobilenets import TABLE_13
from sepablate.plots import detections
from sepablate.store import layout


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> load_runs.Runs:
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    monkeypatch.chdir(tmp_path)
    declared = study.load("mobilenet_detection")
    for variant in declared.all_variants:
        make_runs(variant.name)
    return load_runs.load_runs(declared.all_variants, "tiny")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1),
        ([0, 0, 2, 2], [1, 0, 3, 2], 1 / 3),
        ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7),
        ([0, 0, 2, 2], [2, 0, 4, 2], 0),
    ],
)
def test_overlap_of_boxes(first: list[float], second: list[float], expected: float) -> None:
    assert detections._iou(first, second) == pytest.approx(expected)


def test_a_scene_marks_right_and_wrong_boxes(runs: load_runs.Runs) -> None:
    path = layout.seed_examples("tiny", "ssd_xception", 0)
    axis = Figure().subplots()
    detections._scene(json.loads(path.read_text())[1], axis)
    drawn = [
        (patch.get_edgecolor(), patch.get_linestyle())
        for patch in axis.patches
        if isinstance(patch, Rectangle)
    ]
    colours = [detections.TRUE, detections.RIGHT, detections.WRONG]
    expected = [tuple(int(each[i : i + 2], 16) / 255 for i in (1, 3, 5)) for each in colours]
    assert [colour[:3] for colour, _ in drawn] == [pytest.approx(each) for each in expected]
    assert [line == "-" for _, line in drawn] == [True, True, False]


def test_scenes_say_of_which_data_and_run_they_are(
    runs: load_runs.Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(detections, "render", lambda figure, *_: figures.append(figure) or b"")
    examples = {
        name: json.loads(layout.seed_examples("tiny", name, 0).read_text()) for name in runs.configs
    }
    detections.draw_examples(runs, examples, "png")
    footer = figures[0].get_supxlabel()
    assert footer.startswith(
        "shelves; scale tiny; averaged weights of seed 0; scores of at least 0.3."
    )


def test_both_panels_show_their_numbers(
    runs: load_runs.Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(detections, "render", lambda figure, *_: figures.append(figure) or b"")
    detections.draw_against_paper(runs, "png")
    left, right = figures[0].axes
    points = {tuple(map(float, line.get_xydata()[0])) for line in left.lines}  # type: ignore[index]
    rows = [row for (frame, _), row in TABLE_13.items() if frame == "SSD 300"]
    assert points == {(row.mult_adds, row.mean_average_precision) for row in rows}
    names = {text.get_text() for text in left.texts}
    assert names == {"deeplab-VGG", "Inception V2", "MobileNet"}
    scores = 100 * runs.scores("map")["ssd_xception"].to_numpy()
    x = runs.configs["ssd_xception"]["mult_adds"] / 1e6
    means = [line.get_xydata()[0].tolist() for line in right.lines]  # type: ignore[index]
    assert [x, pytest.approx(scores.mean())] in means
    assert {text.get_text() for text in right.texts} >= {"Xception", "MobileNet 0.50"}


def test_the_interval_over_images_is_that_of_the_resamples(runs: load_runs.Runs) -> None:
    left, right = (
        runs.image_scores(name, runs.seeds) for name in ("ssd_xception", "ssd_inception_v3")
    )
    assert left.shape == (6, 50)
    found = statistics.bootstrap_interval(0.02, left, right)
    spread = (left.mean(0) - right.mean(0)).std(ddof=1)
    assert float(found.mean) == 0.02
    assert float(found.high - found.low) == pytest.approx(2 * 1.959964 * spread)


def test_score_per_cost_is_relative_to_the_first_variant(runs: load_runs.Runs) -> None:
    whole, relative = runs.scores("map"), runs.scores("per_cost")
    first, *others = whole.columns
    assert (relative[first] == whole[first]).all()
    for name in others:
        ratio = runs.configs[first]["mult_adds"] / runs.configs[name]["mult_adds"]
        assert relative[name].to_numpy() == pytest.approx(whole[name].to_numpy() * ratio)
