"""Presets are what their papers say: the call that each is, and what is seen of an agent that it makes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow_off_policy as slow
from test_arguments import SMALL
from tracing import trace_agent

from jaxrl import a2c, ddpg, dppo, dqn, droq, ppo, rainbow, redq, sac, td3, trpo
from jaxrl.agents import AGENTS
from jaxrl.constructors import lineage, parameters
from jaxrl.types import Discrete, Spec, box

CONTROL = Spec("Control-v0", box(-np.inf, np.inf, (2,)), box(-1, 1, (2,)))
CHOICE = Spec("Choice-v0", box(-np.inf, np.inf, (2,)), Discrete(3))

# What each is: the constructor, and the arguments that differ, from the papers.
CALLS = {
    "rainbow": (
        dqn,
        {
            "double": True, "dueling": True, "noisy": True, "atoms": 51, "n_step": 3, "replay": "prioritized",
            "priority_alpha": 0.5, "epsilon_start": 0.0, "epsilon_final": 0.0,
        },
    ),
    "qr_dqn": (dqn, {"quantiles": 51}),
    "one_step_actor_critic": (a2c, {"gae_lambda": 0.0, "rollout_length": 1, "optimizer": "adam"}),
    "npg": (trpo, {"line_search": False}),
    "dppo": (ppo, {"num_workers": 4, "num_envs": 16}),
    "ddpg": (
        td3,
        {
            "num_critics": 1, "policy_delay": 1, "target_update_every": 1, "target_noise": 0.0,
            "noise": "ornstein_uhlenbeck", "noise_scale": 0.4, "noise_final": 0.1, "noise_decay_steps": 100_000,
            "random_warmup": False,
        },
    ),
    "redq": (
        sac,
        {"num_critics": 10, "target_critics": 2, "policy_value": "mean", "policy_delay": 20, "replay_ratio": 20},
    ),
    "droq": (
        sac,
        {"dropout": 0.01, "layer_norm": True, "policy_value": "mean", "policy_delay": 20, "replay_ratio": 20},
    ),
}  # fmt: skip


def test_all_presets_are_here():
    presets = {name: lineage(make)[1:] for name, make in AGENTS.items() if lineage(make) != [make]}
    assert presets == {name: [base] for name, (base, _) in CALLS.items()}


@pytest.mark.parametrize("name", CALLS)
def test_it_is_that_call(name):
    """The same program, number for number; and another one if what is given differs from the preset."""
    constructor, arguments = CALLS[name]
    accepted = parameters(constructor)
    small = {k: v for k, v in SMALL.items() if k in accepted and k not in arguments}
    spec = CONTROL if constructor in (td3, sac) else CHOICE
    found, _ = trace_agent(AGENTS[name], small, {}, spec)
    expected, _ = trace_agent(constructor, small | arguments, {}, spec)
    assert found == expected
    assert AGENTS[name]().name == name


def test_what_is_given_comes_before_the_preset():
    assert (rainbow(rollout_length=4).rollout_length, dppo(num_envs=8).num_envs) == (4, 8)
    given, _ = trace_agent(AGENTS["ddpg"], {"hidden_sizes": (4,), **CALLS["ddpg"][1], "noise_scale": 0.9}, {}, CONTROL)
    assert given["act"] == trace_agent(ddpg, {"hidden_sizes": (4,), "noise_scale": 0.9}, {}, CONTROL)[0]["act"]
    assert given["act"] != trace_agent(ddpg, {"hidden_sizes": (4,)}, {}, CONTROL)[0]["act"]


# ---------------------------------------------------------------- what is seen of them

ONCE = slow.SIZES | {"replay": slow.always(slow.sample(), 1), "replay_ratio": 1}  # one gradient step
COLD = {"temperature": "fixed", "initial_temperature": 1e-9}  # so that entropies do not count


def errors_of(agent, state, target_params, key):
    """The critics' mean absolute errors after one gradient step, `[B]`."""
    rows = jax.tree.map(lambda x: jnp.asarray(x[:1, :1]), slow.sample().steps)
    state = state._replace(target_params=target_params)
    return agent.update(state, rows, key, jnp.int32(slow.STEP))[0].replay


def test_redq_takes_the_least_of_two_critics_that_are_drawn_anew():
    """The online critics say 0, and target critic i says 100 (i + 1): of 45 pairs it is the least in 9 - i."""
    agent = redq(**ONCE, **COLD)
    state = slow.zeros(agent)
    targets = jax.tree.map(jnp.asarray, state.target_params)
    output = targets["params"]["output"]
    assert output["bias"].shape == (10, 1)
    targets = {"params": targets["params"] | {"output": output | {"bias": 100.0 * jnp.arange(1, 11)[:, None]}}}
    keys = jax.random.split(jax.random.key(0), 1000)
    errors = np.asarray(jax.jit(jax.vmap(lambda key: errors_of(agent, state, targets, key)))(keys))
    _, _, reward, discount, _ = slow.n_steps(slow.sample(), 1)
    going_on = discount > 0
    least = (errors - reward)[:, going_on] / discount[going_on] / 100
    np.testing.assert_allclose(least, least[:, :1].round() * np.ones_like(least), atol=1e-3)
    chance = (9 - np.arange(10)) / 45
    found = np.bincount(least[:, 0].round().astype(int), minlength=11)[1:] / len(keys)
    np.testing.assert_array_less(np.abs(found - chance), 5 * np.sqrt(chance * (1 - chance) / len(keys)) + 1e-9)


@pytest.fixture(scope="module")
def dropped():
    """How far the errors of critics that no observation or action reaches vary with the key: `[dropout, where]`."""
    keys = jax.random.split(jax.random.key(0), 50)
    spread = []
    for dropout in (0.01, 0.0):
        agent = droq(**ONCE | {"hidden_sizes": (64,)}, **COLD, dropout=dropout)
        state = slow.zeros(agent)
        drawn = jax.tree_util.tree_map_with_path(
            lambda path, x: 0 * x if path[-2].key == "Dense_0" and path[-1].key == "kernel" else x,
            slow.drawn_like(state.target_params, 0),
        )

        @jax.jit
        def run(online, target, agent=agent, state=state):
            start = state._replace(params=state.params._replace(critics=online))
            return jax.vmap(lambda key: errors_of(agent, start, target, key))(keys)

        errors = [run(drawn, state.target_params), run(state.target_params, drawn)]
        spread.append([float(jnp.std(x, axis=0).max()) for x in errors])
    return spread


def test_droq_drops_units_of_the_critics_and_of_their_targets(dropped):
    assert min(dropped[0]) > 1e-2
    assert max(dropped[1]) < 1e-5


@pytest.fixture(scope="module")
def wandering():
    """DDPG's actions of a policy that says 0, at the first step and at a late one: `[2, T, N]`."""
    agent, num_envs = ddpg(hidden_sizes=(4,)), 2000
    state, keys = slow.zeros(agent, CONTROL), jax.random.split(jax.random.key(0), 40)

    def play(step):
        def one(memory, key):
            action, memory, _ = agent.act(state, memory, jnp.zeros((num_envs, 2)), key, step)
            return memory, action[:, 0]

        return jax.lax.scan(one, agent.init_memory(num_envs), keys)[1]

    return np.asarray(jax.jit(jax.vmap(play))(jnp.array([0, 200_000])))


def test_ddpg_wanders_by_less_and_less(wandering):
    """Steps correlate by 1 - theta = 0.85; the deviation is 0.4 at first and 0.1 later; nothing is uniform."""
    early, late = wandering
    assert 0.82 < np.corrcoef(early[-2], early[-1])[0, 1] < 0.88
    assert 0.36 < early[-1].std() < 0.41
    assert 0.09 < late[-1].std() < 0.11
    np.testing.assert_allclose(early[0].std(), 0.4 * np.sqrt(0.15 * 1.85), rtol=0.06)  # from 0 as an episode begins


def test_ddpg_has_one_critic_and_changes_everything_at_each_gradient_step():
    """And there is no noise in its targets: two keys, one result."""
    agent = ddpg(**ONCE)
    state = slow.zeros(agent)
    start = state._replace(
        params=slow.drawn_like(state.params, 0), target_params=slow.drawn_like(state.target_params, 1)
    )
    rows = jax.tree.map(lambda x: jnp.asarray(x[:1, :1]), slow.sample().steps)
    keys = jax.random.split(jax.random.key(0), 2)
    after = jax.jit(jax.vmap(lambda key: agent.update(start, rows, key, jnp.int32(slow.STEP))[0]))(keys)
    for x in jax.tree.leaves((after.params, after.target_params)):
        np.testing.assert_array_equal(x[0], x[1])
    for before, now in ((start.params, after.params), (start.target_params, after.target_params)):
        moved = jax.tree.map(lambda x, y: np.abs(x - y[0]).max(), before, now)
        assert min(max(jax.tree.leaves(part)) for part in moved) > 1e-6
    assert len(start.params.critics["params"]["output"]["bias"]) == 1


def test_rainbow_explores_by_the_noise_of_its_layers():
    """With an epsilon of 0: actions differ from key to key, greedy ones do not, and draws are not the same for all."""
    agent = rainbow(hidden_sizes=(8,), atoms=3)
    shapes = jax.eval_shape(lambda: agent.init(jax.random.key(0), CHOICE))
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)._replace(
        params=slow.drawn_like(shapes.params, 0)
    )
    keys = jax.random.split(jax.random.key(1), 64)

    def act(key, explore):
        return agent.act(state, (), jnp.ones((1, 2)), key, jnp.int32(0), explore=explore)[0][0]

    exploring, greedy = jax.jit(lambda: [jax.vmap(lambda key, e=e: act(key, e))(keys) for e in (True, False)])()
    assert len(set(np.asarray(exploring).tolist())) == 3
    assert len(set(np.asarray(greedy).tolist())) == 1
