"""Agents that learn from whole episodes: which steps count, and how their trajectories begin."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import init_train, make, train_step
from jaxrl.learning.episodes import episode_count, mean_returns, whole
from jaxrl.types import Agent, Transition


def trajectory_of(ends, rewards):
    """`ends[n]` as text: "." for a step, "T" and "C" for one that terminates or is cut off by a time limit."""
    terminated, truncated = (np.array([[c == kind for c in row] for row in ends]).T for kind in "TC")
    reward = np.array(rewards, np.float32).T
    return Transition(reward, reward, reward, terminated, truncated, reward, {})


def test_which_steps_count():
    ends = ["....", ".T..", "T.C.", "...T"]
    rewards = [[1, 2, 3, 4], [1, 2, 3, 4], [5, 1, 1, 9], [1, 1, 1, 1]]
    trajectory = trajectory_of(ends, rewards)
    expected = [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    np.testing.assert_array_equal(whole(trajectory).T, np.array(expected, bool))
    np.testing.assert_array_equal(episode_count(trajectory), [1, 1, 2, 1])
    np.testing.assert_array_equal(mean_returns(trajectory), [10, 3, 3.5, 4])


def test_every_trajectory_begins_with_new_episodes():
    """The first observations of CartPole are within 0.05 of 0, the memory is the first one, and no two are alike."""

    def act(state, memory, obs, key, step, explore=True):
        return jnp.zeros(len(obs), jnp.int32), memory + 1, {"memory": memory}

    def update(state, trajectory, key, step):
        first = jnp.abs(trajectory.obs[0]).max()
        begun = (trajectory.extras["episode_length"][0] == 1).all()
        return trajectory.obs[0], {
            "first": first,
            "begun": begun.astype(jnp.float32),
            "memory": trajectory.extras["memory"][0].max().astype(jnp.float32),
            "same": (trajectory.obs[0] == state).any().astype(jnp.float32),
        }

    def run(episodic):
        agent = Agent(
            init=lambda key, spec: jnp.ones((3, 4)),
            act=act,
            update=update,
            num_envs=3,
            rollout_length=5,
            init_memory=lambda num_envs: jnp.zeros(num_envs, jnp.int32),
            episodic=episodic,
        )
        env = make("CartPole-v1")
        step = lambda state, _: train_step(state, agent, env)  # noqa: E731
        return jax.lax.scan(step, init_train(jax.random.key(0), agent, env), length=3)[1]

    new, old = jax.jit(lambda: (run(True), run(False)))()
    assert (new["first"] <= 0.05).all()
    assert (new["begun"] == 1).all()
    assert (new["memory"] == 0).all()
    assert (new["same"] == 0).all()
    np.testing.assert_array_equal(old["begun"], [1, 0, 0])
    assert old["first"][1] > 0.05
    np.testing.assert_array_equal(old["memory"][:2], [0, 5])  # a pole takes more than 5 steps to fall
