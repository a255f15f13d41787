"""SAC: gradient steps against NumPy, the entropy that a learnt temperature leads to, how it acts, and its presets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import slow_off_policy as slow
from slow_off_policy import BATCH, BOUNDS, HIDDEN, SPEC, Network

from jaxrl import JaxrlError, droq, redq, sac, train
from jaxrl.networks import MLP, SquashedGaussian
from jaxrl.types import Discrete, Env, Outcome, Spec, box

RATES = {
    "actor_learning_rate": 0.02,
    "critic_learning_rate": 0.03,
    "temperature_learning_rate": 0.05,
    "tau": 0.3,
    "initial_temperature": 0.6,
    "target_entropy": -0.4,
}
STEPS = 5  # gradient steps of each update, the fifth to the ninth
CASES = {
    "twin": {},
    "subset of three, mean": {"num_critics": 3, "target_critics": 1, "policy_value": "mean", "target_update_every": 2},
    "hard targets, 3 steps": {"tau": 1.0, "n_step": 3, "policy_delay": 3, "target_update_every": 4},
    "dropout, normalised": {"layer_norm": True, "dropout": 0.4, "policy_value": "mean"},
    "dropout, state": {"dropout": 0.4, "temperature": "state", "target_critics": 1},
    "fixed": {"temperature": "fixed", "final_temperature": 0.1, "temperature_steps": 4, "num_critics": 1},
}
UPDATE_KEY = jax.random.key(5)
DEFAULTS = {
    "num_critics": 2,
    "target_critics": 0,
    "policy_value": "min",
    "policy_delay": 1,
    "target_update_every": 1,
    "n_step": 1,
    "dropout": 0.0,
    "temperature": "auto",
}


def update_of(arguments, gradient_steps=STEPS):
    """The states before and after an update on one batch, parameters at random, and its metrics."""
    replay = slow.always(slow.sample(), gradient_steps)
    agent = sac(**slow.SIZES, **RATES | arguments, replay=replay, replay_ratio=gradient_steps)
    state = slow.zeros(agent)
    params = slow.drawn_like(state.params, 0)
    state = state._replace(params=params, target_params=slow.drawn_like(state.target_params, 3))
    trajectory = jax.tree.map(lambda x: jnp.asarray(x[:1, :1]), slow.sample().steps)
    return state, *agent.update(state, trajectory, UPDATE_KEY, jnp.int32(slow.STEP))


@pytest.fixture(scope="module")
def updates():
    def run():
        return {name: update_of(arguments) for name, arguments in CASES.items()} | {"one step": update_of({}, 1)}

    return jax.device_get(jax.jit(run)())


def normal(key):
    """What a diagonal Gaussian of two numbers makes of a key, before it is scaled and moved."""
    return np.asarray(jax.random.normal(key, (1, BATCH, 2))[0], np.float64)


def alpha_of(params, obs, options):
    if options["temperature"] == "state":
        torso, head = params["params"]["torso"], params["params"]["value_head"]
        return 0.6 * np.exp(slow.dense(head, slow.hidden(torso, obs))[:, 0])
    if options["temperature"] == "auto":
        return np.exp(params)
    return 0.6 + slow.STEP / 4 * (0.1 - 0.6)


def reference(state, arguments, gradient_steps=STEPS):
    """What an update does: networks, target parameters, metrics and errors."""
    options = DEFAULTS | RATES | arguments
    n, dropout = options["num_critics"], options["dropout"]
    rates = [options[f"{name}_learning_rate"] for name in ("actor", "critic", "temperature")]
    actor, critics, temperature = (
        Network(params, rate) if jax.tree.leaves(params) else None
        for params, rate in zip(state.params, rates, strict=True)
    )
    target = slow.flat(state.target_params)
    target = target[1](target[0])
    obs, action, reward, discount, next_obs = slow.n_steps(slow.sample(), options["n_step"])
    weights = slow.sample().weights.astype(np.float64)
    over = {"min": np.min, "mean": np.mean}[options["policy_value"]]
    metrics, errors = [], []
    for i, key in enumerate(slow.step_keys(UPDATE_KEY, gradient_steps)):
        count = slow.STEP * gradient_steps + i + 1
        next_key, action_key, subset_key, *drop_keys = jax.random.split(key, 6)
        m = options["target_critics"] or n
        chosen = np.asarray(jax.random.permutation(subset_key, n))[:m] if options["target_critics"] else np.arange(n)
        dropped = [slow.masks_of(k, j, dropout) if dropout else None for k, j in zip(drop_keys, (m, n, n), strict=True)]

        def alpha(x):
            return alpha_of(temperature and temperature.params, x, options)

        next_action, next_log_prob = slow.squashed(actor.params, next_obs, normal(next_key))
        next_q = slow.q_values(jax.tree.map(lambda x: x[chosen], target), next_obs, next_action, dropped[0]).min(0)
        y = reward + discount * (next_q - alpha(next_obs) * next_log_prob)

        def critic_loss(params):
            return 0.5 * (weights * (slow.q_values(params, obs, action, dropped[1]) - y) ** 2).sum(0).mean()

        q = slow.q_values(critics.params, obs, action, dropped[1])
        loss = critic_loss(critics.params)
        errors.append(np.abs(q - y).mean(0))
        critics.descend(critic_loss)
        fixed_alpha, noise = alpha(obs), normal(action_key)
        metrics.append([loss, q.mean(), -next_log_prob.mean(), np.mean(fixed_alpha)])

        def actor_loss(params):
            drawn, log_prob = slow.squashed(params, obs, noise)
            values = over(slow.q_values(critics.params, obs, drawn, dropped[2]), axis=0)
            return (fixed_alpha * log_prob - values).mean()

        if count % options["policy_delay"] == 0:
            entropies = -slow.squashed(actor.params, obs, noise)[1]
            actor.descend(actor_loss)
            if temperature:
                aim = 2 * options["target_entropy"]
                temperature.descend(lambda x: (alpha_of(x, obs, options) * (entropies - aim)).mean())
        if count % options["target_update_every"] == 0:
            target = slow.moved(target, critics, options["tau"])
    return (actor, critics, temperature), target, np.mean(metrics, 0), np.concatenate(errors)


@pytest.mark.parametrize("name", CASES)
def test_update_against_numpy(updates, name):
    before, after, metrics = updates[name]
    networks, target, values, errors = reference(before, CASES[name])
    for network, params, state in zip(networks, after.params, after.opt_state, strict=True):
        if network is None:
            assert params == ()
            continue
        slow.close(params, network.params, atol=2e-4)
        assert state[0].count == network.steps
        slow.close(state[0].mu, network.unflat(network.m), rtol=1e-3, atol=2e-4)
    slow.close(after.target_params, target, atol=2e-4)
    found = [metrics[name] for name in ("critic_loss", "q_mean", "entropy", "temperature")]
    np.testing.assert_allclose(found, values, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(after.replay, errors, rtol=1e-3, atol=2e-4)


def test_policy_gradient_is_that_of_the_reparameterised_loss(updates):
    """With fixed noise, finite differences in float64 of E[alpha log pi(a | s) - min_i Q_i(s, a)] (equation 9)."""
    before, after, _ = updates["one step"]
    obs = slow.n_steps(slow.sample(), 1)[0]
    [key] = slow.step_keys(UPDATE_KEY, 1)
    noise = normal(jax.random.split(key, 6)[1])
    theta, unflat = slow.flat(before.params.actor)
    critics = slow.flat(after.params.critics)
    critics = critics[1](critics[0])

    def loss(vector):
        action, log_prob = slow.squashed(unflat(vector), obs, noise)
        alpha = np.exp(float(before.params.temperature))
        return (alpha * log_prob - slow.q_values(critics, obs, action).min(0)).mean()

    expected = slow.gradient(loss, theta)
    assert np.abs(expected).max() > 0.3
    slow.close(after.opt_state.actor[0].mu, unflat(0.1 * expected), rtol=1e-3, atol=1e-5)


def test_hard_replacement_copies(updates):
    """The last of the five steps is the ninth; targets were replaced after the eighth, the policy changed twice."""
    _, after, _ = updates["hard targets, 3 steps"]
    assert after.opt_state.actor[0].count == after.opt_state.temperature[0].count == 2
    assert after.opt_state.critics[0].count == STEPS


# ---------------------------------------------------------------- entropy on a bandit

# One step, observation 1 or -1, two actions, reward -c |a|^2 / 2 with a c for each observation.
SHARP = {1: 20.0, -1: 2.0}
OBSERVATIONS = jnp.array([[1.0], [-1.0]])


def bandit():
    def reset(key):
        obs = jnp.where(jax.random.bernoulli(key), 1.0, -1.0).reshape(1)
        return obs, obs

    def step(key, obs, action):
        sharpness = jnp.where(obs[0] > 0, SHARP[1], SHARP[-1])
        return obs, Outcome(obs, -0.5 * sharpness * jnp.sum(action**2), jnp.bool(True), jnp.bool(False))

    return Env(reset, step, Spec("Bandit-v0", box(-1, 1, (1,)), box(-1, 1, (2,)), 1))


TARGETS = np.array([-0.7, -0.5, 0.0, 0.4], np.float32)  # for each of the two actions; at most log 2 = 0.69 is possible
MODES = {"auto": 1e-2, "state": 2e-3}  # and how fast each is learnt


@pytest.fixture(scope="module")
def entropies():
    """After training: the entropy in either state, `[target, state]`, and temperatures, `[target, update]`."""

    def run(target, mode, key):
        agent = sac(
            temperature=mode, target_entropy=target, hidden_sizes=(16,), num_envs=16, replay_ratio=0.25, tau=0.05,
            warmup_steps=160, batch_size=64, replay_size=8_000, actor_learning_rate=5e-3, critic_learning_rate=1e-2,
            temperature_learning_rate=MODES[mode],
        )  # fmt: skip
        state, metrics = train(key, agent, bandit(), 20_000)
        policy = SquashedGaussian(MLP((16,), "relu"), 2).apply(state.agent.params.actor, OBSERVATIONS)
        _, log_prob = policy.sample_and_log_prob(seed=jax.random.key(9), sample_shape=4000)
        return -log_prob.mean(0), metrics["temperature"]

    keys = jax.random.split(jax.random.key(3), len(TARGETS))
    return jax.device_get(
        jax.jit(lambda: {mode: jax.vmap(lambda t, k, m=mode: run(t, m, k))(TARGETS, keys) for mode in MODES})()
    )


@pytest.mark.optimized
@pytest.mark.parametrize("mode", MODES)
def test_a_learnt_temperature_leads_to_its_target_entropy(entropies, mode):
    """As a mean over states; a temperature for each state leads there in each of them."""
    found, temperatures = entropies[mode]
    np.testing.assert_allclose(found.mean(1), 2 * TARGETS, atol=0.25)
    assert (np.diff(temperatures[:, -200:].mean(1)) > 0).all()  # more entropy takes more of it
    apart = found[:, 1] - found[:, 0]
    if mode == "state":
        assert np.abs(apart).max() < 0.6, found
    else:
        assert (apart > 0.7).all(), found


# ---------------------------------------------------------------- acting

NUM_ENVS = 3000


@pytest.fixture(scope="module")
def acts():
    """What it does in one state: greedily, in the warm-up and after it; and its parameters."""

    def run():
        agent = sac(warmup_steps=100, batch_size=10, hidden_sizes=(HIDDEN,))
        params = slow.drawn_like(slow.shapes(agent).params, 2, scale=0.4)
        state = slow.zeros(agent)._replace(params=params)
        obs = jnp.broadcast_to(jnp.array([0.3, -0.7]), (NUM_ENVS, 2))
        greedy, memory, extras = agent.act(state, (), obs, jax.random.key(1), 0, explore=False)
        assert (memory, extras) == ((), {})
        other = agent.act(state, (), obs, jax.random.key(2), 0, explore=False)[0]
        return params, greedy, other, [agent.act(state, (), obs, jax.random.key(i), i)[0] for i in (0, 99, 100)]

    return jax.device_get(jax.jit(run)())


def test_exploiting_is_the_gaussians_mean_squashed(acts):
    params, greedy, other, _ = acts
    mean = slow.output(params.actor, np.array([[0.3, -0.7]]))[:, :2]
    np.testing.assert_allclose(greedy, np.repeat(np.tanh(mean) * [2, 5] + [0, 5], NUM_ENVS, 0), atol=1e-5)
    np.testing.assert_array_equal(greedy, other)


def test_exploring_draws_uniformly_and_then_from_the_policy(acts):
    params, _, _, explored = acts
    for action in explored[:2]:
        spread = (action - BOUNDS[0]) / (BOUNDS[1] - BOUNDS[0])
        assert all(scipy.stats.kstest(x, "uniform").pvalue > 1e-3 for x in spread.T)
    mean, log_std = np.split(slow.output(params.actor, np.array([[0.3, -0.7]]))[0], 2)
    normal = (np.arctanh((explored[2] - [0, 5]) / [2, 5]) - mean) / np.exp(log_std)
    assert all(scipy.stats.kstest(x, "norm").pvalue > 1e-3 for x in normal.T)
    assert abs(np.corrcoef(normal.T)[0, 1]) < 5 / np.sqrt(NUM_ENVS)


# ---------------------------------------------------------------- presets, and errors


@pytest.mark.parametrize(("constructor", "ensemble"), [(redq, 10), (droq, 2)], ids=["redq", "droq"])
def test_presets_change_the_policy_once_in_twenty_steps(constructor, ensemble):
    """Gradient steps 0 to 18 leave policy and temperature alone, and number 19 changes both, once; critics and their
    targets move in each."""

    def run(num):
        agent = constructor(**slow.SIZES, replay=slow.always(slow.sample(), num), replay_ratio=num)
        zeros = slow.zeros(agent)
        state = zeros._replace(params=slow.drawn_like(zeros.params, 0), target_params=slow.drawn_like(zeros[2], 1))
        rows = jax.tree.map(lambda x: jnp.asarray(x[:1, :1]), slow.sample().steps)
        return state, agent.update(state, rows, UPDATE_KEY, jnp.int32(0))[0]

    before_and_after = jax.device_get(jax.jit(lambda: (run(19), run(20)))())
    for (before, after), turns in zip(before_and_after, (0, 1), strict=True):
        assert [int(state[0].count) for state in after.opt_state] == [turns, 19 + turns, turns]
        moved = [
            max(jax.tree.leaves(jax.tree.map(lambda x, y: np.abs(x - y).max(), x, y)))
            for x, y in zip((*before.params, before.target_params), (*after.params, after.target_params), strict=True)
        ]
        assert [m > 0 for m in moved] == [bool(turns), True, bool(turns), True]
        assert len(after.params.critics["params"]["output"]["bias"]) == ensemble


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
        sac().init(jax.random.key(0), SPEC._replace(action_space=space))
    assert all(word in str(error.value) for word in ("sac: Fake-v0", *words)), error.value
