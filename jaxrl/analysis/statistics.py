"""Statistics over seeds: the interquartile mean with a percentile-bootstrap interval. And metrics by the episode.

Recommended for few seeds by Agarwal et al., 2021, "Deep Reinforcement Learning at the Edge of the Statistical
Precipice". A seed without a value (it diverged, or no episode ended) is left out. scipy computes them; it is imported
where it is used, for `scipy.stats` takes about a second to import.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxrl import checks
from jaxrl.checks import JaxrlError

TRIMMED = 0.25  # of the values at each end, so that the middle half is left
BLOCK = 1024  # columns given to scipy at once
BATCH = 2**20  # numbers that one batch of resamples holds: 8 MiB


def _per_column(
    x: Any, axis: int, least: int, num_results: int, statistic: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Hands `statistic` the finite values of all columns that have equally many of them, a block of columns at once.

    Args:
      x: numbers of any shape; a column is what lies along `axis`.
      axis: the axis of the statistic.
      least: how many finite values a column needs.
      num_results: how many numbers `statistic` makes of a column.
      statistic: from sorted values `[column, n]` to means `[num_results, column]`.

    Returns:
      `[num_results, ...]`, the rest as `x` without `axis`; NaN where fewer than `least` values are finite.
    """
    x = np.moveaxis(np.asarray(x, np.float64), axis, -1)
    finite = np.isfinite(x)
    count = finite.sum(axis=-1)
    # [..., seed] -> [column, seed], the finite values first
    columns = np.sort(np.where(finite, x, np.inf), axis=-1).reshape(count.size, x.shape[-1])
    results = np.full((num_results, count.size), np.nan)
    for n in np.unique(count[count >= least]):
        alike = np.flatnonzero(count == n)
        for block in np.array_split(alike, math.ceil(len(alike) / BLOCK)):
            values = columns[block, :n]
            # No mean lies outside of its values, but rounding can put one there by an ulp, that of equal ones too.
            results[:, block] = np.clip(statistic(values), values[:, 0], values[:, -1])
    return results.reshape(num_results, *count.shape)


def interquartile_mean(x: Any, axis: int = -1) -> np.ndarray:
    """Mean of the middle half of the finite values: `mean(sorted(x)[k : n - k])` with `k = floor(n / 4)`.

    It is `scipy.stats.trim_mean(x, 0.25)` of the finite values.

    Args:
      x: numbers of any shape; NaN and infinity stand for a missing value.
      axis: the axis that is averaged over.

    Returns:
      The shape of `x` without `axis`; NaN where no value is finite.

    >>> float(interquartile_mean([0.0, 1.0, 2.0, 100.0]))
    1.5
    """
    from scipy.stats import trim_mean

    (mean,) = _per_column(x, axis, 1, 1, lambda values: trim_mean(values, TRIMMED, axis=1))
    return mean


def bootstrap_interval(
    per_seed: Any, confidence: float = 0.95, num_resamples: int = 2000, rng: int = 0, *, axis: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile-bootstrap confidence interval of the interquartile mean over seeds.

    It is `scipy.stats.bootstrap(method="percentile")` of the finite values. The interval of fewer than about ten seeds
    is too narrow, as any bootstrap's is.

    Args:
      per_seed: `[seed]`, `[seed, time]`, or any shape whose `axis` is the seeds; non-finite values are left out.
      confidence: the interval's nominal coverage, in (0, 1).
      num_resamples: how many resamples are drawn, at least 2.
      rng: seed of the draws, so that the same values give the same interval, in whatever order or company they come.
      axis: the axis of the seeds.

    Returns:
      `(low, high)`, each of the shape of `per_seed` without `axis`; NaN where fewer than two values are finite, for
      one seed says nothing about the spread of seeds.

    Raises:
      JaxrlError: if `confidence`, `num_resamples` or `rng` is not accepted.
    """
    from scipy.stats import bootstrap, trim_mean

    if not 0 < confidence < 1:
        raise JaxrlError(f"bootstrap_interval: confidence={confidence} is not accepted; it must lie between 0 and 1")
    checks.integer("bootstrap_interval", low=2, num_resamples=num_resamples)
    checks.integer("bootstrap_interval", low=0, rng=rng)

    def interval(values: np.ndarray) -> np.ndarray:
        drawn = bootstrap(
            (values,),
            functools.partial(trim_mean, proportiontocut=TRIMMED),
            n_resamples=num_resamples,
            batch=max(1, BATCH // values.size),
            vectorized=True,
            axis=1,
            confidence_level=confidence,
            method="percentile",
            rng=np.random.default_rng(rng),
        )
        return np.stack([drawn.confidence_interval.low, drawn.confidence_interval.high])

    low, high = _per_column(per_seed, axis, 2, 2, interval)
    return low, high


def iqm_interval(x: Any, axis: int = 0, *, num_resamples: int = 2000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The interquartile mean over seeds and the ends of its 95 % bootstrap interval, the statistics for few seeds.

    Args:
      x: numbers of any shape; non-finite ones are left out.
      axis: the axis of the seeds.
      num_resamples: as of `bootstrap_interval`.

    Returns:
      `(iqm, low, high)`, each of the shape of `x` without `axis`; NaN as of the two functions that it joins.
    """
    return interquartile_mean(x, axis), *bootstrap_interval(x, num_resamples=num_resamples, axis=axis)


def mean_interval(x: Any, axis: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean over seeds and the ends of its 95 % interval, 1.96 standard errors to either side; for many seeds.

    Args:
      x: numbers of any shape; what is not finite is not left out.
      axis: the axis of the seeds, of which there are two at least.

    Returns:
      `(mean, low, high)`, each of the shape of `x` without `axis`.

    >>> [round(float(y), 2) for y in mean_interval([1.0, 2.0, 3.0])]
    [2.0, 0.87, 3.13]
    """
    x = np.asarray(x)
    with np.errstate(invalid="ignore", over="ignore"):  # of values that diverged: infinite or NaN
        mean = x.mean(axis)
        margin = 1.96 * x.std(axis, ddof=1) / np.sqrt(x.shape[axis])
    return mean, mean - margin, mean + margin


def per_episode(metrics: Mapping[str, np.ndarray], name: str, num_episodes: int) -> np.ndarray:
    """A metric at the updates in which episodes ended.

    Args:
      metrics: `[S, updates]` each, as of `jax.vmap` of `jaxrl.train` over seeds, where an update sees one step:
        `episode_count`, 0 or 1, and `name`.
      name: which metric, such as `episode_length`.
      num_episodes: how many episodes, from the first on.

    Returns:
      `[S, num_episodes]`.

    Raises:
      JaxrlError: if a seed ended fewer episodes, or several in one update.

    >>> counts, lengths = np.array([[0, 1, 0, 0, 1]]), np.array([[0.0, 2.0, 2.0, 2.0, 3.0]])
    >>> per_episode({"episode_count": counts, "episode_length": lengths}, "episode_length", 2).tolist()
    [[2.0, 3.0]]
    """
    checks.integer("per_episode", num_episodes=num_episodes)
    counts = np.asarray(metrics["episode_count"])
    if counts.max() > 1:
        raise JaxrlError(
            f"per_episode: {counts.max():g} episodes ended in one update; num_envs and rollout_length must be 1"
        )
    least = int(counts.sum(axis=1).min())
    if least < num_episodes:
        raise JaxrlError(
            f"per_episode: num_episodes={num_episodes} is not accepted; a seed ended {least} in {counts.shape[1]} "
            "steps, so take fewer episodes or more steps"
        )
    ends = np.argsort(counts == 0, axis=1, kind="stable")[:, :num_episodes]  # the updates with an end come first
    return np.take_along_axis(np.asarray(metrics[name]), ends, axis=1)


def finite_mean(x: Any, axis: int = -1) -> np.ndarray:
    """Mean of the finite values along an axis; NaN where there is none."""
    finite = np.isfinite(x)
    count = finite.sum(axis=axis)
    return np.where(count > 0, np.where(finite, x, 0.0).sum(axis=axis) / np.maximum(count, 1), np.nan)


def final_return(per_seed: Any) -> dict[str, Any]:
    """The statistics of final returns that `summary.json` holds.

    Args:
      per_seed: `[seed]`, or `[config, seed]`; NaN for a seed that has none.

    Returns:
      `{"iqm", "ci_low", "ci_high", "mean", "per_seed"}` over the finite seeds: floats and a list of them, and with a
      leading axis `config` lists of those. NaN where there is nothing to compute from (null in the file).
    """
    per_seed = np.asarray(per_seed, np.float64)
    iqm, low, high = iqm_interval(per_seed, axis=-1)
    statistics = {
        "iqm": iqm,
        "ci_low": low,
        "ci_high": high,
        "mean": finite_mean(per_seed),
        "per_seed": np.where(np.isfinite(per_seed), per_seed, np.nan),
    }
    return {name: value.tolist() for name, value in statistics.items()}
