"""Trust region policy optimisation (Schulman et al. 2015), and the natural policy gradient (Kakade 2001)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxrl import checks
from jaxrl.constructors import agent_constructor, preset
from jaxrl.learning.action_scale import to_action_space
from jaxrl.learning.advantages import explained_variance, whiten
from jaxrl.learning.baseline import make_baseline
from jaxrl.learning.episodes import whole
from jaxrl.learning.natural_gradient import (
    Trial,
    backtracking_search,
    conjugate_gradient,
    fisher_vector_product,
    step_size,
    whole_step,
)
from jaxrl.networks.actor_critic import Policy, check_network, make_policy
from jaxrl.returns import gae
from jaxrl.transforms.normalize import normalized
from jaxrl.types import Agent, Array, Key, Metrics, PyTree, Spec, Transition


class TRPOState(NamedTuple):
    """The spec, which is static; the policy's parameters; the baseline's state, `()` without one."""

    spec: Spec
    params: PyTree
    baseline: PyTree


@agent_constructor
def trpo(
    *,
    max_kl: float = 0.01,
    learning_rate: float = 0.0,
    line_search: bool = True,
    backtrack_ratio: float = 0.8,
    backtrack_steps: int = 15,
    damping: float = 0.1,
    cg_iterations: int = 10,
    gamma: float = 0.99,
    gae_lambda: float = 0.97,
    normalize_advantage: bool = True,
    baseline: str = "network",
    baseline_learning_rate: float = 1e-3,
    baseline_num_steps: int = 32,
    baseline_batch_size: int = 256,
    num_envs: int = 8,
    rollout_length: int = 500,
    hidden_sizes: tuple[int, ...] = (32, 32),
    activation: str = "tanh",
    torso: str = "auto",
    log_std: float = 0.0,
    normalize_observations: bool = False,
    normalize_rewards: bool = False,
) -> Agent:
    """Trust region policy optimisation, for discrete and continuous actions.

    One step for each batch of episodes, which all begin anew (Schulman et al. 2015, equation 14 and appendix C):

    ```
    maximise    L(theta) = E[pi(a | s) / pi_old(a | s) A(s, a)]
    subject to  E[KL(pi_old(. | s) || pi(. | s))] <= max_kl
    ```

    The direction s solves `F s = g` by conjugate gradients, with the gradient g of L and the Fisher matrix F; its
    length is what the bound admits to second order; a line search then shortens it until L has grown and the bound
    holds. Without the search it is the natural policy gradient. Advantages are by GAE (Schulman et al. 2016) from a
    baseline. Episodes run for rollout_length steps at most; one that begins later in an environment and is cut off
    there does not count. Continuous actions are drawn from a diagonal Gaussian whose standard deviation does not depend
    on the state; where the bounds are finite, [-1, 1] of it is mapped onto them.

    Args:
      max_kl: bound on the mean divergence of an update, > 0, in nats.
      learning_rate: length of the whole step in place of the bound's, theta + learning_rate s; 0 takes the bound's.
      line_search: whether the step is shortened until it passes; else all of it is taken.
      backtrack_ratio: what the search shortens the step by, in (0, 1).
      backtrack_steps: how often at most; if the step has not passed then, the policy stays as it is.
      damping: added to the Fisher matrix's diagonal, >= 0.
      cg_iterations: iterations of the conjugate gradients.
      gamma: discount, in [0, 1].
      gae_lambda: lambda of the advantage estimate, in [0, 1]; without a baseline it discounts returns beside gamma.
      normalize_advantage: whether the batch's advantages are brought to mean 0 and standard deviation 1.
      baseline: linear, in features of observation and time; network, of the policy's hidden layers; or none.
      baseline_learning_rate: the network's, > 0.
      baseline_num_steps: gradient steps of the network after each batch.
      baseline_batch_size: steps that each of these draws from the batch.
      num_envs: environments that run in parallel.
      rollout_length: the horizon: steps taken in each environment between updates.
      hidden_sizes: units of each fully connected layer.
      activation: of the hidden layers: tanh, relu, swish, elu or gelu.
      torso: mlp, cnn, nature, or auto: nature for images of at least 36 x 36 pixels, cnn for smaller ones, else mlp.
      log_std: of continuous actions, the logarithm of the standard deviation at first.
      normalize_observations: whether observations are scaled by their running mean and standard deviation.
      normalize_rewards: whether rewards are scaled by the running standard deviation of the discounted return.

    Returns:
      an `Agent`. Its metrics are, of the batch's episodes, return_mean, return_std, return_max, return_min and
      num_trajectories; entropy, and perplexity, its exponential, of the policy that acted; explained_variance, of the
      baseline before its fit, at least -1; kl_mean and kl_max over the batch's states, from that policy to the new one;
      loss_before and loss_after, -L; backtracks, how often the step was shortened; and accepted, 1 or 0.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.

    Example:
      >>> trpo(max_kl=0.02).num_envs
      8
    """
    checks.number("trpo", 0, open_low=True, max_kl=max_kl)
    checks.number("trpo", 0, learning_rate=learning_rate, damping=damping)
    checks.number("trpo", 0, 1, gamma=gamma, gae_lambda=gae_lambda)
    checks.number("trpo", log_std=log_std)
    checks.number("trpo", 0, 0.999, open_low=True, backtrack_ratio=backtrack_ratio)
    checks.integer("trpo", 0, backtrack_steps=backtrack_steps)
    checks.integer("trpo", cg_iterations=cg_iterations, num_envs=num_envs, rollout_length=rollout_length)
    check_network("trpo", hidden_sizes, activation)
    critic = make_baseline(
        "trpo",
        baseline,
        hidden_sizes=hidden_sizes,
        activation=activation,
        torso=torso,
        learning_rate=baseline_learning_rate,
        num_steps=baseline_num_steps,
        batch_size=baseline_batch_size,
    )

    def network(spec: Spec) -> Policy:
        return make_policy("trpo", spec, torso, hidden_sizes, activation, log_std=log_std)

    def init(key: Key, spec: Spec) -> TRPOState:
        policy = network(spec)
        policy_key, baseline_key = jax.random.split(key)
        obs = jnp.zeros((1, *spec.obs_space.shape), spec.obs_space.dtype)
        return TRPOState(spec, policy.init(policy_key, obs), critic.init(baseline_key, spec))

    def act(state: TRPOState, memory: PyTree, obs: Array, key: Key, step: Array, explore: bool = True):
        policy = network(state.spec).apply(state.params, obs)
        action = policy.sample(seed=key) if explore else policy.mode()
        return to_action_space(action, state.spec.action_space), memory, {"policy_action": action}

    def update(state: TRPOState, trajectory: Transition, key: Key, step: Array) -> tuple[TRPOState, Metrics]:
        spec, counts = state.spec, whole(trajectory)
        ended = trajectory.terminated | trajectory.truncated
        values, next_values = critic.values(state.baseline, trajectory, spec)
        discounts = gamma * (1.0 - trajectory.terminated)
        advantages, targets = gae(trajectory.reward, discounts, values, next_values, gae_lambda, ended)
        explained = explained_variance(values, targets, counts)
        if normalize_advantage:
            advantages = whiten(advantages, counts)

        start, unravel = ravel_pytree(state.params)
        policy, action = network(spec), trajectory.extras["policy_action"]
        old = policy.apply(state.params, trajectory.obs)
        old_log_prob = old.log_prob(action)

        def evaluate(params: Array) -> Trial:
            new = policy.apply(unravel(params), trajectory.obs)
            ratio = jnp.exp(new.log_prob(action) - old_log_prob)
            kl = old.kl_divergence(new)  # [T, N]
            loss = -(ratio * advantages).mean(where=counts)  # equation 14
            return Trial(loss, kl.mean(where=counts), kl.max(where=counts, initial=0))

        loss, gradient = jax.value_and_grad(lambda params: evaluate(params).loss)(start)
        fisher = fisher_vector_product(lambda params: evaluate(params).kl, start, damping)
        direction = conjugate_gradient(fisher, -gradient, cg_iterations)  # s, with F s = g
        longest = step_size(direction, fisher(direction), max_kl)  # beta = sqrt(2 max_kl / (s^T F s))
        change = jnp.where(learning_rate > 0, learning_rate, longest) * direction
        if line_search:
            limits = {"max_kl": max_kl, "ratio": backtrack_ratio, "backtracks": backtrack_steps}
            found = backtracking_search(evaluate, start, loss, change, **limits)
        else:
            found = whole_step(evaluate, start, change)  # Kakade (2001), theta + alpha F^-1 g

        entropy = old.entropy().mean(where=counts)
        metrics = episode_returns(trajectory, counts) | {
            "entropy": entropy,
            "perplexity": jnp.exp(entropy),
            "explained_variance": explained,
            "kl_mean": found.trial.kl,
            "kl_max": found.trial.max_kl,
            "loss_before": loss,
            "loss_after": found.trial.loss,
            "backtracks": found.backtracks.astype(jnp.float32),
            "accepted": found.accepted.astype(jnp.float32),
        }
        fitted = critic.fit(state.baseline, trajectory, targets, counts, key, spec)
        return TRPOState(spec, unravel(found.params), fitted), metrics

    agent = Agent(init, act, update, num_envs, rollout_length, name="trpo", episodic=True)
    return normalized(agent, gamma, observations=normalize_observations, rewards=normalize_rewards)


def episode_returns(trajectory: Transition, counts: Array) -> Metrics:
    """How many episodes a trajectory counts, and mean, standard deviation and extremes of their undiscounted returns.

    Args:
      trajectory: leaves `[T, N, ...]`, with the loop's `episode_return` of unscaled rewards.
      counts: `episodes.whole` of it. An episode that is still going on at the end counts with its return so far.
    """
    last = (trajectory.terminated | trajectory.truncated).at[-1].set(True) & counts
    returns = trajectory.extras["episode_return"]
    return {
        "return_mean": returns.mean(where=last),
        "return_std": returns.std(where=last),
        "return_max": returns.max(where=last, initial=-jnp.inf),
        "return_min": returns.min(where=last, initial=jnp.inf),
        "num_trajectories": last.sum(dtype=jnp.float32),
    }


@preset(trpo)
def npg(*, line_search: bool = False, **others: Any) -> Agent:
    """Natural policy gradient: the step of `trpo` without its line search (Kakade 2001).

    Args:
      line_search: whether the step is shortened until it passes; else all of it is taken.
      **others: any other argument of `trpo`.
    """
    return trpo(line_search=line_search, **others)
