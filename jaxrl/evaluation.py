"""Greedy episodes of a trained agent."""

from __future__ import annotations

import contextlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import checks, prng, sums
from jaxrl.envs import host
from jaxrl.envs.check import require_env
from jaxrl.loop import TrainState, mean_reward, require_agent, where
from jaxrl.numerics import standard_numbers
from jaxrl.types import Agent, Array, Env, HostEnv, Key, PyTree, Spec

DEFAULT_MAX_STEPS = 10_000


def default_max_steps(spec: Spec) -> int:
    """After how many steps an episode that has not ended counts as it is."""
    return spec.max_steps or DEFAULT_MAX_STEPS


@standard_numbers
def evaluate(
    key: Key, agent: Agent, state: PyTree, env: Env | HostEnv, num_episodes: int, max_steps: int | None = None
) -> Array:
    """The returns of whole episodes in which the agent does what it thinks is best. Pure, like `train`.

    The episodes run side by side, each in an environment of its own, until the last of them has ended. Of an
    environment on the host it steps those itself, and so is not pure, nor to be compiled.

    Args:
      key: for the environments' draws (and the policy's, where even its greedy form is random).
      agent: who acts.
      state: the agent's state, `TrainState.agent` after training.
      env: where; a fresh one, not the training's.
      num_episodes: how many.
      max_steps: an episode that lasts longer counts with its return so far; by default the environment's own time
        limit, or 10,000 where it has none.

    Returns:
      undiscounted returns, float32 `[num_episodes]`.

    Raises:
      JaxrlError: if `num_episodes` or `max_steps` is not a positive whole number, or an argument is of another kind.
    """
    checks.random_key("evaluate", key)
    require_agent("evaluate", agent)
    env = require_env("evaluate", env, on_host=True)
    if isinstance(state, TrainState):
        raise checks.JaxrlError("evaluate: a TrainState is not accepted; it must be the agent's state, its field agent")
    limit = max_steps if max_steps is not None else default_max_steps(env.spec)
    checks.integer("evaluate", num_episodes=num_episodes, max_steps=limit)
    if isinstance(env, HostEnv):
        return jnp.asarray(_on_host(key, agent, state, env, num_episodes, limit))
    reset_key, run_key = jax.random.split(prng.unrolled(key))
    env_state, obs = jax.vmap(env.reset)(jax.random.split(reset_key, num_episodes))

    def unfinished(carry):
        t, *_, finished = carry
        return (t < limit) & ~jnp.all(finished)

    def one_step(carry):
        t, memory, env_state, obs, returns, finished = carry
        keys = jax.random.split(jax.random.fold_in(run_key, t), 1 + num_episodes)
        action, memory, _ = agent.act(state, memory, obs, keys[0], jnp.int32(0), explore=False)
        new, outcome = jax.vmap(env.step)(keys[1:], env_state, action)
        returns = sums.add(returns, jnp.where(finished, 0, mean_reward(outcome.reward, num_episodes)))
        # Whose episode is over stays where it is: beyond its end an environment's numbers may grow without bounds.
        env_state, obs = where(finished, (env_state, obs), (new, outcome.obs))
        return t + 1, memory, env_state, obs, returns, finished | outcome.terminated | outcome.truncated

    memory = agent.init_memory(num_episodes)
    carry = (jnp.int32(0), memory, env_state, obs, sums.nothing((num_episodes,)), jnp.zeros(num_episodes, bool))
    return sums.value(jax.lax.while_loop(unfinished, one_step, carry)[4])


def _on_host(key: Key, agent: Agent, state: PyTree, env: HostEnv, num_episodes: int, max_steps: int) -> np.ndarray:
    """`evaluate` of an environment on the host; float32 `[num_episodes]`."""
    reset_key, run_key = jax.random.split(prng.unrolled(key))
    choose = jax.jit(lambda memory, obs, t: greedy(agent, state, memory, obs, run_key, t))

    def act(memory: PyTree, obs: np.ndarray, t: int) -> tuple[Array, PyTree]:
        action, memory = choose(memory, obs[0], t)
        return action[None], memory

    seeds = np.asarray(host.draw_seeds(reset_key, num_episodes))[None]
    try:
        with contextlib.closing(env.make_vector(num_episodes)) as vector:
            return host.play(vector, env.spec, act, agent.init_memory(num_episodes), seeds, max_steps)[0]
    except checks.StepError as error:
        raise checks.RunError(f"{env.spec.id}: episode {error.index} of an evaluation: {error.text}") from error


def greedy(agent: Agent, state: PyTree, memory: PyTree, obs: Array, key: Key, t: Array) -> tuple[Array, PyTree]:
    """The actions of an evaluation's step, `[N, ...]`, and the memory; the state is the agent's."""
    key = jax.random.fold_in(jax.random.fold_in(key, t), 0)
    action, memory, _ = agent.act(state, memory, obs, key, jnp.int32(0), explore=False)
    return action, memory
