"""What agents with a replay remember, and how often they learn from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import checks
from jaxrl.replay import NO_SLOT, Replay, Sample, prioritized, ranked, ring, uniform
from jaxrl.replay import hindsight as relabelled
from jaxrl.replay.hindsight import STRATEGIES
from jaxrl.replay.n_step import NStep, aggregate
from jaxrl.transforms import normalize
from jaxrl.types import Agent, Array, Key, Metrics, PyTree, Spec, Transition

REPLAYS: dict[str, Callable[..., Replay]] = {"uniform": uniform, "prioritized": prioritized, "ranked": ranked}


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


# gradient_step(spec, learner, batch, weights, key, moment) -> (learner, errors, metrics)
GradientStep = Callable[[Spec, Learner, Any, Array, Key, Moment], tuple[Learner, Array, Metrics]]


class Experience(NamedTuple):
    """What an agent remembers, and when it learns from it.

    Attributes:
      owner: the agent's name.
      replay: where transitions are kept.
      normalized: whether its samples show observations that are scaled.
      gamma: discount.
      n_step: environment steps whose rewards a target holds before it bootstraps.
      warmup_steps: environment steps before the first gradient step.
      gradient_steps: gradient steps in each update.
      num_envs: environments that run in parallel.
      rollout_length: steps taken in each between updates.
    """

    owner: str
    replay: Replay
    normalized: bool
    gamma: Array | float
    n_step: int
    warmup_steps: int
    gradient_steps: int
    num_envs: int
    rollout_length: int

    def init(self, learner: Learner, spec: Spec, extras: dict[str, Array] | None = None) -> ReplayState:
        """The state before the first step, `extras` being what of `act` is kept, by example."""
        example = example_trajectory(spec, (self.rollout_length, self.num_envs), extras)
        return ReplayState(spec, *learner, self.replay.init(example, spec))

    def in_one(self, sample: Sample) -> NStep:
        """The sample's n steps as one."""
        return aggregate(sample, self.gamma)

    def make_update(
        self,
        gradient_step: GradientStep,
        metrics: tuple[str, ...],
        *,
        prepare: Callable[[Sample], Any] | None = None,
        length: int | None = None,
        extras: tuple[str, ...] = (),
    ) -> Callable[[ReplayState, Transition, Key, Array], tuple[ReplayState, Metrics]]:
        """An agent's `update`: it stores the trajectory, and after the warm-up it learns from samples.

        Args:
          gradient_step: `gradient_step(spec, learner, batch, weights, key, moment) -> (learner, errors, metrics)`: the
            learner is what gradient steps change, `weights` the importance weights `[B]`, `errors` `[B]` what the
            replay takes priorities from, which the next gradient step's sample already follows, and `moment` a
            `Moment`.
          metrics: the names that a gradient step reports; they are 0 during the warm-up.
          prepare: from a sample to the batch that a gradient step gets; by default `in_one`.
          length: steps of experience in each element of a sample; by default n.
          extras: names of what `act` reports and the replay keeps.
        """
        replay, gradient_steps = self.replay, self.gradient_steps
        prepare = prepare or self.in_one
        length = length or self.n_step
        several = gradient_steps > 1
        added = self.num_envs * self.rollout_length
        passed = np.arange(gradient_steps + 1) * added // gradient_steps  # environment steps, with each gradient step

        def update(state: ReplayState, trajectory: Transition, key: Key, step: Array) -> tuple[ReplayState, Metrics]:
            memory = state.replay
            learner = Learner(state.params, state.target_params, state.opt_state)
            kept = {name: trajectory.extras[name] for name in extras}
            memory = replay.add(memory, trajectory._replace(extras=kept), step)
            seen = step + added
            counts = step // added * gradient_steps + jnp.arange(gradient_steps, dtype=jnp.int32)
            moments = Moment(counts, *(step + jnp.asarray(x, jnp.int32) for x in (passed[:-1], passed[1:])))

            def one(carry: tuple[PyTree, PyTree], inputs: tuple[Key, Moment]):
                (learner, memory), (key, moment) = carry, inputs
                sample_key, key = jax.random.split(key)
                sample = replay.sample(memory, sample_key, seen, length)
                learner, errors, values = gradient_step(
                    state.spec, learner, prepare(sample), sample.weights, key, moment
                )
                seen_errors = sample.indices, errors
                if several:
                    memory, seen_errors = replay.update(memory, *seen_errors), ()
                return (learner, memory), (values, seen_errors)

            def wait(carry: tuple[PyTree, PyTree], inputs: PyTree):
                nothing = {name: jnp.zeros(gradient_steps) for name in metrics}
                if several:
                    return carry, (nothing, ())
                shape = 1, *jax.eval_shape(lambda: replay.sample(memory, key, seen, length)).indices.shape
                return carry, (nothing, (jnp.full(shape, NO_SLOT, jnp.int32), jnp.zeros(shape)))

            # The replay goes through the branch and the loop, which would copy it, but for this: JAX takes out what
            # both hand on as it is, such as all transitions. Only priorities are left, and with one gradient step not
            # even they.
            (learner, memory), (values, seen_errors) = jax.lax.cond(
                seen >= self.warmup_steps,
                lambda carry, inputs: jax.lax.scan(one, carry, inputs),
                wait,
                (learner, memory),
                (jax.random.split(key, gradient_steps), moments),
            )
            if not several:
                memory = replay.update(memory, *(x[0] for x in seen_errors))
            state = state._replace(**learner._asdict(), replay=memory)
            return state, jax.tree.map(jnp.mean, values)

        return update

    def agent(
        self,
        init: Callable[..., PyTree],
        act: Callable[..., tuple[Array, PyTree, dict[str, PyTree]]],
        learn: Callable[..., tuple[PyTree, Metrics]],
        reports: Mapping[str, Callable[[Any], Any]] | None = None,
        **others: Any,
    ) -> Agent:
        """The agent that learns from this.

        Args:
          init: as of `Agent`.
          act: as of `Agent`, of observations that are scaled as those of samples are.
          learn: its update.
          reports: by name what else it reports of each update, as functions of the environment step.
          **others: as of `Agent`, such as `init_memory`.
        """

        def update(state: PyTree, trajectory: Transition, key: Key, step: Array) -> tuple[PyTree, Metrics]:
            state, metrics = learn(state, trajectory, key, step)
            return state, metrics | {name: jnp.float32(at(step)) for name, at in (reports or {}).items()}

        agent = Agent(
            init, act, update, self.num_envs, self.rollout_length, name=self.owner, tolerates_stale_actions=True,
            interrupt=interrupt_of(self.replay), **others,
        )  # fmt: skip
        return normalize.act_normalized(agent) if self.normalized else agent


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
    sizes = {"batch_size": batch_size, "replay_size": replay_size}
    if isinstance(replay, Replay):
        sizes = {"replay.batch_size": replay.batch_size, "replay.capacity": replay.capacity}
    check_schedule(owner, sizes, warmup_steps, added)
    checks.one_of(owner, ("none", *STRATEGIES), hindsight=hindsight)
    if isinstance(replay, str):
        checks.one_of(owner, REPLAYS, replay=replay)
        priorities = {"alpha": priority_alpha, "beta": priority_beta, "beta_steps": priority_beta_steps}
        read = ring.window if hindsight == "none" else relabelled(strategy=hindsight)
        replay = REPLAYS[replay](
            capacity=replay_size, batch_size=batch_size, read=read, **({} if replay == "uniform" else priorities)
        )
    checks.one_of(owner, (False, True), normalize_observations=normalize_observations)
    replay = normalize.normalize_replay(replay) if normalize_observations else replay
    return Experience(
        owner, replay, normalize_observations, gamma, n_step, warmup_steps, gradient_steps, num_envs, rollout_length
    )


def check_schedule(owner: str, sizes: Mapping[str, int | None], warmup_steps: int, added: int):
    """Checks the sizes and periods that agents with a replay share.

    Args:
      owner: the agent.
      sizes: transitions in a batch, and in the replay, by what a user calls them; None where it is not known, and not
        checked.
      warmup_steps: environment steps before the first gradient step.
      added: num_envs * rollout_length.

    Raises:
      JaxrlError: naming the argument, its value and what is accepted.
    """
    (batch, batch_size), (replay, replay_size) = sizes.items()
    known = {name: n for name, n in {**sizes, "warmup_steps": warmup_steps}.items() if n is not None}
    checks.integer(owner, **known)
    if replay_size is not None:
        check_replay_size(owner, replay_size, added, replay)
    for name, n in known.items():
        if batch_size is not None and batch_size > n:
            raise checks.JaxrlError(f"{owner}: {batch}={batch_size} is not accepted; it must be at most {name}={n}")


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
