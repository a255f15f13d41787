"""What DDPG, TD3 and SAC share: parts of their gradient steps, priorities, and hyper-parameters as axes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import slow_off_policy as slow
from slow_off_policy import SPEC

from jaxrl import discrete_sac, make, sac, sac_v1, td3
from jaxrl.agents.off_policy.td3 import TD3Params
from jaxrl.learning import off_policy
from jaxrl.types import Spec, Transition, box

# ---------------------------------------------------------------- small parts, by hand


def test_every():
    """At the 3rd, 6th, 9th, ... gradient step."""
    found = [int(off_policy.every(3, jnp.int32(i), lambda: jnp.int32(1), jnp.int32(0))) for i in range(9)]
    assert found == [0, 0, 1, 0, 0, 1, 0, 0, 1]
    assert [off_policy.every(1, i, lambda: 1, 0) for i in range(3)] == [1, 1, 1]


def test_some_critics():
    """Without replacement, all equally often, and each critic's leaves together."""
    params = {"a": jnp.arange(5.0), "b": jnp.arange(5.0)[:, None] * jnp.ones(2)}
    some = jax.jit(jax.vmap(lambda key: off_policy.some_critics(key, params, 2)))(
        jax.random.split(jax.random.key(0), 4000)
    )
    assert (some["a"][:, 0] != some["a"][:, 1]).all()
    np.testing.assert_array_equal(some["b"], np.repeat(some["a"][..., None], 2, -1))
    counts = np.bincount(np.asarray(some["a"], int).ravel(), minlength=5)
    np.testing.assert_allclose(counts / 4000, 0.4, atol=5 * np.sqrt(0.24 / 4000))
    assert off_policy.some_critics(jax.random.key(0), params, 0) is params


def test_squared_errors():
    """Errors (1, -3) and (3, 1), weights 1 and 0.5: 1/2 ((1 + 9) + 0.5 (9 + 1)) / 2; the mean errors are 2 and 2."""
    q, target = jnp.array([[2.0, 1.0], [-2.0, -1.0]]), jnp.array([1.0, -2.0])
    loss, errors = off_policy.squared_errors(q, target, jnp.array([1.0, 0.5]))
    assert loss == 0.5 * (10 + 0.5 * 10) / 2
    np.testing.assert_array_equal(errors, [2.0, 2.0])  # with their signs they would be -1 and 2


def test_descend():
    def loss(x):
        return jnp.sum(x**2), "aux"

    params = TD3Params(jnp.array([3.0]), jnp.array([1.0, -2.0]))
    optimizers = TD3Params(None, optax.sgd(0.1, momentum=0.5))
    state = TD3Params("its own", optimizers.critics.init(params.critics))
    moved, state, value, aux = off_policy.descend("critics", loss, optimizers, params, state)
    assert (value, aux) == (5.0, "aux")
    assert (moved.actor, state.actor) == (params.actor, "its own")
    np.testing.assert_allclose(moved.critics, [0.8, -1.6], rtol=1e-6)
    np.testing.assert_allclose(state.critics[0].trace, [2.0, -4.0], rtol=1e-6)


# ---------------------------------------------------------------- priorities


def test_priorities_are_the_critics_mean_absolute_errors():
    agent = td3(
        replay="prioritized", priority_alpha=0.5, num_envs=4, replay_size=4, batch_size=4, warmup_steps=4, gamma=0.7,
        replay_ratio=0.25, hidden_sizes=(slow.HIDDEN,), target_noise=0.0,
    )  # fmt: skip
    params, drawn = slow.drawn_like(slow.shapes(agent).params, 6), slow.sample()
    rows = jax.tree.map(lambda x: jnp.asarray(x[None, :4, 0]), drawn.steps)

    @jax.jit
    def run():
        state = agent.init(jax.random.key(0), SPEC)._replace(params=params, target_params=params)
        return agent.update(state, rows, jax.random.key(2), jnp.int32(0))[0].replay.tree[-1]

    priorities = np.asarray(run()).ravel()[:4]
    obs, action, reward, discount, next_obs = slow.n_steps(drawn, 1)
    next_action = np.tanh(slow.output(params.actor, next_obs))
    y = reward + discount * slow.q_values(params.critics, next_obs, next_action).min(0)
    errors = (slow.q_values(params.critics, obs, action) - y)[:, :4]
    assert (errors[0] * errors[1] < 0).any()  # critics that err to both sides
    np.testing.assert_allclose(priorities, (np.abs(errors).mean(0) + 1e-3) ** 0.5, rtol=1e-4)


# ---------------------------------------------------------------- hyper-parameters as axes

NAMES = ["td3", "sac"]
BOTH = {
    "actor_learning_rate": [0.01, 0.03],
    "critic_learning_rate": [0.02, 0.01],
    "gamma": [0.5, 0.9],
    "tau": [0.1, 1.0],
}
HYPER_PARAMETERS = {
    "td3": BOTH
    | {
        "target_noise": [0.6, 0.0],
        "target_noise_clip": [0.5, 0.2],
        "noise_scale": [0.5, 0.2],
        "noise_final": [0.1, 0.3],
        "noise_theta": [0.2, 0.4],
    },
    "sac": BOTH
    | {
        "temperature_learning_rate": [0.1, 0.01],
        "initial_temperature": [1.0, 0.3],
        "target_entropy": [-1.0, 0.3],
        "dropout": [0.0, 0.3],
    },
}
STATIC = {
    "td3": {"policy_delay": 2, "noise": "ornstein_uhlenbeck", "noise_decay_steps": 100, "random_warmup": False},
    "sac": {"policy_delay": 3, "target_update_every": 2, "temperature": "state"},
}


@pytest.fixture(scope="module", params=NAMES)
def axes(request):
    """After an update and an action: two configurations alone; in one program these two, and the first one with one
    hyper-parameter after the other taken from the second."""
    hypers, static = HYPER_PARAMETERS[request.param], STATIC[request.param]
    arguments = slow.SIZES | {"replay": slow.always(slow.sample(), 6), "replay_ratio": 6} | static
    constructor = {"td3": td3, "sac": sac}[request.param]
    rows = {
        name: np.array([values[i == 1 or i == j + 2] for i in range(len(hypers) + 2)], np.float32)
        for j, (name, values) in enumerate(hypers.items())
    }

    def run(values):
        agent = constructor(**arguments | values)
        start = slow.zeros(agent)
        state = start._replace(
            params=slow.drawn_like(start.params, 0), target_params=slow.drawn_like(start.target_params, 1)
        )
        batch = jax.tree.map(lambda x: jnp.asarray(x[:1, :1]), slow.sample().steps)
        state, metrics = agent.update(state, batch, jax.random.key(1), jnp.int32(slow.STEP))
        memory = agent.init_memory(4)
        for i in range(2):
            action, memory, _ = agent.act(state, memory, 0.1 * jnp.ones((4, 2)), jax.random.key(i), 30)
        return state.params, state.target_params, metrics, action

    together = jax.device_get(jax.jit(jax.vmap(run))(rows))
    alone = [{name: values[i] for name, values in hypers.items()} for i in range(2)]
    return hypers, together, jax.device_get(jax.jit(lambda: [run(values) for values in alone])())


def test_hyper_parameters_are_axes(axes):
    """In one program as alone, with numbers in place of tracers."""
    _, together, alone = axes
    for i in range(2):
        slow.close(jax.tree.map(lambda x: x[i], together), alone[i], rtol=1e-3, atol=1e-4)


def test_each_hyper_parameter_matters(axes):
    hypers, together, _ = axes
    for i, name in enumerate(hypers, start=2):
        assert max(np.abs(x[0] - x[i]).max() for x in jax.tree.leaves(together)) > 1e-4, name


# ---------------------------------------------------------------- under vmap

SMALL = {"num_envs": 2, "batch_size": 2, "replay_size": 32, "warmup_steps": 2, "hidden_sizes": (8,)}
agents = pytest.mark.parametrize("constructor", [td3, sac], ids=NAMES)


@agents
def test_what_depends_on_the_count_stays_a_branch(constructor):
    """Under `vmap` over seeds, too, and no branch gives back the replay."""
    options = {"policy_delay": 2, "target_update_every": 2}
    agent = constructor(**SMALL | {"replay_size": 14}, **options)
    state, rows = slow.zeros(agent), slow.trajectory(1, 2)._replace(extras={})

    def conds(jaxpr):
        for e in jaxpr.eqns:
            if e.primitive.name == "cond":
                yield e
            for inner in jax.tree.leaves(list(e.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from conds(inner)

    seeds = jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * 3), (state, rows))
    keys = jax.random.split(jax.random.key(0), 3)
    many = jax.make_jaxpr(jax.vmap(agent.update, (0, 0, 0, None)))(*seeds, keys, jnp.int32(8))
    found = list(conds(many.jaxpr))
    assert len(found) == (4 if constructor is td3 else 3)  # the warm-up, the policy, and the targets
    assert all(14 not in x.aval.shape for e in found for x in e.outvars)


@agents
def test_no_key_is_used_twice(constructor):
    agent = constructor(**SMALL)
    with jax.debug_key_reuse(True):
        state = jax.eval_shape(lambda key: agent.init(key, SPEC), jax.random.key(0))
        jax.jit(agent.update).lower(state, slow.trajectory(1, 2)._replace(extras={}), jax.random.key(0), jnp.int32(8))
        for explore in (False, True):
            act = lambda state, obs, key: agent.act(state, (), obs, key, 0, explore=explore)  # noqa: E731
            jax.jit(act).lower(state, jnp.zeros((2, 2)), jax.random.key(0))


@agents
def test_images(constructor):
    """Observations `[6, 5, 2]`: an update learns from them, and each environment has an action."""
    spec = Spec("Image-v0", box(0, 1, (6, 5, 2)), box(-1, 1, (3,)))
    agent = constructor(**SMALL)

    def run(key):
        state = slow.zeros(agent, spec)
        state = state._replace(params=slow.drawn_like(state.params, 0, scale=0.2))
        obs = jax.random.uniform(key, (1, 2, 6, 5, 2))
        flags, action = jnp.zeros((1, 2), bool), jnp.zeros((1, 2, 3))
        rows = Transition(obs, action, jnp.ones((1, 2)), flags, flags, obs, {})
        after, metrics = agent.update(state, rows, key, jnp.int32(0))
        return state.params, after.params, metrics, agent.act(after, agent.init_memory(2), obs[0], key, 10)[0]

    before, after, metrics, action = jax.device_get(jax.jit(run)(jax.random.key(0)))
    assert action.shape == (2, 3)
    assert metrics["critic_loss"] > 0
    moved = jax.tree.map(lambda x, y: np.abs(x - y).max(), before.critics, after.critics)
    assert min(jax.tree.leaves(moved["params"]["encoder"])) > 1e-5


def test_targets_begin_as_copies():
    """Of what has a target network, equal to what was drawn, and not of zeros."""
    small = {"hidden_sizes": (4,), "warmup_steps": 4, "batch_size": 2, "replay_size": 8}
    cases = {
        "td3": (td3(**small), "Pendulum-v1", lambda params: params),
        "sac": (sac(**small), "Pendulum-v1", lambda params: params.critics),
        "sac_v1": (sac_v1(**small), "Pendulum-v1", lambda params: params.value),
        "discrete_sac": (discrete_sac(**small), "CartPole-v1", lambda params: params.critics),
    }
    specs = {env_id: make(env_id).spec for env_id in ("Pendulum-v1", "CartPole-v1")}
    states = jax.jit(
        lambda key: {name: agent.init(key, specs[env_id]) for name, (agent, env_id, _) in cases.items()},
    )(jax.random.key(0))
    for name, (_, _, online) in cases.items():
        targets, copied = jax.tree.leaves(states[name].target_params), jax.tree.leaves(online(states[name].params))
        assert len(targets) == len(copied) > 0, name
        for target, like in zip(targets, copied, strict=True):
            np.testing.assert_array_equal(target, like)
        assert any(np.abs(target).max() > 0.1 for target in targets), name
