"""The report on how far verdicts carry, from made-up runs to its figures."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from helpers.figure_texts import kept_figures
from helpers.made_up_settings import (
    SCALE,
    SEEDS,
    SETTINGS,
    STEPS,
    VARIANTS,
    claim_effects,
    made_up,
    project_of_settings,
)
from helpers.project import ROOT, contents
from matplotlib.figure import Figure

from sepablate import study
from sepablate.analysis import robustness, setting_effects
from sepablate.analysis.load_runs import load_runs
from sepablate.cli.robustness import untrained
from sepablate.errors import UserError
from sepablate.plots import budget_figure, specification_curve
from sepablate.provenance import verify
from sepablate.provenance.trace import trace
from sepablate.report import robustness as report
from sepablate.store import collected_runs, layout
from sepablate.store.run_archive import import_runs

__all__ = ["project_of_settings"]
NAME = "robustness"
ARCHIVE = Path("results/tiny/robustness_runs.tar.gz")
CHANGED = ("robustness/carrying.json", "ROBUSTNESS.md", "robustness/budget.csv")


@pytest.fixture
def project(project_of_settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with made-up runs and their report."""
    shutil.copytree(project_of_settings, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written() -> dict[str, bytes]:
    return {
        name: content
        for name, content in contents(Path("results")).items()
        if not name.startswith(("tiny/runs", "tiny/settings"))
    }


def test_the_report_follows_from_the_runs(project: Path) -> None:
    claims = report.read(NAME, SCALE)
    assert [len(each.settings) for each in claims] == [SETTINGS + 1] * 4
    for each in claims:
        for setting in each.settings:
            scale = SCALE if setting.setting == "base" else f"{SCALE}.{setting.setting}"
            sides = [study.variant(each.claim.left), study.variant(each.claim.right)]
            scores = load_runs(sides, scale).scores("accuracy")
            expected = scores[each.claim.left] - scores[each.claim.right]
            assert setting.differences == pytest.approx(list(expected))
            assert setting.images_seen == 64 * STEPS[setting.levels["budget"]]
    text = Path("results/tiny/ROBUSTNESS.md").read_text()
    judged = [robustness.judge(each, made_up()) for each in claims]
    for each in judged:
        assert f"{100 * each.estimate.mean:+.2f}".replace("-", "−") in text
        assert f"**{each.outcome}**" in text
    assert Path("results/tiny/robustness.html").read_text().count("data:image/svg+xml") == 5
    metrics = json.loads(Path("results/tiny/robustness_metrics.json").read_text())
    assert [each["outcome"] for each in metrics.values()] == [each.outcome for each in judged]
    budget = pd.read_csv("results/tiny/robustness/budget.csv")
    assert list(budget.groupby("claim").images_seen.count()) == [5] * 4
    origin = trace(Path("results/tiny/ROBUSTNESS.md"))
    keys = {
        key for c in claims for s in c.settings for k in s.run_keys.values() for key in k.values()
    }
    assert len(keys) > SEEDS * SETTINGS
    assert all(f"run {key}" in origin for key in keys)
    assert "sepablate train robustness --scale tiny\n" in origin
    assert "sepablate train elu_between --scale tiny\n" in origin


def lines_on_robustness() -> list[str]:
    findings = verify.Findings()
    path = layout.scale_folder(SCALE) / layout.manifest_name("ROBUSTNESS")
    findings.run(path, verify._check_digests, path)
    findings.run(path, verify._check_report, path, SCALE, findings.checked, [])
    findings.run(path, verify._check_coverage, SCALE)
    return [line for line in findings.wrong if "robustness" in line.lower()]


@pytest.mark.slow
def test_verify_makes_the_report_again_from_runs_or_their_archive(project: Path) -> None:
    before = written()
    assert lines_on_robustness() == []
    shutil.rmtree("results/tiny/settings")
    assert lines_on_robustness() == []
    report.effects_outputs(NAME, SCALE)
    assert written() == before
    assert len(collected_runs.trained_settings(SCALE)) == SETTINGS
    imported = import_runs(ARCHIVE)
    assert {*imported} == {f"tiny.{each.name}" for each in made_up().settings[:SETTINGS]}
    assert all(names == sorted(VARIANTS) for names in imported.values())
    shutil.rmtree("results/tiny/settings/cifar10")  # the archive has it still
    report.effects_outputs(NAME, SCALE)
    assert written() == before
    content = bytearray(ARCHIVE.read_bytes())
    content[len(content) // 2] ^= 1
    ARCHIVE.write_bytes(content)
    with pytest.raises(UserError, match="not an archive of runs"):
        report.effects_outputs(NAME, SCALE)


def test_verify_makes_the_report_again_without_runs(project: Path) -> None:
    shutil.rmtree("results/tiny/settings")
    shutil.rmtree("results/tiny/runs")
    ARCHIVE.unlink()
    changed = [Path("results/tiny") / name for name in CHANGED]
    for path in changed:
        path.write_bytes(path.read_bytes().replace(b"7", b"8", 1))
    lines = lines_on_robustness()
    for path in changed:
        assert any(str(path) in line and "does not follow from" in line for line in lines), path


def test_what_is_missing_is_one_line(project: Path) -> None:
    Path("results/tiny/robustness/effects.json").unlink()
    ARCHIVE.unlink()
    with pytest.raises(UserError, match=r"effects\.json: missing; run `sepablate robustness"):
        report.report_outputs(NAME, SCALE)
    shutil.rmtree("results/tiny/settings/cifar10/runs/elu_between")
    with pytest.raises(
        UserError, match=r"setting cifar10: .*elu_between.*train robustness --scale tiny`"
    ):
        report.effects_outputs(NAME, SCALE)
    for path in Path("results/tiny/settings").iterdir():
        shutil.rmtree(path)
    with pytest.raises(UserError, match=r"fewer than two settings.*train robustness --scale tiny`"):
        report.effects_outputs(NAME, SCALE)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn, kept instead of rendered."""
    return kept_figures(monkeypatch, "xception", specification_curve, budget_figure)


def judged_claims(noise: float) -> list[robustness.Carrying]:
    def effect(levels: dict[str, str]) -> float:
        return 0.03 + 0.02 * (levels["data"] == "CIFAR-10") - 0.01 * (levels["width"] == "1/2")

    pairs = study.robustness_claims(NAME)
    return [
        robustness.judge(claim_effects(effect, noise, number, pair), made_up())
        for number, pair in enumerate(pairs)
    ]


@pytest.mark.parametrize("noise", [0.0005, 0.004, 0.05])
def test_figures_show_every_setting_and_no_texts_overlap(
    drawn: list[Figure], noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    claims = judged_claims(noise)
    for each in claims:
        specification_curve.draw(each, made_up(), "png", "laptop")
        upper, lower = drawn[-1].axes
        assert len(upper.get_xticks()) == SETTINGS + 1
        dots = [line for line in lower.lines if line.get_marker() == "o"]
        assert len(dots) == (SETTINGS + 1) * 5  # settings x factors
        order = specification_curve.rising(each)
        means = [each.means[index][0] for index in order]
        assert means == sorted(means)
        (footer,) = drawn[-1].texts
        assert footer.get_text().startswith("fashion_mnist, scale laptop (the diamond), 1")
    budget_figure.draw(claims, made_up(), "png", "laptop")
    assert len(drawn[-1].axes) == 4
    footer = drawn[-1].get_supxlabel()
    assert footer.startswith(
        "fashion_mnist; scale laptop; n = 3 or 6 paired seeds; bars and bands: 95 %"
    )


def test_effects_are_of_the_settings_that_have_runs(project: Path) -> None:
    shutil.rmtree("results/tiny/settings/batch_double")
    ARCHIVE.unlink()
    names = setting_effects.trained_settings(made_up(), SCALE)
    assert next(iter(names)) == "base"
    assert "batch_double" not in names
    assert len(names) == SETTINGS


def test_every_declared_setting_has_committed_runs_and_others_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    assert untrained(NAME, "laptop") == []
    missing = untrained(NAME, "workstation")  # which has CIFAR-10 already
    assert "budget_double" in missing
    assert "garments" in missing
    assert not {"base", "cifar10"} & {*missing}
