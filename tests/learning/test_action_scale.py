"""Actions that are whole numbers: what environments get, what is learned from, and what is refused; for every agent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import JaxrlError
from jaxrl.learning.action_scale import from_action_space, to_action_space
from jaxrl.types import Box, Discrete, Env, Outcome, Spec, box

WHOLE = Box(np.array([0, -3], np.float32), np.array([1, 4], np.float32), np.dtype(np.int32))


def lattice(action_space: Box = WHOLE, seen: list | None = None) -> Env:
    """Rewards actions near [1, 2], and observes the last one; `seen` gets the dtype of every action that is traced."""

    def reset(key):
        return jnp.int32(0), jnp.zeros(2)

    def step(key, time, action):
        if seen is not None:
            seen.append((action.shape, action.dtype))
        obs = action.astype(jnp.float32)
        reward = -jnp.abs(obs - jnp.array([1.0, 2.0])).sum()
        return time + 1, Outcome(obs, reward, time >= 3, jnp.bool(False))

    return Env(reset, step, Spec("Lattice-v0", box(-3, 4, (2,)), action_space, 4))


SMALL = {"hidden_sizes": (3,), "num_envs": 2}
ROLLOUT = SMALL | {"rollout_length": 4}
BATCHES = ROLLOUT | {"baseline": "linear"}
REPLAY = SMALL | {"replay_size": 16, "batch_size": 2, "warmup_steps": 2}
SEARCH = {"num_envs": 4, "rollout_length": 4}
AGENTS = {
    "ppo": jaxrl.ppo(**ROLLOUT, num_minibatches=1),
    "a2c": jaxrl.a2c(**ROLLOUT),
    "a3c": jaxrl.a3c(**ROLLOUT, num_workers=1),
    "reinforce": jaxrl.reinforce(**BATCHES),
    "npg": jaxrl.npg(**BATCHES),
    "trpo": jaxrl.trpo(**BATCHES),
    "acer": jaxrl.acer(**ROLLOUT, replay_size=16, batch_size=2, warmup_steps=2),
    "ddpg": jaxrl.ddpg(**REPLAY),
    "td3": jaxrl.td3(**REPLAY),
    "sac": jaxrl.sac(**REPLAY),
    "sac_v1": jaxrl.sac_v1(**REPLAY),
    "redq": jaxrl.redq(**REPLAY),
    "droq": jaxrl.droq(**REPLAY),
    "naf": jaxrl.naf(**REPLAY),
    "diayn": jaxrl.diayn(**REPLAY, num_skills=2),
    "cem": jaxrl.cem(**SEARCH, num_elites=2),
    "hill_climbing": jaxrl.hill_climbing(**SEARCH),
}


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_hands_on_whole_numbers(name):
    """Training and greedy episodes can be traced, which they cannot where dtypes differ, with int32 for the steps."""
    seen = []
    env, agent = lattice(seen=seen), AGENTS[name]

    def run(key):
        state, metrics = jaxrl.train(key, agent, env, 2 * agent.num_envs * agent.rollout_length)
        return metrics, jaxrl.evaluate(key, agent, state.agent, env, 2)

    jax.eval_shape(run, jax.random.key(0))
    assert set(seen) == {((2,), np.dtype(np.int32))}


def test_between_a_policy_and_whole_numbers():
    """The nearest ones, the bounds at -1 and 1; scaled back they are what was done, and not what was meant."""
    action = jnp.array([[-1.0, -1.0], [-0.1, 0.0], [0.1, 0.1], [0.4, 0.99], [1.0, 9.0], [jnp.nan, jnp.nan]])
    done = to_action_space(action, WHOLE)
    assert done.dtype == jnp.int32
    assert done.tolist() == [[0, -3], [0, 0], [1, 1], [1, 4], [1, 4], [0, -3]]  # 0.5 is rounded to the even number
    back = from_action_space(done, WHOLE)
    assert back.dtype == jnp.float32
    np.testing.assert_allclose(back[:3], [[-1, -1], [-1, -1 / 7], [1, 1 / 7]], atol=1e-6)
    np.testing.assert_array_equal(to_action_space(back, WHOLE), done)
    for dtype, high in ((np.uint8, 255), (bool, 1), (np.int8, 127)):
        space = box(0, high, (3,), dtype)
        ends = to_action_space(jnp.array([-5.0, 0.7, 5.0]), space)
        assert (ends.dtype, ends.tolist()) == (dtype, [0, round(0.85 * high), high])
    unbounded = Box(np.float32([-np.inf] * 2), np.float32([np.inf] * 2), np.dtype(np.int32))
    assert to_action_space(jnp.array([-7.6, 2.4]), unbounded).tolist() == [-8, 2]
    assert to_action_space(jnp.int32(1), Discrete(2)) == 1


def test_what_is_learned_from_is_what_was_drawn():
    """A policy's own actions keep their probabilities: without learning its ratios are 1. Rounded ones would not."""
    agent = jaxrl.ppo(**SMALL, rollout_length=32, num_minibatches=1, num_epochs=2, learning_rate=1e-12)
    metrics = jax.jit(lambda key: jaxrl.train(key, agent, lattice(), 128)[1])(jax.random.key(0))
    np.testing.assert_allclose(metrics["approx_kl"], 0, atol=1e-6)
    np.testing.assert_array_equal(metrics["clip_fraction"], 0)


@pytest.mark.parametrize("name", ["ppo", "reinforce", "trpo", "acer", "sac", "sac_v1", "td3", "naf", "cem"])
def test_actions_that_hold_no_number_are_refused(name):
    with pytest.raises(JaxrlError, match=r"Lattice-v0 has actions of shape \(0,\); it needs vectors, of one number"):
        jax.eval_shape(AGENTS[name].init, jax.random.key(0), lattice(box(-1, 1, (0,))).spec)


def test_whole_numbers_beyond_what_floats_count_are_refused():
    with pytest.raises(JaxrlError, match=r"sac: Lattice-v0 has .* it needs finite bounds, at most 2\*\*24, as"):
        jax.eval_shape(AGENTS["sac"].init, jax.random.key(0), lattice(box(-(2**31), 2**31, (2,), np.int32)).spec)
