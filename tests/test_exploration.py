"""How often an epsilon-greedy action is which, and how noise on continuous actions is distributed."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from jaxrl.exploration import (
    epsilon_greedy,
    epsilon_greedy_probabilities,
    gaussian,
    ornstein_uhlenbeck,
    spread_epsilons,
)

EPSILONS = np.array([0.0, 0.1, 0.5, 1.0], np.float32)
NUM_DRAWS = 20_000


def test_frequencies():
    q_values = jnp.broadcast_to(jnp.array([0.3, -1.0, 2.0, 1.9]), (len(EPSILONS), NUM_DRAWS, 4))
    actions = jax.jit(epsilon_greedy)(jax.random.key(5), q_values, EPSILONS[:, None])
    assert (actions.dtype, actions.shape) == (jnp.int32, (len(EPSILONS), NUM_DRAWS))
    for epsilon, row in zip(EPSILONS, np.asarray(actions), strict=True):
        counts = np.bincount(row, minlength=4)
        chances = np.where(np.arange(4) == 2, 1 - epsilon * 3 / 4, epsilon / 4)
        low, high = scipy.stats.binom.interval(1 - 1e-4, NUM_DRAWS, chances)
        assert (counts >= low).all(), (epsilon, counts)
        assert (counts <= high).all(), (epsilon, counts)


def test_whether_and_which_are_drawn_apart():
    """Exploring draws must not favour some actions: among those that explore, all actions are equally likely."""
    q_values = jnp.zeros((NUM_DRAWS, 5)).at[:, 0].set(1.0)
    actions = np.asarray(epsilon_greedy(jax.random.key(1), q_values, 0.4))
    assert scipy.stats.chisquare(np.bincount(actions, minlength=5)[1:]).pvalue > 1e-3
    repeats = np.mean(actions[1:] == actions[:-1])  # neighbours in a batch are independent: 0.68^2 + 4 * 0.08^2
    assert abs(repeats - (0.68**2 + 4 * 0.08**2)) < 5 * np.sqrt(0.25 / NUM_DRAWS)


def test_epsilons_of_several_environments():
    """0.4 to the powers of 1, 8/3, ..., 8 (Horgan et al. 2018); one environment has it as it is, and so all without."""
    np.testing.assert_allclose(spread_epsilons(0.4, 7.0, 4), [0.4, 0.4 ** (10 / 3), 0.4 ** (17 / 3), 0.4**8], rtol=1e-5)
    np.testing.assert_allclose(spread_epsilons(0.4, 7.0, 1), [0.4])
    np.testing.assert_allclose(spread_epsilons(jnp.float32(0.4), jnp.float32(0.0), 3), [0.4] * 3)
    np.testing.assert_array_equal(spread_epsilons(0.0, 7.0, 2), 0)


# Rows with every kind of tie, also below 0 and where one is the first or the last.
TIES = np.array([[0, 0, 0, 0], [1, 0, 1, 0], [-2, -1, -1, -1], [3, 3, -1, 2], [0.5, 0.25, 0, 0.5]], np.float32)


def test_probabilities():
    chances = np.asarray(epsilon_greedy_probabilities(TIES[:, None], EPSILONS))
    assert (chances.shape, chances.dtype) == ((len(TIES), len(EPSILONS), 4), np.float32)
    best = {0: [1 / 4] * 4, 1: [1 / 2, 0, 1 / 2, 0], 2: [0, 1 / 3, 1 / 3, 1 / 3], 3: [1 / 2, 1 / 2, 0, 0]}
    for row, greedy in (best | {4: [1 / 2, 0, 0, 1 / 2]}).items():
        for column, epsilon in enumerate(EPSILONS):
            expected = [epsilon / 4 + (1 - epsilon) * chance for chance in greedy]
            np.testing.assert_allclose(chances[row, column], expected, atol=1e-6)
    np.testing.assert_allclose(
        epsilon_greedy_probabilities(jnp.array([1.0, 5.0]), 0.2), [0.1, 0.9], atol=1e-6, err_msg="one state alone"
    )


def test_ties_are_broken_at_random():
    """Frequencies agree with `epsilon_greedy_probabilities`; no action has an advantage from its place."""
    q_values = jnp.broadcast_to(jnp.asarray(TIES)[:, None, None], (len(TIES), len(EPSILONS), NUM_DRAWS, 4))
    actions = np.asarray(jax.jit(epsilon_greedy)(jax.random.key(7), q_values, EPSILONS[:, None]))
    chances = np.asarray(epsilon_greedy_probabilities(TIES[:, None], EPSILONS))
    for row, column in np.ndindex(actions.shape[:2]):
        counts = np.bincount(actions[row, column], minlength=4)
        possible = chances[row, column] > 0
        assert counts[~possible].sum() == 0, (row, column, counts)
        expected = chances[row, column][possible].astype(np.float64)
        pvalue = scipy.stats.chisquare(counts[possible], expected / expected.sum() * NUM_DRAWS).pvalue
        assert pvalue > 1e-4, (row, column, counts)


def test_neighbours_break_their_ties_apart():
    actions = np.asarray(epsilon_greedy(jax.random.key(2), jnp.zeros((NUM_DRAWS, 4)), 0.0))
    repeats = np.mean(actions[1:] == actions[:-1])
    assert abs(repeats - 0.25) < 5 * np.sqrt(0.25 * 0.75 / NUM_DRAWS)


def test_epsilon_zero_is_the_argmax():
    q_values = jax.random.normal(jax.random.key(0), (500, 3))
    for epsilon in (0.0, jnp.zeros(500)):
        np.testing.assert_array_equal(epsilon_greedy(jax.random.key(1), q_values, epsilon), jnp.argmax(q_values, -1))


def test_one_state_alone():
    assert epsilon_greedy(jax.random.key(0), jnp.array([0.0, 1.0]), 0.0) == 1


def test_no_key_is_used_twice():
    with jax.debug_key_reuse(True):
        jax.jit(epsilon_greedy).lower(jax.random.key(0), jnp.zeros((2, 3)), 0.1)


def test_gaussian():
    action = jnp.broadcast_to(jnp.array([0.5, -0.9]), (3, NUM_DRAWS, 2))
    scale = jnp.array([0.0, 0.3, 2.0])[:, None, None]
    noisy = jax.jit(gaussian)(jax.random.key(3), action, scale)
    np.testing.assert_array_equal(noisy[0], action[0])
    for row, size in zip(np.asarray(noisy - action)[1:], [0.3, 2.0], strict=True):
        assert scipy.stats.kstest(row[:, 0] / size, "norm").pvalue > 1e-3
        assert abs(np.corrcoef(row.T)[0, 1]) < 5 / np.sqrt(NUM_DRAWS)


def test_ornstein_uhlenbeck():
    """Its drift is exact, and from 0 its spread and its correlations are the known ones of this process."""
    theta, scale, length = 0.3, 0.5, 12
    state = jnp.array([[1.0, -2.0], [0.0, 4.0]])
    np.testing.assert_allclose(ornstein_uhlenbeck(jax.random.key(0), state, theta, 0.0), 0.7 * state, rtol=1e-6)

    def step(x, key):
        x = ornstein_uhlenbeck(key, x, theta, scale)
        return x, x

    keys = jax.random.split(jax.random.key(4), length)
    _, path = jax.jit(lambda: jax.lax.scan(step, jnp.zeros(NUM_DRAWS), keys))()
    spread = scale * np.sqrt(1 - 0.7 ** (2 * np.arange(1, length + 1)))
    np.testing.assert_allclose(np.std(path, axis=1), spread, rtol=5 / np.sqrt(2 * NUM_DRAWS))
    assert np.abs(np.mean(path, axis=1)).max() < 5 * scale / np.sqrt(NUM_DRAWS)
    for lag in (1, 2, 4):  # the covariance is that of the earlier state, times 0.7^lag
        expected = 0.7**lag * spread[-1 - lag] / spread[-1]
        assert abs(np.corrcoef(path[-1], path[-1 - lag])[0, 1] - expected) < 5 / np.sqrt(NUM_DRAWS)


def test_ornstein_uhlenbeck_that_forgets_all_is_gaussian():
    key = jax.random.key(6)
    np.testing.assert_allclose(
        ornstein_uhlenbeck(key, jnp.full((5, 2), 9.0), 1.0, 0.4), gaussian(key, jnp.zeros((5, 2)), 0.4), rtol=1e-6
    )
