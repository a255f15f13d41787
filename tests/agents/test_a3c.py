"""A3C: the workers' turns and stale copies against a simulation in NumPy; without a delay it is A2C; its errors."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow_actor_critic import descend, flat, log_prob_and_entropy, slow_gae, value_of

from jaxrl import JaxrlError, a2c, init_train, make, train_step
from jaxrl.agents.policy_gradient.a3c import a3c
from jaxrl.types import Discrete, Spec, Transition, box

SPEC = Spec("Fake-v0", box(-1, 1, (2,)), Discrete(3))
WORKERS, EACH, LENGTH, ROUNDS = 3, 2, 3, 6
NUM_ENVS = WORKERS * EACH
SIZES = {"num_workers": WORKERS, "num_envs": NUM_ENVS, "rollout_length": LENGTH, "hidden_sizes": (2,)}
OPTIONS = {"gamma": 0.8, "gae_lambda": 0.6, "learning_rate": 0.1, "entropy_coef": 0.2, "value_coef": 0.7}
OPTIONS |= {"max_grad_norm": 0.3, "normalize_advantage": True, "anneal_steps": 300}


def fake_rounds(num_rounds=ROUNDS):
    """Random steps, with both kinds of ends; leaves `[round, T, N, ...]`."""
    rng, lead = np.random.default_rng(1), (num_rounds, LENGTH, NUM_ENVS)
    obs, next_obs = rng.uniform(-1, 1, (2, *lead, 2)).astype(np.float32)
    action, ends = rng.integers(0, 3, lead), rng.integers(0, 6, lead)  # ends: 0 is terminated, 1 truncated
    extras = {"policy_action": action, "log_prob": np.zeros(lead, np.float32)}
    reward = rng.normal(size=lead).astype(np.float32)
    return Transition(obs, action, reward, ends == 0, ends == 1, next_obs, extras)


def louder(params):
    """Heads of some size: the policy's initial scale of 0.01 would leave nothing to see."""
    return jax.tree.map(lambda x: x + 0.3 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), params)


def begin(agent):
    state = agent.init(jax.random.key(0), SPEC)
    return state._replace(params=louder(state.params), copies=jax.vmap(jax.vmap(louder))(state.copies))


# ---------------------------------------------------------------- turns and stale copies, against a simulation


@pytest.fixture(scope="module", params=[1, 2, 3], ids=lambda delay: f"delay {delay}")
def rounds(request):
    """For some rounds of random steps: the delay, keys, the first parameters, and what happened in each round."""
    agent = a3c(delay=request.param, **SIZES, **OPTIONS)
    keys = jax.random.split(jax.random.key(5), ROUNDS)

    @jax.jit
    def run(trajectories):
        def one(state, x):
            index, key, trajectory = x
            step = index * NUM_ENVS * LENGTH
            last = step + NUM_ENVS * (LENGTH - 1)  # the step counts on while a round is collected
            log_probs = []
            for explore, now in ((True, step), (True, last), (False, step)):
                action, _, extras = agent.act(state, (), trajectory.obs[0], key, now, explore=explore)
                log_probs.append((action, extras["log_prob"]))
            state, metrics = agent.update(state, trajectory, key, step)
            return state, (log_probs, state.params, metrics)

        state = begin(agent)
        return state.params, jax.lax.scan(one, state, (jnp.arange(ROUNDS), keys, trajectories))[1]

    return request.param, keys, *jax.device_get(run(fake_rounds()))


def gradient(params, rows):
    """A worker's clipped gradient, as a vector, and the metrics of its loss."""
    vector, unflat = params
    values, next_values = value_of(unflat(vector), rows.obs), value_of(unflat(vector), rows.next_obs)
    advantages = slow_gae(rows, values, next_values, OPTIONS["gamma"], OPTIONS["gae_lambda"])
    targets = advantages + values
    whitened = (advantages - advantages.mean()) / advantages.std()

    def loss(vector):
        log_prob, entropy = log_prob_and_entropy(unflat(vector), rows.obs, rows.extras["policy_action"])
        parts = -np.mean(whitened * log_prob), np.mean((targets - value_of(unflat(vector), rows.obs)) ** 2) / 2
        return parts[0] + 0.7 * parts[1] - 0.2 * entropy.mean(), (*parts, entropy.mean())

    after = descend(lambda x: loss(x)[0], vector, 1.0, OPTIONS["max_grad_norm"], lambda grads: grads)
    return vector - after, (*loss(vector)[1], max(-1, 1 - np.var(targets - values) / np.var(targets)))


def test_against_a_simulation(rounds):
    """Each worker holds a queue of what it pulled; the shared parameters and RMSProp's average are changed in turn."""
    delay, keys, first, (acted, after, metrics) = rounds
    shared, unflat = flat(first)
    squares = 0.0
    queues = [collections.deque([shared] * delay) for _ in range(WORKERS)]
    orders, trajectories = set(), fake_rounds()
    for k in range(ROUNDS):
        held = [queue.popleft() for queue in queues]
        rows = jax.tree.map(lambda x: x[k], trajectories)
        parts = [jax.tree.map(lambda x: x[:, w * EACH : (w + 1) * EACH], rows) for w in range(WORKERS)]
        for w in range(WORKERS):
            for action, log_prob in ([a[k], b[k]] for a, b in acted[:2]):
                mine = slice(w * EACH, (w + 1) * EACH)
                expected, _ = log_prob_and_entropy(unflat(held[w]), rows.obs[0, mine], action[mine])
                np.testing.assert_allclose(log_prob[mine], expected, atol=5e-4)
        every = [log_prob_and_entropy(unflat(shared), rows.obs[0], np.full(NUM_ENVS, a))[0] for a in range(3)]
        np.testing.assert_array_equal(acted[2][0][k], np.argmax(every, axis=0))
        pushes, reports = zip(*(gradient((held[w], unflat), parts[w]) for w in range(WORKERS)), strict=True)
        order = np.asarray(jax.random.permutation(keys[k], WORKERS))
        orders.add(tuple(order))
        rate = 0.1 * (1 - k * NUM_ENVS * LENGTH / 300)
        for w in order:
            squares = 0.99 * squares + 0.01 * pushes[w] ** 2
            shared = shared - rate * pushes[w] / np.sqrt(squares + 1e-5)
            queues[w].append(shared)
        np.testing.assert_allclose(flat(jax.tree.map(lambda x: x[k], after))[0], shared, atol=2e-3)
        for name, value in zip(
            ("policy_loss", "value_loss", "entropy", "explained_variance"), np.mean(reports, axis=0), strict=True
        ):
            np.testing.assert_allclose(metrics[name][k], value, rtol=2e-3, atol=5e-4, err_msg=name)
    assert len(orders) > 2
    assert np.abs(shared - flat(first)[0]).max() > 0.5


@pytest.fixture(scope="module")
def turns():
    """After one round with each of many keys: how far from the shared parameters each worker's copy is, `[key, W]`."""
    agent = a3c(**SIZES, **OPTIONS)

    @jax.jit
    @jax.vmap
    def run(key):
        rows = jax.tree.map(lambda x: jnp.asarray(x[0]), fake_rounds(1))
        state, _ = agent.update(begin(agent), rows, key, jnp.int32(0))
        far = jax.tree.map(lambda c, p: jnp.abs(c[0] - p).reshape(WORKERS, -1).sum(-1), state.copies, state.params)
        return sum(jax.tree.leaves(far))

    return np.asarray(run(jax.random.split(jax.random.key(1), 300)))


def test_the_order_is_drawn_from_the_key(turns):
    """The last to come has pulled the shared parameters, the first is the farthest from them."""
    first, last = turns.argmax(-1), turns.argmin(-1)
    np.testing.assert_array_equal(turns.min(-1), 0.0)
    assert (np.sort(turns, axis=-1)[:, 1] > 1e-3).all()
    for who in (first, last):
        assert np.all(np.abs(np.bincount(who, minlength=WORKERS) - 100) < 35)
    assert len(set(zip(first, last, strict=True))) == 6


# ---------------------------------------------------------------- through the loop


LOOP = {"num_envs": 4, "rollout_length": 5, "hidden_sizes": (4,), "learning_rate": 0.01, "anneal_steps": 1000}
WHITENED = {"normalize_advantage": True, "optimizer": "adam", "gae_lambda": 0.9}
MEMORY = {"cell": "gru", "cell_size": 3, "shared_torso": True, "normalize_rewards": True}
VARIANTS = {  # each with a number of workers
    "whitened": ("jaxrl/Probe-policy-v0", 4, WHITENED),
    "with a memory": ("jaxrl/Probe-truncation-v0", 2, MEMORY),
}


def run(agent, env_id, key, updates):
    env = make(env_id)
    return jax.lax.scan(lambda state, _: train_step(state, agent, env), init_train(key, agent, env), length=updates)


def inner(state):
    while not hasattr(state, "params"):
        state = state.agent
    return state


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_a_delay_it_is_a2c(variant):
    """Actions, metrics and parameters."""
    env_id, num_workers, changes = VARIANTS[variant]
    agents = a2c(**LOOP, **changes), a3c(delay=0, num_workers=num_workers, **LOOP, **changes)
    (synchronous, expected), (workers, metrics) = jax.device_get(
        jax.jit(lambda: [run(agent, env_id, jax.random.key(3), 12) for agent in agents])()
    )
    params, others = inner(synchronous).params, inner(workers).params
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), params, others)
    for name in ("policy_loss", "value_loss", "entropy", "episode_return"):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert expected["policy_loss"].std() > 1e-3


@pytest.mark.slow
def test_seeds_in_parallel_are_seeds_alone_and_a_run_can_be_repeated():
    agent = a3c(delay=2, num_workers=2, **LOOP, **MEMORY)
    keys = jax.random.split(jax.random.key(0), 2)
    alone = jax.jit(lambda key: run(agent, "jaxrl/Probe-truncation-v0", key, 8)[0])
    together = jax.device_get(jax.jit(jax.vmap(alone))(keys))
    states = [jax.device_get(alone(key)) for key in keys]
    for i, state in enumerate(states):
        one = jax.tree.map(lambda x: x[i], inner(together))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), one, inner(state))
    again = jax.device_get(alone(keys[0]))
    jax.tree.map(np.testing.assert_array_equal, inner(states[0]), inner(again))
    first, second = (jax.tree.leaves(inner(state).params) for state in states)
    assert any(np.abs(x - y).max() > 1e-2 for x, y in zip(first, second, strict=True))


# ---------------------------------------------------------------- errors


def test_workers_that_do_not_divide_the_environments():
    with pytest.raises(JaxrlError, match="a3c: num_workers=3 does not divide num_envs=16"):
        a3c(num_workers=3)
