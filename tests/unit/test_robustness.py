"""How far a verdict carries: the rule case by case, from made-up settings."""

import dataclasses
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.made_up_settings import SETTINGS, claim_effects, made_up
from helpers.project import ROOT

from sepablate import study
from sepablate.analysis import carrying_words, effects, robustness, setting_effects
from sepablate.analysis.robustness import Estimate, judge, outcome
from sepablate.errors import UserError
from sepablate.study import Claim

CLAIM = Claim("a", ">", "b", metric="accuracy", margin=0.005, section="1", statement="a beats b")


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def estimate(new_low: float, new_high: float, p_equal: float = 0.5) -> Estimate:
    return Estimate(9, 0, 0, 0, 0, 0, p_equal, new_low, new_high, 0, 0)


@pytest.mark.parametrize(
    ("numbers", "comparison", "diverged", "expected"),
    [
        ((0.1, 1), ">", set(), "carries"),
        ((0.1, 1), "<", set(), "reversed"),
        ((-1, -0.1), "<", set(), "carries"),
        ((-1, -0.1), ">", set(), "reversed"),
        ((-0.1, 1), ">", set(), "open"),
        ((-0.1, 1, 0.01), ">", set(), "depends"),
        ((0.1, 1, 0.01), ">", set(), "carries"),  # of different sizes, always above zero
        ((0.1, 1), ">", {"b"}, "carries"),
        ((0.1, 1), ">", {"a"}, "open"),  # favours the one that diverged
        ((-1, -0.1), ">", {"b"}, "open"),
    ],
)
def test_the_rule(numbers, comparison, diverged, expected) -> None:
    claim = dataclasses.replace(CLAIM, comparison=comparison)
    assert outcome(claim, estimate(*numbers), diverged) == expected


def test_equal_effects_carry_and_nothing_is_explained() -> None:
    verdict = judge(claim_effects(lambda levels: 0.05, noise=0.002), made_up())
    assert verdict.outcome == "carries"
    assert verdict.estimate.k == SETTINGS + 1
    assert verdict.estimate.mean == pytest.approx(0.05, abs=0.002)
    assert {each.outcome for each in verdict.left_out} == {"carries"}
    assert len(verdict.left_out) == SETTINGS + 1


def test_the_factor_that_decides_is_named_first() -> None:
    """Of a claim that holds for one data set and is contradicted for the other."""

    def effect(levels):
        return {"the scale's": 0.06, "CIFAR-10": -0.05}[levels["data"]]

    verdict = judge(claim_effects(effect, noise=0.003), made_up())
    assert verdict.outcome == "depends"
    assert verdict.estimate.p_equal < 0.001
    assert verdict.shares[0].factor == "data"
    assert verdict.shares[0].share > 0.8
    assert verdict.shares[0].p < 0.01
    assert max(each.share for each in verdict.shares[1:]) < 0.5


def test_categories_and_numbers_enter_as_columns() -> None:
    declared, made = made_up(), claim_effects(lambda levels: 0.01)
    settings = list(made.settings)
    budget = robustness.design(settings, declared, "budget")
    assert budget.shape == (SETTINGS + 1, 2)
    assert set(budget[:, 1]) == {-3.0, -2.0, -1.0, 0.0, 1.0}
    recipe = robustness.design(settings, declared, "recipe")
    assert recipe.shape == (SETTINGS + 1, 4)
    assert recipe[:, 1:].sum() == 3
    assert (recipe[:, 1:].sum(1) <= 1).all()


def test_the_budget_line_has_nothing_else_and_its_trend_is_the_slope() -> None:
    def effect(levels):
        return 0.04 + 0.01 * np.log2(float(Fraction(levels["budget"])))

    made = claim_effects(effect, noise=1e-4)
    verdict = judge(made, made_up())
    assert [each.setting for each in robustness.on_budget_line(list(made.settings), made_up())] == [
        "budget_eighth",
        "budget_quarter",
        "budget_half",
        "base",
        "budget_double",
    ]
    assert verdict.trend.slope == pytest.approx(0.01, abs=5e-4)
    assert verdict.trend.slope_low < verdict.trend.slope < verdict.trend.slope_high
    width = verdict.trend.at_paper_high - verdict.trend.at_paper_low
    assert width > verdict.estimate.true_high - verdict.estimate.true_low - 0.05


@pytest.mark.parametrize(
    ("slope", "words"),
    [
        (-0.01, " if it went on so far. No setting has a difference of that sign: so few budgets "),
        (0.15, " if it went on so far. Two scores cannot differ by more than 100 points: so few "),
        (0.01, " if it went on so far.\n"),
    ],
)
def test_a_line_that_leaves_what_is_possible_is_not_believed(slope: float, words: str) -> None:
    def effect(levels):
        return 0.04 + slope * np.log2(float(Fraction(levels["budget"])))

    verdict = judge(claim_effects(effect, noise=1e-4), made_up())
    assert words in carrying_words.sentence(verdict, made_up())


def test_the_settings_that_decide_have_the_words_of_the_table() -> None:
    verdict = judge(claim_effects(lambda levels: 0.05, noise=0.002), made_up())
    names = ("base", "budget_double")
    others = [
        dataclasses.replace(each, outcome="open" if each.setting in names else each.outcome)
        for each in verdict.left_out
    ]
    two = dataclasses.replace(verdict, left_out=others)
    says = "It would be **open** without any one of these 2 settings: *The scale itself*; *Budget "
    assert f"{says}2*." in carrying_words.sentence(two, made_up())
    assert "any one of 2 settings, named below, is left out." in carrying_words.summary([two])


def test_few_settings_and_lost_seeds() -> None:
    made = claim_effects(lambda levels: 0.02)
    none = dataclasses.replace(made.settings[1], differences=(), seeds=(), diverged=("b",))
    fewer = dataclasses.replace(made, settings=(made.settings[0], none, *made.settings[2:]))
    verdict = judge(fewer, made_up())
    assert verdict.estimate.k == SETTINGS
    assert np.isnan(verdict.means[1][0])
    with pytest.raises(UserError, match="fewer than three"):
        judge(dataclasses.replace(made, settings=made.settings[:2]), made_up())


def test_effects_survive_their_file(tmp_path: Path) -> None:
    made = [claim_effects(lambda levels: 0.02)]
    path = tmp_path / "effects.json"
    path.write_text(effects.to_json(made))
    assert setting_effects.read(path) == made
    content = json.loads(path.read_text())
    for change in ({"claim": {}}, {"settings": [{}]}, {"settings": 3}):
        path.write_text(json.dumps([{**content[0], **change}]))
        with pytest.raises(UserError, match="not the effects"):
            setting_effects.read(path)


def test_the_paper_prints_one_of_the_differences() -> None:
    claims = [claim for _, claim in study.robustness_claims("robustness")]
    made = claim_effects(lambda levels: 0.02)
    found = [judge(dataclasses.replace(made, claim=each), made_up()).paper for each in claims]
    assert found == [0.008, None, None, None]
