"""The records that everything in jaxrl is made of.

An environment is two pure functions (`Env`), an agent three (`Agent`), and what passes between them is a `Transition`.
Axes are named once, here: `T` is time, `N` parallel environments, `B` a batch, `S` seeds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import checks
from jaxrl.constructors import Call, call_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = jax.Array
Key = jax.Array  # a typed PRNG key, as `jax.random.key` makes it
PyTree = Any


@dataclasses.dataclass(frozen=True)
class Discrete:
    """The integers `0 .. n - 1`."""

    n: int

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)

    def sample(self, key: Key) -> Array:
        """Draws one element uniformly; shape `()`."""
        return jax.random.randint(key, (), 0, self.n, jnp.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class Box:
    """Arrays of one shape between two bounds, which may be infinite.

    Attributes:
      low: lower bound, inclusive; an array of shape `shape`.
      high: upper bound, inclusive; an array of shape `shape`.
      dtype: what the arrays hold, `float32` unless it says otherwise.
    """

    low: np.ndarray
    high: np.ndarray
    dtype: np.dtype = dataclasses.field(default_factory=lambda: np.dtype(np.float32))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box) and self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())

    def _content(self) -> tuple:
        return self.shape, self.dtype, self.low.tobytes(), self.high.tobytes()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.low.shape

    @property
    def whole(self) -> bool:
        """Whether the arrays hold whole numbers, or truth values, which are 0 and 1."""
        return self.dtype.kind in "biu"

    @property
    def bounded(self) -> bool:
        """Whether every bound is finite, and small enough to compute with: whole numbers are all floats to 2**24."""
        largest = 2**24 if self.whole else 1e18
        return bool(np.all(np.abs(self.low) <= largest) and np.all(np.abs(self.high) <= largest))

    @property
    def limit(self) -> str:
        """The largest bound of a `bounded` box, for an error."""
        return "2**24, as it holds whole numbers" if self.whole else "1e18"

    def cast(self, x: Any) -> Array:
        """`x` in the box's dtype: where that holds whole numbers the nearest one, and `low` for NaN."""
        return (jnp.where(jnp.isnan(x), self.low, jnp.round(x)) if self.whole else x).astype(self.dtype)

    def sample(self, key: Key) -> Array:
        """Draws one element uniformly from all between the bounds, or all whole numbers there; shape `shape`.

        Raises:
          JaxrlError: if the box is not `bounded`.
        """
        if not self.bounded:
            raise checks.JaxrlError(
                f"Box.sample: bounds of {self.low.tolist()} and {self.high.tolist()} are not accepted; they must be "
                f"finite, and at most {self.limit}"
            )
        if not self.whole:
            return jax.random.uniform(key, self.shape, minval=self.low, maxval=self.high).astype(self.dtype)
        first, last = np.ceil(self.low).astype(np.int32), np.floor(self.high).astype(np.int32)
        return jax.random.randint(key, self.shape, first, last + 1).astype(self.dtype)


def box(low: Any, high: Any, shape: tuple[int, ...], dtype: Any = np.float32) -> Box:
    """A `Box` whose bounds are broadcast to `shape`."""
    bounds = (np.broadcast_to(np.asarray(bound, np.float32), shape) for bound in (low, high))
    return Box(*bounds, dtype=np.dtype(dtype))


Space = Discrete | Box


class Goal(NamedTuple):
    """How an observation holds a goal, and what the reward for it is: what hindsight needs (Andrychowicz et al. 2017).

    The functions are pure, of one observation or of several with any leading axes, and defined at module level, so that
    two environments made alike are equal.

    Attributes:
      achieved: `achieved(obs) -> goal`, the goal that has been reached there.
      replace: `replace(obs, goal) -> obs`, the observation as it were with another goal wanted.
      reward: `reward(achieved, wanted) -> (reward, terminated)` of a step that led to `achieved`.
    """

    achieved: Callable[[Array], Array]
    replace: Callable[[Array, Array], Array]
    reward: Callable[[Array, Array], tuple[Array, Array]]


class Role(NamedTuple):
    """Agents of an environment that are alike.

    Attributes:
      name: the key of their entries in observations, actions and rewards, whose leaves are `[A, ...]`.
      num_agents: `A`, how many of them there are.
      obs_space: what one of them observes.
      action_space: what one of them does.
    """

    name: str
    num_agents: int
    obs_space: Space
    action_space: Space


@jax.tree_util.register_static
class Spec(NamedTuple):
    """The static facts of an environment.

    To JAX it is a node without leaves: an agent keeps it in its state, beside the arrays, so that `act` and `update`
    know the spaces that the state was made for.

    Attributes:
      id: the name that `make` knows the environment by.
      obs_space: what observations are drawn from; None where there are roles.
      action_space: what `step` accepts; None where there are roles.
      max_steps: the most steps that an episode takes, since its time limit ends it; None where there is no limit or it
        is not known.
      discount: the discount that belongs to the problem itself, or None where the agent chooses it.
      layout: of a grid world the rows of its cells as text; states are numbered in reading order. Empty elsewhere.
      action_names: what the discrete actions are called, where they have names that one knows, such as `up`.
      goal: where observations hold a goal that may be replaced, how; else None.
      truncates_early: whether an episode may be truncated before `max_steps`, or ever where that is None. False is a
        promise. By default it is made where `max_steps` is given, and not where it is None. An environment that never
        truncates an episode says False.
      roles: of an environment for many agents who they are: observations, actions and rewards are then dictionaries by
        role, and an episode ends for all at once. Empty for one agent.
    """

    id: str
    obs_space: Space = cast(Space, None)
    action_space: Space = cast(Space, None)
    max_steps: int | None = None
    discount: float | None = None
    layout: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    goal: Goal | None = None
    truncates_early: bool | None = None
    roles: tuple[Role, ...] = ()

    @property
    def truncation_gap(self) -> float:
        """The fewest steps from a truncated one to the next in one environment: `max_steps` where nothing truncates
        earlier, infinite where nothing truncates at all, and 1 where neither is promised."""
        early = self.max_steps is None if self.truncates_early is None else self.truncates_early
        return 1 if early else math.inf if self.max_steps is None else self.max_steps


class Model(NamedTuple):
    """All there is to know of a finite Markov decision process with `S` states and `A` actions.

    Attributes:
      transition: P, float32 `[S, A, S]`: `transition[s, a, t]` is the probability that `a` in `s` leads to `t`. A
        terminal state leads to itself.
      reward: R, float32 `[S, A]`: the expected reward of `a` in `s`; 0 in a terminal state.
      terminal: bool `[S]`: which states end an episode.
      start: float32 `[S]`: the distribution of an episode's first state.
    """

    transition: Array | np.ndarray
    reward: Array | np.ndarray
    terminal: Array | np.ndarray
    start: Array | np.ndarray


class Outcome(NamedTuple):
    """What one environment step led to, besides the next state.

    Attributes:
      obs: what is observed there; at an episode's end its last observation.
      reward: float32, shape `()`; with roles a dictionary, `[A]` each.
      terminated: bool, shape `()`; the episode ended in a terminal state, whose value is 0.
      truncated: bool, shape `()`; the episode was cut off, and the value of `obs` still counts. Never true where
        `terminated` is.
      extras: a dictionary of arrays; whatever else the environment reports.
    """

    obs: PyTree
    reward: PyTree
    terminated: Array
    truncated: Array
    extras: dict[str, PyTree] = {}  # noqa: RUF012 - read, and never written to


class Env(NamedTuple):
    """An environment: two pure functions of one environment (the loop vmaps them over `N`) and its static facts.

    It never resets itself: the loop draws a new initial state where an episode ended. `jaxrl.check_env` plays one, and
    says what is wrong with it.

    Attributes:
      reset: `reset(key) -> (env_state, obs)`, an episode's first state.
      step: `step(key, env_state, action) -> (env_state, outcome)`; `outcome.obs` is what the step led to, always.
      spec: see `Spec`.
      model: of a finite environment whose dynamics are known, the whole of them, for planning; else None.
      draw: `draw(env_state, axes)` draws one state on empty axes of matplotlib and sets their limits, for
        `jaxrl.analysis.render`; None where the environment cannot draw itself.
    """

    reset: Callable[[Key], tuple[PyTree, PyTree]]
    step: Callable[[Key, PyTree, PyTree], tuple[PyTree, Outcome]]
    spec: Spec
    model: Model | None = None
    draw: Callable[[PyTree, Axes], None] | None = None


class HostOutcome(NamedTuple):
    """What one step of `N` environments on the host produced; NumPy arrays `[N, ...]` that nobody writes to afterwards.

    Fields are as in `Outcome`, but `next_obs` is what the step led to, and `obs` what to act on next: where an episode
    ended, the first observation of a new one.
    """

    obs: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    next_obs: np.ndarray


class HostVector(Protocol):
    """`N` environments on the host, each of which begins a new episode by itself where one ended."""

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """Begins new episodes, all draws in them and in those that follow determined by the seeds `[N]`."""
        ...

    def step(self, actions: np.ndarray) -> HostOutcome:
        """Takes a step in each; actions `[N, ...]`."""
        ...

    def close(self) -> None:
        """Ends its processes, if it has any."""


class HostEnv(NamedTuple):
    """An environment whose steps are taken on the host, by a simulator that is not written in JAX.

    Attributes:
      spec: see `Spec`.
      make_vector: `make_vector(num_envs) -> HostVector`. Where a step or a reset fails, it raises a
        `jaxrl.checks.StepError`.
      clip_rewards: whether agents learn from the rewards' signs; the returns that are reported are of rewards as they
        are.
      overlap: whether steps are taken while the update is computed. The first action after an update then comes from
        the parameters before it. None is as the agent says: `Agent.tolerates_stale_actions`.
      draw: None, as its states cannot be drawn.
    """

    spec: Spec
    make_vector: Callable[[int], HostVector]
    clip_rewards: bool = False
    overlap: bool | None = None
    draw: None = None


class Transition(NamedTuple):
    """One step of experience, or, with leading axes `[T, N]`, a trajectory of them.

    Fields are as in `Outcome`; `obs` and `action` are what the agent saw and chose, `next_obs` is the true successor:
    what the step led to, never the first observation of another episode. `truncated` is never true where `terminated`
    is. `extras` holds what the environment and `Agent.act` reported, in one dictionary.
    """

    obs: PyTree
    action: PyTree
    reward: PyTree
    terminated: Array
    truncated: Array
    next_obs: PyTree
    extras: dict[str, PyTree]


class Agent(NamedTuple):
    """An agent: three pure functions, and what the loop must know to call them.

    Attributes:
      init: `init(key, spec) -> state`. The state holds arrays only. The loop looks for numbers that are not finite in
        its field `params`, or where it has none in all of it.
      act: `act(state, memory, obs, key, step, explore=True) -> (action, memory, extras)`; `obs` is `[N, ...]`, and so
        are the actions and everything in `extras` (a dictionary, which joins the transition's).
      update: `update(state, trajectory, key, step) -> (state, metrics)`; the trajectory's leaves are `[T, N, ...]`,
        `step` counts the environment steps taken before it was collected, and metrics are float scalars.
      num_envs: `N`, the number of parallel environments.
      rollout_length: `T`, the number of steps taken in each of them between updates.
      init_memory: `init_memory(num_envs) -> memory`, what each environment's policy carries from step to step, leaves
        `[N, ...]`; `()` for most agents. The loop puts it back where an episode began.
      name: the agent's name.
      episodic: whether every trajectory begins with new episodes. The loop then breaks off what is going on, which no
        step is marked with, and puts the memory back.
      tolerates_stale_actions: whether what it learns stays right where an action was chosen with the state before the
        last update. So it is with agents that learn about another policy than the one that acts, that correct for the
        difference, or whose policy no update changes. On-policy agents must leave it False.
      interrupt: `interrupt(state, step) -> state`; the episodes that are going on will not be continued, as in a run
        on the host that resumes from a checkpoint, and nothing that is learned later may cross that place. Called
        between updates, with the environment steps taken so far; twice is as once. Whoever keeps nothing of an
        episode from one update to the next leaves it out.
      takes_roles: whether it acts in environments with roles (`Spec.roles`), and only in these.
    """

    init: Callable[[Key, Spec], PyTree]
    act: Callable[..., tuple[Array, PyTree, dict[str, PyTree]]]
    update: Callable[[PyTree, Transition, Key, Array], tuple[PyTree, dict[str, Array]]]
    num_envs: int
    rollout_length: int
    init_memory: Callable[[int], PyTree] = lambda num_envs: ()
    name: str = "agent"
    episodic: bool = False
    tolerates_stale_actions: bool = False
    interrupt: Callable[[PyTree, Array], PyTree] = lambda state, step: state
    takes_roles: bool = False
    made_by: Call | None = None

    def __repr__(self) -> str:
        call = call_of(self)
        return call.short if call else f"Agent(name={self.name!r}, ...)"


Metrics = dict[str, Any]  # float scalars
