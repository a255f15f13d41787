"""What agents with a replay remember, and how often they learn from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import checks
from jaxrl.replay import NO_SLOT, Replay, Sample
from jaxrl.replay.n_step import NStep, aggregate
from jaxrl.replay.select import select
from jaxrl.transforms import normalize
from jaxrl.types import Array, Key, Metrics, PyTree, Spec, Transition


class ReplayState(NamedTuple):
    """Online and target parameters, the optimisers' state, and the replay; the spec is static, not an array."""

    spec: Spec
    params: PyTree
    target_params: PyTree
    opt_state: PyTree
    replay: PyTree


class Learner(NamedTuple):
    """What gradient steps change.

    Attributes:
      params: of the networks.
      target_params: of those that have a target network.
      opt_state: of the optimisers.
    """

    params: PyTree
    target_params: PyTree
    opt_state: PyTree


def interrupt_of(replay: Replay) -> Callable[[PyTree, Array], PyTree]:
    """The `interrupt` of an agent whose state has a field `replay`."""
    return lambda state, step: state._replace(replay=replay.interrupt(state.replay, step))


class Moment(NamedTuple):
    """When a gradient step happens; int32 `()`, the same for all seeds.

    The g-th of the G gradient steps, counted from 0, in the update that adds the environment steps after s up to s + A
    stands for those after s + g A / G up to s + (g + 1) A / G, rounded down. So what is due every so many environment
    steps falls on the same gradient step however many of them an update makes.

    Attributes:
      count: the number of the gradient step; it goes on through the warm-up.
      begin: environment steps before those that it stands for.
      end: environment steps with them.
    """

    count: Array
    begin: Array
    end: Array


# gradient_step(spec, learner, batch, weights, key, count, step) -> (learner, errors, metrics), `step` a moment's begin
GradientStep = Callable[..., tuple[Learner, Array, Metrics]]


class Experience(NamedTuple):
    """What an agent remembers, and when it learns from it.

    Attributes:
      init: `init(learner, spec, extras) -> state`, `extras` being what of `act` is kept, by example.
      make_update: `make_update(gradient_step, metrics, **options) -> update`, an agent's, for a `GradientStep`; the
        rest as in `make_learning`.
      in_one: `in_one(sample) -> batch`, the sample's n steps as one.
      check_capacity: `check_capacity(least, what)` raises a `JaxrlError` where the replay is known to hold fewer than
        `least` steps, which are `what`.
      replay: where transitions are kept.
      gamma: discount.
      n_step: environment steps whose rewards a target holds before it bootstraps.
      warmup_steps: environment steps before the first gradient step.
      gradient_steps: gradient steps in each update.
      num_envs: environments that run in parallel.
      rollout_length: steps taken in each between updates.
    """

    init: Callable[..., ReplayState]
    make_update: Callable[..., Callable[[ReplayState, Transition, Key, Array], tuple[ReplayState, Metrics]]]
    in_one: Callable[[Sample], NStep]
    check_capacity: Callable[[int, str], None]
    replay: Replay
    gamma: Array | float
    n_step: int
    warmup_steps: int
    gradient_steps: int
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
    normalize_observations: bool = False,
    num_envs: int = 1,
    rollout_length: int = 1,
) -> Experience:
    """The experience that an agent's arguments ask for.

    Args:
      owner: the agent, for the error's text.
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
      warmup_steps: environment steps before the first gradient step.
      replay_ratio: gradient steps for each environment step, of all environments together; it may be less than 1.
      normalize_observations: whether observations are scaled by the running mean and standard deviation of all so far;
        the replay keeps them as they are.
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
    held, drawn, names = replay_size, batch_size, SIZES
    if isinstance(replay, Replay):
        held, drawn = replay.capacity, replay.batch_size
        names = {"replay_size": "replay.capacity", "batch_size": "replay.batch_size"}
    check_schedule(
        owner, batch_size=drawn, replay_size=held, warmup_steps=warmup_steps, added=added, names=names
    )  # fmt: skip
    memory = select(
        owner, replay, capacity=replay_size, batch_size=batch_size, alpha=priority_alpha, beta=priority_beta,
        beta_steps=priority_beta_steps, relabel=hindsight,
    )  # fmt: skip
    checks.one_of(owner, (False, True), normalize_observations=normalize_observations)
    memory = normalize.normalize_replay(memory) if normalize_observations else memory

    def init(learner: Learner, spec: Spec, extras: dict[str, Array] | None = None) -> ReplayState:
        example = example_trajectory(spec, (rollout_length, num_envs), extras)
        return ReplayState(spec, *learner, memory.init(example, spec))

    def make_update(gradient_step: GradientStep, metrics: tuple[str, ...], **options: Any):
        learn = make_learning(experience, metrics, **options)

        def update(state: ReplayState, trajectory: Transition, key: Key, step: Array) -> tuple[ReplayState, Metrics]:
            def one(learner: Learner, batch: Any, weights: Array, key: Key, moment: Moment):
                return gradient_step(state.spec, learner, batch, weights, key, moment.count, moment.begin)

            learner = Learner(state.params, state.target_params, state.opt_state)
            learner, stored, values = learn(one, learner, state.replay, trajectory, key, step)
            return ReplayState(state.spec, *learner, stored), values

        return update

    def check_capacity(least: int, what: str):
        if held is not None and held < least:
            raise checks.JaxrlError(
                f"{owner}: {names['replay_size']}={held} is not accepted; it must be at least {what}, which is {least}"
            )

    experience = Experience(
        init, make_update, lambda sample: aggregate(sample, gamma), check_capacity, memory, gamma, n_step, warmup_steps,
        gradient_steps, num_envs, rollout_length,
    )  # fmt: skip
    return experience


SIZES = {"replay_size": "replay_size", "batch_size": "batch_size"}  # as the agents' arguments call them


def check_schedule(
    owner: str,
    *,
    batch_size: int | None,
    replay_size: int | None,
    warmup_steps: int,
    added: int,
    names: dict[str, str] = SIZES,
):
    """Checks the sizes and periods that agents with a replay share.

    Args:
      owner: the agent.
      batch_size: transitions in a batch; None where it is not known, and not checked.
      replay_size: transitions in the replay; the same.
      warmup_steps: environment steps before the first gradient step.
      added: num_envs * rollout_length.
      names: what a user calls the two sizes.

    Raises:
      JaxrlError: naming the argument, its value and what is accepted.
    """
    sizes = {names["batch_size"]: batch_size, names["replay_size"]: replay_size, "warmup_steps": warmup_steps}
    sizes = {name: size for name, size in sizes.items() if size is not None}
    checks.integer(owner, **sizes)
    if replay_size is not None:
        check_replay_size(owner, replay_size, added, names["replay_size"])
    for name, size in sizes.items():
        if batch_size is not None and batch_size > size:
            raise checks.JaxrlError(
                f"{owner}: {names['batch_size']}={batch_size} is not accepted; it must be at most {name}={size}"
            )


def check_replay_size(owner: str, replay_size: int, added: int, name: str = "replay_size"):
    """Checks that a replay holds a whole number of what is added at once.

    Raises:
      JaxrlError: if it does not.
    """
    if replay_size % added:
        raise checks.JaxrlError(
            f"{owner}: {name}={replay_size} is not accepted; it must be a multiple of num_envs * rollout_length, "
            f"which is {added}"
        )


def example_trajectory(spec: Spec, shape: tuple[int, int], extras: dict[str, Array] | None = None) -> Transition:
    """Zeros of the shapes and dtypes that a replay will hold, `[T, N, ...]`.

    Args:
      spec: the environment's.
      shape: (T, N).
      extras: examples of what `act` reports and the replay is to keep, of one environment.
    """

    def example(like: Any) -> Array:
        return jnp.zeros((*shape, *like.shape), like.dtype)

    flag, obs = example(jnp.bool(False)), example(spec.obs_space)
    kept = jax.tree.map(example, extras or {})
    return Transition(obs, example(spec.action_space), jnp.zeros(shape), flag, flag, obs, kept)


def make_learning(
    experience: Experience,
    metrics: tuple[str, ...],
    *,
    prepare: Callable[[Sample], Any] | None = None,
    length: int | None = None,
    extras: tuple[str, ...] = (),
) -> Callable[..., tuple[Learner, PyTree, Metrics]]:
    """What every agent with a replay does in an update: store the trajectory, and after the warm-up learn from samples.

    Args:
      experience: what is learnt from, and when.
      metrics: the names that a gradient step reports; they are 0 during the warm-up.
      prepare: from a sample to the batch that a gradient step gets; by default its n steps in one, an `NStep`.
      length: steps of experience in each element of a sample; by default n.
      extras: names of what `act` reports and the replay keeps.

    Returns:
      `learn(gradient_step, learner, memory, trajectory, key, step) -> (learner, memory, metrics)`, where
      `gradient_step(learner, batch, weights, key, moment) -> (learner, errors, metrics)`: the learner is what gradient
      steps change, `weights` the importance weights `[B]`, `errors` `[B]` what the replay takes priorities from, which
      the next gradient step's sample already follows, and `moment` a `Moment`.
    """
    replay, gradient_steps = experience.replay, experience.gradient_steps
    prepare = prepare or experience.in_one
    length = length or experience.n_step
    several = gradient_steps > 1
    added = experience.num_envs * experience.rollout_length
    passed = np.arange(gradient_steps + 1) * added // gradient_steps  # environment steps, with each gradient step

    def learn(
        gradient_step: Callable[..., tuple[PyTree, Array, Metrics]],
        learner: PyTree,
        memory: PyTree,
        trajectory: Transition,
        key: Key,
        step: Array,
    ) -> tuple[PyTree, PyTree, Metrics]:
        kept = {name: trajectory.extras[name] for name in extras}
        memory = replay.add(memory, trajectory._replace(extras=kept), step)
        seen = step + added
        counts = step // added * gradient_steps + jnp.arange(gradient_steps, dtype=jnp.int32)
        moments = Moment(counts, *(step + jnp.asarray(x, jnp.int32) for x in (passed[:-1], passed[1:])))

        def one(carry: tuple[PyTree, PyTree], inputs: tuple[Key, Moment]):
            (learner, memory), (key, moment) = carry, inputs
            sample_key, key = jax.random.split(key)
            sample = replay.sample(memory, sample_key, seen, length)
            learner, errors, values = gradient_step(learner, prepare(sample), sample.weights, key, moment)
            seen_errors = sample.indices, errors
            if several:
                memory, seen_errors = replay.update(memory, *seen_errors), ()
            return (learner, memory), (values, seen_errors)

        def wait(carry: tuple[PyTree, PyTree], inputs: PyTree):
            nothing = {name: jnp.zeros(gradient_steps) for name in metrics}
            if several:
                return carry, (nothing, ())
            indices = jax.eval_shape(lambda: replay.sample(memory, key, seen, length)).indices
            return carry, (nothing, (jnp.full((1, *indices.shape), NO_SLOT, jnp.int32), jnp.zeros((1, *indices.shape))))

        # The replay goes through the branch and the loop, which would copy it, but for this: JAX takes out what both
        # hand on as it is, such as all transitions. Only priorities are left, and with one gradient step not even they.
        (learner, memory), (values, seen_errors) = jax.lax.cond(
            seen >= experience.warmup_steps,
            lambda carry, inputs: jax.lax.scan(one, carry, inputs),
            wait,
            (learner, memory),
            (jax.random.split(key, gradient_steps), moments),
        )
        if not several:
            memory = replay.update(memory, *(x[0] for x in seen_errors))
        return learner, memory, jax.tree.map(jnp.mean, values)

    return learn
