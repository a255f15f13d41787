"""Parallelised Q-network (Gallici et al. 2024): Q-learning without a replay or a target network."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import checks
from jaxrl.constructors import agent_constructor
from jaxrl.exploration import epsilon_greedy, linear_epsilon
from jaxrl.learning.minibatch import check_sizes, scan_minibatches
from jaxrl.learning.optimizer import make_optimizer
from jaxrl.losses import take
from jaxrl.networks import QNetwork, make_q_network
from jaxrl.networks.actor_critic import check_network
from jaxrl.returns import lambda_returns
from jaxrl.types import Agent, Array, Key, Metrics, PyTree, Spec, Transition


class PQNState(NamedTuple):
    """Network parameters and the optimiser's state for them; the spec is static, not an array."""

    spec: Spec
    params: PyTree
    opt_state: PyTree


class Batch(NamedTuple):
    """What the loss needs of each transition; leaves `[T, N, ...]`, or `[B, ...]` in a minibatch."""

    obs: Array
    action: Array
    target: Array


@agent_constructor
def pqn(
    *,
    learning_rate: float = 2.5e-4,
    anneal_steps: int = 0,
    gamma: float = 0.99,
    lambda_: float = 0.85,
    epsilon_start: float = 1.0,
    epsilon_final: float = 0.1,
    epsilon_decay_steps: int = 100_000,
    max_grad_norm: float = 10.0,
    num_envs: int = 32,
    rollout_length: int = 64,
    num_epochs: int = 4,
    num_minibatches: int = 16,
    hidden_sizes: tuple[int, ...] = (64, 64),
    activation: str = "relu",
    torso: str = "auto",
    layer_norm: bool = True,
) -> Agent:
    """Parallelised Q-network, for discrete actions.

    Regresses Q(s, a) to Q(lambda) returns of the newest trajectory, which bootstrap from the network itself (Gallici et
    al. 2024, "Simplifying deep temporal difference learning"; the returns are Peng and Williams' of 1996):

    ```
    G[t] = r[t] + gamma * ((1 - lambda) * max_a Q(s[t+1], a) + lambda * G[t+1])
    ```

    They are computed once, before the update's first gradient step, and not cut where an action was a random one. What
    a replay and a target network do for stability elsewhere, parallel environments and layer normalisation do here.

    Args:
      learning_rate: step size of rectified Adam (Liu et al. 2020), > 0.
      anneal_steps: environment steps over which the learning rate falls linearly to 0; 0 keeps it constant.
      gamma: discount, in [0, 1].
      lambda_: lambda of the returns, in [0, 1]; 0 is one-step Q-learning.
      epsilon_start: probability of a random action at the first step, in [0, 1].
      epsilon_final: the same once it has decayed, in [0, 1].
      epsilon_decay_steps: environment steps over which epsilon falls linearly from the one to the other.
      max_grad_norm: global norm that the gradient is clipped to, > 0.
      num_envs: environments that run in parallel.
      rollout_length: steps taken in each environment between updates.
      num_epochs: passes over each trajectory.
      num_minibatches: minibatches in each pass; divides num_envs * rollout_length.
      hidden_sizes: units of each fully connected layer.
      activation: of the hidden layers: tanh, relu, swish, elu or gelu.
      torso: mlp, cnn, nature, or auto: nature for images of at least 36 x 36 pixels, cnn for smaller ones, else mlp.
      layer_norm: whether hidden layers are normalised before their activation.

    Returns:
      an `Agent`; its metrics are loss, q_mean (of the actions taken), means over the update's minibatches, and epsilon.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.

    Example:
      >>> pqn(num_envs=128, rollout_length=32).num_envs
      128
    """
    checks.number("pqn", 0, 1, gamma=gamma, lambda_=lambda_)
    sizes: dict[str, Any] = {"num_epochs": num_epochs, "num_minibatches": num_minibatches}
    check_sizes("pqn", num_envs=num_envs, rollout_length=rollout_length, **sizes)
    check_network("pqn", hidden_sizes, activation)
    optimizer = make_optimizer("pqn", "radam", learning_rate, max_grad_norm, anneal_steps, ("radam",))
    epsilon_at = linear_epsilon("pqn", epsilon_start, epsilon_final, epsilon_decay_steps)

    def network(spec: Spec) -> QNetwork:
        return make_q_network("pqn", spec, torso, hidden_sizes, activation, layer_norm=layer_norm)

    def init(key: Key, spec: Spec) -> PQNState:
        obs = jnp.zeros((1, *spec.obs_space.shape), spec.obs_space.dtype)
        params = network(spec).init(key, obs)
        return PQNState(spec, params, optimizer.init(params))

    def act(state: PQNState, memory: PyTree, obs: Array, key: Key, step: Array, explore: bool = True):
        q_values = network(state.spec).apply(state.params, obs)
        return epsilon_greedy(key, q_values, epsilon_at(step) if explore else 0.0), memory, {}

    def loss(params: PyTree, batch: Batch, spec: Spec) -> tuple[Array, Metrics]:
        q = take(network(spec).apply(params, batch.obs), batch.action)
        value = optax.l2_loss(q, batch.target).mean()
        return value, {"loss": value, "q_mean": q.mean()}

    def update(state: PQNState, trajectory: Transition, key: Key, step: Array) -> tuple[PQNState, Metrics]:
        next_values = network(state.spec).apply(state.params, trajectory.next_obs).max(axis=-1)  # [T, N]
        discounts = gamma * (1.0 - trajectory.terminated)
        ended = trajectory.terminated | trajectory.truncated
        targets = lambda_returns(trajectory.reward, discounts, next_values, lambda_, ended)

        def learn(carry: tuple[PyTree, PyTree], minibatch: Batch):
            params, opt_state = carry
            grads, metrics = jax.grad(loss, has_aux=True)(params, minibatch, state.spec)
            return optimizer.step(params, opt_state, grads, step), metrics

        data = Batch(trajectory.obs, trajectory.action, targets)
        (params, opt_state), metrics = scan_minibatches(learn, (state.params, state.opt_state), data, key, **sizes)
        metrics = {**jax.tree.map(jnp.mean, metrics), "epsilon": epsilon_at(step)}
        return PQNState(state.spec, params, opt_state), metrics

    return Agent(init, act, update, num_envs, rollout_length, name="pqn")
