"""What off-policy agents with an actor need: ensembles of critics as one network, and policies between bounds."""

from __future__ import annotations

from collections.abc import Callable

import distrax
import flax.linen as nn
import jax.numpy as jnp

from jaxrl.networks.module import Module
from jaxrl.networks.q_network import QNetwork, make_q_network
from jaxrl.networks.torsos import MLP, make_torso, orthogonal
from jaxrl.types import Array, Spec

LOG_STD_BOUNDS = (-20.0, 2.0)  # Haarnoja et al. (2018), in their code


class Critic(Module):
    """The value of an action: `obs [..., *obs], action [..., A] -> [...]`.

    Attributes:
      encoder: from observations to features; where they are no images, an MLP without layers hands on their numbers.
      torso: from features and action, joined, to `[..., units]`.
    """

    encoder: Module
    torso: MLP

    @nn.compact
    def __call__(self, obs: Array, action: Array) -> Array:
        hidden = self.torso(jnp.concatenate([self.encoder(obs), action], axis=-1))
        return nn.Dense(1, kernel_init=orthogonal(1.0), name="output")(hidden)[..., 0]


class TanhPolicy(Module):
    """One action for each observation: `[..., *obs] -> [..., A]`, in (-1, 1).

    Attributes:
      torso: from observations to `[..., units]`.
      action_size: A.
    """

    torso: Module
    action_size: int

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        return jnp.tanh(nn.Dense(self.action_size, kernel_init=orthogonal(0.01), name="output")(self.torso(obs)))


class SquashedGaussian(Module):
    """A distribution over actions in (-1, 1): `[..., *obs]` to tanh of a diagonal Gaussian that depends on the state.

    log pi(a | s) = log N(u | s) - sum_i log(1 - tanh(u_i)^2) with a = tanh(u) (Haarnoja et al. 2018, equation 26);
    the logarithm is computed as 2 (log 2 - u - softplus(-2 u)), which holds near the bounds, too.

    Attributes:
      torso: from observations to `[..., units]`.
      action_size: A.
    """

    torso: Module
    action_size: int

    @nn.compact
    def __call__(self, obs: Array) -> distrax.Transformed:
        output = nn.Dense(2 * self.action_size, kernel_init=orthogonal(0.01), name="output")(self.torso(obs))
        mean, log_std = jnp.split(output, 2, axis=-1)
        return squashed_gaussian(mean, jnp.exp(jnp.clip(log_std, *LOG_STD_BOUNDS)))


def squashed_gaussian(mean: Array, std: Array) -> distrax.Transformed:
    """The distribution of tanh(u), u drawn from N(mean, std^2) in each dimension, `[..., A]`."""
    return distrax.Transformed(distrax.MultivariateNormalDiag(mean, std), distrax.Block(distrax.Tanh(), 1))


def greedy(policy: distrax.Transformed) -> Array:
    """tanh of the Gaussian's mean, `[..., A]`: each number's median, and what is done when exploiting."""
    return jnp.tanh(policy.distribution.mean())


def make_critics(
    owner: str,
    spec: Spec,
    torso: str,
    hidden_sizes: tuple[int, ...],
    activation: str,
    *,
    layer_norm: bool = False,
    dropout: Array | float = 0.0,
) -> Callable[[int], Module]:
    """Ensembles of critics that fit an environment, each ensemble one batched network.

    Args:
      owner: the agent, for the error's text.
      spec: the environment's.
      torso: "mlp", "cnn" or "auto"; see `make_torso`. Before the action joins, it makes features of images.
      hidden_sizes: units of the fully connected layers.
      activation: a key of `ACTIVATIONS`.
      layer_norm: whether each layer is normalised before its activation.
      dropout: how much of the output of each layer that sees the action is dropped, where `apply` has
        `rngs={"dropout": key}`.

    Returns:
      `critics(n)`: the ensemble of n, `obs [..., *obs], action [..., A] -> [n, ...]`; all parameters have n first.

    Raises:
      JaxrlError: if the environment's observations do not fit.
    """
    encoder = make_torso(owner, spec, torso, hidden_sizes, activation, layer_norm=layer_norm)
    joined_sizes = hidden_sizes[-1:]
    if isinstance(encoder(), MLP):
        encoder, joined_sizes = make_torso(owner, spec, "mlp", (), activation), hidden_sizes

    def critics(n: int) -> Module:
        return ensemble(Critic, n)(encoder(), MLP(joined_sizes, activation, 1, layer_norm, dropout))

    return critics


def make_discrete_critics(
    owner: str,
    spec: Spec,
    torso: str,
    hidden_sizes: tuple[int, ...],
    activation: str,
    *,
    layer_norm: bool = False,
) -> Callable[[int], Module]:
    """Ensembles of critics that give the values of all discrete actions, each ensemble one batched network.

    Args:
      owner: the agent, for the error's text.
      spec: the environment's.
      torso: "mlp", "cnn" or "auto"; see `make_torso`.
      hidden_sizes: units of the fully connected layers.
      activation: a key of `ACTIVATIONS`.
      layer_norm: whether each layer is normalised before its activation.

    Returns:
      `critics(n)`: the ensemble of n, `obs [..., *obs] -> [n, ..., num_actions]`; all parameters have n first.

    Raises:
      JaxrlError: if the environment's observations or actions do not fit.
    """
    one = make_q_network(owner, spec, torso, hidden_sizes, activation, layer_norm=layer_norm)
    return lambda n: ensemble(QNetwork, n)(one.torso, one.num_actions)


def ensemble(network: type[Module], n: int) -> Callable[..., Module]:
    """A constructor of n networks that are one: the same inputs, and parameters and outputs with n first."""
    return nn.vmap(
        network,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=None,  # pyright: ignore[reportArgumentType]  # which flax's type leaves out
        out_axes=0,
        axis_size=n,
    )
