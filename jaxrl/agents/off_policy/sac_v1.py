"""Soft actor-critic as it was published first, with a network of state values (Haarnoja et al. 2018a)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import checks
from jaxrl.constructors import agent_constructor
from jaxrl.learning import off_policy
from jaxrl.learning.action_scale import check_bounded, from_action_space
from jaxrl.learning.experience import Learner, Moment, ReplayState, make_experience
from jaxrl.learning.off_policy import descend
from jaxrl.learning.temperature import Temperature, check_temperature, make_temperature
from jaxrl.networks import SquashedGaussian, Value, make_critics, make_torso
from jaxrl.networks.module import Module
from jaxrl.replay import Replay
from jaxrl.replay.n_step import NStep
from jaxrl.types import Agent, Array, Key, Metrics, PyTree, Spec

METRICS: tuple[str, ...] = ("critic_loss", "value_loss", "q_mean", "entropy", "temperature")


class SACV1Params(NamedTuple):
    """Of pi, of all Q_i together, of V, and of alpha; also of their optimisers."""

    actor: PyTree
    critics: PyTree
    value: PyTree
    temperature: PyTree


@agent_constructor
def sac_v1(
    *,
    actor_learning_rate: float = 3e-4,
    critic_learning_rate: float = 3e-4,
    value_learning_rate: float = 3e-4,
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
    temperature: str = "fixed",
    initial_temperature: float = 0.2,
    final_temperature: float = 0.0,
    temperature_steps: int = 100_000,
    target_entropy: float = -1.0,
    num_critics: int = 2,
    target_update_every: int = 1,
    hidden_sizes: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    layer_norm: bool = False,
    torso: str = "auto",
) -> Agent:
    """The first soft actor-critic: critics learn from a state value, it from them; for actions between finite bounds.

    Maximises E[sum_t r_t + alpha H(pi(. | s_t))] (Haarnoja et al. 2018a, equation 1, algorithm 1). The paper scales its
    rewards and has no alpha; that is alpha = 1 / scale. V regresses to the least of the critics' values of an action
    that the policy draws, less alpha log pi, and has the only target network. Everything counts in [-1, 1], which is
    mapped onto the actions' bounds. With n_step above 1 the entropies between do not count.

    Args:
      actor_learning_rate: Adam's step size for the policy, > 0.
      critic_learning_rate: Adam's step size for the critics, > 0.
      value_learning_rate: Adam's step size for the state value, > 0.
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
      tau: how far an update moves the target of the state value towards the online one, in (0, 1]; 1 copies it.
      temperature: alpha: fixed (by a linear schedule), auto (learnt) or state (learnt, as a function of the state).
      initial_temperature: alpha at the first step, > 0.
      final_temperature: where its schedule ends, >= 0; 0 keeps it at the first.
      temperature_steps: environment steps that the schedule takes.
      target_entropy: where a learnt temperature holds the entropy, for each dimension of the actions.
      num_critics: how many critics.
      target_update_every: gradient steps between updates of the target network.
      hidden_sizes: units of each fully connected layer.
      activation: of the hidden layers: tanh, relu, swish, elu or gelu.
      layer_norm: whether the critics' layers, and the state value's, are normalised (Ba et al. 2016).
      torso: mlp, cnn, nature, or auto: nature for images of at least 36 x 36 pixels, cnn for smaller ones, else mlp.

    Returns:
      an `Agent`; its metrics are critic_loss, value_loss, q_mean (over the batch's actions), entropy (of the policy, in
      the batch's states) and temperature.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.
    """
    experience = make_experience(
        "sac_v1", gamma=gamma, n_step=n_step, replay=replay, replay_size=replay_size, batch_size=batch_size,
        priority_alpha=priority_alpha, priority_beta=priority_beta, priority_beta_steps=priority_beta_steps,
        hindsight=hindsight, warmup_steps=warmup_steps, replay_ratio=replay_ratio,
        normalize_observations=normalize_observations, num_envs=num_envs, rollout_length=rollout_length,
    )  # fmt: skip
    rates = {
        "actor_learning_rate": actor_learning_rate,
        "critic_learning_rate": critic_learning_rate,
        "value_learning_rate": value_learning_rate,
        "temperature_learning_rate": temperature_learning_rate,
    }
    off_policy.check_networks(
        "sac_v1", hidden_sizes, activation, tau=tau, num_critics=num_critics, target_update_every=target_update_every,
        layer_norm=layer_norm, **rates,
    )  # fmt: skip
    check_temperature("sac_v1", temperature, initial_temperature, final_temperature, temperature_steps)
    checks.number("sac_v1", target_entropy=target_entropy)
    optimizers = SACV1Params(*map(optax.adam, rates.values()))

    def actor(spec: Spec) -> Module:
        torso_of_actor = make_torso("sac_v1", spec, torso, hidden_sizes, activation)()
        return SquashedGaussian(torso_of_actor, spec.action_space.shape[0])

    def critics(spec: Spec) -> Module:
        return make_critics("sac_v1", spec, torso, hidden_sizes, activation, layer_norm=layer_norm)(num_critics)

    def value(spec: Spec) -> Module:
        return Value(make_torso("sac_v1", spec, torso, hidden_sizes, activation, layer_norm=layer_norm)())

    def entropy_of(spec: Spec) -> Temperature:
        return make_temperature(
            "sac_v1", temperature, initial_temperature, final_temperature, temperature_steps,
            target_entropy * spec.action_space.shape[0], make_torso("sac_v1", spec, torso, hidden_sizes, activation),
        )  # fmt: skip

    def init(key: Key, spec: Spec) -> ReplayState:
        check_bounded("sac_v1", spec, "discrete_sac or dqn")
        actor_key, critic_key, value_key, alpha_key = jax.random.split(key, 4)
        obs, action = off_policy.examples(spec)
        params = SACV1Params(
            actor(spec).init(actor_key, obs),
            critics(spec).init(critic_key, obs, action),
            value(spec).init(value_key, obs),
            entropy_of(spec).init(alpha_key, obs),
        )
        return experience.init(off_policy.first_learner(params, params.value, optimizers), spec)

    def act(state: ReplayState, memory: PyTree, obs: Array, key: Key, step: Array, explore: bool = True):
        policy, space = actor(state.spec).apply(state.params.actor, obs), state.spec.action_space
        return off_policy.draw_action(policy, space, key, step, experience.warmup_steps, explore), memory, {}

    def gradient_step(
        spec: Spec, learner: Learner, batch: NStep, weights: Array, key: Key, moment: Moment
    ) -> tuple[Learner, Array, Metrics]:
        params, target, opt_state = learner
        action, entropy = from_action_space(batch.action, spec.action_space), entropy_of(spec)
        alpha = entropy.value(params.temperature, batch.obs, moment.begin)
        y = batch.reward + batch.discount * value(spec).apply(target, batch.next_obs)  # equation 8

        def actor_loss(actor_params: PyTree):  # equation 12, with the action of equation 11
            drawn, log_prob = actor(spec).apply(actor_params, batch.obs).sample_and_log_prob(seed=key)
            soft_q = critics(spec).apply(params.critics, batch.obs, drawn).min(axis=0) - alpha * log_prob
            return -soft_q.mean(), (soft_q, -log_prob)

        def value_loss(value_params: PyTree):  # equation 5, in which the expectation is that one action
            return 0.5 * jnp.mean(weights * jnp.square(value(spec).apply(value_params, batch.obs) - soft_q)), ()

        def critic_loss(critic_params: PyTree):  # equation 7
            q = critics(spec).apply(critic_params, batch.obs, action)
            loss, errors = off_policy.squared_errors(q, y, weights)
            return loss, (errors, q.mean())

        def temperature_loss(temperature: PyTree):
            return entropy.loss(temperature, batch.obs, moment.begin, entropies), ()

        params, opt_state, _, (soft_q, entropies) = descend("actor", actor_loss, optimizers, params, opt_state)
        params, opt_state, q_loss, (errors, q_mean) = descend("critics", critic_loss, optimizers, params, opt_state)
        params, opt_state, v_loss, _ = descend("value", value_loss, optimizers, params, opt_state)
        params, opt_state, *_ = descend("temperature", temperature_loss, optimizers, params, opt_state)
        target = off_policy.follow(target_update_every, moment.count, params.value, target, tau)
        metrics = dict(zip(METRICS, (q_loss, v_loss, q_mean, entropies.mean(), alpha.mean()), strict=True))
        return Learner(params, target, opt_state), errors, metrics

    return experience.agent(init, act, experience.make_update(gradient_step, METRICS))
