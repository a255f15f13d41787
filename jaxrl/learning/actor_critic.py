"""What agents with an actor and a critic share: how they act, and what they make of a trajectory."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxrl.learning.action_scale import to_action_space
from jaxrl.learning.advantages import explained_variance
from jaxrl.learning.pop_art import PopArt, denormalize, pop_art_update, preserve_outputs
from jaxrl.networks.actor_critic import ActorCritic, make_actor_critic, memory_size
from jaxrl.returns import gae
from jaxrl.types import Array, Key, PyTree, Spec, Transition


class Batch(NamedTuple):
    """What the losses need of each transition; leaves `[T, N, ...]`, or `[B, ...]` in a minibatch.

    Attributes:
      obs: what was seen.
      action: the policy's action, before it was mapped onto the environment's.
      log_prob: its log-probability when it was taken.
      value: of the observation, before the update, on the critic's scale.
      advantage: of the action.
      target: of the value, on the critic's scale.
      memory: what the policy carried before the step; `()` where it carries nothing.
      fresh: bool, whether an episode began with the step; `()` where nothing is carried.
    """

    obs: Array
    action: Array
    log_prob: Array
    value: Array
    advantage: Array
    target: Array
    memory: PyTree
    fresh: PyTree


class Networks(NamedTuple):
    """The networks that an agent's arguments ask for, as of `make_actor_critic`; its state has `spec` and `params`."""

    owner: str
    torso: str
    hidden_sizes: tuple[int, ...]
    activation: str
    shared_torso: bool
    cell: str
    cell_size: int

    def of(self, spec: Spec) -> ActorCritic:
        """The network that fits an environment."""
        return make_actor_critic(
            self.owner, spec, self.torso, self.hidden_sizes, self.activation, shared_torso=self.shared_torso,
            cell=self.cell, cell_size=self.cell_size,
        )  # fmt: skip

    def init_memory(self, num_envs: int) -> Array | tuple:
        """`Agent.init_memory`: zeros `[N, C]`, or `()` where nothing is remembered."""
        if self.cell == "none":
            return ()
        return jnp.zeros((num_envs, memory_size(self.shared_torso, self.cell, self.cell_size)))

    def init(self, key: Key, spec: Spec) -> PyTree:
        """Parameters for an environment."""
        memory, obs = self.init_memory(1), jnp.zeros((1, *spec.obs_space.shape), spec.obs_space.dtype)
        return self.of(spec).init(key, obs if isinstance(memory, tuple) else obs[None], memory)

    def act(self, state: Any, memory: PyTree, obs: Array, key: Key, step: Array, explore: bool = True):
        """`Agent.act`: draws from the policy, or takes its mode; what it reports is what `make_batch` asks for."""
        after, policy = self.of(state.spec).apply(state.params, obs, memory, method="act")
        action, log_prob = policy.sample_and_log_prob(seed=key) if explore else (policy.mode(), jnp.zeros(len(obs)))
        kept = {} if isinstance(memory, tuple) else {"memory": memory}
        extras = {"policy_action": action, "log_prob": log_prob, **kept}
        return to_action_space(action, state.spec.action_space), after, extras


def policy_and_value(network: ActorCritic, params: PyTree, batch: Batch):
    """The policies and values of a batch; of sequences, `[T, B, ...]`, where something is carried."""
    if isinstance(batch.memory, tuple):
        return network.apply(params, batch.obs)
    return network.apply(params, batch.obs, batch.memory[0], batch.fresh)


def make_batch(
    network: ActorCritic,
    params: PyTree,
    scale: PopArt | tuple,
    trajectory: Transition,
    gamma: Array | float,
    gae_lambda: Array | float,
    pop_art_rate: Array | float,
) -> tuple[PyTree, PopArt | tuple, Batch, Array]:
    """Advantages and value targets of a trajectory, by GAE.

    Args:
      network: the environment's.
      params: of it.
      scale: of the critic's values, or `()` for values as they are.
      trajectory: leaves `[T, N, ...]`, with what `act` reported.
      gamma: discount.
      gae_lambda: lambda of the advantages.
      pop_art_rate: how far the scale moves.

    Returns:
      the parameters, and the scale, both moved to the trajectory's targets where there is a scale; the batch; and how
      much of the targets' variance the values had explained, at least -1.
    """
    ended = trajectory.terminated | trajectory.truncated
    memory = trajectory.extras.get("memory", ())
    fresh = () if isinstance(memory, tuple) else jnp.concatenate([jnp.zeros_like(ended[:1]), ended[:-1]])
    first = () if isinstance(memory, tuple) else memory[0]
    values, next_values = network.apply(
        params, trajectory.obs, trajectory.next_obs, first, fresh, method="values"
    )  # [T, N] each
    values, next_values = denormalize(scale, values), denormalize(scale, next_values)
    discounts = gamma * (1.0 - trajectory.terminated)
    advantages, targets = gae(trajectory.reward, discounts, values, next_values, gae_lambda, ended)
    explained = explained_variance(values, targets)
    if isinstance(scale, PopArt):
        new = pop_art_update(scale, targets, pop_art_rate)
        head = preserve_outputs(params["params"]["value_head"], scale, new)
        params, scale = {"params": params["params"] | {"value_head": head}}, new
        values, targets, advantages = (
            (values - new.mean) / new.sigma,
            (targets - new.mean) / new.sigma,
            advantages / new.sigma,
        )
    extras = trajectory.extras
    batch = Batch(
        trajectory.obs, extras["policy_action"], extras["log_prob"], values, advantages, targets, memory, fresh
    )
    return params, scale, batch, explained
