"""The report on detectors: its table and its sentences follow from counts, and from table 13."""

from pathlib import Path

import pandas as pd
import pytest

from sepablate.analysis import detector_costs
from sepablate.errors import UserError
from sepablate.paper.mobilenets import TABLE_13, Detector
from sepablate.profiling import detector_counts


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that `sepablate layers` writes."""
    folder = tmp_path_factory.mktemp("detectors")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("results/smoke").mkdir(parents=True)
        detector_counts.write_counts("smoke")
    return folder / "results/smoke/detectors.csv"


@pytest.fixture
def frame(counted: Path) -> pd.DataFrame:
    return detector_costs.read(counted)


def with_counts(frame: pd.DataFrame, detector: str, parameters: int, mult_adds: int) -> None:
    """Give a detector other counts, a third of them in each of its parts."""
    rows = frame.detector == detector
    frame.loc[rows, "parameters"] = parameters // 3
    frame.loc[rows, "mult_adds"] = mult_adds // 3


def test_table_13_as_it_is_printed() -> None:
    """Section 4.6 of arXiv:1704.04861v1, row by row: percent mAP, billions, millions."""
    printed = """
        SSD 300, deeplab-VGG, 21.1 34.9 33.1
        SSD 300, Inception V2, 22.0 3.8 13.7
        SSD 300, MobileNet, 19.3 1.2 6.8
        Faster-RCNN 300, VGG, 22.9 64.3 138.5
        Faster-RCNN 300, Inception V2, 15.4 118.2 13.3
        Faster-RCNN 300, MobileNet, 16.4 25.2 6.1
        Faster-RCNN 600, VGG, 25.7 149.6 138.5
        Faster-RCNN 600, Inception V2, 21.9 129.6 13.3
        Faster-RCNN 600, MobileNet, 19.8 30.5 6.1
    """
    rows = [line.strip().split(", ") for line in printed.strip().splitlines()]
    assert [*TABLE_13.items()] == [
        ((framework, base), Detector(*map(float, numbers.split())))
        for framework, base, numbers in rows
    ]


def test_every_counted_detector_has_its_row(frame: pd.DataFrame) -> None:
    assert [*detector_costs.BASES] == [case.detector for case in detector_counts.CASES]
    assert set(frame["heads"]) == set(detector_costs.HEADS)
    rows = detector_costs._rows(frame)
    assert {len(row) for row in rows} == {len(detector_costs.HEADER)}
    (mobilenet,) = [row for row in rows if row[:3] == ("MobileNet", "1x1", "80")]
    assert mobilenet[-3:] == ("1.2", "6.8", "19.3")
    for row in rows[:-1]:
        assert float(row[4]) == pytest.approx(sum(map(float, row[5:8])), abs=0.016)
    assert rows[-1][0] == "Inception V2"
    assert rows[-1][-3:] == ("3.8", "13.7", "22.0")


def test_sentences_follow_from_the_counts(frame: pd.DataFrame) -> None:
    with_counts(frame, "mobilenet_v1", 9_000_000, 1_500_000_000)
    with_counts(frame, "mobilenet_published", 6_750_000, 1_170_000_000)
    with_counts(frame, "mobilenet_3x3_heads", 12_000_000, 1_200_000_000)
    with_counts(frame, "vgg_16", 30_000_000, 30_000_000_000)
    found = detector_costs.sentences(frame)
    for words in (
        "has 9.00 M parameters (2.20 M more than the paper's) and 1.50 G mult-adds (0.30 G more",
        "6.75 M parameters (the paper's, rounded) and 1.17 G mult-adds (the paper's, rounded)",
        "by +3.00 M parameters and −0.30 G mult-adds; separable",
        "VGG's detector has 30.00 M parameters (3.10 M fewer than the paper's)",
        "VGG's detector has 20.0 times the mult-adds of MobileNet's (paper: 29.1)",
        "(paper, with the smaller Inception V2: 3.2)",
        "with 90 classes and 3 default boxes at each place of the first map instead of 80 and 4",
        "Faster-RCNN 300 and Faster-RCNN 600 are not counted",
    ):
        assert words in found, words


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "not a CSV table"),
        (lambda text: text.replace("first_boxes", "boxes"), "lacks first_boxes"),
        (lambda text: text.replace(",80,", ",many,", 1), "invalid values in column classes"),
        (
            lambda text: text.replace("xception", "exception"),
            "run `sepablate layers STUDIES --scale ",
        ),
        (
            lambda text: text.replace("separable", "seperable"),
            "run `sepablate layers STUDIES --scale ",
        ),
        (lambda text: text.partition("\n")[0], "detectors.csv"),
    ],
)
def test_other_files_are_refused(
    counted: Path, tmp_path: Path, change: object, message: str
) -> None:
    path = tmp_path / "detectors.csv"
    path.write_text(change(counted.read_text()))  # type: ignore[operator]
    with pytest.raises(UserError, match=message) as caught:
        detector_costs.read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
