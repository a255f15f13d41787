"""Diversity is all you need: skills that are learnt without a reward (Eysenbach et al. 2019)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrl import checks
from jaxrl.agents.off_policy.sac import METRICS as SAC_METRICS
from jaxrl.agents.off_policy.sac import soft_actor_critic
from jaxrl.constructors import agent_constructor
from jaxrl.learning.action_scale import check_bounded
from jaxrl.learning.experience import Learner, Moment, ReplayState, make_experience
from jaxrl.learning.off_policy import descend
from jaxrl.networks import MLP, Policy, PolicyHead
from jaxrl.networks.torsos import as_floats, holds_pixels
from jaxrl.replay import Replay, Sample
from jaxrl.types import Agent, Array, Box, Discrete, Key, PyTree, Spec, box

NOT_DRAWN = -1
METRICS: tuple[str, ...] = ("skill_reward", "discriminator_loss", "accuracy")


class DIAYNParams(NamedTuple):
    """Of all that SAC learns, and of q; also of their optimisers."""

    sac: PyTree
    discriminator: PyTree


def joined(spec: Spec, num_skills: int) -> Spec:
    """The spec of what policy and critics see: an observation, and one number for each skill."""
    return spec._replace(obs_space=box(-np.inf, np.inf, (spec.obs_space.shape[0] + num_skills,)), goal=None)


def join(obs: Array, skill: Array, num_skills: int) -> Array:
    """Observations, float32 `[..., D]`, with their skills `[...]`: `[..., D + num_skills]`."""
    return jnp.concatenate([obs, jax.nn.one_hot(skill, num_skills)], axis=-1)


@agent_constructor
def diayn(
    *,
    num_skills: int = 10,
    reward_weight: float = 0.0,
    discriminator_observes: tuple[int, ...] = (),
    discriminator_learning_rate: float = 3e-4,
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
    temperature: str = "fixed",
    initial_temperature: float = 0.1,
    target_entropy: float = -1.0,
    num_critics: int = 2,
    hidden_sizes: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    layer_norm: bool = False,
) -> Agent:
    """Learns skills which lead to states that tell them apart; for actions between finite bounds, observed vectors.

    Each episode has a skill z, drawn uniformly as it begins, that policy and critics see. The reward is what the state
    that a step leads to tells of it to a discriminator q, which learns from the same batches:

    ```
    r = log q(z | s') - log p(z) + reward_weight * (the environment's reward)
    ```

    (Eysenbach et al. 2019, equation 3, algorithm 1). It is computed when a step is replayed, by q as it then is.
    Soft actor-critic maximises it. Greedy episodes draw their skill, too: `evaluate` averages over skills.

    Args:
      num_skills: how many skills, at least 2.
      reward_weight: how much the environment's reward counts beside the discriminator's, >= 0.
      discriminator_observes: which entries of an observation the discriminator sees, such as a position; () is all.
      discriminator_learning_rate: Adam's step size for the discriminator, > 0.
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
      temperature: alpha: fixed, auto (learnt) or state (learnt, as a function of the state).
      initial_temperature: alpha at the first step, > 0.
      target_entropy: where a learnt temperature holds the entropy, for each dimension of the actions.
      num_critics: how many critics.
      hidden_sizes: units of each fully connected layer, the discriminator's too.
      activation: of the hidden layers: tanh, relu, swish, elu or gelu.
      layer_norm: whether the critics' layers are normalised.

    Returns:
      an `Agent`; its metrics: those of `sac`, skill_reward (r without the environment's), discriminator_loss, accuracy.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.
    """
    experience = make_experience(
        "diayn", gamma=gamma, n_step=n_step, replay=replay, replay_size=replay_size, batch_size=batch_size,
        priority_alpha=priority_alpha, priority_beta=priority_beta, priority_beta_steps=priority_beta_steps,
        hindsight=hindsight, warmup_steps=warmup_steps, replay_ratio=replay_ratio,
        normalize_observations=normalize_observations, num_envs=num_envs, rollout_length=rollout_length,
    )  # fmt: skip
    checks.integer("diayn", 2, num_skills=num_skills)
    checks.number("diayn", 0, reward_weight=reward_weight)
    entries = {f"discriminator_observes[{i}]": x for i, x in enumerate(discriminator_observes)}
    checks.integer("diayn", 0, **entries)
    checks.number("diayn", 0, open_low=True, discriminator_learning_rate=discriminator_learning_rate)
    inner = soft_actor_critic(
        "diayn", warmup_steps, actor_learning_rate=actor_learning_rate, critic_learning_rate=critic_learning_rate,
        temperature_learning_rate=temperature_learning_rate, tau=tau, num_critics=num_critics,
        hidden_sizes=hidden_sizes, activation=activation, layer_norm=layer_norm, temperature=temperature,
        initial_temperature=initial_temperature, final_temperature=0.0, temperature_steps=1,
        target_entropy=target_entropy, target_critics=0, policy_value="min", policy_delay=1, target_update_every=1,
        dropout=0.0, torso="auto",
    )  # fmt: skip

    discriminator = Policy(MLP(hidden_sizes, activation), PolicyHead(Discrete(num_skills)))
    optimizers = DIAYNParams((), optax.adam(discriminator_learning_rate))  # SAC has its own

    def guess(params: PyTree, obs: Array) -> Any:  # q(. | s)
        return discriminator.apply(params, obs[..., np.array(discriminator_observes)] if entries else obs)

    def init(key: Key, spec: Spec) -> ReplayState:
        check_bounded("diayn", spec, "discrete_sac or dqn")
        space = spec.obs_space
        if not isinstance(space, Box) or len(space.shape) != 1:
            raise checks.JaxrlError(f"diayn: {spec.id} has {space} observations; it needs vectors of numbers")
        checks.one_of("diayn", range(space.shape[0]), **entries)
        sac_key, q_key = jax.random.split(key)
        inside = inner.init(sac_key, joined(spec, num_skills))
        q = discriminator.init(q_key, jnp.zeros((1, len(discriminator_observes) or space.shape[0])))
        opt_state = DIAYNParams(inside.opt_state, optimizers.discriminator.init(q))
        learner = Learner(DIAYNParams(inside.params, q), inside.target_params, opt_state)
        # Where any step may be truncated the replay keeps what followed each, terminal ones too: q is asked about it.
        spec = spec if spec.goal else spec._replace(truncates_early=True)
        return experience.init(learner, spec, {"skill": jnp.int32(0)})

    def act(state: ReplayState, memory: Array, obs: Array, key: Key, step: Array, explore: bool = True):
        skill_key, key = jax.random.split(key)
        drawn = jax.random.randint(skill_key, memory.shape, 0, num_skills)
        skill = jnp.where(memory == NOT_DRAWN, drawn, memory)
        inside = state._replace(spec=joined(state.spec, num_skills), params=state.params.sac)
        obs = as_floats(obs, holds_pixels(state.spec.obs_space))
        action, _, extras = inner.act(inside, (), join(obs, skill, num_skills), key, step, explore)
        return action, skill, extras | {"skill": skill}

    def init_memory(num_envs: int) -> Array:
        return jnp.full(num_envs, NOT_DRAWN, jnp.int32)

    def gradient_step(spec: Spec, learner: Learner, sample: Sample, weights: Array, key: Key, moment: Moment):
        """SAC's with the skill's reward and observations that hold the skill, and the discriminator's own."""
        params, target, opt_state = learner
        steps, skill = sample.steps, sample.steps.extras["skill"]  # leaves [B, L, ...], [B, L]
        obs, next_obs = (as_floats(x, holds_pixels(spec.obs_space)) for x in (steps.obs, steps.next_obs))
        reward = guess(params.discriminator, next_obs).log_prob(skill) + math.log(num_skills)  # equation 3
        steps = steps._replace(
            obs=join(obs, skill, num_skills),
            reward=reward + reward_weight * steps.reward,
            next_obs=join(next_obs, skill, num_skills),
        )
        batch = experience.in_one(sample._replace(steps=steps))
        inside = Learner(params.sac, target, opt_state.sac)
        inside, errors, values = inner.gradient_step(joined(spec, num_skills), inside, batch, weights, key, moment)

        def discriminator_loss(params: PyTree):
            found = guess(params, next_obs[:, 0])
            return -jnp.mean(weights * found.log_prob(skill[:, 0])), jnp.mean(found.mode() == skill[:, 0])

        params, opt_state = params._replace(sac=inside.params), opt_state._replace(sac=inside.opt_state)
        params, opt_state, *found = descend("discriminator", discriminator_loss, optimizers, params, opt_state)
        learner = Learner(params, inside.target_params, opt_state)
        return learner, errors, values | dict(zip(METRICS, (reward[:, 0].mean(), *found), strict=True))

    learn = experience.make_update(
        gradient_step, (*SAC_METRICS, *METRICS), prepare=lambda sample: sample, extras=("skill",)
    )
    return experience.agent(init, act, learn, init_memory=init_memory)
