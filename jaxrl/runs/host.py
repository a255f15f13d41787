"""Training in environments that are stepped on the host: the same loop, cut where the environments stand.

`act` and `update` are compiled, each once for all rows of a group; between them the host steps every row's environments
together. In a step the actions come down and the observations go up, and nothing else: actions and what `act` reports
stay on the device until `update` reads them there, and what the host knows of a trajectory goes up with it.

An update is handed to the device and not waited for. So that the environments need not wait either, their next actions
are chosen just before it, with the parameters before it: of a trajectory's `T` steps the first is acted in with
parameters that are one update older than the others'. That is done where the agent tolerates it
(`Agent.tolerates_stale_actions`), or where `HostEnv.overlap` asks for it; never where every trajectory begins with new
episodes (`Agent.episodic`).

The keys are those of the compiled loop. The environments' state stays on the host and is in no checkpoint: a run that
resumes from one begins new episodes, and the agent is told that those before were cut off (`Agent.interrupt`).
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import checks, loop
from jaxrl.envs import host
from jaxrl.evaluation import default_max_steps, greedy
from jaxrl.loop import Seen, TrainState, init_train, keys_per_step, steps_per_update
from jaxrl.numerics import standard_numbers
from jaxrl.runs.program import (
    ROW_AXES,
    ROWS,
    SHARED,
    STATE,
    Constructor,
    Group,
    Layout,
    Program,
    compile_parts,
    evaluation_key,
    group_agent,
    lay_out,
    memory_of,
)
from jaxrl.types import Agent, Array, HostEnv, Key, Metrics, PyTree, Spec, Transition

SEEDS = np.uint32(2**31)  # what the key of the environments' seeds is folded with: no step of a trajectory has it


class HostError(checks.RunError):
    """An environment on the host failed.

    Attributes:
      state: the training state after the last update before that, from which training may go on.
    """

    def __init__(self, text: str, state: TrainState):
        super().__init__(text)
        self.state = state


class Rollout(NamedTuple):
    """What the device keeps of a trajectory that is being collected; leaves `[T, N, ...]`."""

    obs: Array
    action: Array
    extras: dict[str, PyTree]


class Experience(NamedTuple):
    """What the host knows of a trajectory; leaves `[T, N, ...]`. The fields are as in `Transition`."""

    reward: PyTree
    terminated: PyTree
    truncated: PyTree
    next_obs: PyTree
    episode_return: PyTree
    episode_length: PyTree


# ---------------------------------------------------------------- of one row, pure


def _key(state: TrainState, step: Array, index: Any) -> Key:
    """One of the keys of the update that begins at a step: the one that the compiled loop's split has there."""
    return jax.random.fold_in(jax.random.fold_in(state.key, step), index)


def _first_seeds(agent: Agent, state: TrainState) -> tuple[Array]:
    """The seeds `[N]` of environments in which new episodes begin."""
    return (host.draw_seeds(_key(state, state.step, SEEDS), agent.num_envs),)


def _restarted(agent: Agent, memory: PyTree, fresh: Array) -> PyTree:
    """The memory, put back where an episode began; `fresh` is bool `[N]`."""
    first = agent.init_memory(fresh.shape[0])
    return loop.where(fresh, first, memory)


def _act(agent: Agent, state: TrainState, memory: PyTree, rollout: Rollout, obs: Array, fresh: Array, at: Array):
    """Chooses the actions of a trajectory's step, and notes it in the rollout; `at` is `[step, t]`, the update's step
    and the place in its trajectory."""
    step, t = at
    resets = agent.num_envs if agent.episodic else 0
    key = _key(state, step, 1 + resets + t * keys_per_step(agent))
    memory = _restarted(agent, memory, fresh)
    action, memory, extras = agent.act(state.agent, memory, obs, key, step + t * agent.num_envs)
    rollout = jax.tree.map(lambda all, now: all.at[t].set(now), rollout, Rollout(obs, action, extras))
    return action, memory, rollout


def _update(
    agent: Agent, state: TrainState, rollout: Rollout, experience: Experience, seen: Seen, clip_rewards: bool
) -> tuple[TrainState, Seen]:
    """Hands a whole trajectory to the agent."""
    trajectory = _trajectory(rollout, experience, clip_rewards)
    moved = state._replace(step=state.step + steps_per_update(agent))
    moved, episodes, metrics = loop.learn(moved, agent, trajectory, _key(state, state.step, 0), state.step)
    return moved, loop.add(seen, episodes, metrics)


def _trajectory(rollout: Rollout, experience: Experience, clip_rewards: bool) -> Transition:
    reward, terminated, truncated, next_obs, *statistics = experience
    extras = dict(zip(("episode_return", "episode_length"), statistics, strict=True)) | rollout.extras
    reward = jnp.sign(reward) if clip_rewards else reward
    return Transition(rollout.obs, rollout.action, reward, terminated, truncated, next_obs, extras)


def _beginning(agent: Agent, state: TrainState, spec: Spec) -> tuple[PyTree, Rollout]:
    """What a row begins with: its first memory, and an empty rollout."""
    memory, obs = agent.init_memory(agent.num_envs), _zeros((agent.num_envs,), spec.obs_space)
    action, _, extras = jax.eval_shape(agent.act, state.agent, memory, obs, state.key, state.step)
    return memory, jax.tree.map(lambda x: _zeros((agent.rollout_length,), x), Rollout(obs, action, extras))


def _nothing(agent: Agent, state: TrainState, spec: Spec) -> tuple[Seen]:
    """What an interval begins with."""
    _, rollout = _beginning(agent, state, spec)
    number = jnp.zeros((agent.rollout_length, agent.num_envs))
    flag, count = number.astype(bool), number.astype(jnp.int32)
    trajectory = _trajectory(rollout, Experience(number, flag, flag, rollout.obs, number, count), False)
    _, metrics = jax.eval_shape(agent.update, state.agent, trajectory, state.key, state.step)
    return (loop.nothing_seen(metrics),)


def _zeros(leading: tuple[int, ...], like: Any) -> Array:
    return jnp.zeros((*leading, *like.shape), like.dtype)


def _interrupt(agent: Agent, state: TrainState) -> tuple[TrainState]:
    """The state, where none of the episodes that are going on will be continued."""
    return (state._replace(agent=agent.interrupt(state.agent, state.step)),)


def _finish(agent: Agent, state: TrainState, seen: Seen, updates: Array) -> tuple[Array, Metrics]:
    """What an interval ends with: `first_bad_step`, and its metrics."""
    return loop.checked_parameters(state), loop.interval_metrics(seen, updates)


def _draw(agent: Agent, state: TrainState, draw: Array, num_episodes: int) -> tuple[Array, Key, PyTree]:
    """What an evaluation begins with: seeds `[E]`, the key that is acted with, and the memory."""
    reset_key, run_key = jax.random.split(evaluation_key(state, draw))
    return host.draw_seeds(reset_key, num_episodes), run_key, agent.init_memory(num_episodes)


# ---------------------------------------------------------------- of all rows, compiled


def _compile(rows: Layout, env: HostEnv, agent: Agent, num_episodes: int, parts: tuple[str, ...]):
    """Compiles the functions above for all rows at once: leaves `[R, ...]`, but for what the rows share.

    Returns:
      the shapes of the state; the functions by name, with the same arguments but for the agent; and the bytes that
      training needs, on all devices.
    """
    lowered, space = {}, env.spec.obs_space

    def job(name: str, function: Callable, takes: tuple, gives: tuple, *arguments: Any, consumes: tuple = ()) -> tuple:
        """Takes on a function that returns a tuple; `takes` and `gives` say of what is split how."""
        of_row = lambda h, *arguments: function(rows.agent_of(h), *arguments)  # noqa: E731
        of_all = jax.vmap(of_row, (0, *map(_axes, takes)), tuple(map(_axes, gives)))
        donated = [1 + place for place in consumes]
        compilable = jax.jit(rows.sharded(of_all, (ROWS, *takes), gives), donate_argnums=donated)
        traced = compilable.trace(rows.hypers, *arguments)
        lowered[name] = traced.lower
        return tuple(rows.shape(x, ROWS) for x, spec in zip(traced.out_info, gives, strict=True) if spec is ROWS)

    def shape(*leading: int, like: Any) -> jax.ShapeDtypeStruct:
        return rows.shape(jax.ShapeDtypeStruct((len(rows.row), *leading, *like.shape), like.dtype), ROWS)

    starting, state = rows.starting(
        lambda keys, h: jax.vmap(lambda key, h: init_train(key, rows.agent_of(h), env), out_axes=ROW_AXES)(keys, h)
    )
    number, pair = (rows.shape(jax.ShapeDtypeStruct(shape, jnp.int32), SHARED) for shape in ((), (2,)))
    if "init" in parts:
        lowered["init"] = starting.lower
    if "train" in parts:
        one, times = (agent.num_envs,), (agent.rollout_length, agent.num_envs)
        job("seeds", _first_seeds, (STATE,), (ROWS,), state)
        memory, rollout = job("begin", functools.partial(_beginning, spec=env.spec), (STATE,), (ROWS,) * 2, state)
        (seen,) = job("nothing", functools.partial(_nothing, spec=env.spec), (STATE,), (ROWS,), state)
        obs, fresh = shape(*one, like=space), shape(*one, like=jnp.bool(False))
        takes, gives = (STATE, ROWS, ROWS, ROWS, ROWS, SHARED), (ROWS,) * 3
        job("act", _act, takes, gives, state, memory, rollout, obs, fresh, pair, consumes=(1, 2))
        real, flag, whole = (shape(*times, like=x) for x in (jnp.float32(0), jnp.bool(False), jnp.int32(0)))
        experience = Experience(real, flag, flag, shape(*times, like=space), real, whole)
        update = functools.partial(_update, clip_rewards=env.clip_rewards)
        takes = (STATE, ROWS, ROWS, ROWS)
        job("update", update, takes, (STATE, ROWS), state, rollout, experience, seen, consumes=(0, 3))
        job("interrupt", _interrupt, (STATE,), (STATE,), state, consumes=(0,))
        job("finish", _finish, (STATE, ROWS, SHARED), (ROWS, ROWS), state, seen, number)
    if "evaluate" in parts:
        draw = functools.partial(_draw, num_episodes=num_episodes)
        _, keys, memory = job("draw", draw, (STATE, SHARED), (ROWS,) * 3, state, number)
        obs = shape(num_episodes, like=space)
        takes = (ROWS, ROWS, ROWS, ROWS, SHARED)
        job("greedy", greedy, takes, (ROWS, ROWS), state.agent, memory, obs, keys, number)
    compiled = compile_parts(lowered)
    needed = max((memory_of(compiled[name]) for name in ("act", "update") if name in compiled), default=0)
    functions: dict[str, Any] = {name: functools.partial(function, rows.hypers) for name, function in compiled.items()}
    if "init" in parts:
        functions["init"] = lambda: compiled["init"](rows.keys, rows.hypers)
    return state, functions, needed * rows.mesh.size


def _axes(spec: Any) -> Any:
    """Over which axes something is mapped that is split so."""
    return ROW_AXES if spec is STATE else 0 if spec == ROWS else None


@standard_numbers
def compile_host_group(
    constructor: Constructor,
    group: Group,
    env: HostEnv,
    *,
    run_key: Key,
    num_seeds: int,
    num_eval_episodes: int,
    parts: tuple[str, ...] = ("init", "train", "evaluate"),
) -> Program:
    """`jaxrl.runs.program.compile_group` for an environment on the host; arguments, result and errors are as there.

    The rows are split over the devices of an accelerator. On a CPU they stay on one device, whose threads share them:
    to hand a step's few numbers to several devices takes longer than to compute with them.

    Raises:
      JaxrlError: if the agent cannot act in the environment; while it runs, a `HostError` if the environment fails.
    """
    checks.not_where_imported()
    started = time.perf_counter()
    devices = jax.devices() if jax.default_backend() != "cpu" else jax.devices()[:1]
    rows, agent = lay_out(constructor, group, run_key, num_seeds, devices), group_agent(constructor, group)
    shapes, functions, memory_bytes = _compile(rows, env, agent, num_eval_episodes, parts)

    def name(row: int) -> str:
        of = f" of configuration {group.indices[row // num_seeds]}" if len(group.indices) > 1 else ""
        return f"seed {row % num_seeds}{of}"

    training = Training(functions, rows, env, agent, name)
    evaluation = Evaluation(functions, rows, env, num_eval_episodes, name)

    def close():
        training.close()
        evaluation.close()

    return Program(
        init=lambda: functions["init"](),
        train=training.train,
        evaluate=evaluation.evaluate,
        agent=agent,
        num_rows=rows.num_rows,
        mesh=rows.mesh,
        shapes=shapes,
        compile_seconds=time.perf_counter() - started,
        memory_bytes=memory_bytes,
        close=close,
    )


# ---------------------------------------------------------------- on the host


class Training:
    """The environments that a group trains in, and where their episodes stand."""

    def __init__(
        self, functions: dict[str, Callable], rows: Layout, env: HostEnv, agent: Agent, name: Callable[[int], str]
    ):
        self.functions, self.rows, self.env, self.agent, self.name = functions, rows, env, agent, name
        wanted = agent.tolerates_stale_actions if env.overlap is None else env.overlap
        self.overlap = wanted and not agent.episodic
        self.shape = rows.num_rows, agent.num_envs
        self.vector: Any = None  # a `HostVector`, while its environments are open
        self.step = -1  # of the training state that the environments stand at

    def train(self, state: TrainState, updates: int) -> tuple[TrainState, Metrics]:
        """`Program.train`."""
        step = int(state.step)
        (seen,) = self.functions["nothing"](state)
        try:
            if self.vector is None:
                self.vector = self.env.make_vector(math.prod(self.shape))
                self.memory, self.rollout = self.functions["begin"](state)
                self.spare = jax.tree.map(jnp.copy, self.rollout) if self.overlap else self.rollout
            for _ in range(updates):
                if step != self.step and step and not self.agent.episodic:  # a run that resumes from a checkpoint
                    (state,) = self.functions["interrupt"](state)
                if step != self.step or self.agent.episodic:
                    self._reset(state)
                experience = self._collect(state, step)
                step = self.step = step + steps_per_update(self.agent)
                rollout = self.rollout
                if self.overlap:  # while an update reads one rollout, the next is written into the other
                    self.rollout, self.spare = self.spare, self.rollout
                    self.action = self._act(state, step, 0)
                state, seen = self.functions["update"](state, rollout, experience, seen)
        except checks.StepError as error:
            self.close()
            raise HostError(f"{self.env.spec.id}: {self._name(error, step)}: {error.text}", state) from error
        first_bad_step, metrics = self.functions["finish"](state, seen, np.int32(updates))
        return state._replace(first_bad_step=first_bad_step), metrics

    def close(self):
        """Ends the environments' processes."""
        if self.vector is not None:
            self.vector.close()
        self.vector, self.step = None, -1

    def _reset(self, state: TrainState):
        """Begins new episodes."""
        (seeds,) = self.functions["seeds"](state)
        obs = self.vector.reset(np.asarray(seeds)[: self.shape[0]].reshape(-1).tolist())
        self.obs, self.fresh = obs.reshape(*self.shape, *obs.shape[1:]), np.ones(self.shape, bool)
        self.returns, self.lengths = np.zeros(self.shape), np.zeros(self.shape, np.int32)  # a long sum: float64
        self.action = None

    def _act(self, state: TrainState, step: int, t: int) -> Array:
        """Has the actions chosen, and does not wait for them."""
        at = np.array([step, t], np.int32)
        obs, fresh = self._up(self.obs), self._up(self.fresh)
        action, self.memory, self.rollout = self.functions["act"](state, self.memory, self.rollout, obs, fresh, at)
        return action

    def _collect(self, state: TrainState, step: int) -> Experience:
        """Takes `T` steps; the rollout then holds the device's part of them."""
        steps = []
        for t in range(self.agent.rollout_length):
            action = self._act(state, step, t) if self.action is None else self.action
            self.action = None
            outcome = host.step(self.vector, self.env.spec, action, self.shape)
            returns, lengths = self.returns + outcome.reward, self.lengths + 1
            steps.append(Experience(*outcome[1:], returns.astype(np.float32), lengths))
            self.obs, self.fresh = outcome.obs, outcome.terminated | outcome.truncated
            self.returns, self.lengths = np.where(self.fresh, 0, returns), np.where(self.fresh, 0, lengths)
        return Experience(*(self._up(np.stack(field, axis=1)) for field in zip(*steps, strict=True)))

    def _up(self, rows: np.ndarray) -> np.ndarray:
        """The same in all of the places, those of the padding among them."""
        return rows if len(rows) == len(self.rows.row) else rows[self.rows.row]

    def _name(self, error: checks.StepError, step: int) -> str:
        row, index = divmod(error.index, self.shape[1])
        return f"environment {index} of {self.name(row)}, in the update that began at step {step:,}"


class Evaluation:
    """The environments that a group's greedy episodes are played in."""

    def __init__(
        self, functions: dict[str, Callable], rows: Layout, env: HostEnv, episodes: int, name: Callable[[int], str]
    ):
        self.functions, self.rows, self.env, self.name = functions, rows, env, name
        self.shape = rows.num_rows, episodes
        self.vector: Any = None  # a `HostVector`, while its environments are open

    def evaluate(self, state: TrainState, draw: int = 0) -> np.ndarray:
        """`Program.evaluate`."""
        seeds, keys, memory = self.functions["draw"](state, np.int32(draw))

        def act(memory: PyTree, obs: np.ndarray, t: int) -> tuple[Array, PyTree]:
            obs = obs if len(obs) == len(self.rows.row) else obs[self.rows.row]
            return self.functions["greedy"](state.agent, memory, obs, keys, np.int32(t))

        try:
            if self.vector is None:
                self.vector = self.env.make_vector(math.prod(self.shape))
            seeds = np.asarray(seeds)[: self.shape[0]]
            return host.play(self.vector, self.env.spec, act, memory, seeds, default_max_steps(self.env.spec))
        except checks.StepError as error:
            self.close()
            row, index = divmod(error.index, self.shape[1])
            where = f"episode {index} of the evaluation of {self.name(row)} at step {int(state.step):,}"
            raise HostError(f"{self.env.spec.id}: {where}: {error.text}", state) from error

    def close(self):
        """Ends the environments' processes."""
        if self.vector is not None:
            self.vector.close()
        self.vector = None
