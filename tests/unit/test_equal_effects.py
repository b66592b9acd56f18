"""The test of equal effects: its level and its power where the seeds spread unequally."""

import math

import numpy as np
import pytest
from helpers.simulated_settings import studies
from scipy import stats
from statsmodels.stats.oneway import anova_oneway

from sepablate.analysis.equal_effects import p_value

DRAWS = 199  # so that p <= 0.05 has a level of exactly 5 %, were the variances known
NOISE = [(1, 0.25), (4, 0.25), (4, 0.5), (16, 0.25), (16, 0.5), (16, 0.85)]  # ratio, noisy


def rejects(k: int, count: int, **noise: float) -> float:
    """How often settings are called unequal; a new seed each time, for few draws are rough."""
    made = enumerate(studies(k, count, **noise))
    return float(np.mean([p_value(each, DRAWS, seed) <= 0.05 for seed, each in made]))


@pytest.mark.parametrize("skewness", [0, 0.5])
@pytest.mark.parametrize("k", [8, 12, 16])
def test_settings_that_agree_are_called_unequal_in_one_case_of_twenty(k, skewness):
    found = [rejects(k, 700, ratio=ratio, noisy=noisy, skewness=skewness) for ratio, noisy in NOISE]
    assert 0.035 <= np.mean(found) <= 0.06
    assert max(found) <= 0.08  # 6 %, and 2.2 standard errors of 700 studies


def test_clearly_skewed_noise_raises_the_level_a_little():
    found = [rejects(8, 1500, ratio=16, noisy=noisy, skewness=1) for noisy in (0.25, 0.5)]
    assert np.mean(found) <= 0.085


def test_the_usual_tests_call_them_unequal_too_often():
    made = list(studies(12, 400, ratio=16))
    p_pooled = [stats.f_oneway(*each).pvalue for each in made]
    p_alexander_govern = [stats.alexandergovern(*each).pvalue for each in made]
    p_welch = [anova_oneway(each, use_var="unequal").pvalue for each in made]
    for found in (p_pooled, p_alexander_govern, p_welch):
        assert (np.array(found) < 0.05).mean() > 0.06


@pytest.mark.parametrize(("ratio", "noisy"), [(1, 0.25), (4, 0.5), (16, 0.25), (16, 0.85)])
def test_it_finds_more_than_brown_and_forsythes_test(ratio, noisy):
    made = list(studies(12, 300, ratio=ratio, noisy=noisy, spread=1))
    ours = np.mean([p_value(each, DRAWS, seed) <= 0.05 for seed, each in enumerate(made)])
    theirs = np.mean([anova_oneway(each, use_var="bf").pvalue < 0.05 for each in made])
    assert ours > theirs + 0.05
    assert rejects(12, 300, ratio=ratio, noisy=noisy, spread=2) > 0.8


@pytest.mark.parametrize(("ratio", "noisy"), [(1, 0.25), (4, 0.5)])
def test_it_finds_one_setting_that_differs(ratio, noisy):
    assert rejects(12, 300, ratio=ratio, noisy=noisy, shift=8) > 0.8


def test_with_many_seeds_of_equal_spread_it_is_the_analysis_of_variance():
    draw = np.random.default_rng(1)
    for _ in range(20):
        differences = list(draw.normal(0.06 * draw.normal(size=(6, 1)), 1, (6, 400)))
        assert p_value(differences) == pytest.approx(stats.f_oneway(*differences).pvalue, abs=0.03)


def test_neither_scale_nor_origin_nor_another_run_change_it():
    (differences,) = studies(12, 1, spread=1)
    p = p_value(differences)
    assert p == p_value(differences)
    assert p == pytest.approx(p_value([7 - 1e-3 * each for each in differences]), abs=2e-4)
    assert p == pytest.approx(p_value(differences, seed=1), abs=0.02)


def test_single_seeds_take_the_spread_of_the_others():
    (differences,) = studies(12, 1, spread=0)
    assert 0 < p_value([*differences[:-1], differences[-1][:1]]) <= 1
    assert p_value([*differences, np.array([100.0])]) < 0.01
    assert math.isnan(p_value([np.array([1.0]), np.array([2.0])]))


def test_differences_without_any_spread():
    assert p_value([np.full(3, 0.01)] * 4) == 1
    assert p_value([np.full(3, value) for value in (0.01, 0.02, 0.03)]) < 0.001
