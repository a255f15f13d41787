"""What the tabular agents share: tables and who may have one, and the window of n-step methods.

They learn from one environment, a step at a time, as the textbook writes them; many seeds at once are `vmap`'s task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import checks
from jaxrl.exploration import epsilon_greedy
from jaxrl.returns import discounted_returns
from jaxrl.types import Agent, Array, Discrete, Key, Metrics, PyTree, Spec, Transition


def check_learning(owner: str, learning_rate: Array | float, gamma: Array | float, initial_value: Array | float):
    """Checks the hyper-parameters that every agent with a table of action values has.

    Raises:
      JaxrlError: where one is out of its range.
    """
    checks.number(owner, 0, 1, open_low=True, learning_rate=learning_rate)
    checks.number(owner, 0, 1, gamma=gamma)
    checks.number(owner, initial_value=initial_value)


def action_values(owner: str, spec: Spec, initial_value: float) -> Array:
    """A table of action values, float32 `[S, A]`.

    Raises:
      JaxrlError: if the environment's observations or actions are not discrete.
    """
    if not isinstance(spec.obs_space, Discrete):
        raise checks.JaxrlError(
            f"{owner}: {spec.id} observes arrays of shape {spec.obs_space.shape}, and a table needs discrete states; "
            "use an agent with a network instead, such as dqn or ppo, or one of the grid worlds (jaxrl/Maze-v0)"
        )
    if not isinstance(spec.action_space, Discrete):
        raise checks.JaxrlError(
            f"{owner}: {spec.id} has continuous actions, and a table needs discrete ones; discretize_actions=n makes "
            "n levels of a torque, or use ppo"
        )
    return jnp.full((spec.obs_space.n, spec.action_space.n), initial_value, jnp.float32)


class TableState(NamedTuple):
    """The environment's spec, which is static, and the action values `q`, `[S, A]`."""

    spec: Spec
    q: Array


def init_table(owner: str, initial_value: float) -> Callable[[Key, Spec], TableState]:
    """The `init` of an agent that keeps a table and nothing else."""
    return lambda key, spec: TableState(spec, action_values(owner, spec, initial_value))


def only(trajectory: Transition) -> Transition:
    """The transition of a trajectory `[T, N] = [1, 1]`."""
    return jax.tree.map(lambda x: x[0, 0], trajectory)


def indicator(table: Array, state: Array, action: Array) -> Array:
    """1 at `(state, action)` and 0 elsewhere, float32 `[S, A]`.

    Under `vmap` over seeds, adding this times an error to a small table is faster than a scatter.
    """
    rows, columns = table.shape
    return ((jnp.arange(rows) == state)[:, None] & (jnp.arange(columns) == action)).astype(jnp.float32)


def act_epsilon_greedily(epsilon_at: optax.Schedule) -> Callable[..., Any]:
    """The `act` of an agent whose state has a table `q`, `[S, A]`."""

    def act(state: PyTree, memory: PyTree, obs: Array, key: Key, step: Array, explore: bool = True):
        return epsilon_greedy(key, state.q[obs], epsilon_at(step) if explore else 0.0), memory, {}

    return act


Update = Callable[[Any, Transition, Key, Array], tuple[Any, Metrics]]


def off_policy_control(
    name: str, init: Callable[[Key, Spec], PyTree], epsilon_at: optax.Schedule, update: Update
) -> Agent:
    """The agent that learns at each step of one environment, whatever policy acted; its state has the table `q`."""
    act = act_epsilon_greedily(epsilon_at)
    return Agent(init, act, update, num_envs=1, rollout_length=1, name=name, tolerates_stale_actions=True)


def on_policy_control(
    name: str, init: Callable[[Key, Spec], PyTree], epsilon_at: optax.Schedule, update: Update, **others: Any
) -> Agent:
    """The agent that learns from the next action at each step of one environment, and so has drawn it when it learns.

    Its state has the table `q` and `next_action`, which is the one for the state that was observed last; the memory
    says whether there was one in this episode. More arguments are those of `Agent`.
    """

    def act(state: PyTree, memory: Array, obs: Array, key: Key, step: Array, explore: bool = True):
        chosen = epsilon_greedy(key, state.q[obs], epsilon_at(step) if explore else 0.0)
        action = jnp.where(memory, state.next_action, chosen) if explore else chosen
        return action, jnp.ones_like(memory), {}

    def nothing_chosen(num_envs: int) -> Array:
        return jnp.zeros(num_envs, bool)

    return Agent(init, act, update, 1, 1, nothing_chosen, name=name, **others)


Policy = Callable[[Key, Array], Array]
Features = Callable[[Array], Array]


def prediction(
    name: str, init: Callable[[Key, Spec], PyTree], policy: Policy | None, update: Update, interrupt: Callable
) -> Agent:
    """The agent that only predicts: it acts by `policy(key, obs) -> action`, or, where it is None, at random.

    Its state has a `spec`.
    """

    def act(state: PyTree, memory: PyTree, obs: Array, key: Key, step: Array, explore: bool = True):
        choose = policy or (lambda key, obs: state.spec.action_space.sample(key))
        return jax.vmap(choose)(jax.random.split(key, len(obs)), obs), memory, {}

    return Agent(init, act, update, 1, 1, name=name, tolerates_stale_actions=True, interrupt=interrupt)


def features_of(spec: Spec, features: Features | None) -> Features:
    """`features`, or where it is None, one-hot vectors of discrete states and flat ones of arrays."""
    if features is not None:
        return features
    space = spec.obs_space
    if isinstance(space, Discrete):
        return lambda obs: jax.nn.one_hot(obs, space.n)
    return jnp.ravel


def no_weights(spec: Spec, features: Features | None) -> Array:
    """Zero for each feature of this environment's observations, float32 `[F]`."""
    obs = jnp.zeros(spec.obs_space.shape, spec.obs_space.dtype)
    return jnp.zeros(jax.eval_shape(features_of(spec, features), obs).shape)


class Window(NamedTuple):
    """The last `n` steps of an episode, the newest last.

    Attributes:
      steps: what was seen in each, leaves `[n, ...]`.
      rewards: float32 `[n]`.
      count: int32 `()`, how many of them, at the end, belong to the running episode.
    """

    steps: PyTree
    rewards: Array
    count: Array


def empty_window(n: int, step: PyTree) -> Window:
    """A window of `n` steps that look like `step`."""
    return Window(
        jax.tree.map(lambda x: jnp.zeros((n, *jnp.shape(x)), jnp.result_type(x)), step), jnp.zeros(n), jnp.int32(0)
    )


def push(window: Window, step: PyTree, reward: Array) -> Window:
    """The window one step later."""
    shifted = lambda old, new: jnp.concatenate([old[1:], jnp.asarray(new, old.dtype)[None]])  # noqa: E731
    count = jnp.minimum(window.count + 1, len(window.rewards))
    return Window(jax.tree.map(shifted, window.steps, step), shifted(window.rewards, reward), count)


def due_returns(window: Window, gamma: Array | float, bootstrap: Array, ended: Array) -> tuple[Array, Array, Window]:
    """The n-step returns of the steps in a window, and which of them are to be learned from now.

    That is the oldest one where the window is full of one episode, and all of them where the episode ended (Sutton and
    Barto 2018, section 7.2).

    Args:
      window: with the newest step in it.
      gamma: the discount.
      bootstrap: the value of the newest step's successor, 0 where that is terminal.
      ended: whether the episode ended, in either way.

    Returns:
      `(returns [n], due [n], window)`, the window empty where the episode ended.
    """
    n = len(window.rewards)
    returns = discounted_returns(window.rewards, jnp.full(n, gamma), bootstrap)
    age = n - jnp.arange(n)  # the newest step's is 1
    due = (age <= window.count) & (ended | (age == n))
    return returns, due, window._replace(count=jnp.where(ended, 0, window.count))


def forget_window(state: PyTree, step: Array) -> PyTree:
    """The `interrupt` of an agent whose state has a `window`: its steps are not learned from."""
    return state._replace(window=state.window._replace(count=jnp.zeros_like(state.window.count)))
