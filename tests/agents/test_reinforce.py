"""REINFORCE: its estimators by hand, updates against NumPy in float64, how it acts, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from slow_actor_critic import dense, log_prob_and_entropy

from jaxrl import JaxrlError, init_train, make, train_step
from jaxrl.agents.policy_gradient.reinforce import reinforce
from jaxrl.learning.pop_art import PopArt
from jaxrl.types import Discrete, Spec, Transition, box

DISCRETE = Spec("Fake-v0", box(-1, 1, (2,)), Discrete(3))
CONTINUOUS = DISCRETE._replace(action_space=box([-2, 0], [2, 4], (2,)))
SPECS = {"discrete": DISCRETE, "continuous": CONTINUOUS}
LENGTH, NUM_ENVS = 6, 5

# When the episodes of each environment end (negative: truncated by the environment), and which of its steps count.
ENDS = [(), (2,), (-3, 6), (1, -2, 4), (-6,)]
COUNTS = np.array([[1] * 6, [1, 1, 0, 0, 0, 0], [1] * 6, [1, 1, 1, 1, 0, 0], [1] * 6], bool).T


# ---------------------------------------------------------------- by hand


def hand_trajectory():
    """Of one environment: 1, 3 and the end; 4, 8 and cut off by a time limit; 16 and still going on."""
    reward = jnp.array([1.0, 3.0, 4.0, 8.0, 16.0])[:, None]
    terminated, truncated = (jnp.arange(5)[:, None] == t for t in (1, 3))
    obs, action = jnp.zeros((5, 1, 2)), jnp.zeros((5, 1), jnp.int32)
    return Transition(obs, action, reward, terminated, truncated, obs, {"policy_action": action})


BY_HAND = {  # of the four steps that count
    ("reward_to_go", 0.5): [2.5, 3.0, 8.0, 8.0],
    ("reward_to_go", 1.0): [4.0, 3.0, 12.0, 8.0],
    ("total_return", 0.5): [2.5, 2.5, 8.0, 8.0],
    ("total_return", 1.0): [4.0, 4.0, 12.0, 12.0],
}


def test_estimators_by_hand():
    """Where observations are 0 the policy is the softmax of three biases: d log pi(0) / d bias = (2, -1, -1) / 3."""
    fixed = {"baseline": "none", "normalize_advantage": False, "num_envs": 1, "rollout_length": 5, "hidden_sizes": (1,)}

    def bias(estimator, gamma, trajectory):
        agent = reinforce(
            estimator=estimator, gamma=gamma, optimizer="sgd", learning_rate=1.0, max_grad_norm=1e6, **fixed
        )
        state = agent.init(jax.random.key(0), DISCRETE)
        after, _ = agent.update(state, trajectory, jax.random.key(1), jnp.int32(0))
        return after.params["params"]["head"]["output"]["bias"]

    found = jax.jit(lambda trajectory: [bias(*case, trajectory) for case in BY_HAND])(hand_trajectory())
    expected = [np.mean(advantages) * np.array([2, -1, -1]) / 3 for advantages in BY_HAND.values()]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# ---------------------------------------------------------------- an update, against NumPy in float64


def fake_trajectory(kind):
    rng = np.random.default_rng(3)
    lead = (LENGTH, NUM_ENVS)
    terminated, truncated, length = np.zeros(lead, bool), np.zeros(lead, bool), np.zeros(lead, np.int32)
    for n, ends in enumerate(ENDS):
        for end in ends:
            (terminated if end > 0 else truncated)[abs(end) - 1, n] = True
        for t in range(LENGTH):
            fresh = t == 0 or terminated[t - 1, n] or truncated[t - 1, n]
            length[t, n] = 1 if fresh else length[t - 1, n] + 1
    obs, next_obs = (rng.uniform(-1, 1, (*lead, 2)).astype(np.float32) for _ in range(2))
    action = rng.integers(0, 3, lead) if kind == "discrete" else rng.normal(size=(*lead, 2)).astype(np.float32)
    return Transition(
        obs=obs,
        action=np.full_like(action, 2),  # what the environment got; the loss must not look at it
        reward=rng.normal(size=lead).astype(np.float32) + 1,
        terminated=terminated,
        truncated=truncated,
        next_obs=next_obs,
        extras={"policy_action": action, "episode_length": length},
    )


def baseline_values(state, kind, obs, time):
    """Of one observation, after that many steps of its episode."""
    if kind == "none":
        return 0.0
    if kind == "linear":
        t = time / 100
        return float(np.array([*obs, *obs**2, t, t**2, t**3, 1.0]) @ state.weights)
    params = state.params["params"]
    return float(7.0 + 2.0 * dense(params["value_head"], np.tanh(dense(params["torso"]["Dense_0"], obs)))[0])


def slow_advantages(rows, state, case):
    """Sums over each episode that is seen whole, written out; and the targets of its values. 0 where nothing counts."""
    gamma, lambda_ = case["gamma"], case["gae_lambda"]
    values, advantages = np.zeros((LENGTH, NUM_ENVS)), np.zeros((LENGTH, NUM_ENVS))
    for n, ends in enumerate(ENDS):
        ends = [abs(end) for end in ends] or [LENGTH]
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            deltas = []
            for t in range(start, end):
                values[t, n] = baseline_values(state, case["baseline"], rows.obs[t, n], t - start)
                following = baseline_values(state, case["baseline"], rows.next_obs[t, n], t - start + 1)
                deltas.append(rows.reward[t, n] - values[t, n] + gamma * following * (not rows.terminated[t, n]))
            for t in range(start, end):
                rest = deltas[t - start :]
                advantages[t, n] = sum((gamma * lambda_) ** k * delta for k, delta in enumerate(rest))
    targets = advantages + values
    if case["estimator"] == "total_return":
        for n, ends in enumerate(ENDS):
            ends = [abs(end) for end in ends] or [LENGTH]
            for start, end in zip([0, *ends[:-1]], ends, strict=True):
                advantages[start:end, n] = advantages[start, n]
    return advantages, values, targets


def reference(params, baseline, rows, case):
    """The parameters after one step of gradient descent, as a vector; what is reported; and the baseline's targets."""
    rows = jax.tree.map(lambda x: np.asarray(x, np.float64) if x.dtype == np.float32 else np.asarray(x), rows)
    advantages, values, targets = slow_advantages(rows, baseline, case)
    advantages = advantages[COUNTS]
    if case["normalize_advantage"]:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    leaves, structure = jax.tree.flatten(params)
    vector = np.concatenate([x.ravel() for x in leaves]).astype(np.float64)

    def objective(vector):
        parts = np.split(vector, np.cumsum([x.size for x in leaves])[:-1])
        shaped = [part.reshape(x.shape) for part, x in zip(parts, leaves, strict=True)]
        unflat = jax.tree.unflatten(structure, shaped)
        log_prob, entropy = log_prob_and_entropy(unflat, rows.obs[COUNTS], rows.extras["policy_action"][COUNTS])
        policy_loss = -np.mean(advantages * log_prob)
        return policy_loss - case["entropy_coef"] * entropy.mean(), policy_loss, entropy.mean()

    units = np.eye(len(vector)) * 1e-6
    grads = np.array([(objective(vector + unit)[0] - objective(vector - unit)[0]) / 2e-6 for unit in units])
    grads *= min(1.0, case["max_grad_norm"] / np.linalg.norm(grads))
    _, policy_loss, entropy = objective(vector)
    explained = max(-1.0, 1 - np.var((targets - values)[COUNTS]) / np.var(targets[COUNTS]))
    metrics = {"policy_loss": policy_loss, "entropy": entropy, "explained_variance": explained}
    return vector - case["learning_rate"] * grads, metrics, targets


COMMON = {
    "learning_rate": 0.5,
    "optimizer": "sgd",
    "num_envs": NUM_ENVS,
    "rollout_length": LENGTH,
    "hidden_sizes": (3,),
}
CASES = {
    "plain": {"gamma": 0.7, "entropy_coef": 0.3, "normalize_advantage": False, "max_grad_norm": 100.0},
    "whitened": {"gamma": 0.9, "entropy_coef": 0.0, "normalize_advantage": True, "max_grad_norm": 100.0},
    "clipped": {"gamma": 1.0, "entropy_coef": 0.0, "normalize_advantage": False, "max_grad_norm": 0.2},
}
COMBINATIONS = [
    ("discrete", "plain", "reward_to_go", "none", 1.0),
    ("discrete", "whitened", "total_return", "none", 1.0),
    ("continuous", "plain", "reward_to_go", "linear", 1.0),
    ("discrete", "clipped", "total_return", "linear", 1.0),
    ("continuous", "whitened", "reward_to_go", "network", 0.6),
    ("discrete", "plain", "total_return", "network", 0.8),
]


def name_of(combination):
    return ", ".join(map(str, combination))


def settings(case, estimator, baseline, gae_lambda):
    return COMMON | CASES[case] | {"estimator": estimator, "baseline": baseline, "gae_lambda": gae_lambda}


@pytest.fixture(scope="module")
def updates():
    """Every combination, out of one compiled call: states before and after the update, trajectory and metrics."""
    agents = {combination: reinforce(**settings(*combination[1:])) for combination in COMBINATIONS}
    before, trajectories = {}, {}
    for combination in COMBINATIONS:
        state = jax.jit(agents[combination].init, static_argnums=1)(jax.random.key(0), SPECS[combination[0]])
        # weights of some size: the policy's initial scale of 0.01 would leave nothing to see
        larger = lambda x: x + 0.3 * jnp.cos(jnp.arange(x.size)).reshape(x.shape)  # noqa: E731
        state = state._replace(params=jax.tree.map(larger, state.params))
        if combination[3] == "linear":
            state = state._replace(baseline=jax.tree.map(larger, state.baseline))
        if combination[3] == "network":  # values of mean 7 and deviation 2
            scale = PopArt(mean=jnp.float32(7), var=jnp.float32(2**2), unseen=jnp.float32(0.5))
            state = state._replace(baseline=state.baseline._replace(scale=scale))
        before[combination] = state
        trajectories[combination] = fake_trajectory(combination[0])

    @jax.jit
    def run(states, trajectories):
        return {c: agents[c].update(states[c], trajectories[c], jax.random.key(1), jnp.int32(0)) for c in COMBINATIONS}

    results = jax.device_get(run(before, trajectories))
    return {c: (jax.device_get(before[c]), trajectories[c], *results[c]) for c in COMBINATIONS}


@pytest.mark.parametrize("combination", COMBINATIONS, ids=name_of)
def test_update_against_numpy(updates, combination):
    before, trajectory, after, metrics = updates[combination]
    case = settings(*combination[1:])
    params, baseline = before.params["params"], before.baseline
    expected, expected_metrics, _ = reference(params, baseline, trajectory, case)
    assert set(metrics) == set(expected_metrics)
    for name, value in expected_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
    found, start = (np.concatenate([x.ravel() for x in jax.tree.leaves(p)]) for p in (after.params, params))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.abs(found - start).max() > 0.05
    # What each choice does can be seen in these numbers.
    other_estimator = {"reward_to_go": "total_return", "total_return": "reward_to_go"}[case["estimator"]]
    for change in (
        {"estimator": other_estimator},
        {"gamma": case["gamma"] - 0.3},
        {"normalize_advantage": not case["normalize_advantage"]},
        {"entropy_coef": case["entropy_coef"] + 5.0},
        {"max_grad_norm": 0.1},
    ):
        other, _, _ = reference(params, baseline, trajectory, case | change)
        assert np.abs(other - expected).max() > 4e-3, change


@pytest.mark.parametrize("combination", [c for c in COMBINATIONS if c[3] == "linear"], ids=name_of)
def test_a_linear_baseline_is_fitted_to_the_returns_that_count(updates, combination):
    before, trajectory, after, _ = updates[combination]
    _, _, targets = reference(before.params["params"], before.baseline, trajectory, settings(*combination[1:]))
    obs, time = trajectory.obs[COUNTS], trajectory.extras["episode_length"][COUNTS] - 1
    x = np.array([[*o, *o**2, t / 100, (t / 100) ** 2, (t / 100) ** 3, 1.0] for o, t in zip(obs, time, strict=True)])
    gram = x.T @ x / len(x)
    gram += 1e-5 * np.diag(np.diag(gram))
    expected = np.linalg.solve(gram, x.T @ targets[COUNTS] / len(x))
    np.testing.assert_allclose(x @ after.baseline.weights, x @ expected, atol=0.01)
    assert np.abs(x @ expected - x @ before.baseline.weights).mean() > 0.3


def test_a_network_is_fitted_to_the_returns_that_count(updates):
    """Its scale goes to the mean of the targets, of which 8192 are drawn."""
    for combination in [c for c in COMBINATIONS if c[3] == "network"]:
        before, trajectory, after, _ = updates[combination]
        case = settings(*combination[1:])
        _, _, targets = reference(before.params["params"], before.baseline, trajectory, case)
        old, new = before.baseline.scale, after.baseline.scale
        rate = 0.1 / (1 - 0.5 * 0.9)
        np.testing.assert_allclose(new.mean, old.mean + rate * (targets[COUNTS].mean() - old.mean), atol=0.02)
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before.baseline.params, after.baseline.params)
        assert min(jax.tree.leaves(moved)) > 1e-3


# ---------------------------------------------------------------- acting


def act(agent, spec, obs, change=lambda head: head):
    """A function of the key and of `explore`."""
    state = agent.init(jax.random.key(0), spec)
    params = state.params["params"]
    state = state._replace(params={"params": params | {"head": change(params["head"])}})
    return jax.jit(lambda key, explore: agent.act(state, (), obs, key, 0, explore=explore), static_argnums=1), state


def test_continuous_actions_keep_to_their_bounds():
    """Drawn widely, what the environment gets lies within the bounds and reaches both; the loss keeps the raw draw."""
    wide = lambda head: head | {"log_std": jnp.array([1.0, 0.0])}  # noqa: E731
    obs = jnp.zeros((500, 2))
    draw, _ = act(reinforce(hidden_sizes=(3,)), CONTINUOUS, obs, wide)
    action, memory, extras = draw(jax.random.key(2), True)
    assert memory == ()
    raw = np.asarray(extras["policy_action"])
    np.testing.assert_allclose(action, np.clip(raw, -1, 1) * 2 + np.array([0, 2]), atol=1e-5)
    np.testing.assert_allclose(raw.std(axis=0), [np.e, 1], rtol=0.15)
    greedy = draw(jax.random.key(3), False)[0]
    np.testing.assert_allclose(greedy, np.broadcast_to([0.0, 2.0], (500, 2)), atol=1e-5)


def test_discrete_actions_are_drawn_from_the_policy():
    chances = np.array([0.2, 0.7, 0.1])
    biased = lambda head: {"output": {"kernel": jnp.zeros((3, 3)), "bias": jnp.log(chances)}}  # noqa: E731
    draw, _ = act(reinforce(hidden_sizes=(3,)), DISCRETE, jnp.ones((5000, 2)), biased)
    action, _, extras = draw(jax.random.key(3), True)
    assert scipy.stats.chisquare(np.bincount(action, minlength=3), 5000 * chances).pvalue > 1e-3
    np.testing.assert_array_equal(extras["policy_action"], action)
    assert np.all(draw(jax.random.key(3), False)[0] == 1)


# ---------------------------------------------------------------- options


def test_it_learns_from_new_episodes_and_scales_what_it_sees():
    """Every trajectory begins an episode, also where the one before it was cut off; all options run together."""
    env = make("jaxrl/Probe-truncation-v0")
    agent = reinforce(
        normalize_observations=True, normalize_rewards=True, baseline="linear", num_envs=2, rollout_length=8,
        hidden_sizes=(2,), anneal_steps=100,
    )  # fmt: skip
    assert agent.episodic

    def run(key):
        state = init_train(key, agent, env)
        return jax.lax.scan(lambda state, _: train_step(state, agent, env), state, length=3)

    state, metrics = jax.jit(run)(jax.random.key(0))
    assert state.first_bad_step == -1
    np.testing.assert_array_equal(metrics["episode_count"], 2)  # five steps of eight; the rest is broken off
    np.testing.assert_array_equal(metrics["episode_return"], 5.0)  # raw
    assert float(state.agent.statistics.count) == 3 * 16
    assert float(state.agent.agent.statistics.mean) > 1  # of discounted returns


def test_the_annealed_learning_rate():
    agent = reinforce(
        optimizer="sgd", anneal_steps=10, baseline="none", num_envs=1, rollout_length=5, hidden_sizes=(1,)
    )
    state = agent.init(jax.random.key(0), DISCRETE)

    @jax.jit
    @jax.vmap
    def moved(step):
        after, _ = agent.update(state, hand_trajectory(), jax.random.key(1), step)
        return jax.tree.map(lambda a, b: a - b, after.params, state.params)

    full, half, none = jax.tree.leaves(moved(jnp.array([0, 5, 10])))[0]
    assert np.abs(full).max() > 0
    np.testing.assert_allclose(half, full / 2, rtol=1e-5)
    np.testing.assert_array_equal(none, 0)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (lambda: reinforce(baseline="none", gae_lambda=0.9), ["reinforce: gae_lambda=0.9", "baseline='none'"]),
        (lambda: reinforce(hidden_sizes=(0,)), ["reinforce: hidden_sizes[0]=0"]),
        (lambda: reinforce(torso="rnn").init(jax.random.key(0), DISCRETE), ["reinforce: torso='rnn'"]),
        (
            lambda: reinforce().init(jax.random.key(0), DISCRETE._replace(obs_space=Discrete(4))),
            ["reinforce: Fake-v0", "Discrete(n=4)", "flatten_observations"],
        ),
        (
            lambda: reinforce().init(jax.random.key(0), DISCRETE._replace(action_space=box(-1, 1, (2, 3)))),
            ["reinforce: Fake-v0", "(2, 3)"],
        ),
    ],
    ids=["lambda", "hidden", "torso", "integers", "matrices"],
)
def test_other_errors(case, words):
    with pytest.raises(JaxrlError) as error:
        case()
    assert all(word in str(error.value) for word in words), error.value
