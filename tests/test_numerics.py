"""JAX's settings: those for 64 bits and for promotion change nothing, those for debugging run or are explained."""

import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import (
    JaxrlError,
    cli,
    evaluate,
    init_train,
    make,
    planning,
    ppo,
    q_learning,
    sweep,
    train,
    train_interval,
    train_step,
)
from jaxrl.agents import AGENTS
from jaxrl.numerics import standard_numbers

CORRIDOR = make("jaxrl/Corridor-v0")
SETTINGS = {
    "64 bits": lambda: jax.enable_x64(True),
    "strict types": lambda: jax.numpy_dtype_promotion("strict"),
    "equal ranks": lambda: jax.numpy_rank_promotion("raise"),
}
RUN = ["q_learning", "--env", "jaxrl/Corridor-v0", "--num-steps", "40", "--seeds", "2", "--devices", "2"]

# Each agent with all its floats traced, as 64-bit ones: the state keeps its types, which are those without the setting.
EVERY_AGENT = """
import warnings
warnings.simplefilter("error", UserWarning)  # JAX's, where 64 bits are asked for and not had
import jax, jaxrl
from jaxrl import planning
from jaxrl.agents import AGENTS
from jaxrl.constructors import parameters

def run(make_agent, env, key, floats):
    agent = make_agent(**floats)
    state = jaxrl.init_train(key, agent, env)
    return state, *jaxrl.train_step(state, agent, env)

assert jax.numpy.zeros(()).dtype == "float64"
for name, make_agent in AGENTS.items():
    names = [name for name, p in parameters(make_agent).items() if p.annotation is float]
    floats = {name: jax.ShapeDtypeStruct((), "float64") for name in names}
    for env_id in ("jaxrl/Corridor-v0", "jaxrl/Probe-policy-v0", "jaxrl/Point-v0"):
        try:
            env = jaxrl.make(env_id)
            inputs = jax.random.key(0), floats
            before, after, metrics = jax.eval_shape(lambda key, h: run(make_agent, env, key, h), *inputs)
        except jaxrl.JaxrlError:
            continue
        assert jax.tree.map(lambda x: (x.shape, x.dtype), before) == jax.tree.map(lambda x: (x.shape, x.dtype), after)
        wide = [x for x in jax.tree.leaves((before, metrics)) if str(x.dtype).endswith("64")]
        assert not wide, (name, wide)
        print(name)
        break
"""


def subprocess_with(settings, *command):
    environment = os.environ | settings | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(jax.config.jax_persistent_cache_min_compile_time_secs),
    }  # fmt: skip
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)


def test_every_agent_has_32_bits_in_a_process_with_64():
    done = subprocess_with({"JAX_ENABLE_X64": "1"}, "-c", EVERY_AGENT)
    assert done.stdout.split() == list(AGENTS), done.stderr


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_programs_are_those_without_the_setting(setting):
    """So the numbers are, too."""

    def run(key, updates):
        env, agent = make("CartPole-v1"), ppo(num_envs=2, rollout_length=8, num_minibatches=1, hidden_sizes=(4,))
        state, metrics = train(key, agent, env, 32)
        state, _ = train_interval(state, agent, env, updates)
        return state, metrics, evaluate(key, agent, state.agent, env, 2)

    def program():
        text = str(jax.make_jaxpr(run)(jax.random.key(0), np.int32(3)))
        return re.sub("0x[0-9a-f]+", "", text)  # addresses of functions

    plain = program()
    with SETTINGS[setting]():
        assert program() == plain


def test_planning_has_32_bits():
    def plan(gamma):
        model = CORRIDOR.model
        found = planning.policy_iteration(model), planning.q_value_iteration(model)
        valued = planning.policy_evaluation(model, jnp.full((6, 2), 0.5))
        return (
            planning.value_iteration(model, gamma=gamma),
            found,
            valued,
            planning.path_length(model, jnp.zeros(6, int), 9),
        )

    with jax.enable_x64(True):
        shapes = jax.eval_shape(plan, jnp.float64(0.9))
    assert {str(x.dtype) for x in jax.tree.leaves(shapes)} <= {"float32", "int32", "bool"}


def test_wide_arguments_become_narrow():
    seen = []

    @standard_numbers
    def function(tree, *, name):
        seen.extend(jax.tree.leaves(tree))
        return tree["x"] + np.float64(1)

    with jax.enable_x64(True):
        key = jax.random.key(0)
        tree = {"x": jnp.float64(1), "n": jnp.int64(2), "u": jnp.uint64(3), "b": jnp.bool_(True), "k": key, "i": 7}
        out = jax.jit(lambda tree: function(tree, name="text"))(tree)
    assert out.dtype == jnp.float32
    kinds = {str(getattr(x, "dtype", type(x).__name__)) for x in seen}
    assert kinds == {"float32", "int32", "uint32", "bool", "key<fry>"}


def test_a_run_from_the_command_line(tmp_path):
    """Under all of the settings that it runs with, NaN being the mark of what there is not yet only without them."""
    assert cli.main(["train", *RUN, "--out", str(tmp_path / "plain")]) == 0
    settings = {
        "JAX_ENABLE_X64": "1", "JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_DEBUG_NANS": "1", "JAX_DEFAULT_PRNG_IMPL": "rbg",
        "JAX_THREEFRY_PARTITIONABLE": "0",
    }  # fmt: skip
    done = subprocess_with(settings, "-m", "jaxrl", "train", *RUN, "--out", str(tmp_path / "set"))
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "plain" / "metrics.npz") as plain, np.load(tmp_path / "set" / "metrics.npz") as other:
        assert np.isnan(plain["episode_return"]).any()
        assert set(plain) == set(other)
        for name in plain:
            np.testing.assert_array_equal(other[name], plain[name], err_msg=name)


@pytest.mark.parametrize(
    ("setting", "name"),
    [(lambda: jax.disable_jit(), "JAX_DISABLE_JIT"), (lambda: jax.debug_key_reuse(True), "JAX_DEBUG_KEY_REUSE")],
    ids=["without jit", "keys used twice"],
)
def test_runs_explain_what_they_do_not_do(setting, name, capfd, tmp_path):
    with setting():
        assert cli.main(["train", *RUN, "--out", str(tmp_path)]) == 2
        with pytest.raises(JaxrlError, match=f"{name} is set"):
            sweep(q_learning, "jaxrl/Corridor-v0", num_steps=40, seeds=1)
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(f"jaxrl: run: {name} is set")


def test_training_without_jit():
    with jax.disable_jit():
        state, metrics = train(jax.random.key(0), q_learning(), CORRIDOR, 3)
        state, _ = train_interval(state, q_learning(), CORRIDOR, 2)
    assert int(state.step) == 5
    compiled = jax.jit(lambda key: train(key, q_learning(), CORRIDOR, 3))(jax.random.key(0))[1]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), metrics, compiled)


def test_debugging_nans_does_not_stop_at_what_is_not_known_yet():
    agent = q_learning()
    with jax.debug_nans(True):
        state, metrics = train(jax.random.key(0), agent, CORRIDOR, 2)
        assert state.last_return == jnp.inf
        assert np.isposinf(metrics["episode_return"]).all()
        assert np.isposinf(metrics["episode_length_min"]).all()
        _, metrics = train_step(state, agent, CORRIDOR)  # operation by operation
        assert metrics["episode_return"] == metrics["episode_length"] == jnp.inf
    assert np.isnan(init_train(jax.random.key(0), agent, CORRIDOR).last_return)


def test_the_command_line_says_where_debugging_stopped(monkeypatch, capfd):
    compiled = jax.jit(lambda x: x / x).lower(0.0).compile()
    monkeypatch.setitem(cli.COMMANDS, "divide", lambda words: compiled(0.0))
    with jax.debug_nans(True):
        assert cli.main(["divide"]) == 1
    [line] = capfd.readouterr().err.splitlines()
    assert line == "jaxrl: JAX_DEBUG_NANS is set, and jit(<lambda>) computed nan"
