"""REINFORCE: the Monte-Carlo policy gradient, with and without a baseline (Williams 1992)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxrl import checks
from jaxrl.constructors import agent_constructor
from jaxrl.learning.action_scale import to_action_space
from jaxrl.learning.advantages import explained_variance, whiten
from jaxrl.learning.baseline import make_baseline
from jaxrl.learning.episodes import whole
from jaxrl.learning.optimizer import make_optimizer
from jaxrl.networks.actor_critic import Policy, check_network, make_policy
from jaxrl.returns import gae
from jaxrl.transforms.normalize import normalized
from jaxrl.types import Agent, Array, Key, Metrics, PyTree, Spec, Transition

ESTIMATORS = ("reward_to_go", "total_return")


class ReinforceState(NamedTuple):
    """The spec, which is static; the policy's parameters; the optimiser's state; the baseline's, `()` without one."""

    spec: Spec
    params: PyTree
    opt_state: PyTree
    baseline: PyTree


@agent_constructor
def reinforce(
    *,
    learning_rate: float = 1e-2,
    anneal_steps: int = 0,
    optimizer: str = "adam",
    gamma: float = 0.99,
    estimator: str = "reward_to_go",
    baseline: str = "linear",
    baseline_learning_rate: float = 3e-3,
    baseline_num_steps: int = 32,
    baseline_batch_size: int = 256,
    gae_lambda: float = 1.0,
    normalize_advantage: bool = True,
    entropy_coef: float = 0.0,
    max_grad_norm: float = 0.5,
    num_envs: int = 8,
    rollout_length: int = 500,
    hidden_sizes: tuple[int, ...] = (64, 64),
    activation: str = "tanh",
    torso: str = "auto",
    normalize_observations: bool = False,
    normalize_rewards: bool = False,
) -> Agent:
    """REINFORCE, for discrete and continuous actions.

    One gradient step for each trajectory of new episodes, up

    ```
    mean of A[t] log pi(a[t] | s[t]) + entropy_coef H(pi(. | s[t]))
    ```

    over the steps of episodes that were seen whole. With the estimator reward_to_go, A[t] is the return from step t on
    less the baseline b(s[t]) (Williams 1992; Sutton and Barto 2018, equation 13.11, without its factor gamma^t, as is
    usual); with total_return it is that of the episode's first step, G[0] - b(s[0]), for all of its steps: right on
    average, too, with more variance. gamma = 1 leaves returns undiscounted.

    An environment's first episode counts even if rollout_length, the horizon, cuts it off; a later one does not. The
    return of an episode that was cut off, by the horizon or by the environment's time limit, goes on with the
    baseline's value of the last observation; without a baseline it ends there.

    The baseline is what was learnt from the trajectories before: either linear in obs, obs^2 and powers of the time
    (Duan et al. 2016), fitted anew to each trajectory, or a network, moved towards it by Adam. With gae_lambda < 1 the
    return is mixed with the baseline's values along the way (Schulman et al. 2016). Continuous actions are drawn from a
    diagonal Gaussian whose standard deviation does not depend on the state; where the bounds are finite, [-1, 1] of it
    is mapped onto them.

    Args:
      learning_rate: the optimiser's step size, > 0; less without a baseline, on CartPole 3e-3.
      anneal_steps: environment steps over which the learning rate falls linearly to 0; 0 keeps it constant.
      optimizer: adam, rmsprop, or sgd with momentum.
      gamma: discount, in [0, 1].
      estimator: reward_to_go or total_return.
      baseline: none, linear or network; the linear one is for observations of few numbers.
      baseline_learning_rate: the step size of Adam for the baseline's network, > 0.
      baseline_num_steps: its gradient steps for each trajectory.
      baseline_batch_size: steps of the trajectory that each of them draws.
      gae_lambda: lambda of the advantages, in [0, 1]; below 1 only with a baseline.
      normalize_advantage: whether the trajectory's advantages are brought to mean 0 and standard deviation 1.
      entropy_coef: weight of the entropy bonus, >= 0.
      max_grad_norm: global norm that the gradient is clipped to, > 0.
      num_envs: environments that run in parallel.
      rollout_length: the horizon: steps taken in each environment between updates.
      hidden_sizes: units of each fully connected layer, of the policy and of the baseline's network.
      activation: of the hidden layers: tanh, relu, swish, elu or gelu.
      torso: mlp, cnn, nature, or auto: nature for images of at least 36 x 36 pixels, cnn for smaller ones, else mlp.
      normalize_observations: whether observations are scaled by their running mean and standard deviation.
      normalize_rewards: whether rewards are scaled by the running standard deviation of the discounted return.

    Returns:
      an `Agent`; its metrics are policy_loss and entropy, means over the steps that count, and explained_variance, of
      the returns by the baseline before it was fitted to them, at least -1 (0 without a baseline).

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.

    Example:
      >>> reinforce(baseline="network", num_envs=4).rollout_length
      500
    """
    checks.number("reinforce", 0, 1, gamma=gamma, gae_lambda=gae_lambda)
    checks.number("reinforce", 0, entropy_coef=entropy_coef)
    checks.integer("reinforce", num_envs=num_envs, rollout_length=rollout_length)
    checks.one_of("reinforce", ESTIMATORS, estimator=estimator)
    check_network("reinforce", hidden_sizes, activation)
    if baseline == "none" and not isinstance(gae_lambda, Tracer) and gae_lambda != 1:
        raise checks.JaxrlError(
            f"reinforce: gae_lambda={gae_lambda} is not accepted with baseline='none', which knows no values; it must "
            "be 1.0"
        )
    ascent = make_optimizer("reinforce", optimizer, learning_rate, max_grad_norm, anneal_steps)
    critic = make_baseline(
        "reinforce",
        baseline,
        hidden_sizes=hidden_sizes,
        activation=activation,
        torso=torso,
        learning_rate=baseline_learning_rate,
        num_steps=baseline_num_steps,
        batch_size=baseline_batch_size,
    )

    def network(spec: Spec) -> Policy:
        return make_policy("reinforce", spec, torso, hidden_sizes, activation)

    def init(key: Key, spec: Spec) -> ReinforceState:
        policy_key, baseline_key = jax.random.split(key)
        obs = jnp.zeros((1, *spec.obs_space.shape), spec.obs_space.dtype)
        params = network(spec).init(policy_key, obs)
        return ReinforceState(spec, params, ascent.init(params), critic.init(baseline_key, spec))

    def act(state: ReinforceState, memory: tuple, obs: Array, key: Key, step: Array, explore: bool = True):
        policy = network(state.spec).apply(state.params, obs)
        action = policy.sample(seed=key) if explore else policy.mode()
        return to_action_space(action, state.spec.action_space), memory, {"policy_action": action}

    def loss(params: PyTree, trajectory: Transition, advantages: Array, counts: Array, spec: Spec):
        policy = network(spec).apply(params, trajectory.obs)
        log_prob = policy.log_prob(trajectory.extras["policy_action"])
        policy_loss = -(advantages * log_prob).mean(where=counts)
        entropy = policy.entropy().mean(where=counts)
        return policy_loss - entropy_coef * entropy, {"policy_loss": policy_loss, "entropy": entropy}

    def update(state: ReinforceState, trajectory: Transition, key: Key, step: Array) -> tuple[ReinforceState, Metrics]:
        spec, counts = state.spec, whole(trajectory)
        ended = trajectory.terminated | trajectory.truncated
        values, next_values = critic.values(state.baseline, trajectory, spec)
        discounts = gamma * (1.0 - trajectory.terminated)
        # With lambda = 1 the targets are the returns, and the advantages what these are above the baseline.
        advantages, targets = gae(trajectory.reward, discounts, values, next_values, gae_lambda, ended)
        explained = explained_variance(values, targets, counts)
        if estimator == "total_return":
            advantages = from_start(advantages, ended)
        if normalize_advantage:
            advantages = whiten(advantages, counts)
        grads, metrics = jax.grad(loss, has_aux=True)(state.params, trajectory, advantages, counts, spec)
        params, opt_state = ascent.step(state.params, state.opt_state, grads, step)
        fitted = critic.fit(state.baseline, trajectory, targets, counts, key, spec)
        return ReinforceState(spec, params, opt_state, fitted), metrics | {"explained_variance": explained}

    agent = Agent(init, act, update, num_envs, rollout_length, name="reinforce", episodic=True)
    return normalized(agent, gamma, observations=normalize_observations, rewards=normalize_rewards)


def from_start(x: Array, ended: Array) -> Array:
    """For each step what `x` is at the first step of its episode; `[T, N]` both.

    >>> from_start(jnp.array([[1], [2], [3], [4]]), jnp.array([[False], [True], [False], [True]]))[:, 0].tolist()
    [1, 1, 3, 3]
    """
    first = jnp.concatenate([jnp.ones_like(ended[:1]), ended[:-1]])
    start = jax.lax.cummax(jnp.where(first, jnp.arange(len(x))[:, None], 0), axis=0)
    return jnp.take_along_axis(x, start, axis=0)
