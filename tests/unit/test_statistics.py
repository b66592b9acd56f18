"""The statistics against scipy and statsmodels, brute force, simulation; the rule case by case."""

import itertools
import math

import numpy as np
import pytest
from helpers.claims import measured
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW, ttost_paired

from sepablate.analysis import statistics, verdicts
from sepablate.analysis.effects import Divergence

CLOSE = {"rel": 1e-10, "abs": 1e-10}


def samples(count=200):
    """Random paired samples of 2 to 20 seeds, of effects from none to large."""
    draw = np.random.default_rng(1)
    for _ in range(count):
        n, shift = draw.integers(2, 21), draw.choice([0, 0.01, 0.1])
        yield draw.normal(0.8 + shift, 0.05, n), draw.normal(0.8, 0.05, n)


def test_paired_t_agrees_with_scipy_and_statsmodels():
    for left, right in samples():
        d = left - right
        mean, low, high = statistics.interval(d)
        assert statistics.t_test(d) == pytest.approx(stats.ttest_rel(left, right).pvalue, **CLOSE)
        assert (low, high) == pytest.approx(DescrStatsW(d).tconfint_mean(), **CLOSE)
        assert mean == pytest.approx(left.mean() - right.mean(), **CLOSE)
        assert statistics.cohens_dz(d) == pytest.approx(d.mean() / stats.tstd(d), **CLOSE)


@pytest.mark.parametrize("margin", [0.005, 0.05])
def test_equivalence_agrees_with_statsmodels(margin):
    for left, right in samples():
        expected = ttost_paired(left, right, -margin, margin)[0]
        assert statistics.tost(left - right, margin) == pytest.approx(expected, **CLOSE)


def test_beyond_margin_is_the_t_test_against_the_nearer_end():
    for left, right in samples():
        d = left - right
        end = math.copysign(0.02, d.mean())
        expected = stats.ttest_1samp(d, end).pvalue if abs(d.mean()) > 0.02 else 1.0
        assert statistics.margin_test(d, 0.02) == pytest.approx(expected, **CLOSE)


def test_holm_agrees_with_statsmodels():
    draw = np.random.default_rng(2)
    for size in range(1, 20):
        p = draw.uniform(size=size) ** 3
        p[draw.integers(size)] = p[0]  # ties
        expected = multipletests(p, method="holm")[1]
        assert statistics.holm(p) == pytest.approx(expected, **CLOSE)


def test_holm_counts_nan_as_a_member_of_the_family():
    adjusted = statistics.holm(np.array([0.01, math.nan, 0.02]))
    assert adjusted[[0, 2]] == pytest.approx([0.03, 0.04])
    assert math.isnan(adjusted[1])


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_exact_sign_flip_agrees_with_brute_force(n):
    draw = np.random.default_rng(n)
    for d in (draw.normal(0.5, 1, n), np.round(draw.normal(0.5, 1, n), 1), np.ones(n)):
        flips = [abs(sum(s * x for s, x in zip(signs, d, strict=True)))
                 for signs in itertools.product((1, -1), repeat=n)]  # fmt: skip
        expected = np.mean([each >= abs(d.sum()) - 1e-9 for each in flips])
        assert statistics.sign_flip(d, draw) == expected


def test_sampled_sign_flip_is_near_scipys():
    d = np.random.default_rng(3).normal(0.4, 1, 20)
    expected = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=50_000, rng=4
    ).pvalue
    found = statistics.sign_flip(d, np.random.default_rng(5))
    assert found == pytest.approx(expected, abs=0.006)
    assert found == statistics.sign_flip(d, np.random.default_rng(5))


@pytest.mark.parametrize("level", [0.05, 0.05 / 7])
@pytest.mark.parametrize("n", [3, 6, 10, 30])
def test_power_agrees_with_statsmodels(n, level):
    effect = statistics.detectable_effect(n, level)
    assert TTestPower().power(effect, n, level) == pytest.approx(0.8, **CLOSE)
    assert statistics.seeds_needed(effect * 1.000001, level) == n
    assert statistics.seeds_needed(effect * 0.999999, level) == n + 1
    assert statistics.seeds_needed(-effect * 1.000001, level) == n


def test_detectable_effects_of_a_handful_of_seeds():
    found = [statistics.detectable_effect(n) for n in (3, 5, 8, 10)]
    assert found == pytest.approx([3.3, 1.7, 1.2, 1.0], abs=0.05)
    assert statistics.seeds_needed(0.0) is None
    assert statistics.seeds_needed(math.nan) is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("d", [[], [0.1], [0.1, 0.1], [0.1 - 0.08, 0.3 - 0.28, 0.02]])
def test_nothing_is_said_without_a_spread(d):
    d = np.array(d, float)
    found = [*statistics.interval(d)[1:], statistics.t_test(d), statistics.cohens_dz(d),
             statistics.tost(d, 0.5), statistics.margin_test(d, 0.01)]  # fmt: skip
    assert np.isnan(found).all()


def test_interval_over_images_is_the_t_interval_of_the_mean_images():
    draw = np.random.default_rng(6)
    left, right = (draw.random((2, 3, 400)) < np.array([0.9, 0.85])[:, None, None]).astype(float)
    mean, low, high = statistics.interval_over_images(left, right)
    means = left.mean(0) - right.mean(0)
    assert mean == pytest.approx(left.mean() - right.mean(), **CLOSE)
    assert (low, high) == pytest.approx(DescrStatsW(means).tconfint_mean(), **CLOSE)


def test_interval_over_images_of_zeros_and_ones_is_what_it_always_was():
    """The numbers of the rule that took only right and wrong."""
    draw = np.random.default_rng(8)
    left, right = draw.random((2, 6, 1000)) < np.array([0.8, 0.79])[:, None, None]
    found = statistics.interval_over_images(left.astype(float), right.astype(float))
    golden = [0.014666666666666668, 0.0005837992533225048, 0.02874953408001083]
    assert list(map(float, found)) == pytest.approx(golden, rel=1e-12)


def test_interval_over_images_of_precisions():
    draw = np.random.default_rng(9)
    left, right = draw.random((2, 4, 300))
    _, low, high = statistics.interval_over_images(left, right)
    expected = DescrStatsW((left - right).mean(0)).tconfint_mean()
    assert (low, high) == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize("n", [3, 6, 10])
def test_intervals_cover_and_a_report_rarely_claims_falsely(n):
    """7 claims, of which those on one network share its runs, and no true difference at all."""
    reports = 20_000
    draw = np.random.default_rng(n)
    shared, own = draw.normal(size=(reports, 1, n)), draw.normal(size=(reports, 7, n))
    differences = shared - own
    false_claims = (statistics.holm(statistics.t_test(differences)) < 0.05).any(axis=-1).mean()
    _, low, high = statistics.interval(differences[:, 0])
    error = math.sqrt(0.05 * 0.95 / reports)
    assert false_claims < 0.05 + 3 * error
    assert false_claims > 0.005  # the rule can speak
    assert ((low < 0) & (high > 0)).mean() == pytest.approx(0.95, abs=0.01)


def test_the_rule_decides_as_the_simulation_assumes():
    """Word by word: `decide` speaks of a difference just where the adjusted t-test does."""
    draw = np.random.default_rng(7)
    for _ in range(60):
        differences = draw.normal(draw.choice([0, 1]), 1, (7, 6)) / 100
        words = [each.outcome for each in verdicts.decide([measured(d) for d in differences])]
        real = statistics.holm(statistics.t_test(differences)) < 0.05
        assert [word in ("holds", "contradicted") for word in words] == real.tolist()


UP, SMALL, WIDE = (
    [0.02, 0.021, 0.022, 0.019],
    [1e-4, -1e-4, 2e-4, -2e-4],
    [0.05, -0.04, 0.02, -0.01],
)
LEFT, RIGHT = (Divergence(name, name.upper(), 9, 5) for name in "ab")


@pytest.mark.parametrize(
    ("differences", "comparison", "diverged", "word"),
    [
        (UP, ">", (), "holds"),
        (UP, "<", (), "contradicted"),
        (UP, "=", (), "contradicted"),
        (SMALL, ">", (), "equivalent"),
        (SMALL, "=", (), "holds"),
        (WIDE, ">", (), "inconclusive"),
        (WIDE, "=", (), "inconclusive"),
        ([0.004, 0.0041, 0.0042, 0.0039], "=", (), "holds"),  # real, but within the margin
        ([0.004, 0.0041, 0.0042, 0.0039], ">", (), "holds"),
        (UP, ">", (RIGHT,), "holds"),  # against the one that diverged
        (UP, ">", (LEFT,), "inconclusive"),  # for it
        (UP, "<", (RIGHT,), "contradicted"),
        (UP, "=", (LEFT, RIGHT), "inconclusive"),
        (SMALL, ">", (RIGHT,), "inconclusive"),
        ([0.02], ">", (), "inconclusive"),
        ([], ">", (RIGHT,), "inconclusive"),
        ([0.02, 0.02, 0.02], ">", (), "inconclusive"),  # no spread to judge by
    ],
)
def test_rule(differences, comparison, diverged, word):
    (verdict,) = verdicts.decide([measured(differences, comparison, diverged=diverged)])
    assert verdict.outcome == word


def test_other_claims_of_the_report_raise_the_bar():
    one = measured([0.020, 0.005, 0.012, 0.016])
    single, among = (verdicts.decide([one] + [measured(WIDE)] * more)[0] for more in (0, 6))
    assert (single.outcome, among.outcome) == ("holds", "inconclusive")
    detectable = one.deviation * statistics.detectable_effect(4, 0.05 / 7)
    assert among.detectable == pytest.approx(detectable, **CLOSE)
    assert among.seeds_needed == statistics.seeds_needed(0.005 / one.deviation, 0.05 / 7)
