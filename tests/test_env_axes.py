"""An environment's parameters as axes of a sweep: which share a program, and that each row has its own environment."""

import numpy as np
import pytest
from fake_agent import TRACED, fake

import jaxrl
from jaxrl import JaxrlError, cli
from jaxrl.analysis.plot import _labels
from jaxrl.analysis.results import Results
from jaxrl.envs.axes import make_grid
from jaxrl.runs import folder
from jaxrl.runs.program import plan
from jaxrl.runs.trained import episode_of_run

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}  # as of a sweep's rows in runs/test_program.py


# ---------------------------------------------------------------- what shares a program


def test_the_environments_of_a_grid():
    grid = make_grid("Pendulum-v1", {"time_limit": 9}, {"max_torque": [1.0, 2.0], "g": [8, 10, 12]})
    assert [env.spec.action_space.high.tolist() for env in grid.envs] == [[1]] * 3 + [[2]] * 3
    assert {env.spec.max_steps for env in grid.envs} == {9}
    assert grid.shared == {"g"}  # actions are bounded by the torque
    alone = make_grid("Pendulum-v1", {}, {})
    assert (len(alone.envs), alone.shared) == (1, frozenset())


@pytest.mark.parametrize(
    ("env_id", "axes", "shared"),
    [
        ("CartPole-v1", {"gravity": [9.0, 10.0], "length": [0.5, 1.0]}, {"gravity", "length"}),
        ("CartPole-v1", {"gravity": [9.0, 10.0], "x_threshold": [1.0, 2.0]}, {"gravity"}),  # which bounds observations
        ("CartPole-v1", {"max_steps_in_episode": [10, 20], "scale_rewards": [0.5, 1.0]}, {"scale_rewards"}),
        ("CartPole-v1", {"gravity": [9.0, 10.0], "observe": [(0, 2), (1,)]}, {"gravity"}),
        ("jaxrl/Point-v0", {"max_steps": [5, 6], "clip_actions": [True, False]}, set()),
        ("brax/inverted_pendulum", {"gravity_scale": [1.0, 2.0], "episode_length": [3, 4]}, {"gravity_scale"}),
    ],
)
def test_floats_share_a_program_where_the_spaces_allow_it(env_id, axes, shared):
    assert make_grid(env_id, {}, axes).shared == shared


def test_a_pool_of_initial_states_is_of_one_value():
    grid = make_grid("brax/inverted_pendulum", {"reset_pool": 2}, {"gravity_scale": [1.0, 2.0]})
    assert grid.shared == frozenset()


def test_a_parameter_of_both_is_two_axes():
    grid = plan(fake, {"rate": [0.1, 0.2], "num_envs": 4}, {"rate": [8.0, 9.0], "label": ["a", "b"]}, {"rate"})
    assert grid.configs == [
        {"rate": r, "env.rate": e, "env.label": name} for r in (0.1, 0.2) for e in (8.0, 9.0) for name in "ab"
    ]
    assert [group.env_static for group in grid.groups] == [{"label": "a"}, {"label": "b"}]
    for group in grid.groups:
        assert group.static == {"num_envs": 4}
        np.testing.assert_allclose(group.traced["rate"], [0.1, 0.1, 0.2, 0.2])
        np.testing.assert_allclose(group.env_traced["rate"], [8, 9, 8, 9])


# ---------------------------------------------------------------- sweeps

RUN = {"num_steps": 48, "seeds": 2, "log_every": 24, "eval_every": 24, "eval_episodes": 2}
PENDULUM = {"discretize_actions": 3, "max_steps_in_episode": 5}


def test_a_sweep_is_what_each_value_is_alone():
    """Gravity shares a program, with a rate of the agent; a wrapper's number has one for each value."""
    TRACED.clear()
    axes = {"g": np.array([8.0, 12.0]), "discretize_actions": [3, 5], "max_steps_in_episode": 5}
    swept = jaxrl.sweep(fake, "Pendulum-v1", env_params=axes, rate=[0.1, 0.2], **RUN)
    assert len(TRACED) == 2
    assert swept.configs == [
        {"rate": r, "env.g": g, "env.discretize_actions": n} for r in (0.1, 0.2) for g in (8.0, 12.0) for n in (3, 5)
    ]
    assert swept.config["env_params"] == {"max_steps_in_episode": 5}
    assert swept.config["env_axes"] == {"g": [8.0, 12.0], "discretize_actions": [3, 5]}
    assert swept.label(5) == "rate=0.2, env.g=8, env.discretize_actions=5"
    for g, config in ((8.0, 4), (12.0, 6)):
        alone = jaxrl.sweep(fake, "Pendulum-v1", env_params=PENDULUM | {"g": g}, rate=0.2, **RUN)
        assert alone.configs == []
        for name, values in alone.metrics.items():
            if name != "step":
                np.testing.assert_allclose(swept.metrics[name][config], values, err_msg=name, **TOLERANCE)
    for metric in ("episode_return", "eval_return"):  # each in its own environment
        values = swept.metrics[metric]
        assert np.all(np.abs(values[0] - values[2]) > 1e-3), metric


def test_one_axis_of_the_environment_alone_is_a_sweep():
    TRACED.clear()
    swept = jaxrl.sweep(fake, "Pendulum-v1", env_params=PENDULUM | {"g": [8, 10, 12]}, **RUN)
    assert len(TRACED) == 1
    assert swept.configs == [{"env.g": 8}, {"env.g": 10}, {"env.g": 12}]
    assert swept.shape == (3, 2, 2)


def test_each_program_has_its_own_environment():
    swept = jaxrl.sweep(fake, "Pendulum-v1", env_params=PENDULUM | {"max_steps_in_episode": [4, 6]}, **RUN)
    assert swept.metrics["episode_length"][..., 0].tolist() == [[4, 4], [6, 6]]


def test_a_list_is_an_axis_and_a_tuple_one_value():
    one = jaxrl.sweep(fake, "CartPole-v1", env_params={"observe": (0, 2)}, **RUN)
    assert (one.configs, one.config["env_params"]) == ([], {"observe": [0, 2]})
    with pytest.raises(JaxrlError, match=r"observe=0 is not accepted.*a list of values is an axis, and a tuple one"):
        jaxrl.sweep(fake, "CartPole-v1", env_params={"observe": [0, 2]}, **RUN)


@pytest.mark.parametrize(
    ("env_params", "message"),
    [
        ({"g": []}, r"Pendulum-v1: g=\[\] is not accepted; it must hold one value at least"),
        ({"g": [8.0, "low"]}, "Pendulum-v1: g=low is not accepted; it must be a number"),
        ({"g": [8.0, float("nan")]}, "Pendulum-v1: g=nan is not accepted"),
        ({"gg": [8.0, 9.0]}, "Pendulum-v1: unknown parameter 'gg'"),
        ({"g": [8.0], "randomize": {"g": (8.0, 9.0)}}, "not have g, which is given a value as well"),
    ],
)
def test_a_bad_axis_is_refused_before_anything_compiles(env_params, message, monkeypatch):
    monkeypatch.setattr(jaxrl.runs.run, "compile_group", None)
    with pytest.raises(JaxrlError, match=message):
        jaxrl.sweep(fake, "Pendulum-v1", env_params=env_params | {"discretize_actions": 3}, **RUN)


# ---------------------------------------------------------------- the command line


def test_a_sweep_from_the_command_line(tmp_path, capfd):
    """Rewards of one grid scaled by two numbers, and two limits; all that reads a run's folder knows the axes."""
    out = tmp_path / "run"
    words = ["--env", "jaxrl/Corridor-v0", "--num-steps", "400", "--seeds", "2", "--out", str(out)]
    axes = ["--env-params", "scale_rewards=[0.5,2.0]", "time_limit=[2,30]", "observe_randomized=False"]
    assert cli.main(["sweep", "q_learning", *words, *axes]) == 0
    results = Results.load(out)
    assert results.configs == [{"env.scale_rewards": s, "env.time_limit": t} for s in (0.5, 2.0) for t in (2, 30)]
    assert results.config["env_params"] == {"observe_randomized": False}
    capfd.readouterr()
    assert cli.main(["evaluate", str(out), "--episodes", "2", "--render", str(tmp_path / "best.png")]) == 0
    text = capfd.readouterr().out
    assert "env.scale_rewards" in text
    assert "best.png: env.scale_rewards=2, env.time_limit=30, seed" in " ".join(text.split())
    ready, _ = folder.read_run(out)
    assert len(ready.plan.groups) == 2
    lengths = [len(episode_of_run(ready, out, config, seed=0).time) for config in range(4)]
    assert lengths[0] == lengths[2] == 2
    assert min(lengths[1], lengths[3]) >= 5  # the treasure is five steps away


def test_runs_are_named_by_the_parameters_that_differ():
    metrics = {"step": np.array([1]), "episode_return": np.ones((2, 1))}
    runs = [Results({"agent": "a", "env": "b", "env_params": {"g": g, "m": 1}}, metrics) for g in (8.0, 12.0)]
    assert _labels(runs) == ["env.g=8", "env.g=12"]
