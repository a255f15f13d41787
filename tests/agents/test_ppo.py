"""PPO: updates against NumPy in float64, what a minibatch holds, how it acts, and what it refuses."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from slow_actor_critic import Adam, dense, descend, flat, log_prob_and_entropy, slow_gae, value_of

from jaxrl import JaxrlError, init_train, make, ppo, train_step
from jaxrl.learning import actor_critic
from jaxrl.learning.action_scale import to_action_space
from jaxrl.networks import make_actor_critic
from jaxrl.types import Discrete, Spec, Transition, box

DISCRETE = Spec("Fake-v0", box(-1, 1, (2,)), Discrete(3))
CONTINUOUS = DISCRETE._replace(action_space=box([-2, 0], [2, 4], (2,)))
SPECS = {"discrete": DISCRETE, "continuous": CONTINUOUS}
LENGTH, NUM_ENVS = 4, 4

# ---------------------------------------------------------------- an update, against NumPy in float64


def objective(params, data, case):
    """The loss of Schulman et al. (2017), equation 9 with the sign turned, and what is reported of it."""
    obs, action, old_log_prob, old_value, advantage, target = data
    clip_eps = case["clip_eps"]
    log_prob, entropy = log_prob_and_entropy(params, obs, action)
    value = value_of(params, obs)
    if case["normalize_advantage"]:
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    ratio = np.exp(log_prob - old_log_prob)
    surrogates = []
    for r, a in zip(ratio, advantage, strict=True):
        surrogates.append(min(r, 1 + clip_eps) * a if a > 0 else max(r, 1 - clip_eps) * a)
    errors = (value - target) ** 2
    if case["clip_value_loss"]:
        errors = np.maximum(errors, (old_value + np.clip(value - old_value, -clip_eps, clip_eps) - target) ** 2)
    metrics = {
        "policy_loss": -np.mean(surrogates),
        "value_loss": np.mean(errors) / 2,
        "entropy": np.mean(entropy),
        "approx_kl": np.mean(ratio - 1 - np.log(ratio)),
        "clip_fraction": np.mean((ratio < 1 - clip_eps) | (ratio > 1 + clip_eps)),
    }
    total = metrics["policy_loss"] + case["value_coef"] * metrics["value_loss"]
    total += case.get("kl_coef", 0.0) * metrics["approx_kl"]  # equation 8
    return total - case["entropy_coef"] * metrics["entropy"], metrics


def reference_update(params, rows, case):
    """An update with one minibatch an epoch: its metrics, and the parameters after it, as a vector."""
    vector, unflat = flat(params)
    rows = jax.tree.map(lambda x: np.asarray(x, np.float64) if x.dtype == np.float32 else np.asarray(x), rows)
    values, next_values = value_of(unflat(vector), rows.obs), value_of(unflat(vector), rows.next_obs)
    advantages = slow_gae(rows, values, next_values, case["gamma"], case["gae_lambda"])
    targets = advantages + values
    data = (rows.obs, rows.extras["policy_action"], rows.extras["log_prob"], values, advantages, targets)
    data = [x.reshape(LENGTH * NUM_ENVS, *x.shape[2:]) for x in data]
    adam, reports = Adam(), []
    for _ in range(case["num_epochs"]):
        reports.append(objective(unflat(vector), data, case)[1])
        loss = lambda x: objective(unflat(x), data, case)[0]  # noqa: E731
        vector = descend(loss, vector, case["learning_rate"], case["max_grad_norm"], adam)
    metrics = {name: np.mean([report[name] for report in reports]) for name in reports[0]}
    metrics["explained_variance"] = 1 - np.var(targets - values) / np.var(targets)
    if "kl_coef" in case:
        metrics["kl_coef"] = case["kl_coef"]
        metrics["update_kl"] = objective(unflat(vector), data, case)[1]["approx_kl"]  # by the parameters after it
    return metrics, vector


COMMON = {"gamma": 0.8, "gae_lambda": 0.6, "clip_eps": 0.15, "learning_rate": 0.1, "num_epochs": 3}
COMMON |= {"entropy_coef": 0.2, "value_coef": 0.7}
CASES = {
    "clip, normalize": {"clip_value_loss": True, "normalize_advantage": True, "max_grad_norm": 100.0},
    "neither": {"clip_value_loss": False, "normalize_advantage": False, "max_grad_norm": 0.3},
    "shared, clip": {
        "clip_value_loss": True, "normalize_advantage": False, "max_grad_norm": 0.3, "shared_torso": True
    },
    "penalty": {"clip_value_loss": False, "normalize_advantage": True, "max_grad_norm": 100.0, "kl_coef": 0.5},
}  # fmt: skip
COMBINATIONS = [
    ("discrete", "clip, normalize"),
    ("discrete", "neither"),
    ("continuous", "shared, clip"),
    ("continuous", "neither"),
    ("discrete", "penalty"),
]


def fake_trajectory(kind, log_prob_of, off=0.5):
    """Random steps, with both kinds of ends; the old log-probabilities are off, so that ratios leave the clip."""
    rng = np.random.default_rng(1)
    lead = (LENGTH, NUM_ENVS)
    obs = rng.uniform(-1, 1, (*lead, 2)).astype(np.float32)
    policy_action = rng.integers(0, 3, lead) if kind == "discrete" else rng.normal(size=(*lead, 2)).astype(np.float32)
    ends = rng.integers(0, 6, lead)  # 0: terminated, 1: truncated
    log_prob = log_prob_of(obs, policy_action) + rng.uniform(-off, off, lead)
    return Transition(
        obs=obs,
        action=np.full_like(policy_action, 2),  # what the environment got; the loss must not look at it
        reward=rng.normal(size=lead).astype(np.float32),
        terminated=ends == 0,
        truncated=ends == 1,
        next_obs=rng.uniform(-1, 1, (*lead, 2)).astype(np.float32),
        extras={"policy_action": policy_action, "log_prob": log_prob.astype(np.float32)},
    )


def agent_of(case, **changes):
    sizes = {"num_envs": NUM_ENVS, "rollout_length": LENGTH, "num_minibatches": 1, "hidden_sizes": (3,)}
    return ppo(**(sizes | COMMON | CASES[case] | changes))


@pytest.fixture(scope="module")
def updates():
    """Every combination, out of one compiled call: the trajectory, and parameters and metrics of the update."""
    states, trajectories = {}, {}
    for kind, case in COMBINATIONS:
        state = jax.jit(agent_of(case).init, static_argnums=1)(jax.random.key(0), SPECS[kind])
        # heads of some size: the policy's initial scale of 0.01 would leave nothing to see
        larger = lambda x: x + 0.3 * jnp.cos(jnp.arange(x.size)).reshape(x.shape)  # noqa: E731
        state = state._replace(params=jax.tree.map(larger, state.params))
        _, unflat = flat(state.params)
        params = unflat(flat(state.params)[0])
        states[kind, case] = state
        log_prob_of = lambda obs, action: log_prob_and_entropy(params, obs, action)[0]  # noqa: E731
        trajectories[kind, case] = fake_trajectory(kind, log_prob_of)

    @jax.jit
    def run(states, trajectories):
        def one(kind, case):
            state, trajectory = states[kind, case], trajectories[kind, case]
            after, metrics = agent_of(case).update(state, trajectory, jax.random.key(0), jnp.int32(0))
            return after.params, metrics

        return {combination: one(*combination) for combination in COMBINATIONS}

    results = jax.device_get(run(states, trajectories))
    return {c: (jax.device_get(states[c].params), trajectories[c], *results[c]) for c in COMBINATIONS}


@pytest.mark.parametrize(("kind", "case"), COMBINATIONS)
def test_update_against_numpy(updates, kind, case):
    before, trajectory, after, metrics = updates[kind, case]
    settings = COMMON | CASES[case]
    expected_metrics, expected = reference_update(before, trajectory, settings)
    assert set(metrics) == set(expected_metrics)
    for name, value in expected_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-3, atol=2e-4, err_msg=name)
    np.testing.assert_allclose(flat(after)[0], expected, atol=2e-3)
    assert np.median(np.abs(flat(after)[0] - flat(before)[0])) > 0.02
    # What each flag does can be seen in these numbers.
    for name in ("clip_value_loss", "normalize_advantage"):
        other, _ = reference_update(before, trajectory, settings | {name: not settings[name]})
        assert max(abs(other[k] - expected_metrics[k]) for k in other) > 5e-3, name
    assert 0.1 < expected_metrics["clip_fraction"] < 0.95


# ---------------------------------------------------------------- rows, and the learning rate


ROWS, SHUFFLES = 12, 5


@pytest.fixture(scope="module")
def epochs():
    """One epoch of four minibatches, for several rewards, keys, steps and learning rates out of one compiled call.

    Each step is an episode of its own and gamma's factor is 0, so the target of a row is its own reward. The call gives
    the mean value loss and how far the parameters moved.
    """

    @jax.jit
    @jax.vmap
    def run(rewards, key, step, learning_rate):
        agent = ppo(
            num_envs=4,
            rollout_length=3,
            num_epochs=1,
            num_minibatches=4,
            learning_rate=learning_rate,
            anneal_steps=24,
            hidden_sizes=(2,),
        )
        state = agent.init(jax.random.key(0), DISCRETE)  # its biases are 0, so V(0) = 0
        ended, obs, zeros = jnp.ones((3, 4), bool), jnp.zeros((3, 4, 2)), jnp.zeros((3, 4))
        action = zeros.astype(jnp.int32)
        extras = {"policy_action": action, "log_prob": zeros}
        trajectory = Transition(obs, action, rewards.reshape(3, 4), ended, ~ended, obs, extras)
        after, metrics = agent.update(state, trajectory, key, step)
        moved = jax.flatten_util.ravel_pytree(after.params)[0] - jax.flatten_util.ravel_pytree(state.params)[0]
        return metrics["value_loss"], moved

    keys = jax.random.split(jax.random.key(1), SHUFFLES)
    outliers = 1000.0 * jnp.eye(ROWS)
    cases = [(outliers[row], key, 0, 1e-12) for row in range(ROWS) for key in keys]
    cases += [(jnp.arange(12.0) - 6, key, 0, 0.1) for key in keys]
    cases += [(jnp.arange(12.0) - 6, keys[0], step, 1e-5) for step in (0, 12, 23, 24, 1000)]
    rewards, keys, steps, rates = (jnp.stack(column) for column in zip(*cases, strict=True))
    losses, moved = jax.device_get(run(rewards, keys, steps, rates))
    first, second = ROWS * SHUFFLES, (ROWS + 1) * SHUFFLES
    return losses[:first].reshape(ROWS, SHUFFLES), moved[first:second], moved[second:]


def test_every_row_once_an_epoch(epochs):
    """With one outlier among the targets, the mean value loss of an epoch tells how often its row was used."""
    np.testing.assert_allclose(epochs[0], 0.5 * 1000.0**2 / ROWS, rtol=1e-4)


def test_another_key_shuffles_otherwise(epochs):
    assert len(np.unique(epochs[1], axis=0)) == SHUFFLES


def test_the_annealed_learning_rate(epochs):
    full, half, last, *none = epochs[2]
    assert np.abs(full).max() > 2e-5  # so small that Adam's four steps keep to one direction
    np.testing.assert_allclose(half, full / 2, atol=1e-6)
    np.testing.assert_allclose(last, full / 24, atol=3e-7)
    np.testing.assert_array_equal(none, 0.0)


# ---------------------------------------------------------------- the divergence: its penalty, and its limit


@pytest.fixture(scope="module")
def divergences():
    """Updates from one fake trajectory, one row for each of `CASES_OF_KL`, out of one compiled call.

    Returns the parameters before and the trajectory; and for each row the parameters after, the coefficient after, and
    the metrics.
    """
    state = agent_of("neither").init(jax.random.key(0), DISCRETE)
    _, unflat = flat(state.params)
    before = unflat(flat(state.params)[0])
    trajectory = fake_trajectory("discrete", lambda obs, action: log_prob_and_entropy(before, obs, action)[0], 0.0)

    def update(num_epochs, arguments, trajectory):
        agent = agent_of("neither", num_epochs=num_epochs, learning_rate=0.1, max_grad_norm=100.0, **arguments)
        state = agent.init(jax.random.key(0), DISCRETE)
        after, metrics = agent.update(state, trajectory, jax.random.key(0), jnp.int32(0))
        return after.params, after.kl_coef, metrics

    def run(rows, trajectory):
        traced = {
            epochs: jax.vmap(lambda row, epochs=epochs: update(epochs, row, trajectory))(rows) for epochs in (1, 3)
        }
        return traced, {epochs: update(epochs, {}, trajectory) for epochs in (1, 3)}

    keys = ("kl_coef", "kl_target", "max_kl")
    rows = dict(zip(keys, np.array(list(CASES_OF_KL.values()), np.float32).T, strict=True))
    traced, plain = jax.device_get(jax.jit(run)(rows, trajectory))
    found = {
        (name, epochs): jax.tree.map(lambda x, row=row: x[row], traced[epochs])
        for epochs in traced
        for row, name in enumerate(CASES_OF_KL)
    }
    return before, trajectory, found, plain


# Of an update with one epoch and with three: kl_coef, kl_target and max_kl. The divergence after one epoch is
# DIVERGENCE whatever kl_target is, since the penalty has no slope where the policies are the same.
DIVERGENCE = 0.01548
CASES_OF_KL = {
    "off": (0.0, 1e-3, 0.0),
    "limited": (0.0, 1e-3, 1e-9),
    "far above": (0.5, DIVERGENCE / 1.55, 0.0),
    "just above": (0.5, DIVERGENCE / 1.45, 0.0),
    "just below": (0.5, DIVERGENCE * 1.45, 0.0),
    "far below": (0.5, DIVERGENCE * 1.55, 0.0),
}


def test_a_limit_ends_the_update(divergences):
    """The first epoch begins at a divergence of 0 and goes through; what comes after it does not."""
    _, _, found, _ = divergences
    one, limited, all_three = (flat(found[case][0])[0] for case in (("off", 1), ("limited", 3), ("off", 3)))
    np.testing.assert_allclose(one, limited, atol=1e-7)
    assert np.abs(one - all_three).max() > 1e-3


def sampled_divergence(before, after, trajectory):
    """The mean of r - 1 - log r over the actions taken, in float64."""
    obs, action = np.asarray(trajectory.obs, np.float64), trajectory.extras["policy_action"]
    log_ratio = log_prob_and_entropy(after, obs, action)[0] - log_prob_and_entropy(before, obs, action)[0]
    return np.mean(np.exp(log_ratio) - 1 - log_ratio)


def test_the_penalty_follows_the_divergence_of_the_update(divergences):
    """Section 4: doubled where the policy went 1.5 times too far, halved where it went less than two thirds as far.

    With one epoch of one minibatch too, where the divergence before the only gradient step is 0.
    """
    before, trajectory, found, _ = divergences
    for (name, epochs), (params, coefficient, metrics) in found.items():
        _, unflat = flat(params)
        kl = sampled_divergence(before, unflat(flat(params)[0]), trajectory)
        np.testing.assert_allclose(metrics["update_kl"], kl, rtol=2e-3, err_msg=f"{name}, {epochs}")
        first, target, _ = CASES_OF_KL[name]
        factor = 2.0 if kl > 1.5 * target else 0.5 if kl < target / 1.5 else 1.0
        assert metrics["kl_coef"] == first
        assert coefficient == first * factor, (name, epochs)
    assert [float(found[name, 1][1]) for name in list(CASES_OF_KL)[2:]] == [1.0, 0.5, 0.5, 0.25]
    assert abs(found["far above", 1][2]["approx_kl"]) < 1e-7


def test_a_traced_0_is_no_penalty_and_no_limit(divergences):
    """As a sweep traces it, with 0 among its values: the coefficient stays 0, and the update is the one without."""
    _, _, found, plain = divergences
    for epochs in (1, 3):
        params, coefficient, metrics = found["off", epochs]
        assert coefficient == 0
        np.testing.assert_allclose(flat(params)[0], flat(plain[epochs][0])[0], atol=1e-6)
        for name, value in plain[epochs][2].items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_penalty_stays_where_the_divergence_is_near_its_target():
    """Between two thirds and three halves of it: of many targets, in rising order, the low ones double the coefficient,
    those in a band whose ends are apart by a factor of 2.25 leave it, and the high ones halve it."""
    targets = np.geomspace(1e-7, 10.0, 1200).astype(np.float32)
    params = agent_of("neither").init(jax.random.key(0), DISCRETE).params
    unflat = flat(params)[1]
    log_prob = lambda obs, action: log_prob_and_entropy(unflat(flat(params)[0]), obs, action)[0]  # noqa: E731
    trajectory = jax.tree.map(jnp.asarray, fake_trajectory("discrete", log_prob, 0.0))

    @jax.jit
    @jax.vmap
    def coefficient(kl_target):
        agent = agent_of("neither", learning_rate=0.01, num_epochs=3, kl_coef=0.5, kl_target=kl_target)
        state = agent.init(jax.random.key(0), DISCRETE)
        return agent.update(state, trajectory, jax.random.key(0), jnp.int32(0))[0].kl_coef

    found = np.asarray(coefficient(targets))
    assert set(found) == {1.0, 0.5, 0.25}
    assert (np.diff(found) <= 0).all()
    assert abs((found == 0.5).sum() - np.log(2.25) / np.log(targets[1] / targets[0])) <= 2


# ---------------------------------------------------------------- the critic's own scale


def test_under_pop_art_the_stored_values_are_what_the_moved_network_says():
    """Before the first gradient step they are its outputs, and so is what the value's clip is around."""
    agent = agent_of("neither", pop_art=True, pop_art_rate=0.5)
    network = make_actor_critic("ppo", DISCRETE, "mlp", (3,), "tanh")
    rows = fake_trajectory("discrete", lambda obs, action: np.zeros(action.shape[:2], np.float32))
    rows = jax.tree.map(jnp.asarray, rows)._replace(reward=100.0 + 50.0 * rows.reward)

    @jax.jit
    def run(key):
        state = agent.init(key, DISCRETE)
        moved = actor_critic.make_batch(network, state.params, state.scale, rows, 0.8, 0.6, 0.5)
        plain = actor_critic.make_batch(network, state.params, (), rows, 0.8, 0.6, 0.5)
        return moved, plain, actor_critic.policy_and_value(network, moved[0], moved[2])[1]

    (_, scale, batch, _), (_, _, plain, _), said = jax.device_get(run(jax.random.key(0)))
    assert abs(scale.mean) > 10
    np.testing.assert_allclose(batch.value, said, atol=1e-4)
    sigma = np.sqrt(scale.var)
    np.testing.assert_allclose(batch.value * sigma + scale.mean, plain.value, atol=1e-2)
    np.testing.assert_allclose(batch.target * sigma + scale.mean, plain.target, rtol=1e-4)
    np.testing.assert_allclose(batch.advantage * sigma, plain.advantage, rtol=1e-4)


# ---------------------------------------------------------------- memory


def test_what_the_loss_sees_is_what_acted():
    """With sequences across episodes' ends and updates, the policy of the loss is the one that acted."""
    env = make("jaxrl/Probe-truncation-v0")

    def run(cell, shared_torso):
        agent = ppo(
            cell=cell, cell_size=3, shared_torso=shared_torso, num_envs=4, rollout_length=7, num_minibatches=2,
            num_epochs=1, learning_rate=1e-9, hidden_sizes=(3,),
        )  # fmt: skip
        state = init_train(jax.random.key(0), agent, env)
        louder = jax.tree.map(lambda x: 3 * x + 0.5 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), state.agent.params)
        state = state._replace(agent=state.agent._replace(params=louder))
        return jax.lax.scan(lambda state, _: train_step(state, agent, env), state, length=3)[1]

    metrics = jax.jit(lambda: run("lstm", shared_torso=True))()
    assert metrics["approx_kl"].max() < 1e-8
    assert metrics["entropy"].min() < 0.69


# ---------------------------------------------------------------- acting


def test_actions_keep_to_their_bounds():
    """Drawn widely, what the environment gets lies within the bounds and reaches both; the loss keeps the raw draw."""
    agent = ppo(hidden_sizes=(3,))
    state = agent.init(jax.random.key(0), CONTINUOUS)
    state.params["params"]["head"]["log_std"] = jnp.array([1.0, 0.0])
    obs = jax.random.uniform(jax.random.key(1), (500, 2))
    act = jax.jit(lambda key: agent.act(state, (), obs, key, 0))
    action, memory, extras = act(jax.random.key(2))
    space = CONTINUOUS.action_space
    assert memory == ()
    np.testing.assert_array_equal(action.min(0), space.low)
    np.testing.assert_array_equal(action.max(0), space.high)
    raw = np.asarray(extras["policy_action"])
    np.testing.assert_allclose(action, np.clip(raw, -1, 1) * 2 + np.array([0, 2]), atol=1e-5)
    _, unflat = flat(state.params)
    log_prob, _ = log_prob_and_entropy(unflat(flat(state.params)[0]), np.asarray(obs, np.float64), raw)
    np.testing.assert_allclose(extras["log_prob"], log_prob, rtol=1e-4, atol=1e-4)
    assert abs(raw[:, 0].std() - np.e) < 0.4
    assert abs(raw[:, 1].std() - 1) < 0.15


def test_to_action_space():
    policy = jnp.array([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0], [-9.0, 9.0], [0.5, -0.5]])
    expected = [[-2, 0], [0, 2], [2, 4], [-2, 4], [1, 1]]
    np.testing.assert_allclose(to_action_space(policy, CONTINUOUS.action_space), expected)
    np.testing.assert_allclose(to_action_space(policy, box(-np.inf, np.inf, (2,))), policy)
    half_bounded = to_action_space(policy, box([-np.inf, 0], np.inf, (2,)))
    np.testing.assert_allclose(half_bounded, [[-1, 0], [0, 0], [1, 1], [-9, 9], [0.5, 0]])
    assert to_action_space(jnp.int32(2), Discrete(3)) == 2


def test_discrete_actions_are_drawn_from_the_policy():
    agent = ppo(hidden_sizes=(3,))
    state = agent.init(jax.random.key(0), DISCRETE)
    state.params["params"]["head"]["output"]["bias"] = jnp.log(jnp.array([0.2, 0.7, 0.1]))
    state.params["params"]["head"]["output"]["kernel"] *= 0.0
    obs = jnp.ones((5000, 2))
    action, _, extras = jax.jit(lambda key: agent.act(state, (), obs, key, 0))(jax.random.key(3))
    counts = np.bincount(np.asarray(action), minlength=3)
    assert scipy.stats.chisquare(counts, 5000 * np.array([0.2, 0.7, 0.1])).pvalue > 1e-3
    np.testing.assert_allclose(np.exp(extras["log_prob"]), np.array([0.2, 0.7, 0.1])[action], rtol=1e-5)
    np.testing.assert_array_equal(extras["policy_action"], action)


@pytest.mark.parametrize("kind", SPECS)
def test_greedy_actions_are_the_mode(kind):
    agent, spec = ppo(hidden_sizes=(3,)), SPECS[kind]
    state = agent.init(jax.random.key(0), spec)
    obs = jax.random.uniform(jax.random.key(1), (50, 2), minval=-1.0)
    _, unflat = flat(state.params)
    params = unflat(flat(state.params)[0])
    output = dense(params["head"]["output"], np.tanh(dense(params["torso"]["Dense_0"], np.asarray(obs, np.float64))))
    expected = output.argmax(-1) if kind == "discrete" else np.clip(output, -1, 1) * 2 + np.array([0, 2])
    act = jax.jit(lambda key: agent.act(state, (), obs, key, 0, explore=False)[0])
    for seed in (0, 1):
        np.testing.assert_allclose(act(jax.random.key(seed)), expected, atol=1e-5)


# ---------------------------------------------------------------- options


def test_a_shared_torso_has_fewer_parameters():
    def size(agent):
        state = jax.eval_shape(lambda key: agent.init(key, DISCRETE), jax.random.key(0))
        return sum(x.size for x in jax.tree.leaves(state.params))

    torso, heads = 2 * 8 + 8, (8 * 3 + 3) + (8 + 1)
    assert size(ppo(hidden_sizes=(8,))) == 2 * torso + heads
    assert size(ppo(hidden_sizes=(8,), shared_torso=True)) == torso + heads


def test_normalized_observations_and_rewards():
    """Both run together, and what they scale by is part of the state."""
    env = make("jaxrl/Probe-truncation-v0")
    agent = ppo(
        normalize_observations=True, normalize_rewards=True, num_envs=2, rollout_length=4, num_minibatches=2,
        num_epochs=1, hidden_sizes=(2,),
    )  # fmt: skip

    def run(key):
        state = init_train(key, agent, env)
        return jax.lax.scan(lambda state, _: train_step(state, agent, env), state, length=3)

    state, metrics = jax.jit(run)(jax.random.key(0))
    assert state.first_bad_step == -1
    assert float(state.agent.statistics.count) == 3 * 8
    np.testing.assert_allclose(state.agent.statistics.mean, [1.0])
    assert float(state.agent.agent.statistics.mean) > 1  # of discounted returns, at most five rewards of 1
    np.testing.assert_array_equal(metrics["episode_return"][1:], 5.0)  # raw


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (lambda: ppo(num_minibatches=3), ["ppo: num_minibatches=3", "num_envs * rollout_length", "512"]),
        (lambda: ppo(cell="gru", num_envs=4, num_minibatches=8), ["ppo: num_minibatches=8", "num_envs=4", "sequences"]),
        (lambda: ppo(hidden_sizes=(0,)), ["ppo: hidden_sizes[0]=0"]),
        (lambda: ppo(torso="rnn").init(jax.random.key(0), DISCRETE), ["ppo: torso='rnn'"]),
        (lambda: ppo(torso="cnn").init(jax.random.key(0), DISCRETE), ["ppo: torso='cnn'", "Fake-v0", "(2,)"]),
        (
            lambda: ppo().init(jax.random.key(0), DISCRETE._replace(obs_space=Discrete(4))),
            ["ppo: Fake-v0", "Discrete(n=4)", "flatten_observations"],
        ),
        (
            lambda: ppo().init(jax.random.key(0), DISCRETE._replace(action_space=box(-1, 1, (2, 3)))),
            ["ppo: Fake-v0", "(2, 3)"],
        ),
    ],
    ids=["minibatches", "sequences", "hidden", "torso", "cnn", "integers", "matrices"],
)
def test_other_errors(case, words):
    with pytest.raises(JaxrlError) as error:
        case()
    assert all(word in str(error.value) for word in words), error.value
