"""What ACER makes of states and actions: a policy's statistics, and a critic that knows V and Q at once.

A policy is a `distrax.Distribution`; it is annotated `Any`, as the types of that library do not tell its parts.
"""

from __future__ import annotations

from typing import Any

import distrax
import flax.linen as nn
import jax.numpy as jnp

from jaxrl.losses import take
from jaxrl.networks.module import Module
from jaxrl.networks.torsos import ACTIVATIONS, make_torso, orthogonal
from jaxrl.types import Array, Discrete, Key, Space, Spec


def statistics(policy: Any) -> Array:
    """phi, all that a policy is given by; the inverse of `distribution`.

    Log-probabilities `[..., n]` of discrete actions, mean and log standard deviation `[..., 2 d]` of continuous ones.
    """
    if isinstance(policy, distrax.Categorical):
        return policy.logits  # pyright: ignore[reportReturnType]  # distrax's arrays are those of JAX
    return jnp.concatenate([policy.loc, jnp.log(policy.scale_diag)], axis=-1)


def distribution(phi: Array, action_space: Space) -> Any:
    """f(. | phi): the policy with these statistics; a categorical's need not be normalised."""
    if isinstance(action_space, Discrete):
        return distrax.Categorical(logits=phi)
    mean, log_std = jnp.split(phi, 2, axis=-1)
    return distrax.MultivariateNormalDiag(mean, jnp.exp(log_std))


def draw(key: Key, policy: Any, num_samples: int) -> tuple[Array, Array, Array]:
    """Actions for expectations under a policy, each `[..., *action]`.

    Of discrete actions these are all of them, of continuous ones, drawn.

    Args:
      key: not used where actions are discrete.
      policy: over the actions in each state, `[...]`.
      num_samples: n.

    Returns:
      M actions, `[M, ...]`, one where they are drawn; their weights in an expectation, `[M, ...]`; and n more drawn
      actions for the stochastic dueling network, `[n, ...]`, none where actions are discrete.
    """
    if isinstance(policy, distrax.Categorical):
        probs = jnp.moveaxis(policy.probs, -1, 0)
        actions = jnp.broadcast_to(jnp.arange(len(probs)).reshape(-1, *(1,) * (probs.ndim - 1)), probs.shape)
        return actions, probs, actions[:0]
    drawn = policy.sample(seed=key, sample_shape=(1 + num_samples,))
    return drawn[:1], jnp.ones(drawn[:1].shape[:-1]), drawn[1:]


def stochastic_dueling(value: Array, advantages: Array, sampled: Array) -> Array:
    """Q(x, a) = V(x) + A(x, a) - mean_i A(x, u_i), with u_i drawn from the policy (Wang et al. 2017, equation 13).

    Its mean over the policy's actions, and over the u_i, is V(x), whatever A is.

    Args:
      value: V, `[...]`.
      advantages: A of M actions, `[M, ...]`.
      sampled: A of n actions drawn from the policy, `[n, ...]`.

    Returns:
      Q of the M actions, `[M, ...]`.

    >>> stochastic_dueling(jnp.float32(10), jnp.array([1.0, 4.0]), jnp.array([2.0, 4.0])).tolist()
    [8.0, 11.0]
    """
    return value + advantages - sampled.mean(axis=0)


class Critic(Module):
    """V(x), and Q(x, a) of several actions.

    Of discrete actions there is a Q each, and V is their mean under the policy. Of continuous ones, there are a V and a
    network for A, of which `stochastic_dueling` makes Q. What lies beyond [-1, 1] is cut off first where the bounds are
    finite, as the environment cuts it off.

    Attributes:
      torso: from observations to features `[..., units]`.
      action_space: discrete, or a box of vectors.
      units: of the layer in which features and continuous actions meet.
      activation: of that layer, a key of `ACTIVATIONS`.
    """

    torso: Module
    action_space: Space
    units: int = 64
    activation: str = "tanh"

    def setup(self):
        if isinstance(self.action_space, Discrete):
            self.q_head = nn.Dense(self.action_space.n, kernel_init=orthogonal(1.0))
        else:
            self.value_head = nn.Dense(1, kernel_init=orthogonal(1.0))
            self.from_features = nn.Dense(self.units, kernel_init=orthogonal())
            self.from_action = nn.Dense(self.units, kernel_init=orthogonal(), use_bias=False)
            self.advantage_head = nn.Dense(1, kernel_init=orthogonal(1.0))

    def __call__(self, obs: Array, policy: Any, actions: Array, samples: Array) -> tuple[Array, Array]:
        """V `[...]` and Q `[M, ...]`.

        Args:
          obs: `[..., *obs]`.
          policy: over the actions in each of these.
          actions: those to value, `[M, ...]`, or `[M, ..., d]`.
          samples: drawn from the policy, `[n, ..., d]`; does not count where actions are discrete.
        """
        features = self.torso(obs)
        if isinstance(self.action_space, Discrete):
            q = self.q_head(features)
            return jnp.sum(policy.probs * q, axis=-1), take(jnp.broadcast_to(q, (*actions.shape, q.shape[-1])), actions)
        value = self.value_head(features)[..., 0]
        both = jnp.concatenate([actions, samples])
        if self.action_space.bounded:
            both = jnp.clip(both, -1.0, 1.0)
        hidden = ACTIVATIONS[self.activation](self.from_features(features) + self.from_action(both))
        advantages = self.advantage_head(hidden)[..., 0]
        return value, stochastic_dueling(value, advantages[: len(actions)], advantages[len(actions) :])

    def value(self, obs: Array, policy: Any) -> Array:
        """V alone, `[...]`."""
        features = self.torso(obs)
        if isinstance(self.action_space, Discrete):
            return jnp.sum(policy.probs * self.q_head(features), axis=-1)
        return self.value_head(features)[..., 0]


def make_critic(owner: str, spec: Spec, torso: str, hidden_sizes: tuple[int, ...], activation: str) -> Critic:
    """The critic that fits an environment; arguments and errors as in `make_torso`."""
    features = make_torso(owner, spec, torso, hidden_sizes, activation)()
    return Critic(features, spec.action_space, max((*hidden_sizes[-1:], 1)), activation)
