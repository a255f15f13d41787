"""The cross-entropy method over a policy's parameters, plain and with added noise (Szita and Lorincz 2006)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import checks
from jaxrl.constructors import agent_constructor
from jaxrl.learning.optimizer import annealed
from jaxrl.learning.parameter_search import Search, candidate_scores, check_candidates, make_search, score_metrics
from jaxrl.networks.actor_critic import check_network
from jaxrl.transforms.normalize import normalize_observations as with_normalized_observations
from jaxrl.types import Agent, Array, Key, Metrics, PyTree, Spec, Transition


class CEMState(NamedTuple):
    """The spec, which is static; and of the parameters, P in all, their distribution and those to be tried next.

    Attributes:
      spec: the environment's.
      mean: float32 `[P]`.
      std: float32 `[P]`, after the added noise.
      population: float32 `[C, P]`, drawn from mean and std, one row for each candidate.
    """

    spec: Spec
    mean: Array
    std: Array
    population: Array


def refit(population: Array, scores: Array, num_elites: int, noise: Array | float) -> tuple[Array, Array, Array]:
    """The Gaussian of the greatest likelihood for the elites, with a variance added.

    ```
    mean = sum_e w_e / E,   std^2 = sum_e (w_e - mean)^2 / E + noise
    ```

    Args:
      population: candidates w, `[C, P]`.
      scores: `[C]`; of equal ones the first are taken, and one that is not finite never is: its candidate has failed.
      num_elites: E, how many candidates of the highest scores count, from 1 to C; fewer where fewer scores are finite.
      noise: the added variance, >= 0.

    Returns:
      mean and std, `[P]` each, and the elites' mean score; NaN where no score is finite.

    >>> mean, std, score = refit(jnp.array([[0.0], [2.0], [4.0]]), jnp.array([1.0, 5.0, 3.0]), 2, 0.0)
    >>> mean.tolist(), std.tolist(), score.item()
    ([3.0], [1.0], 4.0)
    """
    best, rows = jax.lax.top_k(jnp.where(jnp.isfinite(scores), scores, -jnp.inf), num_elites)
    elites, finite = population[rows], jnp.isfinite(best)
    mean, var = (moment(elites, axis=0, where=finite[:, None]) for moment in (jnp.mean, jnp.var))
    return mean, jnp.sqrt(var + noise), best.mean(where=finite)


@agent_constructor
def cem(
    *,
    num_elites: int = 10,
    init_std: float = 1.0,
    noise: float = 0.0,
    noise_decay_steps: int = 0,
    num_envs: int = 50,
    envs_per_candidate: int = 1,
    rollout_length: int = 500,
    hidden_sizes: tuple[int, ...] = (),
    activation: str = "tanh",
    torso: str = "auto",
    normalize_observations: bool = False,
) -> Agent:
    """The cross-entropy method over a deterministic policy's parameters, for discrete and continuous actions.

    Each candidate is a vector of parameters drawn from a diagonal Gaussian, and acts for rollout_length steps in each
    of its environments. Its score is the mean return of its whole episodes; the first episode counts even if it has
    not ended, so rollout_length is best an episode's longest. The Gaussian is then fitted to the elites, the candidates
    of the highest scores (Rubinstein 1999; de Boer et al. 2005, section 5), and a variance `noise` is added, lest it
    narrows too early (Szita and Lorincz 2006). A candidate whose score is not finite is no elite, and where none has a
    finite score the Gaussian stays:

    ```
    mean' = mean of the elites
    std'^2 = variance of the elites + noise max(0, 1 - step / noise_decay_steps)
    ```

    Szita and Lorincz have a constant noise of 4, or max(5 - t / 10, 0) after update t, which is noise=5 with
    noise_decay_steps = 50 num_envs rollout_length; but their first variance is 100. Greedy episodes are those of the
    mean. Continuous actions are the network's outputs; where the bounds are finite, [-1, 1] is mapped onto them.

    Args:
      num_elites: how many candidates the Gaussian is fitted to; at most num_envs / envs_per_candidate. With 1 its
        variance is the noise alone.
      init_std: standard deviation of the first candidates about the network's initial parameters, > 0.
      noise: variance that is added to that of the elites, >= 0.
      noise_decay_steps: environment steps over which the noise falls linearly to 0; 0 keeps it constant.
      num_envs: environments that run in parallel.
      envs_per_candidate: environments of each candidate, whose returns are averaged; divides num_envs. Several help
        where returns vary by chance.
      rollout_length: steps taken in each environment between updates.
      hidden_sizes: units of each fully connected layer; none for a linear policy.
      activation: of the hidden layers: tanh, relu, swish, elu or gelu.
      torso: mlp, cnn, nature, or auto: nature for images of at least 36 x 36 pixels, cnn for smaller ones, else mlp.
      normalize_observations: whether observations are scaled by their running mean and standard deviation.

    Returns:
      an `Agent`; its metrics are return_mean and return_max over the candidates, num_failed, how many of these had no
      finite score and are left out, elite_return, the mean over the elites, std, the mean over the parameters, and
      noise, the variance that was added.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.

    Example:
      >>> cem(num_elites=5, num_envs=20).episodic
      True
    """
    num_candidates = check_candidates("cem", num_envs, envs_per_candidate, rollout_length)
    checks.integer("cem", num_elites=num_elites)
    if num_elites > num_candidates:
        raise checks.JaxrlError(
            f"cem: num_elites={num_elites} is not accepted; there are num_envs / envs_per_candidate = "
            f"{num_candidates} candidates, so it must be at most that"
        )
    checks.number("cem", 0, open_low=True, init_std=init_std)
    checks.number("cem", 0, noise=noise)
    checks.integer("cem", 0, noise_decay_steps=noise_decay_steps)
    check_network("cem", hidden_sizes, activation)

    def search(spec: Spec) -> Search:
        return make_search("cem", spec, torso, hidden_sizes, activation)

    def draw(key: Key, mean: Array, std: Array) -> Array:
        return mean + std * jax.random.normal(key, (num_candidates, len(mean)))

    def init(key: Key, spec: Spec) -> CEMState:
        params_key, draw_key = jax.random.split(key)
        mean = search(spec).init(params_key)
        std = jnp.full_like(mean, init_std)
        return CEMState(spec, mean, std, draw(draw_key, mean, std))

    def act(state: CEMState, memory: PyTree, obs: Array, key: Key, step: Array, explore: bool = True):
        parameters = state.population if explore else state.mean[None]
        return search(state.spec).act(parameters, obs), memory, {}

    def update(state: CEMState, trajectory: Transition, key: Key, step: Array) -> tuple[CEMState, Metrics]:
        scores = candidate_scores(trajectory, num_candidates)
        added = noise * annealed(step + num_envs * rollout_length, noise_decay_steps)
        mean, std, elite_return = refit(state.population, scores, num_elites, added)
        known = jnp.isfinite(scores).any()
        mean, std = jnp.where(known, mean, state.mean), jnp.where(known, std, state.std)
        metrics = score_metrics(scores) | {
            "elite_return": elite_return,
            "std": std.mean(),
            "noise": jnp.float32(added),
        }
        return CEMState(state.spec, mean, std, draw(key, mean, std)), metrics

    agent = Agent(init, act, update, num_envs, rollout_length, name="cem", episodic=True)
    return with_normalized_observations(agent) if normalize_observations else agent
