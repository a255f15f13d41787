"""Returns and advantages of trajectories: discounted, n-step and lambda returns, GAE, V-trace, Retrace.

All arrays are time-major and of one shape `[T, ...]`; axes after the first are independent. Everywhere,

- `discounts[t]` is gamma, and 0 where step `t` terminated;
- `next_values[t]` is the value of the *true* successor of step `t`, at an episode's end the terminal observation's;
- `ended[t]` says that another episode begins after step `t`, however it ended, and nothing flows back across it. `None`
  means that no episode ends inside the trajectory.

So at an ended step, and at the last one, what follows is `discounts[t] * next_values[t]`: a truncated episode
bootstraps, a terminated one does not, and neither needs a case of its own.

Everything is computed and returned in float32, or in float64 where an input is. Gradients flow through every
floating-point argument: no function here stops them, so a caller that wants constants applies `jax.lax.stop_gradient`.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from jaxrl.checks import integer, number
from jaxrl.types import Array


def _same_shape(*arrays: Array) -> list[Array]:
    """The arrays in one floating dtype, float32 at least: a bfloat16 sum over time would lose most of its digits."""
    given = [jnp.asarray(array) for array in arrays]
    chex.assert_equal_shape(given)
    chex.assert_axis_dimension_gteq(given[0], 0, 1)
    dtype = jnp.promote_types(jnp.result_type(*given), jnp.float32)
    return [array.astype(dtype) for array in given]


def _stops(ended: Array | None, rewards: Array) -> Array:
    """Where the recursion starts anew: at ended steps, and at the last one."""
    last = jnp.zeros(rewards.shape, bool).at[-1].set(True)
    if ended is None:
        return last
    ended = jnp.asarray(ended)
    chex.assert_equal_shape((ended, rewards))
    return last | ended.astype(bool)


def _per_step(value: Array | float, rewards: Array) -> Array:
    """Gives a scalar, `[T]` or `[T, ...]` array the rank of the rewards, its axes aligned from the first (time) on."""
    value = jnp.asarray(value, rewards.dtype)
    if value.ndim:
        chex.assert_equal_shape_prefix((value, rewards), value.ndim)
    return value.reshape(value.shape + (1,) * (rewards.ndim - value.ndim))


def _clipped_ratios(log_ratios: Array, clip: Array | float) -> Array:
    """`min(clip, exp(log_ratios))`, clipped before `exp`: afterwards, an overflow's gradient would be NaN."""
    return jnp.exp(jnp.minimum(log_ratios, jnp.log(jnp.asarray(clip, log_ratios.dtype))))


def _accumulate(deltas: Array, decays: Array, stops: Array) -> Array:
    """`acc[t] = deltas[t] + decays[t] * acc[t+1]`, with `acc[t+1] = 0` where `stops[t]`."""

    def step(acc, x):
        delta, decay, stop = x
        # A selection and not a factor of 0, which would let a NaN or an infinity of the next episode through.
        acc = delta + decay * jnp.where(stop, 0.0, acc)
        return acc, acc

    return jax.lax.scan(step, jnp.zeros_like(deltas[0]), (deltas, decays, stops), reverse=True)[1]


def discounted_returns(rewards: Array, discounts: Array, bootstrap: Array | float, ended: Array | None = None) -> Array:
    """The discounted sum of the rewards up to the end of the episode, or of the trajectory.

    ```
    G[t] = rewards[t] + discounts[t] * (bootstrap value where t ended or is the last step, else G[t+1])
    ```

    Sutton and Barto (2018), eq. 3.9.

    Args:
      rewards: `[T, ...]`.
      discounts: `[T, ...]`, in `[0, 1]`; 0 where the step terminated.
      bootstrap: with as many axes as `rewards`, the values `[T, ...]` of the true successors, of which those at ended
        steps and at the last are used. With one axis fewer, `[...]`, or as a scalar, the value after the last step
        alone: there is none then for an episode cut off in the middle, whose return takes 0 in its place.
      ended: `[T, ...]`, bool; see the module.

    Returns:
      The returns `[T, ...]`.

    Raises:
      AssertionError: if the shapes do not agree, at trace time.

    >>> discounted_returns(jnp.array([1.0, 2.0, 3.0]), jnp.full(3, 0.5), bootstrap=8.0).tolist()
    [3.75, 5.5, 7.0]
    """
    rewards, discounts = _same_shape(rewards, discounts)
    stops, bootstrap = _stops(ended, rewards), jnp.asarray(bootstrap, rewards.dtype)
    if bootstrap.ndim == rewards.ndim:
        chex.assert_equal_shape((bootstrap, rewards))
    else:
        if bootstrap.ndim:
            chex.assert_shape(bootstrap, rewards.shape[1:])
        bootstrap = jnp.zeros_like(rewards).at[-1].set(bootstrap)
    return _accumulate(rewards + discounts * jnp.where(stops, bootstrap, 0.0), discounts, stops)


def n_step_returns(rewards: Array, discounts: Array, next_values: Array, n: int, ended: Array | None = None) -> Array:
    """Up to `n` discounted rewards, then the value of where they lead.

    ```
    G[t] = rewards[t] + discounts[t] * rewards[t+1] + ... + discounts[t] ... discounts[k] * next_values[k]
    ```

    with `k` the first of: step `t + n - 1`, an ended step, the last step. Sutton and Barto (2018), eq. 7.1.

    Args:
      rewards: `[T, ...]`.
      discounts: `[T, ...]`, in `[0, 1]`; 0 where the step terminated.
      next_values: `[T, ...]`, values of the true successors.
      n: how many rewards to sum at most; static, at least 1. The work is `n * T` steps, and `T` where `n >= T`.
      ended: `[T, ...]`, bool; see the module.

    Returns:
      The returns `[T, ...]`.

    Raises:
      JaxrlError: if `n` is not a whole number of at least 1.
      AssertionError: if the shapes do not agree, at trace time.

    >>> n_step_returns(jnp.array([1.0, 2.0, 3.0]), jnp.full(3, 0.5), jnp.array([10.0, 20.0, 30.0]), n=2).tolist()
    [7.0, 11.0, 18.0]
    """
    integer("n_step_returns", n=n)
    rewards, discounts, next_values = _same_shape(rewards, discounts, next_values)
    if n >= len(rewards):
        return discounted_returns(rewards, discounts, next_values, ended)
    stops = _stops(ended, rewards)

    def one_more(_, values):  # G^(k) of the successor is the value that G^(k+1) bootstraps from
        following = jnp.roll(rewards + discounts * values, -1, axis=0)
        return jnp.where(stops, next_values, following)

    return rewards + discounts * jax.lax.fori_loop(1, n, one_more, next_values)


def lambda_returns(
    rewards: Array, discounts: Array, next_values: Array, lambda_: Array | float, ended: Array | None = None
) -> Array:
    """The lambda return: all n-step returns of the episode, in geometrically falling weights.

    ```
    G[t] = rewards[t] + discounts[t] * ((1 - lambda[t]) * next_values[t] + lambda[t] * G[t+1])
    ```

    with `lambda[t] = 0` at ended steps and at the last. Sutton and Barto (2018), eq. 12.18.

    Args:
      rewards: `[T, ...]`.
      discounts: `[T, ...]`, in `[0, 1]`; 0 where the step terminated.
      next_values: `[T, ...]`, values of the true successors: of states for TD(lambda), or `max Q` for Q(lambda).
      lambda_: scalar, `[T]` or `[T, ...]`, in `[0, 1]`.
      ended: `[T, ...]`, bool; see the module.

    Returns:
      The returns `[T, ...]`.

    Raises:
      JaxrlError: if a concrete `lambda_` is out of range.
      AssertionError: if the shapes do not agree, at trace time.

    >>> lambda_returns(jnp.array([1.0, 2.0]), jnp.full(2, 0.5), jnp.array([4.0, 8.0]), lambda_=0.5).tolist()
    [3.5, 6.0]
    """
    number("lambda_returns", 0, 1, lambda_=lambda_)
    rewards, discounts, next_values = _same_shape(rewards, discounts, next_values)
    stops = _stops(ended, rewards)
    mix = jnp.where(stops, 0.0, _per_step(lambda_, rewards))
    return _accumulate(rewards + discounts * (1 - mix) * next_values, discounts * mix, stops)


def gae(
    rewards: Array,
    discounts: Array,
    values: Array,
    next_values: Array,
    lambda_: Array | float,
    ended: Array | None = None,
) -> tuple[Array, Array]:
    """Generalised advantage estimation, and the value targets that belong to it.

    ```
    delta[t]     = rewards[t] + discounts[t] * next_values[t] - values[t]
    advantage[t] = delta[t] + discounts[t] * lambda[t] * advantage[t+1]
    target[t]    = advantage[t] + values[t]
    ```

    with `advantage[t+1] = 0` at ended steps and at the last. Schulman et al. (2016), eq. 16.

    Args:
      rewards: `[T, ...]`.
      discounts: `[T, ...]`, in `[0, 1]`; 0 where the step terminated.
      values: `[T, ...]`, values of the states acted in.
      next_values: `[T, ...]`, values of the true successors.
      lambda_: scalar, `[T]` or `[T, ...]`, in `[0, 1]`.
      ended: `[T, ...]`, bool; see the module.

    Returns:
      `(advantages, targets)`, each `[T, ...]`; where `next_values[t] = values[t+1]` inside an episode, the targets are
      its lambda returns.

    Raises:
      JaxrlError: if a concrete `lambda_` is out of range.
      AssertionError: if the shapes do not agree, at trace time.

    >>> rewards, values, next_values = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]), jnp.array([4.0, 8.0])
    >>> advantages, targets = gae(rewards, jnp.full(2, 0.5), values, next_values, lambda_=0.5)
    >>> advantages.tolist(), targets.tolist()
    ([0.5, 2.0], [3.5, 6.0])
    """
    number("gae", 0, 1, lambda_=lambda_)
    rewards, discounts, values, next_values = _same_shape(rewards, discounts, values, next_values)
    deltas = rewards + discounts * next_values - values
    advantages = _accumulate(deltas, discounts * _per_step(lambda_, rewards), _stops(ended, rewards))
    return advantages, advantages + values


def vtrace(
    log_rhos: Array,
    rewards: Array,
    discounts: Array,
    values: Array,
    next_values: Array,
    clip_rho: Array | float,
    clip_c: Array | float,
    ended: Array | None = None,
) -> tuple[Array, Array]:
    """V-trace value targets of actions that another policy chose, and the advantages of the policy gradient.

    ```
    rho[t] = min(clip_rho, exp(log_rhos[t])),  c[t] = min(clip_c, exp(log_rhos[t]))
    delta[t]     = rho[t] * (rewards[t] + discounts[t] * next_values[t] - values[t])
    target[t]    = values[t] + delta[t] + discounts[t] * c[t] * (target[t+1] - values[t+1])
    advantage[t] = rho[t] * (rewards[t] + discounts[t] * target[t+1] - values[t])
    ```

    At ended steps and at the last, the target's last term is 0, and the advantage has `next_values[t]` in place of
    `target[t+1]`. Espeholt et al. (2018), eq. 1 in the recursive form of its remark 1, and section 4.2.

    Args:
      log_rhos: `[T, ...]`, `log pi(a_t | s_t) - log mu(a_t | s_t)`, with `mu` the policy that acted.
      rewards: `[T, ...]`.
      discounts: `[T, ...]`, in `[0, 1]`; 0 where the step terminated.
      values: `[T, ...]`, values of the states acted in.
      next_values: `[T, ...]`, values of the true successors.
      clip_rho: scalar, at least 0, may be infinite; decides which policy's values the targets lead to, from those of
        `mu` (towards 0) to those of `pi` (infinite).
      clip_c: scalar, at least 0, may be infinite; decides how far corrections reach back, hence variance and speed.
      ended: `[T, ...]`, bool; see the module.

    Returns:
      `(targets, policy_advantages)`, each `[T, ...]`.

    Raises:
      AssertionError: if the shapes do not agree, at trace time.

    >>> log_rhos, values, next_values = jnp.log(jnp.array([0.5, 4.0])), jnp.array([3.0, 4.0]), jnp.array([4.0, 8.0])
    >>> targets, advantages = vtrace(log_rhos, jnp.array([1.0, 2.0]), jnp.full(2, 0.5), values, next_values, 1.0, 1.0)
    >>> targets.tolist(), advantages.tolist()
    ([3.5, 6.0], [0.5, 2.0])
    """
    log_rhos, rewards, discounts, values, next_values = _same_shape(log_rhos, rewards, discounts, values, next_values)
    stops = _stops(ended, rewards)
    rhos, cs = _clipped_ratios(log_rhos, clip_rho), _clipped_ratios(log_rhos, clip_c)
    deltas = rhos * (rewards + discounts * next_values - values)
    targets = values + _accumulate(deltas, discounts * cs, stops)
    next_targets = jnp.where(stops, next_values, jnp.roll(targets, -1, axis=0))
    return targets, rhos * (rewards + discounts * next_targets - values)


def retrace(
    q_taken: Array,
    next_values: Array,
    next_q_taken: Array,
    rewards: Array,
    discounts: Array,
    next_log_rhos: Array,
    lambda_: Array | float,
    ended: Array | None = None,
) -> Array:
    """Retrace(lambda) targets for the values of actions that another policy chose.

    ```
    c[t+1]    = lambda[t] * min(1, exp(next_log_rhos[t]))
    target[t] = rewards[t] + discounts[t] * (next_values[t] + c[t+1] * (target[t+1] - next_q_taken[t]))
    ```

    with `c[t+1] = 0` at ended steps and at the last. Munos et al. (2016), eq. 4 with Retrace's traces: if
    `next_q_taken[t] = q_taken[t+1]`, this recursion is `q_taken` plus the sum of corrections there.

    Args:
      q_taken: `[T, ...]`, `Q(s_t, a_t)`, which the targets correct. It cancels against the first correction of the sum,
        so the targets do not depend on it; only its shape is checked.
      next_values: `[T, ...]`, `E_pi Q(s_{t+1}, .)` of the true successors.
      next_q_taken: `[T, ...]`, `Q(s_{t+1}, a_{t+1})`; unused at ended steps and at the last.
      rewards: `[T, ...]`.
      discounts: `[T, ...]`, in `[0, 1]`; 0 where the step terminated.
      next_log_rhos: `[T, ...]`, `log pi - log mu` of `a_{t+1}` in `s_{t+1}`; unused at ended steps and at the last.
      lambda_: scalar, `[T]` or `[T, ...]`, in `[0, 1]`.
      ended: `[T, ...]`, bool; see the module.

    Returns:
      The targets `[T, ...]`.

    Raises:
      JaxrlError: if a concrete `lambda_` is out of range.
      AssertionError: if the shapes do not agree, at trace time.

    >>> q_taken, next_values, next_q_taken = jnp.array([1.0, 2.0]), jnp.array([4.0, 8.0]), jnp.array([2.0, 0.0])
    >>> log_rhos = jnp.log(jnp.array([0.5, 1.0]))
    >>> retrace(q_taken, next_values, next_q_taken, jnp.array([1.0, 2.0]), jnp.full(2, 0.5), log_rhos, 1.0).tolist()
    [4.0, 6.0]
    """
    number("retrace", 0, 1, lambda_=lambda_)
    _, next_values, next_q_taken, rewards, discounts, next_log_rhos = _same_shape(
        q_taken, next_values, next_q_taken, rewards, discounts, next_log_rhos
    )
    stops = _stops(ended, rewards)
    traces = jnp.where(stops, 0.0, _per_step(lambda_, rewards) * _clipped_ratios(next_log_rhos, 1.0))
    corrections = traces * jnp.where(stops, 0.0, next_q_taken)
    return _accumulate(rewards + discounts * (next_values - corrections), discounts * traces, stops)
