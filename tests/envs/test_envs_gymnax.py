"""gymnax's environments through `make`: ends, resets, shapes and dtypes."""

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import rollout

from jaxrl import checks, envs
from jaxrl.types import Box, Discrete

IDS = envs.list_ids()["gymnax"]


def test_there_are_25_ids():
    assert len(IDS) == 25
    assert {"CartPole-v1", "Breakout-MinAtar", "DeepSea-bsuite", "FrozenLake-misc"} <= set(IDS)
    with pytest.raises(checks.JaxrlError, match="MNISTBandit-bsuite: it downloads"):
        envs.make("MNISTBandit-bsuite")


@pytest.mark.parametrize("group", range(3))
def test_every_id_scans(group):
    ids = IDS[group::3]
    made = {env_id: envs.make(env_id) for env_id in ids}
    run = jax.jit(lambda key: {env_id: rollout(env, key, 120) for env_id, env in made.items()})
    for env_id, (_, obs, _, outcome, _) in run(jax.random.key(0)).items():
        spec = made[env_id].spec
        assert spec.id == env_id
        for observed in (obs, outcome.obs):
            assert (observed.shape, observed.dtype) == ((120, *spec.obs_space.shape), spec.obs_space.dtype), env_id
            assert np.all(np.isfinite(observed)), env_id
        if isinstance(spec.obs_space, Discrete):
            assert np.all((obs >= 0) & (obs < spec.obs_space.n))
        else:
            assert isinstance(spec.obs_space, Box)
            assert spec.obs_space.low.shape == spec.obs_space.high.shape == obs.shape[1:]
        assert (outcome.reward.shape, outcome.reward.dtype) == ((120,), jnp.float32), env_id
        assert np.all(np.isfinite(outcome.reward)), env_id
        for end in (outcome.terminated, outcome.truncated):
            assert (end.shape, end.dtype) == ((120,), jnp.bool_), env_id
        ended = outcome.terminated | outcome.truncated
        assert not np.any(outcome.terminated & outcome.truncated), env_id
        assert isinstance(spec.max_steps, int)
        if spec.max_steps <= 100:
            assert np.any(ended), env_id


def test_minatar_observes_bits():
    """gymnax's own picture of each state, whose ones and zeros it hands out as floats."""
    env = envs.make("Breakout-MinAtar")
    base, params = gymnax.make("Breakout-MinAtar")

    def body(state, key):
        state, outcome = env.step(key, state, jax.random.randint(key, (), 0, 3))
        return state, (outcome.obs, base.get_obs(state, params))

    keys = jax.random.split(jax.random.key(0), 100)
    observed, drawn = jax.jit(lambda: jax.lax.scan(body, env.reset(keys[0])[0], keys)[1])()
    assert (observed.dtype, drawn.dtype) == (bool, np.float32)
    np.testing.assert_array_equal(observed.astype(np.float32), drawn)


def test_state_keeps_its_types():
    env = envs.make("CartPole-v1")
    state, _ = env.reset(jax.random.key(0))
    assert state.time.dtype == jnp.int32
    after = jax.eval_shape(env.step, jax.random.key(0), state, jnp.int32(0))[0]
    jax.tree.map(lambda x, y: assert_same_type(x, y), state, after)


def assert_same_type(x, y):
    assert (x.shape, x.dtype) == (y.shape, y.dtype)


def test_cartpole_ends():
    """Constant pushes terminate; a limit of 5 truncates; either way the terminal observation is the true one."""
    falling, limited = envs.make("CartPole-v1"), envs.make("CartPole-v1", max_steps_in_episode=5)
    assert (falling.spec.max_steps, limited.spec.max_steps) == (500, 5)
    run = jax.jit(lambda key: (rollout(falling, key, 100, lambda *_: 1), rollout(limited, key, 23)))
    (_, _, _, outcome, new_obs), (_, limited_obs, _, limited_outcome, _) = run(jax.random.key(1))

    terminated = np.asarray(outcome.terminated)
    assert terminated.sum() >= 8
    assert not np.any(outcome.truncated)
    fallen = (np.abs(outcome.obs[:, 2]) > 12 * 2 * np.pi / 360) | (np.abs(outcome.obs[:, 0]) > 2.4)
    assert np.array_equal(fallen, terminated)
    starts = np.asarray(new_obs[terminated])
    assert np.all(np.abs(starts) <= 0.05)
    assert len(np.unique(starts, axis=0)) == len(starts)  # another initial state each time
    assert np.all(outcome.reward == 1)

    assert np.flatnonzero(limited_outcome.truncated).tolist() == [4, 9, 14, 19]
    assert not np.any(limited_outcome.terminated)
    # The last observation of the old episode follows from the one before it: x' = x + tau * x_dot.
    expected = limited_obs[:, 0] + 0.02 * limited_obs[:, 1]
    assert np.allclose(limited_outcome.obs[:, 0], expected, atol=1e-6)


def test_deep_sea_termination_wins():
    """Its last row is a terminal state and its time limit at once."""
    played = jax.jit(lambda key: rollout(envs.make("DeepSea-bsuite", size=4), key, 12))(jax.random.key(0))
    outcome = played.outcome
    assert np.flatnonzero(outcome.terminated).tolist() == [3, 7, 11]
    assert not np.any(outcome.truncated)


def test_parameters_may_be_traced():
    """Two gravities under one vmap, made inside the traced function: each as if alone, and the bounds say so."""

    def successor(gravity):
        env = envs.make("CartPole-v1", gravity=gravity)
        state, _ = env.reset(jax.random.key(0))
        return env.step(jax.random.key(1), state, 1)[1].obs

    together = jax.jit(jax.vmap(successor))(jnp.array([9.8, 20.0]))
    assert np.allclose(together, [successor(9.8), successor(20.0)], atol=1e-6)
    assert not np.allclose(together[0], together[1])
    jax.jit(lambda x: check_traced(x))(2.0)


def check_traced(x):
    env = envs.make("CartPole-v1", x_threshold=x, max_steps_in_episode=jnp.int32(x))
    assert env.spec.max_steps is None
    assert np.all(np.isinf(env.spec.obs_space.high))
    assert envs.make("CartPole-v1").spec.obs_space.high[0] == np.float32(4.8)
    with pytest.raises(checks.JaxrlError, match="Pendulum-v1: a traced parameter"):
        envs.make("Pendulum-v1", max_torque=x)
    return x


def test_derived_parameters_follow():
    """A heavier pole changes the total mass, which gymnax stores beside it; an explicit value stays."""

    def successor(**params):
        env = envs.make("CartPole-v1", **params)
        state, _ = env.reset(jax.random.key(0))
        return env.step(jax.random.key(1), state, 1)[1].obs

    consistent = successor(masspole=0.5, total_mass=1.5, polemass_length=0.25)
    assert np.allclose(successor(masspole=0.5), consistent)
    assert not np.allclose(successor(masspole=0.5, total_mass=1.1), consistent)


def test_numbers_become_of_their_defaults_types():
    """A bandit counts its steps with floats, and gymnax's `lax.select` there takes nothing else."""
    env = envs.make("BernoulliBandit-misc", max_steps_in_episode=7)
    assert env.spec.max_steps == 7
    outcome = jax.jit(lambda key: rollout(env, key, 15))(jax.random.key(0)).outcome
    assert np.flatnonzero(outcome.truncated).tolist() == [6, 13]
    assert envs.make("CartPole-v1", max_steps_in_episode=np.float32(20)).spec.max_steps == 20


@pytest.mark.parametrize(
    ("env_id", "params", "message"),
    [
        ("CartPole-v2", {}, "unknown environment 'CartPole-v2': did you mean CartPole-v1"),
        ("cartpole-v1", {}, "did you mean CartPole-v1"),
        (
            "CartPole-v1",
            {"legnth": 1.0},
            "CartPole-v1: unknown parameter 'legnth'; there are: max_steps_in_episode, grav",
        ),
        ("DeepSea-bsuite", {"sizes": 1.0}, "size, action_mapping_key, time_limit, discretize_actions"),
        ("CartPole-v1", {"gravity": "big"}, "CartPole-v1: gravity=big is not accepted"),
        ("CartPole-v1", {"max_steps_in_episode": 0}, "max_steps_in_episode=0 is not accepted"),
        ("CartPole-v1", {"max_steps_in_episode": 10.5}, "max_steps_in_episode=10.5 is not accepted; it must be a"),
        ("BernoulliBandit-misc", {"max_steps_in_episode": 10.5}, "max_steps_in_episode=10.5 is not accepted"),
        ("CartPole-v1", {"max_steps_in_episode": float("inf")}, "max_steps_in_episode=inf is not accepted"),
        ("Freeway-MinAtar", {"player_speed": 2.5}, "player_speed=2.5 is not accepted; it must be a whole number"),
        ("DeepSea-bsuite", {"deterministic": 2}, "deterministic=2 is not accepted; it must be one of True, False"),
        ("CartPole-v1", {"clip_actions": 1}, "clip_actions=1 is not accepted; it must be True or False"),
        ("FrozenLake-misc", {"map_name": "9x9"}, "FrozenLake-misc: map_name must be"),
        ("jaxmarl/MPE_simple_spread_v3", {}, "environments of jaxmarl are not supported yet"),
        ("jaxrl/Probe-valu-v0", {}, "did you mean jaxrl/Probe-value-v0"),
        ("jaxrl/Probe-value-v0", {"size": 3}, "unknown parameter 'size'"),
    ],
)
def test_errors_say_what_to_do(env_id, params, message):
    with pytest.raises(checks.JaxrlError) as error:
        envs.make(env_id, **params)
    assert message in str(error.value)
