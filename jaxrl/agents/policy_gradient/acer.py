"""Actor-critic with experience replay, ACER, for discrete and continuous actions (Wang et al. 2017)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import checks
from jaxrl.constructors import agent_constructor
from jaxrl.learning.action_scale import to_action_space
from jaxrl.learning.experience import check_schedule, example_trajectory
from jaxrl.learning.optimizer import make_optimizer
from jaxrl.networks.acer import Critic, distribution, draw, make_critic, statistics
from jaxrl.networks.actor_critic import Policy, check_network, make_policy
from jaxrl.replay import uniform
from jaxrl.returns import retrace
from jaxrl.types import Agent, Array, Discrete, Key, Metrics, PyTree, Spec, Transition

KEPT: tuple[str, ...] = ("policy_action", "behaviour")  # what the replay keeps of what `act` reports


class ACERParams(NamedTuple):
    """Of the policy, theta; of the critic, theta_v."""

    policy: PyTree
    critic: PyTree


class Learner(NamedTuple):
    """Parameters, those of the average policy, theta_a, and the optimiser's state."""

    params: ACERParams
    average: PyTree
    opt_state: PyTree


class ACERState(NamedTuple):
    """The spec, which is static; what gradient steps change; the replay, `()` where nothing is replayed."""

    spec: Spec
    learner: Learner
    replay: PyTree

    @property
    def params(self) -> ACERParams:
        return self.learner.params


class Stretch(NamedTuple):
    """Consecutive steps, `[T, B, ...]`.

    Attributes:
      obs: x.
      action: a, the policy's, before it was mapped onto the environment's.
      behaviour: statistics of mu, the policy that acted.
      reward: float32.
      discount: gamma, and 0 where the step terminated.
      next_obs: the true successor.
      ended: bool, steps after which another episode, or nothing that counts, follows.
      valid: bool, steps that count.
    """

    obs: Array
    action: Array
    behaviour: Array
    reward: Array
    discount: Array
    next_obs: Array
    ended: Array
    valid: Array


def stretch(steps: Transition, gamma: Array | float, ended: Array, valid: Array) -> Stretch:
    """What the algorithm needs of some steps `[T, B, ...]`."""
    action, behaviour = (steps.extras[name] for name in KEPT)
    discount = gamma * (1.0 - steps.terminated)
    return Stretch(steps.obs, action, behaviour, steps.reward, discount, steps.next_obs, ended, valid)


def truncated_objective(
    policy: Any, actions: Array, log_ratios: Array, advantages: Array, weights: Array, clip: Array | float
) -> Array:
    """What has ACER's policy gradient, truncated and corrected, for its gradient (Wang et al. 2017, equation 9).

    ```
    min(c, rho(a)) A(a) log pi(a) + E_{a' ~ pi} [1 - c / rho(a')]_+ A(a') log pi(a')
    ```

    Its expectation over a ~ mu has the gradient of E_{a ~ pi} A(a), whatever c is.

    Args:
      policy: pi, of each state; the gradient goes through it alone, so the other arguments must be constants.
      actions: the one taken, a, and M for the expectation, a', `[1 + M, ...]`.
      log_ratios: log rho = log pi - log mu of each, `[1 + M, ...]`.
      advantages: of each, `[1 + M, ...]`.
      weights: of the M actions in the expectation, `[M, ...]`.
      clip: c, >= 0, may be infinite.

    Returns:
      `[...]`.
    """
    log_clip, log_probs = jnp.log(clip), policy.log_prob(actions)
    truncated = jnp.exp(jnp.minimum(log_ratios[0], log_clip))
    rest = jnp.maximum(0.0, 1.0 - jnp.exp(log_clip - log_ratios[1:]))
    taken, others = advantages[0] * log_probs[0], advantages[1:] * log_probs[1:]
    return truncated * taken + jnp.sum(weights * rest * others, axis=0)


def project(g: Array, k: Array, delta: Array | float) -> Array:
    """The z nearest to g with k^T z <= delta (Wang et al. 2017, equations 11 and 12).

    ```
    z = g - max(0, (k^T g - delta) / |k|^2) k
    ```

    Args:
      g: `[..., K]`.
      k: `[..., K]`.
      delta: >= 0.

    >>> project(jnp.array([3.0, 1.0]), jnp.array([2.0, 0.0]), 1.0).tolist()
    [0.5, 1.0]
    """
    excess = jnp.maximum(0.0, jnp.sum(k * g, axis=-1, keepdims=True) - delta)
    return g - excess / jnp.maximum(jnp.sum(k * k, axis=-1, keepdims=True), jnp.finfo(g.dtype).tiny) * k


@agent_constructor
def acer(
    *,
    learning_rate: float = 1e-3,
    anneal_steps: int = 0,
    optimizer: str = "adam",
    gamma: float = 0.99,
    retrace_lambda: float = 1.0,
    clip_rho: float = 10.0,
    trust_region: bool = True,
    trust_region_delta: float = 1.0,
    average_decay: float = 0.99,
    entropy_coef: float = 0.001,
    value_coef: float = 0.5,
    max_grad_norm: float = 10.0,
    replay_size: int = 51_200,
    replay_ratio: int = 4,
    batch_size: int = 16,
    warmup_steps: int = 1_000,
    num_envs: int = 16,
    rollout_length: int = 20,
    num_samples: int = 5,
    hidden_sizes: tuple[int, ...] = (64, 64),
    activation: str = "tanh",
    torso: str = "auto",
) -> Agent:
    """Actor-critic with experience replay, for discrete and continuous actions.

    Each update makes one gradient step on the trajectory that has just been collected, and `replay_ratio` steps on
    stretches of the same length from a replay (Wang et al. 2017, algorithm 1; there the number is drawn from a Poisson
    distribution with that mean, here it is fixed). A stretch ends early where its episode does. Every step is
    algorithm 2, or algorithm 3 for continuous actions, averaged over the steps of the batch:

    ```
    Q_ret[t] = r[t] + gamma (V(x[t+1]) + lambda min(1, rho[t+1]^(1/d)) (Q_ret[t+1] - Q(x[t+1], a[t+1])))
    g = grad_phi (min(c, rho) (Q_ret - V) log f(a | phi) + E_{a ~ pi} [1 - c / rho(a)]_+ (Q(a) - V) log f(a | phi)
                  + entropy_coef H(f(. | phi)))
    z = g - max(0, (k^T g - delta) / |k|^2) k,   k = grad_phi KL(f(. | phi_average) || f(. | phi))
    ```

    The policy's parameters go up z, the critic's down (Q_ret - Q)^2 / 2. rho = pi / mu is the ratio of the policy to
    the one that acted, whose statistics the replay keeps, and d = 1 for discrete actions. phi are the policy's
    statistics: of discrete actions the logits, where the paper takes probabilities, whose gradients have no bound.

    Continuous actions are drawn from a diagonal Gaussian whose standard deviation is learnt (in the paper, it is fixed)
    but does not depend on the state; where the bounds are finite, [-1, 1] of it is mapped onto them. Q is a stochastic
    dueling network, the expectation is of one action, and in g, Q_opc stands for Q_ret: it has 1 for the min of ratios.

    Args:
      learning_rate: the optimiser's step size, > 0.
      anneal_steps: environment steps over which the learning rate falls linearly to 0; 0 keeps it constant.
      optimizer: adam, rmsprop, or sgd with momentum.
      gamma: discount, in [0, 1].
      retrace_lambda: lambda of the targets, in [0, 1]; 1 in the paper.
      clip_rho: c, where importance weights are cut off in the policy gradient, >= 0; what is beyond is left to Q.
      trust_region: whether the gradient is kept from leading away from the average policy.
      trust_region_delta: how far it may, >= 0.
      average_decay: how much of the average policy is left after each gradient step, in [0, 1].
      entropy_coef: weight of the entropy bonus, >= 0.
      value_coef: weight of the critic's loss, >= 0.
      max_grad_norm: global norm that the gradient is clipped to, > 0.
      replay_size: steps that the replay holds; a multiple of num_envs * rollout_length.
      replay_ratio: gradient steps on replayed stretches in each update; may be 0.
      batch_size: stretches in each of these; at most warmup_steps.
      warmup_steps: environment steps before the first of them.
      num_envs: environments that run in parallel.
      rollout_length: steps taken in each environment between updates, and the length of a stretch.
      num_samples: actions drawn in each state for the stochastic dueling network; does not count for discrete ones.
      hidden_sizes: units of each fully connected layer.
      activation: of the hidden layers: tanh, relu, swish, elu or gelu.
      torso: mlp, cnn, nature, or auto: nature for images of at least 36 x 36 pixels, cnn for smaller ones, else mlp.

    Returns:
      an `Agent`; its metrics, of the step on the new trajectory, are value_loss, entropy, kl (of the average policy
      to the policy), projected (how much of the trajectory the trust region changed the gradient of) and truncated
      (how much of it had a ratio above clip_rho); and with replay_ratio the same as means over the replayed steps, as
      replay_value_loss and so on, which during the warm-up are 0.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.

    Example:
      >>> acer(num_envs=8, replay_size=16_000).rollout_length
      20
    """
    checks.number("acer", 0, 1, gamma=gamma, retrace_lambda=retrace_lambda, average_decay=average_decay)
    checks.number("acer", 0, entropy_coef=entropy_coef, value_coef=value_coef)
    checks.number("acer", 0, clip_rho=clip_rho, trust_region_delta=trust_region_delta)
    checks.integer("acer", num_envs=num_envs, rollout_length=rollout_length, num_samples=num_samples)
    checks.integer("acer", 0, replay_ratio=replay_ratio)
    sizes = {"batch_size": batch_size, "replay_size": replay_size}
    check_schedule("acer", sizes, warmup_steps, num_envs * rollout_length)
    check_network("acer", hidden_sizes, activation)
    descent = make_optimizer("acer", optimizer, learning_rate, max_grad_norm, anneal_steps)
    replay = uniform(capacity=replay_size, batch_size=batch_size)

    def networks(spec: Spec) -> tuple[Policy, Critic]:
        policy = make_policy("acer", spec, torso, hidden_sizes, activation)
        return policy, make_critic("acer", spec, torso, hidden_sizes, activation)

    def init(key: Key, spec: Spec) -> ACERState:
        policy_key, critic_key, sample_key = jax.random.split(key, 3)
        actor, critic = networks(spec)
        obs = jnp.zeros((1, *spec.obs_space.shape), spec.obs_space.dtype)
        policy_params = actor.init(policy_key, obs)
        policy = actor.apply(policy_params, obs)
        actions = policy.sample(seed=sample_key, sample_shape=(1,))
        params = ACERParams(policy_params, critic.init(critic_key, obs, policy, actions, actions))
        learner = Learner(params, jax.tree.map(jnp.copy, policy_params), descent.init(params))
        kept = dict(zip(KEPT, (actions[0, 0], statistics(policy)[0]), strict=True))
        example = example_trajectory(spec, (rollout_length, num_envs), kept)
        return ACERState(spec, learner, replay.init(example, spec) if replay_ratio else ())

    def act(state: ACERState, memory: PyTree, obs: Array, key: Key, step: Array, explore: bool = True):
        policy = networks(state.spec)[0].apply(state.params.policy, obs)
        action = policy.sample(seed=key) if explore else policy.mode()
        extras = dict(zip(KEPT, (action, statistics(policy)), strict=True))
        return to_action_space(action, state.spec.action_space), memory, extras

    def gradient(params: ACERParams, average: PyTree, batch: Stretch, spec: Spec, key: Key):
        """What the parameters go down in one step of algorithm 2 or 3, and its metrics."""
        (actor, critic), space = networks(spec), spec.action_space
        discrete, valid = isinstance(space, Discrete), batch.valid
        num_valid = jnp.maximum(valid.sum(), 1)  # in a replay even a stretch's first step may not count
        phi, policy_pullback = jax.vjp(lambda p: statistics(actor.apply(p, batch.obs)), params.policy)
        policy, behaviour = distribution(phi, space), distribution(batch.behaviour, space)
        others, weights, samples = draw(key, policy, num_samples)
        actions = jnp.concatenate([batch.action[None], others])  # [1 + M, T, B, ...]
        log_rhos = policy.log_prob(actions) - behaviour.log_prob(actions)  # [1 + M, T, B]

        def evaluate(critic_params: PyTree):
            value, q = critic.apply(critic_params, batch.obs, policy, actions, samples)
            return (value, q[0]), q[1:]

        (value, q), critic_pullback, other_q = jax.vjp(evaluate, params.critic, has_aux=True)
        next_policy = actor.apply(params.policy, batch.next_obs)
        next_value = critic.apply(params.critic, batch.next_obs, next_policy, method="value")

        def target(log_rho: Array) -> Array:  # equation 5
            next_q, next_log_rho = (jnp.roll(x, -1, axis=0) for x in (q, log_rho))  # at the end they do not count
            return retrace(
                q, next_value, next_q, batch.reward, batch.discount, next_log_rho, retrace_lambda, batch.ended
            )

        q_ret = target(log_rhos[0] if discrete else log_rhos[0] / space.shape[0])
        q_opc = q_ret if discrete else target(jnp.zeros_like(q))
        advantages = jnp.concatenate([q_opc[None], other_q]) - value

        def objective(phi: Array) -> Array:  # equation 10, or 16
            f = distribution(phi, space)
            gain = truncated_objective(f, actions, log_rhos, advantages, weights, clip_rho)
            return jnp.sum(gain + entropy_coef * f.entropy())

        def divergence(phi: Array) -> Array:
            return actor.apply(average, batch.obs).kl_divergence(distribution(phi, space))

        g = z = jax.grad(objective)(phi)
        if trust_region:
            z = project(g, jax.grad(lambda phi: divergence(phi).sum())(phi), trust_region_delta)  # equation 12
        error = q - q_ret  # equation 6
        value_error = jnp.zeros_like(q) if discrete else jnp.exp(jnp.minimum(log_rhos[0], 0.0)) * error  # equation 14

        def mean_slope(x: Array) -> Array:
            return jnp.where(valid, x, 0.0) / num_valid

        (policy_grads,) = policy_pullback(-jax.vmap(mean_slope, -1, -1)(z))
        (critic_grads,) = critic_pullback((value_coef * mean_slope(value_error), value_coef * mean_slope(error)))
        metrics = {
            "value_loss": 0.5 * jnp.square(error),
            "entropy": policy.entropy(),
            "kl": divergence(phi),
            "projected": jnp.any(z != g, axis=-1),
            "truncated": log_rhos[0] > jnp.log(clip_rho),
        }
        metrics = {name: jnp.sum(x, where=valid) / num_valid for name, x in metrics.items()}
        return ACERParams(policy_grads, critic_grads), metrics

    def update(state: ACERState, trajectory: Transition, key: Key, step: Array) -> tuple[ACERState, Metrics]:
        new_key, replay_key = jax.random.split(key)

        def learn(carry: Learner, batch: Stretch, key: Key) -> tuple[Learner, Metrics]:
            grads, metrics = gradient(carry.params, carry.average, batch, state.spec, key)
            params, opt_state = descent.step(carry.params, carry.opt_state, grads, step)
            average = optax.incremental_update(params.policy, carry.average, 1.0 - average_decay)
            return Learner(params, average, opt_state), metrics

        trajectory = trajectory._replace(extras={name: trajectory.extras[name] for name in KEPT})
        ended = trajectory.terminated | trajectory.truncated
        learner, metrics = learn(state.learner, stretch(trajectory, gamma, ended, jnp.ones_like(ended)), new_key)
        if not replay_ratio:
            return ACERState(state.spec, learner, ()), metrics
        memory, seen = replay.add(state.replay, trajectory, step), step + ended.size

        def learn_again(learner: Learner, key: Key) -> tuple[Learner, Metrics]:
            sample_key, learn_key = jax.random.split(key)
            sample = replay.sample(memory, sample_key, seen, rollout_length)
            steps, valid = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (sample.steps, sample.valid))  # to [T, B, ...]
            last = ~jnp.concatenate([valid[1:], jnp.zeros_like(valid[:1])])
            return learn(learner, stretch(steps, gamma, last, valid), learn_key)

        # Neither branch carries the replay: a branch that did would copy it.
        learner, again = jax.lax.cond(
            seen >= warmup_steps,
            lambda learner, keys: jax.lax.scan(learn_again, learner, keys),
            lambda learner, keys: (learner, jax.tree.map(lambda x: jnp.zeros(len(keys), x.dtype), metrics)),
            learner,
            jax.random.split(replay_key, replay_ratio),
        )
        again = {f"replay_{name}": x.mean() for name, x in again.items()}
        return ACERState(state.spec, learner, memory), metrics | again

    def interrupt(state: ACERState, step: Array) -> ACERState:
        return state._replace(replay=replay.interrupt(state.replay, step)) if replay_ratio else state

    return Agent(
        init, act, update, num_envs, rollout_length, name="acer", tolerates_stale_actions=True, interrupt=interrupt
    )
