"""TRPO and the natural policy gradient: updates against NumPy in float64, the bound, which steps count, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from slow_actor_critic import slow_gae
from slow_policy import SlowPolicy, gradient

from jaxrl import JaxrlError, init_train, make, train_step
from jaxrl.agents.policy_gradient.trpo import episode_returns, npg, trpo
from jaxrl.constructors import parameters
from jaxrl.learning.baseline import make_baseline
from jaxrl.types import Discrete, Spec, Transition, box

DISCRETE = Spec("Fake-v0", box(-1, 1, (2,)), Discrete(3))
CONTINUOUS = DISCRETE._replace(action_space=box([-2, 0], [2, 4], (2,)))
SPECS = {"discrete": DISCRETE, "continuous": CONTINUOUS}


# Each environment's steps as text: "." for a step, "T" and "C" for one that terminates or is cut off by a time limit.
ENDS = [".T.C..", "......", "..TT..", "C....T"]
COUNTED = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]], bool).T
LENGTH, NUM_ENVS = COUNTED.shape


def fake_trajectory(kind, seed=1):
    rng = np.random.default_rng(seed)
    lead = (LENGTH, NUM_ENVS)
    terminated, truncated = (np.array([[c == end for c in row] for row in ENDS]).T for end in "TC")
    reward = rng.normal(size=lead).astype(np.float32)
    returns, lengths = np.zeros(lead, np.float32), np.zeros(lead, np.int32)
    for n in range(NUM_ENVS):
        total, count = 0.0, 0
        for t in range(LENGTH):
            total, count = total + reward[t, n], count + 1
            returns[t, n], lengths[t, n] = total, count
            if terminated[t, n] or truncated[t, n]:
                total, count = 0.0, 0
    action = rng.integers(0, 3, lead) if kind == "discrete" else rng.normal(size=(*lead, 2)).astype(np.float32)
    rows = Transition(
        obs=rng.uniform(-1, 1, (*lead, 2)).astype(np.float32),
        action=np.full_like(action, 2),  # what the environment got; the loss must not look at it
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        next_obs=rng.uniform(-1, 1, (*lead, 2)).astype(np.float32),
        extras={"policy_action": action, "episode_return": returns, "episode_length": lengths},
    )
    return jax.tree.map(jnp.asarray, rows)


# ---------------------------------------------------------------- an update, against NumPy in float64


COMMON = {"gamma": 0.8, "gae_lambda": 0.6, "damping": 0.3, "hidden_sizes": (3,), "log_std": -0.2, "cg_iterations": 40}
COMMON |= {"num_envs": NUM_ENVS, "rollout_length": LENGTH}
CASES = {
    "npg, bound": (npg, "discrete", {"max_kl": 0.05, "baseline": "linear"}),
    "npg, rate": (npg, "continuous", {"learning_rate": 0.3, "baseline": "none", "normalize_advantage": False}),
    "trpo, whole step": (trpo, "continuous", {"max_kl": 0.01}),
    "trpo, shortened": (trpo, "discrete", {"learning_rate": 30.0, "max_kl": 0.3, "backtrack_ratio": 0.7}),
    "trpo, refused": (trpo, "continuous", {"learning_rate": 1e3, "backtrack_steps": 3}),
}
DEFAULTS = {"learning_rate": 0.0, "max_kl": 0.01, "baseline": "network", "normalize_advantage": True}
DEFAULTS |= {"backtrack_ratio": 0.8, "backtrack_steps": 15}


def baseline_of(settings):
    return make_baseline("t", settings["baseline"], hidden_sizes=settings["hidden_sizes"])


def state_of(agent, kind):
    state = jax.jit(agent.init, static_argnums=1)(jax.random.key(0), SPECS[kind])
    # heads of some size: the policy's initial scale of 0.01 would leave nothing to see; and a baseline that knows
    larger = lambda x: x + 0.4 * jnp.cos(jnp.arange(x.size)).reshape(x.shape)  # noqa: E731
    baseline = state.baseline
    if hasattr(baseline, "params"):
        baseline = baseline._replace(params=jax.tree.map(larger, baseline.params))
    elif baseline != ():
        baseline = jax.tree.map(larger, baseline)
    return state._replace(params=jax.tree.map(larger, state.params), baseline=baseline)


@pytest.fixture(scope="module")
def updates():
    """Every case out of one compiled call: the state, the trajectory, the state after the update and its metrics."""
    agents = {name: make_agent(**(COMMON | changes)) for name, (make_agent, _, changes) in CASES.items()}
    states = {name: state_of(agents[name], kind) for name, (_, kind, _) in CASES.items()}
    trajectories = {kind: fake_trajectory(kind) for kind in SPECS}

    @jax.jit
    def run(states, trajectories):
        return {
            name: agents[name].update(states[name], trajectories[kind], jax.random.key(3), jnp.int32(0))
            for name, (_, kind, _) in CASES.items()
        }

    results = run(states, trajectories)
    return {name: (states[name], trajectories[kind], *results[name]) for name, (_, kind, _) in CASES.items()}


def fisher_matrix(policy, obs):
    """E[grad log pi grad log pi^T], over the states and every action."""
    total = 0
    for o in obs:
        for action, weight in policy.actions_and_weights(o):
            score = gradient(lambda flat, o=o, a=action: policy.log_prob(flat, o, a), policy.flat)
            total = total + weight * np.outer(score, score)
    return total / len(obs)


def slow_log_prob(policy, flat, obs, action):
    return np.array([policy.log_prob(flat, o, a) for o, a in zip(obs, action, strict=True)])


def slow_kls(policy, flat, obs):
    return np.array([policy.mean_kl(flat, o[None]) for o in obs])


def slow_entropy(policy, obs):
    """The mean of -log pi; for a Gaussian the sum over its nodes is exact."""
    found = [-sum(w * policy.log_prob(policy.flat, o, a) for a, w in policy.actions_and_weights(o)) for o in obs]
    return np.mean(found)


def reference_update(state, rows, settings, search):
    """Parameters after the update, targets of the baseline, and metrics."""
    values = baseline_of(settings).values(state.baseline, rows, state.spec)
    values, next_values = (np.asarray(x, np.float64) for x in values)
    rows = jax.device_get(rows)
    advantages = slow_gae(rows, values, next_values, settings["gamma"], settings["gae_lambda"])
    targets = advantages + values
    advantage, explained = advantages[COUNTED], 1 - np.var((targets - values)[COUNTED]) / np.var(targets[COUNTED])
    if settings["normalize_advantage"]:
        advantage = (advantage - advantage.mean()) / advantage.std()
    obs, action = rows.obs[COUNTED].astype(np.float64), rows.extras["policy_action"][COUNTED]
    policy = SlowPolicy(state.params)
    old_log_prob = slow_log_prob(policy, policy.flat, obs, action)
    loss = lambda flat: -np.mean(np.exp(slow_log_prob(policy, flat, obs, action) - old_log_prob) * advantage)  # noqa: E731
    fisher = fisher_matrix(policy, obs) + settings["damping"] * np.eye(len(policy.flat))
    direction = np.linalg.solve(fisher, -gradient(loss, policy.flat))
    size = settings["learning_rate"] or np.sqrt(2 * settings["max_kl"] / (direction @ fisher @ direction))
    backtracks, accepted, before = 0, 1, loss(policy.flat)
    new = policy.flat + size * direction
    if search:
        for backtracks in range(settings["backtrack_steps"] + 1):
            new = policy.flat + size * settings["backtrack_ratio"] ** backtracks * direction
            if loss(new) < before and slow_kls(policy, new, obs).mean() <= settings["max_kl"]:
                break
        else:
            new, accepted = policy.flat, 0
    kls, entropy = slow_kls(policy, new, obs), slow_entropy(policy, obs)
    last = COUNTED & (rows.terminated | rows.truncated | (np.arange(LENGTH) == LENGTH - 1)[:, None])
    returns = rows.extras["episode_return"][last]
    metrics = {
        "return_mean": returns.mean(),
        "return_std": returns.std(),
        "return_max": returns.max(),
        "return_min": returns.min(),
        "num_trajectories": 7,  # 2, 1, 2 and 2
        "entropy": entropy,
        "perplexity": np.exp(entropy),
        "explained_variance": max(-1, explained),
        "kl_mean": kls.mean(),
        "kl_max": kls.max(),
        "loss_before": before,
        "loss_after": loss(new),
        "backtracks": backtracks,
        "accepted": accepted,
    }
    return new, targets, metrics


@pytest.mark.parametrize("case", CASES)
def test_update_against_numpy(updates, case):
    state, rows, after, metrics = updates[case]
    make_agent, _, changes = CASES[case]
    settings = DEFAULTS | COMMON | changes
    expected, targets, expected_metrics = reference_update(state, rows, settings, make_agent is trpo)
    assert set(metrics) == set(expected_metrics)
    for name, value in expected_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-3, atol=2e-4, err_msg=name)
    found = SlowPolicy(after.params).flat
    np.testing.assert_allclose(found, expected, atol=5e-4)
    moved = np.abs(found - SlowPolicy(state.params).flat)
    if case == "trpo, refused":
        np.testing.assert_array_equal(moved, 0)
        assert (metrics["backtracks"], metrics["accepted"]) == (3, 0)
    else:
        assert moved.max() > 0.03
    assert metrics["backtracks"] >= (4 if case == "trpo, shortened" else 0)
    fitted = baseline_of(settings).fit(
        state.baseline, rows, jnp.float32(targets), jnp.array(COUNTED), jax.random.key(3), state.spec
    )
    for x, y in zip(jax.tree.leaves(after.baseline), jax.tree.leaves(fitted), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-3, atol=2e-3)


# ---------------------------------------------------------------- which steps count


def test_steps_that_do_not_count_change_nothing():
    """Episodes that are cut off without having had the whole horizon: the same update, whatever was in them."""
    agents = [make_agent(**COMMON | {"baseline": kind}) for make_agent, kind in ((trpo, "network"), (npg, "linear"))]

    @jax.jit
    def run(trajectory):
        results = []
        for agent in agents:
            state = agent.init(jax.random.key(0), DISCRETE)
            results.append(agent.update(state, trajectory, jax.random.key(1), jnp.int32(0)))
        return results

    first, other = fake_trajectory("discrete", seed=1), fake_trajectory("discrete", seed=2)

    def mixed(x, y, where):
        return np.where(where.reshape(where.shape + (1,) * (x.ndim - 2)), x, y)

    hidden = jax.tree.map(lambda x, y: jnp.array(mixed(x, y, COUNTED)), first, other)
    ran, hidden_ran = run(first), run(hidden)
    jax.tree.map(np.testing.assert_array_equal, ran, hidden_ran)
    seen = COUNTED.copy()
    seen[4, 1] = False  # of a step that does count
    ran_otherwise = run(jax.tree.map(lambda x, y: jnp.array(mixed(x, y, seen)), first, other))
    for (state, _), (changed, _) in zip(ran, ran_otherwise, strict=True):
        assert np.abs(ravel_pytree(state.params)[0] - ravel_pytree(changed.params)[0]).max() > 1e-3


def test_returns_of_the_episodes():
    rows = fake_trajectory("discrete")
    returns = np.zeros((LENGTH, NUM_ENVS))
    returns[[1, 3, 5, 2, 3, 0, 5], [0, 0, 1, 2, 2, 3, 3]] = [1, 2, 3, 4, 5, 6, 14]
    returns[[4, 5, 5], [0, 0, 2]] = 1e6  # cut off
    found = episode_returns(rows._replace(extras={"episode_return": jnp.array(returns)}), jnp.array(COUNTED))
    expected = {"return_mean": 5, "return_std": 4, "return_max": 14, "return_min": 1, "num_trajectories": 7}
    assert {name: float(x) for name, x in found.items()} == expected


def test_without_an_advantage_nothing_moves():
    """The gradient is 0, so there is no direction; every number stays finite, and the policy what it is."""
    agent = trpo(**COMMON | {"baseline": "none", "damping": 0.0})
    rows = fake_trajectory("continuous")

    @jax.jit
    def run(rows):
        state = agent.init(jax.random.key(0), CONTINUOUS)
        return state, *agent.update(state, rows, jax.random.key(1), jnp.int32(0))

    before, after, metrics = run(rows._replace(reward=jnp.zeros_like(rows.reward)))
    jax.tree.map(np.testing.assert_array_equal, before.params, after.params)
    assert all(np.isfinite(x) for x in metrics.values())
    assert (metrics["accepted"], metrics["kl_mean"], metrics["kl_max"]) == (0, 0, 0)


# ---------------------------------------------------------------- in the loop


@pytest.mark.parametrize("env_id", ["CartPole-v1", "jaxrl/Point-v0"])
def test_the_bound_holds(env_id):
    """Over real iterations and several hyper-parameters, all of which may be traced."""
    env, num = make(env_id), 6
    hyper_parameters = {
        "max_kl": jnp.array([0.001, 0.01, 0.01, 0.1, 0.5, 0.5]),
        "damping": jnp.array([0.1, 0.1, 1e-4, 1e-3, 1e-3, 0.0]),
        "learning_rate": jnp.array([0.0, 0.0, 0.0, 0.0, 0.0, 100.0]),
        "backtrack_ratio": jnp.array([0.8, 0.5, 0.8, 0.5, 0.6, 0.2]),
        "gamma": jnp.full(num, 0.9),
        "gae_lambda": jnp.linspace(0.5, 1, num),
        "log_std": jnp.linspace(-1, 0, num),
        "baseline_learning_rate": jnp.full(num, 1e-3),
    }

    @jax.jit
    @jax.vmap
    def run(hyper_parameters, key):
        agent = trpo(
            **hyper_parameters, num_envs=10, rollout_length=30, hidden_sizes=(4,), backtrack_steps=6,
            normalize_observations=True, normalize_rewards=True, baseline_num_steps=4, baseline_batch_size=32,
        )  # fmt: skip

        def one(state, _):
            new, metrics = train_step(state, agent, env)
            old_params, params = (ravel_pytree(s.agent.agent.agent.params)[0] for s in (state, new))
            return new, metrics | {"moved": jnp.abs(params - old_params).max()}

        return jax.lax.scan(one, init_train(key, agent, env), length=12)

    state, metrics = jax.device_get(run(hyper_parameters, jax.random.split(jax.random.key(0), num)))
    assert np.all(state.first_bad_step == -1)
    assert np.all(metrics["kl_mean"] <= np.float32(hyper_parameters["max_kl"])[:, None])
    assert np.all(metrics["kl_max"] >= metrics["kl_mean"])
    accepted = metrics["accepted"] == 1
    np.testing.assert_array_equal(metrics["moved"] > 0, accepted)
    assert np.all(metrics["kl_mean"][accepted] > 0)
    assert np.all(metrics["loss_after"] <= metrics["loss_before"])
    assert accepted[:3].mean() > 0.8
    assert metrics["backtracks"].max() > 0
    assert 0.2 < (metrics["kl_mean"] / hyper_parameters["max_kl"][:, None])[:2].mean() <= 1


def test_greedy_and_drawn_actions():
    """Drawn widely, actions keep to their bounds; the update is told the raw draw. Greedy ones are the mode."""
    agent = trpo(hidden_sizes=(3,), log_std=1.0)
    state = jax.jit(lambda key: agent.init(key, CONTINUOUS))(jax.random.key(0))
    obs = jax.random.uniform(jax.random.key(1), (500, 2))
    drawn, greedy = jax.jit(
        lambda key: [agent.act(state, (), obs, key, 0, explore=explore) for explore in (True, False)]
    )(jax.random.key(2))
    action, memory, extras = drawn
    raw, space = extras["policy_action"], CONTINUOUS.action_space
    assert memory == ()
    np.testing.assert_array_equal(action.min(0), space.low)
    np.testing.assert_array_equal(action.max(0), space.high)
    np.testing.assert_allclose(action, np.clip(raw, -1, 1) * 2 + np.array([0, 2]), atol=1e-5)
    assert np.all(np.abs(raw.std(0) - np.e) < 0.4)
    action, _, extras = greedy
    assert np.all(np.abs(extras["policy_action"]) < 0.1)
    np.testing.assert_allclose(action, extras["policy_action"] * 2 + np.array([0, 2]), atol=1e-5)


def test_npg_is_trpo_without_its_search():
    assert (npg().name, trpo().name) == ("npg", "trpo")
    assert trpo().episodic
    assert [parameters(agent)["line_search"].default for agent in (npg, trpo)] == [False, True]


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (lambda: npg(hidden_sizes=(0,)), ["npg: hidden_sizes[0]=0"]),
        (lambda: trpo(torso="rnn").init(jax.random.key(0), DISCRETE), ["trpo: torso='rnn'"]),
        (
            lambda: trpo().init(jax.random.key(0), DISCRETE._replace(obs_space=Discrete(4))),
            ["trpo: Fake-v0", "Discrete(n=4)", "flatten_observations"],
        ),
        (
            lambda: trpo().init(jax.random.key(0), DISCRETE._replace(action_space=box(-1, 1, (2, 3)))),
            ["trpo: Fake-v0", "(2, 3)"],
        ),
    ],
    ids=["hidden", "torso", "integers", "matrices"],
)
def test_other_errors(case, words):
    with pytest.raises(JaxrlError) as error:
        case()
    assert all(word in str(error.value) for word in words), error.value
