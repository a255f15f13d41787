"""The environments whose observations hold a goal: their dynamics, and that `spec.goal` says what `step` does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import play, rollout

from jaxrl import checks, envs
from jaxrl.envs.own import arm, bit_flip, point_reach

BITS, POINT, ARM = "jaxrl/BitFlip-v0", "jaxrl/PointReach-v0", "jaxrl/ArmReach-v0"
MADE = {
    "one bit": envs.make(BITS, num_bits=1),
    "two bits": envs.make(BITS, num_bits=2),
    "bits": envs.make(BITS, num_bits=4),
    "point": envs.make(POINT),
    "nine ways": envs.make(POINT, discretize_actions=3),
    "arm": envs.make(ARM),
}
NUM_ENVS, NUM_STEPS = 64, 120


@pytest.fixture(scope="module")
def runs():
    """Random rollouts `[T, N]` of all, out of one compiled call."""

    def run(key):
        keys = jax.random.split(key, NUM_ENVS)
        return {
            name: jax.vmap(lambda key, env=env: rollout(env, key, NUM_STEPS), out_axes=1)(keys)
            for name, env in MADE.items()
        }

    return jax.tree.map(np.asarray, jax.jit(run)(jax.random.key(0)))


def halves(obs):
    """What was achieved and what is wanted; of an arm, that is its last four numbers."""
    return np.split(obs[..., 2:] if obs.shape[-1] == 6 else obs, 2, axis=-1)


def test_specs():
    default = envs.make(BITS).spec
    assert (default.obs_space.shape, default.action_space.n, default.max_steps) == ((30,), 15, 15)
    assert (default.obs_space.low.min(), default.obs_space.high.max()) == (0, 1)
    point = envs.make(POINT).spec
    assert (point.obs_space.low.tolist(), point.obs_space.high.tolist()) == ([-1] * 4, [1] * 4)
    assert np.allclose([point.action_space.low, point.action_space.high], [[-0.1] * 2, [0.1] * 2])
    assert point.max_steps == 50
    reach = envs.make(ARM).spec
    assert (reach.obs_space.shape, reach.action_space.shape, reach.max_steps) == ((6,), (2,), 60)
    for env_id, params in [(BITS, {"num_bits": 4}), (POINT, {}), (ARM, {}), (POINT, {"discretize_actions": 3})]:
        once, again = (envs.make(env_id, **params).spec for _ in range(2))
        assert once == again
        assert hash(once) == hash(again)
        assert once.goal is not None
        assert once.id in envs.list_ids()["jaxrl"]
    assert MADE["bits"].spec != default
    assert MADE["nine ways"].spec.action_space.n == 9


@pytest.mark.parametrize("env_id", [BITS, POINT])
def test_wrappers_keep_the_goal_only_where_observations_stay(env_id):
    for params in ({"frame_stack": 2}, {"observe": (0, 1)}):
        assert envs.make(env_id, **params).spec.goal is None
    for params in ({"flatten_observations": True}, {"time_limit": 3}):
        assert envs.make(env_id, **params).spec.goal is envs.make(env_id).spec.goal


def test_all_are_well_formed(runs):
    for name, (_, obs, _, outcome, _) in runs.items():
        space, max_steps = MADE[name].spec.obs_space, MADE[name].spec.max_steps
        shape = (NUM_STEPS, NUM_ENVS)
        for seen in (obs, outcome.obs):
            assert (seen.shape, seen.dtype) == ((*shape, *space.shape), np.float32), name
            assert ((seen >= space.low) & (seen <= space.high)).all(), name
        assert (outcome.reward.shape, outcome.reward.dtype) == (shape, np.float32)
        assert (outcome.terminated.dtype, outcome.truncated.dtype) == (bool, bool)
        assert np.array_equal(halves(obs)[1], halves(outcome.obs)[1]), name  # one goal an episode
        ended = outcome.terminated | outcome.truncated
        assert np.array_equal(outcome.reward, np.where(outcome.terminated, 0, -1)), name
        assert outcome.terminated.any(), name
        time = np.zeros(NUM_ENVS, int)
        for end, terminated, truncated in zip(ended, outcome.terminated, outcome.truncated, strict=True):
            time += 1
            assert np.array_equal(truncated, (time == max_steps) & ~terminated), name
            time[end] = 0


def test_goals_agree_with_the_steps(runs):
    """With the goal that was wanted nothing changes; with the goal achieved, each step has reward 0 and terminates."""
    for name, (_, obs, _, outcome, _) in runs.items():
        goal = MADE[name].spec.goal
        wanted, next_obs = halves(obs)[1], outcome.obs
        achieved = goal.achieved(next_obs)
        assert np.array_equal(achieved, halves(next_obs)[0]), name
        assert np.array_equal(goal.replace(obs, wanted), obs), name
        assert np.array_equal(goal.replace(next_obs, wanted), next_obs), name
        reward, terminated = goal.reward(achieved, wanted)
        assert np.array_equal(reward, outcome.reward), name
        assert np.array_equal(terminated, outcome.terminated), name

        relabelled = goal.replace(obs, achieved)
        assert np.array_equal(goal.achieved(relabelled), goal.achieved(obs)), name
        assert np.array_equal(halves(relabelled)[1], achieved), name
        reward, terminated = goal.reward(achieved, achieved)
        assert (reward.dtype, terminated.dtype) == (jnp.float32, bool)
        assert (reward == 0).all()
        assert terminated.all()
        for index in ((), (3,), (3, 5)):  # of one observation as of several, and one goal for all
            assert np.array_equal(goal.replace(obs[index], achieved[index]), relabelled[index]), name
        assert np.array_equal(goal.replace(obs, achieved[0, 0]), goal.replace(obs, 0 * achieved + achieved[0, 0]))


def test_bits_are_flipped(runs):
    for name in ("one bit", "two bits", "bits"):
        _, obs, action, outcome, _ = runs[name]
        num_bits = MADE[name].spec.action_space.n
        expected = obs.copy()
        np.put_along_axis(expected, action[..., None], 1 - np.take_along_axis(obs, action[..., None], -1), -1)
        assert np.array_equal(outcome.obs, expected), name
        assert set(obs.ravel().tolist()) == {0, 1}
        solved = (outcome.obs[..., :num_bits] == outcome.obs[..., num_bits:]).all(-1)
        assert np.array_equal(outcome.terminated, solved), name


def test_bits_to_their_goal_by_hand():
    state = bit_flip.BitFlipState(jnp.float32([0, 1, 1]), jnp.float32([1, 1, 0]), jnp.int32(0))
    env = envs.make(BITS, num_bits=3)
    there = play(env, state, [0, 2])
    assert there.obs.tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 0, 1, 1, 0]]
    assert (there.reward.tolist(), there.terminated.tolist()) == ([-1, 0], [False, True])
    assert not there.truncated.any()
    away = play(env, state, [1, 1, 1])
    assert (away.reward.tolist(), away.truncated.tolist()) == ([-1] * 3, [False, False, True])
    assert not away.terminated.any()
    last = play(env, state._replace(time=jnp.int32(1)), [0, 2])  # solved with the last step: not truncated
    assert (last.terminated.tolist(), last.truncated.tolist()) == ([False, True], [False, False])


def test_episodes_begin_at_random_and_unsolved():
    """Of two bits each start has 4 by 3 pairs; a goal one bit away has 5/16 + 1/16 of the chance for either bit."""
    reset = jax.jit(lambda key: {name: jax.vmap(env.reset)(jax.random.split(key, 4096))[1] for name, env in some})
    some = [(name, MADE[name]) for name in ("one bit", "two bits", "point", "arm")]
    starts = {name: halves(np.asarray(obs)) for name, obs in reset(jax.random.key(3)).items()}
    bits, wanted = starts["one bit"]
    assert (bits + wanted == 1).all()
    assert 0.45 < bits.mean() < 0.55
    bits, wanted = (2 * half[:, 0] + half[:, 1] for half in starts["two bits"])
    counts = np.zeros((4, 4))
    np.add.at(counts, (bits.astype(int), wanted.astype(int)), 1 / 4096)
    one_away = [[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]]
    expected = np.where(one_away, 1 / 16 + 1 / 32, 1 / 16) * (1 - np.eye(4))
    np.testing.assert_allclose(counts, expected, atol=0.02)
    position, wanted = starts["point"]
    assert (np.linalg.norm(position - wanted, axis=-1) > 0.05).all()  # of 4096 draws about 8 are nearer
    for half in (position, wanted):
        np.testing.assert_allclose(np.histogram2d(*half.T, bins=2, range=[[-1, 1]] * 2)[0] / 4096, 0.25, atol=0.03)
    tip, wanted = starts["arm"]
    assert (np.linalg.norm(tip - wanted, axis=-1) > 0.075).all()
    for half in (tip, wanted):  # the sum of two directions: a mean square of 1/2, and all quarters alike
        np.testing.assert_allclose(np.square(half).sum(-1).mean(), 0.5, atol=0.03)
        assert np.linalg.norm(half, axis=-1).max() < 1.0001
        np.testing.assert_allclose(np.histogram2d(*half.T, bins=2, range=[[-1, 1]] * 2)[0] / 4096, 0.25, atol=0.03)


def test_an_arm_reaches_its_goal_by_hand():
    """From angles 0 and pi / 2 the tip is at (0.5, 0.5); the second link turns on by 0.1 at most in each step."""
    start = arm.ArmReachState(jnp.float32([0, np.pi / 2]), jnp.float32([0.4, 0.5]), jnp.int32(0))
    env = MADE["arm"]
    there = play(env, start, [[0, 5.0]])
    elbow, tip = [0.5, 0.0], [0.5 - 0.5 * np.sin(0.1), 0.5 * np.cos(0.1)]
    np.testing.assert_allclose(there.obs, [[*elbow, *tip, 0.4, 0.5]], atol=1e-6)
    assert (there.reward.tolist(), there.terminated.tolist()) == ([0], [True])
    away = play(env, start._replace(time=jnp.int32(58)), [[0, -1.0], [0, 0]])
    assert (away.reward.tolist(), away.terminated.tolist()) == ([-1, -1], [False, False])
    assert away.truncated.tolist() == [False, True]
    last = play(env, start._replace(time=jnp.int32(59)), [[0, 1.0]])
    assert (last.terminated.tolist(), last.truncated.tolist()) == ([True], [False])
    still = play(env, start._replace(wanted=jnp.float32([0.5, 0.58])), [[0, 0]])  # 0.08 away: 16 of 200, and 15 will do
    assert not still.terminated.any()


def test_points_move(runs):
    levels = np.float32([[x, y] for x in (-0.1, 0, 0.1) for y in (-0.1, 0, 0.1)])
    for name in ("point", "nine ways"):
        _, obs, action, outcome, _ = runs[name]
        velocity = levels[action] if name == "nine ways" else action
        before, wanted = halves(obs)
        after = np.clip(before + velocity, -1, 1)
        np.testing.assert_allclose(halves(outcome.obs)[0], after, atol=1e-6)
        distance = np.linalg.norm(after - wanted, axis=-1)
        sure = np.abs(distance - 0.05) > 1e-5
        assert np.array_equal(outcome.terminated[sure], (distance < 0.05)[sure]), name


def test_point_to_its_goal_by_hand():
    """Too much speed is clipped and so is the place; within 0.05 is a circle: 0.04 off along both axes is not."""
    state = point_reach.PointReachState(jnp.float32([0.85, 0.5]), jnp.float32([0.94, 0.34]), jnp.int32(0))
    outcome = play(MADE["point"], state, [[3.0, -0.1], [0.1, 0.0], [-0.02, -0.02]])
    places = [[0.95, 0.4], [1, 0.4], [0.98, 0.38]]
    np.testing.assert_allclose(halves(outcome.obs)[0], places, atol=1e-6)
    assert (outcome.reward.tolist(), outcome.terminated.tolist()) == ([-1] * 3, [False] * 3)
    there = play(MADE["point"], state, [[0.1, -0.1], [0, -0.02]])
    assert (there.reward.tolist(), there.terminated.tolist()) == ([-1, 0], [False, True])
    last = play(MADE["point"], state._replace(time=jnp.int32(48)), [[0.1, -0.1], [0, -0.02]])
    assert (last.terminated.tolist(), last.truncated.tolist()) == ([False, True], [False, False])
    late = play(MADE["point"], state._replace(time=jnp.int32(48)), [[0, 0], [0, 0]])
    assert (late.terminated.tolist(), late.truncated.tolist()) == ([False, False], [False, True])


@pytest.mark.parametrize(
    ("env_id", "params", "message"),
    [
        (BITS, {"num_bits": 0}, "num_bits=0 is not accepted; it must be a whole number, at least 1"),
        (BITS, {"num_bits": 2.0}, "num_bits=2.0 is not accepted"),
        (BITS, {"num_bits": 1025}, "num_bits=1025 is not accepted; it must be at most 1024"),
        (POINT, {"num_bits": 3}, "unknown parameter 'num_bits'"),
    ],
)
def test_errors_say_what_to_do(env_id, params, message):
    with pytest.raises(checks.JaxrlError) as error:
        envs.make(env_id, **params)
    assert env_id in str(error.value)
    assert message in str(error.value)
