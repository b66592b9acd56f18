"""What reports say of a scale follows from its numbers; no study states it for all scales."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers.made_up_runs import configs, make_runs
from helpers.project import ROOT

from sepablate import data, scales, study
from sepablate.analysis import across, effects, verdicts
from sepablate.execution import collect
from sepablate.paper import accuracies
from sepablate.report import across as across_report
from sepablate.report import at_scale, markdown, outputs, published, setup
from sepablate.runs.run import resolve

FOLDER = ROOT / "experiments"
MANY = "xception_vs_inception_multilabel"


def texts(name: str, scale_name: str) -> tuple[str, str]:
    declared, found = study.load(name, FOLDER), configs(name, scale_name)
    return at_scale.point(declared, found), at_scale.confounds(declared, found)


def test_the_published_networks_are_4_percent_apart_and_no_width_is_solved_for() -> None:
    point, confounds = texts("xception_vs_inception", "paper")
    assert "Parameters: Inception V3: 4.28 % more than Xception." in point
    assert "images of `imagenet` in 1000 classes, given as 299 x 299 x 3." in point
    assert "Xception is just as wide as published and has 22,855,952 parameters" in point
    assert "(epochs: 180)" in point
    assert "- parameters (Inception V3: 4.28 % more than Xception): " in confounds
    assert "model.width" not in confounds


def test_small_networks_are_matched_as_far_as_their_channels_allow() -> None:
    point, confounds = texts("channel_segments", "smoke")
    assert "1 segment: 3.07 % fewer than A segment per channel" in point
    assert "- model.width: solved for" in confounds
    point, _ = texts("xception_vs_inception", "laptop")
    assert "Inception V3: 0.67 % fewer than Xception." in point
    assert "images of `fashion_mnist` in 10 classes, given as 28 x 28 x 1." in point
    point, _ = texts("separable_example", "laptop")
    assert "given as 64 x 64 x 3" in point


def test_a_network_is_matched_to_its_own_reference_not_the_baseline() -> None:
    found = configs(MANY, "laptop")
    theirs, ours = (found[f"{name}_multilabel_fc"] for name in ("inception_v3", "xception"))
    percent = 100 * abs(theirs["parameters"] / ours["parameters"] - 1)
    told = f"Inception V3, FC layers: {percent:.2f} % "
    assert told in at_scale.point(study.load(MANY, FOLDER), found)
    same = {name: dict(config, parameters=7) for name, config in found.items()}
    assert "Inception V3: as many as Xception" in at_scale.point(study.load(MANY, FOLDER), same)


@pytest.mark.parametrize("name", [*study.names(FOLDER), *study.layer_names(FOLDER)])
def test_no_study_states_what_only_some_scales_have(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text().replace("(in the paper within 3.5 %)", "")
    for words in (
        r"within \d",
        r"[Ss]mall (grey )?images",
        r"[Gg]rey images",
        r"[Nn]arrow networks",
        r"under 1 %",
        r"laptop scale",
        r"of the same size",
        r"equal parameter count\b",
    ):
        assert not re.search(words, text), words


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(FOLDER, tmp_path / "experiments")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_report(names: list[str], dataset: str = "", report: str = "REPORT") -> str:
    for variant in dict.fromkeys(v.name for name in names for v in study.load(name).all_variants):
        make_runs(variant)
        path = Path(f"results/tiny/runs/{variant}/config.json")
        if dataset:
            path.write_text(json.dumps(json.loads(path.read_text()) | {"dataset": dataset}))
    for name in names:
        outputs.study_outputs(name, "tiny")
    outputs.report_outputs(names, "tiny", report)
    return Path(f"results/tiny/{report}.md").read_text()


RATES = [0.005, 0.015, 0.045, 0.135]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "as *No shortcuts*, so that the same code gives both the same numbers"),
        ({"learning_rate": 0.015}, ""),
        ({"recipe": "jft"}, ""),  # whose rate no config shows
    ],
)
def test_a_search_that_chose_the_recipes_rate_is_said_to_change_nothing(
    project: Path, changes: dict[str, object], says: str
) -> None:
    declared = study.load("residual_learning_rate")
    shared = {"recipe": "imagenet", "learning_rate": 0.045}
    tuned = {**shared, "variant": "no_residual_tuned", "learning_rates": RATES, **changes}
    found = {"xception": shared, "no_residual_tuned": tuned}
    others = [*study.variants().values()]
    text = at_scale.searches(declared, found, others)
    assert says in text
    assert text.count("\n") == (says != "")
    if says:
        assert text.startswith(
            "The search for *No shortcuts, own rate* chose the learning rate that the recipe has, "
            "0.045: it is trained exactly"
        )
        twin = {**shared, "variant": "no_residual", "learning_rates": []}
        assert at_scale.searches(declared, found | {"no_residual": twin}, others) == text
        of_other_code = found | {"no_residual": twin | {"source_digest": "another"}}
        for text in (
            at_scale.searches(declared, of_other_code, others),
            at_scale.searches(declared, found),
        ):
            assert text.endswith("it is trained exactly as without a search.\n")


def test_reports_say_that_two_variants_were_trained_alike(project: Path) -> None:
    """The control's own report, and ACROSS.md, where the numbers of both stand."""
    names = ["residual_connections", "residual_learning_rate"]
    make_report(names)
    runs = Path("results/tiny/runs")
    shutil.rmtree(runs / "no_residual_tuned")
    shutil.copytree(runs / "no_residual", runs / "no_residual_tuned")
    for path in (runs / "no_residual_tuned").glob("seed-*.csv"):
        path.write_text(path.read_text().replace(",no_residual,", ",no_residual_tuned,"))
    for report, studies in (("REPORT", names[:1]), ("CONTROLS", names[1:])):
        outputs.study_outputs(*studies, "tiny")
        outputs.report_outputs(studies, "tiny", report)
    reports = {name: Path(f"results/tiny/{name}.md").read_text() for name in ("REPORT", "CONTROLS")}
    sentence = "it is trained exactly as *No shortcuts*, so that the same code gives both the same"
    assert [sentence in text for text in reports.values()] == [False, True]
    alike = "No shortcuts, own rate was trained exactly as No shortcuts"
    alike = f"{alike}, see `results/tiny/CONTROLS.md`."
    assert across_report.markdown(across.read(["tiny"])).count(alike) == 1
    make_report(names[1:], report="CONTROLS")  # with another rate, and other numbers
    assert sentence not in Path("results/tiny/CONTROLS.md").read_text()
    assert alike not in across_report.markdown(across.read(["tiny"]))


def test_a_report_says_how_far_its_networks_are_from_known(project: Path) -> None:
    report = make_report(["residual_connections"], "fashion_mnist")
    table = pd.read_csv("results/tiny/residual_connections/table.csv")
    best = table.loc[table.accuracy.idxmax()]
    section = report.partition("## Distance to published accuracies")[2].partition("\n## ")[0]
    ours = f"{100 * best.accuracy:.2f} [{100 * best.accuracy_low:.2f}, "
    assert f"On `fashion_mnist`, {best.label} ends at {ours}" in section
    for each in accuracies.FASHION_MNIST:
        row = next(line for line in section.splitlines() if each.network in line)
        assert row.count(f"| {100 * each.accuracy:.2f} | {each.parameters or 'not given'} | ") == 1
        distance = f"{100 * (best.accuracy - each.accuracy):+.2f}".replace("-", "−")
        assert row.endswith(f"| {distance} |")
        assert ("| *" in row) == (each.kind == "same")
    below = accuracies.lowest_of_the_same_kind("fashion_mnist").accuracy - table.accuracy[0]  # type: ignore[union-attr]
    accuracy, speed = effects.read(Path("results/tiny/residual_connections/claims.json"))
    assert accuracy.below_published == pytest.approx(below)
    assert below > 0.03
    assert accuracy.far_below
    assert not speed.far_below  # on no final accuracy
    rows = [line for line in report.splitlines() if line.startswith("| With shortcuts")]
    assert ["‡" in row for row in rows] == [True, False]
    assert f"‡ The baseline ends {100 * below:.2f} points below" in report


def test_nothing_is_said_where_nothing_is_published(project: Path) -> None:
    report = make_report([MANY, "operation_order"], report="FURTHER")
    assert "Distance to" not in report
    assert "‡" not in report
    decided = verdicts.decide(effects.read(Path(f"results/tiny/{MANY}/claims.json")))
    table = pd.read_csv(f"results/tiny/{MANY}/table.csv")
    assert published.section({MANY: table}, decided) == ""


def test_every_data_set_with_references_has_one_of_the_same_kind() -> None:
    for name in accuracies.BY_DATA_SET:
        lowest = accuracies.lowest_of_the_same_kind(name)
        assert lowest is not None
        others = [each for each in accuracies.BY_DATA_SET[name] if each.kind == "same"]
        assert all(lowest.accuracy <= each.accuracy for each in others)
    assert accuracies.lowest_of_the_same_kind("garment_scenes") is None


def test_the_further_report_explains_the_decays_of_jft_and_the_base_rate(project: Path) -> None:
    report = make_report([MANY, "operation_order"], report="FURTHER")
    assert (
        "The paper multiplies the rate by 0.9 every 3,000,000 samples, and trains for 30,000,000 "
        "steps. With 32 images a step that would be 320 decays, and a rate of 2e-18 at the end. So "
        "samples are read as steps: 10 decays in the paper's training, 10 in a run here."
    ) in report
    assert report.count("samples are read as steps") == 1  # only below the recipe jft
    assert "already reach 62.90 % on the test images and 62.70 % on the validation" in report
    assert report.count("Constant scores") == 1
    assert "constant_scores" not in report


def test_constant_scores_are_the_class_frequencies_on_other_images() -> None:
    """Against the definition, image by image."""
    scale, recipes = scales.load("smoke", ROOT / "params.yaml")
    run = resolve(study.variant("xception_multilabel", FOLDER), "smoke", scale, recipes, 0, "fp32")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        found = collect.constant_scores(run)
        splits = data.dataset("garment_scenes").load(Path("data"))
    labels = splits["train"].first(scale.images).labels.double()
    weights = labels.sum(0) / labels.sum()
    order = torch.argsort(weights, descending=True).tolist()
    scores = []
    for image in splits["test"].first(scale.test_images).labels.tolist():
        ranks = [rank for rank, kind in enumerate(order, 1) if image[kind]]
        hits = [
            (count / rank, float(weights[order[rank - 1]])) for count, rank in enumerate(ranks, 1)
        ]
        scores.append(sum(p * w for p, w in hits) / sum(w for _, w in hits))
    assert found["test"] == pytest.approx(sum(scores) / len(scores))
    assert 0.6 < found["validation"] < 0.66


def test_the_papers_column_is_only_for_settings_that_the_paper_is_about() -> None:
    ours = study.load("residual_connections", FOLDER)
    theirs = dataclasses.replace(ours, source="Zagoruyko and Komodakis 2017, section 2")
    config = {"recipe": "imagenet", "optimizer": "sgd", "learning_rate": 0.045}
    found = {variant.name: config for variant in ours.all_variants}
    column = "In the Xception paper"
    assert column in setup.shared({"ours": ours}, found)
    assert column in setup.shared({"theirs": theirs, "ours": ours}, found)
    alone = setup.shared({"theirs": theirs}, found)
    assert column not in alone
    assert "| `learning_rate` | 0.045 |" in alone
    jft = {name: {**config, "recipe": "jft", "decays": 10} for name in found}
    assert "The paper multiplies the rate" in setup.shared({"ours": ours}, jft)
    assert "The paper" not in setup.shared({"theirs": theirs}, jft)


def test_one_seed_is_once() -> None:
    declared = study.load("xception_vs_inception", FOLDER)
    found = configs("xception_vs_inception", "smoke")
    for seeds, words in (([3], "each once (seeds 3)"), ([0, 1], "each 2 times (seeds 0, 1)")):
        seeded = {name: {**config, "seeds": seeds} for name, config in found.items()}
        assert words in setup.trained({"it": declared}, seeded)


def test_sections_are_alike_only_in_one_paper() -> None:
    ours = study.load("residual_connections", FOLDER)
    later = study.load("norm_between", FOLDER)
    assert markdown._papers(ours) == {"arXiv:1610.02357"}
    assert markdown._papers(later) == {"arXiv:1610.02357", "arXiv:1802.02611"}
    theirs = dataclasses.replace(ours, source="Zagoruyko and Komodakis 2017, section 2")
    assert markdown._papers(theirs) == {"Zagoruyko and Komodakis 2017"}
