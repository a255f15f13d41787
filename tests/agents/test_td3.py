"""DDPG and TD3: gradient steps against NumPy, what each of TD3's three changes does, and how they act."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import slow_off_policy as slow
from slow_off_policy import BATCH, BOUNDS, SPEC, Network

from jaxrl import JaxrlError, ddpg, td3
from jaxrl.agents.off_policy.td3 import TD3Params
from jaxrl.types import Discrete, box

RATES = {"actor_learning_rate": 0.02, "critic_learning_rate": 0.03, "tau": 0.3}
STEPS = 5  # gradient steps of each update, the fifth to the ninth
BARE = {"num_critics": 1, "policy_delay": 1, "target_update_every": 1, "target_noise": 0.0, "random_warmup": False}
BARE |= {"noise": "ornstein_uhlenbeck", "noise_scale": 0.4, "noise_decay_steps": 100_000}
ONLY = {  # one of TD3's changes each
    "twin": {"num_critics": 2},
    "smoothing": {"target_noise": 0.8, "target_noise_clip": 0.5},
    "delay": {"policy_delay": 2},
}
CASES = {
    "bare": BARE,
    **{name: BARE | change for name, change in ONLY.items()},
    "soft targets late, 3 steps": {"target_noise": 0.3, "target_update_every": 2, "n_step": 3},
    "hard targets, normalised": {
        "num_critics": 3,
        "tau": 1.0,
        "policy_delay": 3,
        "target_update_every": 4,
        "actor_target_update_every": 3,
        "target_noise": 0.3,
        "target_noise_clip": 0.1,
        "layer_norm": True,
    },
}
UPDATE_KEY = jax.random.key(5)


def update_of(constructor, arguments, gradient_steps=STEPS):
    """The states before and after an update on one batch, parameters at random, and its metrics."""
    replay = slow.always(slow.sample(), gradient_steps)
    agent = constructor(**slow.SIZES, **RATES | arguments, replay=replay, replay_ratio=gradient_steps)
    most = td3(**slow.SIZES, num_critics=3, layer_norm=arguments.get("layer_norm", False))

    def drawn(seed):  # however many critics there are, the first of them are the same
        params = slow.drawn_like(slow.shapes(most).params, seed)
        return TD3Params(params.actor, slow.first(params.critics, arguments.get("num_critics", 2)))

    state = slow.zeros(agent)._replace(params=drawn(0), target_params=drawn(3))
    trajectory = jax.tree.map(lambda x: jnp.asarray(x[:1, :1]), slow.sample().steps)
    return state, *agent.update(state, trajectory, UPDATE_KEY, jnp.int32(slow.STEP))


@pytest.fixture(scope="module")
def updates():
    def run():
        made = {name: update_of(td3, arguments) for name, arguments in CASES.items()}
        return made | {"ddpg": update_of(ddpg, {"num_critics": 1}), "one step": update_of(td3, BARE, 1)}

    return jax.device_get(jax.jit(run)())


def reference(state, arguments, gradient_steps=STEPS):
    """What an update does: networks, target parameters, losses, values and errors."""
    options = {"num_critics": 2, "policy_delay": 2, "target_update_every": 2, "target_noise": 0.2}
    options |= {"target_noise_clip": 0.5, "n_step": 1, "actor_target_update_every": 0} | RATES | arguments
    actor = Network(state.params.actor, options["actor_learning_rate"])
    critics = Network(state.params.critics, options["critic_learning_rate"])
    targets = [slow.flat(x)[1](slow.flat(x)[0]) for x in state.target_params]
    obs, action, reward, discount, next_obs = slow.n_steps(slow.sample(), options["n_step"])
    weights = slow.sample().weights.astype(np.float64)
    losses, values, errors = [], [], []
    for i, key in enumerate(slow.step_keys(UPDATE_KEY, gradient_steps)):
        count = slow.STEP * gradient_steps + i + 1
        clip = options["target_noise_clip"]
        noise = np.clip(options["target_noise"] * np.asarray(jax.random.normal(key, (BATCH, 2)), float), -clip, clip)
        next_action = np.clip(np.tanh(slow.output(targets[0], next_obs)) + noise, -1, 1)
        y = reward + discount * slow.q_values(targets[1], next_obs, next_action).min(0)

        def critic_loss(params):
            q = slow.q_values(params, obs, action)
            return 0.5 * (weights * (q - y) ** 2).sum(0).mean()

        def actor_loss(params):
            return -slow.q_values(critics.params, obs, np.tanh(slow.output(params, obs)))[0].mean()

        q = slow.q_values(critics.params, obs, action)
        losses.append(critic_loss(critics.params))
        values.append(q.mean())
        errors.append(np.abs(q - y).mean(0))
        critics.descend(critic_loss)
        if count % options["policy_delay"] == 0:
            actor.descend(actor_loss)
        if count % (options["actor_target_update_every"] or options["target_update_every"]) == 0:
            targets[0] = slow.moved(targets[0], actor, options["tau"])
        if count % options["target_update_every"] == 0:
            targets[1] = slow.moved(targets[1], critics, options["tau"])
    return actor, critics, targets, np.mean(losses), np.mean(values), np.concatenate(errors)


@pytest.mark.parametrize("name", CASES)
def test_update_against_numpy(updates, name):
    before, after, metrics = updates[name]
    actor, critics, targets, loss, value, errors = reference(before, CASES[name])
    slow.close(after.params, TD3Params(actor.params, critics.params), atol=2e-4)
    slow.close(after.target_params, TD3Params(*targets), atol=2e-4)
    for network, state in zip((actor, critics), after.opt_state, strict=True):
        assert state[0].count == network.steps
        slow.close(state[0].mu, network.unflat(network.m), atol=2e-4)
    np.testing.assert_allclose(metrics["critic_loss"], loss, rtol=1e-3)
    np.testing.assert_allclose(metrics["q_mean"], value, rtol=1e-3)
    np.testing.assert_allclose(after.replay, errors, rtol=1e-3, atol=1e-4)


def test_hard_replacement_copies(updates):
    """The policy's target was replaced after the ninth step and the critics' after the eighth."""
    _, after, _ = updates["hard targets, normalised"]
    slow.close(after.target_params.actor, after.params.actor, rtol=0)
    assert not np.array_equal(*(x["params"]["output"]["bias"] for x in (after.target_params[1], after.params[1])))


def test_without_its_three_changes_it_is_ddpg(updates):
    """Bit by bit; and each of the three alone makes a difference to policy and critic."""
    plain, bare = updates["ddpg"], updates["bare"]
    for x, y in zip(jax.tree.leaves(plain[1:]), jax.tree.leaves(bare[1:]), strict=True):
        np.testing.assert_array_equal(x, y)
    for name in ONLY:
        params = updates[name][1].params
        for x, y in ((params.actor, bare[1].params.actor), (slow.first(params.critics, 1), bare[1].params.critics)):
            assert max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (x, y)), strict=True)) > 1e-5, name


def test_policy_gradient_is_the_chain_rule(updates):
    """grad_theta E[Q(s, mu(s))] = E[grad_a Q(s, a) grad_theta mu(s)] at a = mu(s) (Lillicrap et al. 2016, eq. 6)."""
    before, after, _ = updates["one step"]
    obs = slow.n_steps(slow.sample(), 1)[0]
    theta, unflat = slow.flat(before.params.actor)
    critics = slow.flat(after.params.critics)
    critics = critics[1](critics[0])
    mu = np.tanh(slow.output(unflat(theta), obs))
    total = 0.0
    for b in range(BATCH):
        one = obs[b : b + 1]
        grad_a = slow.gradient(lambda a: slow.q_values(critics, one, a[None])[0, 0], mu[b])
        grad_mu = slow.gradient(lambda x: np.tanh(slow.output(unflat(x), one))[0], theta)  # [theta, A]
        total = total + grad_mu @ grad_a / BATCH
    assert np.abs(total).max() > 0.05
    slow.close(after.opt_state.actor[0].mu, unflat(-0.1 * total), rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------- acting

NUM_ENVS = 3000


@pytest.fixture(scope="module")
def acts():
    """What it does in one state: greedily, in the warm-up with and without drawing at random, and after it."""
    options = {"warmup_steps": 100, "batch_size": 10, "hidden_sizes": (4,), "noise_scale": 0.2, "noise_final": 0.1}

    def run():
        agent, own = td3(**options, noise_decay_steps=200), td3(**options, noise_decay_steps=200, random_warmup=False)
        state = agent.init(jax.random.key(0), SPEC)
        obs = jnp.broadcast_to(jnp.array([0.3, -0.7]), (NUM_ENVS, 2))
        greedy, memory, extras = agent.act(state, (), obs, jax.random.key(1), 0, explore=False)
        assert (memory, extras) == ((), {})
        other = agent.act(state, (), obs, jax.random.key(2), 0, explore=False)[0]
        explored = [agent.act(state, (), obs, jax.random.key(i), i)[0] for i in (0, 99, 100)]
        return state.params, greedy, other, explored, own.act(state, (), obs, jax.random.key(3), 99)[0]

    return jax.device_get(jax.jit(run)())


def test_exploiting_is_the_policy_between_the_bounds(acts):
    params, greedy, other, *_ = acts
    mu = np.tanh(slow.output(params.actor, np.array([[0.3, -0.7]])))
    np.testing.assert_allclose(greedy, np.repeat(mu * [2, 5] + [0, 5], NUM_ENVS, 0), atol=1e-5)
    np.testing.assert_array_equal(greedy, other)


def test_the_warm_up_draws_uniformly(acts):
    *_, explored, own = acts
    for action in explored[:2]:
        spread = (action - BOUNDS[0]) / (BOUNDS[1] - BOUNDS[0])
        assert all(scipy.stats.kstest(x, "uniform").pvalue > 1e-3 for x in spread.T)
        assert abs(np.corrcoef(spread.T)[0, 1]) < 5 / np.sqrt(NUM_ENVS)
    assert not np.array_equal(*explored[:2])
    noise = (own - acts[1]) / [2, 5]  # at step 99 of 200 on the way from 0.2 to 0.1
    np.testing.assert_allclose(noise.std(0), 0.2 - 0.1 * 99 / 200, rtol=0.08)


def test_after_the_warm_up_noise_is_added_to_the_policy(acts):
    noise = (acts[3][2] - acts[1]) / [2, 5]
    np.testing.assert_allclose(noise.std(0), 0.15, rtol=0.08)
    assert np.abs(noise.mean(0)).max() < 5 * 0.15 / np.sqrt(NUM_ENVS)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("space", "arguments", "words"),
    [
        (Discrete(3), {}, ["discrete actions", "dqn or discrete_sac"]),
        (box(-1, 1, (2, 2)), {}, ["actions of shape (2, 2)"]),
        (box(-1, np.inf, (1,)), {}, ["between [-1.0] and [inf]", "finite"]),
        (box(-1, 1, (65,)), {"noise": "ornstein_uhlenbeck"}, ["noise='ornstein_uhlenbeck'", "65"]),
    ],
    ids=["discrete", "matrix", "unbounded", "wide"],
)
def test_environments_that_do_not_fit(space, arguments, words):
    with pytest.raises(JaxrlError) as error:
        td3(**arguments).init(jax.random.key(0), SPEC._replace(action_space=space))
    assert all(word in str(error.value) for word in ("td3: ", "Fake-v0", *words)), error.value


def test_errors_call_ddpg_by_its_own_name():
    with pytest.raises(JaxrlError, match=r"^ddpg: tau=0 is not accepted"):
        ddpg(tau=0)
    with pytest.raises(JaxrlError, match=r"^ddpg: Fake-v0 has discrete actions"):
        ddpg().init(jax.random.key(0), SPEC._replace(action_space=Discrete(3)))
    with pytest.raises(JaxrlError, match=r"^td3: tau=0 is not accepted"):
        td3(tau=0)
