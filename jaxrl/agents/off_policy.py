"""What DDPG, TD3 and the SACs share: the replay and how often they learn from it, exploring, and gradient steps."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import checks
from jaxrl.agents import replay_learning
from jaxrl.agents.replay_learning import ReplayState
from jaxrl.networks.actor_critic import check_network
from jaxrl.replay import Replay, Sample
from jaxrl.replay.n_step import NStep, aggregate
from jaxrl.replay.select import select
from jaxrl.types import Agent, Array, Key, Metrics, PyTree, Spec, Transition


class Learner(NamedTuple):
    """What gradient steps change.

    Attributes:
      params: of the networks, in a record of the agent's.
      target_params: of those that have a target network.
      opt_state: of the optimisers, by network.
    """

    params: Any
    target_params: Any
    opt_state: Any


# gradient_step(spec, learner, batch, weights, key, count, step) -> (learner, errors, metrics)
GradientStep = Callable[..., tuple[Learner, Array, Metrics]]


class Experience(NamedTuple):
    """What an agent remembers, and when it learns from it.

    Attributes:
      init: `init(learner, spec, extras) -> state`, `extras` being what of `act` is kept, by example.
      make_update: `make_update(gradient_step, metrics, extras, prepare) -> update`, an agent's; the first two as in
        `make_learning`, and so are, where they are given, the others.
      prepare: `prepare(sample) -> batch`, what a gradient step gets of a sample unless `make_update` is told otherwise.
      warmup_steps: environment steps before the first gradient step.
      num_envs: environments that run in parallel.
      rollout_length: steps taken in each between updates.
    """

    init: Callable[..., ReplayState]
    make_update: Callable[..., Callable[[ReplayState, Transition, Key, Array], tuple[ReplayState, Metrics]]]
    prepare: Callable[[Sample], NStep]
    warmup_steps: int
    num_envs: int
    rollout_length: int


def make_experience(
    owner: str,
    *,
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
    num_envs: int = 1,
    rollout_length: int = 1,
) -> Experience:
    """The experience that an agent's arguments ask for.

    Args:
      owner: the agent, for the error's text.
      gamma: discount, in [0, 1].
      n_step: environment steps whose rewards a target holds before it bootstraps.
      replay: uniform, prioritized or ranked, by the critics' mean absolute error (Schaul et al. 2016); in Python also a
        `Replay`, which comes with its own sizes.
      replay_size: transitions that the replay holds; a multiple of num_envs * rollout_length.
      batch_size: transitions in each gradient step; at most warmup_steps.
      priority_alpha: how much the priorities count, in [0, 1].
      priority_beta: how much of their bias the importance weights take away at the first step, in [0, 1].
      priority_beta_steps: environment steps over which that rises linearly to 1.
      hindsight: which goals take the place of the wanted ones in four fifths of a batch, where the environment has
        goals: none, future, final or episode (Andrychowicz et al. 2017).
      warmup_steps: environment steps before the first gradient step.
      replay_ratio: gradient steps for each environment step, of all environments together; it may be less than 1.
      num_envs: environments that run in parallel.
      rollout_length: steps taken in each environment between updates.

    Raises:
      JaxrlError: naming the argument that is out of its range, its value and what is accepted.
    """
    checks.number(owner, 0, 1, gamma=gamma, priority_alpha=priority_alpha, priority_beta=priority_beta)
    checks.integer(owner, n_step=n_step, num_envs=num_envs, rollout_length=rollout_length)
    checks.integer(owner, priority_beta_steps=priority_beta_steps)
    checks.number(owner, 0, open_low=True, replay_ratio=replay_ratio)
    added = num_envs * rollout_length
    gradient_steps = round(replay_ratio * added)
    if gradient_steps < 1 or abs(gradient_steps - replay_ratio * added) > 1e-6 * added:
        raise checks.JaxrlError(
            f"{owner}: replay_ratio={replay_ratio} is not accepted; times num_envs * rollout_length = {added} it must "
            "be a whole number of gradient steps, at least 1"
        )
    replay_learning.check_schedule(
        owner, batch_size=batch_size, replay_size=replay_size, warmup_steps=warmup_steps, added=added
    )
    memory = select(
        owner, replay, capacity=replay_size, batch_size=batch_size, alpha=priority_alpha, beta=priority_beta,
        beta_steps=priority_beta_steps, relabel=hindsight,
    )  # fmt: skip

    def init(learner: Learner, spec: Spec, extras: dict[str, Array] | None = None) -> ReplayState:
        example = replay_learning.example_trajectory(spec, (rollout_length, num_envs), extras)
        return ReplayState(spec, *learner, memory.init(example, spec))

    def in_one(sample: Sample) -> NStep:
        return aggregate(sample, gamma)

    def make_update(
        gradient_step: GradientStep,
        metrics: tuple[str, ...],
        extras: tuple[str, ...] = (),
        prepare: Callable[[Sample], Any] = in_one,
    ):
        learn = replay_learning.make_learning(
            replay=memory, prepare=prepare, metrics=metrics, warmup_steps=warmup_steps,
            gradient_steps=gradient_steps, length=n_step, extras=extras,
        )  # fmt: skip

        def update(state: ReplayState, trajectory: Transition, key: Key, step: Array) -> tuple[ReplayState, Metrics]:
            def one(learner: Learner, batch: Any, weights: Array, key: Key, count: Array):
                return gradient_step(state.spec, learner, batch, weights, key, count, step)

            learner = Learner(state.params, state.target_params, state.opt_state)
            learner, stored, values = learn(one, learner, state.replay, trajectory, key, step)
            return ReplayState(state.spec, *learner, stored), values

        return update

    return Experience(init, make_update, in_one, warmup_steps, num_envs, rollout_length)


def with_experience(constructor: Callable[..., Agent]) -> Callable[..., Agent]:
    """A constructor that takes the arguments of `make_experience` in place of its own argument `experience`.

    Its signature and its docstring have them where that one was, so that they are written down once.
    """
    own, shared = inspect.signature(constructor).parameters, inspect.signature(make_experience).parameters
    shared = {name: p for name, p in shared.items() if name != "owner"}
    parameters = [q for p in own.values() for q in (shared.values() if p.name == "experience" else [p])]
    hints = inspect.get_annotations(make_experience, eval_str=True) | inspect.get_annotations(
        constructor, eval_str=True
    )

    @functools.wraps(constructor)
    def make(**arguments: Any) -> Agent:
        given = {name: arguments.pop(name) for name in shared if name in arguments}
        return constructor(experience=make_experience(constructor.__name__, **given), **arguments)

    parameters = [p.replace(annotation=hints[p.name]) for p in parameters]
    make.__signature__ = inspect.Signature(parameters, return_annotation=hints["return"])
    make.__annotations__ = {name: kind for name, kind in hints.items() if name not in ("owner", "experience")}
    texts = inspect.getdoc(make_experience).split("\n  gamma:")[1].split("\n\nRaises:")[0]
    make.__doc__ = re.sub(r"\n  experience:.*", lambda _: f"\n  gamma:{texts}", inspect.getdoc(constructor))
    return make


def check_networks(
    owner: str,
    hidden_sizes: tuple[int, ...],
    activation: str,
    *,
    tau: Array | float,
    layer_norm: bool,
    **counts_and_rates: Any,
):
    """Checks the arguments that the networks and their gradient steps have in common.

    Args:
      owner: the agent.
      hidden_sizes: units of each layer.
      activation: of these.
      tau: how far targets move.
      layer_norm: True or False.
      **counts_and_rates: more, of which those called `..._rate` are numbers above 0 and the others whole numbers of at
        least 1.

    Raises:
      JaxrlError: naming the argument, its value and what is accepted.
    """
    check_network(owner, hidden_sizes, activation)
    if not hidden_sizes:
        raise checks.JaxrlError(f"{owner}: hidden_sizes=() is not accepted; it must hold one layer at least")
    checks.number(owner, 0, 1, open_low=True, tau=tau)
    checks.one_of(owner, (False, True), layer_norm=layer_norm)
    rates = {name: value for name, value in counts_and_rates.items() if name.endswith("_rate")}
    checks.number(owner, 0, open_low=True, **rates)
    checks.integer(owner, **{name: value for name, value in counts_and_rates.items() if name not in rates})


def examples(spec: Spec) -> tuple[Array, Array]:
    """Zeros like one observation and one action, `[1, ...]`."""
    return tuple(jnp.zeros((1, *space.shape), space.dtype) for space in (spec.obs_space, spec.action_space))


def first_learner(params: Any, targets: PyTree, optimizers: Any) -> Learner:
    """The learner before the first gradient step.

    Args:
      params: of the networks, a record of the agent's.
      targets: those of them that have target networks, which begin as copies.
      optimizers: of the networks, in a record of the same type.
    """
    opt_state = type(params)(*(o.init(p) for o, p in zip(optimizers, params, strict=True)))
    return Learner(params, jax.tree.map(jnp.copy, targets), opt_state)


def some_critics(key: Key, params: PyTree, n: int) -> PyTree:
    """The parameters of n of an ensemble's critics, drawn without replacement; 0 is all of them."""
    if not n:
        return params
    drawn = jax.random.permutation(key, len(jax.tree.leaves(params)[0]))[:n]
    return jax.tree.map(lambda x: x[drawn], params)


def explore_at_first(key: Key, action: Array, step: Array, warmup_steps: int) -> Array:
    """During the warm-up actions are drawn uniformly from [-1, 1], whatever the policy chose; `[N, A]`."""
    drawn = jax.random.uniform(key, action.shape, minval=-1.0, maxval=1.0)
    return jnp.where(step < warmup_steps, drawn, action)


def descend(
    optimizer: optax.GradientTransformation, loss: Callable[[PyTree], tuple[Array, Any]], params: PyTree, state: PyTree
) -> tuple[PyTree, PyTree, Array, Any]:
    """One gradient step: parameters and optimiser state after it, the loss, and what else the loss returned."""
    (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(params)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, value, aux


def every(period: int, count: Array, function: Callable[[], PyTree], otherwise: PyTree) -> PyTree:
    """What a function returns at every `period`-th gradient step, and something else between; a branch under `vmap`."""
    return function() if period == 1 else jax.lax.cond((count + 1) % period == 0, function, lambda: otherwise)


def squared_errors(q: Array, target: Array, weights: Array) -> tuple[Array, Array]:
    """The loss of an ensemble of critics, 1/2 sum_i E[w (Q_i - y)^2], and each transition's mean absolute error.

    Absolute, so that a transition on which the critics err to both sides is not taken for one that they know.

    Args:
      q: `[n, B]`.
      target: y, `[B]`.
      weights: `[B]`.
    """
    errors = q - target
    return 0.5 * jnp.mean(weights * jnp.sum(jnp.square(errors), axis=0)), jnp.abs(errors).mean(axis=0)
