"""brax's environments through `make`: ends, resets, and what it costs nobody to import."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import rollout

from jaxrl import checks, envs, ppo
from jaxrl.runs import program


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


def test_fast_truncates():
    env = envs.make("brax/fast", episode_length=7)
    assert (env.spec.max_steps, env.spec.action_space.shape, env.spec.obs_space.shape) == (7, (1,), (2,))
    _, obs, _, outcome, _ = jax.jit(lambda key: rollout(env, key, 21))(jax.random.key(0))
    assert np.flatnonzero(outcome.truncated).tolist() == [6, 13, 20]
    assert not np.any(outcome.terminated)
    ends = np.asarray(outcome.truncated)
    assert np.all(outcome.obs[ends][:, 1] > 0)  # its velocity had grown
    assert np.all(obs[::7] == 0)
    assert np.array_equal(obs[1:][~ends[:-1]], outcome.obs[:-1][~ends[:-1]])


def test_inverted_pendulum():
    """Made inside the traced function: it falls over (termination) or reaches the limit of 20 (truncation).

    Sometimes it falls in step 20 itself, which is termination.
    """

    def run(keys):
        env = envs.make("brax/inverted_pendulum", episode_length=20, reset_pool=64)
        return jax.vmap(lambda key: rollout(env, key, 150))(keys)

    state, _, _, outcome, new_obs = jax.jit(run)(jax.random.split(jax.random.key(0), 32))
    terminated, truncated = np.asarray(outcome.terminated), np.asarray(outcome.truncated)
    assert terminated.sum() > 3
    assert truncated.sum() > 3
    lengths = state.time[terminated] + 1
    assert np.any(lengths == 20)
    assert np.all(lengths <= 20)
    assert not np.any(terminated & truncated)
    assert np.array_equal(terminated, np.abs(outcome.obs[..., 1]) > 0.2)
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
        blown = env.step(key, state._replace(base=blown), jnp.zeros(1))[1]
        return blown, env.step(key, state, jnp.full(1, jnp.nan))[1]

    for end in jax.jit(steps)(jax.random.key(0)):
        assert (bool(end.terminated), bool(end.truncated)) == (True, False)
        assert np.all(np.isfinite(end.obs))
        assert np.isfinite(end.reward)


def test_states_have_no_arrays_without_elements():
    """mjx has them; jaxlib 0.11 crashes where a sharded program takes one."""
    env = envs.make("brax/inverted_pendulum", backend="mjx")
    state, _ = jax.eval_shape(env.reset, jax.random.key(0))
    after, _ = jax.eval_shape(env.step, jax.random.key(0), state, jnp.zeros(1))
    leaves = jax.tree.leaves(state)
    assert min(leaf.size for leaf in leaves) == 1
    assert [leaf.shape for leaf in leaves] == [leaf.shape for leaf in jax.tree.leaves(after)]


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
