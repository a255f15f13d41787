"""Policies and state values: distributions over actions, alone or beside a critic, with a memory or without."""

from __future__ import annotations

import distrax
import flax.linen as nn
import jax.numpy as jnp

from jaxrl import checks
from jaxrl.networks.module import Module
from jaxrl.networks.recurrent import CELLS, Recurrent, carry_size
from jaxrl.networks.torsos import ACTIVATIONS, make_torso, orthogonal
from jaxrl.types import Array, Box, Discrete, PyTree, Space, Spec


class PolicyHead(Module):
    """From features `[..., units]` to a distribution over actions.

    Discrete actions are categorical, continuous ones a diagonal Gaussian whose standard deviation does not depend on
    the state.

    Attributes:
      action_space: discrete, or a box of vectors.
      log_std: what the logarithm of each standard deviation begins with.
    """

    action_space: Space
    log_std: float = 0.0

    @nn.compact
    def __call__(self, features: Array) -> distrax.Distribution:
        space = self.action_space
        discrete = isinstance(space, Discrete)
        size = space.n if discrete else space.shape[0]
        output = nn.Dense(size, kernel_init=orthogonal(0.01), name="output")(features)
        if discrete:
            return distrax.Categorical(logits=output)
        log_std = self.param("log_std", nn.initializers.constant(self.log_std), (size,))
        return distrax.MultivariateNormalDiag(output, jnp.broadcast_to(jnp.exp(log_std), output.shape))


class Policy(Module):
    """A policy without a critic: observations `[..., *obs]` to a distribution."""

    torso: Module
    head: PolicyHead

    def __call__(self, obs: Array) -> distrax.Distribution:
        return self.head(self.torso(obs))


class Value(Module):
    """State values alone: observations `[..., *obs] -> [...]`."""

    torso: Module

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        return nn.Dense(1, kernel_init=orthogonal(1.0), name="value_head")(self.torso(obs))[..., 0]


class ActorCritic(Module):
    """A policy and a state value, on one torso or on one each, behind a recurrent layer each where they remember.

    With a memory, time is the first axis: observations `[T, N, *obs]`, the carry `[N, C]` before the first of them, and
    `fresh[t]` where an episode began with step `t`, before which the carry is put back to 0. Without one, `memory` is
    `()`, `fresh` does not count, and any leading axes will do.

    Attributes:
      torso: of the policy, and of the value unless that has its own.
      critic_torso: None to share.
      head: of the policy.
      cell: the policy's recurrent layer, or None.
      critic_cell: the value's; None to share, or where nothing is remembered.
    """

    torso: Module
    critic_torso: Module | None
    head: PolicyHead
    cell: Recurrent | None = None
    critic_cell: Recurrent | None = None

    def setup(self):
        self.value_head = nn.Dense(1, kernel_init=orthogonal(1.0))

    def __call__(
        self, obs: Array, memory: PyTree = (), fresh: Array | None = None
    ) -> tuple[distrax.Distribution, Array]:
        """Policies and values of observations."""
        _, features, value_features = self._features(obs, memory, fresh)
        return self.head(features), self.value_head(value_features)[..., 0]

    def act(self, obs: Array, memory: PyTree = ()) -> tuple[PyTree, distrax.Distribution]:
        """The memory after one observation of each environment, `[N, *obs]`, and the policies."""
        if self.cell is None:
            return memory, self.head(self.torso(obs))
        carries, features, _ = self._features(obs[None], memory, None)
        return carries[0], self.head(features[0])

    def value(self, obs: Array) -> Array:
        """Values, where nothing is remembered."""
        return self.value_head((self.critic_torso or self.torso)(obs))[..., 0]

    def values(
        self, obs: Array, next_obs: Array, memory: PyTree = (), fresh: Array | None = None
    ) -> tuple[Array, Array]:
        """Values of a trajectory's observations, and of their true successors, `[T, N]` each."""
        if self.cell is None:
            values, next_values = self.value(jnp.stack([obs, next_obs]))
            return values, next_values
        carries, _, features = self._features(obs, memory, fresh)
        flat = lambda x: x.reshape(1, -1, *x.shape[2:])  # noqa: E731
        _, _, next_features = self._features(flat(next_obs), flat(carries)[0], None)
        values, next_values = self.value_head(features), self.value_head(next_features)
        return values[..., 0], next_values.reshape(values.shape[:-1])

    def _features(self, obs: Array, memory: PyTree, fresh: Array | None) -> tuple[PyTree, Array, Array]:
        """Carries after each step, and what the two heads see."""
        features = self.torso(obs)
        value_features = features if self.critic_torso is None else self.critic_torso(obs)
        if self.cell is None:
            return memory, features, value_features
        if self.critic_cell is None:
            carries, features = self.cell(memory, features, fresh)
            return carries, features, features
        actor, critic = jnp.split(memory, 2, axis=-1)
        actor, features = self.cell(actor, features, fresh)
        critic, value_features = self.critic_cell(critic, value_features, fresh)
        return jnp.concatenate([actor, critic], axis=-1), features, value_features


def check_policy(owner: str, spec: Spec):
    """Checks that a policy can act in an environment.

    Raises:
      JaxrlError: if its actions are continuous, but not vectors, or hold no number.
    """
    space = spec.action_space
    if isinstance(space, Box) and (len(space.shape) != 1 or 0 in space.shape):
        raise checks.JaxrlError(
            f"{owner}: {spec.id} has actions of shape {space.shape}; it needs vectors, of one number or more"
        )


def check_network(owner: str, hidden_sizes: tuple[int, ...], activation: str, cell: str = "none", cell_size: int = 1):
    """Checks the arguments of a network's shape.

    Raises:
      JaxrlError: naming the first that is out of its range.
    """
    checks.integer(owner, cell_size=cell_size, **{f"hidden_sizes[{i}]": n for i, n in enumerate(hidden_sizes)})
    checks.one_of(owner, ACTIVATIONS, activation=activation)
    checks.one_of(owner, ("none", *CELLS), cell=cell)


def memory_size(shared_torso: bool, cell: str, cell_size: int) -> int:
    """How many numbers an `ActorCritic` carries from step to step."""
    return carry_size(cell, cell_size) * (1 if shared_torso else 2)


def make_actor_critic(
    owner: str,
    spec: Spec,
    torso: str,
    hidden_sizes: tuple[int, ...],
    activation: str,
    *,
    shared_torso: bool = False,
    cell: str = "none",
    cell_size: int = 64,
) -> ActorCritic:
    """The actor-critic that fits an environment.

    Args:
      owner: the agent, for the error's text.
      spec: the environment's.
      torso: "mlp", "cnn" or "auto"; see `make_torso`.
      hidden_sizes: units of the fully connected layers.
      activation: a key of `ACTIVATIONS`.
      shared_torso: whether policy and value share all but their last layers.
      cell: "gru", "lstm", or "none" for no memory.
      cell_size: its units.

    Raises:
      JaxrlError: if the environment's observations or actions do not fit.
    """
    check_policy(owner, spec)
    new_torso = make_torso(owner, spec, torso, hidden_sizes, activation)
    new_cell = (lambda: None) if cell == "none" else (lambda: Recurrent(cell, cell_size))
    critic = (None, None) if shared_torso else (new_torso(), new_cell())
    return ActorCritic(new_torso(), critic[0], PolicyHead(spec.action_space), new_cell(), critic[1])


def make_policy(
    owner: str, spec: Spec, torso: str, hidden_sizes: tuple[int, ...], activation: str, *, log_std: float = 0.0
) -> Policy:
    """The policy without a critic that fits an environment; arguments and errors as in `make_actor_critic`."""
    check_policy(owner, spec)
    return Policy(make_torso(owner, spec, torso, hidden_sizes, activation)(), PolicyHead(spec.action_space, log_std))
