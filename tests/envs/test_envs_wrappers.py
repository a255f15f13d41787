"""Each wrapper against numbers computed by hand, on an environment that can be followed by hand."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import rollout, run

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
        new = CountState(state.start, state.time + 1)
        ended = new.time >= length
        reward = jnp.sum(action).astype(jnp.float32)
        return new, Outcome(observe(new), reward, ended & (not truncates), ended & truncates, {"action": action})

    space = box([-1, 0], [1, 4], (2,)) if action_space is None else action_space
    return Env(reset, step, Spec("Counter", box(0, 100_003, shape), space, length))


ZEROS = np.zeros((8, 2), np.float32)


def test_rescale_actions():
    env = envs.rescale_actions(counter())
    assert (env.spec.action_space.low.tolist(), env.spec.action_space.high.tolist()) == ([-1, -1], [1, 1])
    taken = run(env, [[-1.0, -1.0], [0.0, 0.0], [1.0, 0.5]]).outcome.extras["action"]
    assert taken.tolist() == [[-1, 0], [0, 2], [1, 3]]


def test_clip_actions():
    env = envs.clip_actions(counter())
    assert env.spec.action_space.high.tolist() == [1, 4]
    taken = run(env, [[-5.0, -5.0], [0.5, 3.0], [5.0, 5.0]]).outcome.extras["action"]
    assert taken.tolist() == [[-1, 0], [0.5, 3], [1, 4]]


def test_discretize_actions():
    env = envs.discretize_actions(counter(), 3)
    assert env.spec.action_space == Discrete(9)
    taken = run(env, np.arange(9)).outcome.extras["action"]
    assert taken.tolist() == [[x, y] for x in (-1, 0, 1) for y in (0, 2, 4)]
    torque = envs.make("Pendulum-v1", discretize_actions=5)
    assert torque.spec.action_space == Discrete(5)


def test_wrappers_of_actions_that_are_whole_numbers():
    space = Box(np.float32([0, -2]), np.float32([1, 6]), np.dtype(np.int32))
    env = envs.rescale_actions(counter(action_space=space))
    assert env.spec.action_space == box(-1, 1, (2,))
    taken = run(env, [[-1.0, -1.0], [0.2, 0.3], [1.0, 1.0]]).outcome.extras["action"]
    assert (taken.tolist(), taken.dtype) == ([[0, -2], [1, 3], [1, 6]], np.int32)
    env = envs.clip_actions(counter(action_space=space))
    taken = run(env, np.array([[-5, -5], [1, 3], [9, 9]])).outcome.extras["action"]
    assert (taken.tolist(), taken.dtype) == ([[0, -2], [1, 3], [1, 6]], np.int32)
    env = envs.discretize_actions(counter(action_space=space), 2)
    taken = run(env, np.arange(4)).outcome.extras["action"]
    assert (taken.tolist(), taken.dtype) == ([[0, -2], [0, 6], [1, -2], [1, 6]], np.int32)
    with pytest.raises(checks.JaxrlError, match=r"discretize_actions=3 is not accepted for Counter.* whole numbers"):
        envs.discretize_actions(counter(action_space=space), 3)
    assert wrappers.action_levels("x", box(0, 10, (1,), np.uint8), 4)[:, 0].tolist() == [0, 3, 7, 10]


@pytest.mark.parametrize("truncates", [False, True])
def test_time_limit(truncates):
    """Limit 2 of 3 steps: cut at each second step, and the next episode has its whole time."""
    made = {limit: envs.time_limit(counter(3, truncates), limit) for limit in (2, 3, 5)}
    assert {limit: env.spec.max_steps for limit, env in made.items()} == {2: 2, 3: 3, 5: 3}
    still = lambda *_: jnp.zeros(2)  # noqa: E731
    played = jax.jit(lambda key: {limit: rollout(env, key, 8, still) for limit, env in made.items()})(jax.random.key(0))
    played = jax.tree.map(np.asarray, played)
    _, obs, _, outcome, _ = played[2]
    assert outcome.truncated.tolist() == [False, True] * 4
    assert not outcome.terminated.any()
    assert (obs[:, 0] % 100).tolist() == [0, 1] * 4
    assert (outcome.obs - obs == 1).all()
    assert len(np.unique(obs[::2])) == 4

    # Limit 3 of 3: the environment's own end comes first, and keeps its kind. Limit 5 of 3: never reached.
    for limit in (3, 5):
        _, obs, _, outcome, _ = played[limit]
        ends = [False, False, True, False, False, True, False, False]
        nothing = [False] * 8
        assert outcome.truncated.tolist() == (ends if truncates else nothing)
        assert outcome.terminated.tolist() == (nothing if truncates else ends)
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

    @functools.partial(jax.jit)
    def sampled(inner_limit, key):
        return {name: one(env, key) for name, (env, _) in limited_in_several_ways(inner_limit).items()}

    def one(env, key):
        replay, num_envs = uniform(capacity=48, batch_size=48), 2
        still = jnp.zeros(env.spec.action_space.shape, env.spec.action_space.dtype)
        play = jax.vmap(lambda key: rollout(env, key, 40, lambda *_: still), out_axes=1)
        _, obs, action, outcome, _ = play(jax.random.split(key, num_envs))  # [T, N, ...]
        ends = outcome.terminated, outcome.truncated
        steps = Transition(obs, action, outcome.reward, *ends, outcome.obs, {"next_obs": outcome.obs})

        def add(ring, x):
            turn, step = x
            return replay.add(ring, jax.tree.map(lambda leaf: leaf[None], step), turn * num_envs), None

        ring = replay.init(jax.tree.map(lambda leaf: leaf[:1], steps), env.spec)
        return replay.sample(jax.lax.scan(add, ring, (jnp.arange(40), steps))[0], key, 80).steps

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
    _, obs, _, outcome, new_obs = run(env, ZEROS)
    assert obs.shape == (8, 6)
    start, later = obs[0, 0], new_obs[2, 0]
    assert start != later
    frames = [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]]
    for t in range(3):
        assert (obs[t] - start).tolist() == np.repeat(frames[t], 2).tolist()
        assert (outcome.obs[t] - start).tolist() == np.repeat(frames[t + 1], 2).tolist()
    assert (new_obs[2] == later).all()  # after a reset the first frame, repeated
    assert (outcome.obs[3] - later).tolist() == [0, 0, 0, 0, 1, 1]


def test_frame_stack_of_images():
    env = envs.frame_stack(counter(3, shape=(2, 2, 1)), 2)
    assert env.spec.obs_space.shape == (2, 2, 2)
    assert env.spec.obs_space.high.shape == (2, 2, 2)
    _, obs, _, outcome, _ = run(env, ZEROS)
    assert obs.shape == (8, 2, 2, 2)
    assert (outcome.obs[2, ..., 1] - outcome.obs[2, ..., 0] == 1).all()
    assert (obs[2, 0, 0] - obs[0, 0, 0]).tolist() == [1, 2]


def test_flatten_observations():
    env = envs.flatten_observations(counter(3, shape=(2, 3)))
    assert env.spec.obs_space.shape == (6,)
    _, obs, _, outcome, new_obs = run(env, ZEROS)
    assert obs.shape == new_obs.shape == outcome.obs.shape == (8, 6)

    lake = envs.make("FrozenLake-misc", flatten_observations=True, is_slippery=False, frame_stack=2)
    assert (lake.spec.obs_space.shape, lake.spec.obs_space.high.max()) == ((32,), 1)
    _, obs, _, outcome, _ = run(lake, [1, 1])  # down twice: 0 -> 4 -> 8
    assert obs.dtype == np.float32
    assert [np.flatnonzero(o).tolist() for o in (obs[0], obs[1], outcome.obs[1])] == [[0, 16], [0, 20], [4, 24]]
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
        state, outcome = env.step(key, state, action)
        return state, outcome._replace(obs=offset(outcome.obs))

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
    _, obs, _, outcome, new_obs = run(env, ZEROS)
    assert obs.shape == new_obs.shape == outcome.obs.shape == (8, 2)
    start = obs[0, 0] - 0.75
    assert (obs[:3] - start).tolist() == [[t + 0.75, t + 0.25] for t in range(3)]
    assert (outcome.obs[:3] - start).tolist() == [[t + 0.75, t + 0.25] for t in range(1, 4)]
    assert (new_obs[2] - new_obs[2, 0]).tolist() == [0, -0.5]
    assert new_obs[2, 0] != outcome.obs[2, 0]  # of the next episode


def test_observe_in_make():
    """After the flattening and before the stack; without its velocities CartPole's state is hidden."""
    whole, env = envs.make("CartPole-v1"), envs.make("CartPole-v1", observe=(0, 2), frame_stack=2)
    assert env.spec.obs_space.low.tolist() == np.tile(whole.spec.obs_space.low[[0, 2]], 2).tolist()
    obs, seen = (run(e, [0, 1, 1]).outcome.obs for e in (whole, env))
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
        envs.reset_pool(env, 3),
        *(f(env) for f in (envs.rescale_actions, envs.clip_actions)),
        envs.discretize_actions(env, 3),
    ]
    assert all(e.spec.goal is GOAL for e in kept)


def test_scale_rewards():
    env = wrappers.scale_rewards(ramp(counter()), 0.25)
    assert run(env, [[1.0, 1.0], [-1.0, 3.0], [0.0, 4.0]]).outcome.reward.tolist() == [0.5, 0.5, 1]
    assert (env.spec.goal, env.model) == (None, None)
    plain, env = (envs.make("Pendulum-v1", discretize_actions=3, **p) for p in ({}, {"scale_rewards": 0.1}))
    np.testing.assert_allclose(run(env, [0, 2]).outcome.reward, 0.1 * run(plain, [0, 2]).outcome.reward, rtol=1e-6)


# ---------------------------------------------------------------- pools of initial states


class PoolState(NamedTuple):
    start: jax.Array
    inertia: jax.Array
    steps: jax.Array
    key: jax.Array


def with_a_key() -> Env:
    """What is observed is the start; the state has what all initial ones share, and a key of its own."""

    def reset(key):
        own, key = jax.random.split(key)
        start = jax.random.uniform(own, (2,))
        return PoolState(start, jnp.ones((3,)), jnp.int32(0), key), start

    def step(key, state, action):
        moved = state._replace(start=state.start + jax.random.uniform(state.key), steps=state.steps + 1)
        return moved, Outcome(moved.start, jnp.float32(0), jnp.bool(False), moved.steps >= 2)

    return Env(reset, step, Spec("WithAKey", box(0, np.inf, (2,)), Discrete(2), 2))


def test_episodes_begin_in_a_pool():
    """Each in one of the states drawn, as often in one as in another, with the observation that belongs to it."""
    env = with_a_key()
    pooled = envs.reset_pool(env, 5)
    assert (pooled.spec, pooled.step, pooled.draw) == (env.spec, env.step, env.draw)

    @jax.jit
    def play(key):
        drawn = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 5))
        begun = jax.vmap(pooled.reset)(jax.random.split(key, 500))
        later = jax.vmap(lambda key: rollout(pooled, key, 4, lambda *_: jnp.int32(0)))(jax.random.split(key, 20))
        numbers = (state._replace(key=jax.random.key_data(state.key)) for state in (drawn[0], begun[0]))
        return *numbers, begun[1], later.obs

    drawn, state, obs, later = jax.tree.map(np.asarray, play(jax.random.key(1)))
    assert np.array_equal(obs, state.start)
    which = np.argmax(np.all(obs[:, None] == drawn.start, -1), 1)
    assert np.bincount(which).min() > 60  # 100 on average, with a standard deviation of 9
    jax.tree.map(lambda x, all: np.testing.assert_array_equal(x, all[which]), state, drawn)
    assert (state.inertia.shape, state.steps.dtype) == ((500, 3), np.int32)
    for begun in (later[:, 0], later[:, 2]):
        assert np.array_equal(np.unique(begun, axis=0), np.unique(drawn.start, axis=0))
    assert not np.isin(later[:, 1], drawn.start).any()


def test_a_pool_of_any_environment_around_everything_else():
    """The limit's time, the stack's frames and an episode's gravity are in it; 0 draws every state by itself."""
    params = {"randomize": {"g": (8.0, 12.0)}, "observe_randomized": True, "time_limit": 2, "frame_stack": 2}
    made = [envs.make("Pendulum-v1", **params, reset_pool=size) for size in (None, 0, 3)]
    many = jax.random.split(jax.random.key(0), 200)
    plain, none, three = jax.jit(lambda: [jax.vmap(env.reset)(many)[1] for env in made])()
    assert [len(np.unique(obs, axis=0)) for obs in (plain, none, three)] == [200, 200, 3]
    assert np.array_equal(plain, none)
    assert np.array_equal(three[:, :4], three[:, 4:])
    env = envs.make("jaxrl/Maze-v0")
    assert envs.reset_pool(env, 0) is env
    assert envs.reset_pool(env, 2).model is env.model


def test_a_pool_is_drawn_once_whoever_traces_first():
    """It holds no tracer of the program that asked first, and what draws the states is in no program."""
    env = with_a_key()

    def reset(key):
        state, obs = env.reset(key)
        return state, jnp.tanh(obs)

    pooled = envs.reset_pool(env._replace(reset=reset), 4)
    assert "tanh" in str(jax.make_jaxpr(reset)(jax.random.key(0)))
    assert "tanh" not in str(jax.make_jaxpr(pooled.reset)(jax.random.key(0)))
    (_, first), (_, again) = jax.jit(pooled.reset)(jax.random.key(0)), pooled.reset(jax.random.key(0))
    assert np.array_equal(first, again)


def test_a_pool_of_what_is_traced_is_refused():
    """Where an environment is made, or where an episode of one's own begins."""

    def made(gravity):
        return envs.make("CartPole-v1", gravity=gravity, reset_pool=2).reset(jax.random.key(0))

    def own(length):
        reset = lambda key: (jnp.zeros(1), jax.random.uniform(key, (1,)) * length)  # noqa: E731
        return envs.reset_pool(counter()._replace(reset=reset), 3).reset(jax.random.key(0))

    for reset, words in ((made, "CartPole-v1: reset_pool=2 is not accepted where gravity"), (own, "=3 .* for Counter")):
        with pytest.raises(checks.JaxrlError, match=words):
            jax.jit(reset)(2.0)


def test_order_of_make():
    """The clip comes outside of the rescaling, and the limit inside of everything."""
    env = envs.make("Pendulum-v1", clip_actions=True, rescale_actions=True, time_limit=3, frame_stack=2)
    assert env.spec.max_steps == 3
    assert (env.spec.action_space.high.tolist(), env.spec.obs_space.shape) == ([1], (6,))
    wild, most = (run(env, [[action]] * 4).outcome for action in (9.0, 1.0))
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
        (lambda: envs.reset_pool(counter(), -1), "reset_pool: reset_pool=-1 is not accepted"),
        (lambda: envs.make("jaxrl/Maze-v0", reset_pool=2.5), "reset_pool: reset_pool=2.5 is not accepted"),
        (lambda: envs.make("gymnasium/CartPole-v1", reset_pool=2), "reset_pool=2 is not accepted on the host"),
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
