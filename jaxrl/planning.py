"""Planning: the exact values and best policy of a finite environment whose model is known.

Pure functions of a `Model`, of which the environments that have one carry it as `env.model`:

    solution = value_iteration(jaxrl.make("jaxrl/Maze-v0").model, gamma=0.9)

Bounds are in the maximum norm, in which the Bellman operators are contractions by gamma. They include what rounding may
add to each sweep: with gamma near 1, sweeps in float32 come to rest far from the optimum.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxrl import checks
from jaxrl.numerics import standard_numbers
from jaxrl.types import Array, Model

HIGHEST = jax.lax.Precision.HIGHEST  # accelerators would otherwise round a product's factors to a few digits
ROUNDING = float(jnp.finfo(jnp.float32).eps) / 2  # the largest relative error of one operation


class Solution(NamedTuple):
    """What planning found.

    Attributes:
      values: V, float32 `[S]`; 0 in terminal states.
      q_values: Q, float32 `[S, A]`: one step of looking ahead from `values`, or, of Q-value iteration, its iterate.
      policy: int32 `[S]`, an action of the highest Q; of several, the first.
      iterations: int32 `()`, how many improvements of the whole table it took.
      error_bound: float32 `()`, an upper bound on the largest distance of an iterate from the optimum; infinite where
        gamma is 1.
    """

    values: Array
    q_values: Array
    policy: Array
    iterations: Array
    error_bound: Array


def look_ahead(model: Model, values: Array, gamma: Array | float) -> Array:
    """Q(s, a) = R(s, a) + gamma sum_t P(t | s, a) V(t), float32 `[S, A]`; a terminal state's value counts as 0."""
    values = jnp.where(model.terminal, 0.0, values)
    return jnp.asarray(model.reward) + gamma * jnp.matmul(jnp.asarray(model.transition), values, precision=HIGHEST)


def rounding_error(model: Model, values: Array, gamma: Array | float) -> Array:
    """A bound on how far `look_ahead` in float32 is from the exact one, of any entry.

    Each operation is off by `ROUNDING` at most, relative to its result: a product and a sum for each state that a step
    may lead to, gamma itself and the product with it, and the sum with the reward.
    """
    transition, going_on = jnp.asarray(model.transition), ~jnp.asarray(model.terminal)
    following = gamma * jnp.matmul(transition, jnp.where(going_on, jnp.abs(values), 0.0), precision=HIGHEST)  # [S, A]
    operations = jnp.count_nonzero((transition != 0) & going_on, axis=-1) + 3
    return ROUNDING * (operations * following + jnp.abs(jnp.asarray(model.reward))).max()


def _bound(change: Array, error: Array, gamma: Array | float) -> Array:
    """(change + error) / (1 - gamma), and infinity where gamma is 1."""
    rest = jnp.asarray(1 - gamma, jnp.float32)  # of a number in Python, so that 1 - gamma keeps its digits
    return jnp.where(rest > 0, (change + error) / jnp.where(rest > 0, rest, 1), jnp.inf)


@standard_numbers
def value_iteration(
    model: Model, *, gamma: float = 0.99, tolerance: float = 1e-6, max_iterations: int = 10_000
) -> Solution:
    """Value iteration: V <- max_a (R + gamma P V), from V = 0 (Sutton and Barto 2018, equation 4.10).

    Args:
      model: the environment's.
      gamma: discount, in [0, 1].
      tolerance: it stops when no value changed by more, > 0.
      max_iterations: and at the latest after so many sweeps; may be traced.

    Returns:
      the solution. The bound is (gamma times the last change + a sweep's rounding) / (1 - gamma), by the contraction.

    Raises:
      JaxrlError: where an argument is out of its range.
    """
    backup = lambda values: look_ahead(model, values, gamma).max(-1)  # noqa: E731
    start = jnp.zeros(len(model.terminal))
    values, iterations, bound = _iterate("value_iteration", model, backup, start, gamma, tolerance, max_iterations)
    return _solution(values, look_ahead(model, values, gamma), iterations, bound)


@standard_numbers
def q_value_iteration(
    model: Model, *, gamma: float = 0.99, tolerance: float = 1e-6, max_iterations: int = 10_000
) -> Solution:
    """Q-value iteration: Q <- R + gamma P max_a Q, from Q = 0 (Sutton and Barto 2018, section 4.4).

    Arguments, errors and the bound, which is on `q_values`, are as in `value_iteration`.
    """
    backup = lambda q_values: look_ahead(model, q_values.max(-1), gamma)  # noqa: E731
    start = jnp.zeros(model.reward.shape)
    q_values, iterations, bound = _iterate("q_value_iteration", model, backup, start, gamma, tolerance, max_iterations)
    return _solution(q_values.max(-1), q_values, iterations, bound)


@standard_numbers
def policy_evaluation(model: Model, policy: Array, *, gamma: float = 0.99) -> Array:
    """The values of a policy, exactly: the solution of V = R_pi + gamma P_pi V (Sutton and Barto 2018, equation 4.4).

    Args:
      model: the environment's.
      policy: int `[S]`, an action for each state, or float `[S, A]`, probabilities.
      gamma: discount, in [0, 1]; 1 only where every episode ends under the policy, or the values are infinite or NaN.

    Returns:
      values, float32 `[S]`; 0 in terminal states.

    Raises:
      JaxrlError: where gamma is out of its range.
    """
    checks.number("policy_evaluation", 0, 1, gamma=gamma)
    policy = jnp.asarray(policy)
    if policy.ndim == 1:
        policy = jax.nn.one_hot(policy, model.reward.shape[1])
    going_on = jnp.where(model.terminal, 0.0, 1.0)  # [S]
    transition = jnp.einsum("sa,sat->st", policy, jnp.asarray(model.transition), precision=HIGHEST) * going_on[:, None]
    reward = jnp.einsum("sa,sa->s", policy, jnp.asarray(model.reward), precision=HIGHEST) * going_on
    return jnp.linalg.solve(jnp.eye(len(reward)) - gamma * transition, reward)


@standard_numbers
def policy_iteration(model: Model, *, gamma: float = 0.99, max_iterations: int = 1_000) -> Solution:
    """Policy iteration: exact evaluation and greedy improvement in turns (Sutton and Barto 2018, section 4.3).

    An action is kept unless another one is better by more than rounding, so it stops although several may be best.

    Args:
      model: the environment's.
      gamma: discount, in [0, 1).
      max_iterations: it stops at the latest after so many improvements.

    Returns:
      the solution. The bound is (the Bellman residual of the last policy's values + a sweep's rounding) / (1 - gamma).

    Raises:
      JaxrlError: where an argument is out of its range.
    """
    checks.number("policy_iteration", 0, 1, gamma=gamma)
    checks.integer("policy_iteration", max_iterations=max_iterations)
    if not isinstance(gamma, Tracer) and gamma == 1:
        raise checks.JaxrlError(
            "policy_iteration: gamma=1 is not accepted; it must be a number in [0, 1), since a policy that never ends "
            "an episode has no finite values (value_iteration takes 1)"
        )

    def improve(carry: tuple) -> tuple:
        policy, _, _, iterations = carry
        values = policy_evaluation(model, policy, gamma=gamma)
        q_values = look_ahead(model, values, gamma)
        kept = jnp.take_along_axis(q_values, policy[:, None], -1)[:, 0]
        margin = 4 * rounding_error(model, values, gamma)  # of the values too, which their equations were solved for
        better = jnp.where(q_values.max(-1) > kept + margin, q_values.argmax(-1), policy)
        return better, policy, values, iterations + 1

    def unfinished(carry: tuple) -> Array:
        policy, before, _, iterations = carry
        return jnp.any(policy != before) & (iterations < max_iterations)

    first = jnp.zeros(len(model.terminal), jnp.int32)
    carry = (first, first - 1, jnp.zeros(len(first)), jnp.int32(0))
    _, _, values, iterations = jax.lax.while_loop(unfinished, improve, carry)
    q_values = look_ahead(model, values, gamma)
    residual = jnp.abs(jnp.where(model.terminal, 0.0, q_values.max(-1) - values)).max()
    return _solution(values, q_values, iterations, _bound(residual, rounding_error(model, values, gamma), gamma))


@standard_numbers
def path_length(model: Model, policy: Array, max_steps: int) -> Array:
    """How many steps a policy takes from the start to a terminal state, where neither is left to chance.

    Args:
      model: of a deterministic environment with one start.
      policy: int `[S]`.
      max_steps: where to give up.

    Returns:
      the steps, int32 `()`; `max_steps + 1` if the end was not reached.
    """
    next_state = jnp.asarray(model.transition).argmax(-1)

    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        state, steps = carry
        ended = jnp.asarray(model.terminal)[state]
        return (jnp.where(ended, state, next_state[state, policy[state]]), steps + ~ended), None

    (state, steps), _ = jax.lax.scan(step, (jnp.argmax(model.start), jnp.int32(0)), length=max_steps)
    return jnp.where(jnp.asarray(model.terminal)[state], steps, max_steps + 1)


def _iterate(
    owner: str, model: Model, backup, start: Array, gamma: float, tolerance: float, max_iterations: int
) -> tuple[Array, Array, Array]:
    """Repeats a contraction until it changes nothing: its fixed point, how often, and the bound on the error."""
    checks.number(owner, 0, 1, gamma=gamma)
    checks.number(owner, 0, open_low=True, tolerance=tolerance)
    if not isinstance(max_iterations, jax.Array):
        checks.integer(owner, max_iterations=max_iterations)

    def sweep(carry: tuple) -> tuple:
        table, _, iterations = carry
        new = backup(table)
        return new, jnp.abs(new - table).max(), iterations + 1

    def unfinished(carry: tuple) -> Array:
        _, change, iterations = carry
        return (change > tolerance) & (iterations < max_iterations)

    table, change, iterations = jax.lax.while_loop(unfinished, sweep, (start, jnp.float32(jnp.inf), jnp.int32(0)))
    values = table if table.ndim == 1 else table.max(-1)
    return table, iterations, _bound(gamma * change, rounding_error(model, values, gamma), gamma)


def _solution(values: Array, q_values: Array, iterations: Array, bound: Array) -> Solution:
    return Solution(values, q_values, q_values.argmax(-1).astype(jnp.int32), iterations, bound)
