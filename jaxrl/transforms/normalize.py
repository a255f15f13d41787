"""Running statistics: agents that see scaled observations or rewards."""

from __future__ import annotations

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import sums
from jaxrl.checks import JaxrlError, number
from jaxrl.constructors import recorded
from jaxrl.replay import Replay, Sample
from jaxrl.sums import Sum
from jaxrl.types import Agent, Array, Box, Key, Metrics, PyTree, Spec, Transition, box

EPSILON = 1e-8  # added to a variance before its root, so that what never varied maps to 0 and not to NaN


class RunningStatistics(NamedTuple):
    """Mean and variance of all that was seen, per element.

    Attributes:
      count: int32, shape `()`; the number of samples, at most 2**31 - 1. From there on the statistics are an
        exponential average over that many.
      mean: float32, `shape`.
      var: float32, `shape`; the population variance (divided by `count`), kept in place of a sum of squares so that it
        does not grow with the count.
      mean_rest: float32, `shape`; what rounding has left out of `mean`. A batch that is a millionth of all samples
        moves the mean by less than its last bit.
      var_rest: float32, `shape`; the same of `var`.
    """

    count: Array
    mean: Array
    var: Array
    mean_rest: Array | float = 0.0
    var_rest: Array | float = 0.0


class NormalizedState(NamedTuple):
    """State of an agent made by `normalize_observations`.

    Attributes:
      statistics: those of the raw observations of all updates so far.
      agent: the inner agent's state.
    """

    statistics: RunningStatistics
    agent: PyTree


class NormalizedReplayState(NamedTuple):
    """State of a replay made by `normalize_replay`.

    Attributes:
      statistics: those of the raw observations of all that was added.
      replay: the inner replay's state.
    """

    statistics: RunningStatistics
    replay: PyTree


class ScaledRewardState(NamedTuple):
    """State of an agent made by `normalize_rewards`.

    Attributes:
      statistics: those of the discounted returns so far, of scalars.
      returns: a sum of float32 `[N]`; each environment's discounted sum of rewards since its episode began.
      agent: the inner agent's state.
    """

    statistics: RunningStatistics
    returns: Sum
    agent: PyTree


def init_statistics(shape: tuple[int, ...]) -> RunningStatistics:
    """Statistics of nothing yet: count 0, mean 0, variance 1, so that `normalize` changes nothing but clips.

    Args:
      shape: the shape of one sample.
    """
    zeros, ones = jnp.zeros(shape, jnp.float32), jnp.ones(shape, jnp.float32)
    return RunningStatistics(jnp.int32(0), zeros, ones, zeros, zeros)


def update_statistics(statistics: RunningStatistics, batch: Array) -> RunningStatistics:
    """Folds a batch in: exact, whatever the sizes of batches, up to rounding.

    ```
    delta = mean_b - mean,  w = n_b / (n + n_b)
    mean' = mean + w * delta
    var'  = var + w * (var_b - var + (1 - w) * delta^2)
    ```

    Chan, Golub and LeVeque (1979), the parallel update, divided by the count. The batch's own moments come from two
    passes with a correction, so a mean that is large beside the deviation costs no digits of the variance; and both
    sums are compensated, so that small batches count after many. Where a batch's moments are not finite, these elements
    are left out of it: one NaN would otherwise stay for good.

    Args:
      statistics: of samples of shape `[...]`.
      batch: `[*leading, ...]`, any number of leading axes, any real dtype.

    Returns:
      Statistics of all samples, old and new.

    Raises:
      AssertionError: if the batch's last axes are not the shape of a sample, or it is empty, at trace time.

    >>> statistics = update_statistics(init_statistics(()), jnp.array([1.0, 2.0]))
    >>> statistics = update_statistics(statistics, jnp.array([[3.0], [6.0]]))
    >>> statistics.count.item(), statistics.mean.item(), statistics.var.item()
    (4, 3.0, 3.5)
    """
    count, mean, var, mean_rest, var_rest = statistics
    batch = jnp.asarray(batch, jnp.float32)
    chex.assert_shape(batch, (..., *mean.shape))
    leading = tuple(range(batch.ndim - mean.ndim))  # reduced where they are: reshaped, a sharded axis would be gathered
    number_of = math.prod(batch.shape[axis] for axis in leading)
    chex.assert_scalar_positive(number_of)

    rough_mean = batch.mean(leading)  # a long float32 sum: off by more than the deviation where the mean is large
    centred = batch - rough_mean
    correction = centred.mean(leading)
    batch_var = jnp.maximum(jnp.square(centred).mean(leading) - jnp.square(correction), 0.0)

    delta = (rough_mean - mean) + (correction - mean_rest)
    total = jnp.minimum(count, np.int32(2**31 - 1) - number_of) + number_of
    weight = number_of / total
    mean, mean_rest = sums.add(Sum(mean, mean_rest), weight * delta)
    moved = weight * (batch_var - var + (1 - weight) * jnp.square(delta))
    var, var_rest = sums.add(Sum(var, var_rest), moved)
    # Of the first batch exactly, however small it is beside the 1 that stands for nothing.
    var, var_rest = jnp.where(count == 0, batch_var, jnp.maximum(var, 0.0)), jnp.where(count == 0, 0.0, var_rest)
    finite = jnp.isfinite(mean) & jnp.isfinite(var)
    kept = (jnp.where(finite, x, old) for x, old in zip((mean, var, mean_rest, var_rest), statistics[1:], strict=True))
    return RunningStatistics(jnp.where(finite.any(), total, count), *kept)


def normalize(statistics: RunningStatistics, x: Array, clip: Array | float = 10.0) -> Array:
    """`(x - mean) / sqrt(var + 1e-8)`, clipped to `[-clip, clip]`.

    Args:
      statistics: of samples of shape `[...]`.
      x: `[*leading, ...]`, any real dtype.
      clip: greater than 0.

    Returns:
      float32 of the shape of `x`.

    Raises:
      AssertionError: if the last axes of `x` are not the shape of a sample, at trace time.

    >>> statistics = RunningStatistics(count=jnp.array(9), mean=jnp.array(1.0), var=jnp.array(4.0))
    >>> normalize(statistics, jnp.array([1.0, 5.0, 99.0])).tolist()
    [0.0, 2.0, 10.0]
    """
    x = jnp.asarray(x, jnp.float32)
    chex.assert_shape(x, (..., *statistics.mean.shape))
    return jnp.clip((x - statistics.mean) / jnp.sqrt(statistics.var + EPSILON), -clip, clip)


@recorded
def normalize_observations(agent: Agent, clip: Array | float = 10.0) -> Agent:
    """The same agent, seeing observations of mean 0 and deviation 1.

    `act` and the `update` after it use the same statistics: the inner agent learns from exactly what it acted on, and
    log-probabilities recorded by `act` can be computed again. Then `update` folds the raw observations in. Evaluation
    needs nothing more, since the statistics are part of the agent's state and `act` leaves them as they are.

    An inner agent with a replay would keep observations as they were scaled at the time, and what it stored early would
    drift from what it sees later; those agents have an argument `normalize_observations`, which is `normalize_replay`.

    Args:
      agent: observes one array, of a `Box`. Its `init` sees an unbounded float32 `Box` of the same shape.
      clip: largest absolute value after scaling, greater than 0; may be a tracer.

    Returns:
      An agent with `NormalizedState` as its state, which does not tolerate stale actions, and everything else of
      `agent`'s.

    Raises:
      JaxrlError: if `clip` is out of range, or, in `init`, if the observations are not from a `Box`.
    """
    number("normalize_observations", 0, open_low=True, clip=clip)

    def init(key: Key, spec: Spec) -> NormalizedState:
        statistics = _init_for(spec)
        # Unbounded: bounds of +-clip would invite the inner agent to scale by them once more.
        spec = spec._replace(obs_space=box(-np.inf, np.inf, spec.obs_space.shape))
        return NormalizedState(statistics, agent.init(key, spec))

    def act(state: NormalizedState, memory: PyTree, obs: Array, key: Key, step: Array, explore: bool = True):
        return agent.act(state.agent, memory, normalize(state.statistics, obs, clip), key, step, explore=explore)

    def update(
        state: NormalizedState, trajectory: Transition, key: Key, step: Array
    ) -> tuple[NormalizedState, Metrics]:
        scaled = trajectory._replace(
            obs=normalize(state.statistics, trajectory.obs, clip),
            next_obs=normalize(state.statistics, trajectory.next_obs, clip),
        )
        inner, metrics = agent.update(state.agent, scaled, key, step)
        return NormalizedState(update_statistics(state.statistics, trajectory.obs), inner), metrics

    def interrupt(state: NormalizedState, step: Array) -> NormalizedState:
        return state._replace(agent=agent.interrupt(state.agent, step))

    # Every update moves what actions were chosen on.
    return agent._replace(init=init, act=act, update=update, interrupt=interrupt, tolerates_stale_actions=False)


def normalize_replay(replay: Replay, clip: Array | float = 10.0) -> Replay:
    """The same replay, whose samples show observations with mean 0 and deviation 1.

    It keeps them as they are, and scales what is drawn by the statistics of all that was ever added: a sample's
    observations are all on today's scale, whenever they were made. `act_normalized` is the agent's other half.

    Args:
      replay: any, of observations that are one array, of a `Box`.
      clip: largest absolute value after scaling, greater than 0; may be a tracer.

    Returns:
      A replay with `NormalizedReplayState` as its state.

    Raises:
      JaxrlError: if `clip` is out of range, or, in `init`, if the observations are not from a `Box`.
    """
    number("normalize_replay", 0, open_low=True, clip=clip)

    def init(trajectory: Transition, spec: Spec) -> NormalizedReplayState:
        return NormalizedReplayState(_init_for(spec), replay.init(trajectory, spec))

    def add(state: NormalizedReplayState, trajectory: Transition, step: Array) -> NormalizedReplayState:
        statistics = update_statistics(state.statistics, trajectory.obs)
        return NormalizedReplayState(statistics, replay.add(state.replay, trajectory, step))

    def sample(state: NormalizedReplayState, key: Key, step: Array, length: int = 1) -> Sample:
        drawn = replay.sample(state.replay, key, step, length)
        obs, next_obs = (normalize(state.statistics, x, clip) for x in (drawn.steps.obs, drawn.steps.next_obs))
        return drawn._replace(steps=drawn.steps._replace(obs=obs, next_obs=next_obs))

    def update(state: NormalizedReplayState, indices: Array, td_errors: Array) -> NormalizedReplayState:
        return state._replace(replay=replay.update(state.replay, indices, td_errors))

    def interrupt(state: NormalizedReplayState, step: Array) -> NormalizedReplayState:
        return state._replace(replay=replay.interrupt(state.replay, step))

    return Replay(init, add, sample, update, interrupt, replay.capacity, replay.batch_size)


def act_normalized(agent: Agent, clip: Array | float = 10.0) -> Agent:
    """The same agent, acting on observations that are scaled as the samples of its `normalize_replay` are.

    Args:
      agent: its state's field `replay` is a `NormalizedReplayState`.
      clip: as that replay's.
    """

    def act(state: PyTree, memory: PyTree, obs: Array, key: Key, step: Array, explore: bool = True):
        return agent.act(state, memory, normalize(state.replay.statistics, obs, clip), key, step, explore=explore)

    return agent._replace(act=act)


def _init_for(spec: Spec) -> RunningStatistics:
    """Statistics of no observations yet; raises a `JaxrlError` where they are not from a `Box`."""
    space = spec.obs_space
    if not isinstance(space, Box):
        raise JaxrlError(f"normalize_observations: {spec.id}'s obs_space={space} is not accepted; it must be a Box")
    return init_statistics(space.shape)


@recorded
def normalize_rewards(agent: Agent, gamma: Array | float, clip: Array | float = 10.0) -> Agent:
    """The same agent, learning from rewards divided by the deviation of the discounted return.

    ```
    R[t]        = rewards[t] + gamma * R[t-1],  R[t-1] = 0 where an episode began
    rewards'[t] = rewards[t] / sqrt(var(R) + 1e-8), clipped to [-clip, clip]
    ```

    with the variance over all environments and all steps so far, the trajectory's own included. The mean is not
    shifted, since that would change which policy is best. Engstrom et al. (2020); OpenAI baselines' `VecNormalize`,
    with one scale for a whole trajectory in place of one a step. The loop's metrics stay those of raw rewards.

    Args:
      agent: its trajectories' rewards are `[T, N]`.
      gamma: discount of the return that is measured, in `[0, 1]`, the agent's own as a rule; may be a tracer.
      clip: largest absolute value after scaling, greater than 0; may be a tracer.

    Returns:
      An agent with `ScaledRewardState` as its state, and everything else of `agent`'s.

    Raises:
      JaxrlError: if `gamma` or `clip` is out of range.
      AssertionError: in `update`, if the rewards are not `[T, agent.num_envs]`, at trace time.
    """
    number("normalize_rewards", 0, 1, gamma=gamma)
    number("normalize_rewards", 0, open_low=True, clip=clip)

    def init(key: Key, spec: Spec) -> ScaledRewardState:
        return ScaledRewardState(init_statistics(()), sums.nothing((agent.num_envs,)), agent.init(key, spec))

    def act(state: ScaledRewardState, memory: PyTree, obs: PyTree, key: Key, step: Array, explore: bool = True):
        return agent.act(state.agent, memory, obs, key, step, explore=explore)

    def accumulate(so_far: Sum, x: tuple[Array, Array]) -> tuple[Sum, Array]:
        reward, ended = x
        total = sums.add(jax.tree.map(lambda part: jnp.asarray(gamma, jnp.float32) * part, so_far), reward)
        return jax.tree.map(lambda part: jnp.where(ended, 0.0, part), total), sums.value(total)

    def update(
        state: ScaledRewardState, trajectory: Transition, key: Key, step: Array
    ) -> tuple[ScaledRewardState, Metrics]:
        rewards = jnp.asarray(trajectory.reward, jnp.float32)
        chex.assert_shape(rewards, (None, agent.num_envs))
        ended = trajectory.terminated | trajectory.truncated
        begun = sums.nothing((agent.num_envs,)) if agent.episodic else state.returns
        carry, returns = jax.lax.scan(accumulate, begun, (rewards, ended))  # [T, N]
        statistics = update_statistics(state.statistics, returns)
        scaled = jnp.clip(rewards / jnp.sqrt(statistics.var + EPSILON), -clip, clip)
        inner, metrics = agent.update(state.agent, trajectory._replace(reward=scaled), key, step)
        return ScaledRewardState(statistics, carry, inner), metrics

    def interrupt(state: ScaledRewardState, step: Array) -> ScaledRewardState:
        inner = agent.interrupt(state.agent, step)
        return state._replace(returns=sums.nothing((agent.num_envs,)), agent=inner)

    return agent._replace(init=init, act=act, update=update, interrupt=interrupt)


def normalized(agent: Agent, gamma: Array | float, *, observations: bool, rewards: bool) -> Agent:
    """The agent with `normalize_rewards` and `normalize_observations`, as its arguments of these names ask for."""
    if rewards:
        agent = normalize_rewards(agent, gamma)
    return normalize_observations(agent) if observations else agent
