"""Twin delayed deep deterministic policy gradients (Fujimoto et al. 2018)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import checks
from jaxrl.constructors import agent_constructor
from jaxrl.learning import off_policy
from jaxrl.learning.action_noise import check_noise, make_action_noise
from jaxrl.learning.action_scale import check_bounded, from_action_space, to_action_space
from jaxrl.learning.experience import Learner, Moment, ReplayState, make_experience
from jaxrl.learning.off_policy import descend, every
from jaxrl.networks import TanhPolicy, make_critics, make_torso
from jaxrl.networks.module import Module
from jaxrl.replay import Replay
from jaxrl.replay.n_step import NStep
from jaxrl.types import Agent, Array, Key, PyTree, Spec


class TD3Params(NamedTuple):
    """Of mu, and of all Q_i together; also of their optimisers."""

    actor: PyTree
    critics: PyTree


@agent_constructor
def td3(
    *,
    actor_learning_rate: float = 1e-3,
    critic_learning_rate: float = 1e-3,
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
    num_critics: int = 2,
    policy_delay: int = 2,
    target_update_every: int = 2,
    actor_target_update_every: int = 0,
    target_noise: float = 0.2,
    target_noise_clip: float = 0.5,
    noise: str = "gaussian",
    noise_scale: float = 0.1,
    noise_final: float = 0.1,
    noise_decay_steps: int = 0,
    noise_schedule: str = "linear",
    noise_theta: float = 0.15,
    random_warmup: bool = True,
    hidden_sizes: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    layer_norm: bool = False,
    torso: str = "auto",
) -> Agent:
    """TD3: a deterministic policy, improved along the gradient of an action's value; for actions between finite bounds.

    Three things keep the values from being overestimated (Fujimoto et al. 2018, algorithm 1): targets take the least of
    several critics, smooth the target policy's action with noise, and the policy changes more slowly than the critics.
    Policies, noises and critics count in [-1, 1], which is mapped onto the actions' bounds.

    Args:
      actor_learning_rate: Adam's step size for the policy, > 0.
      critic_learning_rate: Adam's step size for the critics, > 0.
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
      tau: how far an update moves a target network towards the online one, in (0, 1]; 1 copies it.
      num_critics: how many critics; targets take the least of their values.
      policy_delay: gradient steps of the critics to one of the policy.
      target_update_every: gradient steps between updates of the target networks.
      actor_target_update_every: the same for the policy's, where it differs; 0 if not.
      target_noise: standard deviation of the noise on the target policy's actions, >= 0.
      target_noise_clip: where that noise is cut off, >= 0.
      noise: of exploring, added to the policy's actions: gaussian or ornstein_uhlenbeck.
      noise_scale: its standard deviation at the first step, >= 0.
      noise_final: the same once it has decayed, >= 0.
      noise_decay_steps: environment steps over which it goes from the one to the other; 0 keeps it constant.
      noise_schedule: how: linear or exponential.
      noise_theta: which part of Ornstein-Uhlenbeck noise is forgotten in each step, in (0, 1].
      random_warmup: whether actions are drawn uniformly during the warm-up.
      hidden_sizes: units of each fully connected layer.
      activation: of the hidden layers: tanh, relu, swish, elu or gelu.
      layer_norm: whether the critics' layers are normalised (Ba et al. 2016).
      torso: mlp, cnn, nature, or auto: nature for images of at least 36 x 36 pixels, cnn for smaller ones, else mlp.

    Returns:
      an `Agent`; its metrics are critic_loss, q_mean (over the batch's actions) and noise (the scale of exploring).

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.
    """
    experience = make_experience(
        "td3", gamma=gamma, n_step=n_step, replay=replay, replay_size=replay_size, batch_size=batch_size,
        priority_alpha=priority_alpha, priority_beta=priority_beta, priority_beta_steps=priority_beta_steps,
        hindsight=hindsight, warmup_steps=warmup_steps, replay_ratio=replay_ratio,
        normalize_observations=normalize_observations, num_envs=num_envs, rollout_length=rollout_length,
    )  # fmt: skip
    off_policy.check_networks(
        "td3", hidden_sizes, activation, tau=tau, actor_learning_rate=actor_learning_rate, num_critics=num_critics,
        critic_learning_rate=critic_learning_rate, policy_delay=policy_delay, target_update_every=target_update_every,
        layer_norm=layer_norm,
    )  # fmt: skip
    checks.one_of("td3", (False, True), random_warmup=random_warmup)
    checks.integer("td3", 0, actor_target_update_every=actor_target_update_every)
    checks.number("td3", 0, target_noise=target_noise, target_noise_clip=target_noise_clip)
    exploring = make_action_noise(
        "td3", noise, noise_scale, noise_final, noise_decay_steps, noise_schedule, noise_theta
    )
    optimizers = TD3Params(optax.adam(actor_learning_rate), optax.adam(critic_learning_rate))

    def actor(spec: Spec) -> Module:
        return TanhPolicy(make_torso("td3", spec, torso, hidden_sizes, activation)(), spec.action_space.shape[0])

    def critics(spec: Spec, n: int = num_critics) -> Module:
        return make_critics("td3", spec, torso, hidden_sizes, activation, layer_norm=layer_norm)(n)

    def init(key: Key, spec: Spec) -> ReplayState:
        check_bounded("td3", spec, "dqn or discrete_sac")
        check_noise("td3", spec, noise)
        actor_key, critic_key = jax.random.split(key)
        obs, action = off_policy.examples(spec)
        params = TD3Params(actor(spec).init(actor_key, obs), critics(spec).init(critic_key, obs, action))
        return experience.init(off_policy.first_learner(params, params, optimizers), spec)

    def act(state: ReplayState, memory: PyTree, obs: Array, key: Key, step: Array, explore: bool = True):
        action = actor(state.spec).apply(state.params.actor, obs)
        if explore:
            noise_key, uniform_key = jax.random.split(key)
            action, memory = exploring.add(noise_key, action, memory, step)
            if random_warmup:
                action = off_policy.explore_at_first(uniform_key, action, step, experience.warmup_steps)
        return to_action_space(action, state.spec.action_space), memory, {}

    def gradient_step(spec: Spec, learner: Learner, batch: NStep, weights: Array, key: Key, moment: Moment):
        params, target, opt_state = learner
        action = from_action_space(batch.action, spec.action_space)
        smoothing = jnp.clip(target_noise * jax.random.normal(key, action.shape), -target_noise_clip, target_noise_clip)
        next_action = jnp.clip(actor(spec).apply(target.actor, batch.next_obs) + smoothing, -1.0, 1.0)
        next_q = critics(spec).apply(target.critics, batch.next_obs, next_action)  # [n, B]
        y = batch.reward + batch.discount * next_q.min(axis=0)

        def critic_loss(critic_params: PyTree):
            q = critics(spec).apply(critic_params, batch.obs, action)
            loss, errors = off_policy.squared_errors(q, y, weights)
            return loss, (errors, q.mean())

        def actor_loss(actor_params: PyTree):  # the policy goes up along the gradient of the first critic
            first = jax.tree.map(lambda x: x[:1], params.critics)
            return -critics(spec, 1).apply(first, batch.obs, actor(spec).apply(actor_params, batch.obs)).mean(), ()

        params, opt_state, loss, (errors, q_mean) = descend("critics", critic_loss, optimizers, params, opt_state)

        def improve():
            return descend("actor", actor_loss, optimizers, params, opt_state)[:2]

        params, opt_state = every(policy_delay, moment.count, improve, (params, opt_state))
        actor_period = actor_target_update_every or target_update_every
        target = TD3Params(
            off_policy.follow(actor_period, moment.count, params.actor, target.actor, tau),
            off_policy.follow(target_update_every, moment.count, params.critics, target.critics, tau),
        )
        return Learner(params, target, opt_state), errors, {"critic_loss": loss, "q_mean": q_mean}

    learn = experience.make_update(gradient_step, ("critic_loss", "q_mean"))

    return experience.agent(init, act, learn, {"noise": exploring.scale}, init_memory=exploring.init_memory)
