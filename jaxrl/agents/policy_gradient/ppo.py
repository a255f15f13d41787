"""Proximal policy optimisation: the clipped objective, and the adaptive penalty (Schulman et al. 2017)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import checks
from jaxrl.constructors import agent_constructor
from jaxrl.learning import actor_critic
from jaxrl.learning.actor_critic import Batch, Networks, policy_and_value
from jaxrl.learning.advantages import whiten
from jaxrl.learning.minibatch import WORKER, check_sizes, scan_minibatches
from jaxrl.learning.optimizer import make_optimizer
from jaxrl.learning.pop_art import PopArt, init_pop_art
from jaxrl.networks.actor_critic import check_network
from jaxrl.transforms.normalize import normalized
from jaxrl.types import Agent, Array, Key, Metrics, PyTree, Spec, Transition


class PPOState(NamedTuple):
    """The spec, which is static; parameters; the optimiser's state; the critic's scale; the penalty's coefficient.

    `scale` is `()` without Pop-Art, and `kl_coef` is `()` without a penalty.
    """

    spec: Spec
    params: PyTree
    opt_state: PyTree
    scale: PopArt | tuple
    kl_coef: PyTree


@agent_constructor
def ppo(
    *,
    learning_rate: float = 3e-4,
    anneal_steps: int = 0,
    gamma: float = 0.99,
    gae_lambda: float = 0.95,
    clip_eps: float = 0.2,
    clip_value_loss: bool = True,
    kl_coef: float = 0.0,
    kl_target: float = 0.01,
    max_kl: float = 0.0,
    normalize_advantage: bool = True,
    entropy_coef: float = 0.01,
    value_coef: float = 0.5,
    max_grad_norm: float = 0.5,
    num_envs: int = 4,
    rollout_length: int = 128,
    num_epochs: int = 4,
    num_minibatches: int = 4,
    num_workers: int = 1,
    hidden_sizes: tuple[int, ...] = (64, 64),
    activation: str = "tanh",
    torso: str = "auto",
    shared_torso: bool = False,
    cell: str = "none",
    cell_size: int = 64,
    pop_art: bool = False,
    pop_art_rate: float = 0.01,
    normalize_observations: bool = False,
    normalize_rewards: bool = False,
) -> Agent:
    """Proximal policy optimisation, for discrete and continuous actions.

    Maximises the clipped surrogate of Schulman et al. (2017), equation 7, less a value loss and plus an entropy bonus
    (equation 9), with advantages by GAE (equation 11). Continuous actions are drawn from a diagonal Gaussian whose
    standard deviation does not depend on the state; where the bounds are finite, [-1, 1] of it is mapped onto them.

    With `kl_coef`, a penalty on the divergence from the policy that acted stands beside the clip (equation 8), or in
    its place if clip_eps is large. Its coefficient begins with that value, is halved after an update whose divergence
    was below kl_target / 1.5, and doubled after one above 1.5 kl_target (section 4). That is the divergence of the
    policy after the update from the one that acted, estimated on the actions taken as in the penalty itself: it costs
    one more evaluation of the policy over the trajectory, and is defined for every policy, with a memory too.

    Args:
      learning_rate: Adam's step size, > 0.
      anneal_steps: environment steps over which the learning rate falls linearly to 0; 0 keeps it constant.
      gamma: discount, in [0, 1].
      gae_lambda: lambda of the advantage estimate, in [0, 1].
      clip_eps: how far the probability ratio may move from 1, > 0.
      clip_value_loss: whether to clip the new value's distance from the old one by clip_eps, too. Where returns are
        much larger than that and not normalised, the critic learns slowly with it.
      kl_coef: what the coefficient of the divergence's penalty begins with, >= 0; 0 is no penalty.
      kl_target: the divergence of an update that the coefficient aims at, > 0, in nats.
      max_kl: a minibatch whose divergence is above this ends the update's gradient steps, in nats; 0 is no limit.
      normalize_advantage: whether each minibatch's advantages are brought to mean 0 and standard deviation 1.
      entropy_coef: weight of the entropy bonus, >= 0.
      value_coef: weight of the value loss, >= 0.
      max_grad_norm: global norm that the gradient is clipped to, > 0.
      num_envs: environments that run in parallel.
      rollout_length: steps taken in each environment between updates.
      num_epochs: passes over each trajectory.
      num_minibatches: minibatches in each pass; divides num_envs * rollout_length, or, with a cell, num_envs.
      num_workers: parts that the environments are split into; divides num_envs. Each worker draws its minibatches from
        its own part alone (so num_minibatches divides that), and their gradients are averaged (Heess et al. 2017).
        `jaxrl.runs.parallel` lays the parts on several devices.
      hidden_sizes: units of each fully connected layer.
      activation: of the hidden layers: tanh, relu, swish, elu or gelu.
      torso: mlp, cnn, nature, or auto: nature for images of at least 36 x 36 pixels, cnn for smaller ones, else mlp.
      shared_torso: whether policy and value share all but their last layers.
      cell: gru or lstm for a policy and a value that remember, behind the fully connected layers; none for no memory.
        Each environment's steps then stay whole in a minibatch.
      cell_size: the cell's units.
      pop_art: whether the critic keeps to a scale of its own, which follows the targets' (Pop-Art).
      pop_art_rate: how far an update moves that scale, in (0, 1].
      normalize_observations: whether observations are scaled by their running mean and standard deviation.
      normalize_rewards: whether rewards are scaled by the running standard deviation of the discounted return.

    Returns:
      an `Agent`; its metrics are policy_loss, value_loss, entropy, approx_kl and clip_fraction, means over the update's
      minibatches, each before its gradient step; explained_variance, of the values before the update, at least -1; and
      where there is a penalty, kl_coef, and update_kl, the divergence after the update that the coefficient follows.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.

    Example:
      >>> ppo(learning_rate=1e-3, num_envs=8).num_envs
      8
    """
    checks.number("ppo", 0, open_low=True, clip_eps=clip_eps, kl_target=kl_target)
    checks.number("ppo", 0, 1, gamma=gamma, gae_lambda=gae_lambda)
    checks.number("ppo", 0, 1, open_low=True, pop_art_rate=pop_art_rate)
    checks.number("ppo", 0, entropy_coef=entropy_coef, value_coef=value_coef, kl_coef=kl_coef, max_kl=max_kl)
    remembers = cell != "none"
    sizes: dict[str, Any] = {"num_epochs": num_epochs, "num_minibatches": num_minibatches}
    sizes |= {"sequences": remembers, "num_workers": num_workers}
    check_sizes("ppo", num_envs=num_envs, rollout_length=rollout_length, **sizes)
    check_network("ppo", hidden_sizes, activation, cell, cell_size)
    optimizer = make_optimizer("ppo", "adam", learning_rate, max_grad_norm, anneal_steps)
    # A number that is 0 leaves the code out; a traced one, which a sweep makes of several, does not.
    penalized, limited = (isinstance(x, jax.Array) or x != 0 for x in (kl_coef, max_kl))

    def average(tree: PyTree) -> PyTree:
        return jax.lax.pmean(tree, WORKER) if num_workers > 1 else tree

    networks = Networks("ppo", torso, hidden_sizes, activation, shared_torso, cell, cell_size)

    def init(key: Key, spec: Spec) -> PPOState:
        params = networks.init(key, spec)
        scale = init_pop_art() if pop_art else ()
        return PPOState(spec, params, optimizer.init(params), scale, jnp.float32(kl_coef) if penalized else ())

    def loss(params: PyTree, batch: Batch, spec: Spec, penalty: Array | tuple) -> tuple[Array, Metrics]:
        policy, value = policy_and_value(networks.of(spec), params, batch)
        advantage = whiten(batch.advantage, average=average) if normalize_advantage else batch.advantage
        log_ratio = policy.log_prob(batch.action) - batch.log_prob
        ratio = jnp.exp(log_ratio)
        clipped = jnp.clip(ratio, 1 - clip_eps, 1 + clip_eps)
        policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()  # equation 7
        kl = divergence(log_ratio)
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
            "approx_kl": kl,
            "clip_fraction": (jnp.abs(ratio - 1) > clip_eps).mean(dtype=jnp.float32),
        }
        total = policy_loss + value_coef * value_loss - entropy_coef * entropy  # equation 9
        return total + penalty * kl if penalized else total, metrics  # equation 8

    def update(state: PPOState, trajectory: Transition, key: Key, step: Array) -> tuple[PPOState, Metrics]:
        params, scale, data, explained = actor_critic.make_batch(
            networks.of(state.spec), state.params, state.scale, trajectory, gamma, gae_lambda, pop_art_rate
        )

        def learn(carry: tuple[PyTree, PyTree, Array | tuple], minibatch: Batch):
            params, opt_state, going = carry
            grads, metrics = average(jax.grad(loss, has_aux=True)(params, minibatch, state.spec, state.kl_coef))
            new = optimizer.step(params, opt_state, grads, step)
            if limited:
                going &= (metrics["approx_kl"] <= max_kl) | (max_kl == 0)
                new = jax.tree.map(lambda x, old: jnp.where(going, x, old), new, (params, opt_state))
            return (*new, going), metrics

        carry = (params, state.opt_state, jnp.bool(True) if limited else ())
        (params, opt_state, _), metrics = scan_minibatches(learn, carry, data, key, **sizes)
        metrics = jax.tree.map(jnp.mean, metrics) | {"explained_variance": explained}
        penalty = state.kl_coef
        if penalized:
            policy, _ = policy_and_value(networks.of(state.spec), params, data)
            kl = divergence(policy.log_prob(data.action) - data.log_prob)
            metrics |= {"kl_coef": penalty, "update_kl": kl}
            penalty = adapted(penalty, kl, kl_target)
        return PPOState(state.spec, params, opt_state, scale, penalty), metrics

    agent = Agent(init, networks.act, update, num_envs, rollout_length, networks.init_memory, name="ppo")
    return normalized(agent, gamma, observations=normalize_observations, rewards=normalize_rewards)


def divergence(log_ratio: Array) -> Array:
    """KL(old || new), estimated as the mean of `r - 1 - log r` over the old policy's actions, with r = new / old.

    No term is below 0, but for rounding, and of policies near each other it varies far less than the mean of `-log r`.

    Args:
      log_ratio: log r of each action, `[...]`.
    """
    return (jnp.exp(log_ratio) - 1 - log_ratio).mean()


def adapted(penalty: Array, kl: Array, target: Array | float) -> Array:
    """The penalty's coefficient after an update of this divergence (Schulman et al. 2017, section 4); 0 stays 0.

    >>> [float(adapted(jnp.float32(1.0), kl, 0.01)) for kl in (0.005, 0.01, 0.02)]
    [0.5, 1.0, 2.0]
    """
    factor = jnp.where(kl < target / 1.5, 0.5, jnp.where(kl > target * 1.5, 2.0, 1.0))
    bounded = jnp.clip(penalty * factor, 1e-6, 1e6)  # within what a float can come back from
    return jnp.where(penalty == 0, 0.0, bounded)
