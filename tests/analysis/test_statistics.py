"""Statistics against hand-computed numbers, exact enumeration, and a slow version of each in plain Python."""

import itertools
import json
import warnings
from random import Random

import numpy as np
import pytest

from jaxrl.analysis.statistics import (
    bootstrap_interval,
    final_return,
    finite_mean,
    interquartile_mean,
    iqm_interval,
    mean_interval,
    per_episode,
)
from jaxrl.checks import JaxrlError

nan, inf = np.nan, np.inf


def slow_iqm(x):
    x = sorted(value for value in x if np.isfinite(value))
    k = len(x) // 4
    return sum(x[k : len(x) - k]) / (len(x) - 2 * k) if x else nan


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 4.0], 2.5),
        ([0.0, 1.0, 2.0, 100.0], 1.5),  # one cut at each end
        ([5.0, 1.0, 100.0, 3.0, -9.0], 3.0),  # floor(5 / 4) = 1 cut
        ([8.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 70.0], 4.5),  # 3, 4, 5, 6 are left
        ([nan, 1.0, inf, 2.0, -inf, 3.0, 100.0], 2.5),
        ([nan, nan], nan),
        ([], nan),
    ],
)
def test_interquartile_mean_by_hand(x, expected):
    np.testing.assert_allclose(interquartile_mean(x), expected)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 8, 30, 101])
def test_interquartile_mean_of_any_axis_is_the_slow_one(n):
    x = np.random.default_rng(n).standard_cauchy((3, n, 5))
    expected = [[slow_iqm(x[i, :, j]) for j in range(5)] for i in range(3)]
    np.testing.assert_allclose(interquartile_mean(x, axis=1), expected, rtol=1e-12)


def test_interquartile_mean_leaves_out_what_is_not_finite():
    x = np.random.default_rng(0).normal(size=(40, 11))
    x[np.random.default_rng(1).random(x.shape) < 0.5] = nan
    x[3] = nan
    np.testing.assert_allclose(interquartile_mean(x), [slow_iqm(row) for row in x], rtol=1e-12)
    np.testing.assert_allclose(interquartile_mean(x, axis=0), [slow_iqm(row) for row in x.T], rtol=1e-12)


@pytest.mark.parametrize("x", [[0.0, 1.0, 5.0], [3.0, -1.0, 2.0, 10.0], [0.0, 1.0, 2.0, 3.0, 50.0]])
def test_interval_is_that_of_all_resamples(x):
    """With few seeds, all n^n resamples can be listed: the interval must be their quantiles."""
    everything = np.sort([slow_iqm(resample) for resample in itertools.product(x, repeat=len(x))])
    for confidence in (0.95, 0.5):
        low, high = bootstrap_interval(x, confidence, num_resamples=100_000)
        for bound, level in ((low, (1 - confidence) / 2), (high, (1 + confidence) / 2)):
            # The bound's place in the exact distribution, which has steps where resamples tie.
            below, up_to = np.mean(everything < bound - 1e-9), np.mean(everything <= bound + 1e-9)
            assert below - 0.005 <= level <= up_to + 0.005


def test_interval_is_that_of_a_slow_bootstrap():
    x = np.random.default_rng(0).gamma(2.0, size=(32, 3))
    low, high = bootstrap_interval(x, num_resamples=20_000)
    random = Random(0)
    for column, *bounds in zip(x.T.tolist(), low, high, strict=True):
        means = sorted(slow_iqm(random.choices(column, k=32)) for _ in range(10_000))
        np.testing.assert_allclose(bounds, [means[250], means[-251]], atol=0.04)
    assert (high - low).min() > 0.5


def test_interval_covers_the_truth_about_as_often_as_it_says():
    x = np.random.default_rng(0).normal(size=(32, 1000))  # the interquartile mean of a standard normal is 0
    for confidence, least, most in ((0.95, 0.90, 0.97), (0.5, 0.43, 0.54)):
        low, high = bootstrap_interval(x, confidence, num_resamples=500)
        assert least < np.mean((low < 0) & (high > 0)) < most


def test_interval_of_a_column_depends_on_that_column_only():
    x = np.random.default_rng(0).normal(size=(9, 5))
    x[2:4, 1], x[:, 2], x[1:, 3] = nan, nan, nan
    low, high = bootstrap_interval(x)
    for t in range(5):
        np.testing.assert_allclose(bootstrap_interval(x[:, t]), (low[t], high[t]), rtol=1e-12)
    np.testing.assert_allclose(
        bootstrap_interval(x[2:4, 0]), bootstrap_interval(x[[2, 3], 0][::-1])
    )  # order is nothing
    assert np.isnan(low[2:4]).all()  # no seed, and one seed, have no interval
    assert (low[[0, 1, 4]] < high[[0, 1, 4]]).all()
    kept = x[np.isfinite(x[:, 1]), 1]
    np.testing.assert_allclose(bootstrap_interval(kept), (low[1], high[1]), rtol=1e-12)


def test_interval_is_deterministic_and_rng_changes_it():
    x = np.random.default_rng(0).normal(size=12)
    assert bootstrap_interval(x) == bootstrap_interval(x)
    assert bootstrap_interval(x) != bootstrap_interval(x, rng=1)


def test_equal_seeds_have_an_interval_of_no_width_and_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in range(2, 40):
            assert bootstrap_interval(np.full(n, 0.1)) == (0.1, 0.1)
            assert interquartile_mean(np.full(n, 0.1)) == 0.1
        assert np.isnan(bootstrap_interval([3.0])).all()
        assert np.isnan(bootstrap_interval([])).all()
        assert np.isnan(interquartile_mean([nan]))


def test_interval_axis_and_blocks():
    x = np.random.default_rng(0).normal(size=(2, 5, 700))  # more columns than one block
    low, high = bootstrap_interval(x, axis=1, num_resamples=50)
    assert low.shape == high.shape == (2, 700)
    np.testing.assert_allclose(low[1, 699], bootstrap_interval(x[1, :, 699], num_resamples=50)[0], rtol=1e-12)


@pytest.mark.parametrize("wrong", [{"confidence": 1.0}, {"confidence": nan}, {"num_resamples": 1}, {"rng": -1}])
def test_interval_refuses(wrong):
    with pytest.raises(JaxrlError, match=rf"{next(iter(wrong))}=.*must"):
        bootstrap_interval([1.0, 2.0], **wrong)


@pytest.mark.parametrize("axis", [0, -1])
def test_an_iqm_with_its_interval(axis):
    x = np.random.default_rng(0).normal(size=(6, 5))
    iqm, *bounds = iqm_interval(x, axis, num_resamples=50)
    np.testing.assert_array_equal(iqm, interquartile_mean(x, axis))
    np.testing.assert_array_equal(bounds, bootstrap_interval(x, axis=axis, num_resamples=50))


def test_an_interval_of_a_mean():
    expected = [[2, 2], [2 - 1.96, 2], [2 + 1.96, 2]]
    np.testing.assert_allclose(mean_interval([[1.0, 2], [3, 2]]), expected)
    np.testing.assert_allclose(mean_interval([[1.0, 3], [2, 2]], axis=1), expected)
    assert np.isnan(mean_interval([1.0, nan])).all()


def test_a_metric_by_the_episode():
    metrics = {
        "episode_count": np.array([[0, 1, 0, 1, 1], [1, 0, 0, 0, 1]]),
        "episode_length": np.array([[nan, 2, nan, 2, 1], [1, nan, nan, nan, 4]]),
    }
    np.testing.assert_array_equal(per_episode(metrics, "episode_length", 2), [[2, 2], [1, 4]])
    np.testing.assert_array_equal(per_episode(metrics, "episode_length", 1), [[2], [1]])
    with pytest.raises(JaxrlError, match="num_episodes=3 is not accepted; a seed ended 2 in 5 steps"):
        per_episode(metrics, "episode_length", 3)
    with pytest.raises(JaxrlError, match="num_episodes=0"):
        per_episode(metrics, "episode_length", 0)
    with pytest.raises(JaxrlError, match="2 episodes ended in one update"):
        per_episode(metrics | {"episode_count": np.full((2, 5), 2)}, "episode_length", 2)


def test_finite_mean():
    x = [[1.0, nan, 4.0], [inf, nan, -inf]]
    np.testing.assert_array_equal(finite_mean(x), [2.5, nan])
    np.testing.assert_array_equal(finite_mean(x, axis=0), [1.0, nan, 4.0])


def test_final_return():
    x = [1.0, 2.0, nan, 3.0, 10.0]
    low, high = bootstrap_interval([1.0, 2.0, 3.0, 10.0])
    assert json.dumps(final_return(x)) == json.dumps(
        {"iqm": 2.5, "ci_low": float(low), "ci_high": float(high), "mean": 4.0, "per_seed": x}
    )
    two = final_return([x, [nan] * 5])
    assert two["iqm"][0] == 2.5
    assert np.isnan([two["iqm"][1], two["mean"][1], two["ci_low"][1]]).all()
    assert two["ci_high"][0] == pytest.approx(high)
    assert final_return([4.0])["mean"] == 4.0
    assert np.isnan(final_return([4.0])["ci_low"])
