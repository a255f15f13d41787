"""How much entropy is worth beside reward: learnt, learnt for each state, or given by a schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from jaxrl import checks
from jaxrl.networks import Value
from jaxrl.networks.module import Module
from jaxrl.types import Array, Key, PyTree

MODES = ("auto", "state", "fixed")


class Temperature(NamedTuple):
    """Three pure functions.

    Attributes:
      init: `init(key, obs) -> params`, `obs` being of one state or more; `()` where nothing is learnt.
      value: `value(params, obs, step) -> alpha`, `[...]` or `()`, above 0.
      loss: `loss(params, obs, step, entropy) -> ()`, which falls where entropies `[B]` below the target raise alpha.
    """

    init: Callable[[Key, Array], PyTree]
    value: Callable[[PyTree, Array, Array], Array]
    loss: Callable[[PyTree, Array, Array, Array], Array]


def make_temperature(
    owner: str,
    mode: str,
    first: Array | float,
    last: Array | float,
    steps: int,
    target_entropy: Array | float,
    torso: Callable[[], Module],
) -> Temperature:
    """The temperature alpha, by how it comes about.

    What is learnt goes down J(alpha) = E[alpha (H(pi(. | s)) - target)] (Haarnoja et al. 2018b, equation 18), by the
    logarithm of alpha, a number or a network's output.

    Args:
      owner: the agent, for the error's text.
      mode: auto (one number is learnt), state (a function of the state is learnt) or fixed (a linear schedule).
      first: alpha at the first step, > 0.
      last: where the schedule ends, >= 0; 0 keeps alpha as it is at first.
      steps: environment steps that the schedule takes, at least 1.
      target_entropy: where what is learnt comes to rest.
      torso: a constructor of what is between the state and a number that depends on it.

    Raises:
      JaxrlError: where an argument is out of its range.
    """
    check_temperature(owner, mode, first, last, steps)

    def init(key: Key, obs: Array) -> PyTree:
        if mode == "state":
            return Value(torso()).init(key, obs)
        return jnp.log(jnp.asarray(first, jnp.float32)) if mode == "auto" else ()

    def value(params: PyTree, obs: Array, step: Array) -> Array:
        if mode == "state":
            return first * jnp.exp(Value(torso()).apply(params, obs))
        if mode == "auto":
            return jnp.exp(params)
        return first + jnp.minimum(step / steps, 1.0) * (jnp.where(last > 0, last, first) - first)

    def loss(params: PyTree, obs: Array, step: Array, entropy: Array) -> Array:
        return jnp.mean(value(params, obs, step) * (entropy - target_entropy))

    return Temperature(init, value, loss)


def check_temperature(owner: str, mode: str, first: Array | float, last: Array | float, steps: int):
    """Checks those arguments of `make_temperature` that do not wait for the environment.

    Raises:
      JaxrlError: naming the argument, its value and what is accepted.
    """
    checks.one_of(owner, MODES, temperature=mode)
    checks.number(owner, 0, open_low=True, initial_temperature=first)
    checks.number(owner, 0, final_temperature=last)
    checks.integer(owner, temperature_steps=steps)
