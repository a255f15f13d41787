"""Deep Q-network (Mnih et al. 2015), with double Q-learning as an option (van Hasselt et al. 2016)."""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxrl import checks
from jaxrl.exploration import epsilon_greedy
from jaxrl.networks import ACTIVATIONS, make_torso, orthogonal
from jaxrl.replay import uniform
from jaxrl.types import Agent, Array, Discrete, Key, Metrics, PyTree, Spec, Transition

LOSSES = {"huber": optax.huber_loss, "squared": optax.l2_loss}


class DQNState(NamedTuple):
    """Online and target parameters, the optimiser's state, and the replay; the spec is static, not an array."""

    spec: Spec
    params: PyTree
    target_params: PyTree
    opt_state: PyTree
    replay: PyTree


class Item(NamedTuple):
    """What the replay keeps of a transition. A truncated one bootstraps like any other."""

    obs: Array
    action: Array
    reward: Array
    terminated: Array
    next_obs: Array


class QNetwork(nn.Module):
    """Action values: `[..., obs] -> [..., num_actions]`."""

    torso: nn.Module
    num_actions: int

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        return nn.Dense(self.num_actions, kernel_init=orthogonal(1.0))(self.torso(obs))


def dqn(
    *,
    learning_rate: float = 5e-4,
    gamma: float = 0.99,
    epsilon_start: float = 1.0,
    epsilon_final: float = 0.05,
    epsilon_decay_steps: int = 10_000,
    replay_size: int = 10_000,
    batch_size: int = 128,
    warmup_steps: int = 1_000,
    target_update_every: int = 500,
    tau: float = 1.0,
    double: bool = False,
    loss: str = "huber",
    max_grad_norm: float = 10.0,
    num_envs: int = 1,
    rollout_length: int = 1,
    gradient_steps: int = 1,
    hidden_sizes: tuple[int, ...] = (64, 64),
    activation: str = "relu",
    torso: str = "auto",
) -> Agent:
    """Deep Q-network, for discrete actions.

    Regresses Q(s, a) to r + gamma max_a' Q_target(s', a') on transitions drawn uniformly from a replay (Mnih et al.
    2015, algorithm 1); with `double`, the online network chooses a' (van Hasselt et al. 2016, equation 4).

    Args:
      learning_rate: Adam's step size, > 0.
      gamma: discount, in [0, 1].
      epsilon_start: probability of a random action at the first step, in [0, 1].
      epsilon_final: the same once it has decayed, in [0, 1].
      epsilon_decay_steps: environment steps over which epsilon falls linearly from the one to the other.
      replay_size: transitions that the replay holds; a multiple of num_envs * rollout_length.
      batch_size: transitions in each gradient step.
      warmup_steps: environment steps before the first gradient step.
      target_update_every: environment steps between updates of the target network.
      tau: how far each of these moves the target towards the online network, in (0, 1]; 1 copies it.
      double: whether the online network chooses the action that the target network values.
      loss: of the temporal-difference error: huber or squared.
      max_grad_norm: global norm that the gradient is clipped to, > 0.
      num_envs: environments that run in parallel.
      rollout_length: steps taken in each environment between updates.
      gradient_steps: gradient steps in each update.
      hidden_sizes: units of each fully connected layer.
      activation: of the hidden layers: tanh, relu, swish, elu or gelu.
      torso: mlp, cnn, or auto, which takes a cnn where observations are images.

    Returns:
      an `Agent`; its metrics are loss, q_mean (over the batch's actions) and epsilon. During the warm-up the first two
      are 0.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.

    Example:
      >>> dqn(double=True, tau=0.01, target_update_every=1).rollout_length
      1
    """
    checks.number("dqn", 0, open_low=True, learning_rate=learning_rate, max_grad_norm=max_grad_norm)
    checks.number("dqn", 0, 1, gamma=gamma, epsilon_start=epsilon_start, epsilon_final=epsilon_final)
    checks.number("dqn", 0, 1, open_low=True, tau=tau)
    checks.integer("dqn", epsilon_decay_steps=epsilon_decay_steps, replay_size=replay_size, batch_size=batch_size)
    checks.integer("dqn", target_update_every=target_update_every, warmup_steps=warmup_steps)
    checks.integer("dqn", num_envs=num_envs, rollout_length=rollout_length, gradient_steps=gradient_steps)
    checks.integer("dqn", **{f"hidden_sizes[{i}]": n for i, n in enumerate(hidden_sizes)})
    checks.one_of("dqn", LOSSES, loss=loss)
    checks.one_of("dqn", ACTIVATIONS, activation=activation)
    added = num_envs * rollout_length
    if replay_size % added:
        raise checks.JaxrlError(
            f"dqn: replay_size={replay_size} is not accepted; it must be a multiple of num_envs * rollout_length, "
            f"which is {added}"
        )
    if batch_size > replay_size:
        raise checks.JaxrlError(
            f"dqn: batch_size={batch_size} is not accepted; it must be at most replay_size={replay_size}"
        )
    replay = uniform(capacity=replay_size, batch_size=batch_size)
    optimizer = optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.adam(learning_rate))
    epsilon_at = optax.linear_schedule(epsilon_start, epsilon_final, epsilon_decay_steps)

    def network(spec: Spec) -> QNetwork:
        return QNetwork(make_torso("dqn", spec, torso, hidden_sizes, activation)(), spec.action_space.n)

    def init(key: Key, spec: Spec) -> DQNState:
        if not isinstance(spec.action_space, Discrete):
            raise checks.JaxrlError(
                f"dqn: {spec.id} has continuous actions; it needs discrete ones (discretize_actions=n makes n levels "
                "of a torque), or use ppo"
            )
        obs = jnp.zeros(spec.obs_space.shape, spec.obs_space.dtype)
        params = network(spec).init(key, obs[None])
        item = Item(obs, jnp.int32(0), jnp.float32(0), jnp.bool(False), obs)
        return DQNState(spec, params, jax.tree.map(jnp.copy, params), optimizer.init(params), replay.init(item))

    def act(state: DQNState, memory: PyTree, obs: Array, key: Key, step: Array, explore: bool = True):
        q_values = network(state.spec).apply(state.params, obs)
        return epsilon_greedy(key, q_values, epsilon_at(step) if explore else 0.0), memory, {}

    def td_loss(params: PyTree, target_params: PyTree, batch: Item, spec: Spec) -> tuple[Array, Array]:
        apply = network(spec).apply
        next_q = apply(target_params, batch.next_obs)  # [B, num_actions]
        if double:
            next_value = _take(next_q, jnp.argmax(apply(params, batch.next_obs), axis=-1))
        else:
            next_value = next_q.max(axis=-1)
        target = batch.reward + gamma * (1.0 - batch.terminated) * next_value
        # First the target, then the rest: neither network's activations are in memory together with the other's.
        target, params = jax.lax.optimization_barrier((target, params))
        q = _take(apply(params, batch.obs), batch.action)
        return LOSSES[loss](q, jax.lax.stop_gradient(target)).mean(), q.mean()

    def update(state: DQNState, trajectory: Transition, key: Key, step: Array) -> tuple[DQNState, Metrics]:
        items = Item(*(getattr(trajectory, name) for name in Item._fields))
        items = jax.tree.map(lambda x: x.reshape(added, *x.shape[2:]), items)  # [T, N, ...] -> [T * N, ...]
        memory = replay.add(state.replay, items, step)
        seen = step + added

        def learn(carry: tuple[PyTree, PyTree], key: Key):
            params, opt_state = carry
            batch = replay.sample(memory, key, seen).items
            gradient = jax.value_and_grad(td_loss, has_aux=True)
            (value, q), grads = gradient(params, state.target_params, batch, state.spec)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), (value, q)

        # Neither branch carries the replay: a branch that did would copy it.
        (params, opt_state), (losses, qs) = jax.lax.cond(
            seen >= warmup_steps,
            lambda carry: jax.lax.scan(learn, carry, jax.random.split(key, gradient_steps)),
            lambda carry: (carry, (jnp.zeros(gradient_steps), jnp.zeros(gradient_steps))),
            (state.params, state.opt_state),
        )
        target_params = jax.lax.cond(
            seen // target_update_every != step // target_update_every,
            lambda: optax.incremental_update(params, state.target_params, tau),
            lambda: state.target_params,
        )
        metrics = {"loss": losses.mean(), "q_mean": qs.mean(), "epsilon": epsilon_at(step)}
        return DQNState(state.spec, params, target_params, opt_state, memory), metrics

    return Agent(init, act, update, num_envs, rollout_length, name="dqn")


def _take(values: Array, actions: Array) -> Array:
    """The values of the actions taken: `[B, A], [B] -> [B]`. A mask's gradient is a product, a gather's a scatter."""
    taken = jnp.arange(values.shape[-1]) == actions[:, None]
    return jnp.sum(jnp.where(taken, values, 0.0), axis=-1)
