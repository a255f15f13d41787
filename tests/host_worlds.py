"""Small environments in Gymnasium's interface, and one of them in jaxrl's own; only `Guess` is random."""

import os
import pathlib
import signal

import gymnasium as gym
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from jaxrl.types import Discrete, Env, Outcome, Spec, box

LIMIT = 6


class Counter(gym.Env):
    """It counts to ten, by one or by two; there it ends, or after six steps. The reward is what it has counted to.

    It is observed beside a one, or if it is to be `discrete`, a third of it, rounded down: often the same twice.
    """

    action_space = spaces.Discrete(2)

    def __init__(self, discrete=False):
        self.observation_space = spaces.Discrete(12) if discrete else spaces.Box(0, 12, (2,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self._obs(), {"some": "thing"}

    def step(self, action):
        self.count += 1 + int(action)
        return self._obs(), float(self.count), self.count >= 10, False, {"other": np.zeros(3)}

    def _obs(self):
        discrete = isinstance(self.observation_space, spaces.Discrete)
        return self.count // 3 if discrete else np.array([self.count, 1.0])


def counter(discrete: bool = False) -> Env:
    """The same, in JAX."""

    def obs(state):
        return state[0] // 3 if discrete else jnp.stack([state[0], 1]).astype(jnp.float32)

    def reset(key):
        state = jnp.zeros(2, jnp.int32)
        return state, obs(state)

    def step(key, state, action):
        state = state + jnp.array([1, 1]) + jnp.array([1, 0]) * action
        terminated = state[0] >= 10
        truncated = (state[1] >= LIMIT) & ~terminated
        return state, Outcome(obs(state), state[0].astype(jnp.float32), terminated, truncated)

    space = Discrete(12) if discrete else box(0, 12, (2,))
    return Env(reset, step, Spec("jaxrl/Counter-v0", space, Discrete(2), LIMIT))


class Guess(gym.Env):
    """One step: which of two observations is it? The right answer has the reward 1, the wrong one -1."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.side = int(self.np_random.integers(2))
        return np.array([2 * self.side - 1], np.float32), {}

    def step(self, action):
        return np.ones(1, np.float32), 1.0 if action == self.side else -1.0, True, False, {}


class Heavy(gym.Env):
    """Five steps, whose rewards are 2^24, to which a float32 cannot add the 1 of each of the others."""

    observation_space = spaces.Box(0, 5, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.full(1, self.time, np.float32), 2.0**24 if self.time == 1 else 1.0, self.time == 5, False, {}


class Chooser(gym.Env):
    """It returns the action as the observation and its sum as the reward; never ends. `closed` is a file, then made."""

    def __init__(self, low=-2.0, high=4.0, size=2, start=0, dtype=np.float32, closed=None):
        self.closed = closed
        self.action_space = spaces.Box(low, high, (size,), dtype) if size else spaces.Discrete(3, start=start)
        self.observation_space = spaces.Box(-np.inf, np.inf, (max(size, 1),), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(self.observation_space.shape, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        obs = np.atleast_1d(action).astype(np.float32)
        return obs, float(obs.sum()), False, False, {}

    def close(self):
        if self.closed:
            pathlib.Path(f"{self.closed}{os.getpid()}").touch()


class Fragile(gym.Env):
    """It counts its steps, and goes wrong in one of them, in one of several ways, as long as a file is there."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, how="raise", at=5, file=""):
        self.how, self.at, self.file, self.total = how, at, file, 0

    def reset(self, *, seed=None, options=None):
        if self.how == "reset" and self.total >= self.at:
            raise OSError("no more levels")
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.total += 1
        obs, reward, truncated = np.full(3, self.total, np.float32), 1.0, False
        if self.total == self.at and (not self.file or pathlib.Path(self.file).exists()):
            if self.how == "raise":
                raise ValueError("the wheel came\n off")
            obs = {"nan": obs * np.nan, "shape": obs[:2], "dtype": obs + 0j}.get(self.how, obs)
            reward = np.inf if self.how == "reward" else reward
            truncated = self.how == "truncate"
            if self.how == "exit":
                os._exit(3)
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
        return obs, reward, self.total % 5 == 0, truncated, {}


class Reuser(gym.Env):
    """It counts to four, and each observation is the one before, written over."""

    observation_space = spaces.Box(-9, 9, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self):
        self.obs = np.zeros(1, np.float32)

    def reset(self, *, seed=None, options=None):
        self.obs[0] = -5
        self.count = 0
        return self.obs, {}

    def step(self, action):
        self.count += 1
        self.obs[0] = self.count
        return self.obs, 0.0, self.count == 4, False, {}


class Lossy(gym.Env):
    """It observes one value in one dtype of numbers, and gives it as the reward if it is asked for."""

    def __init__(self, value=1, dtype="int64", space="int64", reward=False):
        big = np.iinfo(np.int64).max
        self.observation_space = {
            "int64": spaces.Box(-big, big, (2,), np.int64),
            "uint8": spaces.Box(0, 255, (2,), np.uint8),
            "float64": spaces.Box(-np.inf, np.inf, (2,), np.float64),
            "discrete": spaces.Discrete(4, start=2),
        }[space]
        self.action_space = spaces.Box(-np.inf, np.inf, (1,), np.float16)
        self.value = np.full(self.observation_space.shape, value, dtype)
        self.reward = value if reward else 0.0

    def reset(self, *, seed=None, options=None):
        return np.full(self.observation_space.shape, 2, self.observation_space.dtype), {}

    def step(self, action):
        return np.full(self.observation_space.shape, 2) if self.reward else self.value, self.reward, False, False, {}


class Pictures(gym.Env):
    """Screens of bytes: the number of the step in every pixel."""

    observation_space = spaces.Box(0, 255, (40, 40, 1), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return np.zeros((40, 40, 1), np.uint8), {}

    def step(self, action):
        self.time += 1
        return np.full((40, 40, 1), self.time, np.uint8), 0.0, self.time == 5, False, {}


class Odd(gym.Env):
    """Spaces that there is no counterpart for, and some that there is."""

    def __init__(self, obs="dict", actions="discrete"):
        unit = spaces.Box(0, 1, (2,), np.float32)
        self.observation_space = {
            "dict": spaces.Dict(a=unit, b=spaces.Discrete(3)),
            "discrete": spaces.Discrete(4, start=10),
            "box": unit,
        }[obs]
        self.action_space = {
            "discrete": spaces.Discrete(2),
            "many": spaces.MultiDiscrete([2, 3]),
            "bits": spaces.MultiBinary(3),
        }[actions]

    def reset(self, *, seed=None, options=None):
        self.time = 0
        if isinstance(self.observation_space, spaces.Dict):
            return {"a": np.array([0.5, 1], np.float32), "b": 2}, {}
        return 10, {}

    def step(self, action):
        self.time += 1
        obs = {"a": np.zeros(2, np.float32), "b": 0} if isinstance(self.observation_space, spaces.Dict) else 13
        return obs, 0.0, True, True, {}


LIMITS = {Counter: LIMIT, Fragile: 50}
for world in (Counter, Guess, Heavy, Chooser, Fragile, Reuser, Lossy, Pictures, Odd):
    gym.register(f"{world.__name__}-v0", f"host_worlds:{world.__name__}", max_episode_steps=LIMITS.get(world))
