"""Asynchronous advantage actor-critic: workers with stale parameters, in a drawn order (Mnih et al. 2016)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import checks
from jaxrl.agents.policy_gradient.a2c import a2c_loss
from jaxrl.constructors import agent_constructor
from jaxrl.learning import actor_critic
from jaxrl.learning.actor_critic import Batch, Networks
from jaxrl.learning.minibatch import WORKER, by_worker, check_workers
from jaxrl.learning.optimizer import make_optimizer
from jaxrl.networks.actor_critic import check_network
from jaxrl.transforms.normalize import normalized
from jaxrl.types import Agent, Array, Key, Metrics, PyTree, Spec, Transition


class A3CState(NamedTuple):
    """The spec, which is static; the shared parameters and optimiser's state; what the workers have pulled.

    The leaves of `copies` are `[delay, W, ...]`: round k reads slot k mod delay, which round k - delay wrote, and
    writes there what the workers pull. It is `()` without a delay.
    """

    spec: Spec
    params: PyTree
    opt_state: PyTree
    copies: PyTree


@agent_constructor
def a3c(
    *,
    num_workers: int = 4,
    delay: int = 1,
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
    normalize_observations: bool = False,
    normalize_rewards: bool = False,
) -> Agent:
    """Asynchronous advantage actor-critic, for discrete and continuous actions (Mnih et al. 2016, algorithm S3).

    Threads that race each other never give the same numbers twice, so the race is simulated. An update is a *round*, in
    which each worker pushes once. It acts in its own environments, with its own copy of the parameters, and takes the
    gradient of `a2c`'s objective there. Then the workers come forward in an order that is drawn anew each round. Whose
    turn it is applies its gradient to the shared parameters, one step of the optimiser, whose state is shared, too; and
    pulls a copy of what it finds then, without the pushes of those that come after it.

    In round k a worker uses the copy that it pulled in round k - delay, or the initial parameters where there was no
    such round. So delay = 1 is the algorithm as published: what a worker misses when it acts are the pushes that came
    after its own in the round before, and when it pushes, those before its own in this one, too. More delay is a slower
    link. With delay = 0 nobody waits for a turn: all use the current parameters, their gradients are averaged into one
    step, and it is `a2c`.

    Args:
      num_workers: how many, W; divides num_envs. The first has the first num_envs / W environments, and so on.
      delay: rounds between a worker's pull and its use, >= 0.
      learning_rate: step size of each push, > 0.
      anneal_steps: environment steps over which the learning rate falls linearly to 0; 0 keeps it constant.
      optimizer: adam, rmsprop, or sgd with momentum.
      gamma: discount, in [0, 1].
      gae_lambda: lambda of the advantage estimate, in [0, 1].
      normalize_advantage: whether the advantages of a worker's trajectory are brought to mean 0 and standard deviation
        1; without a delay, those of all workers together.
      entropy_coef: weight of the entropy bonus, >= 0.
      value_coef: weight of the value loss, >= 0.
      max_grad_norm: global norm that each push's gradient is clipped to, > 0.
      num_envs: environments that run in parallel, those of all workers together.
      rollout_length: steps taken in each environment between updates.
      hidden_sizes: units of each fully connected layer.
      activation: of the hidden layers: tanh, relu, swish, elu or gelu.
      torso: mlp, cnn, nature, or auto: nature for images of at least 36 x 36 pixels, cnn for smaller ones, else mlp.
      shared_torso: whether policy and value share all but their last layers.
      cell: gru or lstm for a policy and a value that remember, behind the fully connected layers; none for no memory.
      cell_size: the cell's units.
      normalize_observations: whether observations are scaled by their running mean and standard deviation.
      normalize_rewards: whether rewards are scaled by the running standard deviation of the discounted return.

    Returns:
      an `Agent`, which explores with the workers' copies and is greedy with the shared parameters; its metrics, means
      over the workers, are policy_loss, value_loss, entropy, and explained_variance, which is at least -1.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.

    Example:
      >>> a3c(num_workers=8, num_envs=8).num_envs
      8
    """
    checks.number("a3c", 0, 1, gamma=gamma, gae_lambda=gae_lambda)
    checks.number("a3c", 0, entropy_coef=entropy_coef, value_coef=value_coef)
    checks.integer("a3c", rollout_length=rollout_length)
    checks.integer("a3c", 0, delay=delay)
    check_workers("a3c", num_workers, num_envs)
    check_network("a3c", hidden_sizes, activation, cell, cell_size)
    descent = make_optimizer("a3c", optimizer, learning_rate, max_grad_norm, anneal_steps)

    networks = Networks("a3c", torso, hidden_sizes, activation, shared_torso, cell, cell_size)

    def slot(step: Array) -> Array:
        return step // (num_envs * rollout_length) % delay  # the step counts on within a round; the slot stays

    def init(key: Key, spec: Spec) -> A3CState:
        params = networks.init(key, spec)
        copies = jax.tree.map(lambda x: jnp.broadcast_to(x, (delay, num_workers, *x.shape)), params) if delay else ()
        return A3CState(spec, params, descent.init(params), copies)

    def act(state: A3CState, memory: PyTree, obs: Array, key: Key, step: Array, explore: bool = True):
        def one(params: PyTree, memory: PyTree, obs: Array, key: Key):
            return networks.act(state._replace(params=params), memory, obs, key, step, explore)

        if not (explore and delay):
            return one(state.params, memory, obs, key)
        copies = jax.tree.map(lambda x: x[slot(step)], state.copies)
        memory, obs = by_worker((memory, obs), num_workers)
        acted = jax.vmap(one)(copies, memory, obs, jax.random.split(key, num_workers))
        return jax.tree.map(lambda x: x.reshape(num_envs, *x.shape[2:]), acted)  # [W, N / W, ...] -> [N, ...]

    def gradient(params: PyTree, trajectory: Transition, spec: Spec) -> tuple[PyTree, Metrics]:
        """One worker's; its trajectory is `[T, N / W, ...]`."""
        average = (lambda x: x) if delay else (lambda x: jax.lax.pmean(x, WORKER))
        options = {"normalize_advantage": normalize_advantage, "average": average}

        def loss(params: PyTree, batch: Batch) -> tuple[Array, Metrics]:
            weights = {"value_coef": value_coef, "entropy_coef": entropy_coef}
            return a2c_loss(networks.of(spec), params, batch, **weights, **options)

        _, _, batch, explained = actor_critic.make_batch(
            networks.of(spec), params, (), trajectory, gamma, gae_lambda, pop_art_rate=0.0
        )
        grads, metrics = jax.grad(loss, has_aux=True)(params, batch)
        return grads, metrics | {"explained_variance": explained}

    def update(state: A3CState, trajectory: Transition, key: Key, step: Array) -> tuple[A3CState, Metrics]:
        parts = by_worker(trajectory, num_workers, axis=1)  # [T, N, ...] -> [T, W, N / W, ...]
        gradients = jax.vmap(gradient, in_axes=(0 if delay else None, 1, None), axis_name=WORKER)
        spec, params, opt_state, copies = state
        if not delay:
            grads, metrics = jax.tree.map(lambda x: x.mean(0), gradients(params, parts, spec))
            return A3CState(spec, *descent.step(params, opt_state, grads, step), copies), metrics

        def push_and_pull(shared: tuple[PyTree, PyTree], grads: PyTree) -> tuple[tuple[PyTree, PyTree], PyTree]:
            params, opt_state = descent.step(*shared, grads, step)
            return (params, opt_state), params

        grads, metrics = gradients(jax.tree.map(lambda x: x[slot(step)], copies), parts, spec)
        order = jax.random.permutation(key, num_workers)
        in_turn = jax.tree.map(lambda x: x[order], grads)
        (params, opt_state), pulled = jax.lax.scan(push_and_pull, (params, opt_state), in_turn)
        turn = jnp.argsort(order)  # of each worker
        copies = jax.tree.map(lambda x, new: x.at[slot(step)].set(new[turn]), copies, pulled)
        return A3CState(spec, params, opt_state, copies), jax.tree.map(jnp.mean, metrics)

    agent = Agent(init, act, update, num_envs, rollout_length, networks.init_memory, name="a3c")
    return normalized(agent, gamma, observations=normalize_observations, rewards=normalize_rewards)
