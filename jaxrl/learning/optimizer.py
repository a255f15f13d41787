"""Gradient steps: the optimisers that agents offer by name, with a clipped gradient and a decaying learning rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import checks
from jaxrl.types import Array, PyTree

DIRECTIONS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adam": lambda: optax.scale_by_adam(eps=1e-5),
    "radam": optax.scale_by_radam,
    "rmsprop": lambda: optax.scale_by_rms(decay=0.99, eps=1e-5),
    "sgd": lambda: optax.trace(decay=0.9),
}
CHOICES = ("adam", "rmsprop", "sgd")  # what agents that leave it open accept


class Optimizer(NamedTuple):
    """Two pure functions; descending.

    Attributes:
      init: `init(params) -> opt_state`.
      step: `step(params, opt_state, grads, step) -> (params, opt_state)`, one gradient step at an environment step.
    """

    init: Callable[[PyTree], PyTree]
    step: Callable[[PyTree, PyTree, PyTree, Array], tuple[PyTree, PyTree]]


def annealed(step: Array, anneal_steps: int) -> Array | float:
    """What is left of the learning rate at an environment step: 1 at first, 0 after `anneal_steps`; 0 of them keep it.

    >>> float(annealed(25, 100)), annealed(25, 0)
    (0.75, 1.0)
    """
    return jnp.maximum(0.0, 1.0 - step / anneal_steps) if anneal_steps else 1.0


def make_optimizer(
    owner: str,
    name: str,
    learning_rate: Array | float,
    max_grad_norm: Array | float,
    anneal_steps: int = 0,
    accepted: tuple[str, ...] = CHOICES,
) -> Optimizer:
    """An optimiser that clips the gradient by its global norm first.

    Args:
      owner: the agent, for the error's text.
      name: adam, radam, rmsprop or sgd, that with a momentum of 0.9.
      learning_rate: step size, > 0; may be a tracer.
      max_grad_norm: > 0; may be a tracer.
      anneal_steps: environment steps over which the learning rate falls linearly to 0; 0 keeps it constant.
      accepted: the names that the owner offers.

    Raises:
      JaxrlError: if an argument is out of its range.
    """
    checks.one_of(owner, accepted, optimizer=name)
    checks.number(owner, 0, open_low=True, learning_rate=learning_rate, max_grad_norm=max_grad_norm)
    checks.integer(owner, 0, anneal_steps=anneal_steps)
    transformation = optax.chain(optax.clip_by_global_norm(max_grad_norm), DIRECTIONS[name]())

    def step_(params: PyTree, opt_state: PyTree, grads: PyTree, step: Array) -> tuple[PyTree, PyTree]:
        direction, opt_state = transformation.update(grads, opt_state, params)
        size = learning_rate * annealed(step, anneal_steps)
        return jax.tree.map(lambda p, d: p - size * d, params, direction), opt_state

    return Optimizer(transformation.init, step_)
