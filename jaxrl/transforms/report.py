"""Metrics of one's own: agents that report what functions say of their state and of what they learned from."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from jaxrl.checks import JaxrlError
from jaxrl.constructors import recorded
from jaxrl.types import Agent, Array, Key, Metrics, PyTree, Spec, Transition

Metric = Callable[[PyTree, Transition], Array]


class EpisodeMeanState(NamedTuple):
    """State of an agent made by `report_episode_mean`.

    Attributes:
      agent: the inner agent's state.
      episodes: float32 `()`; how many of the episodes that count have ended.
      totals: by metric, the sum over their ends; float32 `()`.
    """

    agent: PyTree
    episodes: Array
    totals: dict[str, Array]


@recorded
def report(agent: Agent, /, **metrics: Metric) -> Agent:
    """The same agent, with further metrics.

    Args:
      agent: any. Of one that is itself made of another, such as by `normalize_rewards`, the metrics see its own state.
      **metrics: by name, a pure `function(state, trajectory)` to a scalar: `state` is the agent's after an update, and
        the leaves of `trajectory`, which it learned from, are `[T, N, ...]`.

    Returns:
      An agent that learns and acts as `agent`, and has these metrics, float32 `()`, beside its own.

    Raises:
      JaxrlError: in `update`, at trace time, if the agent has a metric of that name, or a function returns no scalar.

    >>> import jax, jaxrl
    >>> agent = report(jaxrl.q_learning(), best=lambda state, trajectory: state.q.max())
    >>> _, metrics = jaxrl.train(jax.random.key(0), agent, jaxrl.make("jaxrl/Corridor-v0"), 100)
    >>> metrics["best"].shape
    (100,)
    """

    def update(state: PyTree, trajectory: Transition, key: Key, step: Array) -> tuple[PyTree, Metrics]:
        state, own = agent.update(state, trajectory, key, step)
        return state, own | _values(metrics, own, state, trajectory)

    return agent._replace(update=update)


@recorded
def report_episode_mean(agent: Agent, /, num_episodes: int, **metrics: Metric) -> Agent:
    """The same agent, with further metrics that are means over the ends of its first episodes so far.

    Args:
      agent: one that updates after each step of one environment: `num_envs` and `rollout_length` are 1.
      num_episodes: how many episodes count, from the first on. Later ones no longer change the metrics.
      **metrics: as of `report`. Before the first episode has ended they are 0.

    Returns:
      An agent with `EpisodeMeanState` as its state, and everything else of `agent`'s.

    Raises:
      JaxrlError: if the agent updates less often; and as `report` does.
    """
    if (agent.num_envs, agent.rollout_length) != (1, 1):
        raise JaxrlError(
            f"report_episode_mean: num_envs={agent.num_envs}, rollout_length={agent.rollout_length} of {agent.name} "
            "are not accepted; both must be 1, so that an update sees the end of one episode at most"
        )

    def init(key: Key, spec: Spec) -> EpisodeMeanState:
        return EpisodeMeanState(agent.init(key, spec), jnp.float32(0), {name: jnp.float32(0) for name in metrics})

    def act(state: EpisodeMeanState, memory: PyTree, obs: PyTree, key: Key, step: Array, explore: bool = True):
        return agent.act(state.agent, memory, obs, key, step, explore=explore)

    def update(
        state: EpisodeMeanState, trajectory: Transition, key: Key, step: Array
    ) -> tuple[EpisodeMeanState, Metrics]:
        inner, own = agent.update(state.agent, trajectory, key, step)
        counts = (trajectory.terminated | trajectory.truncated)[0, 0] & (state.episodes < num_episodes)
        values = _values(metrics, own, inner, trajectory)
        totals = {name: state.totals[name] + jnp.where(counts, value, 0) for name, value in values.items()}
        state = EpisodeMeanState(inner, state.episodes + counts, totals)
        return state, own | {name: total / jnp.maximum(state.episodes, 1) for name, total in totals.items()}

    def interrupt(state: EpisodeMeanState, step: Array) -> EpisodeMeanState:
        return state._replace(agent=agent.interrupt(state.agent, step))

    return agent._replace(init=init, act=act, update=update, interrupt=interrupt)


def _values(metrics: dict[str, Metric], own: Metrics, state: PyTree, trajectory: Transition) -> Metrics:
    """What the functions say, float32 `()` each; raises a `JaxrlError` for a name that is taken, or another shape."""
    values = {name: jnp.asarray(metric(state, trajectory), jnp.float32) for name, metric in metrics.items()}
    for name, value in values.items():
        if name in own or value.shape:
            wrong = "the agent reports one of that name" if name in own else f"its shape is {value.shape}, not ()"
            raise JaxrlError(f"report: metric {name!r} is not accepted; {wrong}")
    return values
