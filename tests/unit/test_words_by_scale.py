"""Whole reports at scales that have no results here: every number of the prose is the scale's."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
from helpers import made_up_runs
from helpers.made_up_runs import configs, make_runs
from helpers.made_up_settings import claim_effects, made_up
from helpers.project import ROOT

from sepablate import data, scales
from sepablate.analysis import robustness
from sepablate.report import markdown, outputs
from sepablate.report import robustness as robustness_report

# Words that are true at some scales only. A study's docstring is the same at all of them.
OF_OTHER_SCALES = (
    r"[Ff]ashion|CIFAR|laptop|workstation|smoke|two cores|[Gg]rey|within 1 %|[Gg]arment"
)
DOCSTRING = re.compile(r"^- \*\*(Question|Paper|Deviates)\.\*\*.*\n", re.M)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    monkeypatch.chdir(tmp_path)


def report(name: str, scale: str, seeds: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The text of a report on a study, of made-up runs that have a real scale's settings."""
    for variant, config in configs(name, scale).items():
        monkeypatch.setattr(made_up_runs, "IMAGES", config["test_images"])
        make_runs(variant, seeds=range(seeds))
        path = Path(f"results/tiny/runs/{variant}/config.json")
        own = json.loads(path.read_text())
        plain = {
            key: value for key, value in config.items() if isinstance(value, int | float | str)
        }
        path.write_text(json.dumps(own | plain))
    outputs.study_outputs(name, "tiny")
    outputs.report_outputs([name], "tiny", "REPORT")
    return DOCSTRING.sub("", Path("results/tiny/REPORT.md").read_text())


@pytest.mark.parametrize("scale", ["paper", "workstation"])
def test_a_report_has_the_numbers_of_its_scale(scale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = scales.load(scale, ROOT / "params.yaml")[0]
    text = report("xception_vs_inception", scale, len(settings.seeds), monkeypatch)
    config = json.loads(Path("results/tiny/runs/xception/config.json").read_text())
    size = f"{config['image_size']} x {config['image_size']} x {config['model.in_channels']}"
    for words in (
        f"each {len(settings.seeds)} times (seeds {', '.join(map(str, settings.seeds))})",
        f"on {settings.images:,} images of `{settings.dataset}` in ",
        f" {config['model.classes']} classes, given as {size}",
        f"{config['steps']:,} gradient steps, each on {settings.batch_size} images "
        f"(epochs: {settings.epochs:g})",
        f"measured on {settings.validation_images:,} images that are not trained on",
        f"final scores on {settings.test_images:,} test images",
        f"(n = {len(settings.seeds)} paired seeds)",
        f"and has {config['parameters']:,} parameters",
    ):
        assert words in text, words
    if scale == "paper":
        assert "Inception V3: 4.28 % more than Xception" in text
        assert "Xception is just as wide as published" in text
        assert not re.search(OF_OTHER_SCALES, text)


def test_detectors_at_the_papers_scale_are_of_coco(monkeypatch: pytest.MonkeyPatch) -> None:
    text = report("mobilenet_detection", "paper", 3, monkeypatch)
    assert "113,287 images of `coco` in 80 classes, given as 300 x 300 x 3" in text
    assert "limits are sides of 32 and 96 pixels in images of 640 x 480:" in text
    assert not re.search(OF_OTHER_SCALES, text)


def test_the_sizes_of_boxes_are_those_that_count() -> None:
    for name, words in markdown.SIZES_OF_BOXES.items():
        sides, _, whole = words.partition(" pixels")
        areas = [int(side) ** 2 for side in sides.split(" and ")]
        scaled = [area * (300**2 / (640 * 480) if whole else 1) for area in areas]
        assert [*data.detection_dataset(name).AREAS] == pytest.approx(scaled)


def carried(images: int, dataset: str) -> str:
    """ROBUSTNESS.md of effects at a scale that sees so many images."""
    made = claim_effects(lambda levels: 0.03)
    settings = tuple(
        dataclasses.replace(each, dataset=dataset, images_seen=each.images_seen * images // 40_800)
        for each in made.settings
    )
    judged = [robustness.judge(dataclasses.replace(made, settings=settings), made_up())]
    return robustness_report.markdown("robustness", made_up(), judged, "tiny")


def test_verdicts_carry_to_imagenet_only_where_it_is_not_among_the_settings() -> None:
    small, paper = carried(40_800, "fashion_mnist"), carried(228_810_060, "imagenet")
    for words in ("ImageNet,\nat the paper's width and length, could not", "doublings further"):
        assert words in small
        assert words not in paper
    for text in (small, paper):
        assert "With each doubling of the images seen" in text
        assert ", and with three of them wide.\n" in text
    half = carried(57_000_000, "fashion_mnist")
    assert re.search(r"budget, 1 doubling further", half)


# The words that these texts count; a name such as "figure 1 variants" does not occur.
PLURALS = "runs|networks|images|seeds|studies|claims|settings|times|epochs|variants|trials|steps"
PLURALS += "|classes|processes|points|cores|files"
ONE_OF_MANY = re.compile(rf"(?<![\d.,])(a|1|one) ({PLURALS})\b")


def test_one_is_in_the_singular(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a report of a single seed, and in all that is committed."""
    for name in ("xception_vs_inception", "residual_connections"):
        text = report(name, "smoke", 1, monkeypatch)
        assert "seeds 0" in text
        assert not ONE_OF_MANY.findall(text)
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("results/**/*.md")):
        assert not ONE_OF_MANY.findall(path.read_text()), path
