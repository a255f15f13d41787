"""Soft actor-critic with a learnt temperature (Haarnoja et al. 2018b)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import checks
from jaxrl.constructors import agent_constructor
from jaxrl.learning import off_policy
from jaxrl.learning.action_scale import check_bounded, from_action_space
from jaxrl.learning.experience import GradientStep, Learner, Moment, ReplayState, make_experience
from jaxrl.learning.off_policy import descend, every
from jaxrl.learning.temperature import Temperature, check_temperature, make_temperature
from jaxrl.networks import SquashedGaussian, make_critics, make_torso
from jaxrl.networks.module import Module
from jaxrl.replay import Replay
from jaxrl.replay.n_step import NStep
from jaxrl.types import Agent, Array, Key, Metrics, PyTree, Spec

METRICS: tuple[str, ...] = ("critic_loss", "q_mean", "entropy", "temperature")
POLICY_VALUES = {"min": jnp.min, "mean": jnp.mean}


class SACParams(NamedTuple):
    """Of pi, of all Q_i together, and of alpha; also of their optimisers."""

    actor: PyTree
    critics: PyTree
    temperature: PyTree


@agent_constructor
def sac(
    *,
    actor_learning_rate: float = 3e-4,
    critic_learning_rate: float = 3e-4,
    temperature_learning_rate: float = 3e-4,
    gamma: float = 0.99,
    n_step: int = 1,
    replay: str | Replay = "uniform",
    replay_size: int = 100_000,
    batch_size: int = 256,
    priority_alpha: float = 0.6,
    priority_beta: float = 0.4,
    priority_beta_steps: int = 100_000,
    hindsight: str = "none",
    warmup_steps: int = 1_000,
    replay_ratio: int | float = 1,
    normalize_observations: bool = False,
    num_envs: int = 1,
    rollout_length: int = 1,
    tau: float = 0.005,
    temperature: str = "auto",
    initial_temperature: float = 1.0,
    final_temperature: float = 0.0,
    temperature_steps: int = 100_000,
    target_entropy: float = -1.0,
    num_critics: int = 2,
    target_critics: int = 0,
    policy_value: str = "min",
    policy_delay: int = 1,
    target_update_every: int = 1,
    hidden_sizes: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    layer_norm: bool = False,
    dropout: float = 0.0,
    torso: str = "auto",
) -> Agent:
    """Soft actor-critic: a policy that earns reward and keeps its entropy; for actions between finite bounds.

    Maximises E[sum_t r_t + alpha H(pi(. | s_t))] (Haarnoja et al. 2018b, equation 1, algorithm 1). Everything counts in
    [-1, 1], which is mapped onto the actions' bounds. With n_step above 1 the entropies between do not count.

    Args:
      actor_learning_rate: Adam's step size for the policy, > 0.
      critic_learning_rate: Adam's step size for the critics, > 0.
      temperature_learning_rate: Adam's step size for the temperature's logarithm, > 0.
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
      warmup_steps: environment steps before the first gradient step, in which actions are drawn uniformly.
      replay_ratio: gradient steps for each environment step, of all environments together; it may be less than 1.
      normalize_observations: whether observations are scaled by the running mean and standard deviation of all so far;
        the replay keeps them as they are.
      num_envs: environments that run in parallel.
      rollout_length: steps taken in each environment between updates.
      tau: how far an update moves the target critics towards the online ones, in (0, 1]; 1 copies them.
      temperature: alpha: auto (learnt), state (learnt, as a function of the state) or fixed (by a linear schedule).
      initial_temperature: alpha at the first step, > 0.
      final_temperature: where its schedule ends, >= 0; 0 keeps it at the first.
      temperature_steps: environment steps that the schedule takes.
      target_entropy: where a learnt temperature holds the entropy, for each dimension of the actions.
      num_critics: how many critics.
      target_critics: of how many of them, drawn anew each time, a target takes the least value; 0 is all.
      policy_value: what the policy is improved on: the critics' min or mean.
      policy_delay: gradient steps of the critics to one of policy and temperature.
      target_update_every: gradient steps between updates of the target critics.
      hidden_sizes: units of each fully connected layer.
      activation: of the hidden layers: tanh, relu, swish, elu or gelu.
      layer_norm: whether the critics' layers are normalised (Ba et al. 2016).
      dropout: how much of each of the critics' layers is dropped in learning, in [0, 1) (Hiraoka et al. 2022).
      torso: mlp, cnn, nature, or auto: nature for images of at least 36 x 36 pixels, cnn for smaller ones, else mlp.

    Returns:
      an `Agent`; its metrics: critic_loss, q_mean (of the batch's actions), entropy (in its next states), temperature.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.
    """
    experience = make_experience(
        "sac", gamma=gamma, n_step=n_step, replay=replay, replay_size=replay_size, batch_size=batch_size,
        priority_alpha=priority_alpha, priority_beta=priority_beta, priority_beta_steps=priority_beta_steps,
        hindsight=hindsight, warmup_steps=warmup_steps, replay_ratio=replay_ratio,
        normalize_observations=normalize_observations, num_envs=num_envs, rollout_length=rollout_length,
    )  # fmt: skip
    parts = soft_actor_critic(
        "sac", warmup_steps, actor_learning_rate=actor_learning_rate, critic_learning_rate=critic_learning_rate,
        temperature_learning_rate=temperature_learning_rate, tau=tau, temperature=temperature,
        initial_temperature=initial_temperature, final_temperature=final_temperature,
        temperature_steps=temperature_steps, target_entropy=target_entropy, num_critics=num_critics,
        target_critics=target_critics, policy_value=policy_value, policy_delay=policy_delay,
        target_update_every=target_update_every, hidden_sizes=hidden_sizes, activation=activation,
        layer_norm=layer_norm, dropout=dropout, torso=torso,
    )  # fmt: skip

    def init(key: Key, spec: Spec) -> ReplayState:
        return experience.init(parts.init(key, spec), spec)

    return experience.agent(init, parts.act, experience.make_update(parts.gradient_step, METRICS))


class SoftActorCritic(NamedTuple):
    """What `sac` and DIAYN share: `init(key, spec) -> Learner`, `act` as of an `Agent`, and a `GradientStep`."""

    init: Callable[[Key, Spec], Learner]
    act: Callable[..., tuple[Array, PyTree, dict[str, PyTree]]]
    gradient_step: GradientStep


def soft_actor_critic(
    owner: str, warmup_steps: int, *,
    actor_learning_rate: Array | float, critic_learning_rate: Array | float, temperature_learning_rate: Array | float,
    tau: Array | float, temperature: str, initial_temperature: Array | float, final_temperature: Array | float,
    temperature_steps: int, target_entropy: Array | float, num_critics: int, target_critics: int, policy_value: str,
    policy_delay: int, target_update_every: int, hidden_sizes: tuple[int, ...], activation: str, layer_norm: bool,
    dropout: Array | float, torso: str,
) -> SoftActorCritic:  # fmt: skip
    """SAC without its experience, for an agent whose name errors begin with. The arguments are those of `sac`."""
    off_policy.check_networks(
        owner, hidden_sizes, activation, tau=tau, actor_learning_rate=actor_learning_rate, num_critics=num_critics,
        critic_learning_rate=critic_learning_rate, temperature_learning_rate=temperature_learning_rate,
        policy_delay=policy_delay, target_update_every=target_update_every, layer_norm=layer_norm,
    )  # fmt: skip
    checks.one_of(owner, POLICY_VALUES, policy_value=policy_value)
    checks.number(owner, target_entropy=target_entropy)
    checks.number(owner, 0, 0.99, dropout=dropout)
    checks.integer(owner, 0, target_critics=target_critics)
    checks.one_of(owner, range(num_critics + 1), target_critics=target_critics)
    check_temperature(owner, temperature, initial_temperature, final_temperature, temperature_steps)
    optimizers = SACParams(*map(optax.adam, (actor_learning_rate, critic_learning_rate, temperature_learning_rate)))

    def actor(spec: Spec) -> Module:
        return SquashedGaussian(make_torso(owner, spec, torso, hidden_sizes, activation)(), spec.action_space.shape[0])

    def q_values(params: PyTree, obs: Array, action: Array, spec: Spec, key: Key) -> Array:
        """Of as many critics as there are parameters of, `[n, B]`."""
        critics = make_critics(owner, spec, torso, hidden_sizes, activation, layer_norm=layer_norm, dropout=dropout)
        rngs = None if isinstance(dropout, int | float) and dropout == 0 else {"dropout": key}
        return critics(len(jax.tree.leaves(params)[0])).apply(params, obs, action, rngs=rngs)

    def entropy_of(spec: Spec) -> Temperature:
        return make_temperature(
            owner, temperature, initial_temperature, final_temperature, temperature_steps,
            target_entropy * spec.action_space.shape[0], make_torso(owner, spec, torso, hidden_sizes, activation),
        )  # fmt: skip

    def init(key: Key, spec: Spec) -> Learner:
        check_bounded(owner, spec, "discrete_sac or dqn")
        actor_key, critic_key, alpha_key = jax.random.split(key, 3)
        obs, action = off_policy.examples(spec)
        critics = make_critics(owner, spec, torso, hidden_sizes, activation, layer_norm=layer_norm)(num_critics)
        critic_params = critics.init(critic_key, obs, action)
        params = SACParams(actor(spec).init(actor_key, obs), critic_params, entropy_of(spec).init(alpha_key, obs))
        return off_policy.first_learner(params, critic_params, optimizers)

    def act(state: ReplayState, memory: PyTree, obs: Array, key: Key, step: Array, explore: bool = True):
        policy, space = actor(state.spec).apply(state.params.actor, obs), state.spec.action_space
        return off_policy.draw_action(policy, space, key, step, warmup_steps, explore), memory, {}

    def gradient_step(
        spec: Spec, learner: Learner, batch: NStep, weights: Array, key: Key, moment: Moment
    ) -> tuple[Learner, Array, Metrics]:
        params, target, opt_state = learner
        next_key, action_key, subset_key, *drop_keys = jax.random.split(key, 6)
        action, entropy = from_action_space(batch.action, spec.action_space), entropy_of(spec)
        next_action, next_log_prob = actor(spec).apply(params.actor, batch.next_obs).sample_and_log_prob(seed=next_key)
        chosen = off_policy.some_critics(subset_key, target, target_critics)
        next_q = q_values(chosen, batch.next_obs, next_action, spec, drop_keys[0]).min(axis=0)
        next_alpha = entropy.value(params.temperature, batch.next_obs, moment.begin)
        next_value = next_q - next_alpha * next_log_prob  # equation 3
        y = batch.reward + batch.discount * next_value  # equation 2

        def critic_loss(critic_params: PyTree):  # equation 5
            q = q_values(critic_params, batch.obs, action, spec, drop_keys[1])
            loss, errors = off_policy.squared_errors(q, y, weights)
            return loss, (errors, q.mean())

        params, opt_state, loss, (errors, q_mean) = descend("critics", critic_loss, optimizers, params, opt_state)
        alpha = entropy.value(params.temperature, batch.obs, moment.begin)

        def actor_loss(actor_params: PyTree):  # equation 9
            drawn, log_prob = actor(spec).apply(actor_params, batch.obs).sample_and_log_prob(seed=action_key)
            q = POLICY_VALUES[policy_value](q_values(params.critics, batch.obs, drawn, spec, drop_keys[2]), axis=0)
            return jnp.mean(alpha * log_prob - q), -log_prob

        def improve():
            moved, moved_opt, _, entropies = descend("actor", actor_loss, optimizers, params, opt_state)

            def temperature_loss(temperature: PyTree):  # equation 18
                return entropy.loss(temperature, batch.obs, moment.begin, entropies), ()

            return descend("temperature", temperature_loss, optimizers, moved, moved_opt)[:2]

        params, opt_state = every(policy_delay, moment.count, improve, (params, opt_state))
        target = off_policy.follow(target_update_every, moment.count, params.critics, target, tau)
        values = dict(zip(METRICS, (loss, q_mean, -next_log_prob.mean(), alpha.mean()), strict=True))
        return Learner(params, target, opt_state), errors, values

    return SoftActorCritic(init, act, gradient_step)
