"""The study of layers: counts, times, tables and the figure, and who else meets it."""

import json
import shutil
from fractions import Fraction
from pathlib import Path

import pandas as pd
import pytest
from helpers.made_up_runs import make_runs
from helpers.project import ROOT, made_once
from helpers.torch_count import count
from typer.testing import CliRunner

from sepablate import study
from sepablate.analysis import detector_costs, layer_costs
from sepablate.cli.app import app
from sepablate.errors import UserError
from sepablate.planning.forecast import mark_dependents
from sepablate.planning.pipeline import Stage
from sepablate.plots import layer_figure
from sepablate.profiling import detector_counts, layer_timing
from sepablate.provenance import trace, verify
from sepablate.report import manifest, outputs

NAME = "separable_cost"
STUDY = study.load_layers(NAME, ROOT / "experiments")
FILES = {"table.csv", "table.md", "measured.csv", "figure.png", "figure.svg"}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the layers were timed at smoke scale, with a report on a comparison."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            shutil.copytree(ROOT / "experiments", "experiments")
            shutil.copy(ROOT / "params.yaml", "params.yaml")
            done = CliRunner().invoke(app, ["layers", NAME, "--scale", "smoke"])
            assert done.exit_code == 0, done.output
            for variant in study.load("residual_connections").all_variants:
                make_runs(variant.name)
            shutil.copytree("results/tiny/runs", "results/smoke/runs")
            outputs.study_outputs("residual_connections", "smoke")
            outputs.report_outputs(["residual_connections"], "smoke")

    return made_once(tmp_path_factory, "layers", make)


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def costs(project: Path) -> Path:
    """The same without the report on a comparison."""
    digests = project / "results/smoke/digests.json"
    for name in (*manifest.read(digests).files, "digests.json", "runs.tar.gz"):
        (digests.parent / name).unlink()
    return project


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("channels", [1, 16, 48])
@pytest.mark.parametrize("size", [7, 14])
def test_formulas_are_what_the_timed_modules_count(kernel: int, channels: int, size: int) -> None:
    found = []
    for name in ("standard", "separable"):
        counted = count(getattr(layer_timing, name)(kernel, channels), size)
        formula = getattr(layer_costs, name)(kernel, channels, channels, size)
        assert formula == (counted.parameters, counted.mult_adds)
        found.append(counted.mult_adds)
    ratio = Fraction(1, channels) + Fraction(1, kernel**2)
    assert Fraction(found[1], found[0]) == ratio
    assert layer_costs.predicted(kernel, channels) == pytest.approx(float(ratio), rel=1e-15)


def test_table_3_of_mobilenets() -> None:
    assert layer_costs.mobilenets_table_3() == [
        ("Convolution", "462", "2.36", "462.42", "2,359,296"),
        ("Depthwise Separable Conv", "52.3", "0.27", "52.28", "266,752"),
        ("width 0.75", "29.6", "0.15", "29.58", "150,912"),
        ("resolution 0.714", "15.1", "0.15", "15.09", "150,912"),
    ]
    for _, mult_adds, parameters, ours, our_parameters in layer_costs.mobilenets_table_3():
        assert float(ours) == pytest.approx(float(mult_adds), rel=0.005)
        millions = int(our_parameters.replace(",", "")) / 1e6
        assert millions == pytest.approx(float(parameters), abs=0.005)


def test_a_quick_measurement_has_every_case_with_its_spread(made: Path) -> None:
    folder = made / "results/smoke" / NAME
    assert {path.name for path in folder.iterdir()} == FILES
    rows, small = pd.read_csv(folder / "measured.csv"), STUDY.at("smoke")
    precisions = set(rows.precision)
    assert precisions in ({"fp32"}, {"fp32", "bf16"})
    cases = rows[["kernel", "channels", "precision", "direction"]].drop_duplicates()
    expected = len(small.kernels) * len(small.widths) * len(precisions) * 2
    assert len(cases) == len(rows) == expected
    assert set(rows.n) == {small.repeats}
    for name in ("standard", "separable"):
        assert (rows[f"{name}_min"] > 0).all()
        assert (rows[f"{name}_min"] <= rows[name]).all()
        assert (rows[name] <= rows[f"{name}_max"]).all()
    assert (rows.ratio_low <= rows.ratio).all()
    assert (rows.ratio <= rows.ratio_high).all()
    assert rows.device.str.len().min() > 0
    table = pd.read_csv(folder / "table.csv")
    assert set(table.channels) == set(small.widths)
    assert list(table.predicted_ratio) == [
        1 / row.channels + 1 / row.kernel**2 for row in table.itertuples()
    ]


def test_a_row_is_the_median_of_the_pairs_and_their_spread() -> None:
    case = layer_timing.Case(3, 16, "fp32", "forward", int, int)
    row = layer_timing._summary(case, [(1.0, 0.5), (4.0, 1.0), (2.0, 1.5)])
    assert (row["kernel"], row["channels"], row["precision"], row["n"]) == (3, 16, "fp32", 3)
    assert (row["standard"], row["standard_min"], row["standard_max"]) == (2.0, 1.0, 4.0)
    assert (row["separable"], row["separable_min"], row["separable_max"]) == (1.0, 0.5, 1.5)
    assert (row["ratio_low"], row["ratio"], row["ratio_high"]) == (0.25, 0.5, 0.75)


def test_rounds_stop_when_the_time_is_over() -> None:
    brief = study.LayerStudy("t", "s", (1,), (1,), map_size=1, batch=1, repeats=50, seconds=1e-6)
    assert set(layer_timing.measure(brief, ["fp32"], "cpu").n) == {layer_timing.FEWEST_ROUNDS}


def test_made_again_from_kept_times_are_the_same_bytes(project: Path) -> None:
    folder = project / "results/smoke" / NAME
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    done = CliRunner().invoke(app, ["layers", NAME, "--scale", "smoke"])
    assert "measured before" in done.output
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def made_up(ratios: list[float]) -> pd.DataFrame:
    """Times of one kernel size, forward in fp32, at rising widths."""
    widths = [4 * 2**index for index in range(len(ratios))]
    frame = pd.DataFrame({"kernel": 3, "channels": widths, "ratio": ratios})
    frame = frame.assign(ratio_low=0.9 * frame.ratio, ratio_high=1.2 * frame.ratio, n=3)
    frame = frame.assign(precision="fp32", direction="forward", map_size=14, batch=4, threads=1)
    frame = frame.assign(device="abacus", torch="2.0")
    return frame.assign(predicted=[layer_costs.predicted(3, width) for width in widths])


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([2.0, 0.5, 0.1], ("in 2 of 3 cases", "than it in 1,", "2 times the time for 0.36 times")),
        ([2.0, 0.5, 0.1], ("at 3x3 and 4 channels", "from 8 channels on", "abacus, one thread")),
        ([2.0, 0.5, 1.5], ("in 3 of 3", "in 2,", "at 3x3 and 16 channels", "at no width tried")),
        ([0.2, 0.1, 0.1], ("in 0 of 3", "in 0,", "from 4 channels on", "n = 3")),
    ],
)
def test_sentences_say_what_the_times_say(ratios: list[float], expected: tuple[str, ...]) -> None:
    found = layer_costs.sentences(made_up(ratios))
    assert all(words in found for words in expected), found


def test_figure_draws_every_ratio_at_its_place() -> None:
    from matplotlib.figure import Figure

    frame, axis = made_up([2.0, 0.5, 0.1]), Figure().subplots()
    assert layer_figure.ratios(frame, axis) is axis
    (container,) = axis.containers
    line, _, (bars,) = container.lines
    assert list(line.get_xdata()) == list(frame.predicted)
    assert list(line.get_ydata()) == list(frame.ratio)
    for bar, row in zip(bars.get_segments(), frame.itertuples(), strict=True):
        assert bar[:, 1] == pytest.approx([row.ratio_low, row.ratio_high])
    assert axis.get_xscale() == axis.get_yscale() == "log"
    both = pd.concat([frame, frame.assign(direction="backward")])
    for kind, head in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        drawn = layer_figure.draw(both, kind, "laptop")
        assert drawn.startswith(head)
        assert drawn == layer_figure.draw(both, kind, "laptop")
        assert b"abacus, one thread" in drawn


def test_report_shows_table_figure_and_sentences(project: Path) -> None:
    report = (project / "results/smoke/COSTS.md").read_text()
    assert report.startswith("# Cost of layers, scale `smoke`\n")
    section = report.partition(f"## {STUDY.title}")[2].partition("\n## ")[0]
    assert f"]({NAME}/figure.png)" in section
    assert (project / "results/smoke" / NAME / "table.md").read_text() in section
    times = layer_costs.read("smoke", NAME)
    assert layer_costs.sentences(times) in section
    assert "n = 3" in section
    detectors = detector_costs.read(Path("results/smoke/detectors.csv"))
    assert report.endswith("\n" + detector_costs.to_markdown(detectors))
    page = (project / "results/smoke/costs.html").read_text()
    assert f">{detector_costs.TITLE}</h2>" in page


def test_the_report_lists_its_files_and_has_no_verdicts(project: Path) -> None:
    results = project / "results/smoke"
    listing = json.loads((results / "costs_digests.json").read_text())
    assert listing["kind"] == "layers"
    assert set(listing["files"]) == {f"{NAME}/{name}" for name in FILES} | {
        "COSTS.md",
        "costs.html",
        "detectors.csv",
    }
    assert sorted(path.name for path in results.glob("*[Cc][Oo][Ss][Tt][Ss]*")) == [
        "COSTS.md",
        "costs.html",
        "costs_digests.json",
    ]
    assert "kind" not in json.loads((results / "digests.json").read_text())
    assert f"*{STUDY.title}*" in (results / "REPORT.md").read_text()


def wrong() -> list[str]:
    """What `verify` finds, but for the keys of the runs, which are made up."""
    return [line for line in verify.verify("smoke").wrong if "the hash is" not in line]


@pytest.mark.parametrize("runs", [True, False])
def test_verify_agrees_and_finds_what_was_changed(project: Path, runs: bool) -> None:
    results = Path("results/smoke")
    if not runs:
        shutil.rmtree(results / "runs")
    assert wrong() == []
    for name in FILES:
        path = results / NAME / name
        path.write_bytes(path.read_bytes().replace(b"3", b"4", 1))
    found = wrong()
    for name in FILES:
        # A digit may be one that nothing follows from: then the manifest has another digest.
        assert any(line.startswith(str(results / NAME / name)) for line in found), name


def test_detectors_counted_again_are_the_same_bytes(project: Path) -> None:
    path = Path("results/smoke/detectors.csv")
    before = path.read_bytes()
    path.unlink()
    detector_counts.write_counts("smoke")
    assert path.read_bytes() == before


def test_verify_finds_other_detectors_also_under_new_digests(costs: Path) -> None:
    path = Path("results/smoke/detectors.csv")
    path.write_text(path.read_text().replace(",80,", ",81,", 1))
    assert any(line.startswith(f"{path}: not the file") for line in wrong())
    files = ["COSTS.md", "costs.html", path.name]
    manifest.write("smoke", "COSTS", [NAME], files, manifest.LAYERS)
    assert any(line.startswith("results/smoke/COSTS.md") for line in wrong())
    path.unlink()
    assert any(line.startswith(f"{path}: missing") for line in wrong())


def test_a_report_of_older_code_has_no_detectors_and_is_verified(costs: Path) -> None:
    Path("results/smoke/detectors.csv").unlink()
    outputs.layer_outputs([NAME], "smoke")
    assert detector_costs.TITLE not in Path("results/smoke/COSTS.md").read_text()
    assert wrong() == []


def test_other_times_under_new_digests_do_not_pass(costs: Path) -> None:
    results = Path("results/smoke")
    shutil.rmtree(results / "runs")
    path = results / NAME / "measured.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], *lines[3:]]) + "\n")
    manifest.write("smoke", "COSTS", [NAME], ["COSTS.md", "costs.html"], manifest.LAYERS)
    for name in (f"{NAME}/figure.svg", "COSTS.md"):
        assert any(line.startswith(str(results / name)) for line in wrong())


def test_trace_names_the_machine_and_the_command(project: Path) -> None:
    times = layer_costs.read("smoke", NAME)
    for path in (NAME, f"{NAME}/figure.png", "COSTS.md", "costs.html", "detectors.csv"):
        text = trace.trace(Path("results/smoke") / path)
        assert layer_costs.measured_on(times) in text
        assert f"sepablate layers {NAME} --scale smoke" in text


def test_other_commands_are_not_disturbed(project: Path) -> None:
    shown = CliRunner().invoke(app, ["list"]).output
    assert f"{NAME}: {STUDY.title}\n" in shown
    stage = Stage(NAME, "runs")
    assert not stage.compares
    assert not stage.compared_variants
    assert stage.layer_timing_seconds("smoke") == STUDY.at("smoke").seconds > 0
    assert Stage("report", "runs").layer_timing_seconds("smoke") == 0
    after = mark_dependents([stage, Stage("report", "unchanged")], set())
    assert [each.state for each in after] == ["runs", "unchanged"]  # it has a report of its own
    assert study.studies_with("xception")
    assert NAME not in study.studies_with("xception")
    assert NAME not in study.names()
    assert study.layer_names() == [NAME]


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (["study", NAME], f"run `sepablate layers {NAME}`"),
        (["report", NAME], f"run `sepablate layers {NAME}`"),
        (["layers", "residual_connections"], "run `sepablate study residual_connections`"),
    ],
)
def test_a_study_of_the_other_kind_is_refused_with_its_command(
    project: Path, command: list[str], hint: str
) -> None:
    error = CliRunner().invoke(app, [*command, "--scale", "smoke"]).exception
    assert isinstance(error, UserError)
    assert hint in str(error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernels": (3, 4)}, r"kernels \(3, 4\): choose odd"),
        ({"kernels": ()}, "kernels"),
        ({"widths": (16, 16)}, r"widths \(16, 16\): choose a tuple of rising"),
        ({"widths": (0, 16)}, "at least 1"),
        ({"map_size": 0}, "at least 1"),
        ({"batch": 1.5}, "whole numbers"),
        ({"repeats": 2}, "repeats 2"),
        ({"seconds": 0}, "seconds 0"),
        ({"smaller": {"smoke": {"repeats": 1}}}, "repeats 1"),
    ],
)
def test_bad_studies_of_layers_are_refused(changes: dict, message: str) -> None:
    fields = {"title": "t", "source": "s", "kernels": (3,), "widths": (16,), "map_size": 14}
    fields |= {"batch": 1, "repeats": 3, "seconds": 1}
    with pytest.raises(ValueError, match=message) as caught:
        study.LayerStudy(**{**fields, **changes})
    assert "\n" not in str(caught.value)


def test_times_that_are_missing_are_asked_for_by_the_command(project: Path) -> None:
    (Path("results/smoke") / NAME / "measured.csv").unlink()
    with pytest.raises(ValueError, match=r"measured.csv: missing; run `sepablate layers separable"):
        outputs.layer_outputs([NAME], "smoke")
