"""Verdicts on differences that are not normal, by simulation; the marks and the wider interval."""

import math
import re

import numpy as np
import pytest
from helpers.claims import measured
from helpers.project import ROOT
from scipy import stats

from sepablate.analysis import power, statistics, verdicts, wording
from sepablate.store import layout

REPORTS, CLAIMS, SEEDS = 20_000, 7, 6
SKEWED = [0.001, 0.002, 0.0015, 0.001, 0.0012, 0.03]
EVEN = [0.02, 0.021, 0.022, 0.019, 0.018, 0.023]


def normal(draw, *size):
    return draw.normal(size=size)


def lognormal(draw, *size):
    """Of mean zero."""
    return np.exp(draw.normal(size=size)) - math.exp(0.5)


def differences(baseline, others):
    """Of 7 claims against one baseline, without a true difference: (reports, claims, seeds)."""
    draw = np.random.default_rng(SEEDS)
    return baseline(draw, REPORTS, 1, SEEDS) - others(draw, REPORTS, CLAIMS, SEEDS)


@pytest.mark.parametrize(
    ("baseline", "others", "percent"),
    [(normal, normal, 4.6), (lognormal, normal, 9.5), (lognormal, lognormal, 1.3)],
)
def test_the_error_rates_that_the_rule_tells_are_simulated(baseline, others, percent):
    p = statistics.t_test(differences(baseline, others))
    rate = (statistics.holm(p) < 0.05).any(axis=-1).mean()
    assert 100 * rate == pytest.approx(percent, abs=0.3)
    said = " ".join((verdicts.__doc__ or "").split())
    assert f"{percent} %" in said


@pytest.mark.parametrize("n", [5, 6, 10, 30, 64, 100])
def test_normal_differences_are_rarely_called_skewed(n):
    d = np.random.default_rng(100 + n).normal(size=(50_000, n))
    assert statistics.clearly_skewed(d).mean() == pytest.approx(0.01, abs=0.003)
    assert statistics.skewness(d) == pytest.approx(stats.skew(d, axis=-1))


@pytest.mark.parametrize(("n", "least"), [(6, 0.14), (10, 0.29), (20, 0.65)])
def test_lognormal_differences_are_often_called_skewed(n, least):
    d = lognormal(np.random.default_rng(n), 20_000, n)
    assert statistics.clearly_skewed(d).mean() > least


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("d", [[], [0.1], [0.1, 0.1], [0.1, 0.2], [0.1, 0.1, 0.1]])
def test_no_skewness_without_a_spread_or_of_two(d):
    assert not statistics.clearly_skewed(np.array(d, float))
    assert not verdicts.decide([measured(d)])[0].doubtful


def test_skewed_differences_are_marked_and_even_ones_are_not():
    skewed, even = verdicts.decide([measured(SKEWED), measured(EVEN)])
    assert (skewed.skewed, even.skewed) == (True, False)
    assert "† The differences are clearly skewed (skewness +1.7" in wording.sentence(skewed)
    assert wording.marks(even) == []
    assert "†" not in wording.sentence(even)
    table = wording.scorecard([skewed, even])
    assert table.count("†") == 2  # its row, and what it means
    assert "\n† The differences may not be as the t-test assumes" in table
    assert "†" not in wording.scorecard([even])


@pytest.mark.parametrize(
    ("differences", "comparison", "disagree"),
    [
        (EVEN, ">", False),  # both find it: the sign-flip p is the smallest that six seeds give
        ([0.1, 0.11, 0.12, 0.1, 0.13, -0.001], ">", True),  # t alone
        ([0.1, 0.11, 0.12, 0.1, 0.13, -0.001], "=", False),  # tested against the margin
        ([0.01, 0.01, 0.012, 0.011, 0.013, 0.012, 0.01, 0.5], ">", True),  # sign-flip alone
        ([0.05, -0.04, 0.02, -0.01, 0.01, 0.03], ">", False),  # neither
    ],
)
def test_the_two_tests_agree_or_the_verdict_is_marked(differences, comparison, disagree):
    (verdict,) = verdicts.decide([measured(differences, comparison)])
    assert verdict.tests_disagree == disagree
    t_finds = statistics.t_test(np.array(differences)) < 0.05
    word = "finds" if not t_finds else "does not find"
    assert (f"exact sign-flip test {word} a difference" in wording.sentence(verdict)) == disagree
    assert ("†" in wording.marks(verdict)) == verdict.doubtful


def test_no_sign_flip_can_disagree_below_what_n_allows():
    """Seven claims with p of 0.031 each, which Holm's method raises to 0.22: no disagreement."""
    decided = verdicts.decide([measured(EVEN)] * 7)
    assert [each.outcome for each in decided] == ["holds"] * 7
    assert {round(each.p_sign_flip_adjusted, 2) for each in decided} == {0.22}
    assert not any(each.tests_disagree for each in decided)
    for n in (3, 6, 16):
        least = statistics.smallest_sign_flip(n)
        assert statistics.sign_flip(np.ones(n), np.random.default_rng(0)) == least


@pytest.mark.parametrize("family", [1, 7])
def test_the_interval_for_all_claims_is_students_at_the_corrected_level(family):
    first, *_ = verdicts.decide([measured(EVEN)] * family)
    ends = stats.t.interval(1 - 0.05 / family, 5, np.mean(EVEN), stats.sem(EVEN))
    assert (first.corrected_low, first.corrected_high) == pytest.approx(ends)
    row = wording.scorecard([first] * family).splitlines()[2]
    assert f"| [+{100 * ends[0]:.2f}, +{100 * ends[1]:.2f}] |" in row
    words = f"all {family} claims" if family > 1 else "the one claim"
    assert f"| For {words} |" in wording.scorecard([first] * family)


@pytest.mark.parametrize(
    ("comparison", "shift", "outcome", "equality"),
    [
        ("=", 0.0, "holds", True),
        ("=", 0.005, "inconclusive", True),
        ("=", 0.1, "contradicted", False),
        (">", 0.0, "equivalent", True),
        (">", 0.1, "holds", False),
        (">", 0.0051, "inconclusive", False),
    ],
)
def test_the_scorecard_has_the_p_value_that_decides(comparison, shift, outcome, equality):
    d = shift + np.array([0.002, -0.0021, 0.001, -0.0012, 0.0003, -0.0002])
    if outcome == "inconclusive" and comparison == ">":
        d = 10 * (d - shift)
    (verdict,) = verdicts.decide([measured(d, comparison)])
    assert verdict.outcome == outcome
    p = verdict.p_equivalence_adjusted if equality else verdict.p_adjusted
    text = f"{'< 0.001' if p < 0.001 else f'{p:.3f}'}{' (within ±0.5)' * equality}"
    assert f"| {text} | **{outcome}** |" in wording.scorecard([verdict])


def test_what_is_open_only_after_correction_is_said():
    d = [0.020, 0.005, 0.012, 0.016]
    alone, among = (verdicts.decide([measured(d)] + [measured([0.05, -0.05, 0.04, 0.01])] * more)[0]
                    for more in (0, 6))  # fmt: skip
    assert (alone.outcome, among.outcome) == ("holds", "inconclusive")
    assert among.corrected_low < 0 < among.measured.low
    assert "but after correction for the 7 claims" in wording.sentence(among)
    assert "correction" not in wording.sentence(alone)


def test_a_baseline_far_below_known_accuracies_is_marked_beside_the_verdict():
    far, near = verdicts.decide([measured(EVEN, below_published=at) for at in (0.1512, 0.03)])
    row, other = wording.scorecard([far, near]).splitlines()[2:4]
    assert row.endswith("| **holds** ‡ |")
    assert other.endswith("| **holds** |")
    assert "\n‡ On final accuracy, with a baseline more than 3 points below" in wording.scorecard(
        [far, near]
    )
    assert wording.sentence(far).endswith(
        "‡ The baseline ends 15.12 points below the lowest published accuracy of its kind."
    )
    assert "‡" not in wording.sentence(near)


def test_the_plan_s_power_is_that_of_the_differences_found(monkeypatch):
    """Against statsmodels' noncentral t, from the committed results."""
    from statsmodels.stats.power import TTestPower

    monkeypatch.chdir(ROOT)
    (line,) = power.lines(3, everything=False)
    low, high, count, family = re.match(
        r"power   ([\d.]+) to ([\d.]+) with 3 seeds, for the (\d+) .* among (\d+) claims", line
    ).groups()
    decided = [
        each
        for each in power.read_json(ROOT / "results/laptop/verdicts.json", list)
        if each["outcome"] in ("holds", "contradicted")
    ]
    effects = [each["measured"]["cohens_dz"] for each in decided]
    level = 0.05 / int(family) / 2  # the other tail adds nothing, and statsmodels says nan of it
    powers = [TTestPower().power(abs(each), 3, level, alternative="larger") for each in effects]
    assert (low, high) == (f"{min(powers):.2f}", f"{max(powers):.2f}")
    assert int(count) == len(effects)
    assert len([*power.lines(3, everything=True)]) == len(layout.verdict_files("laptop")) == 4


def test_no_results_no_power(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [*power.lines(3, everything=True)] == []
    folder = tmp_path / "results/laptop"
    folder.mkdir(parents=True)
    (folder / "verdicts.json").write_text('[{"outcome": "holds"}]')
    with pytest.raises(ValueError, match=r"verdicts\.json: not the verdicts of a report"):
        [*power.lines(3, everything=False)]
