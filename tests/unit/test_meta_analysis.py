"""The meta-analysis against published worked examples, closed forms, likelihoods and simulation."""

import math

import numpy as np
import pytest
from helpers.simulated_settings import studies
from scipy import optimize, stats
from statsmodels.stats.meta_analysis import combine_effects

from sepablate.analysis import meta_analysis

# Colditz et al. 1994, thirteen trials of the BCG vaccine: cases and others among the vaccinated,
# the same among the controls, latitude. R's metafor has them as dat.bcg.
BCG = np.array(
    [
        (4, 119, 11, 128, 44),
        (6, 300, 29, 274, 55),
        (3, 228, 11, 209, 42),
        (62, 13536, 248, 12619, 52),
        (33, 5036, 47, 5761, 13),
        (180, 1361, 372, 1079, 44),
        (8, 2537, 10, 619, 19),
        (505, 87886, 499, 87892, 13),
        (29, 7470, 45, 7232, 27),
        (17, 1699, 65, 1600, 42),
        (186, 50448, 141, 27197, 18),
        (5, 2493, 3, 2338, 33),
        (27, 16886, 29, 17825, 33),
    ],
    float,
)
# Raudenbush 1985, nineteen studies of teachers' expectations: effect, variance, weeks of contact.
RAUDENBUSH = np.array(
    [
        (0.03, 0.0156, 2),
        (0.12, 0.0216, 21),
        (-0.14, 0.0279, 19),
        (1.18, 0.1391, 0),
        (0.26, 0.1362, 0),
        (-0.06, 0.0106, 3),
        (-0.02, 0.0106, 17),
        (-0.32, 0.0484, 24),
        (0.27, 0.0269, 0),
        (0.80, 0.0630, 1),
        (0.54, 0.0912, 0),
        (0.18, 0.0497, 0),
        (-0.02, 0.0835, 1),
        (0.23, 0.0841, 2),
        (-0.18, 0.0253, 17),
        (-0.06, 0.0279, 5),
        (0.30, 0.0193, 1),
        (0.07, 0.0088, 2),
        (-0.07, 0.0303, 7),
    ]
)
SEEDS = 3


def bcg():
    """Log relative risks and their variances."""
    treated, others, controls, other_controls, _ = BCG.T
    effects = np.log(treated / (treated + others) / (controls / (controls + other_controls)))
    return effects, 1 / treated - 1 / (treated + others) + 1 / controls - 1 / (
        controls + other_controls
    )


def random_settings(count=100):
    draw = np.random.default_rng(4)
    for _ in range(count):
        k = draw.integers(3, 17)
        variances = draw.uniform(0.2, 3, k)
        yield draw.normal(1, np.sqrt(draw.choice([0, 1, 9]) + variances)), variances


def test_bcg_agrees_with_metafor():
    """metafor 4: rma(yi, vi, data=dat, test="knha"), and the same with mods = ~ ablat."""
    effects, variances = bcg()
    pooled = meta_analysis.pool(effects, variances, np.float64(0))
    assert pooled.tau**2 == pytest.approx(0.3132, abs=5e-5)
    assert pooled.tau == pytest.approx(0.5597, abs=5e-5)
    assert pooled.mean == pytest.approx(-0.7145, abs=5e-5)
    assert pooled.i_squared == pytest.approx(0.9222, abs=5e-5)
    weights = 1 / (variances + pooled.tau**2)
    error = weights.sum() ** -0.5  # without Knapp and Hartung
    assert error == pytest.approx(0.1798, abs=5e-5)
    half = stats.norm.isf(0.025) * math.hypot(pooled.tau, error)  # metafor's default, by z
    assert (pooled.mean - half, pooled.mean + half) == pytest.approx((-1.8667, 0.4376), abs=1e-4)
    latitude = np.stack([np.ones(13), BCG[:, 4]], 1)
    fit = meta_analysis.regress(effects, variances, latitude)
    assert fit.coefficients == pytest.approx((0.2515, -0.0291), abs=5e-5)
    explained = meta_analysis.explained(pooled.tau**2, fit.tau_squared)
    assert explained == pytest.approx(0.7562, abs=1e-3)


def test_raudenbush_agrees_with_the_handbook_and_metafor():
    """Raudenbush 2009, tables 16.2 and 16.3: REML, with Knapp and Hartung's standard error."""
    effects, variances, weeks = RAUDENBUSH.T
    pooled = meta_analysis.pool(effects, variances, np.float64(0))
    found = [pooled.tau**2, pooled.mean, pooled.error, pooled.low, pooled.high]
    assert np.round(found, 3) == pytest.approx([0.019, 0.084, 0.062, -0.046, 0.213])
    assert pooled.mean / pooled.error == pytest.approx(1.359, abs=5e-4)
    assert meta_analysis.cochran_q(effects, variances) == pytest.approx(35.83, abs=5e-3)
    contact = np.stack([np.ones(19), np.minimum(weeks, 3)], 1)
    fit = meta_analysis.regress(effects, variances, contact)
    assert fit.tau_squared == pytest.approx(0, abs=5e-4)
    assert fit.coefficients == pytest.approx((0.407, -0.157), abs=5e-4)


@pytest.mark.parametrize("columns", [1, 2])
def test_reml_maximises_the_restricted_likelihood(columns):
    draw = np.random.default_rng(5)
    for effects, variances in random_settings():
        design = np.stack([np.ones(len(effects)), draw.normal(size=len(effects))], 1)[:, :columns]

        def loss(tau_squared, y=effects, v=variances, x=design):
            weights = 1 / (v + tau_squared)
            cross = x.T @ (weights[:, None] * x)
            residuals = y - x @ np.linalg.solve(cross, x.T @ (weights * y))
            logs = -np.log(weights).sum() + np.linalg.slogdet(cross)[1]
            return (logs + (weights * residuals**2).sum()) / 2

        best = optimize.minimize_scalar(loss, bounds=(0, 200), options={"xatol": 1e-9}).x
        found = meta_analysis.reml(effects, variances, design)
        assert loss(found) <= loss(best) + 1e-9
        assert loss(found) <= loss(0)


def test_mean_and_interval_agree_with_statsmodels_at_the_same_tau():
    """statsmodels has Knapp and Hartung's interval, though not REML."""
    for effects, variances in random_settings():
        pooled = meta_analysis.pool(effects, variances, np.float64(1))
        theirs = combine_effects(effects, variances + pooled.tau**2, use_t=True)
        assert pooled.mean == pytest.approx(theirs.mean_effect_fe)
        assert pooled.error == pytest.approx(math.sqrt(theirs.var_hksj_fe))
        q = combine_effects(effects, variances).q
        assert meta_analysis.cochran_q(effects, variances) == pytest.approx(q)


def test_equal_variances_give_the_closed_forms():
    """With equal n all is that of a one-way analysis of variance, and of plain Student's t."""
    draw = np.random.default_rng(6)
    for _ in range(50):
        k, n = int(draw.integers(3, 17)), int(draw.integers(2, 7))
        differences = draw.normal(draw.normal(0, 2, (k, 1)), 1, (k, n))
        variance, degrees = meta_analysis.pooled_variance(list(differences))
        effects, noise = differences.mean(1), np.full(k, variance / n)
        pooled = meta_analysis.pool(effects, noise, noise[0])
        assert degrees == k * (n - 1)
        q = meta_analysis.cochran_q(effects, noise)
        assert q / (k - 1) == pytest.approx(stats.f_oneway(*differences).statistic)
        spread = effects.var(ddof=1)
        assert pooled.tau**2 == pytest.approx(max(spread - variance / n, 0), abs=1e-7)
        assert (pooled.low, pooled.high) == pytest.approx(
            stats.t.interval(0.95, k - 1, effects.mean(), stats.sem(effects))
        )
        half = stats.t.isf(0.025, k - 1) * math.sqrt(spread * (1 + 1 / k))
        assert pooled.new_high - pooled.mean == pytest.approx(half)
        true = stats.t.isf(0.025, k - 2) * math.sqrt(pooled.tau**2 + spread / k)
        assert pooled.mean - pooled.true_low == pytest.approx(true)


def simulate(k, tau, mean=0.0, count=2500, unequal=0.0):
    """Pool made-up settings of three seeds, the first of six; measure a new one of three.

    tau is in standard errors of a setting of three seeds; variances are estimated, as always.
    """
    draw = np.random.default_rng([k, int(10 * tau), int(10 * unequal)])
    seeds = np.array([6] + [SEEDS] * (k - 1))
    deviations = np.exp(unequal * draw.normal(size=(count, k + 1)))
    typical = math.exp(unequal**2) / math.sqrt(SEEDS)  # root mean square, of a standard error
    true = mean + tau * typical * draw.normal(size=(count, k + 1))
    effects, squares = true[:, :k].copy(), np.zeros(count)
    for i, n in enumerate(seeds):
        noise = deviations[:, i : i + 1] * draw.normal(size=(count, n))
        effects[:, i] += noise.mean(1)
        squares += noise.var(1) * n
    degrees = int((seeds - 1).sum())
    variance = squares / degrees
    new = true[:, k] + deviations[:, k] * draw.normal(size=count) / math.sqrt(SEEDS)
    pooled = meta_analysis.pool(effects, variance[:, None] / seeds, variance / SEEDS)
    return pooled, new, true[:, k]


def covers(low, high, value):
    return ((low < value) & (value < high)).mean()


@pytest.mark.parametrize("k", [8, 12, 16])
@pytest.mark.parametrize("tau", [0, 0.5, 2])
def test_the_deciding_prediction_interval_covers_a_new_setting(k, tau):
    pooled, new, _ = simulate(k, tau)
    assert 0.93 <= covers(pooled.new_low, pooled.new_high, new) <= 0.97
    assert 0.93 <= covers(pooled.low, pooled.high, 0) <= 0.97
    assert (pooled.new_low > 0).mean() <= 0.025  # carries, though there is no effect


@pytest.mark.parametrize("tau", [0, 0.5, 2])
def test_it_covers_nearly_as_well_where_the_seeds_spread_unequally(tau):
    pooled, new, _ = simulate(12, tau, unequal=0.4)
    assert 0.92 <= covers(pooled.new_low, pooled.new_high, new) <= 0.97


def test_where_seeds_spread_very_unequally_carries_is_safe():
    """Standard deviations then differ tenfold among 12 settings."""
    pooled, new, _ = simulate(12, 0, unequal=0.8)
    assert 0.90 <= covers(pooled.new_low, pooled.new_high, new) <= 0.97
    assert (pooled.new_low > 0).mean() <= 0.025


def pool_of(made, own):
    """Pool made-up studies, by the variance of all settings or by each one's own."""
    counts = np.array([len(each) for each in made[0]])
    effects = np.array([[each.mean() for each in study] for study in made])
    variances = np.array([[each.var(ddof=1) for each in study] for study in made])
    if not own:
        pooled = [meta_analysis.pooled_variance(study)[0] for study in made]
        variances = np.repeat(np.array(pooled)[:, None], len(counts), 1)
    return meta_analysis.pool(effects, variances / counts, variances.mean(1) / SEEDS)


@pytest.mark.parametrize("noisy", [0.25, 0.5, 0.85])
def test_one_variance_for_all_covers_the_mean_and_own_variances_do_not(noisy):
    """Even where short trainings spread 16 times more: this is why the settings share one."""
    made = list(studies(12, 1200, ratio=16, noisy=noisy, skewness=1))
    shared, own = pool_of(made, own=False), pool_of(made, own=True)
    assert 0.935 <= covers(shared.low, shared.high, 0) <= 0.985
    assert covers(own.low, own.high, 0) < 0.90
    assert (shared.new_low > 0).mean() <= 0.025
    assert (shared.new_high < 0).mean() <= 0.025


def test_the_interval_of_the_true_effect_covers_too_little_where_tau_is_small():
    """This is why it does not decide."""
    pooled, _, true = simulate(12, 0.5)
    assert 0.80 <= covers(pooled.true_low, pooled.true_high, true) <= 0.90
    pooled, _, true = simulate(16, 4)
    assert covers(pooled.true_low, pooled.true_high, true) >= 0.93


def test_a_factor_that_decides_explains_nearly_all_and_another_hardly_any():
    draw = np.random.default_rng(7)
    wide = np.tile([0.0, 1.0], 6)
    other = np.repeat([0.0, 1.0], 6)
    effects = 1 + 3 * wide + draw.normal(0, 0.3, (200, 12))
    noise = np.full((200, 12), 0.09)
    tau_squared = meta_analysis.reml(effects, noise)
    shares = [
        meta_analysis.explained(
            tau_squared,
            meta_analysis.regress(effects, noise, np.stack([np.ones(12), x], 1)).tau_squared,
        )
        for x in (wide, other)
    ]
    assert np.median(shares[0]) > 0.95
    assert np.median(shares[1]) < 0.05


def test_a_prediction_far_from_the_settings_is_wider():
    x = np.array([-2.0, -1, 0, 1])
    design = np.stack([np.ones(4), x], 1)
    fit = meta_analysis.regress(np.array([4.0, 3, 2.5, 1]), np.full(4, 0.1), design)
    widths = [np.ptp(meta_analysis.predict(fit, np.array([1.0, at]), 4)) for at in (-0.5, 2, 12)]
    assert widths == sorted(widths)


def test_the_f_test_of_a_regression_is_that_of_a_line_where_noise_is_equal():
    draw = np.random.default_rng(8)
    for _ in range(20):
        x, y = draw.normal(size=9), draw.normal(size=9)
        fit = meta_analysis.regress(y, np.full(9, 0.1), np.stack([np.ones(9), x], 1))
        line = stats.linregress(x, y)
        assert fit.coefficients == pytest.approx((line.intercept, line.slope))
        assert fit.p == pytest.approx(line.pvalue)


def test_no_degrees_of_freedom_give_no_variance():
    assert math.isnan(meta_analysis.pooled_variance([np.array([1.0]), np.array([])])[0])
