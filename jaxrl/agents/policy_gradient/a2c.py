"""Advantage actor-critic: the policy gradient with a learnt value, synchronous (Mnih et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import checks
from jaxrl.constructors import agent_constructor, preset
from jaxrl.learning import actor_critic
from jaxrl.learning.actor_critic import Batch, Networks, policy_and_value
from jaxrl.learning.advantages import whiten
from jaxrl.learning.optimizer import make_optimizer
from jaxrl.learning.pop_art import PopArt, init_pop_art
from jaxrl.networks.actor_critic import ActorCritic, check_network
from jaxrl.transforms.normalize import normalized
from jaxrl.types import Agent, Array, Key, Metrics, PyTree, Spec, Transition


class A2CState(NamedTuple):
    """The spec, which is static; parameters; the optimiser's state; the critic's scale, `()` without Pop-Art."""

    spec: Spec
    params: PyTree
    opt_state: PyTree
    scale: PopArt | tuple


@agent_constructor
def a2c(
    *,
    learning_rate: float = 1e-3,
    anneal_steps: int = 0,
    optimizer: str = "rmsprop",
    gamma: float = 0.99,
    gae_lambda: float = 1.0,
    normalize_advantage: bool = False,
    entropy_coef: float = 0.01,
    value_coef: float = 0.5,
    max_grad_norm: float = 0.5,
    num_envs: int = 16,
    rollout_length: int = 5,
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
    """Advantage actor-critic, for discrete and continuous actions.

    One gradient step for each trajectory, up the policy gradient and an entropy bonus, and down the value's error (Mnih
    et al. 2016, section 4.3 and algorithm S3, with all workers in step):

    ```
    A[t] log pi(a[t] | s[t]) + entropy_coef H(pi(. | s[t])) - value_coef (A[t] + V_old(s[t]) - V(s[t]))^2 / 2
    ```

    With gae_lambda = 1 the advantages A are returns of up to rollout_length steps less the value, as there; with 0 they
    are one-step TD errors, and between them generalised advantage estimates (Schulman et al. 2016). Continuous actions
    are drawn from a diagonal Gaussian whose standard deviation does not depend on the state; where the bounds are
    finite, [-1, 1] of it is mapped onto them.

    Args:
      learning_rate: the optimiser's step size, > 0.
      anneal_steps: environment steps over which the learning rate falls linearly to 0; 0 keeps it constant.
      optimizer: adam, rmsprop, or sgd with momentum.
      gamma: discount, in [0, 1].
      gae_lambda: lambda of the advantage estimate, in [0, 1].
      normalize_advantage: whether the trajectory's advantages are brought to mean 0 and standard deviation 1.
      entropy_coef: weight of the entropy bonus, >= 0.
      value_coef: weight of the value loss, >= 0.
      max_grad_norm: global norm that the gradient is clipped to, > 0.
      num_envs: environments that run in parallel.
      rollout_length: steps taken in each environment between updates.
      hidden_sizes: units of each fully connected layer.
      activation: of the hidden layers: tanh, relu, swish, elu or gelu.
      torso: mlp, cnn, nature, or auto: nature for images of at least 36 x 36 pixels, cnn for smaller ones, else mlp.
      shared_torso: whether policy and value share all but their last layers.
      cell: gru or lstm for a policy and a value that remember, behind the fully connected layers; none for no memory.
      cell_size: the cell's units.
      pop_art: whether the critic keeps to a scale of its own, which follows the targets' (Pop-Art).
      pop_art_rate: how far an update moves that scale, in (0, 1].
      normalize_observations: whether observations are scaled by their running mean and standard deviation.
      normalize_rewards: whether rewards are scaled by the running standard deviation of the discounted return.

    Returns:
      an `Agent`; its metrics are policy_loss, value_loss, entropy, and explained_variance, which is at least -1.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.

    Example:
      >>> a2c(num_envs=8).rollout_length
      5
    """
    checks.number("a2c", 0, 1, gamma=gamma, gae_lambda=gae_lambda)
    checks.number("a2c", 0, 1, open_low=True, pop_art_rate=pop_art_rate)
    checks.number("a2c", 0, entropy_coef=entropy_coef, value_coef=value_coef)
    checks.integer("a2c", num_envs=num_envs, rollout_length=rollout_length)
    check_network("a2c", hidden_sizes, activation, cell, cell_size)
    descent = make_optimizer("a2c", optimizer, learning_rate, max_grad_norm, anneal_steps)

    networks = Networks("a2c", torso, hidden_sizes, activation, shared_torso, cell, cell_size)

    def init(key: Key, spec: Spec) -> A2CState:
        params = networks.init(key, spec)
        return A2CState(spec, params, descent.init(params), init_pop_art() if pop_art else ())

    def loss(params: PyTree, batch: Batch, spec: Spec) -> tuple[Array, Metrics]:
        return a2c_loss(
            networks.of(spec), params, batch, value_coef=value_coef, entropy_coef=entropy_coef,
            normalize_advantage=normalize_advantage,
        )  # fmt: skip

    def update(state: A2CState, trajectory: Transition, key: Key, step: Array) -> tuple[A2CState, Metrics]:
        params, scale, batch, explained = actor_critic.make_batch(
            networks.of(state.spec), state.params, state.scale, trajectory, gamma, gae_lambda, pop_art_rate
        )
        grads, metrics = jax.grad(loss, has_aux=True)(params, batch, state.spec)
        params, opt_state = descent.step(params, state.opt_state, grads, step)
        return A2CState(state.spec, params, opt_state, scale), metrics | {"explained_variance": explained}

    agent = Agent(init, networks.act, update, num_envs, rollout_length, networks.init_memory, name="a2c")
    return normalized(agent, gamma, observations=normalize_observations, rewards=normalize_rewards)


def a2c_loss(
    network: ActorCritic,
    params: PyTree,
    batch: Batch,
    *,
    value_coef: Array | float,
    entropy_coef: Array | float,
    normalize_advantage: bool,
    average: Callable[[Array], Array] = lambda x: x,
) -> tuple[Array, Metrics]:
    """What `a2c` descends on, a mean over the batch, and its parts.

    Args:
      network: the environment's.
      params: of it.
      batch: whose advantages and targets are constants.
      value_coef: weight of the value loss.
      entropy_coef: weight of the entropy bonus.
      normalize_advantage: whether the advantages are brought to mean 0 and standard deviation 1.
      average: as `advantages.whiten` takes it.
    """
    policy, value = policy_and_value(network, params, batch)
    advantage = whiten(batch.advantage, average=average) if normalize_advantage else batch.advantage
    policy_loss = -(advantage * policy.log_prob(batch.action)).mean()
    value_loss = 0.5 * jnp.square(value - batch.target).mean()
    entropy = policy.entropy().mean()
    metrics = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
    return policy_loss + value_coef * value_loss - entropy_coef * entropy, metrics


@preset(a2c)
def one_step_actor_critic(
    *, optimizer: str = "adam", gae_lambda: float = 0.0, rollout_length: int = 1, **others: Any
) -> Agent:
    """Actor-critic whose advantage is the one-step TD error (Sutton and Barto 2018, section 13.5).

    Args:
      optimizer: adam, rmsprop, or sgd with momentum.
      gae_lambda: lambda of the advantage estimate, in [0, 1]; at 0 that is the one-step TD error.
      rollout_length: steps taken in each environment between updates.
      **others: any other argument of `a2c`.
    """
    return a2c(optimizer=optimizer, gae_lambda=gae_lambda, rollout_length=rollout_length, **others)
