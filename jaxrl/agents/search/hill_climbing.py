"""Hill climbing over a policy's parameters, with noise that adapts: a baseline that uses no gradient."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import checks
from jaxrl.constructors import agent_constructor
from jaxrl.learning.parameter_search import Search, candidate_scores, check_candidates, make_search, score_metrics
from jaxrl.networks.actor_critic import check_network
from jaxrl.types import Agent, Array, Key, Metrics, PyTree, Spec, Transition


class HillClimbingState(NamedTuple):
    """The spec, which is static; the best parameters so far, P in all; and those to be tried next.

    Attributes:
      spec: the environment's.
      best: float32 `[P]`.
      score: float32 `()`, what `best` reached when it was tried; minus infinity before the first update.
      noise: float32 `()`, the standard deviation that the population was drawn with.
      population: float32 `[C, P]`, `best` with noise, one row for each candidate.
    """

    spec: Spec
    best: Array
    score: Array
    noise: Array
    population: Array


@agent_constructor
def hill_climbing(
    *,
    noise: float = 1.0,
    noise_min: float = 1e-3,
    noise_max: float = 2.0,
    noise_factor: float = 2.0,
    num_envs: int = 10,
    envs_per_candidate: int = 2,
    rollout_length: int = 500,
    hidden_sizes: tuple[int, ...] = (),
    activation: str = "tanh",
    torso: str = "auto",
) -> Agent:
    """Hill climbing over a deterministic policy's parameters, for discrete and continuous actions.

    Steepest ascent among candidates drawn at random: each is the incumbent, the best parameters so far, plus Gaussian
    noise, and acts for rollout_length steps in each of its environments. Its score is the mean return of its whole
    episodes; the first episode counts even if it has not ended. The best candidate becomes the incumbent if its score
    is at least the incumbent's, which is not tried again: where returns have a ceiling, one that reached it by luck
    would else stay for good. A candidate whose score is not finite is never the best. The noise is divided by
    `noise_factor` after such a success, for a closer look, and multiplied by it after a failure, for a wider one,
    within its bounds. That is "adaptive noise scaling", as courses teach it (Udacity's Deep Reinforcement Learning
    Nanodegree, 2018); it is no published algorithm.

    Args:
      noise: standard deviation of the first candidates about the network's initial parameters; between the bounds.
      noise_min: the least that it may become, > 0 and < noise.
      noise_max: the most that it may become, > noise.
      noise_factor: what it is divided or multiplied by, >= 1; 1 keeps it constant.
      num_envs: environments that run in parallel.
      envs_per_candidate: environments of each candidate, whose returns are averaged; divides num_envs. Several help
        where returns vary by chance: an incumbent that was lucky is hard to beat.
      rollout_length: steps taken in each environment between updates.
      hidden_sizes: units of each fully connected layer; none for a linear policy.
      activation: of the hidden layers: tanh, relu, swish, elu or gelu.
      torso: mlp, cnn, nature, or auto: nature for images of at least 36 x 36 pixels, cnn for smaller ones, else mlp.

    Returns:
      an `Agent`; its metrics are return_mean and return_max over the candidates, num_failed, how many of these had no
      finite score and are left out, best_return, the incumbent's score, improved, 1 where there is a new incumbent and
      else 0, and noise, the standard deviation of the next candidates.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.

    Example:
      >>> hill_climbing(num_envs=4).episodic
      True
    """
    num_candidates = check_candidates("hill_climbing", num_envs, envs_per_candidate, rollout_length)
    checks.number("hill_climbing", 0, open_low=True, noise_min=noise_min)
    checks.increasing("hill_climbing", noise_min=noise_min, noise=noise)
    checks.increasing("hill_climbing", noise=noise, noise_max=noise_max)
    checks.number("hill_climbing", 1, noise_factor=noise_factor)
    check_network("hill_climbing", hidden_sizes, activation)

    def search(spec: Spec) -> Search:
        return make_search("hill_climbing", spec, torso, hidden_sizes, activation)

    def perturb(key: Key, best: Array, scale: Array) -> Array:
        return best + scale * jax.random.normal(key, (num_candidates, len(best)))

    def init(key: Key, spec: Spec) -> HillClimbingState:
        params_key, draw_key = jax.random.split(key)
        best, scale = search(spec).init(params_key), jnp.float32(noise)
        return HillClimbingState(spec, best, jnp.float32(-jnp.inf), scale, perturb(draw_key, best, scale))

    def act(state: HillClimbingState, memory: PyTree, obs: Array, key: Key, step: Array, explore: bool = True):
        parameters = state.population if explore else state.best[None]
        return search(state.spec).act(parameters, obs), memory, {}

    def update(
        state: HillClimbingState, trajectory: Transition, key: Key, step: Array
    ) -> tuple[HillClimbingState, Metrics]:
        scores = candidate_scores(trajectory, num_candidates)
        finite = jnp.isfinite(scores)
        usable = jnp.where(finite, scores, -jnp.inf)
        improved = finite.any() & (usable.max() >= state.score)
        best = jnp.where(improved, state.population[usable.argmax()], state.best)
        score = jnp.where(improved, usable.max(), state.score)
        scale = jnp.where(improved, state.noise / noise_factor, state.noise * noise_factor)
        scale = jnp.clip(scale, noise_min, noise_max)
        metrics = score_metrics(scores) | {
            "best_return": score,
            "improved": improved.astype(jnp.float32),
            "noise": scale,
        }
        return HillClimbingState(state.spec, best, score, scale, perturb(key, best, scale)), metrics

    return Agent(init, act, update, num_envs, rollout_length, name="hill_climbing", episodic=True)
