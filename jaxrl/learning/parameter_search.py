"""Searching over the parameters of a deterministic policy: candidates side by side, one or more environments each."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxrl import checks
from jaxrl.learning.action_scale import to_action_space
from jaxrl.learning.episodes import mean_returns
from jaxrl.networks.actor_critic import check_policy
from jaxrl.networks.module import Module
from jaxrl.networks.torsos import make_torso, orthogonal
from jaxrl.types import Array, Discrete, Key, Metrics, Space, Spec, Transition


class DeterministicPolicy(Module):
    """Observations `[..., *obs]` to the action of the largest output, or, of continuous actions, to the outputs."""

    torso: Module
    action_space: Space

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        space = self.action_space
        discrete = isinstance(space, Discrete)
        size = space.n if discrete else space.shape[0]
        output = nn.Dense(size, kernel_init=orthogonal(0.01), name="output")(self.torso(obs))
        return output.argmax(-1).astype(jnp.int32) if discrete else output


class Search(NamedTuple):
    """What a search over the parameters of a deterministic policy needs, for one environment.

    Attributes:
      init: `init(key) -> [P]`, a network's first parameters as one vector.
      act: `act(parameters [C, P], obs [N, ...]) -> actions [N]`, where C divides N: candidate i acts in the
        environments from `i * N / C` to `(i + 1) * N / C - 1`.
    """

    init: Callable[[Key], Array]
    act: Callable[[Array, Array], Array]


def make_search(owner: str, spec: Spec, torso: str, hidden_sizes: tuple[int, ...], activation: str) -> Search:
    """The search over the policies that fit an environment; without hidden layers they are linear.

    Raises:
      JaxrlError: if the environment's observations or actions do not fit.
    """
    check_policy(owner, spec)
    policy = DeterministicPolicy(make_torso(owner, spec, torso, hidden_sizes, activation)(), spec.action_space)
    example = jnp.zeros((1, *spec.obs_space.shape), spec.obs_space.dtype)
    shapes = jax.eval_shape(policy.init, jax.random.key(0), example)
    _, unravel = ravel_pytree(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))

    def init(key: Key) -> Array:
        return ravel_pytree(policy.init(key, example))[0]

    def act(parameters: Array, obs: Array) -> Array:
        split = obs.reshape(len(parameters), -1, *obs.shape[1:])  # [N, ...] -> [C, N / C, ...]
        actions = jax.vmap(lambda vector, obs: policy.apply(unravel(vector), obs))(parameters, split)
        return to_action_space(actions.reshape(len(obs), *actions.shape[2:]), spec.action_space)

    return Search(init, act)


def candidate_scores(trajectory: Transition, num_candidates: int) -> Array:
    """The mean return of each candidate's whole episodes, `[C]`: over its environments the mean of each one's mean."""
    return mean_returns(trajectory).reshape(num_candidates, -1).mean(axis=1)


def score_metrics(scores: Array) -> Metrics:
    """What is reported of the candidates' scores `[C]`: of the finite ones mean and maximum, and how many are not.

    >>> report = score_metrics(jnp.array([1.0, 5.0, jnp.nan]))
    >>> {name: value.item() for name, value in report.items()}
    {'return_mean': 3.0, 'return_max': 5.0, 'num_failed': 1.0}
    """
    finite = jnp.isfinite(scores)
    return {
        "return_mean": scores.mean(where=finite),
        "return_max": scores.max(where=finite, initial=-jnp.inf),
        "num_failed": jnp.sum(~finite, dtype=jnp.float32),
    }


def check_candidates(owner: str, num_envs: int, envs_per_candidate: int, rollout_length: int) -> int:
    """Checks the arguments that share the environments out, and returns how many candidates there are.

    Raises:
      JaxrlError: if one is not a whole number of at least 1, or candidates cannot have as many environments each.
    """
    checks.integer(owner, num_envs=num_envs, envs_per_candidate=envs_per_candidate, rollout_length=rollout_length)
    if num_envs % envs_per_candidate:
        raise checks.JaxrlError(
            f"{owner}: envs_per_candidate={envs_per_candidate} is not accepted; it must divide num_envs={num_envs}"
        )
    return num_envs // envs_per_candidate
