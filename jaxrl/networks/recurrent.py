"""Recurrent cells, and the network of action values that remembers what it has seen."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl import checks
from jaxrl.networks.module import Module
from jaxrl.networks.q_network import DUELING, QNetwork, num_actions
from jaxrl.networks.torsos import ACTIVATIONS, make_torso, orthogonal
from jaxrl.types import Array, Spec

CELLS = {"gru": 1, "lstm": 2}  # how many vectors of `size` units each carries from step to step


def carry_size(cell: str, size: int) -> int:
    """How many numbers a cell of some units carries from step to step; at an episode's start they are all 0."""
    return CELLS[cell] * size


class Recurrent(Module):
    """A recurrent layer over time: `carry [B, C], x [T, B, p] -> carries [T, B, C], h [T, B, size]`.

    Where `fresh [T, B]` is given and true, an episode began with that step, and the carry before it is put back to 0.

    ```
    gru:   r, z = sigmoid(W x + U h + b),  n = tanh(W' x + b' + r * (U' h + c)),  h <- (1 - z) * n + z * h
    lstm:  i, f, o = sigmoid(W x + U h + b + (0, 1, 0)),  g = tanh(W' x + U' h + b'),
           c <- f * c + i * g,  h <- o * tanh(c)
    ```

    Cho et al. (2014), with the reset gate behind the product as in cuDNN; Hochreiter and Schmidhuber (1997), with a
    forget gate that begins open. An LSTM's carry is h and c beside each other. All inputs meet their weights at once,
    and only what depends on h is a step at a time.

    Attributes:
      cell: a key of `CELLS`.
      size: units.
    """

    cell: str = "gru"
    size: int = 64

    @nn.compact
    def __call__(self, carry: Array, x: Array, fresh: Array | None = None) -> tuple[Array, Array]:
        gates = {"gru": 3, "lstm": 4}[self.cell]
        inputs = nn.Dense(gates * self.size, kernel_init=nn.initializers.lecun_normal(), name="inputs")(x)
        kernel = self.param("kernel", orthogonal(1.0), (self.size, gates * self.size))
        reset_bias = self.param("reset_bias", nn.initializers.zeros, (self.size,)) if self.cell == "gru" else 0.0

        def gru(h: Array, x: Array) -> tuple[Array, Array]:
            x_gates, x_new = jnp.split(x, [2 * self.size], axis=-1)
            h_gates, h_new = jnp.split(h @ kernel, [2 * self.size], axis=-1)
            reset, keep = jnp.split(nn.sigmoid(x_gates + h_gates), 2, axis=-1)
            new = jnp.tanh(x_new + reset * (h_new + reset_bias))
            h = (1 - keep) * new + keep * h
            return h, h

        def lstm(carry: Array, x: Array) -> tuple[Array, Array]:
            h, c = jnp.split(carry, 2, axis=-1)
            enter, forget, leave, new = jnp.split(x + h @ kernel, 4, axis=-1)
            c = nn.sigmoid(forget + 1) * c + nn.sigmoid(enter) * jnp.tanh(new)
            carry = jnp.concatenate([nn.sigmoid(leave) * jnp.tanh(c), c], axis=-1)
            return carry, carry

        cell = {"gru": gru, "lstm": lstm}[self.cell]

        def begin_or_go_on(carry: Array, x: tuple[Array, Array]) -> tuple[Array, Array]:
            inputs, fresh = x
            return cell(jnp.where(fresh[:, None], 0.0, carry), inputs)

        scanned: Any = (cell, inputs) if fresh is None else (begin_or_go_on, (inputs, fresh))
        carries = jax.lax.scan(scanned[0], carry, scanned[1])[1]
        return carries, carries[..., : self.size]


class RecurrentQNetwork(Module):
    """Action values of histories: `carry [B, C], obs [T, B, ...], previous [T, B] -> carries [T, B, C], q [T, B, A]`.

    `carries[t]` is the carry after `obs[t]`; `carry` is the one before `obs[0]`. `previous[t]`, int32, is 1 more than
    the action that led to `obs[t]`, and 0 where an episode began with it; the memory sees it as a one-hot vector beside
    the torso's features (Kapturowski et al. 2019).

    Attributes:
      torso: from observations to features `[..., units]`.
      memory: the layer above it.
      head: from that layer's output to action values.
    """

    torso: Module
    memory: Recurrent
    head: QNetwork

    def __call__(self, carry: Array, obs: Array, previous: Array) -> tuple[Array, Array]:
        action = jax.nn.one_hot(previous - 1, self.head.num_actions)  # zeros where there was none
        carries, h = self.memory(carry, jnp.concatenate([self.torso(obs), action], axis=-1))
        return carries, self.head(h)


def make_recurrent_q_network(
    owner: str,
    spec: Spec,
    torso: str,
    hidden_sizes: tuple[int, ...],
    activation: str,
    *,
    cell: str = "gru",
    cell_size: int = 64,
    dueling: str = "none",
) -> RecurrentQNetwork:
    """The recurrent Q-network that fits an environment.

    Args:
      owner: the agent, for the error's text.
      spec: the environment's.
      torso: "mlp", "cnn" or "auto"; see `make_torso`.
      hidden_sizes: units of the fully connected layers before the cell; may be empty.
      activation: a key of `ACTIVATIONS`.
      cell: "gru" or "lstm".
      cell_size: its units.
      dueling: "none", "mean" or "max"; each of the two streams then has a hidden layer of `cell_size` units.

    Raises:
      JaxrlError: if an argument is out of its range, or if the environment's observations or actions do not fit.
    """
    checks.one_of(owner, CELLS, cell=cell)
    checks.one_of(owner, ("none", *DUELING), dueling=dueling)
    checks.one_of(owner, ACTIVATIONS, activation=activation)
    checks.integer(owner, cell_size=cell_size, **{f"hidden_sizes[{i}]": n for i, n in enumerate(hidden_sizes)})
    actions, streams = num_actions(owner, spec), () if dueling == "none" else (cell_size,)
    head = QNetwork(lambda h: h, actions, streams, activation, dueling)
    features = make_torso(owner, spec, torso, tuple(hidden_sizes), activation)()
    return RecurrentQNetwork(features, Recurrent(cell, cell_size), head)
