"""Gymnasium's environments (Towers et al. 2024) on the host, through its vector API.

gymnasium is imported where it is needed, and need not be installed for anything else.

Each environment is wrapped, from the inside: by what `make`'s parameters ask for, all of them Gymnasium's own wrappers,
and by a guard, which looks at all that comes out and says which environment failed. Infos are dropped there, as
gathering them into arrays is most of what a vector environment spends its time on. Innermost, observations are copied:
an environment may write each over the one before, which frame stacks and terminal observations still refer to.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import math
import multiprocessing.connection
import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxrl import checks
from jaxrl.envs.check import as_space
from jaxrl.envs.wrappers import action_levels
from jaxrl.types import Box, Discrete, HostEnv, HostOutcome, HostVector, Space, Spec

if TYPE_CHECKING:
    import gymnasium

GROUP = "gymnasium"
INSTALL = "pip install 'jaxrl[gymnasium]'"
VECTORIZATIONS = ("sync", "async")

# What an Atari game is preprocessed by (Machado et al. 2018; Mnih et al. 2015), and where it ends: half an hour.
ATARI = {"noop_max": 30, "frame_skip": 4, "screen_size": 84, "terminal_on_life_loss": False, "frame_stack": 4}
ATARI_FRAMES = 108_000
LARGEST = float(np.finfo(np.float32).max)
OURS = ("vectorization", "overlap", "clip_rewards", "truncates_itself")


class Recipe(NamedTuple):
    """How one environment is made, in whatever process.

    Attributes:
      owner: the id that `jaxrl.make` got.
      spec: Gymnasium's own.
      arguments: of the environment's constructor.
      atari: what `AtariPreprocessing` gets; None where it is no Atari game.
      wrappers: those of `make`'s parameters, with their values.
      max_steps: the time limit, or None.
      truncates_itself: whether the environment may cut an episode off before that.
    """

    owner: str
    spec: Any
    arguments: dict[str, Any]
    atari: dict[str, Any] | None
    wrappers: dict[str, Any]
    max_steps: int | None
    truncates_itself: bool


def list_ids() -> list[str]:
    """The ids of what is registered with Gymnasium, newest versions only; none where it is not installed."""
    try:
        import gymnasium
    except ImportError:
        return []
    _find_atari()
    newest: dict[tuple, Any] = {}
    for spec in gymnasium.registry.values():
        name = spec.namespace, spec.name
        if _works(spec) and (name not in newest or (spec.version or 0) > (newest[name].version or 0)):
            newest[name] = spec
    return [f"{GROUP}/{spec.id}" for spec in newest.values()]


def gymnasium_env(name: str, wrappers: dict[str, Any], **params: Any) -> HostEnv:
    """Adapts one of Gymnasium's environments.

    Args:
      name: as Gymnasium names it, such as `LunarLander-v3`, or `module:Name-v0`, where importing the module registers
        it.
      wrappers: parameters of `make` that are wrappers. `time_limit` replaces the environment's own limit.
      **params: arguments of the environment's constructor, and:
        `vectorization`: "sync" steps one environment after the other, "async" has a process for each.
        `overlap`: whether steps are taken while an update is computed, True or False; unless given, where the agent
          tolerates it. See `HostEnv` and `Agent.tolerates_stale_actions`.
        `clip_rewards`: whether agents learn from the rewards' signs (Mnih et al. 2015); returns are of the rewards as
          they are.
        `truncates_itself`: whether it may cut an episode off before its time limit.
        Of Atari games also the arguments of `AtariPreprocessing`: `noop_max`, `frame_skip`, `screen_size` and
        `terminal_on_life_loss`; `frame_stack` is 4 unless given, and the time limit counts the agent's steps.

    Raises:
      JaxrlError: if Gymnasium or what the environment needs is not installed, for an unknown id, and for a parameter or
        a space that is not accepted.
    """
    owner = f"{GROUP}/{name}"
    gym = _gymnasium(owner)
    options = {"vectorization": "sync", "overlap": None, "clip_rewards": False, "truncates_itself": False}
    options |= {key: params.pop(key) for key in OURS if key in params}
    checks.one_of(owner, VECTORIZATIONS, vectorization=options["vectorization"])
    for key in OURS[1:]:
        checks.one_of(owner, (True, False, None) if key == "overlap" else (True, False), **{key: options[key]})
    recipe = _recipe(owner, _find(gym, owner, name), dict(params), dict(wrappers), options["truncates_itself"])
    env = _first(gym, recipe)
    action_space, obs_space = env.action_space, env.observation_space
    env.close()
    spec = Spec(
        owner,
        _space(owner, "observations", obs_space),
        _space(owner, "actions", action_space),
        recipe.max_steps,
        truncates_early=True if recipe.truncates_itself else None,
    )
    make_vector = functools.partial(_make_vector, recipe, spec, options["vectorization"])
    return HostEnv(spec, make_vector, options["clip_rewards"], options["overlap"])


# ---------------------------------------------------------------- one environment


def _gymnasium(owner: str) -> Any:
    try:
        import gymnasium
        from gymnasium.vector import AutoresetMode  # noqa: F401
    except ImportError as error:
        raise checks.JaxrlError(f"{owner}: it needs gymnasium, at least 1.1: {INSTALL}") from error
    return gymnasium


def _find_atari() -> bool:
    """Registers the Atari games, where their package is installed."""
    try:
        import ale_py  # pyright: ignore[reportMissingImports]  # of an extra
    except ImportError:
        return False
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # else each game says on stderr what it is made of
    return True


def _is_atari(spec: Any) -> bool:
    return isinstance(spec.entry_point, str) and spec.entry_point.startswith("ale_py.")


def _works(spec: Any) -> bool:
    """Whether an id is one for a list: not an adapter to be given an environment, nor one that only says it moved."""
    if _is_atari(spec):
        return spec.namespace == "ALE"
    return not (spec.id.startswith("GymV2") or "mujoco:" in str(spec.entry_point))


def _find(gym: Any, owner: str, name: str) -> Any:
    """Gymnasium's spec of an id."""
    if name.startswith("ALE/") and not _find_atari():
        raise checks.JaxrlError(f"{owner}: it needs ale-py: {INSTALL}")
    if name not in gym.registry and ":" not in name:
        _find_atari()
    try:
        with _quiet():
            module, _, own = name.rpartition(":")
            if module:
                importlib.import_module(module)
            return gym.spec(own)
    except ImportError as error:
        raise checks.JaxrlError(f"{owner}: {error}") from error
    except gym.error.Error:
        raise checks.unknown_name("environment", owner, list_ids(), see="jaxrl list") from None


def _recipe(owner: str, spec: Any, params: dict[str, Any], wrappers: dict[str, Any], truncates_itself: bool) -> Recipe:
    max_steps, atari = spec.max_episode_steps, None
    if _is_atari(spec):
        for key, reason in {
            "frameskip": "it is 1, and frame_skip that of the preprocessing",
            "obs_type": "the preprocessing observes the screen in grey",
            "max_num_frames_per_episode": "time_limit counts the agent's steps",
        }.items():
            if key in params:
                raise checks.JaxrlError(f"{owner}: {key}={params[key]!r} is not accepted; {reason}")
        atari = {key: params.pop(key, value) for key, value in ATARI.items() if key != "frame_stack"}
        checks.integer(owner, 0, noop_max=atari["noop_max"])
        checks.integer(owner, frame_skip=atari["frame_skip"], screen_size=atari["screen_size"])
        checks.one_of(owner, (True, False), terminal_on_life_loss=atari["terminal_on_life_loss"])
        wrappers = {"frame_stack": ATARI["frame_stack"]} | wrappers
        params |= {"frameskip": 1, "max_num_frames_per_episode": 0}
        max_steps = ATARI_FRAMES // atari["frame_skip"]
    limit = wrappers.pop("time_limit", None)
    if limit is not None:
        checks.integer("time_limit", time_limit=limit)
        max_steps = int(limit)
    return Recipe(owner, spec, params, atari, wrappers, max_steps, truncates_itself)


def _first(gym: Any, recipe: Recipe) -> gymnasium.Env:
    """The first of the environments, which shows whether it can be made at all."""
    try:
        return build(recipe, 0)
    except checks.JaxrlError:
        raise
    except (ModuleNotFoundError, gym.error.DependencyNotInstalled) as error:
        raise checks.JaxrlError(f"{recipe.owner}: {_first_line(error)}; {INSTALL} brings it") from error
    except Exception as error:  # the constructor's own; it is somebody else's code
        raise checks.JaxrlError(f"{recipe.owner}: it cannot be made: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """What an exception says, without what Gymnasium adds to it."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line.partition(" was raised from the environment creator")[0]


def build(recipe: Recipe, index: int) -> gymnasium.Env:
    """Makes the environment of a place in a vector, in whatever process this is called."""
    import gymnasium as gym
    from gymnasium import wrappers

    if recipe.atari is not None:
        _find_atari()
    with _quiet():  # and without Gymnasium's checker, as the guard is there, and the time limit, which comes later
        env = gym.make(recipe.spec, max_episode_steps=-1, disable_env_checker=True, **recipe.arguments)
    env = _copying(env)
    if recipe.atari is not None:
        env = wrappers.AtariPreprocessing(env, grayscale_newaxis=True, **recipe.atari)
    if recipe.max_steps is not None:
        env = wrappers.TimeLimit(env, recipe.max_steps)
    for name, wrap in WRAPPERS.items():
        value = recipe.wrappers.get(name)
        if value is not None and value is not False:
            env = wrap(recipe.owner, env, value)
    _space(recipe.owner, "observations", env.observation_space)
    _space(recipe.owner, "actions", env.action_space)
    return _guard(env, index, None if recipe.truncates_itself else recipe.max_steps)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Gymnasium's advice, such as that there is a later version."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _describe(error: Exception) -> str:
    """An exception, and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}{place}" if text else f"{type(error).__name__}{place}"


def _copying(env: gymnasium.Env) -> gymnasium.Env:
    """The environment, within all of its wrappers in one that copies each observation."""
    import gymnasium as gym

    def copied(obs: Any) -> Any:
        return obs.copy() if type(obs) is np.ndarray else copy.deepcopy(obs)

    class Copying(gym.Wrapper):
        def reset(self, **options: Any) -> tuple[Any, dict]:
            obs, info = self.env.reset(**options)
            return copied(obs), info

        def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
            obs, reward, terminated, truncated, info = self.env.step(action)
            return copied(obs), reward, terminated, truncated, info

    if not isinstance(env, gym.Wrapper):
        return Copying(env)
    wrapper = env
    while isinstance(wrapper.env, gym.Wrapper):
        wrapper = wrapper.env
    wrapper.env = Copying(wrapper.env)
    return env


def _fits(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Which numbers another dtype holds, bool of their shape: integers exactly, and floats rounded but finite."""
    with np.errstate(all="ignore"):
        cast = values.astype(dtype)
    return np.isfinite(cast) if dtype.kind == "f" else cast == values


def _guard(env: gymnasium.Env, index: int, max_steps: int | None) -> gymnasium.Env:
    """The environment without infos, and with a `StepError` for whatever it does wrong."""
    import gymnasium as gym
    from gymnasium import spaces

    space: Any = env.observation_space
    shape, dtype, floats = space.shape, space.dtype, space.dtype.kind == "f"
    ours, discrete = _space("", "observations", space).dtype, isinstance(space, spaces.Discrete)
    largest = min(float(np.finfo(dtype).max), LARGEST) if floats else 0

    def checked(obs: Any) -> np.ndarray:
        obs = np.array(obs)  # a copy: what is outermost may keep what it gives, too
        if obs.shape != shape:
            raise checks.StepError(index, f"an observation has shape {obs.shape}; its space says {shape}")
        integers = obs.dtype.kind in "iu" and dtype.kind in "iu"  # a list of numbers is int64, also of a uint8 space
        if obs.dtype != dtype and not (integers or np.can_cast(obs.dtype, dtype, "same_kind")):
            raise checks.StepError(index, f"an observation is of {obs.dtype}; its space says {dtype}")
        if floats:
            if (np.abs(obs) <= largest).all():
                return obs
            if not np.isfinite(obs).all():
                raise checks.StepError(index, f"an observation is not finite: {_short(obs)}")
        if discrete:
            if not space.start <= obs < space.start + space.n:
                raise checks.StepError(index, f"an observation is {obs}; its space says {space}")
            return obs
        for narrow in (dtype, ours):
            if obs.dtype != narrow and not (fits := _fits(obs, narrow)).all():
                raise checks.StepError(
                    index, f"an observation does not fit into {narrow}: {_short(obs[~fits])}, of {obs.dtype}"
                )
        return obs.astype(dtype, copy=False)

    class Guard(gym.Wrapper):
        time = 0

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
            self.time = 0
            try:
                obs, _ = self.env.reset(seed=seed, options=options)
            except Exception as error:  # whatever the environment raises
                raise checks.StepError(index, f"reset raised {_describe(error)}") from error
            return checked(obs), {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
            try:
                obs, reward, terminated, truncated, _ = self.env.step(action)
                reward = float(reward)
            except Exception as error:
                raise checks.StepError(index, f"step raised {_describe(error)}") from error
            self.time += 1
            if not math.isfinite(reward):
                raise checks.StepError(index, f"a reward is not finite: {reward}")
            if abs(reward) > LARGEST:
                raise checks.StepError(index, f"a reward does not fit into float32: {reward}")
            if truncated and not terminated and max_steps is not None and self.time < max_steps:
                raise checks.StepError(
                    index,
                    f"an episode was cut off after {self.time} steps, though the time limit is {max_steps}; the "
                    "parameter truncates_itself=True allows that",
                )
            return checked(obs), reward, bool(terminated), bool(truncated), {}

    return Guard(env)


def _short(obs: Any) -> str:
    return " ".join(np.array2string(np.asarray(obs), precision=3, threshold=8).split())


# ---------------------------------------------------------------- wrappers


def _bounded(owner: str, env: gymnasium.Env, name: str) -> tuple[np.ndarray, np.ndarray]:
    space = _space(owner, "actions", env.action_space)
    if not isinstance(space, Box) or not space.bounded:
        text = f"{name}: {owner} takes {env.action_space} actions; they must be a bounded Box"
        raise checks.JaxrlError(f"{text}, with bounds of at most {space.limit}" if isinstance(space, Box) else text)
    actions: Any = env.action_space
    return actions.low, actions.high


def _rescale_actions(owner: str, env: gymnasium.Env, _: bool) -> gymnasium.Env:
    from gymnasium import spaces
    from gymnasium.wrappers import RescaleAction, TransformAction

    low, high = _bounded(owner, env, "rescale_actions")
    if low.dtype.kind == "f":
        return RescaleAction(env, -1.0, 1.0)  # pyright: ignore[reportArgumentType]  # Python's floats are fine

    least, width = low.astype(np.float64), high.astype(np.float64) - low  # in a dtype as narrow as int8 it would wrap

    def whole(action: np.ndarray) -> np.ndarray:
        return np.rint(least + (np.clip(action, -1, 1) + 1) / 2 * width).astype(low.dtype)

    return TransformAction(env, whole, spaces.Box(-1, 1, low.shape, np.float32))


def _clip_actions(owner: str, env: gymnasium.Env, _: bool) -> gymnasium.Env:
    from gymnasium.wrappers import TransformAction

    low, high = _bounded(owner, env, "clip_actions")
    return TransformAction(env, lambda action: np.clip(action, low, high), env.action_space)


def _discretize_actions(owner: str, env: gymnasium.Env, num_levels: int) -> gymnasium.Env:
    from gymnasium import spaces
    from gymnasium.wrappers import TransformAction  # its DiscretizeAction has no level at the bounds

    _bounded(owner, env, "discretize_actions")
    table = action_levels(owner, env.action_space, num_levels)
    return TransformAction(env, lambda action: table[action], spaces.Discrete(len(table)))


def _scale_rewards(owner: str, env: gymnasium.Env, scale: float) -> gymnasium.Env:
    from gymnasium.wrappers import TransformReward

    checks.number("scale_rewards", 0, open_low=True, scale_rewards=scale)
    return TransformReward(env, lambda reward: scale * float(reward))


def _flatten_observations(owner: str, env: gymnasium.Env, _: bool) -> gymnasium.Env:
    from gymnasium.wrappers import FlattenObservation

    return FlattenObservation(env)


def _observe(owner: str, env: gymnasium.Env, indices: Sequence[int]) -> gymnasium.Env:
    space = env.observation_space
    entries = list(indices)
    size = space.shape[0] if space.shape is not None and len(space.shape) == 1 else 0
    if not entries or len(set(entries)) < len(entries) or any(not isinstance(i, (int, np.integer)) for i in entries):
        raise checks.JaxrlError(f"observe: observe={indices} is not accepted; it must be entries, each of them once")
    if any(not 0 <= i < size for i in entries):
        raise checks.JaxrlError(f"observe: observe={indices} is not accepted; {owner} observes {space}")
    return _transformed(env, lambda obs: np.asarray(obs)[entries])


def _frame_stack(owner: str, env: gymnasium.Env, num_frames: int) -> gymnasium.Env:
    from gymnasium.wrappers import FrameStackObservation

    checks.integer("frame_stack", frame_stack=num_frames)
    if env.observation_space.shape is None or len(env.observation_space.shape) not in (1, 3):
        raise checks.JaxrlError(
            f"frame_stack: {owner} observes {env.observation_space}; it must be a Box of rank 1 or 3 "
            "(flatten_observations makes it one)"
        )
    if num_frames == 1:
        return env
    # [F, ..., C] -> [..., F * C]: the channels of an image lie side by side, the newest frame's last.
    return _transformed(FrameStackObservation(env, num_frames), lambda frames: np.concatenate(list(frames), axis=-1))


def _transformed(env: gymnasium.Env, change: Callable[[np.ndarray], np.ndarray]) -> gymnasium.Env:
    from gymnasium import spaces
    from gymnasium.wrappers import TransformObservation

    old: Any = env.observation_space
    return TransformObservation(env, change, spaces.Box(change(old.low), change(old.high), dtype=old.dtype))


WRAPPERS: dict[str, Callable[[str, Any, Any], Any]] = {
    "discretize_actions": _discretize_actions,
    "rescale_actions": _rescale_actions,
    "clip_actions": _clip_actions,
    "scale_rewards": _scale_rewards,
    "flatten_observations": _flatten_observations,
    "observe": _observe,
    "frame_stack": _frame_stack,
}


# ---------------------------------------------------------------- several


def _space(owner: str, what: str, space: Any) -> Space:
    """One of Gymnasium's spaces as ours; what is discrete is counted from 0 (`_Vector` shifts it)."""
    from gymnasium import spaces

    return Discrete(int(space.n)) if isinstance(space, spaces.Discrete) else as_space(owner, what, space)


def _make_vector(recipe: Recipe, spec: Spec, vectorization: str, num_envs: int) -> HostVector:
    from gymnasium import vector

    makers = [functools.partial(_build_in_vector, recipe, index, os.getpid()) for index in range(num_envs)]
    mode = vector.AutoresetMode.SAME_STEP  # the only one in which nothing is stepped that no agent acted in
    if vectorization == "sync":
        return _Vector(vector.SyncVectorEnv(makers, copy=False, autoreset_mode=mode), spec)
    checks.not_where_imported()
    # JAX's threads do not survive a fork. The server, forked before they start, has imported what each process needs.
    multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
    made = vector.AsyncVectorEnv.__new__(vector.AsyncVectorEnv)  # first, for its processes even where it cannot begin
    try:
        with _no_process_ends(made, " before it had made its environment", GUARD):
            made.__init__(makers, copy=False, autoreset_mode=mode, context="forkserver")
    except BaseException:
        _end(made)
        raise
    return _Vector(made, spec)


GUARD = (
    '; each process imports the script that is run, so what trains must be in it below `if __name__ == "__main__":`, '
    "else what that process wrote says what went wrong"
)


def _build_in_vector(recipe: Recipe, index: int, parent: int) -> gymnasium.Env:
    """`build`, in the process `parent` or in one of its own."""
    if os.getpid() != parent:  # Ctrl-C reaches all processes, and is the parent's to answer
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return build(recipe, index)
    except Exception as error:  # whatever the environment's constructor raises
        raise checks.StepError(index, f"it cannot be made: {_describe(error)}") from error


@contextlib.contextmanager
def _no_process_ends(vector: Any, when: str = "", hint: str = "") -> Iterator[None]:
    """Turns what is raised where an environment's process has ended into a `StepError` that says how it did."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        processes = vector.processes
        ended = multiprocessing.connection.wait([process.sentinel for process in processes], timeout=PATIENCE)
        if not ended:
            raise
        index = next(i for i, process in enumerate(processes) if process.sentinel in ended)
        processes[index].join()
        code = processes[index].exitcode
        how = f"ended with exit code {code}{when}{hint}"
        if code < 0:
            memory = "; the kernel does that where memory runs out" if code == -signal.SIGKILL else ""
            how = f"was ended by {signal.Signals(-code).name}{when}{memory}"
        raise checks.StepError(index, f"its process {how}") from error


def _end(vector: gymnasium.vector.AsyncVectorEnv):
    """Ends the processes of a vector environment, as many as it has begun and whatever they are at.

    They have `GRACE` seconds, all together, to close their environments.
    """
    processes = [process for process in getattr(vector, "processes", ()) if process.pid is not None]
    for pipe in getattr(vector, "parent_pipes", ()):
        with contextlib.suppress(OSError, AttributeError):
            pipe.send(("close", None))
    deadline = time.monotonic() + GRACE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
    for pipe in getattr(vector, "parent_pipes", ()):
        if pipe is not None:
            pipe.close()
    vector.closed = True


GRACE = 1.0  # seconds for what an environment does in `close`, or is at
PATIENCE = 10.0  # seconds until a process that no longer answers is known to have ended


class _Vector:
    """A vector environment of Gymnasium's as a `HostVector`."""

    def __init__(self, vector: Any, spec: Spec):
        self.vector, self.spec = vector, spec
        # Gymnasium's Discrete spaces may start elsewhere than at 0; a uint8 image stays one if 0 of its type is added.
        spaces = vector.single_observation_space, vector.single_action_space
        self.first_obs, self.first_action = (space.dtype.type(getattr(space, "start", 0)) for space in spaces)
        self.action_dtype = vector.single_action_space.dtype

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        with _no_process_ends(self.vector):
            obs, _ = self.vector.reset(seed=[int(seed) for seed in seeds])
        return self._observed(obs)

    def step(self, actions: np.ndarray) -> HostOutcome:
        actions = self._actions(np.asarray(actions))
        with _no_process_ends(self.vector):
            obs, reward, terminated, truncated, infos = self.vector.step(actions)
        obs = next_obs = self._observed(obs)
        ended = terminated | truncated
        if ended.any():
            next_obs = obs.copy()
            next_obs[ended] = self._observed(np.stack(infos["final_obs"][ended].tolist()))
        return HostOutcome(obs, reward.astype(np.float32), terminated, truncated & ~terminated, next_obs)

    def close(self) -> None:
        if hasattr(self.vector, "processes"):
            _end(self.vector)
        else:
            self.vector.close()

    def _actions(self, actions: np.ndarray) -> np.ndarray:
        """As the environments take them."""
        if not np.can_cast(actions.dtype, self.action_dtype):
            fits = _fits(actions, self.action_dtype).reshape(len(actions), -1).all(axis=1)
            if not fits.all():
                index = int(np.argmin(fits))
                text = f"an action does not fit into {self.action_dtype}: {_short(actions[index])}, of {actions.dtype}"
                raise checks.StepError(index, text)
        return actions.astype(self.action_dtype) + self.first_action

    def _observed(self, obs: Any) -> np.ndarray:
        """A copy, of our dtype: the vector environment writes the next ones over its own."""
        return (obs - self.first_obs).astype(self.spec.obs_space.dtype, copy=False)
