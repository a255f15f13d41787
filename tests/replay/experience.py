"""Trajectories every field of which tells the step that it belongs to, and what a replay should make of them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.types import Discrete, Goal, Spec, Transition, box


class Kind(NamedTuple):
    """What is added: `[T, N]` at once, from episodes that end after `max_steps`, or earlier by themselves."""

    length: int
    num_envs: int
    max_steps: int | None


def spec(kind: Kind) -> Spec:
    return Spec("Fake-v0", box(0, 255, (2,), np.uint8), Discrete(1000), kind.max_steps)


def history(kind: Kind, num_adds: int, seed: int = 0, seams: tuple[int, ...] = ()) -> Transition:
    """All that is added, NumPy leaves `[num_adds * T, N, ...]`.

    `action` is an id of the step (row * N + env), and `obs` of the observation; what follows a step that did not end is
    the next row's observation. About one step in five terminates; time limits truncate. After each add whose number is
    among `seams` other episodes begin, which no step is marked with.
    """
    rng = np.random.default_rng(seed)
    rows, width = num_adds * kind.length, kind.num_envs
    ids = np.arange(rows * width, dtype=np.int32).reshape(rows, width)
    obs = encode(ids)
    terminated = rng.random((rows, width)) < 0.2
    truncated = np.zeros((rows, width), bool)
    age = np.zeros(width, int)
    for row in range(rows):
        age += 1
        if kind.max_steps is None:
            truncated[row] = ~terminated[row] & (rng.random(width) < 0.2)
        else:
            truncated[row] = ~terminated[row] & (age >= kind.max_steps)
        age[terminated[row] | truncated[row] | (row in last_rows(kind, seams))] = 0
    following = encode(np.concatenate([ids[1:], ids[-1:] + width]))
    ended = terminated | truncated
    ended[last_rows(kind, seams)] = True
    next_obs = np.where(ended[..., None], encode(ids, offset=100), following)
    extras = {"log_prob": -0.5 * ids.astype(np.float32)}
    return Transition(obs, ids, 0.25 * ids.astype(np.float32), terminated, truncated, next_obs, extras)


def last_rows(kind: Kind, seams: tuple[int, ...]) -> list[int]:
    """The rows before which nothing is known of the next episode: the last of these adds."""
    return [(seam + 1) * kind.length - 1 for seam in seams]


def achieved(obs):
    return obs[..., :1]


def replace(obs, goal):
    return jnp.concatenate([obs[..., :1], goal], axis=-1)


def reward(achieved, wanted):
    distance = jnp.abs(achieved - wanted)[..., 0]
    return -distance, distance == 0


GOAL = Goal(achieved, replace, reward)


def goal_spec(kind: Kind) -> Spec:
    return Spec("FakeGoal-v0", box(-1, 1e6, (2,)), Discrete(1000), kind.max_steps, goal=GOAL)


def goal_history(kind: Kind, num_adds: int, seams: tuple[int, ...] = ()) -> Transition:
    """As `history`, with observations [position, wanted]: every position is another one, and -1 is wanted."""
    everything = history(kind, num_adds, seams=seams)
    following = everything.action + kind.num_envs
    ended = everything.terminated | everything.truncated
    ended[last_rows(kind, seams)] = True
    next_position = np.where(ended, everything.action + 0.5, following)

    def obs(position):
        return np.stack([position, np.full(position.shape, -1)], axis=-1).astype(np.float32)

    return everything._replace(obs=obs(everything.action), next_obs=obs(next_position))


def encode(ids: np.ndarray, offset: int = 0) -> np.ndarray:
    return np.stack([ids % 251, (ids // 251) * 7 + 3 + offset], axis=-1).astype(np.uint8)


def fill(
    replay,
    kind: Kind,
    num_adds: int,
    key,
    length: int = 1,
    everything: Transition | None = None,
    spec=spec,
    seams: tuple[int, ...] = (),
):
    """Adds all, and samples after each add; the last state, and the samples, leaves `[num_adds, B, L, ...]`.

    After the samples that follow an add whose number is among `seams`, the episodes are interrupted.
    """
    everything = history(kind, num_adds, seams=seams) if everything is None else everything
    chunks = jax.tree.map(lambda x: jnp.asarray(x).reshape(num_adds, kind.length, *x.shape[1:]), everything)
    state = replay.init(jax.tree.map(lambda x: x[0], chunks), spec(kind))
    added = kind.length * kind.num_envs

    def body(state, x):
        turn, chunk, key = x
        state = replay.add(state, chunk, turn * added)
        sample = replay.sample(state, key, (turn + 1) * added, length)
        state = replay.update(state, sample.indices, sample.steps.reward[:, 0] % 3)
        if seams:
            seam, interrupted = jnp.isin(turn, jnp.array(seams)), replay.interrupt(state, (turn + 1) * added)
            state = jax.tree.map(lambda new, old: jnp.where(seam, new, old), interrupted, state)
        return state, sample

    turns = jnp.arange(num_adds)
    return jax.lax.scan(body, state, (turns, chunks, jax.random.split(key, num_adds)))


def void_steps(everything: Transition, kind: Kind, seams: tuple[int, ...], turn: int) -> set[int]:
    """The ids of the steps that are void when it is sampled in a turn."""
    ended = everything.terminated | everything.truncated
    rows = last_rows(kind, [seam for seam in seams if seam < turn])
    return {row * kind.num_envs + env for row in rows for env in range(kind.num_envs) if not ended[row, env]}


def check(sample, kind: Kind, num_adds: int, capacity: int, seams: tuple[int, ...] = ()):
    """What was sampled is what was added, field by field; and no step is older than the capacity, or not yet taken.

    No stretch holds a step that is void, and those that begin with one have weight 0.
    """
    everything = history(kind, num_adds, seams=seams)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), everything)
    added = kind.length * kind.num_envs
    ended = flat.terminated | flat.truncated
    for turn in range(num_adds):
        seen, void = (turn + 1) * added, void_steps(everything, kind, seams, turn)
        for b in range(sample.valid.shape[1]):
            first = sample.steps.action[turn, b, 0]
            assert max(0, seen - capacity) <= first < seen
            assert sample.indices[turn, b] == first % capacity
            assert (sample.weights[turn, b] == 0) == (first in void)
            alive = True
            for k in range(sample.valid.shape[2]):
                step = first + k * kind.num_envs
                alive = alive and step < seen and step not in void
                assert sample.valid[turn, b, k] == alive, (turn, b, k)
                if not alive:
                    continue
                got = jax.tree.map(lambda x: x[turn, b, k], sample.steps)
                want = jax.tree.map(lambda x: x[step], flat)
                if want.terminated:  # what follows is never asked for
                    got, want = got._replace(next_obs=()), want._replace(next_obs=())
                jax.tree.map(np.testing.assert_array_equal, got, want)
                alive = not ended[step]
