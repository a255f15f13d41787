"""Greedy episodes: exact returns of episodes that can be followed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import JaxrlError, evaluate
from jaxrl.types import Agent, Discrete, Env, Outcome, Spec, box


def timed(max_steps=None, endless=False) -> Env:
    """The reward of step t is t + 1, and the episode ends once the action is at most that; even actions truncate."""

    def reset(key):
        return jnp.int32(0), jnp.zeros(1)

    def step(key, state, action):
        time = state + 1
        ended = (time >= action) & (not endless)
        truncated = action % 2 == 0
        return time, Outcome(jnp.ones(1) * time, time.astype(jnp.float32), ended & ~truncated, ended & truncated)

    return Env(reset, step, Spec("Timed", box(0, np.inf, (1,)), Discrete(100), max_steps))


def noisy() -> Env:
    """Four steps; the first has a reward of 10, 20, ..., 10,000, the reset's draw, the others have one of 0 to 1."""

    def reset(key):
        start = 10.0 * jax.random.randint(key, (), 1, 1001)
        return (jnp.int32(0), start), jnp.zeros(1)

    def step(key, state, action):
        time, start = state
        reward = jnp.where(time == 0, start, jax.random.uniform(key))
        return (time + 1, start), Outcome(jnp.zeros(1), reward, time + 1 >= 4, jnp.bool(False))

    return Env(reset, step, Spec("Noisy", box(0, 10, (1,)), Discrete(100), 4))


def numbered() -> Agent:
    """Environment i gets action i + 1, from the memory; an exploring step or one of another time gets the action 0."""

    def act(state, memory, obs, key, step, explore=True):
        action = jnp.where(step == 0, memory + 1, 0) * (not explore)
        return action + state, memory, {}

    return Agent(None, act, None, 7, 1, init_memory=lambda num_envs: jnp.arange(num_envs))


RETURNS = [1, 3, 6, 10, 15]  # of episodes of 1, 2, ..., 5 steps, terminated and truncated in turn


@pytest.fixture(scope="module")
def run():
    return jax.jit(
        lambda key: {
            "whole": evaluate(key, numbered(), jnp.int32(0), timed(), 5),
            "cut": evaluate(key, numbered(), jnp.int32(0), timed(), 5, max_steps=3),
            "limited": evaluate(key, numbered(), jnp.int32(0), timed(max_steps=7, endless=True), 2),
            "endless": evaluate(key, numbered(), jnp.int32(0), timed(endless=True), 1),
            "longer": evaluate(key, numbered(), jnp.int32(1), timed(), 4),
        }
    )(jax.random.key(0))


def test_exact_returns(run):
    """What follows an episode's end must not count."""
    np.testing.assert_array_equal(run["whole"], RETURNS)
    assert run["whole"].dtype == jnp.float32
    np.testing.assert_array_equal(run["longer"], RETURNS[1:])  # the state given is the one that acts


def test_limits(run):
    np.testing.assert_array_equal(run["cut"], [1, 3, 6, 6, 6])
    np.testing.assert_array_equal(run["limited"], [28, 28])  # the environment's own limit
    np.testing.assert_allclose(run["endless"], 10_000 * 10_001 / 2, rtol=1e-4)  # neither has one; one step is 2e-4


def test_what_is_over_stays_where_it_is():
    """Each episode's rewards are what the first one observes, which ends after a step, and is not stepped again."""
    inner = timed()

    def step(key, state, action):
        state, outcome = inner.step(key, state, action[0])
        return state, outcome._replace(reward=action[1].astype(jnp.float32))

    def act(state, memory, obs, key, step, explore=True):
        return jnp.stack([memory + 1, jnp.broadcast_to(obs[0, 0], memory.shape).astype(jnp.int32)], axis=1), memory, {}

    spec = inner.spec._replace(action_space=box(0, 100, (2,), jnp.int32))
    run = jax.jit(lambda key: evaluate(key, numbered()._replace(act=act), 0, Env(inner.reset, step, spec), 5))
    np.testing.assert_array_equal(run(jax.random.key(0)), [0, 1, 2, 3, 4])


def test_over_seeds_and_alone():
    keys = jax.random.split(jax.random.key(1), 40)
    alone = jax.jit(lambda key: evaluate(key, numbered(), jnp.int32(0), noisy(), 6))
    together = jax.jit(jax.vmap(lambda key: evaluate(key, numbered(), jnp.int32(0), noisy(), 6)))(keys)
    assert together.shape == (40, 6)
    for i in (0, 3):
        np.testing.assert_allclose(together[i], alone(keys[i]), rtol=1e-6)
    first, others = np.divmod(together, 10.0)
    assert len(np.unique(first)) > 150  # of 240 draws out of 1000, 213 differ on average
    assert len(np.unique(others)) > 200  # each episode has draws of its own,
    assert abs(others.mean() - 1.5) < 0.2
    assert 0.15 < others.var() < 0.4  # and so has each step: 3 / 12, where one draw thrice would have 9 / 12


@pytest.mark.parametrize("bad", [{"num_episodes": 0}, {"num_episodes": 2.0}, {"max_steps": 0}, {"max_steps": -1}])
def test_errors(bad):
    (name, value), *_ = bad.items()
    with pytest.raises(JaxrlError, match=rf"evaluate: {name}={value} is not accepted"):
        evaluate(jax.random.key(0), numbered(), jnp.int32(0), timed(), **({"num_episodes": 2} | bad))


def test_a_long_episodes_return_is_its_rewards_sum():
    """A million rewards of 0.1: added up one by one in float32 they are 100,958."""
    spec = Spec("Endless", box(0, 1, (1,)), Discrete(100))
    outcome = Outcome(jnp.zeros(1), jnp.float32(0.1), jnp.bool(False), jnp.bool(False))
    env = Env(lambda key: ((), jnp.zeros(1)), lambda key, state, action: ((), outcome), spec)
    run = jax.jit(lambda key: evaluate(key, numbered(), 0, env, 1, max_steps=1_000_000))
    np.testing.assert_allclose(run(jax.random.key(0)), [1e6 * np.float64(np.float32(0.1))], rtol=2e-7)
