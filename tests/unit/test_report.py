"""The report as a page, the forest plot, and the numbers for DVC, on small made-up runs."""

import base64
import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.made_up_runs import make_runs
from helpers.project import ROOT, contents
from matplotlib.figure import Figure
from scipy import stats

from sepablate import study
from sepablate.analysis import effects, learning_curves, metrics, verdicts, wording
from sepablate.plots import forest, style
from sepablate.report import outputs
from sepablate.store import layout

ACCURACY = metrics.TASK_METRICS["single_label"]
PAPER = ["xception_vs_inception", "residual_connections", "pointwise_activation"]
CONTROLS = ["equal_weight_decay", "residual_learning_rate", "norm_between", "borders"]
FURTHER = [
    "channel_segments",
    "operation_order",
    "mobilenet_v1",
    "separable_example",
    "xception_vs_inception_multilabel",
]
DETECTION = ["mobilenet_detection"]


class Page(HTMLParser):
    """The tags with their attributes, the rows of all tables and the visible text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.text, self.cell = [], [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = False

    def handle_data(self, data):
        self.text += data
        if self.cell:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """results/tiny/ with all reports, one seed of no_residual diverged; the working folder."""
    home = tmp_path_factory.mktemp("report")
    shutil.copytree(study.FOLDER, home / "experiments")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for name in study.variants():
            make_runs(name)
        make_runs("no_residual", diverged=[2])
        for name in PAPER + CONTROLS + FURTHER + DETECTION:
            outputs.study_outputs(name, "tiny")
        outputs.report_outputs(PAPER, "tiny")
        outputs.report_outputs(CONTROLS, "tiny", "CONTROLS")
        outputs.report_outputs(FURTHER, "tiny", "FURTHER")
        outputs.report_outputs(DETECTION, "tiny", "DETECTION")
        yield home / "results/tiny"


NAMES = ("REPORT", "CONTROLS", "FURTHER", "DETECTION")
REPORTS = [(f"{each}.md", f"{each.lower()}.html", layout.report_prefix(each)) for each in NAMES]


@pytest.mark.parametrize(("markdown", "name", "prefix"), REPORTS)
def test_page_needs_nothing_but_itself(folder, markdown, name, prefix):
    text = (folder / name).read_text()
    made = Page(text)
    assert not {tag for tag, _ in made.tags} & {"script", "link", "iframe", "object", "embed"}
    for tag, attributes in made.tags:
        assert not any(key.startswith("on") for key in attributes)
        for key in ("src", "srcset", "poster"):
            assert attributes.get(key, "data:").startswith("data:"), (tag, attributes)
        assert tag == "a" or "href" not in attributes
    assert not re.search(r"url\(|@import", text)
    images = [attributes for tag, attributes in made.tags if tag == "img"]
    named = re.findall(r"!\[(.+)\]\((.+)\.png\)", (folder / markdown).read_text())
    assert named[0][1] == f"{prefix}scorecard"
    for image, (alt, _) in zip(images, named, strict=True):
        assert image["alt"].startswith(alt)
        assert re.search(r"\. (Table \d+|curves\.csv) has the numbers\.$", image["alt"])
    for image, (_, stem) in zip(images, named, strict=True):
        head, _, content = image["src"].partition(",")
        assert head == "data:image/svg+xml;base64"
        assert base64.b64decode(content) == (folder / f"{stem}.svg").read_bytes()
        assert b"<script" not in base64.b64decode(content)


@pytest.mark.parametrize(("markdown", "name", "prefix"), REPORTS)
def test_page_says_what_the_markdown_says(folder, markdown, name, prefix):
    text = (folder / markdown).read_text()
    made = Page((folder / name).read_text())
    lines = [line for line in text.splitlines() if line.startswith("| ") and "| ---" not in line]
    plain = [re.sub(r"\*\*|`", "", line).replace("\\*", "*")[2:-2].split(" | ") for line in lines]
    assert made.rows == [[cell.strip() for cell in row] for row in plain]
    decided = json.loads((folder / f"{prefix}verdicts.json").read_text())
    for row, verdict in zip(made.rows[1:], decided, strict=False):
        assert row[-1].rstrip(" *") == verdict["outcome"]
        assert row[0][1:] == verdict["measured"]["claim"]["statement"][1:]
    sentences = re.findall(r"the difference in .* points", text)
    assert len(sentences) == len(decided)
    assert all(sentence in made.text for sentence in sentences)


def test_report_opens_with_what_was_done_and_names_the_other_studies(folder):
    report = (folder / "REPORT.md").read_text()
    head = report.partition("![")[0]
    for words in (
        "7 networks",
        "6 times",
        "12,000 images of `toys`",
        "28 x 28 x 1",
        "9 gradient steps",
    ):
        assert words in head
    assert "0.25 times as wide as published and has 1,000 parameters, as the other" in head
    assert "203 test images" in head
    for other in CONTROLS:
        assert f"*{study.load(other).title}*" in report
    assert "make repro-all" in report
    assert "](CONTROLS" not in report
    section = report.partition("## Effect of the residual")[2].partition("\n## ")[0]
    assert "Studies of the same question: *No shortcuts, at a learning rate of its own*" in section


def test_a_report_on_several_tasks_says_what_each_was_trained_on(folder):
    report = (folder / "FURTHER.md").read_text()
    head = report.partition("![")[0]
    assert head.count("12,000 images") == head.count("9 gradient steps") == 1
    lines = [line for line in head.splitlines() if line.startswith("- ")]
    assert len(lines) == 4  # segments and order are of one network on the same images
    assert [line.count("`heaps`") for line in lines] == [0, 0, 0, 1]
    for name in FURTHER:
        assert sum(f"*{study.load(name).title}*" in line for line in lines) == 1
    assert "final test MAP@100" in report
    assert "final test accuracy" in report


def test_a_report_prints_what_the_paper_leaves_open_for_each_recipe(folder):
    settings = (folder / "FURTHER.md").read_text().partition("## Setup")[2]
    recipes = dict(re.findall(r"Recipe `(\w+)`:\n\n(.*?)(?=\nRecipe|\Z)", settings, re.DOTALL))
    assert list(recipes) == ["segments", "imagenet", "mobilenet", "example", "jft"]
    assert "| `batch_size` | 64 | not given |" in recipes["imagenet"]
    assert "| `rho` | 0.9 | not given |" in recipes["jft"]
    assert "rho" not in recipes["imagenet"]  # SGD has none
    assert "not given" not in recipes["example"]


def test_the_papers_tables_stand_beside_our_numbers(folder):
    def section(report, name):
        return (folder / report).read_text().partition(f"## {study.load(name).title}\n")[2]

    table = pd.read_csv(folder / FURTHER[2] / "table.csv").set_index("variant")
    ours = f"{100 * table.accuracy['mobilenet_050']:.2f}"
    mobilenets = section("FURTHER.md", FURTHER[2])
    assert f"| 0.5 MobileNet-224 | 6 | 63.7 | 149 | 1.3 | {ours} [" in mobilenets
    assert "| Conv MobileNet | 4 | 71.7 | 4866 | 29.3 |" in mobilenets
    many = section("FURTHER.md", FURTHER[4])
    assert "| Xception, with FC layers | 6.78 |" in many
    assert "ImageNet top-1" not in many
    table = pd.read_csv(folder / DETECTION[0] / "table.csv").set_index("variant")
    ours = f"{100 * table['map']['ssd_inception_v3']:.2f}"
    detectors = section("DETECTION.md", DETECTION[0])
    assert f"| SSD 300, Inception V2 | 22 | 3.8 | 13.7 | Inception V3 | {ours} [" in detectors
    assert "Faster-RCNN 600, VGG: 25.7 %, 149.6 billion, 138.5 M" in detectors
    small = f"{100 * table['map_small']['ssd_mobilenet_v1']:.2f}"
    assert "| MobileNet | " in detectors
    assert f" | {small} | " in detectors
    two = section("REPORT.md", PAPER[0])
    assert "| Inception V3 | 78.2 | 94.1 | 23,626,728 | 1,000 |" in two
    assert "equal within 3.5 % (they are 3.4 % apart)" in two


def test_reports_are_the_same_bytes_when_made_again(folder):
    before = contents(folder)
    outputs.report_outputs(PAPER, "tiny")
    outputs.report_outputs(CONTROLS, "tiny", "CONTROLS")
    outputs.report_outputs(FURTHER, "tiny", "FURTHER")
    assert contents(folder) == before


def test_forest_plot_draws_rows_in_order_at_their_numbers(folder):
    measured = [each for name in PAPER for each in effects.read(folder / name / "claims.json")]
    decided = verdicts.decide(measured)
    axis = Figure().subplots()
    assert forest.forest(decided, axis) is axis
    zeros, corrected, intervals, means = (axis.lines[at::4] for at in range(4))
    parts = zip(decided, zeros, corrected, intervals, means, axis.collections, strict=True)
    for row, (verdict, zero, wide, interval, mean, band) in enumerate(parts):
        each = verdict.measured
        ends = stats.t.interval(1 - 0.05 / len(decided), len(each.seeds) - 1, each.mean,
                                stats.sem(each.differences))  # fmt: skip
        assert wide.get_xdata() == pytest.approx(100 * np.array(ends))
        assert wide.get_linewidth() < interval.get_linewidth()
        assert interval.get_xdata() == pytest.approx([100 * each.low, 100 * each.high])
        assert list(interval.get_ydata()) == [row, row]
        assert mean.get_xdata() == pytest.approx([100 * each.mean])
        assert list(mean.get_ydata()) == [row]
        assert mean.get_marker() == forest.OUTCOME_STYLES[verdict.outcome].marker
        assert list(zero.get_xdata()) == [0, 0]
        corners = band.get_paths()[0].vertices
        margin = 100 * each.claim.margin
        assert (corners[:, 0].min(), corners[:, 0].max()) == pytest.approx((-margin, margin))
        assert corners[:, 1].min() < row < corners[:, 1].max()
    top, bottom = axis.get_ylim()[::-1]
    assert top < 0 < len(decided) - 1 < bottom  # the first claim is on top
    words = [text.get_text() for text in axis.texts]
    for verdict in decided:
        assert any(verdict.measured.claim.statement[1:25] in text for text in words)
    lost = ["*" in text for text in words if re.search(r"n = \d", text)]
    assert lost == [bool(each.diverged) for each in measured]


@pytest.mark.filterwarnings("error")
def test_forest_plot_of_nothing_and_of_claims_without_numbers(folder):
    first = effects.read(folder / PAPER[0] / "claims.json")[0]
    unknown = dict.fromkeys(("mean", "low", "high", "deviation", "p", "p_equivalence"), np.nan)
    empty = dataclasses.replace(first, seeds=(), differences=(), **unknown)
    for decided in ([], verdicts.decide([empty]), verdicts.decide([empty, first])):
        for kind, head in (("png", b"\x89PNG"), ("svg", b"<?xml")):
            assert forest.draw(decided, kind, "").startswith(head)


@pytest.mark.parametrize(
    ("names", "prefix"), [(PAPER, ""), (CONTROLS, "controls_"), (FURTHER, "further_")]
)
def test_metrics_agree_with_the_tables_and_the_verdicts(folder, names, prefix):
    metrics = json.loads((folder / f"{prefix}metrics.json").read_text())
    decided = json.loads((folder / f"{prefix}verdicts.json").read_text())
    outcomes = [verdict["outcome"] for verdict in decided]
    claims = metrics.pop("claims")
    assert list(claims) == list(wording.OUTCOMES)
    assert claims == {outcome: outcomes.count(outcome) for outcome in claims}
    tables = [pd.read_csv(folder / name / "table.csv").set_index("variant") for name in names]
    for score, means in metrics.items():
        for variant, mean in means.items():
            rows = [table for table in tables if variant in table.index and score in table]
            assert {table.loc[variant, score] for table in rows} == {mean}
    shown = {variant for means in metrics.values() for variant in means}
    assert shown == {variant for table in tables for variant in table.index}
    assert names != PAPER or len(shown) + len(claims) < 13


def test_curves_against_pandas(folder):
    found = pd.read_csv(folder / "residual_connections/curves.csv")
    assert list(found.columns) == [*learning_curves.columns(ACCURACY), "colour"]
    runs = folder / "runs"
    for name, seeds in (("xception", range(6)), ("no_residual", (0, 1, 3, 4, 5))):
        rows = pd.concat(pd.read_csv(runs / name / f"seed-{seed}.csv") for seed in seeds)
        values = rows[rows.metric == ACCURACY.curve].groupby("step").value
        mine = found[found.variant == name].set_index("step")
        assert mine.validation_accuracy.to_dict() == pytest.approx(values.mean().to_dict())
        critical = {6: 2.5705818, 5: 2.7764451}[len(seeds)]
        half = critical * values.sem()
        assert (mine.high - mine.low).to_dict() == pytest.approx((2 * half).to_dict())
        assert set(mine.n) == {len(seeds)}


@pytest.mark.parametrize("name", [*PAPER, *FURTHER])
def test_dvc_plots_have_the_colours_of_the_figures(folder, name):
    """In Vega-Lite a colour each for the labels in alphabetical order: no two may be alike."""
    curves = pd.read_csv(folder / name / "curves.csv")
    pairs = curves[["variant", "label", "colour"]].drop_duplicates()
    for column in pairs:
        assert pairs[column].is_unique
    drawn = (folder / name / "figure.svg").read_text()
    styles = style.variant_styles([variant.name for variant in study.load(name).all_variants])
    for row in pairs.itertuples():
        assert row.colour == styles[row.variant].colour
        assert row.colour.lower() in drawn


@pytest.mark.parametrize(
    ("path", "name", "studies"),
    [
        ("dvc.yaml", "REPORT", PAPER),
        ("experiments/dvc.yaml", "CONTROLS", CONTROLS),
        ("experiments/dvc.yaml", "FURTHER", FURTHER),
    ],
)
def test_pipelines_declare_what_a_report_writes(folder, path, name, studies):
    stages = yaml.safe_load((ROOT / path).read_text())["stages"]
    stage = stages[{"FURTHER": "further", "DETECTION": "detection"}.get(name, "report")]
    shown = [each for each, declared in stages.items() if "metrics" in declared]
    assert shown == ["report"] * (path == "dvc.yaml")  # `dvc exp show` then fits a screen
    assert stage["cmd"].split()[-len(studies) :] == studies
    outs = stage["outs"] + stage.get("metrics", [])
    declared = {key: how for out in outs for key, how in out.items()}
    prefix = "" if name == "REPORT" else f"{name.lower()}_"
    archive = declared.pop(f"results/${{scale}}/{prefix}runs.tar.gz")
    assert archive == {"cache": False, "persist": True}
    assert all(how == {"cache": False} for how in declared.values())
    files = {path.name for path in folder.iterdir() if path.is_file()}
    wanted = {f"{name}.md", f"{name.lower()}.html"}
    kinds = ("scorecard.svg", "scorecard.png", "metrics.json", "verdicts.json", "digests.json")
    wanted |= {f"{prefix}{file}" for file in kinds}
    assert wanted <= files
    assert {f"results/${{scale}}/{file}" for file in wanted} == set(declared)
    others = study.names() + study.layer_names()  # their titles stand in this report
    assert not {f"experiments/{each}.py" for each in others} - set(stage["deps"])


@pytest.mark.parametrize(
    ("path", "studies"),
    [("dvc.yaml", PAPER), ("experiments/dvc.yaml", CONTROLS + FURTHER + DETECTION)],
)
def test_pipelines_plot_the_columns_that_a_study_writes(path, studies):
    pipeline = yaml.safe_load((ROOT / path).read_text())
    plots = {key: how for each in pipeline["plots"] for key, how in each.items()}
    others = {*study.names()} - {*PAPER, *CONTROLS, *FURTHER, *DETECTION}  # studies of one's own
    studies = [*studies, *(name for name in pipeline["stages"] if name in others)]
    place = f"{'../' * path.count('/')}results/${{scale}}"
    budget = {f"{place}/robustness/budget.csv"} if "/" in path else set()
    assert {*plots} == {f"{place}/{name}/curves.csv" for name in studies} | budget
    for name in studies:
        how = plots[f"{place}/{name}/curves.csv"]
        measure = metrics.TASK_METRICS[study.load(name).baseline.task]
        assert how["x"] in learning_curves.columns(measure)
        assert how["y"] == f"validation_{measure.name}"
        template = json.loads((ROOT / f".dvc/plots/{how['template']}.json").read_text())
        assert template["encoding"]["color"]["scale"]["range"] == {"field": "colour"}
        assert how["y"] in template["data"]["format"]["parse"]
