"""Each wrapper against numbers computed by hand, on an environment that can be followed by hand."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import checks, envs
from jaxrl.envs import wrappers
from jaxrl.replay import uniform
from jaxrl.types import Box, Discrete, Env, Goal, Model, Outcome, Spec, Transition, box


class CountState(NamedTuple):
    start: jax.Array
    time: jax.Array


def counter(length: int = 3, truncates: bool = False, shape: tuple[int, ...] = (1,), action_space=None) -> Env:
    """Observes `start + time`; `start` is one of 0, 100, ..., 99900 at random; the reward is the action's sum."""

    def observe(state):
        return jnp.full(shape, state.start + state.time, jnp.float32)

    def reset(key):
        state = CountState(100 * jax.random.randint(key, (), 0, 1000), jnp.int32(0))
        return state, observe(state)

    def step(key, state, action):
        successor = CountState(state.start, state.time + 1)
        ended = successor.time >= length
        new = jax.tree.map(lambda x, y: jnp.where(ended, x, y), reset(key)[0], successor)
        reward = jnp.sum(action).astype(jnp.float32)
        extras = {"action": action}
        outcome = Outcome(reward, ended & (not truncates), ended & truncates, observe(successor), extras)
        return new, observe(new), outcome

    space = box([-1, 0], [1, 4], (2,)) if action_space is None else action_space
    return Env(reset, step, Spec("Counter", box(0, 100_003, shape), space, length))


def run(env: Env, actions, seed: int = 0):
    """Observations before and after each step, and outcomes, `[T, ...]`."""

    @jax.jit
    def scan(key):
        def body(carry, x):
            state, obs = carry
            state, new_obs, outcome = env.step(x[0], state, x[1])
            return (state, new_obs), (obs, new_obs, outcome)

        keys = jax.random.split(key, len(actions))
        return jax.lax.scan(body, env.reset(key), (keys, jnp.asarray(actions)))[1]

    return jax.tree.map(np.asarray, scan(jax.random.key(seed)))


ZEROS = np.zeros((8, 2), np.float32)


def test_rescale_actions():
    env = envs.rescale_actions(counter())
    assert (env.spec.action_space.low.tolist(), env.spec.action_space.high.tolist()) == ([-1, -1], [1, 1])
    taken = run(env, [[-1.0, -1.0], [0.0, 0.0], [1.0, 0.5]])[2].extras["action"]
    assert taken.tolist() == [[-1, 0], [0, 2], [1, 3]]


def test_clip_actions():
    env = envs.clip_actions(counter())
    assert env.spec.action_space.high.tolist() == [1, 4]
    taken = run(env, [[-5.0, -5.0], [0.5, 3.0], [5.0, 5.0]])[2].extras["action"]
    assert taken.tolist() == [[-1, 0], [0.5, 3], [1, 4]]


def test_discretize_actions():
    env = envs.discretize_actions(counter(), 3)
    assert env.spec.action_space == Discrete(9)
    taken = run(env, np.arange(9))[2].extras["action"]
    assert taken.tolist() == [[x, y] for x in (-1, 0, 1) for y in (0, 2, 4)]
    torque = envs.make("Pendulum-v1", discretize_actions=5)
    assert torque.spec.action_space == Discrete(5)


def test_wrappers_of_actions_that_are_whole_numbers():
    space = Box(np.float32([0, -2]), np.float32([1, 6]), np.dtype(np.int32))
    env = envs.rescale_actions(counter(action_space=space))
    assert env.spec.action_space == box(-1, 1, (2,))
    taken = run(env, [[-1.0, -1.0], [0.2, 0.3], [1.0, 1.0]])[2].extras["action"]
    assert (taken.tolist(), taken.dtype) == ([[0, -2], [1, 3], [1, 6]], np.int32)
    env = envs.clip_actions(counter(action_space=space))
    taken = run(env, np.array([[-5, -5], [1, 3], [9, 9]]))[2].extras["action"]
    assert (taken.tolist(), taken.dtype) == ([[0, -2], [1, 3], [1, 6]], np.int32)
    env = envs.discretize_actions(counter(action_space=space), 2)
    taken = run(env, np.arange(4))[2].extras["action"]
    assert (taken.tolist(), taken.dtype) == ([[0, -2], [0, 6], [1, -2], [1, 6]], np.int32)
    with pytest.raises(checks.JaxrlError, match=r"discretize_actions=3 is not accepted for Counter.* whole numbers"):
        envs.discretize_actions(counter(action_space=space), 3)
    assert wrappers.action_levels("x", box(0, 10, (1,), np.uint8), 4)[:, 0].tolist() == [0, 3, 7, 10]


@pytest.mark.parametrize("truncates", [False, True])
def test_time_limit(truncates):
    """Limit 2 of 3 steps: cut at each second step, and the environment starts anew, at its own step 0."""
    env = envs.time_limit(counter(3, truncates), 2)
    assert env.spec.max_steps == 2
    obs, _, outcome = run(env, ZEROS)
    assert outcome.truncated.tolist() == [False, True] * 4
    assert not outcome.terminated.any()
    assert (obs[:, 0] % 100).tolist() == [0, 1] * 4
    assert (outcome.next_obs[:, 0] % 100).tolist() == [1, 2] * 4
    assert (outcome.next_obs - obs == 1).all()
    assert len(np.unique(obs[::2])) == 4

    # Limit 3 of 3: the environment's own end comes first, and keeps its kind. Limit 5 of 3: never reached.
    for limit in (3, 5):
        env = envs.time_limit(counter(3, truncates), limit)
        obs, _, outcome = run(env, ZEROS)
        ends = [False, False, True, False, False, True, False, False]
        nothing = [False] * 8
        assert outcome.truncated.tolist() == (ends if truncates else nothing)
        assert outcome.terminated.tolist() == (nothing if truncates else ends)
        assert env.spec.max_steps == 3
        assert (obs[:, 0] % 100).tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


def limited_in_several_ways(inner_limit):
    """Environments that truncate after at most 5 steps, and what each promises of the steps between two truncations."""
    known = counter(3, truncates=True)
    unknown = known._replace(spec=known.spec._replace(max_steps=None))
    early = known._replace(spec=known.spec._replace(max_steps=9, truncates_early=True))
    endless = counter(1000)
    never = endless._replace(spec=endless.spec._replace(max_steps=None, truncates_early=False))
    traced = envs.make("MountainCar-v0", max_steps_in_episode=inner_limit)
    return {
        "known": (envs.time_limit(known, 5), 3),
        "unknown": (envs.time_limit(unknown, 5), 1),
        "early": (envs.time_limit(early, 5), 1),
        "never": (envs.time_limit(never, 5), 5),
        "traced": (envs.time_limit(traced, 5), 1),
        "twice": (envs.time_limit(envs.time_limit(unknown, 7), 5), 1),
        "stacked": (envs.frame_stack(envs.time_limit(traced, 5), 2), 1),
    }


def test_successors_of_truncated_steps_come_back_from_a_replay():
    """Whatever is known of an inner limit: what is sampled is what followed, and a place is kept for each of those."""

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def sampled(inner_limit, key):
        return {name: one(env, key) for name, (env, _) in limited_in_several_ways(inner_limit).items()}

    def one(env, key):
        replay, num_envs = uniform(capacity=48, batch_size=48), 2
        actions = jnp.zeros((num_envs, *env.spec.action_space.shape), env.spec.action_space.dtype)

        def add(carry, x):
            (env_state, obs, ring), (turn, key) = carry, x
            env_state, new_obs, outcome = jax.vmap(env.step)(jax.random.split(key, num_envs), env_state, actions)
            extras = {"next_obs": outcome.next_obs}
            step = Transition(obs, actions, *outcome[:4], extras)
            ring = replay.add(ring, jax.tree.map(lambda leaf: leaf[None], step), turn * num_envs)
            return (env_state, new_obs, ring), step

        env_state, obs = jax.vmap(env.reset)(jax.random.split(key, num_envs))
        flags, rewards = jnp.zeros((1, num_envs), bool), jnp.zeros((1, num_envs))
        first = Transition(obs[None], actions[None], rewards, flags, flags, obs[None], {"next_obs": obs[None]})
        ring = replay.init(first, env.spec)
        (_, _, ring), _ = jax.lax.scan(add, (env_state, obs, ring), (jnp.arange(40), jax.random.split(key, 40)))
        return replay.sample(ring, key, 80).steps

    specs = {name: env.spec for name, (env, _) in limited_in_several_ways(3).items()}
    assert specs.pop("traced").max_steps == specs.pop("stacked").max_steps == 3  # where it is not traced
    assert {name: spec.max_steps for name, spec in specs.items()} == {"known": 3} | dict.fromkeys(
        ("unknown", "early", "never", "twice"), 5
    )
    for name, steps in sampled(jnp.int32(3), jax.random.key(0)).items():
        assert 5 < steps.truncated.sum() < 30, name
        np.testing.assert_array_equal(steps.next_obs[:, 0], steps.extras["next_obs"][:, 0], err_msg=name)

    def gaps(inner_limit):
        found.update({name: env.spec.truncation_gap for name, (env, _) in limited_in_several_ways(inner_limit).items()})
        return 0

    found: dict[str, float] = {}
    jax.eval_shape(gaps, jnp.int32(3))
    assert found == {name: gap for name, (_, gap) in limited_in_several_ways(3).items()}
    assert Spec("x", box(0, 1, (1,)), Discrete(2), truncates_early=False).truncation_gap == np.inf


def test_frame_stack_of_vectors():
    env = envs.frame_stack(counter(3, shape=(2,)), 3)
    assert env.spec.obs_space.shape == (6,)
    obs, new_obs, outcome = run(env, ZEROS)
    assert obs.shape == (8, 6)
    start, later = obs[0, 0], new_obs[2, 0]
    assert start != later
    frames = [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]]
    for t in range(3):
        assert (obs[t] - start).tolist() == np.repeat(frames[t], 2).tolist()
        assert (outcome.next_obs[t] - start).tolist() == np.repeat(frames[t + 1], 2).tolist()
    assert (new_obs[2] == later).all()  # after a reset the first frame, repeated
    assert (outcome.next_obs[3] - later).tolist() == [0, 0, 0, 0, 1, 1]


def test_frame_stack_of_images():
    env = envs.frame_stack(counter(3, shape=(2, 2, 1)), 2)
    assert env.spec.obs_space.shape == (2, 2, 2)
    assert env.spec.obs_space.high.shape == (2, 2, 2)
    obs, _, outcome = run(env, ZEROS)
    assert obs.shape == (8, 2, 2, 2)
    assert (outcome.next_obs[2, ..., 1] - outcome.next_obs[2, ..., 0] == 1).all()
    assert (obs[2, 0, 0] - obs[0, 0, 0]).tolist() == [1, 2]


def test_flatten_observations():
    env = envs.flatten_observations(counter(3, shape=(2, 3)))
    assert env.spec.obs_space.shape == (6,)
    obs, new_obs, outcome = run(env, ZEROS)
    assert obs.shape == new_obs.shape == outcome.next_obs.shape == (8, 6)

    lake = envs.make("FrozenLake-misc", flatten_observations=True, is_slippery=False, frame_stack=2)
    assert (lake.spec.obs_space.shape, lake.spec.obs_space.high.max()) == ((32,), 1)
    obs, _, outcome = run(lake, [1, 1])  # down twice: 0 -> 4 -> 8
    assert obs.dtype == np.float32
    assert [np.flatnonzero(o).tolist() for o in (obs[0], obs[1], outcome.next_obs[1])] == [[0, 16], [0, 20], [4, 24]]
    assert (obs.sum(axis=-1) == 2).all()


def test_flatten_observations_leaves_vectors_alone():
    env = counter(3, shape=(2,))
    assert envs.flatten_observations(env) is env


def ramp(env: Env) -> Env:
    """Adds 0, 0.25, 0.5, ... to the entries, which so are told apart."""

    def offset(obs):
        return obs + 0.25 * jnp.arange(obs.shape[-1])

    def reset(key):
        state, obs = env.reset(key)
        return state, offset(obs)

    def step(key, state, action):
        state, obs, outcome = env.step(key, state, action)
        return state, offset(obs), outcome._replace(next_obs=offset(outcome.next_obs))

    low, high = np.float32([0, -1, -2, -3]), np.float32([1, 2, 3, 4])
    return Env(reset, step, env.spec._replace(obs_space=Box(low, high), goal=GOAL), MODEL)


def keep(*args):
    return args


GOAL = Goal(keep, keep, keep)
MODEL = Model(*[np.zeros(1)] * 4)


@pytest.mark.parametrize("indices", [(3, 1), [3, 1], (np.int64(3), np.int32(1))])
def test_observe(indices):
    env = wrappers.observe(ramp(counter(3, shape=(4,))), indices)
    assert (env.spec.obs_space.low.tolist(), env.spec.obs_space.high.tolist()) == ([-3, -1], [4, 2])
    assert env.spec.obs_space.dtype == np.float32
    assert (env.spec.goal, env.model) == (None, None)
    obs, new_obs, outcome = run(env, ZEROS)
    assert obs.shape == new_obs.shape == outcome.next_obs.shape == (8, 2)
    start = obs[0, 0] - 0.75
    assert (obs[:3] - start).tolist() == [[t + 0.75, t + 0.25] for t in range(3)]
    assert (outcome.next_obs[:3] - start).tolist() == [[t + 0.75, t + 0.25] for t in range(1, 4)]
    assert (new_obs[2] - new_obs[2, 0]).tolist() == [0, -0.5]
    assert new_obs[2, 0] != outcome.next_obs[2, 0]  # of the next episode


def test_observe_in_make():
    """After the flattening and before the stack; without its velocities CartPole's state is hidden."""
    whole, env = envs.make("CartPole-v1"), envs.make("CartPole-v1", observe=(0, 2), frame_stack=2)
    assert env.spec.obs_space.low.tolist() == np.tile(whole.spec.obs_space.low[[0, 2]], 2).tolist()
    obs, seen = (run(e, [0, 1, 1])[2].next_obs for e in (whole, env))
    assert np.array_equal(seen[:, 2:], obs[:, [0, 2]])
    assert np.array_equal(seen[1:, :2], obs[:-1, [0, 2]])
    assert envs.make("CartPole-v1", observe=None).spec == whole.spec
    lake = envs.make("FrozenLake-misc", flatten_observations=True, observe=[0, 15])
    assert lake.spec.obs_space == box(0, 1, (2,))


def test_what_changes_observations_leaves_the_goal_out():
    env = ramp(counter(3, shape=(4,)))
    image = counter(3, shape=(2, 2))
    image = image._replace(spec=image.spec._replace(goal=GOAL))
    changed = [envs.frame_stack(env, 2), wrappers.observe(env, (0,)), envs.flatten_observations(image)]
    assert [e.spec.goal for e in changed] == [None] * 3
    kept = [
        envs.flatten_observations(env),
        envs.time_limit(env, 2),
        envs.episode_statistics(env),
        *(f(env) for f in (envs.rescale_actions, envs.clip_actions)),
        envs.discretize_actions(env, 3),
    ]
    assert all(e.spec.goal is GOAL for e in kept)


def test_scale_rewards():
    env = wrappers.scale_rewards(ramp(counter()), 0.25)
    assert run(env, [[1.0, 1.0], [-1.0, 3.0], [0.0, 4.0]])[2].reward.tolist() == [0.5, 0.5, 1]
    assert (env.spec.goal, env.model) == (None, None)
    plain, env = (envs.make("Pendulum-v1", discretize_actions=3, **p) for p in ({}, {"scale_rewards": 0.1}))
    np.testing.assert_allclose(run(env, [0, 2])[2].reward, 0.1 * run(plain, [0, 2])[2].reward, rtol=1e-6)


@pytest.mark.parametrize("truncates", [False, True])
def test_episode_statistics(truncates):
    once = envs.episode_statistics(counter(3, truncates))
    actions = [[1, 0], [2, 0], [3, 1], [5, 5], [0, 0], [1, 0], [7, 0]]
    _, _, outcome = run(once, np.asarray(actions, np.float32))
    assert outcome.extras["episode_return"].tolist() == [1, 3, 7, 10, 10, 11, 7]
    assert outcome.extras["episode_length"].tolist() == [1, 2, 3, 1, 2, 3, 1]
    assert outcome.extras["episode_return"].dtype == np.float32
    assert outcome.extras["episode_length"].dtype == np.int32
    assert "action" in outcome.extras
    twice = run(envs.episode_statistics(once), np.asarray(actions, np.float32))[2]
    assert twice.extras["episode_return"].tolist() == outcome.extras["episode_return"].tolist()


def test_a_long_episodes_return_is_its_rewards_sum():
    """A million rewards of 0.1: added up one by one in float32 they are 100,958."""
    env = envs.episode_statistics(wrappers.scale_rewards(ramp(counter(2**30)), 0.1))

    @jax.jit
    def run():
        def one(_, carry):
            state, _, steps = carry
            state, _, outcome = env.step(jax.random.key(0), state, jnp.array([1.0, 0.0]))
            return state, outcome.extras["episode_return"], steps + 1

        state, _ = env.reset(jax.random.key(0))
        return jax.lax.fori_loop(0, 1_000_000, one, (state, jnp.float32(0), 0))

    state, total, steps = run()
    assert (int(steps), int(state.episode_length)) == (1_000_000, 1_000_000)
    np.testing.assert_allclose(total, 1e6 * np.float64(np.float32(0.1)), rtol=2e-7)


def test_order_of_make():
    """The clip comes outside of the rescaling, and the limit inside of everything."""
    env = envs.make("Pendulum-v1", clip_actions=True, rescale_actions=True, time_limit=3, frame_stack=2)
    assert env.spec.max_steps == 3
    assert (env.spec.action_space.high.tolist(), env.spec.obs_space.shape) == ([1], (6,))
    _, _, wild = run(env, [[9.0]] * 4)
    _, _, most = run(env, [[1.0]] * 4)
    assert np.array_equal(wild.reward, most.reward)
    assert wild.truncated.tolist() == [False, False, True, False]
    assert isinstance(envs.make("Pendulum-v1", clip_actions=False, time_limit=None).spec.action_space, Box)


UNBOUNDED = box(-np.inf, np.inf, (2,))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: envs.rescale_actions(counter(action_space=Discrete(2))), "rescale_actions: Counter takes Discrete(2)"),
        (lambda: envs.rescale_actions(counter(action_space=UNBOUNDED)), "takes unbounded Box of shape (2,) actions"),
        (lambda: envs.clip_actions(counter(action_space=Discrete(2))), "clip_actions: Counter takes Discrete(2)"),
        (lambda: envs.discretize_actions(counter(action_space=Discrete(2)), 3), "discretize_actions: Counter takes"),
        (lambda: envs.discretize_actions(counter(), 1), "discretize_actions=1 is not accepted"),
        (lambda: envs.discretize_actions(counter(), 65), "are 4225 actions; at most 4096"),
        (lambda: envs.time_limit(counter(), 0), "time_limit=0 is not accepted"),
        (lambda: envs.time_limit(counter(), 2.5), "time_limit=2.5 is not accepted"),
        (lambda: wrappers.scale_rewards(counter(), 0), "scale_rewards: scale_rewards=0 is not accepted"),
        (lambda: envs.frame_stack(counter(), -1), "frame_stack=-1 is not accepted"),
        (lambda: envs.frame_stack(counter(shape=(2, 2)), 2), "observes bounded Box of shape (2, 2); it must be a Box"),
        (
            lambda: wrappers.observe(counter(shape=(2, 2)), (0,)),
            "observe: Counter observes bounded Box of shape (2, 2); it must be a Box of rank 1",
        ),
        (lambda: envs.make("FrozenLake-misc", observe=(0,)), "observes Discrete(16); it must be a Box of rank 1"),
        (lambda: wrappers.observe(counter(), 0), "observe=0 is not accepted for Counter; it must be a tuple or list"),
        (lambda: wrappers.observe(counter(), ()), "observe=() is not accepted for Counter; it must be a tuple or list"),
        (lambda: wrappers.observe(counter(), (1,)), "must have entries from 0 to 0, and 1 is not"),
        (lambda: wrappers.observe(counter(), (-1,)), "observe: index=-1 is not accepted; it must be a whole number"),
        (lambda: wrappers.observe(counter(), (0.0,)), "observe: index=0.0 is not accepted; it must be a whole number"),
        (lambda: wrappers.observe(counter(), [False]), "observe: index=False is not accepted"),
        (lambda: wrappers.observe(counter(shape=(3,)), (2, 0, 2)), "each entry once, and 2 is there more often"),
        (lambda: envs.make("CartPole-v1", observe=(0, 4)), "observe=(0, 4) is not accepted for CartPole-v1; it must"),
    ],
)
def test_errors_say_what_to_do(build, message):
    with pytest.raises(checks.JaxrlError) as error:
        build()
    assert message in str(error.value)


def test_limit_of_actions_is_what_the_error_says():
    assert wrappers.MAX_ACTIONS == 4096
    assert envs.discretize_actions(counter(), 64).spec.action_space == Discrete(4096)
