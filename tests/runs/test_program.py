"""Plans of hyper-parameter grids, and the programs that they compile to: what one does, and what it needs."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fake_agent import TRACED, fake

from jaxrl import JaxrlError, a2c, dqn, make, ppo
from jaxrl.loop import init_train, train_interval
from jaxrl.runs import program
from jaxrl.runs.program import compile_group, group_agent, plan

PROBE = "jaxrl/Probe-truncation-v0"


# ---------------------------------------------------------------- plans


def test_nothing_swept_is_one_configuration():
    grid = plan(fake, {"rate": 0.1, "num_envs": 4})
    assert grid.configs == [{}]
    [group] = grid.groups
    assert group.indices == (0,)
    assert group.static == {"rate": 0.1, "num_envs": 4}
    assert group.traced == {}


def test_a_grid_is_in_the_order_of_its_axes_and_the_last_runs_fastest():
    grid = plan(fake, {"rate": [0.1, 0.2], "label": "b", "blow_up": [3.0, 4.0, 5.0]})
    assert grid.configs == [{"rate": r, "blow_up": b} for r in (0.1, 0.2) for b in (3.0, 4.0, 5.0)]


def test_floats_share_one_group():
    [group] = plan(ppo, {"learning_rate": [1e-4, 3e-4, 1e-3, 3e-3], "num_envs": 8}).groups
    assert group.indices == (0, 1, 2, 3)
    assert group.static == {"num_envs": 8}
    assert group.traced["learning_rate"].dtype == np.float32
    np.testing.assert_allclose(group.traced["learning_rate"], [1e-4, 3e-4, 1e-3, 3e-3], rtol=1e-7)


def test_integers_have_a_group_each():
    four, eight = plan(ppo, {"num_envs": [4, 8]}).groups
    assert (four.indices, four.static, four.traced) == ((0,), {"num_envs": 4}, {})
    assert (eight.indices, eight.static, eight.traced) == ((1,), {"num_envs": 8}, {})


def test_the_agent_of_each_configuration():
    [group] = plan(fake, {"rate": [0.1, 0.2], "num_envs": 4}).groups
    losses = []
    for place in range(2):
        agent = group_agent(fake, group, place)
        state = agent.init(jax.random.key(0), None)
        losses.append(agent.update(state, None, jax.random.key(1), jnp.int32(0))[1]["loss"])
        assert agent.num_envs == 4
    np.testing.assert_allclose(losses, [0.1, 0.2], rtol=1e-6)
    assert group_agent(fake, group).num_envs == 4


def test_mixed_axes():
    """Integers, text, tuples and booleans tell the groups apart; their members keep their places in the grid."""
    grid = plan(fake, {"rate": [0.1, 0.2], "num_envs": [2, 4], "blow_up": 3.0})
    assert [g.indices for g in grid.groups] == [(0, 2), (1, 3)]
    assert [g.static for g in grid.groups] == [{"blow_up": 3.0, "num_envs": 2}, {"blow_up": 3.0, "num_envs": 4}]
    for group in grid.groups:
        np.testing.assert_allclose(group.traced["rate"], [0.1, 0.2], rtol=1e-7)
        for index in group.indices:
            assert grid.configs[index]["num_envs"] == group.static["num_envs"]
    others = {"label": ["a", "b"], "sizes": [(3,), (4, 5)]}
    assert len(plan(fake, others | {"rate": [0.1, 0.2]}).groups) == 4
    assert len(plan(dqn, {"double": [True, False]}).groups) == 2


def test_repeated_values_are_configurations_of_their_own():
    grid = plan(fake, {"num_envs": [4, 4]})
    assert len(grid.configs) == 2
    assert [g.indices for g in grid.groups] == [(0, 1)]


@pytest.mark.parametrize("values", [[1, 2], [np.float32(1), np.int64(2)], np.array([1.0, 2.0]), jnp.array([1, 2])])
def test_an_axis_may_hold_any_numbers(values):
    grid = plan(fake, {"rate": values})
    assert grid.configs == [{"rate": 1}, {"rate": 2}]
    assert all(type(config["rate"]) in (int, float) for config in grid.configs)
    assert grid.groups[0].traced["rate"].tolist() == [1.0, 2.0]


def test_arrays_of_integers_are_axes_too_and_scalars_are_not():
    assert [g.static for g in plan(fake, {"num_envs": np.array([2, 4])}).groups] == [{"num_envs": 2}, {"num_envs": 4}]
    assert plan(fake, {"rate": np.float32(0.5), "sizes": (1, 2)}).configs == [{}]
    assert plan(fake, {"rate": jnp.float32(0.5)}).configs == [{}]
    assert plan(functools.partial(ppo, num_envs=2), {"learning_rate": [1e-3]}).configs == [{"learning_rate": 1e-3}]


@pytest.mark.parametrize(
    ("constructor", "hyper_parameters", "message"),
    [
        (ppo, {"learnin_rate": 1e-3}, "unknown hyper-parameter of ppo 'learnin_rate': did you mean learning_rate"),
        (ppo, {"learning_rate": []}, r"ppo: learning_rate=\[\] is not accepted"),
        (ppo, {"learning_rate": np.zeros(0)}, r"ppo: learning_rate=\[\] is not accepted"),
        (ppo, {"learning_rate": [1e-3, -1.0, 1e-4]}, r"ppo: learning_rate=-1.0 is not accepted.*\(0, inf\)"),
        (ppo, {"learning_rate": [1e-3, float("nan")]}, "ppo: learning_rate=nan is not accepted"),
        (ppo, {"learning_rate": [1e-3, "fast"]}, "ppo: learning_rate='fast' is not accepted"),
        (ppo, {"num_envs": [4, 2.5]}, "ppo: num_envs=2.5 is not accepted; it must be a whole number"),
        (ppo, {"num_minibatches": [4, 3]}, "num_minibatches=3 does not divide"),
        (ppo, {"activation": ["tanh", "tahn"]}, "activation='tahn' is not accepted; it must be one of"),
        (
            ppo,
            {"hidden_sizes": [64, 64]},
            r"hidden_sizes=\[64, 64\] is not accepted.*a tuple.*list of tuples",
        ),
        (dqn, {"gamma": [0.9, 1.5]}, "dqn: gamma=1.5 is not accepted"),
        (dqn, {"replay_size": 2**31}, "dqn: replay_size=2147483648 is not accepted; it must be less than"),
    ],
)
def test_a_bad_grid_is_refused_before_anything_is_traced(constructor, hyper_parameters, message, monkeypatch):
    monkeypatch.setattr(jax, "jit", None)
    with pytest.raises(JaxrlError, match=message):
        plan(constructor, hyper_parameters)


# ---------------------------------------------------------------- rows


def states_and_metrics(compiled: program.Program, updates: int):
    init = compiled.init()
    before = jax.tree.map(np.asarray, init._replace(key=jax.random.key_data(init.key)))
    _, metrics = compiled.train(init, updates)
    return before, jax.tree.map(np.asarray, metrics)


# A row's numbers are those of the same seed alone, but for the order in which matrix products add up.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
SMALL_A2C = {"num_envs": 2, "rollout_length": 16, "hidden_sizes": (8,)}


def test_a_row_is_what_it_is_alone_and_on_any_number_of_devices(monkeypatch):
    """Three learning rates and three seeds: nine rows, so that two devices need one more, which repeats the first."""
    env, run_key, rates = make("CartPole-v1"), jax.random.key(7), [1e-3, 1e-2, 3e-2]
    [group] = plan(a2c, SMALL_A2C | {"learning_rate": rates}).groups
    options = {"run_key": run_key, "num_seeds": 3, "num_eval_episodes": 1, "parts": ("init", "train")}
    on_two = compile_group(a2c, group, env, **options)
    assert (on_two.num_rows, on_two.mesh.size, len(on_two.shapes.obs)) == (9, 2, 10)
    assert on_two.agent.rollout_length == 16
    first, _ = jax.devices()
    with monkeypatch.context() as patch:
        patch.setattr(jax, "devices", lambda: [first])
        on_one = compile_group(a2c, group, env, **options)
    assert (on_one.mesh.size, len(on_one.shapes.obs)) == (1, 9)

    (state_two, metrics_two), (state_one, metrics_one) = (states_and_metrics(p, 3) for p in (on_two, on_one))
    assert state_two.step == 0
    for name, values in metrics_two.items():
        assert values.shape == (10,)
        assert values[9] == values[0], name
        np.testing.assert_allclose(values[:9], metrics_one[name], **TOLERANCE, err_msg=name)
    rows_two, rows_one = (state._replace(step=()) for state in (state_two, state_one))
    jax.tree.map(lambda two, one: np.testing.assert_allclose(two[:9], one, **TOLERANCE), rows_two, rows_one)
    assert len(np.unique(state_two.key[:9], axis=0)) == 3  # a seed has the same key in every configuration

    @jax.jit
    def alone(key, rate):
        agent = a2c(**SMALL_A2C, learning_rate=rate)
        state = init_train(key, agent, env)
        return state, train_interval(state, agent, env, 3)[1]

    config, seed = 2, 1
    state, metrics = alone(jax.random.fold_in(run_key, seed), jnp.float32(rates[config]))
    row = 3 * config + seed
    assert np.array_equal(state_two.key[row], jax.random.key_data(state.key))  # the same random inputs, to the bit
    np.testing.assert_allclose(state_two.obs[row], state.obs, rtol=1e-6, atol=1e-8)
    for name, value in metrics.items():
        np.testing.assert_allclose(metrics_two[name][row], value, **TOLERANCE, err_msg=name)
        assert name == "episode_count" or metrics_two[name][row] != metrics_two[name][row - 1]


def test_a_program_is_traced_once_for_any_number_of_rates():
    counts = []
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **kwargs: compiled.append(kwargs.get("fun_name")) if "backend_compile" in event else None
    )
    for rates in ([0.1], [0.1, 0.2, 0.3, 0.4]):
        [group] = plan(fake, {"rate": rates}).groups
        TRACED.clear()
        compiled.clear()
        built = compile_group(fake, group, make(PROBE), run_key=jax.random.key(0), num_seeds=2, num_eval_episodes=2)
        counts.append(len(TRACED))
        assert [name for name in compiled if "train" in str(name)] == ["jit(train)"]
    assert counts == [1, 1]
    _, metrics = built.train(built.init(), 1)
    np.testing.assert_allclose(metrics["loss"], np.repeat([0.1, 0.2, 0.3, 0.4], 2), rtol=1e-6)
    assert built.compile_seconds > 0


def test_evaluations_are_others_at_another_step_and_draw():
    [group] = plan(fake, {}).groups
    env = make("jaxrl/Probe-policy-v0")  # the agent's action, 0, is right or wrong with the observation's draw
    built = compile_group(fake, group, env, run_key=jax.random.key(0), num_seeds=2, num_eval_episodes=64)
    state = built.init()
    first, again, other = (np.asarray(built.evaluate(state, draw)) for draw in (0, 0, 1))
    state, _ = built.train(state, 1)
    later = np.asarray(built.evaluate(state))
    assert first.shape == (2, 64)
    assert np.array_equal(first, again)
    for different in (other, later, first[::-1]):
        assert not np.array_equal(first, different)
    assert set(first.ravel()) == {-1.0, 1.0}


def test_an_agent_that_cannot_act_is_refused():
    [group] = plan(dqn, {}).groups
    with pytest.raises(JaxrlError, match="dqn: Pendulum-v1 has continuous actions"):
        compile_group(dqn, group, make("Pendulum-v1"), run_key=jax.random.key(0), num_seeds=1, num_eval_episodes=1)


# ---------------------------------------------------------------- what a program needs


@pytest.fixture
def compiled(monkeypatch):
    """`compiled(constructor, num_seeds, **hyper_parameters)`: the program on CartPole, and XLA's own train program."""
    seen, measure = [], program.memory_of
    monkeypatch.setattr(program, "memory_of", lambda compiled: seen.append(compiled) or measure(compiled))

    def build(constructor, num_seeds, **hyper_parameters):
        [group] = plan(constructor, hyper_parameters).groups
        options = {"run_key": jax.random.key(0), "num_seeds": num_seeds, "num_eval_episodes": 1, "parts": ("train",)}
        return compile_group(constructor, group, make("CartPole-v1"), **options), seen[-1]

    return build


def num_bytes(tree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("replay", ["uniform", "prioritized"])
def test_dqn_holds_each_replay_once(compiled, replay):
    """The replays are written in place, and an observation is in them once."""
    seeds, size = 64, 100_000
    built, xla = compiled(dqn, seeds, replay_size=size, rollout_length=1, replay=replay)
    replays = num_bytes(built.shapes.agent.replay)
    once = seeds * size * (4 * 4 + 4 + 4 + 1 + 1)  # obs, action, reward, terminated, truncated
    tree = seeds * size * 4 * 8 / 7 if replay == "prioritized" else 0
    assert once + tree <= replays <= 1.01 * (once + tree)
    # The rest is networks, optimisers, a batch, and the mask of what is finite; jax 0.10 drops the barriers that keep
    # one batch's activations.
    rest = 220_000 if jax.__version_info__ >= (0, 11) else 320_000
    assert built.memory_bytes <= replays + seeds * (5 * size + rest)

    # Donation: all of the state is written over the state that was given, so the output is metrics and nothing else.
    memory = xla.memory_analysis()
    assert memory.alias_size_in_bytes >= num_bytes(built.shapes._replace(key=())) / 2
    assert memory.alias_size_in_bytes == memory.argument_size_in_bytes - 4  # but for the number of updates
    assert memory.output_size_in_bytes - memory.alias_size_in_bytes < 32_000

    replay_shaped = re.compile(r"%(\S+) = \w+\[(?:\d+,)*100000(?:,\d+)*\]\S* ([\w-]+)\(")
    operations = replay_shaped.findall(xla.as_text())
    assert any("dynamic-update-slice" in name for name, _ in operations)
    assert not [(name, kind) for name, kind in operations if "copy" in name or kind in ("copy", "scatter", "transpose")]


def test_ppo_trains_512_seeds_in_half_a_gibibyte(compiled):
    built, _ = compiled(ppo, 512)
    assert built.memory_bytes <= 512 * 2**20
