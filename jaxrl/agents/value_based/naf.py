"""Normalized advantage functions: Q-learning with continuous actions (Gu et al. 2016)."""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jaxrl import checks
from jaxrl.constructors import agent_constructor
from jaxrl.learning import value_regression
from jaxrl.learning.action_noise import check_noise, make_action_noise
from jaxrl.learning.action_scale import check_bounded, from_action_space, to_action_space
from jaxrl.learning.experience import ReplayState, make_experience
from jaxrl.learning.value_heads import LOSSES
from jaxrl.learning.value_regression import Loss
from jaxrl.networks import make_torso, orthogonal
from jaxrl.networks.actor_critic import check_network
from jaxrl.networks.module import Module
from jaxrl.replay import Replay
from jaxrl.replay.n_step import NStep
from jaxrl.types import Agent, Array, Key, PyTree, Spec


class Quadratic(NamedTuple):
    """A state's action values: the greatest of them, where it lies, and how they fall off around it.

    Attributes:
      value: V, `[...]`.
      mean: mu, `[..., A]`, in [-1, 1].
      tril: L, `[..., A, A]`, lower-triangular with a positive diagonal.
    """

    value: Array
    mean: Array
    tril: Array


def q_value(quadratic: Quadratic, action: Array) -> Array:
    """Q(s, a) = V(s) - 1/2 (a - mu(s))^T P(s) (a - mu(s)) with P = L L^T (Gu et al. 2016, equations 5 and 6).

    Args:
      quadratic: of the states.
      action: `[..., A]`, in the units of mu.

    Returns:
      `[...]`.

    >>> float(q_value(Quadratic(jnp.array(3.0), jnp.array([0.5]), jnp.array([[2.0]])), jnp.array([1.5])))
    1.0
    """
    distance = jnp.einsum("...ij,...i->...j", quadratic.tril, action - quadratic.mean)  # L^T (a - mu)
    return quadratic.value - 0.5 * jnp.sum(jnp.square(distance), axis=-1)


class NAFNetwork(Module):
    """V, mu and L on one torso: `[..., obs] -> Quadratic`."""

    torso: Module
    action_size: int

    @nn.compact
    def __call__(self, obs: Array) -> Quadratic:
        features, size = self.torso(obs), self.action_size
        value = nn.Dense(1, kernel_init=orthogonal(1.0), name="value")(features)[..., 0]
        mean = nn.Dense(size, kernel_init=orthogonal(0.01), name="mean")(features)
        entries = nn.Dense(size * size, kernel_init=orthogonal(0.01), name="tril")(features)
        entries = entries.reshape((*entries.shape[:-1], size, size))  # [..., A * A] -> [..., A, A]
        # Masks, and not a scatter of A (A + 1) / 2 entries, whose gradient is a gather. Off the diagonal the exponent
        # is masked as well: what overflows there would come back from the gradient as NaN.
        diagonal = jnp.eye(size, dtype=bool)
        tril = jnp.where(diagonal, jnp.exp(jnp.where(diagonal, entries, 0.0)), jnp.tril(entries))
        return Quadratic(value, jnp.tanh(mean), tril)


@agent_constructor
def naf(
    *,
    learning_rate: float = 1e-3,
    noise: str = "gaussian",
    noise_scale: float = 0.5,
    noise_final: float = 0.1,
    noise_decay_steps: int = 20_000,
    noise_theta: float = 0.15,
    gamma: float = 0.99,
    n_step: int = 1,
    replay: str | Replay = "uniform",
    replay_size: int = 50_000,
    batch_size: int = 64,
    priority_alpha: float = 0.6,
    priority_beta: float = 0.4,
    priority_beta_steps: int = 100_000,
    hindsight: str = "none",
    warmup_steps: int = 1_000,
    replay_ratio: int | float = 1,
    normalize_observations: bool = False,
    num_envs: int = 1,
    rollout_length: int = 1,
    target_update_every: int = 1,
    tau: float = 0.005,
    loss: str = "squared",
    max_grad_norm: float = 10.0,
    hidden_sizes: tuple[int, ...] = (64, 64),
    activation: str = "tanh",
    torso: str = "auto",
) -> Agent:
    """Normalized advantage functions, for continuous actions between finite bounds.

    Regresses Q(s, a) to r + gamma V_target(s') on transitions drawn from a replay (Gu et al. 2016, algorithm 1 without
    its models), where Q is quadratic in the action, so that V(s) is its maximum and mu(s) the action that has it:
    Q(s, a) = V(s) - 1/2 (a - mu(s))^T P(s) (a - mu(s)), equations 5 and 6.

    mu lies in [-1, 1], which is mapped onto the bounds, and so do the noise and the units of P. What mu plus noise has
    beyond the bounds is cut off before the environment gets the action; the replay keeps the action that the
    environment got, and Q is learnt at that one.

    Args:
      learning_rate: Adam's step size, > 0.
      noise: what is added to mu in training: gaussian, drawn anew at each step, or ornstein_uhlenbeck, which wanders
        and starts from 0 in each episode.
      noise_scale: the noise's standard deviation at the first step, >= 0, where [-1, 1] are the bounds; that of
        Ornstein-Uhlenbeck noise is reached after some steps of an episode.
      noise_final: the same once it has decayed, >= 0.
      noise_decay_steps: environment steps over which it goes linearly from the one to the other; 0 keeps it constant.
      noise_theta: which part of Ornstein-Uhlenbeck noise is forgotten in each step, in (0, 1].
      gamma: discount, in [0, 1].
      n_step: environment steps whose rewards a target holds before it bootstraps.
      replay: uniform, prioritized (in proportion to the error) or ranked (by the error's rank; Schaul et al. 2016); in
        Python also a `Replay`, whose own sizes count in place of replay_size and batch_size.
      replay_size: steps that the replay holds; a multiple of num_envs * rollout_length.
      batch_size: samples in each gradient step; at most warmup_steps.
      priority_alpha: how much the priorities count, in [0, 1].
      priority_beta: how much of their bias the importance weights take away at the first step, in [0, 1].
      priority_beta_steps: environment steps over which that rises linearly to 1.
      hindsight: which goals take the place of the wanted ones in four fifths of a batch, where the environment has
        goals: none, future, final or episode (Andrychowicz et al. 2017).
      warmup_steps: environment steps before the first gradient step.
      replay_ratio: gradient steps for each environment step, of all environments together; it may be less than 1.
      normalize_observations: whether observations are scaled by the running mean and standard deviation of all so far;
        the replay keeps them as they are.
      num_envs: environments that run in parallel.
      rollout_length: steps taken in each environment between updates.
      target_update_every: environment steps between updates of the target network.
      tau: how far each of these moves the target towards the online network, in (0, 1]; 1 copies it.
      loss: of the temporal-difference error: huber or squared.
      max_grad_norm: global norm that the gradient is clipped to, > 0.
      hidden_sizes: units of each fully connected layer.
      activation: of the hidden layers: tanh, relu, swish, elu or gelu.
      torso: mlp, cnn, nature, or auto: nature for images of at least 36 x 36 pixels, cnn for smaller ones, else mlp.

    Returns:
      an `Agent`; its metrics are loss, q_mean (over the batch's actions) and noise (its scale). During the warm-up the
      first two are 0.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.

    Example:
      >>> naf(noise="ornstein_uhlenbeck").init_memory(2).shape
      (2, 64)
    """
    experience = make_experience(
        "naf", gamma=gamma, n_step=n_step, replay=replay, replay_size=replay_size, batch_size=batch_size,
        priority_alpha=priority_alpha, priority_beta=priority_beta, priority_beta_steps=priority_beta_steps,
        hindsight=hindsight, warmup_steps=warmup_steps, replay_ratio=replay_ratio,
        normalize_observations=normalize_observations, num_envs=num_envs, rollout_length=rollout_length,
    )  # fmt: skip
    check_network("naf", hidden_sizes, activation)
    checks.one_of("naf", LOSSES, loss=loss)
    optimizer = value_regression.clipped_adam("naf", learning_rate, max_grad_norm)
    wander = make_action_noise("naf", noise, noise_scale, noise_final, noise_decay_steps, theta=noise_theta)

    def network(spec: Spec) -> NAFNetwork:
        return NAFNetwork(make_torso("naf", spec, torso, hidden_sizes, activation)(), spec.action_space.shape[0])

    def init(key: Key, spec: Spec) -> ReplayState:
        check_bounded("naf", spec, "dqn")
        check_noise("naf", spec, noise)
        obs = jnp.zeros((1, *spec.obs_space.shape), spec.obs_space.dtype)
        params = network(spec).init(key, obs)
        return value_regression.init_state(experience, params, spec, optimizer)

    def act(state: ReplayState, policy_memory: PyTree, obs: Array, key: Key, step: Array, explore: bool = True):
        action = network(state.spec).apply(state.params, obs).mean
        if explore:
            action, policy_memory = wander.add(key, action, policy_memory, step)
        return to_action_space(action, state.spec.action_space), policy_memory, {}

    def target(params: PyTree, target_params: PyTree, batch: NStep, spec: Spec, key: Key) -> Array:
        return batch.reward + batch.discount * network(spec).apply(target_params, batch.next_obs).value

    def td_loss(params: PyTree, batch: NStep, target: Array, spec: Spec, key: Key) -> Loss:
        action = from_action_space(batch.action, spec.action_space)
        q = q_value(network(spec).apply(params, batch.obs), action)
        return Loss(LOSSES[loss](q, target), q - target, {"q_mean": q.mean()})

    learn = value_regression.regress_to_targets(
        experience, optimizer=optimizer, target=target, loss=td_loss, metrics=("q_mean",),
        target_update_every=target_update_every, tau=tau,
    )  # fmt: skip

    return experience.agent(init, act, learn, {"noise": wander.scale}, init_memory=wander.init_memory)
