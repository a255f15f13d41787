"""What DDPG, TD3 and the SACs share: gradient steps of several networks, ensembles of critics, exploring at first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import optax

from jaxrl import checks
from jaxrl.learning.action_scale import to_action_space
from jaxrl.learning.experience import Learner
from jaxrl.networks import greedy
from jaxrl.networks.actor_critic import check_network
from jaxrl.types import Array, Key, PyTree, Space, Spec


def check_networks(
    owner: str,
    hidden_sizes: tuple[int, ...],
    activation: str,
    *,
    tau: Array | float,
    layer_norm: bool,
    **counts_and_rates: Any,
):
    """Checks the arguments that the networks and their gradient steps have in common.

    Args:
      owner: the agent.
      hidden_sizes: units of each layer.
      activation: of these.
      tau: how far targets move.
      layer_norm: True or False.
      **counts_and_rates: more, of which those called `..._rate` are numbers above 0 and the others whole numbers of at
        least 1.

    Raises:
      JaxrlError: naming the argument, its value and what is accepted.
    """
    check_network(owner, hidden_sizes, activation)
    if not hidden_sizes:
        raise checks.JaxrlError(f"{owner}: hidden_sizes=() is not accepted; it must hold one layer at least")
    checks.number(owner, 0, 1, open_low=True, tau=tau)
    checks.one_of(owner, (False, True), layer_norm=layer_norm)
    rates = {name: value for name, value in counts_and_rates.items() if name.endswith("_rate")}
    checks.number(owner, 0, open_low=True, **rates)
    checks.integer(owner, **{name: value for name, value in counts_and_rates.items() if name not in rates})


def examples(spec: Spec) -> tuple[Array, Array]:
    """Zeros like one observation and one action, `[1, ...]`."""
    obs, action = (jnp.zeros((1, *space.shape), space.dtype) for space in (spec.obs_space, spec.action_space))
    return obs, action


def first_learner(params: Any, targets: PyTree, optimizers: Any) -> Learner:
    """The learner before the first gradient step.

    Args:
      params: of the networks, a record of the agent's.
      targets: those of them that have target networks, which begin as copies.
      optimizers: of the networks, in a record of the same type.
    """
    opt_state = type(params)(*(o.init(p) for o, p in zip(optimizers, params, strict=True)))
    return Learner(params, jax.tree.map(jnp.copy, targets), opt_state)


def some_critics(key: Key, params: PyTree, n: int) -> PyTree:
    """The parameters of n of an ensemble's critics, drawn without replacement; 0 is all of them."""
    if not n:
        return params
    drawn = jax.random.permutation(key, len(jax.tree.leaves(params)[0]))[:n]
    return jax.tree.map(lambda x: x[drawn], params)


def explore_at_first(key: Key, action: Array, step: Array, warmup_steps: int) -> Array:
    """During the warm-up actions are drawn uniformly from [-1, 1], whatever the policy chose; `[N, A]`."""
    drawn = jax.random.uniform(key, action.shape, minval=-1.0, maxval=1.0)
    return jnp.where(step < warmup_steps, drawn, action)


def draw_action(
    policy: distrax.Transformed, space: Space, key: Key, step: Array, warmup_steps: int, explore: bool
) -> Array:
    """The action of a squashed Gaussian, `[N, *space.shape]`: drawn, or that of its mean where `explore` is False."""
    if not explore:
        return to_action_space(greedy(policy), space)
    policy_key, uniform_key = jax.random.split(key)
    action = explore_at_first(uniform_key, policy.sample(seed=policy_key), step, warmup_steps)
    return to_action_space(action, space)


def descend(
    name: str, loss: Callable[[PyTree], tuple[Array, Any]], optimizers: Any, params: Any, opt_state: Any
) -> tuple[Any, Any, Array, Any]:
    """One gradient step of one of several networks; the others stay as they are.

    Args:
      name: which; a field of the three records.
      loss: of its parameters, with what else is to be returned.
      optimizers: of the networks.
      params: of the networks.
      opt_state: of the optimisers.

    Returns:
      `params` and `opt_state` after it, the loss, and what else it returned.
    """
    before = getattr(params, name)
    (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(before)
    updates, state = getattr(optimizers, name).update(grads, getattr(opt_state, name), before)
    after = optax.apply_updates(before, updates)
    return params._replace(**{name: after}), opt_state._replace(**{name: state}), value, aux


def every(period: int, count: Array, function: Callable[[], PyTree], otherwise: PyTree) -> PyTree:
    """What a function returns at every `period`-th gradient step, and something else between; a branch under `vmap`."""
    return function() if period == 1 else jax.lax.cond((count + 1) % period == 0, function, lambda: otherwise)


def follow(period: int, count: Array, params: PyTree, target: PyTree, tau: Array | float) -> PyTree:
    """The target parameters, at every `period`-th gradient step moved by `tau` of the way to the online ones."""
    return every(period, count, lambda: optax.incremental_update(params, target, tau), target)


def squared_errors(q: Array, target: Array, weights: Array) -> tuple[Array, Array]:
    """The loss of an ensemble of critics, 1/2 sum_i E[w (Q_i - y)^2], and each transition's mean absolute error.

    Absolute, so that a transition on which the critics err to both sides is not taken for one that they know.

    Args:
      q: `[n, B]`.
      target: y, `[B]`.
      weights: `[B]`.
    """
    errors = q - target
    return 0.5 * jnp.mean(weights * jnp.sum(jnp.square(errors), axis=0)), jnp.abs(errors).mean(axis=0)
