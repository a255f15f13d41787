"""What DQN, NAF and R2D2 share: one network of values, regressed to targets, and a slower copy that gives these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import checks
from jaxrl.learning.experience import Experience, Learner, Moment, ReplayState
from jaxrl.learning.optimizer import annealed
from jaxrl.types import Array, Key, Metrics, PyTree, Spec, Transition


class Loss(NamedTuple):
    """What a loss reports of a batch.

    Attributes:
      loss: float32 `[B]`, before the importance weights.
      errors: float32 `[B]`, what the replay takes priorities from.
      metrics: float scalars.
    """

    loss: Array
    errors: Array
    metrics: Metrics


def clipped_adam(
    owner: str, learning_rate: Array | float, max_grad_norm: Array | float
) -> optax.GradientTransformation:
    """Adam on gradients that are clipped to a global norm; raises a `JaxrlError` where either is not above 0."""
    checks.number(owner, 0, open_low=True, learning_rate=learning_rate, max_grad_norm=max_grad_norm)
    return optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.adam(learning_rate))


def init_state(
    experience: Experience,
    params: PyTree,
    spec: Spec,
    optimizer: optax.GradientTransformation,
    extras: dict[str, Array] | None = None,
) -> ReplayState:
    """The state before the first step.

    Args:
      experience: what will be remembered.
      params: of the network.
      spec: the environment's.
      optimizer: of the parameters.
      extras: examples of what `act` reports and the replay is to keep, of one environment.
    """
    return experience.init(Learner(params, jax.tree.map(jnp.copy, params), optimizer.init(params)), spec, extras)


def regress_to_targets(
    experience: Experience,
    *,
    optimizer: optax.GradientTransformation,
    target: Callable[[PyTree, PyTree, Any, Spec, Key], Any],
    loss: Callable[[PyTree, Any, Any, Spec, Key], Loss],
    metrics: tuple[str, ...],
    target_update_every: int,
    tau: Array | float,
    target_network: bool = True,
    anneal_steps: int = 0,
    **sampling: Any,
) -> Callable[[ReplayState, Transition, Key, Array], tuple[ReplayState, Metrics]]:
    """The `update` of an agent that keeps its experience in a replay and regresses one network to targets.

    After the warm-up each gradient step samples a batch, computes its targets, and takes a step of the optimiser down
    the mean of the losses, weighted by importance. Then the target network moves, where that is due.

    Args:
      experience: what is learnt from, and when.
      optimizer: of the parameters.
      target: `target(params, target_params, batch, spec, key)`, what the loss takes for constant.
      loss: `loss(params, batch, target, spec, key) -> Loss`.
      metrics: the names that the loss reports; they are 0 during the warm-up.
      target_update_every: environment steps between updates of the target network.
      tau: how far each of these moves the target towards the online network; 1 copies it.
      target_network: whether there is one; if not, the online network takes its place.
      anneal_steps: environment steps over which the steps of the optimiser shrink linearly to nothing; 0 keeps them.
      **sampling: `prepare`, `length` and `extras` of `Experience.make_update`.

    Raises:
      JaxrlError: where an argument is out of its range.
    """
    checks.number(experience.owner, 0, 1, open_low=True, tau=tau)
    checks.integer(experience.owner, target_update_every=target_update_every)
    checks.integer(experience.owner, 0, anneal_steps=anneal_steps)

    def move(params: PyTree, target_params: PyTree, moment: Moment) -> PyTree:
        """The target parameters after a gradient step, in which as many moves are due as periods end with it."""
        due = moment.end // target_update_every - moment.begin // target_update_every
        moved = jnp.where(due == 1, tau, 1.0 - (1.0 - tau) ** due)  # by several moves; exactly tau by one
        return jax.lax.cond(
            due > 0, lambda: optax.incremental_update(params, target_params, moved), lambda: target_params
        )

    def gradient_step(spec: Spec, learner: Learner, batch: Any, weights: Array, key: Key, moment: Moment):
        params, target_params, opt_state = learner
        target_key, loss_key = jax.random.split(key)
        bootstrap_params = target_params if target_network else params
        goal = jax.lax.stop_gradient(target(params, bootstrap_params, batch, spec, target_key))
        # First the target, then the rest: neither network's activations are in memory together with the other's.
        goal, params = jax.lax.optimization_barrier((goal, params))

        def weighted(params: PyTree) -> tuple[Array, Loss]:
            out = loss(params, batch, goal, spec, loss_key)
            return jnp.mean(weights * out.loss), out

        (value, out), grads = jax.value_and_grad(weighted, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        if anneal_steps:
            updates = jax.tree.map(lambda u: annealed(moment.begin, anneal_steps) * u, updates)
        params = optax.apply_updates(params, updates)
        if target_network:
            target_params = move(params, target_params, moment)
        return Learner(params, target_params, opt_state), out.errors, {"loss": value, **out.metrics}

    return experience.make_update(gradient_step, ("loss", *metrics), **sampling)
