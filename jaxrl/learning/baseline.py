"""Baselines: what an agent that learns from whole episodes expects of a state, to be taken from the return."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import checks
from jaxrl.learning.optimizer import make_optimizer
from jaxrl.learning.pop_art import PopArt, denormalize, init_pop_art, pop_art_update
from jaxrl.networks.actor_critic import Value, check_network
from jaxrl.networks.torsos import as_floats, holds_pixels, make_torso
from jaxrl.types import Array, Box, Key, PyTree, Spec, Transition

RIDGE = 1e-5  # the linear baseline's regularisation, relative to the mean square of each feature
SCALE_RATE = 0.1  # how far an update moves the scale of the network's targets
MAX_GRAD_NORM = 10.0  # of the network's loss; its targets are of the order of 1


class Baseline(NamedTuple):
    """Three pure functions. What they return of a trajectory is `[T, N]`, on the rewards' scale.

    Attributes:
      init: `init(key, spec) -> state`, a pytree of arrays; `()` where nothing is learnt.
      values: `values(state, trajectory, spec) -> (values, next_values)`, of the observations and of their true
        successors.
      fit: `fit(state, trajectory, targets, counts, key, spec) -> state`, with values nearer to `targets` at the steps
        where the mask `counts` is true. An agent takes the values of a trajectory before it fits them to it, for a
        baseline must not know of the action's outcome.
    """

    init: Callable[[Key, Spec], PyTree]
    values: Callable[[PyTree, Transition, Spec], tuple[Array, Array]]
    fit: Callable[[PyTree, Transition, Array, Array, Key, Spec], PyTree]


class LinearState(NamedTuple):
    """Weights of the features, float32 `[F]`."""

    weights: Array


class NetworkState(NamedTuple):
    """Parameters, the optimiser's state, and the scale of the values, which follows that of the targets."""

    params: PyTree
    opt_state: PyTree
    scale: PopArt


def make_baseline(
    owner: str,
    kind: str,
    *,
    hidden_sizes: tuple[int, ...] = (64, 64),
    activation: str = "tanh",
    torso: str = "auto",
    learning_rate: Array | float = 1e-3,
    num_steps: int = 32,
    batch_size: int = 256,
) -> Baseline:
    """A baseline by its name; all but `kind` is of the network only.

    Args:
      owner: the agent, for the error's text.
      kind: none, linear or network.
      hidden_sizes: units of each fully connected layer.
      activation: a key of `ACTIVATIONS`.
      torso: mlp, cnn, nature, or auto: nature for images of at least 36 x 36 pixels, cnn for smaller ones, else mlp.
      learning_rate: Adam's step size, > 0; may be a tracer.
      num_steps: gradient steps of each fit.
      batch_size: steps of the trajectory that each of them draws.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.
    """
    checks.one_of(owner, ("none", "linear", "network"), baseline=kind)
    checks.number(owner, 0, open_low=True, baseline_learning_rate=learning_rate)
    checks.integer(owner, baseline_num_steps=num_steps, baseline_batch_size=batch_size)
    check_network(owner, hidden_sizes, activation)
    if kind == "none":
        return no_baseline()
    if kind == "linear":
        return linear_baseline(owner)
    return network_baseline(owner, hidden_sizes, activation, torso, learning_rate, num_steps, batch_size)


def no_baseline() -> Baseline:
    """Values of 0, everywhere and for ever."""

    def values(state: tuple, trajectory: Transition, spec: Spec) -> tuple[Array, Array]:
        zeros = jnp.zeros(trajectory.reward.shape)
        return zeros, zeros

    return Baseline(lambda key, spec: (), values, lambda state, *_: state)


def features(obs: Array, time: Array) -> Array:
    """The features of the linear baseline: obs, obs^2, t, t^2, t^3 and 1.

    Duan et al. (2016), supplementary material, with observations cut off at 10 and t in hundreds of steps.

    Args:
      obs: `[T, N, *obs]`, any real dtype.
      time: `[T, N]`, steps of the episode before this observation.

    Returns:
      float32 `[T, N, F]`, where F is twice the numbers in an observation, plus 4.

    >>> features(jnp.array([[[2.0, -30.0]]]), jnp.array([[200]]))[0, 0].tolist()
    [2.0, -10.0, 4.0, 100.0, 2.0, 4.0, 8.0, 1.0]
    """
    x = jnp.clip(obs.reshape(*time.shape, -1).astype(jnp.float32), -10.0, 10.0)  # [T, N, *obs] -> [T, N, numbers]
    t = time[..., None].astype(jnp.float32) / 100.0
    return jnp.concatenate([x, x**2, t, t**2, t**3, jnp.ones_like(t)], axis=-1)


def solve_ridge(gram: Array, moments: Array, ridge: float) -> Array:
    """The solution of (A + ridge I) w = b, for a positive semi-definite A, which may be singular; never NaN.

    Gauss-Jordan elimination, whose pivots are at least `ridge` but for rounding. A batch of LAPACK's calls, as `vmap`
    over seeds makes, can wait for itself forever on a machine with few cores.

    Args:
      gram: A, `[F, F]`.
      moments: b, `[F]`.
      ridge: > 0.

    >>> solve_ridge(jnp.array([[3.0, 0.0], [0.0, 0.0]]), jnp.array([8.0, 0.0]), 1.0).tolist()
    [2.0, 0.0]
    """
    size = len(moments)
    rows = jnp.concatenate([gram + ridge * jnp.eye(size), moments[:, None]], axis=1)  # [F, F + 1]

    def eliminate(k: Array, rows: Array) -> Array:
        pivot = rows[k] / jnp.maximum(rows[k, k], ridge)
        return (rows - rows[:, k][:, None] * pivot).at[k].set(pivot)

    return jax.lax.fori_loop(0, size, eliminate, rows)[:, -1]


def linear_baseline(owner: str) -> Baseline:
    """The linear feature baseline (Duan et al. 2016): `features` times weights, by ridge regression in each fit.

    The weights are the minimum of `mean (w x - target)^2 + RIDGE sum (s w)^2` over the steps that count, where s^2 is
    each feature's mean square. Where no step counts, they stay. It asks the loop's `episode_length` for the time.
    """

    def both(trajectory: Transition, spec: Spec) -> tuple[Array, Array]:
        length, pixels = trajectory.extras["episode_length"], holds_pixels(spec.obs_space)
        obs, next_obs = (as_floats(x, pixels) for x in (trajectory.obs, trajectory.next_obs))
        return features(obs, length - 1), features(next_obs, length)

    def init(key: Key, spec: Spec) -> LinearState:
        if not isinstance(spec.obs_space, Box):
            raise checks.JaxrlError(
                f"{owner}: baseline='linear' is not accepted on {spec.id}, whose observations are {spec.obs_space}; "
                "it needs arrays of numbers"
            )
        return LinearState(jnp.zeros(2 * math.prod(spec.obs_space.shape) + 4))

    def values(state: LinearState, trajectory: Transition, spec: Spec) -> tuple[Array, Array]:
        now, following = (jnp.dot(x, state.weights, precision="highest") for x in both(trajectory, spec))
        return now, following

    def fit(
        state: LinearState, trajectory: Transition, targets: Array, counts: Array, key: Key, spec: Spec
    ) -> LinearState:
        x, y = jnp.where(counts[..., None], both(trajectory, spec)[0], 0), jnp.where(counts, targets, 0)
        x, y = x.reshape(-1, x.shape[-1]), y.reshape(-1)  # [T, N, ...] -> [T * N, ...]
        num = jnp.maximum(counts.sum(), 1)
        square = jnp.square(x).sum(0) / num
        scale = jnp.where(square > 0, jax.lax.rsqrt(jnp.maximum(square, 1e-30)), 0)
        x = x * scale
        gram, moments = (jnp.dot(x.T, z, precision="highest") / num for z in (x, y))
        return LinearState(jnp.where(counts.any(), scale * solve_ridge(gram, moments, RIDGE), state.weights))

    return Baseline(init, values, fit)


def network_baseline(
    owner: str,
    hidden_sizes: tuple[int, ...],
    activation: str,
    torso: str,
    learning_rate: Array | float,
    num_steps: int,
    batch_size: int,
) -> Baseline:
    """A network of its own, by Adam on squared errors, whose outputs are on a scale that follows the targets'.

    The network is not made to say the same after the scale has moved: where returns grow, values grow with them. Each
    gradient step draws `batch_size` of the steps that count, with replacement. Where none counts, nothing changes.
    """
    optimizer = make_optimizer(owner, "adam", learning_rate, MAX_GRAD_NORM)

    def network(spec: Spec) -> Value:
        return Value(make_torso(owner, spec, torso, hidden_sizes, activation)())

    def init(key: Key, spec: Spec) -> NetworkState:
        obs = jnp.zeros((1, *spec.obs_space.shape), getattr(spec.obs_space, "dtype", jnp.float32))
        params = network(spec).init(key, obs)
        return NetworkState(params, optimizer.init(params), init_pop_art())

    def values(state: NetworkState, trajectory: Transition, spec: Spec) -> tuple[Array, Array]:
        both = network(spec).apply(state.params, jnp.stack([trajectory.obs, trajectory.next_obs]))
        now, following = denormalize(state.scale, both)
        return now, following

    def fit(
        state: NetworkState, trajectory: Transition, targets: Array, counts: Array, key: Key, spec: Spec
    ) -> NetworkState:
        obs = trajectory.obs.reshape(-1, *spec.obs_space.shape)  # [T, N, *obs] -> [T * N, *obs]
        targets, counts = targets.reshape(-1), counts.reshape(-1)
        counted = jnp.argsort(~counts)  # the steps that count come first
        draws = jax.random.randint(key, (num_steps, batch_size), 0, jnp.maximum(counts.sum(), 1))
        rows = counted[draws]
        scale = pop_art_update(state.scale, targets[rows], SCALE_RATE)

        def loss(params: PyTree, rows: Array) -> Array:
            error = network(spec).apply(params, obs[rows]) - (targets[rows] - scale.mean) / scale.sigma
            return 0.5 * jnp.square(error).mean()

        def learn(carry: tuple[PyTree, PyTree], rows: Array) -> tuple[tuple[PyTree, PyTree], None]:
            params, opt_state = carry
            return optimizer.step(params, opt_state, jax.grad(loss)(params, rows), jnp.int32(0)), None

        (params, opt_state), _ = jax.lax.scan(learn, (state.params, state.opt_state), rows)
        fitted = NetworkState(params, opt_state, scale)
        return jax.tree.map(lambda new, old: jnp.where(counts.any(), new, old), fitted, state)

    return Baseline(init, values, fit)
