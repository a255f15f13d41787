"""How often an epsilon-greedy action is which."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from jaxrl.exploration import epsilon_greedy

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


def test_epsilon_zero_is_the_argmax():
    q_values = jax.random.normal(jax.random.key(0), (500, 3))
    for epsilon in (0.0, jnp.zeros(500)):
        np.testing.assert_array_equal(epsilon_greedy(jax.random.key(1), q_values, epsilon), jnp.argmax(q_values, -1))


def test_one_state_alone():
    assert epsilon_greedy(jax.random.key(0), jnp.array([0.0, 1.0]), 0.0) == 1


def test_no_key_is_used_twice():
    with jax.debug_key_reuse(True):
        jax.jit(epsilon_greedy).lower(jax.random.key(0), jnp.zeros((2, 3)), 0.1)
