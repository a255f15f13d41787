"""The first SAC: gradient steps against NumPy, numbers by hand, how it acts, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import slow_off_policy as slow
from slow_off_policy import BATCH, BOUNDS, HIDDEN, SPEC, Network

from jaxrl import JaxrlError
from jaxrl.agents.off_policy.sac_v1 import sac_v1
from jaxrl.types import Discrete, box

RATES = {
    "actor_learning_rate": 0.02,
    "critic_learning_rate": 0.03,
    "value_learning_rate": 0.04,
    "temperature_learning_rate": 0.05,
    "tau": 0.3,
    "initial_temperature": 0.6,
    "final_temperature": 0.1,
    "temperature_steps": 4,
    "target_entropy": -0.4,
}
STEPS = 5  # gradient steps of each update, the fifth to the ninth
CASES = {
    "fixed": {},
    "one critic, hard targets, 3 steps": {"num_critics": 1, "tau": 1.0, "n_step": 3, "target_update_every": 4},
    "three critics, learnt temperature": {"num_critics": 3, "temperature": "auto", "target_update_every": 2},
    "normalised, a temperature of the state": {"layer_norm": True, "temperature": "state"},
}
UPDATE_KEY = jax.random.key(5)
DEFAULTS = {"num_critics": 2, "target_update_every": 1, "n_step": 1, "temperature": "fixed"}


def update_of(arguments, gradient_steps=STEPS):
    """The states before and after an update on one batch, parameters at random, and its metrics."""
    replay = slow.always(slow.sample(), gradient_steps)
    agent = sac_v1(**slow.SIZES, **RATES | arguments, replay=replay, replay_ratio=gradient_steps)
    state = slow.zeros(agent)
    params = slow.drawn_like(state.params, 0)
    state = state._replace(params=params, target_params=slow.drawn_like(state.target_params, 3))
    trajectory = jax.tree.map(lambda x: jnp.asarray(x[:1, :1]), slow.sample().steps)
    return state, *agent.update(state, trajectory, UPDATE_KEY, jnp.int32(slow.STEP))


@pytest.fixture(scope="module")
def updates():
    return jax.device_get(jax.jit(lambda: {name: update_of(arguments) for name, arguments in CASES.items()})())


def state_value(params, obs):
    return slow.dense(params["params"]["value_head"], slow.hidden(params["params"]["torso"], obs))[:, 0]


def alpha_of(params, obs, mode):
    if mode == "state":
        return 0.6 * np.exp(state_value(params, obs))
    return np.exp(params) if mode == "auto" else 0.6 + slow.STEP / 4 * (0.1 - 0.6)


def reference(state, arguments):
    """What an update does: networks, target parameters, metrics and errors. All losses are of the old parameters."""
    options = DEFAULTS | RATES | arguments
    mode, names = options["temperature"], ("actor", "critic", "value", "temperature")
    actor, critics, value, temperature = (
        Network(params, options[f"{name}_learning_rate"]) if jax.tree.leaves(params) else None
        for params, name in zip(state.params, names, strict=True)
    )
    target = slow.flat(state.target_params)
    target = target[1](target[0])
    obs, action, reward, discount, next_obs = slow.n_steps(slow.sample(), options["n_step"])
    weights = slow.sample().weights.astype(np.float64)
    metrics, errors = [], []
    for i, key in enumerate(slow.step_keys(UPDATE_KEY, STEPS)):
        count = slow.STEP * STEPS + i + 1
        noise = np.asarray(jax.random.normal(key, (1, BATCH, 2))[0], np.float64)
        alpha = alpha_of(temperature and temperature.params, obs, mode)
        old = critics.params
        drawn, log_prob = slow.squashed(actor.params, obs, noise)
        soft_q = slow.q_values(old, obs, drawn).min(0) - alpha * log_prob
        y = reward + discount * state_value(target, next_obs)

        def actor_loss(params):  # equation 12
            drawn, log_prob = slow.squashed(params, obs, noise)
            return (alpha * log_prob - slow.q_values(old, obs, drawn).min(0)).mean()

        def critic_loss(params):  # equation 7
            return 0.5 * (weights * (slow.q_values(params, obs, action) - y) ** 2).sum(0).mean()

        def value_loss(params):  # equation 5
            return 0.5 * (weights * (state_value(params, obs) - soft_q) ** 2).mean()

        def temperature_loss(params):
            return (alpha_of(params, obs, mode) * (-log_prob - 2 * options["target_entropy"])).mean()

        q = slow.q_values(old, obs, action)
        errors.append(np.abs(q - y).mean(0))
        metrics.append([critic_loss(old), value_loss(value.params), q.mean(), -log_prob.mean(), np.mean(alpha)])
        for network, loss in zip(
            (actor, critics, value, temperature), (actor_loss, critic_loss, value_loss, temperature_loss), strict=True
        ):
            if network:
                network.descend(loss)
        if count % options["target_update_every"] == 0:
            target = slow.moved(target, value, options["tau"])
    return (actor, critics, value, temperature), target, np.mean(metrics, 0), np.concatenate(errors)


@pytest.mark.parametrize("name", CASES)
def test_update_against_numpy(updates, name):
    before, after, metrics = updates[name]
    networks, target, values, errors = reference(before, CASES[name])
    for network, params, state in zip(networks, after.params, after.opt_state, strict=True):
        if network is None:
            assert params == ()
            continue
        slow.close(params, network.params, atol=2e-4)
        assert state[0].count == network.steps == STEPS
        slow.close(state[0].mu, network.unflat(network.m), rtol=1e-3, atol=2e-4)
    slow.close(after.target_params, target, atol=2e-4)
    found = [metrics[name] for name in ("critic_loss", "value_loss", "q_mean", "entropy", "temperature")]
    np.testing.assert_allclose(found, values, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(after.replay, errors, rtol=1e-3, atol=2e-4)


def test_by_hand():
    """Networks that are constants: V = 3, V_target = 2, Q_i = (5, 1), a policy that is tanh of a standard Gaussian.

    One transition with reward 1 and gamma = 0.7: y = 1 + 0.7 * 2 = 2.4, or 1 where it terminates.
    """
    steps = slow.sample().steps

    def run(terminated):
        single = jax.tree.map(lambda x: x[:1], slow.sample())
        row = single.steps._replace(reward=jnp.ones((1, 3)), terminated=jnp.full((1, 3), terminated))
        replay = slow.always(slow.sample(), 1)._replace(
            init=lambda trajectory, spec: jnp.zeros(1),
            sample=lambda state, key, step, length=1: single._replace(
                steps=jax.tree.map(lambda x: jnp.asarray(x[:, :1]), row),
                valid=jnp.ones((1, 1), bool),
                weights=jnp.ones(1),
            ),
            update=lambda state, indices, errors: errors,
        )
        agent = sac_v1(**slow.SIZES, replay=replay, initial_temperature=0.5)
        state = slow.zeros(agent)
        state.params.critics["params"]["output"]["bias"] = jnp.array([[5.0], [1.0]])
        state.params.value["params"]["value_head"]["bias"] += 3.0
        state.target_params["params"]["value_head"]["bias"] += 2.0
        trajectory = jax.tree.map(lambda x: jnp.asarray(x[:1, :1]), steps)
        after, metrics = agent.update(state, trajectory, UPDATE_KEY, jnp.int32(0))
        return metrics, after.replay

    results = jax.device_get(jax.jit(lambda: [run(False), run(True)])())
    for (metrics, errors), y in zip(results, (2.4, 1.0), strict=True):
        np.testing.assert_allclose(metrics["critic_loss"], 0.5 * ((5 - y) ** 2 + (1 - y) ** 2), rtol=1e-5)
        np.testing.assert_allclose(errors, (abs(5 - y) + abs(1 - y)) / 2, rtol=1e-5)
        np.testing.assert_allclose(metrics["value_loss"], 0.5 * (3 - (1 + 0.5 * metrics["entropy"])) ** 2, rtol=1e-4)
        assert (metrics["q_mean"], metrics["temperature"]) == (3.0, 0.5)


# ---------------------------------------------------------------- acting

NUM_ENVS = 3000


def test_acting():
    """Greedily the Gaussian's mean, squashed; uniform in the warm-up, and after it as the policy draws."""

    def run():
        agent = sac_v1(warmup_steps=100, batch_size=10, hidden_sizes=(HIDDEN,))
        params = slow.drawn_like(slow.shapes(agent).params, 2, scale=0.4)
        state = slow.zeros(agent)._replace(params=params)
        obs = jnp.broadcast_to(jnp.array([0.3, -0.7]), (NUM_ENVS, 2))
        greedy, memory, extras = agent.act(state, (), obs, jax.random.key(1), 0, explore=False)
        assert (memory, extras) == ((), {})
        return params, greedy, [agent.act(state, (), obs, jax.random.key(i), i)[0] for i in (99, 100)]

    params, greedy, explored = jax.device_get(jax.jit(run)())
    mean, log_std = np.split(slow.output(params.actor, np.array([[0.3, -0.7]]))[0], 2)
    np.testing.assert_allclose(greedy, np.tile(np.tanh(mean) * [2, 5] + [0, 5], (NUM_ENVS, 1)), atol=1e-5)
    spread = (explored[0] - BOUNDS[0]) / (BOUNDS[1] - BOUNDS[0])
    assert all(scipy.stats.kstest(x, "uniform").pvalue > 1e-3 for x in spread.T)
    normal = (np.arctanh((explored[1] - [0, 5]) / [2, 5]) - mean) / np.exp(log_std)
    assert all(scipy.stats.kstest(x, "norm").pvalue > 1e-3 for x in normal.T)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (Discrete(3), ["discrete actions", "discrete_sac or dqn"]),
        (box(-1, np.inf, (1,)), ["between [-1.0] and [inf]", "finite"]),
    ],
    ids=["discrete", "unbounded"],
)
def test_environments_that_do_not_fit(space, words):
    with pytest.raises(JaxrlError) as error:
        sac_v1().init(jax.random.key(0), SPEC._replace(action_space=space))
    assert all(word in str(error.value) for word in ("sac_v1: Fake-v0", *words)), error.value
