"""A2C: updates against NumPy in float64, the critic's own scale, memory, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow_actor_critic import Adam, descend, flat, log_prob_and_entropy, slow_gae, value_of

from jaxrl import JaxrlError, a2c, init_train, make, one_step_actor_critic, train_step
from jaxrl.networks import make_actor_critic
from jaxrl.types import Discrete, Spec, Transition, box

DISCRETE = Spec("Fake-v0", box(-1, 1, (2,)), Discrete(3))
SPECS = {"discrete": DISCRETE, "continuous": DISCRETE._replace(action_space=box([-2, 0], [2, 4], (2,)))}
SIZES = {"num_envs": 4, "rollout_length": 4, "hidden_sizes": (3,)}
COMMON = {"gamma": 0.8, "learning_rate": 0.1, "entropy_coef": 0.2, "value_coef": 0.7}
CASES = {
    "n steps": ("discrete", {"gae_lambda": 1.0, "max_grad_norm": 100.0, "optimizer": "rmsprop"}),
    "one step": ("discrete", {"gae_lambda": 0.0, "max_grad_norm": 0.3, "optimizer": "adam"}),
    "whitened": (
        "continuous",
        {"gae_lambda": 0.6, "max_grad_norm": 100.0, "optimizer": "sgd", "normalize_advantage": True},
    ),
}
DIRECTIONS = {  # the first, from a state of nothing
    "rmsprop": lambda: lambda grads: grads / np.sqrt(0.01 * grads**2 + 1e-5),
    "adam": Adam,
    "sgd": lambda: lambda grads: grads,
}


def fake_trajectory(kind):
    """Random steps, with both kinds of ends."""
    rng, lead = np.random.default_rng(1), (4, 4)
    obs, next_obs = rng.uniform(-1, 1, (2, *lead, 2)).astype(np.float32)
    action = rng.integers(0, 3, lead) if kind == "discrete" else rng.normal(size=(*lead, 2)).astype(np.float32)
    ends = rng.integers(0, 6, lead)  # 0: terminated, 1: truncated
    extras = {"policy_action": action, "log_prob": np.zeros(lead, np.float32)}
    reward = rng.normal(size=lead).astype(np.float32)
    return Transition(obs, np.full_like(action, 2), reward, ends == 0, ends == 1, next_obs, extras)


def reference_update(params, rows, case):
    """The metrics of an update, and the parameters after it, as a vector."""
    vector, unflat = flat(params)
    values, next_values = value_of(unflat(vector), rows.obs), value_of(unflat(vector), rows.next_obs)
    advantages = slow_gae(rows, values, next_values, case["gamma"], case["gae_lambda"])
    targets = advantages + values
    explained = 1 - np.var(targets - values) / np.var(targets)
    if case.get("normalize_advantage"):
        advantages = (advantages - advantages.mean()) / advantages.std()

    def loss(vector):
        log_prob, entropy = log_prob_and_entropy(unflat(vector), rows.obs, rows.extras["policy_action"])
        policy_loss = -np.mean(advantages * log_prob)
        value_loss = np.mean((targets - value_of(unflat(vector), rows.obs)) ** 2) / 2
        total = policy_loss + case["value_coef"] * value_loss - case["entropy_coef"] * entropy.mean()
        return total, {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy.mean()}

    direction_of = DIRECTIONS[case["optimizer"]]()
    after = descend(lambda x: loss(x)[0], vector, case["learning_rate"], case["max_grad_norm"], direction_of)
    return loss(vector)[1] | {"explained_variance": explained}, after


def louder(params):
    """Heads of some size: the policy's initial scale of 0.01 would leave nothing to see."""
    return jax.tree.map(lambda x: x + 0.3 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), params)


@pytest.fixture(scope="module")
def updates():
    """Every case, out of one compiled call: the trajectory, and parameters and metrics of the update."""
    trajectories = {case: fake_trajectory(kind) for case, (kind, _) in CASES.items()}

    @jax.jit
    def run(trajectories):
        def one(case):
            kind, changes = CASES[case]
            agent = a2c(**(SIZES | COMMON | changes))
            state = agent.init(jax.random.key(0), SPECS[kind])
            state = state._replace(params=louder(state.params))
            after, metrics = agent.update(state, trajectories[case], jax.random.key(0), jnp.int32(0))
            return state.params, after.params, metrics

        return {case: one(case) for case in CASES}

    results = jax.device_get(run(trajectories))
    return {case: (trajectories[case], *results[case]) for case in CASES}


@pytest.mark.parametrize("case", CASES)
def test_update_against_numpy(updates, case):
    trajectory, before, after, metrics = updates[case]
    expected_metrics, expected = reference_update(before, trajectory, COMMON | CASES[case][1])
    assert set(metrics) == set(expected_metrics)
    for name, value in expected_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-3, atol=2e-4, err_msg=name)
    np.testing.assert_allclose(flat(after)[0], expected, atol=2e-4)
    assert np.median(np.abs(flat(after)[0] - flat(before)[0])) > 0.002


# ---------------------------------------------------------------- Pop-Art

SCALES = (1.0, 1e4)


@pytest.fixture(scope="module")
def scaled():
    """Ten updates from random steps whose rewards are multiplied by each of `SCALES`, with a value that begins at 0.

    Gives, for each, the policy's parameters after each update, the value of the observations before and after the first
    (with a learning rate of nearly nothing), and the targets' moving mean and deviation.
    """
    trajectory = fake_trajectory("discrete")

    @jax.jit
    @jax.vmap
    def run(factor):
        def agent_of(learning_rate):
            return a2c(pop_art=True, pop_art_rate=0.1, **(SIZES | {"learning_rate": learning_rate}))

        def begin(agent):
            state = agent.init(jax.random.key(0), DISCRETE)
            head = state.params["params"]["value_head"]
            params = state.params["params"] | {"value_head": jax.tree.map(jnp.zeros_like, head)}
            return state._replace(params={"params": params})

        rows = jax.tree.map(jnp.asarray, trajectory)._replace(reward=factor * trajectory.reward)
        agent = agent_of(0.01)

        def one(state, step):
            state, metrics = agent.update(state, rows, jax.random.key(0), step)
            return state, (state.params["params"]["head"], metrics["value_loss"])

        state, (heads, losses) = jax.lax.scan(one, begin(agent), jnp.arange(10))
        still = agent_of(1e-12)
        first, _ = still.update(state, rows._replace(reward=-3 * rows.reward), jax.random.key(0), jnp.int32(0))
        return heads, losses, (state.params, state.scale), (first.params, first.scale)

    return trajectory, jax.device_get(run(jnp.array(SCALES)))


def test_the_policy_does_not_see_the_rewards_scale(scaled):
    _, (heads, losses, _, _) = scaled
    for leaf in jax.tree.leaves(heads):
        np.testing.assert_allclose(leaf[0], leaf[1], atol=2e-4)
        assert np.abs(leaf[0, -1] - leaf[0, 0]).max() > 1e-3
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


def test_a_new_scale_leaves_the_values_as_they_were(scaled):
    trajectory, (_, _, before, after) = scaled
    for i, factor in enumerate(SCALES):

        def values(state, i=i):
            params, scale = jax.tree.map(lambda x: np.asarray(x[i], np.float64), state)
            output = value_of(params["params"], trajectory.obs)
            return np.sqrt(scale.var) * output + scale.mean

        np.testing.assert_allclose(values(before), values(after), rtol=1e-4, atol=1e-4 * factor)
        moved = np.abs(after[1].mean[i] - before[1].mean[i]) / factor
        assert moved > 0.03, "the scale has not moved, so that nothing was shown"


# ---------------------------------------------------------------- memory and presets


def test_what_the_loss_sees_is_what_acted():
    """Across episodes' ends and updates the log-probabilities of the loss are those that acted."""
    env = make("jaxrl/Probe-truncation-v0")

    def run(cell):
        agent = a2c(cell=cell, cell_size=3, learning_rate=1e-9, entropy_coef=0.0, **(SIZES | {"rollout_length": 7}))
        network = make_actor_critic("a2c", env.spec, "auto", (3,), "tanh", cell=cell, cell_size=3)

        def update(state, trajectory, key, step):
            state, metrics = agent.update(state, trajectory, key, step)
            ended = trajectory.terminated | trajectory.truncated
            fresh = jnp.concatenate([jnp.zeros_like(ended[:1]), ended[:-1]])
            policy, _ = network.apply(state.params, trajectory.obs, trajectory.extras["memory"][0], fresh)
            off = jnp.abs(policy.log_prob(trajectory.action) - trajectory.extras["log_prob"]).max()
            return state, metrics | {"off": off, "mean": policy.log_prob(0).mean()}

        watched = agent._replace(update=update)
        state = init_train(jax.random.key(0), watched, env)
        state = state._replace(agent=state.agent._replace(params=louder(state.agent.params)))
        return jax.lax.scan(lambda state, _: train_step(state, watched, env), state, length=3)[1]

    metrics = jax.jit(lambda: run("gru"))()
    assert metrics["off"].max() < 1e-5
    assert abs(metrics["mean"][0] + np.log(2)) > 0.01


def test_one_step_actor_critic_is_a_call_of_a2c():
    agent = one_step_actor_critic(num_envs=3)
    assert (agent.name, agent.num_envs, agent.rollout_length) == ("one_step_actor_critic", 3, 1)


# ---------------------------------------------------------------- errors


def test_actions_must_be_vectors():
    with pytest.raises(JaxrlError, match=r"a2c: Fake-v0 has actions of shape \(2, 3\)"):
        a2c().init(jax.random.key(0), DISCRETE._replace(action_space=box(-1, 1, (2, 3))))
