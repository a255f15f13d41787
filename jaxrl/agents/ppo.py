"""Proximal policy optimisation with the clipped objective (Schulman et al. 2017)."""

from __future__ import annotations

from typing import NamedTuple

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxrl import checks
from jaxrl.agents.action_scale import to_action_space
from jaxrl.agents.annealing import annealed
from jaxrl.agents.minibatch import check_sizes, scan_minibatches
from jaxrl.networks import ACTIVATIONS, make_torso, orthogonal
from jaxrl.normalize import normalize_observations as with_normalized_observations
from jaxrl.normalize import normalize_rewards as with_normalized_rewards
from jaxrl.returns import gae
from jaxrl.types import Agent, Array, Box, Discrete, Key, Metrics, PyTree, Space, Spec, Transition


class PPOState(NamedTuple):
    """Network parameters and the optimiser's state for them; the spec is static, not an array."""

    spec: Spec
    params: PyTree
    opt_state: PyTree


class Batch(NamedTuple):
    """What the loss needs of each transition; leaves `[T, N, ...]`, or `[B, ...]` in a minibatch."""

    obs: Array
    action: Array
    log_prob: Array
    value: Array
    advantage: Array
    target: Array


class ActorCritic(nn.Module):
    """A policy and a state value, on one torso or on one each."""

    torso: nn.Module
    critic_torso: nn.Module | None
    action_space: Space

    def setup(self):
        size = self.action_space.n if isinstance(self.action_space, Discrete) else self.action_space.shape[0]
        self.policy_head = nn.Dense(size, kernel_init=orthogonal(0.01))
        self.value_head = nn.Dense(1, kernel_init=orthogonal(1.0))
        if not isinstance(self.action_space, Discrete):
            self.log_std = self.param("log_std", nn.initializers.zeros, (size,))

    def __call__(self, obs: Array) -> tuple[distrax.Distribution, Array]:
        features = self.torso(obs)
        value_features = features if self.critic_torso is None else self.critic_torso(obs)
        return self._policy(features), self.value_head(value_features)[..., 0]

    def policy(self, obs: Array) -> distrax.Distribution:
        return self._policy(self.torso(obs))

    def value(self, obs: Array) -> Array:
        return self.value_head((self.critic_torso or self.torso)(obs))[..., 0]

    def _policy(self, features: Array) -> distrax.Distribution:
        output = self.policy_head(features)
        if isinstance(self.action_space, Discrete):
            return distrax.Categorical(logits=output)
        return distrax.MultivariateNormalDiag(output, jnp.broadcast_to(jnp.exp(self.log_std), output.shape))


def ppo(
    *,
    learning_rate: float = 3e-4,
    anneal_steps: int = 0,
    gamma: float = 0.99,
    gae_lambda: float = 0.95,
    clip_eps: float = 0.2,
    clip_value_loss: bool = True,
    normalize_advantage: bool = True,
    entropy_coef: float = 0.01,
    value_coef: float = 0.5,
    max_grad_norm: float = 0.5,
    num_envs: int = 4,
    rollout_length: int = 128,
    num_epochs: int = 4,
    num_minibatches: int = 4,
    hidden_sizes: tuple[int, ...] = (64, 64),
    activation: str = "tanh",
    torso: str = "auto",
    shared_torso: bool = False,
    normalize_observations: bool = False,
    normalize_rewards: bool = False,
) -> Agent:
    """Proximal policy optimisation, for discrete and continuous actions.

    Maximises the clipped surrogate of Schulman et al. (2017), equation 7, less a value loss and plus an entropy bonus
    (equation 9), with advantages by GAE (equation 11). Continuous actions are drawn from a diagonal Gaussian whose
    standard deviation does not depend on the state; where the bounds are finite, [-1, 1] of it is mapped onto them.

    Args:
      learning_rate: Adam's step size, > 0.
      anneal_steps: environment steps over which the learning rate falls linearly to 0; 0 keeps it constant.
      gamma: discount, in [0, 1].
      gae_lambda: lambda of the advantage estimate, in [0, 1].
      clip_eps: how far the probability ratio may move from 1, > 0.
      clip_value_loss: whether to clip the new value's distance from the old one by clip_eps, too.
      normalize_advantage: whether each minibatch's advantages are brought to mean 0 and standard deviation 1.
      entropy_coef: weight of the entropy bonus, >= 0.
      value_coef: weight of the value loss, >= 0.
      max_grad_norm: global norm that the gradient is clipped to, > 0.
      num_envs: environments that run in parallel.
      rollout_length: steps taken in each environment between updates.
      num_epochs: passes over each trajectory.
      num_minibatches: minibatches in each pass; divides num_envs * rollout_length.
      hidden_sizes: units of each fully connected layer.
      activation: of the hidden layers: tanh, relu, swish, elu or gelu.
      torso: mlp, cnn, or auto, which takes a cnn where observations are images.
      shared_torso: whether policy and value share all but their last layers.
      normalize_observations: whether observations are scaled by their running mean and standard deviation.
      normalize_rewards: whether rewards are scaled by the running standard deviation of the discounted return.

    Returns:
      an `Agent`; its metrics are policy_loss, value_loss, entropy, approx_kl, clip_fraction and explained_variance,
      means over the update's minibatches;
      the last is of the values before the update, and at least -1.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.

    Example:
      >>> ppo(learning_rate=1e-3, num_envs=8).num_envs
      8
    """
    checks.number("ppo", 0, open_low=True, learning_rate=learning_rate, clip_eps=clip_eps, max_grad_norm=max_grad_norm)
    checks.number("ppo", 0, 1, gamma=gamma, gae_lambda=gae_lambda)
    checks.number("ppo", 0, entropy_coef=entropy_coef, value_coef=value_coef)
    sizes = {"num_epochs": num_epochs, "num_minibatches": num_minibatches}
    check_sizes("ppo", num_envs=num_envs, rollout_length=rollout_length, **sizes)
    checks.integer("ppo", **{f"hidden_sizes[{i}]": n for i, n in enumerate(hidden_sizes)})
    checks.integer("ppo", 0, anneal_steps=anneal_steps)
    checks.one_of("ppo", ACTIVATIONS, activation=activation)
    optimizer = optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.scale_by_adam(eps=1e-5))

    def network(spec: Spec) -> ActorCritic:
        new_torso = make_torso("ppo", spec, torso, hidden_sizes, activation)
        return ActorCritic(new_torso(), None if shared_torso else new_torso(), spec.action_space)

    def init(key: Key, spec: Spec) -> PPOState:
        if isinstance(spec.action_space, Box) and len(spec.action_space.shape) != 1:
            raise checks.JaxrlError(f"ppo: {spec.id} has actions of shape {spec.action_space.shape}; it needs vectors")
        obs = jnp.zeros((1, *spec.obs_space.shape), spec.obs_space.dtype)
        params = network(spec).init(key, obs)
        return PPOState(spec, params, optimizer.init(params))

    def act(state: PPOState, memory: PyTree, obs: Array, key: Key, step: Array, explore: bool = True):
        policy = network(state.spec).apply(state.params, obs, method="policy")
        action, log_prob = policy.sample_and_log_prob(seed=key) if explore else (policy.mode(), jnp.zeros(len(obs)))
        return to_action_space(action, state.spec.action_space), memory, {"policy_action": action, "log_prob": log_prob}

    def loss(params: PyTree, batch: Batch, spec: Spec) -> tuple[Array, Metrics]:
        policy, value = network(spec).apply(params, batch.obs)
        advantage = batch.advantage
        if normalize_advantage:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        log_ratio = policy.log_prob(batch.action) - batch.log_prob
        ratio = jnp.exp(log_ratio)
        clipped = jnp.clip(ratio, 1 - clip_eps, 1 + clip_eps)
        policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()  # equation 7
        value_error = jnp.square(value - batch.target)
        if clip_value_loss:
            near = batch.value + jnp.clip(value - batch.value, -clip_eps, clip_eps)
            value_error = jnp.maximum(value_error, jnp.square(near - batch.target))
        value_loss = 0.5 * value_error.mean()
        entropy = policy.entropy().mean()
        metrics = {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "approx_kl": (ratio - 1 - log_ratio).mean(),
            "clip_fraction": (jnp.abs(ratio - 1) > clip_eps).mean(dtype=jnp.float32),
        }
        return policy_loss + value_coef * value_loss - entropy_coef * entropy, metrics  # equation 9

    def update(state: PPOState, trajectory: Transition, key: Key, step: Array) -> tuple[PPOState, Metrics]:
        both = jnp.stack([trajectory.obs, trajectory.next_obs])  # [2, T, N, ...]
        values, next_values = network(state.spec).apply(state.params, both, method="value")
        discounts = gamma * (1.0 - trajectory.terminated)
        ended = trajectory.terminated | trajectory.truncated
        advantages, targets = gae(trajectory.reward, discounts, values, next_values, gae_lambda, ended)
        extras = trajectory.extras
        data = Batch(trajectory.obs, extras["policy_action"], extras["log_prob"], values, advantages, targets)
        decay = annealed(step, anneal_steps)

        def learn(carry: tuple[PyTree, PyTree], minibatch: Batch):
            params, opt_state = carry
            grads, metrics = jax.grad(loss, has_aux=True)(params, minibatch, state.spec)
            direction, opt_state = optimizer.update(grads, opt_state, params)
            params = jax.tree.map(lambda p, d: p - learning_rate * decay * d, params, direction)
            return (params, opt_state), metrics

        (params, opt_state), metrics = scan_minibatches(learn, (state.params, state.opt_state), data, key, **sizes)
        metrics = jax.tree.map(jnp.mean, metrics)
        metrics["explained_variance"] = jnp.maximum(-1.0, 1.0 - jnp.var(targets - values) / (jnp.var(targets) + 1e-8))
        return PPOState(state.spec, params, opt_state), metrics

    agent = Agent(init, act, update, num_envs, rollout_length, name="ppo")
    if normalize_rewards:
        agent = with_normalized_rewards(agent, gamma)
    return with_normalized_observations(agent) if normalize_observations else agent
