"""Soft actor-critic for discrete actions (Christodoulou 2019)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import optax

from jaxrl import checks
from jaxrl.agents.off_policy.sac import METRICS, POLICY_VALUES, SACParams
from jaxrl.constructors import agent_constructor
from jaxrl.learning import off_policy
from jaxrl.learning.experience import Learner, Moment, ReplayState, make_experience
from jaxrl.learning.off_policy import descend
from jaxrl.learning.temperature import Temperature, check_temperature, make_temperature
from jaxrl.losses import take
from jaxrl.networks import make_discrete_critics, make_policy, make_torso
from jaxrl.networks.module import Module
from jaxrl.networks.q_network import num_actions
from jaxrl.replay import Replay
from jaxrl.replay.n_step import NStep
from jaxrl.types import Agent, Array, Discrete, Key, Metrics, PyTree, Spec


@agent_constructor
def discrete_sac(
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
    target_entropy_ratio: float = 0.7,
    num_critics: int = 2,
    critic_value: str = "min",
    target_update_every: int = 1,
    hidden_sizes: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    layer_norm: bool = False,
    torso: str = "auto",
) -> Agent:
    """Soft actor-critic for discrete actions: critics give the values of all actions, so nothing need be sampled.

    Maximises E[sum_t r_t + alpha H(pi(. | s_t))] as `sac` does, with the expectations over actions exact:

    ```
    V(s) = sum_a pi(a | s) (Q(s, a) - alpha log pi(a | s))
    ```

    (Christodoulou 2019, equation 10, algorithm 1). With n_step above 1 the entropies between do not count.

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
      target_entropy_ratio: where a learnt temperature holds the entropy, in units of the most there can be, log |A|; in
        [0, 1]. The paper's 0.98 suits few tasks: where it is out of reach, alpha grows without bound.
      num_critics: how many critics.
      critic_value: what an action's value is of their several ones, for targets and for the policy: their min or mean.
      target_update_every: gradient steps between updates of the target critics.
      hidden_sizes: units of each fully connected layer.
      activation: of the hidden layers: tanh, relu, swish, elu or gelu.
      layer_norm: whether the critics' layers are normalised (Ba et al. 2016).
      torso: mlp, cnn, nature, or auto: nature for images of at least 36 x 36 pixels, cnn for smaller ones, else mlp.

    Returns:
      an `Agent`; its metrics are critic_loss, q_mean (over the batch's actions), entropy (of the policy, in the batch's
      next states) and temperature.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.
    """
    experience = make_experience(
        "discrete_sac", gamma=gamma, n_step=n_step, replay=replay, replay_size=replay_size, batch_size=batch_size,
        priority_alpha=priority_alpha, priority_beta=priority_beta, priority_beta_steps=priority_beta_steps,
        hindsight=hindsight, warmup_steps=warmup_steps, replay_ratio=replay_ratio,
        normalize_observations=normalize_observations, num_envs=num_envs, rollout_length=rollout_length,
    )  # fmt: skip
    off_policy.check_networks(
        "discrete_sac", hidden_sizes, activation, tau=tau, actor_learning_rate=actor_learning_rate,
        critic_learning_rate=critic_learning_rate, temperature_learning_rate=temperature_learning_rate,
        num_critics=num_critics, target_update_every=target_update_every, layer_norm=layer_norm,
    )  # fmt: skip
    check_temperature("discrete_sac", temperature, initial_temperature, final_temperature, temperature_steps)
    checks.number("discrete_sac", 0, 1, target_entropy_ratio=target_entropy_ratio)
    checks.one_of("discrete_sac", POLICY_VALUES, critic_value=critic_value)
    optimizers = SACParams(*map(optax.adam, (actor_learning_rate, critic_learning_rate, temperature_learning_rate)))

    def actor(spec: Spec) -> Module:
        return make_policy("discrete_sac", spec, torso, hidden_sizes, activation)

    def critics(spec: Spec) -> Module:
        critics = make_discrete_critics("discrete_sac", spec, torso, hidden_sizes, activation, layer_norm=layer_norm)
        return critics(num_critics)

    def entropy_of(spec: Spec) -> Temperature:
        return make_temperature(
            "discrete_sac", temperature, initial_temperature, final_temperature, temperature_steps,
            target_entropy_ratio * math.log(num_actions("discrete_sac", spec)),
            make_torso("discrete_sac", spec, torso, hidden_sizes, activation),
        )  # fmt: skip

    def init(key: Key, spec: Spec) -> ReplayState:
        if not isinstance(spec.action_space, Discrete):
            raise checks.JaxrlError(
                f"discrete_sac: {spec.id} has continuous actions; it needs discrete ones, or use sac"
            )
        actor_key, critic_key, alpha_key = jax.random.split(key, 3)
        obs = off_policy.examples(spec)[0]
        critic_params = critics(spec).init(critic_key, obs)
        params = SACParams(actor(spec).init(actor_key, obs), critic_params, entropy_of(spec).init(alpha_key, obs))
        return experience.init(off_policy.first_learner(params, critic_params, optimizers), spec)

    def act(state: ReplayState, memory: PyTree, obs: Array, key: Key, step: Array, explore: bool = True):
        policy = actor(state.spec).apply(state.params.actor, obs)
        if not explore:
            return policy.mode(), memory, {}
        policy_key, uniform_key = jax.random.split(key)
        drawn = jax.random.randint(uniform_key, obs.shape[:1], 0, num_actions("discrete_sac", state.spec))
        return jnp.where(step < experience.warmup_steps, drawn, policy.sample(seed=policy_key)), memory, {}

    def soft_value(log_pi: Array, q: Array, alpha: Array) -> Array:  # equation 10
        return jnp.sum(jnp.exp(log_pi) * (q - alpha[..., None] * log_pi), axis=-1)

    def gradient_step(
        spec: Spec, learner: Learner, batch: NStep, weights: Array, key: Key, moment: Moment
    ) -> tuple[Learner, Array, Metrics]:
        params, target, opt_state = learner
        entropy, combine = entropy_of(spec), POLICY_VALUES[critic_value]
        next_policy = actor(spec).apply(params.actor, batch.next_obs)
        next_q = combine(critics(spec).apply(target, batch.next_obs), axis=0)  # [n, B, |A|] -> [B, |A|]
        next_alpha = jnp.asarray(entropy.value(params.temperature, batch.next_obs, moment.begin))
        y = batch.reward + batch.discount * soft_value(next_policy.logits, next_q, next_alpha)

        def critic_loss(critic_params: PyTree):
            q = jax.vmap(take, (0, None))(critics(spec).apply(critic_params, batch.obs), batch.action)
            loss, errors = off_policy.squared_errors(q, y, weights)
            return loss, (errors, q.mean())

        params, opt_state, loss, (errors, q_mean) = descend("critics", critic_loss, optimizers, params, opt_state)
        q = combine(critics(spec).apply(params.critics, batch.obs), axis=0)
        alpha = jnp.asarray(entropy.value(params.temperature, batch.obs, moment.begin))

        def actor_loss(actor_params: PyTree):  # equation 12
            policy = actor(spec).apply(actor_params, batch.obs)
            return -soft_value(policy.logits, q, alpha).mean(), policy.entropy()

        params, opt_state, _, entropies = descend("actor", actor_loss, optimizers, params, opt_state)

        def temperature_loss(temperature: PyTree):  # equation 11
            return entropy.loss(temperature, batch.obs, moment.begin, entropies), ()

        params, opt_state, *_ = descend("temperature", temperature_loss, optimizers, params, opt_state)
        target = off_policy.follow(target_update_every, moment.count, params.critics, target, tau)
        values = (loss, q_mean, next_policy.entropy().mean(), alpha.mean())
        return Learner(params, target, opt_state), errors, dict(zip(METRICS, values, strict=True))

    return experience.agent(init, act, experience.make_update(gradient_step, METRICS))
