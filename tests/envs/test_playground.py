"""MuJoCo Playground's environments through `make`: ends, resets and scales; what is said where it is missing."""

import importlib.util
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import rollout

from jaxrl import checks, envs
from jaxrl.envs.adapters import playground as playground_adapter

CARTPOLE = "playground/CartpoleBalance"


# ---------------------------------------------------------------- without the package


def test_ids_are_listed_without_an_import():
    code = (
        "import sys, jaxrl.envs.registry as r; print(len(r.playground_adapter.list_ids())); "
        "assert not {'mujoco_playground', 'mujoco', 'warp'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    number = 25 if importlib.util.find_spec("mujoco_playground") else 0
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{number}\n", "")


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco_playground", None)
    with pytest.raises(checks.JaxrlError) as error:
        envs.make(CARTPOLE)
    assert str(error.value) == (
        "playground/CartpoleBalance: the package mujoco_playground is missing; pip install 'jaxrl[playground]' gets it"
    )


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("CartpolBalance", {}, "did you mean playground/CartpoleBalance"),
        ("Go1Getup", {}, "playground/Go1Getup: it needs models of robots, which playground clones from GitHub"),
        ("PandaPickCube", {}, "those of the control suite, such as playground/CheetahRun, need no download"),
        ("CheetahRun", {"episode_lenght": 3}, "unknown parameter 'episode_lenght'; there are: episode_length,"),
        ("CheetahRun", {"impl": "warp"}, "unknown parameter 'impl'"),
    ],
)
def test_errors_that_need_no_package(name, params, message):
    with pytest.raises(checks.JaxrlError) as error:
        envs.make(f"playground/{name}", **params)
    assert message in str(error.value)


# ---------------------------------------------------------------- with it


@pytest.fixture
def installed():
    return pytest.importorskip("mujoco_playground")


def test_ids_are_playground_s_own(installed):
    names = {*playground_adapter.NAMES, *playground_adapter.ROBOTS}
    assert names == set(installed.registry.ALL_ENVS)
    assert envs.list_ids()["playground"] == [f"playground/{name}" for name in playground_adapter.NAMES]
    assert set(playground_adapter.NAMES) == set(installed.dm_control_suite.ALL_ENVS)


def test_the_specs(installed):
    for name in playground_adapter.NAMES[::8]:
        env = envs.make(f"playground/{name}")
        assert env.spec.id == f"playground/{name}"
        assert env.spec.max_steps == installed.registry.get_default_config(name).episode_length
        assert len(env.spec.obs_space.shape) == len(env.spec.action_space.shape) == 1
        # jaxlib 0.11 crashes where a sharded program takes an array without elements.
        assert all(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(env.reset, jax.random.key(0))))


def test_reaching_the_limit_truncates(installed):
    env = envs.make(CARTPOLE, episode_length=4)
    run = jax.jit(jax.vmap(lambda key: rollout(env, key, 17)))
    _, obs, _, outcome, _ = jax.tree.map(np.asarray, run(jax.random.split(jax.random.key(0), 5)))
    ends = outcome.truncated
    assert np.array_equal(ends, np.broadcast_to(np.arange(17) % 4 == 3, (5, 17)))
    assert not np.any(outcome.terminated)
    # Observed are cart, cosine and sine of the pole, and their velocities, which are about 0 at the start.
    starts, terminal = obs[:, ::4].reshape(-1, 5), outcome.obs[ends]  # [5, 5, 5] -> [25, 5]
    assert np.all(np.abs(starts[:, 3:]) < 0.1)
    assert np.abs(terminal[:, 3]).max() > 0.2
    assert len(np.unique(starts, axis=0)) == 25
    np.testing.assert_allclose(terminal[:, 0], obs[ends][:, 0] + 0.01 * terminal[:, 3], atol=2e-4)
    assert np.all((outcome.reward > 0.5) & (outcome.reward <= 1))


def test_physics_that_is_not_finite_terminates(installed):
    env = envs.make(CARTPOLE)
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    data = state.base.data
    blown = state._replace(base=state.base.replace(data=data.replace(qpos=data.qpos * jnp.nan)))
    outcome = jax.jit(env.step)(jax.random.key(1), blown, jnp.zeros(1))[1]
    assert (bool(outcome.terminated), bool(outcome.truncated)) == (True, False)
    assert np.all(np.isfinite(outcome.obs))
    assert np.isfinite(outcome.reward)


def test_gravity_and_masses_are_drawn(installed):
    """The pole falls as fast as gravity is; a push moves what is light."""
    make = {"randomize": {"gravity_scale": (0.5, 2.0), "mass_scale": (0.5, 2.0)}}
    env = envs.make(CARTPOLE, **make)
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    values = jnp.array([[0, 1], [1, 1], [2, 1], [2, 3], [0, 1], [0, 2]], jnp.float32)
    push = jnp.array([0, 0, 0, 0, 1, 1], jnp.float32)

    def one_step(values, push):
        return env.step(jax.random.key(0), state._replace(values=values), push[None])[1].obs[3:]

    cart, pole = np.asarray(jax.jit(jax.vmap(one_step))(values, push)).T
    one, two, heavy = pole[1:4] - pole[0]
    assert abs(one) > 1e-3
    np.testing.assert_allclose([two, heavy], 2 * one, rtol=0.05)
    np.testing.assert_allclose((cart[4] - cart[0]) / (cart[5] - cart[0]), 2, rtol=0.05)


def test_factors_that_would_do_nothing_are_refused(installed):
    """A point that glides over a level plane feels no gravity, and a cart on a rail touches nothing."""
    for name, params, reason in (
        ("PointMass", {"gravity_scale": 2.0}, "gravity_scale=2.0 is not accepted; gravity moves nothing in it"),
        ("FingerSpin", {"gravity_scale": 2.0}, "gravity moves nothing in it, so it must be left out"),
        ("CartpoleBalance", {"friction_scale": 2.0}, "friction_scale=2.0 is not accepted; nothing in it touches"),
    ):
        with pytest.raises(checks.JaxrlError) as error:
            envs.make(f"playground/{name}", **params)
        assert str(error.value).startswith(f"playground/{name}: ")
        assert reason in str(error.value)
    envs.make("playground/HopperHop", gravity_scale=2.0, friction_scale=2.0, mass_scale=2.0)
    envs.make("playground/PointMass", mass_scale=2.0)


def test_observations_that_are_dictionaries_are_their_state(installed, monkeypatch):
    from mujoco_playground._src.dm_control_suite import cartpole

    class Both(cartpole.Balance):
        def _get_obs(self, data, info):
            obs = super()._get_obs(data, info)
            return {"state": obs, "privileged_state": jnp.concatenate([obs, obs])}

    suite = installed.dm_control_suite
    monkeypatch.setitem(suite._envs, "Both", lambda **kwargs: Both(swing_up=False, sparse=False, **kwargs))
    monkeypatch.setitem(suite._cfgs, "Both", cartpole.default_config)
    env = playground_adapter.playground_env("Both", episode_length=2)
    assert env.spec.obs_space.shape == (5,)
    shapes = jax.eval_shape(lambda: rollout(env, jax.random.key(0), 3))
    assert shapes.obs.shape == shapes.outcome.obs.shape == (3, 5)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"episode_length": 0}, "episode_length=0 is not accepted"),
        ({"ctrl_dt": 0.0}, "ctrl_dt=0.0 is not accepted"),
        ({"ctrl_dt": 0.015}, "ctrl_dt=0.015 is not accepted; it must be a multiple of sim_dt=0.01"),
        ({"ctrl_dt": 0.001}, "ctrl_dt=0.001 is not accepted; it must be a multiple of sim_dt=0.01"),
        ({"mass_scale": 0.0}, "mass_scale=0.0 is not accepted"),
    ],
)
def test_errors_say_what_to_do(installed, params, message):
    with pytest.raises(checks.JaxrlError) as error:
        envs.make(CARTPOLE, **params)
    assert message in str(error.value)
