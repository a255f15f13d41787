"""The point and the arms: their dynamics by hand and against a slow NumPy version, and how their episodes end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import play, rollout

from jaxrl import checks, envs
from jaxrl.envs.own.arm import ArmState
from jaxrl.envs.own.point import PointState

POINT, EASY, HARD = "jaxrl/Point-v0", "jaxrl/Arm-easy-v0", "jaxrl/Arm-hard-v0"
MADE = {"point": envs.make(POINT, max_steps=40), "easy": envs.make(EASY), "hard": envs.make(HARD)}
NUM_ENVS, NUM_STEPS = 32, 620
AT_TARGET = np.arctan2(103, 50) + np.arccos(np.hypot(103, 50) / 200) * np.array([1, -1])  # the tip is at (250, 303)


@pytest.fixture(scope="module")
def runs():
    """Rollouts `[T, N]`, each in its own direction, too fast at times, out of one compiled call."""

    def one(env, key):
        drift = jax.random.uniform(jax.random.fold_in(key, NUM_STEPS), (2,), minval=-1)
        high = env.spec.action_space.high[0]
        act = lambda key, *_: high * (drift + jax.random.uniform(key, (2,), minval=-0.5, maxval=0.5))  # noqa: E731
        return rollout(env, key, NUM_STEPS, act)

    def run(key):
        keys = jax.random.split(key, NUM_ENVS)
        return {name: jax.vmap(lambda key, env=env: one(env, key), out_axes=1)(keys) for name, env in MADE.items()}

    return jax.tree.map(np.asarray, jax.jit(run)(jax.random.key(1)))


def test_specs():
    point, easy, hard = (envs.make(env_id).spec for env_id in (POINT, EASY, HARD))
    assert (point.max_steps, easy.max_steps, hard.max_steps) == (100, 300, 300)
    assert (point.obs_space.shape, easy.obs_space.shape, hard.obs_space.shape) == ((2,), (7,), (7,))
    assert not point.obs_space.bounded
    np.testing.assert_allclose([point.action_space.low, point.action_space.high], [[-0.1] * 2, [0.1] * 2])
    assert (easy.action_space.low.tolist(), easy.action_space.high.tolist()) == ([-1, -1], [1, 1])
    assert (easy.action_space, easy.obs_space) == (hard.action_space, hard.obs_space)
    assert {POINT, EASY, HARD} <= set(envs.list_ids()["jaxrl"])


def test_all_are_well_formed(runs):
    for name, (state, obs, _, outcome, new_obs) in runs.items():
        space, shape = MADE[name].spec.obs_space, (NUM_STEPS, NUM_ENVS)
        for seen in (obs, outcome.obs):
            assert (seen.shape, seen.dtype) == ((*shape, *space.shape), np.float32), name
            assert ((seen >= space.low) & (seen <= space.high)).all(), name
        assert (outcome.reward.shape, outcome.reward.dtype) == (shape, np.float32)
        assert (outcome.terminated.dtype, outcome.truncated.dtype) == (bool, bool)
        ended = outcome.terminated | outcome.truncated
        assert outcome.truncated.sum() >= NUM_ENVS
        assert len(np.unique(new_obs[ended][:, 1])) == ended.sum()  # another start each time, in each environment
        time = np.zeros(NUM_ENVS, int)
        for t in range(NUM_STEPS):
            assert np.array_equal(state.time[t], time), name
            time += 1
            full = time == MADE[name].spec.max_steps
            assert np.array_equal(outcome.truncated[t], full & ~outcome.terminated[t]), name
            time[ended[t]] = 0


def test_points_move(runs):
    _, obs, action, outcome, _ = runs["point"]
    after = obs + np.clip(action, -0.1, 0.1)
    np.testing.assert_allclose(outcome.obs, after, atol=1e-6)
    np.testing.assert_allclose(outcome.reward, -np.hypot(*np.moveaxis(after, -1, 0)), atol=1e-6)
    largest = np.abs(after).max(-1)
    sure = np.abs(largest - 0.01) > 1e-5
    assert np.array_equal(outcome.terminated[sure], (largest < 0.01)[sure])


def test_point_by_hand():
    """Near is a square: 0.0099 off along both axes is near, 0.0101 along one is not. Nothing bounds the place."""
    start = PointState(jnp.float32([0.3, -0.4]), jnp.int32(0))
    outcome = play(MADE["point"], start, [[-7.0, 0.1], [-0.1, 0.1], [-0.1, 0.1], [0.0101, 0.1], [-0.0002, 0.0099]])
    places = [[0.2, -0.3], [0.1, -0.2], [0, -0.1], [0.0101, 0], [0.0099, 0.0099]]
    np.testing.assert_allclose(outcome.obs, places, atol=1e-6)
    np.testing.assert_allclose(outcome.reward[:3], [-np.sqrt(0.13), -np.sqrt(0.05), -0.1], rtol=1e-5)
    assert outcome.terminated.tolist() == [False] * 4 + [True]
    assert not outcome.truncated.any()
    away = play(MADE["point"], PointState(jnp.float32([0.95, 0]), jnp.int32(38)), [[0.1, 0], [0.1, 0]])
    np.testing.assert_allclose(away.obs, [[1.05, 0], [1.15, 0]], rtol=1e-6)
    assert (away.truncated.tolist(), away.terminated.tolist()) == ([False, True], [False, False])
    last = play(MADE["point"], PointState(jnp.float32([0.1, 0]), jnp.int32(39)), [[-0.1, 0]])
    assert (last.terminated.tolist(), last.truncated.tolist()) == ([True], [False])  # there with the last step


def slow_arm(angles, target):
    """The observation and the tip's distance, one number after the other."""
    elbow = [200 + 100 * np.cos(angles[0]), 200 + 100 * np.sin(angles[0])]
    tip = [elbow[0] + 100 * np.cos(angles[1]), elbow[1] + 100 * np.sin(angles[1])]
    distance = np.sqrt((tip[0] - target[0]) ** 2 + (tip[1] - target[1]) ** 2)
    obs = [float(distance < 15)]
    for place in (elbow, tip, [200, 200]):
        obs += [(place[0] - target[0]) / 200, (place[1] - target[1]) / 200]
    return obs, distance


@pytest.mark.parametrize("name", ["easy", "hard"])
def test_arms_move(runs, name):
    state, obs, action, outcome, _ = runs[name]
    on_target = 0
    for n in range(NUM_ENVS):
        held = 0
        for t in range(310):
            before, _ = slow_arm(state.angles[t, n], state.target[t, n])
            np.testing.assert_allclose(obs[t, n], before, atol=1e-5)
            angles = state.angles[t, n] + 0.1 * np.clip(action[t, n], -1, 1)
            after, distance = slow_arm(angles, state.target[t, n])
            np.testing.assert_allclose(outcome.obs[t, n], after, atol=1e-5)
            assert state.held[t, n] == held
            held = held + 1 if distance < 15 else 0
            on_target += distance < 15
            done = held == 51
            np.testing.assert_allclose(outcome.reward[t, n], -distance / 200 + (distance < 15) + 10 * done, atol=1e-5)
            assert outcome.terminated[t, n] == done
            held = 0 if done or outcome.truncated[t, n] else held
    assert on_target > 30


def test_arm_by_hand():
    """Both angles are against the field: straight up and straight up is twice as high, and not folded."""
    hand = [
        ([0, np.pi / 2], [200, 300], [0, 0.5, -0.5, 0.5, 0, 0, -0.5], 0.5),  # elbow (300, 200), tip (300, 300)
        ([np.pi / 2, np.pi / 2], [200, 300], [0, 0, 0, 0, 0.5, 0, -0.5], 0.5),  # elbow (200, 300), tip (200, 400)
        ([np.pi, 0], [190, 205], [1, -0.45, -0.025, 0.05, -0.025, 0.05, -0.025], np.sqrt(125) / 200),  # tip at the base
    ]
    for angles, target, obs, cost in hand:
        state = ArmState(jnp.float32(angles), jnp.float32(target), jnp.int32(0), jnp.int32(0))
        outcome = play(MADE["hard"], state, [[0.0, 0.0]])
        np.testing.assert_allclose(outcome.obs[0], obs, atol=1e-5)
        np.testing.assert_allclose(outcome.reward[0], obs[0] - cost, atol=1e-5)
    turned = play(MADE["hard"], state._replace(angles=jnp.float32([-0.1, np.pi / 2 + 0.1])), [[9.0, -9.0]])
    np.testing.assert_allclose(turned.obs[0, 3:5], [110 / 200, 95 / 200], atol=1e-5)  # the tip, of (300, 300)


def resting(held=0, time=0):
    return ArmState(jnp.float32(AT_TARGET), jnp.float32([250, 303]), jnp.int32(held), jnp.int32(time))


def test_resting_on_target_ends_the_episode():
    """More than 50 steps in a row are 51, wherever the episode began: the last has 10 more and terminates."""
    outcome = play(MADE["easy"], resting(), np.zeros((51, 2)))
    np.testing.assert_allclose(outcome.reward, [1.0] * 50 + [11.0], atol=1e-4)
    assert outcome.terminated.tolist() == [False] * 50 + [True]
    assert (outcome.obs[:, 0] == 1).all()
    # Turning both joints by 0.1 moves the tip by 11.4, which is on target still, and once more is not.
    there_and_back = [[1.0, 1.0]] * 2 + [[-1.0, -1.0]] * 2
    outcome = play(MADE["easy"], resting(), [[0.0, 0.0]] * 40 + there_and_back + [[0.0, 0.0]] * 49)
    assert outcome.obs[39:45, 0].tolist() == [1, 1, 0, 1, 1, 1]
    assert np.flatnonzero(outcome.terminated).tolist() == [92]  # the 51st since it came back
    np.testing.assert_allclose(outcome.reward[40:43], [0.94, -0.11, 0.94], atol=0.006)
    np.testing.assert_allclose(outcome.reward[91:], [1, 11], atol=1e-4)


def test_an_arms_time_is_up():
    late = play(MADE["easy"], resting(held=0, time=298), np.zeros((2, 2)))
    assert (late.truncated.tolist(), late.terminated.tolist()) == ([False, True], [False, False])
    both = play(MADE["easy"], resting(held=50, time=299), np.zeros((1, 2)))
    assert (both.truncated.tolist(), both.terminated.tolist()) == ([False], [True])


def test_episodes_begin_at_random():
    starts = jax.jit(lambda keys: {name: jax.vmap(env.reset)(keys) for name, env in MADE.items()})(
        jax.random.split(jax.random.key(2), 4096)
    )
    (point, seen), (easy, _), (hard, _) = (jax.tree.map(np.asarray, starts[name]) for name in MADE)
    assert np.array_equal(point.position, seen)
    squares = np.histogram2d(*seen.T, bins=2, range=[[-1, 1]] * 2)[0]
    np.testing.assert_allclose(squares / 4096, 0.25, atol=0.03)
    assert (easy.target == [250, 303]).all()
    for arm in (easy, hard):
        quarters = np.histogram2d(*arm.angles.T, bins=4, range=[[0, 2 * np.pi]] * 2)[0]
        np.testing.assert_allclose(quarters / 4096, 1 / 16, atol=0.02)
    assert (hard.target.min(), hard.target.max()) == (100, 300)
    edges = [(hard.target == 100).mean(0), (hard.target == 300).mean(0)]
    np.testing.assert_allclose(edges, 0.25, atol=0.03)
    inside = hard.target[(hard.target > 100) & (hard.target < 300)]
    assert 195 < inside.mean() < 205
    assert abs(np.corrcoef(hard.target[:, 0], hard.angles[:, 0])[0, 1]) < 0.06
    assert abs(np.corrcoef(*hard.target.T)[0, 1]) < 0.06


def test_one_alone_as_among_many(runs):
    for name, (state, _, action, outcome, _) in runs.items():
        one = jax.tree.map(lambda x: jnp.asarray(x[7, 3]), (state, action))
        alone = jax.jit(MADE[name].step)(jax.random.key(9), *one)[1]
        np.testing.assert_allclose(alone.obs, outcome.obs[7, 3], atol=1e-5)
        np.testing.assert_allclose(alone.reward, outcome.reward[7, 3], atol=1e-5)


@pytest.mark.parametrize(
    ("env_id", "params", "message"),
    [
        (POINT, {"max_steps": 0}, "max_steps=0 is not accepted; it must be a whole number, at least 1"),
        (POINT, {"size": 2}, "unknown parameter 'size'; there are: max_steps"),
        (EASY, {"max_steps": 3}, "unknown parameter 'max_steps'"),
    ],
)
def test_errors_say_what_to_do(env_id, params, message):
    with pytest.raises(checks.JaxrlError) as error:
        envs.make(env_id, **params)
    assert env_id in str(error.value)
    assert message in str(error.value)
