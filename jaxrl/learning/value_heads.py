"""What an action's outputs say of its return: its mean, its probability on some atoms, or its quantiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl.losses import categorical_projection, quantile_huber_loss
from jaxrl.types import Array

LOSSES = {"huber": optax.huber_loss, "squared": optax.l2_loss}


class ValueHead(NamedTuple):
    """One way to represent returns. `K` numbers describe one of them; with `K = 1` that axis is left out.

    Attributes:
      outputs: `K`.
      mean: `mean(outputs) -> values`: `[..., K] -> [...]`.
      target: `target(next_outputs, reward, discount) -> target`: of reward + discount * what the next outputs describe;
        `[B, K], [B], [B] -> [B, K]`.
      loss: `loss(outputs, target) -> (loss, error)`, `[B]` each; the error is what a replay takes priorities from.
    """

    outputs: int
    mean: Callable[[Array], Array]
    target: Callable[[Array, Array, Array], Array]
    loss: Callable[[Array, Array], tuple[Array, Array]]


def expectation(loss: str) -> ValueHead:
    """The expected return, as in DQN, with a key of `LOSSES`; the error is the temporal difference."""

    def value_loss(values: Array, target: Array) -> tuple[Array, Array]:
        return LOSSES[loss](values, target), values - target

    return ValueHead(1, lambda x: x, lambda next_values, reward, discount: reward + discount * next_values, value_loss)


def categorical(atoms: int, v_min: Array | float, v_max: Array | float) -> ValueHead:
    """Logits of probabilities on evenly spaced returns: C51 (Bellemare et al. 2017, algorithm 1).

    The loss is the cross-entropy, and the error the Kullback-Leibler divergence (Hessel et al. 2018).
    """
    support = jnp.linspace(v_min, v_max, atoms)

    def target(next_logits: Array, reward: Array, discount: Array) -> Array:
        moved = reward[:, None] + discount[:, None] * support  # [B, atoms]
        return categorical_projection(jax.nn.softmax(next_logits), moved, support)

    def loss(logits: Array, target: Array) -> tuple[Array, Array]:
        cross_entropy = -jnp.sum(target * jax.nn.log_softmax(logits), axis=-1)
        entropy = jnp.sum(jax.scipy.special.entr(target), axis=-1)
        return cross_entropy, cross_entropy - entropy

    return ValueHead(atoms, lambda logits: jnp.sum(jax.nn.softmax(logits) * support, axis=-1), target, loss)


def quantile(quantiles: int) -> ValueHead:
    """Quantiles of the return, at the middles of equal parts of [0, 1]: QR-DQN (Dabney et al. 2018, equation 10).

    The error is the mean absolute difference of target and quantiles.
    """

    def target(next_quantiles: Array, reward: Array, discount: Array) -> Array:
        return reward[:, None] + discount[:, None] * next_quantiles

    def loss(values: Array, target: Array) -> tuple[Array, Array]:
        distance = jnp.abs(target - values).mean(axis=-1)
        return quantile_huber_loss(values, target), distance

    return ValueHead(quantiles, lambda values: values.mean(axis=-1), target, loss)
