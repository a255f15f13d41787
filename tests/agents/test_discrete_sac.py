"""Discrete SAC: gradient steps against NumPy, a soft value by hand, its entropy, how it acts, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow_off_policy as slow
from slow_off_policy import BATCH, HIDDEN, Network

from jaxrl import JaxrlError, train
from jaxrl.agents.off_policy.discrete_sac import discrete_sac
from jaxrl.networks import MLP, Policy, PolicyHead, make_discrete_critics
from jaxrl.types import Discrete, Env, Outcome, Spec, box

NUM_ACTIONS = 3
SPEC = slow.SPEC._replace(action_space=Discrete(NUM_ACTIONS))
RATES = {
    "actor_learning_rate": 0.02,
    "critic_learning_rate": 0.03,
    "temperature_learning_rate": 0.05,
    "tau": 0.3,
    "initial_temperature": 0.6,
    "target_entropy_ratio": 0.8,
}
STEPS = 5  # gradient steps of each update, the fifth to the ninth
CASES = {
    "twin": {},
    "three critics, mean": {"num_critics": 3, "critic_value": "mean", "target_update_every": 2},
    "hard targets, 3 steps": {"tau": 1.0, "n_step": 3, "target_update_every": 4},
    "normalised, a temperature of the state": {"layer_norm": True, "temperature": "state"},
    "fixed": {"temperature": "fixed", "final_temperature": 0.1, "temperature_steps": 4, "num_critics": 1},
}
UPDATE_KEY = jax.random.key(5)
DEFAULTS = {"num_critics": 2, "critic_value": "min", "target_update_every": 1, "n_step": 1, "temperature": "auto"}


def sample():
    """The shared stretches with discrete actions, all of which occur."""
    drawn = slow.sample()
    actions = (np.arange(BATCH * slow.LENGTH) % NUM_ACTIONS).reshape(BATCH, slow.LENGTH).astype(np.int32)
    return drawn._replace(steps=drawn.steps._replace(action=actions))


def shapes(agent, spec=SPEC):
    return jax.eval_shape(lambda: agent.init(jax.random.key(0), spec))


def update_of(arguments):
    """The states before and after an update on one batch, parameters at random, and its metrics."""
    agent = discrete_sac(**slow.SIZES, **RATES | arguments, replay=slow.always(sample(), STEPS), replay_ratio=STEPS)
    like = shapes(agent)
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    state = state._replace(params=slow.drawn_like(like.params, 0), target_params=slow.drawn_like(like.target_params, 3))
    trajectory = jax.tree.map(lambda x: jnp.asarray(x[:1, :1]), sample().steps)
    return state, *agent.update(state, trajectory, UPDATE_KEY, jnp.int32(slow.STEP))


@pytest.fixture(scope="module")
def updates():
    return jax.device_get(jax.jit(lambda: {name: update_of(arguments) for name, arguments in CASES.items()})())


def log_policy(params, obs):
    logits = slow.dense(params["params"]["head"]["output"], slow.hidden(params["params"]["torso"], obs))
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def all_q_values(params, obs):
    """One critic after the other: `[n, B, A]`."""
    rows = []
    for i in range(len(params["params"]["Dense_0"]["bias"])):
        one = jax.tree.map(lambda x: x[i], params["params"])
        rows.append(slow.dense(one["Dense_0"], slow.hidden(one["torso"], obs)))
    return np.stack(rows)


def expected(log_pi, values):
    """The sum over actions, one state and one action at a time."""
    rows = zip(log_pi, values, strict=True)
    return np.array([sum(np.exp(x) * v for x, v in zip(*row, strict=True)) for row in rows])


def alpha_of(params, obs, mode):
    if mode == "state":
        torso, head = params["params"]["torso"], params["params"]["value_head"]
        return 0.6 * np.exp(slow.dense(head, slow.hidden(torso, obs)))  # [B, 1]
    return np.full((BATCH, 1), np.exp(params) if mode == "auto" else 0.6 + slow.STEP / 4 * (0.1 - 0.6))


def reference(state, arguments):
    """What an update does: networks, target parameters, metrics and errors."""
    options = DEFAULTS | RATES | arguments
    mode, over = options["temperature"], {"min": np.min, "mean": np.mean}[options["critic_value"]]
    actor, critics, temperature = (
        Network(params, options[f"{name}_learning_rate"]) if jax.tree.leaves(params) else None
        for params, name in zip(state.params, ("actor", "critic", "temperature"), strict=True)
    )
    target = slow.flat(state.target_params)
    target = target[1](target[0])
    obs, _, reward, discount, next_obs = slow.n_steps(slow.sample(), options["n_step"])
    actions, weights = sample().steps.action[:, 0], slow.sample().weights.astype(np.float64)
    metrics, errors = [], []
    for i in range(STEPS):
        alphas, next_alphas = (alpha_of(temperature and temperature.params, x, mode) for x in (obs, next_obs))
        next_log_pi = log_policy(actor.params, next_obs)
        next_value = expected(next_log_pi, over(all_q_values(target, next_obs), 0) - next_alphas * next_log_pi)
        y = reward + discount * next_value  # equation 10

        def critic_loss(params):
            q = all_q_values(params, obs)[:, np.arange(BATCH), actions]
            return 0.5 * (weights * (q - y) ** 2).sum(0).mean()

        q = all_q_values(critics.params, obs)[:, np.arange(BATCH), actions]
        errors.append(np.abs(q - y).mean(0))
        metrics.append(
            [critic_loss(critics.params), q.mean(), expected(next_log_pi, -next_log_pi).mean(), alphas.mean()]
        )
        critics.descend(critic_loss)
        values = over(all_q_values(critics.params, obs), 0)
        log_pi = log_policy(actor.params, obs)
        entropies = expected(log_pi, -log_pi)

        def actor_loss(params):  # equation 12
            log_pi = log_policy(params, obs)
            return expected(log_pi, alphas * log_pi - values).mean()

        def temperature_loss(params):  # equation 11
            aim = options["target_entropy_ratio"] * np.log(NUM_ACTIONS)
            return (alpha_of(params, obs, mode)[:, 0] * (entropies - aim)).mean()

        actor.descend(actor_loss)
        if temperature:
            temperature.descend(temperature_loss)
        if (slow.STEP * STEPS + i + 1) % options["target_update_every"] == 0:
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
        assert state[0].count == network.steps == STEPS
        slow.close(state[0].mu, network.unflat(network.m), rtol=1e-3, atol=2e-4)
    slow.close(after.target_params, target, atol=2e-4)
    found = [metrics[name] for name in ("critic_loss", "q_mean", "entropy", "temperature")]
    np.testing.assert_allclose(found, values, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(after.replay, errors, rtol=1e-3, atol=2e-4)


def test_target_by_hand():
    """pi = (1/2, 1/4, 1/4), so H = 1.5 log 2; targets (4, 0, 2) and (2, 8, 1), least (2, 0, 1): V = 1.25 + alpha H.

    With reward 1, gamma = 0.7 and alpha = 2 / log 2: y = 1 + 0.7 * (1.25 + 3) = 3.975, against Q = (0, 5) for action 1.
    """
    single = jax.tree.map(lambda x: jnp.asarray(x[:1]), sample())
    steps = jax.tree.map(lambda x: x[:, :1], single.steps)._replace(
        reward=jnp.ones((1, 1)), action=jnp.ones((1, 1), jnp.int32), terminated=jnp.zeros((1, 1), bool)
    )
    replay = slow.always(sample(), 1)._replace(
        init=lambda trajectory, spec: jnp.zeros(1),
        sample=lambda state, key, step, length=1: single._replace(
            steps=steps, valid=jnp.ones((1, 1), bool), weights=jnp.ones(1)
        ),
        update=lambda state, indices, errors: errors,
    )
    alpha = 2 / np.log(2)
    agent = discrete_sac(**slow.SIZES, replay=replay, temperature="fixed", initial_temperature=alpha)

    def run():
        state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes(agent))
        state.params.actor["params"]["head"]["output"]["bias"] = jnp.log(jnp.array([2.0, 1.0, 1.0]))
        state.target_params["params"]["Dense_0"]["bias"] = jnp.array([[4.0, 0.0, 2.0], [2.0, 8.0, 1.0]])
        state.params.critics["params"]["Dense_0"]["bias"] = jnp.array([[9.0, 0.0, 9.0], [9.0, 5.0, 9.0]])
        return agent.update(state, jax.tree.map(lambda x: x[:1, :1], steps), UPDATE_KEY, jnp.int32(0))

    after, metrics = jax.device_get(jax.jit(run)())
    np.testing.assert_allclose(metrics["critic_loss"], 0.5 * (3.975**2 + 1.025**2), rtol=1e-5)
    np.testing.assert_allclose(metrics["entropy"], 1.5 * np.log(2), rtol=1e-5)
    np.testing.assert_allclose(after.replay, (3.975 + 1.025) / 2, rtol=1e-5)
    assert metrics["q_mean"] == 2.5


# ---------------------------------------------------------------- the networks


def test_an_ensemble_is_networks_of_their_own():
    """On images as well: parameters have the critics first, all differ, and each gives what it would give alone."""
    for space, torso in ((box(-1, 1, (2,)), "mlp"), (box(0, 1, (5, 5, 2)), "auto")):
        spec = SPEC._replace(obs_space=space)
        critics = make_discrete_critics("test", spec, torso, (HIDDEN,), "relu")
        obs = jax.random.uniform(jax.random.key(0), (7, 4, *space.shape))

        def run(critics=critics, obs=obs):
            params = critics(3).init(jax.random.key(1), obs)
            alone = [critics(1).apply(jax.tree.map(lambda x: x[i : i + 1], params), obs)[0] for i in range(3)]
            return params, critics(3).apply(params, obs), jnp.stack(alone)

        params, q, alone = jax.device_get(jax.jit(run)())
        assert q.shape == (3, 7, 4, NUM_ACTIONS)
        np.testing.assert_allclose(q, alone, rtol=1e-5, atol=1e-6)
        assert len({x.tobytes() for x in q}) == 3
        assert all(len(x) == 3 for x in jax.tree.leaves(params))


# ---------------------------------------------------------------- a bandit

# One step, observation 1 or -1, three actions; the best is the observation's own, by more or by less.
REWARDS = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.2]])
OBSERVATIONS = jnp.array([[1.0], [-1.0]])


def bandit():
    def reset(key):
        obs = jnp.where(jax.random.bernoulli(key), 1.0, -1.0).reshape(1)
        return obs, obs

    def step(key, obs, action):
        reward = REWARDS[jnp.where(obs[0] > 0, 0, 1), action]
        return obs, Outcome(obs, reward, jnp.bool(True), jnp.bool(False))

    return Env(reset, step, Spec("Bandit-v0", box(-1, 1, (1,)), Discrete(3), 1))


def test_entropy_and_policy_of_a_bandit():
    """A fixed temperature leads to softmax(r / alpha); a learnt one to its entropy, as a mean over states."""
    ratios, alphas = np.array([0.3, 0.6, 0.9], np.float32), np.array([0.2, 0.5], np.float32)
    sizes = {
        "hidden_sizes": (16,), "num_envs": 16, "replay_ratio": 0.25, "tau": 0.1, "warmup_steps": 160, "batch_size": 64,
        "replay_size": 8_000, "actor_learning_rate": 1e-2, "critic_learning_rate": 1e-2,
        "temperature_learning_rate": 1e-2,
    }  # fmt: skip

    def run(key, **arguments):
        state, metrics = train(key, discrete_sac(**sizes, **arguments), bandit(), 6_000)
        policy = Policy(MLP((16,), "relu"), PolicyHead(Discrete(3))).apply(state.agent.params.actor, OBSERVATIONS)
        return policy.probs, policy.entropy(), metrics["temperature"][-1]

    def both():
        keys = jax.random.split(jax.random.key(3), 5)
        learnt = jax.vmap(lambda ratio, key: run(key, target_entropy_ratio=ratio))(ratios, keys[:3])
        fixed = jax.vmap(lambda alpha, key: run(key, temperature="fixed", initial_temperature=alpha))(alphas, keys[3:])
        return learnt, fixed

    (_, entropies, temperatures), (probs, _, _) = jax.device_get(jax.jit(both)())
    np.testing.assert_allclose(entropies.mean(1), ratios * np.log(3), atol=0.06)
    assert np.all(np.diff(temperatures) > 0)
    best = np.exp(np.asarray(REWARDS) / alphas[:, None, None])
    np.testing.assert_allclose(probs, best / best.sum(-1, keepdims=True), atol=0.05)


# ---------------------------------------------------------------- acting

NUM_ENVS = 3000


def test_acting():
    """Greedily the likeliest action; in the warm-up uniformly, after it as the policy draws."""

    def run():
        agent = discrete_sac(warmup_steps=100, batch_size=10, hidden_sizes=(HIDDEN,))
        like = shapes(agent)
        state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
        state = state._replace(params=slow.drawn_like(like.params, 2, scale=1.5))
        obs = jnp.broadcast_to(jnp.array([0.3, -0.7]), (NUM_ENVS, 2))
        greedy, memory, extras = agent.act(state, (), obs, jax.random.key(1), 0, explore=False)
        assert (memory, extras) == ((), {})
        return state.params, greedy, [agent.act(state, (), obs, jax.random.key(i), i)[0] for i in (99, 100)]

    params, greedy, explored = jax.device_get(jax.jit(run)())
    probs = np.exp(log_policy(params.actor, np.array([[0.3, -0.7]]))[0])
    assert probs.max() - probs.min() > 0.2
    assert (greedy == probs.argmax()).all()
    for actions, wanted in zip(explored, (np.full(3, 1 / 3), probs), strict=True):
        assert actions.dtype == np.int32
        np.testing.assert_allclose(np.bincount(actions, minlength=3) / NUM_ENVS, wanted, atol=0.04)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"action_space": box(-1, 1, (2,))}, ["continuous actions", "discrete ones, or use sac"]),
        ({"obs_space": Discrete(4)}, ["Discrete(n=4)", "flatten_observations"]),
    ],
    ids=["continuous", "integers"],
)
def test_environments_that_do_not_fit(change, words):
    with pytest.raises(JaxrlError) as error:
        discrete_sac().init(jax.random.key(0), SPEC._replace(**change))
    assert all(word in str(error.value) for word in ("discrete_sac: Fake-v0", *words)), error.value
