"""Networks of action values: one number for each action, or a distribution's logits or quantiles."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from jaxrl import checks
from jaxrl.networks.module import Module
from jaxrl.networks.noisy import NoisyDense
from jaxrl.networks.torsos import ACTIVATIONS, make_torso, orthogonal
from jaxrl.types import Array, Discrete, Spec

DUELING = {"mean": jnp.mean, "max": jnp.max}


class QNetwork(Module):
    """Action values: `[..., obs] -> [..., num_actions]`, or `[..., num_actions, outputs]` where there are several.

    With `dueling`, a value stream V and an advantage stream A in place of one stream (Wang et al. 2016):

    ```
    Q(s, a) = V(s) + A(s, a) - max_a' A(s, a')     ("max", eq. 8)
    Q(s, a) = V(s) + A(s, a) - mean_a' A(s, a')    ("mean", eq. 9)
    ```

    Where an action has several outputs, that holds for each of them (Hessel et al. 2018). With `noisy`, the streams'
    layers are `NoisyDense`, and `apply` takes `rngs={"noise": key}` for a draw; without it, it gives the mean.

    Attributes:
      torso: from observations to features `[..., units]`.
      num_actions: how many actions there are.
      stream_sizes: units of each hidden layer of a stream, before its linear output.
      activation: of these, a key of `ACTIVATIONS`.
      dueling: "none", "mean" or "max".
      noisy: whether the streams' weights carry noise.
      outputs: numbers of each action: 1 for its value, else logits of atoms, or quantiles.
    """

    torso: Callable[[Array], Array]
    num_actions: int
    stream_sizes: tuple[int, ...] = ()
    activation: str = "relu"
    dueling: str = "none"
    noisy: bool = False
    outputs: int = 1

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        checks.one_of("QNetwork", ("none", *DUELING), dueling=self.dueling)
        features = self.torso(obs)
        if self.dueling == "none":
            q = self._stream(features, self.num_actions)
        else:
            value = self._stream(features, 1, "value")
            advantage = self._stream(features, self.num_actions, "advantage")
            q = value + advantage - DUELING[self.dueling](advantage, axis=-2, keepdims=True)
        return q.squeeze(-1) if self.outputs == 1 else q

    def _stream(self, x: Array, rows: int, name: str = "") -> Array:
        """Hidden layers, then `[..., rows, outputs]` numbers; the layers have flax's names where `name` is empty."""
        for i, size in enumerate((*self.stream_sizes, rows * self.outputs)):
            hidden = i < len(self.stream_sizes)
            layer_name = f"{name}_{i}" if name else None
            if self.noisy:
                x = NoisyDense(size, name=layer_name)(x)
            else:
                x = nn.Dense(size, kernel_init=orthogonal() if hidden else orthogonal(1.0), name=layer_name)(x)
            if hidden:
                x = ACTIVATIONS[self.activation](x)
        return x.reshape((*x.shape[:-1], rows, self.outputs))


def make_q_network(
    owner: str,
    spec: Spec,
    torso: str,
    hidden_sizes: tuple[int, ...],
    activation: str,
    *,
    dueling: str = "none",
    noisy: bool = False,
    outputs: int = 1,
    layer_norm: bool = False,
) -> QNetwork:
    """The Q-network that fits an environment.

    Where it is dueling or noisy, the last of `hidden_sizes` is the hidden layer of its streams, as in the papers, and
    the torso has the others; with no hidden sizes, the streams are linear.

    Args:
      owner: the agent, for the error's text.
      spec: the environment's.
      torso: "mlp", "cnn" or "auto"; see `make_torso`.
      hidden_sizes: units of the fully connected layers; may be empty.
      activation: a key of `ACTIVATIONS`.
      dueling: "none", "mean" or "max".
      noisy: whether the streams' weights carry noise.
      outputs: numbers of each action, at least 1.
      layer_norm: whether the torso's layers are normalised before their activation.

    Raises:
      JaxrlError: if an argument is out of its range, or if the environment's observations or actions do not fit.
    """
    checks.one_of(owner, ("none", *DUELING), dueling=dueling)
    checks.one_of(owner, ACTIVATIONS, activation=activation)
    checks.integer(owner, outputs=outputs, **{f"hidden_sizes[{i}]": size for i, size in enumerate(hidden_sizes)})
    actions, hidden_sizes = num_actions(owner, spec), tuple(hidden_sizes)
    split = len(hidden_sizes) - 1 if hidden_sizes and (noisy or dueling != "none") else len(hidden_sizes)
    features = make_torso(owner, spec, torso, hidden_sizes[:split], activation, layer_norm=layer_norm)()
    return QNetwork(features, actions, hidden_sizes[split:], activation, dueling, noisy, outputs)


def num_actions(owner: str, spec: Spec) -> int:
    """How many actions there are, for an agent that values each.

    Raises:
      JaxrlError: if they are continuous.
    """
    if not isinstance(spec.action_space, Discrete):
        raise checks.JaxrlError(
            f"{owner}: {spec.id} has continuous actions; it needs discrete ones (discretize_actions=n makes n levels "
            "of a torque), or use sac, naf or ppo"
        )
    return spec.action_space.n
