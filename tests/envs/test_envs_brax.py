"""brax's environments through `make`: ends, resets, and what it costs nobody to import."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import checks, envs, ppo
from jaxrl.envs.adapters import physics
from jaxrl.runs import program

QUICK = {"xla_backend_optimization_level": 0}  # what runs for a moment should compile in one


def rollout(env, key, num_steps):
    def body(carry, key):
        state, obs = carry
        action_key, step_key = jax.random.split(key)
        state, new_obs, outcome = env.step(step_key, state, env.spec.action_space.sample(action_key))
        return (state, new_obs), (obs, new_obs, outcome)

    return jax.lax.scan(body, env.reset(key), jax.random.split(key, num_steps))[1]


def test_imports_are_lazy_and_quiet():
    code = (
        "import sys, jaxrl.envs as e; assert not {'gymnax', 'brax'} & set(sys.modules); "
        "e.make('jaxrl/Probe-value-v0'); e.make('brax/fast'); assert 'gymnax' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_ids_are_brax_s_own():
    import brax.envs

    assert {f"brax/{name}" for name in brax.envs._envs} - {"brax/swimmer"} == set(envs.list_ids()["brax"])


@pytest.mark.parametrize("reset_pool", [0, 8])
def test_fast_truncates(reset_pool):
    env = envs.make("brax/fast", episode_length=7, reset_pool=reset_pool)
    assert (env.spec.max_steps, env.spec.action_space.shape, env.spec.obs_space.shape) == (7, (1,), (2,))
    obs, new_obs, outcome = jax.jit(lambda key: rollout(env, key, 21))(jax.random.key(0))
    assert np.flatnonzero(outcome.truncated).tolist() == [6, 13, 20]
    assert not np.any(outcome.terminated)
    ends = np.asarray(outcome.truncated)
    assert np.all(new_obs[ends] == 0)
    assert np.all(outcome.next_obs[ends][:, 1] > 0)  # its velocity had grown
    assert np.array_equal(new_obs[~ends], outcome.next_obs[~ends])
    assert np.array_equal(obs[1:], new_obs[:-1])


def test_inverted_pendulum():
    """Made inside the traced function: it falls over (termination) or reaches the limit of 20 (truncation).

    Sometimes it falls in step 20 itself, which is termination.
    """

    def run(keys):
        env = envs.make("brax/inverted_pendulum", episode_length=20, reset_pool=64)
        return jax.vmap(lambda key: rollout(envs.episode_statistics(env), key, 150))(keys)

    _, new_obs, outcome = jax.jit(run, compiler_options=QUICK)(jax.random.split(jax.random.key(0), 32))
    terminated, truncated = np.asarray(outcome.terminated), np.asarray(outcome.truncated)
    assert terminated.sum() > 3
    assert truncated.sum() > 3
    lengths = outcome.extras["episode_length"][terminated]
    assert np.any(lengths == 20)
    assert np.all(lengths <= 20)
    assert not np.any(terminated & truncated)
    assert np.array_equal(terminated, np.abs(outcome.next_obs[..., 1]) > 0.2)
    assert (outcome.reward.dtype, outcome.reward.shape) == (jnp.float32, (32, 150))
    starts = np.asarray(new_obs[terminated | truncated])
    assert np.all(np.abs(starts) <= 0.01 + 1e-6)
    assert 10 < len(np.unique(starts, axis=0)) <= 64


def test_physics_that_is_not_finite_terminates():
    """brax itself asks whether the pole leans too far, which NaN does not, and pays 1 a step until the limit."""
    env = envs.make("brax/inverted_pendulum")

    def steps(key):
        state, _ = env.reset(key)
        physics_state = state.base.pipeline_state
        blown = state.base.replace(pipeline_state=physics_state.replace(xd_i=physics_state.xd_i * jnp.nan))
        new, obs, outcome = env.step(key, state._replace(base=blown), jnp.zeros(1))
        return new, obs, outcome, env.step(key, new, jnp.zeros(1))[2], env.step(key, state, jnp.full(1, jnp.nan))[2]

    new, obs, outcome, later, pushed = jax.jit(steps, compiler_options=QUICK)(jax.random.key(0))
    for end in (outcome, pushed):
        assert (bool(end.terminated), bool(end.truncated)) == (True, False)
        assert np.all(np.isfinite(end.next_obs))
        assert np.isfinite(end.reward)
    assert np.all(np.isfinite(obs))
    assert int(new.time) == 0
    assert not later.terminated


def test_states_have_no_arrays_without_elements():
    """mjx has them; jaxlib 0.11 crashes where a sharded program takes one."""
    env = envs.make("brax/inverted_pendulum", backend="mjx")
    state, _ = jax.eval_shape(env.reset, jax.random.key(0))
    after, _, _ = jax.eval_shape(env.step, jax.random.key(0), state, jnp.zeros(1))
    leaves = jax.tree.leaves(state)
    assert min(leaf.size for leaf in leaves) == 1
    assert [leaf.shape for leaf in leaves] == [leaf.shape for leaf in jax.tree.leaves(after)]


def test_restart_from_a_pool():
    """Each pick is one of the states drawn; leaves that all share are stored once, and keep shape and dtype."""

    def draw(key):
        return {"start": jax.random.uniform(key, (2,)), "inertia": jnp.ones((3,)), "steps": jnp.int32(0)}

    pick = physics.make_pool("brax/x", draw, 5, {})
    states = jax.jit(jax.vmap(pick))(jax.random.split(jax.random.key(1), 200))
    expected = jax.vmap(draw)(jax.random.split(jax.random.key(0), 5))["start"]
    assert np.array_equal(np.unique(states["start"], axis=0), np.unique(expected, axis=0))
    assert np.array_equal(states["inertia"], np.ones((200, 3)))
    assert states["steps"].dtype == jnp.int32


@pytest.mark.parametrize(
    ("env_id", "params", "message"),
    [
        ("brax/antt", {}, "unknown environment 'brax/antt': did you mean brax/ant"),
        ("brax/swimmer", {}, "Swimmer-misc"),
        (
            "brax/fast",
            {"episode_lenght": 3},
            "brax/fast: unknown parameter 'episode_lenght'; there are: episode_length,",
        ),
        ("brax/fast", {"backend": "bullet"}, "backend='bullet' is not accepted; it must be one of spring, positional"),
        ("brax/fast", {"episode_length": 0}, "episode_length=0 is not accepted"),
        ("brax/fast", {"reset_pool": -1}, "reset_pool=-1 is not accepted"),
        ("brax/fast", {"obs_mode": "dict_state"}, "observations that are dictionaries are not supported"),
        ("brax/fast", {"obs_mode": "nothing"}, "brax/fast: 'nothing' is not a valid"),
    ],
)
def test_errors_say_what_to_do(env_id, params, message):
    with pytest.raises(checks.JaxrlError) as error:
        envs.make(env_id, **params)
    assert message in str(error.value)


def test_evaluation_compiles_for_two_devices():
    """It closes over arrays without elements; as arguments of a sharded loop they crash jaxlib 0.11."""
    [group] = program.plan(ppo, {"hidden_sizes": (2,)}).groups
    env, key = envs.make("brax/inverted_pendulum", episode_length=2), jax.random.key(0)
    built = program.compile_group(
        ppo, group, env, run_key=key, num_seeds=2, num_eval_episodes=1, parts=("init", "evaluate")
    )
    assert built.mesh.size == 2
    np.testing.assert_array_equal(built.evaluate(built.init()), [[2], [2]])
