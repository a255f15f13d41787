"""DQN: each update against NumPy, its schedules step by step, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl import JaxrlError, dqn, init_train, make, train_step
from jaxrl.learning import value_heads
from jaxrl.types import Discrete, Spec, Transition, box

SPEC = Spec("Fake-v0", box(-1, 1, (2,)), Discrete(3))


# ---------------------------------------------------------------- one update, against NumPy in float64


def forward(params, obs):
    """Action values `[B, 3]` of a network with one hidden layer of rectifiers, and what the gradient needs."""
    w1, b1, w2, b2 = params
    before = obs @ w1 + b1
    hidden = np.maximum(before, 0)
    return hidden @ w2 + b2, before, hidden


def flat(params):
    torso, head = params["params"]["torso"]["Dense_0"], params["params"]["Dense_0"]
    layers = (torso["kernel"], torso["bias"], head["kernel"], head["bias"])
    return [np.asarray(x, np.float64) for x in layers]


def reference_update(params, target_params, row, *, double, loss, gamma, learning_rate, max_grad_norm, gradient_steps):
    """What an update on a replay that holds one transition only does: its metrics, and the parameters after it."""
    obs, action, reward, terminated, next_obs = row
    m, v = [np.zeros_like(p) for p in params], [np.zeros_like(p) for p in params]
    losses, qs = [], []
    for step in range(1, gradient_steps + 1):
        next_q = forward(target_params, next_obs)[0]
        chosen = np.argmax(forward(params, next_obs)[0] if double else next_q)
        target = reward + (0.0 if terminated else gamma * next_q[chosen])
        q, before, hidden = forward(params, obs)
        error = q[action] - target
        losses.append(0.5 * error**2 if loss == "squared" or abs(error) <= 1 else abs(error) - 0.5)
        qs.append(q[action])
        slope = error if loss == "squared" else np.clip(error, -1, 1)
        d_q = slope * np.eye(3)[action]
        d_before = (params[2] @ d_q) * (before > 0)
        grads = [np.outer(obs, d_before), d_before, np.outer(hidden, d_q), d_q]
        norm = np.sqrt(sum((g**2).sum() for g in grads))
        grads = [g * min(1, max_grad_norm / norm) for g in grads]
        m = [0.9 * x + 0.1 * g for x, g in zip(m, grads, strict=True)]
        v = [0.999 * x + 0.001 * g**2 for x, g in zip(v, grads, strict=True)]
        steps = [(x / (1 - 0.9**step)) / (np.sqrt(y / (1 - 0.999**step)) + 1e-8) for x, y in zip(m, v, strict=True)]
        params = [p - learning_rate * s for p, s in zip(params, steps, strict=True)]
    return np.mean(losses), np.mean(qs), params


CASES = {  # the network's own scale makes errors of about 1, on both sides of where Huber's loss turns linear
    "single huber": {"double": False, "loss": "huber", "max_grad_norm": 100.0},
    "double huber": {"double": True, "loss": "huber", "max_grad_norm": 0.3},
    "single squared": {"double": False, "loss": "squared", "max_grad_norm": 0.3},
    "double squared": {"double": True, "loss": "squared", "max_grad_norm": 100.0},
}
COMMON = {"gamma": 0.7, "learning_rate": 0.05}
NUM_ROWS = 12


def transitions():
    """`NUM_ROWS` transitions; a third each terminates, is truncated, and goes on."""
    rng = np.random.default_rng(0)
    kind = np.arange(NUM_ROWS) % 3
    return Transition(
        obs=rng.uniform(-1, 1, (NUM_ROWS, 2)).astype(np.float32),
        action=rng.integers(0, 3, NUM_ROWS).astype(np.int32),
        reward=rng.normal(size=NUM_ROWS).astype(np.float32) * 1.5,
        terminated=kind == 0,
        truncated=kind == 1,
        next_obs=rng.uniform(-1, 1, (NUM_ROWS, 2)).astype(np.float32),
        extras={},
    )


@pytest.fixture(scope="module")
def updates():
    """Every case on every transition, out of one compiled call: states before and after, and metrics."""

    def one(case, row):
        agent = dqn(
            **case, **COMMON, num_envs=3, replay_size=3, batch_size=3, warmup_steps=3, target_update_every=100,
            hidden_sizes=(8,),
        )  # fmt: skip
        key, other = jax.random.split(jax.random.key(1))
        state = agent.init(key, SPEC)
        state = state._replace(target_params=agent.init(other, SPEC).params)
        trajectory = jax.tree.map(lambda x: jnp.stack([x] * 3)[None], row)  # so every draw is of this one
        return state, *agent.update(state, trajectory, jax.random.key(2), jnp.int32(0))

    run = jax.jit(lambda rows: {name: jax.vmap(lambda row: one(case, row))(rows) for name, case in CASES.items()})
    return jax.device_get(run(transitions()))


@pytest.mark.parametrize("name", CASES)
def test_update_against_numpy(updates, name):
    before, after, metrics = updates[name]
    rows = transitions()
    errors = []
    for i in range(NUM_ROWS):
        online, target, result = (
            flat(jax.tree.map(lambda x: x[i], params)) for params in (before.params, before.target_params, after.params)
        )
        row = (rows.obs[i], rows.action[i], rows.reward[i], rows.terminated[i], rows.next_obs[i])
        loss, q, expected = reference_update(online, target, row, **CASES[name], **COMMON, gradient_steps=3)
        np.testing.assert_allclose(metrics["loss"][i], loss, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(metrics["q_mean"][i], q, rtol=1e-4, atol=1e-5)
        for got, want in zip(result, expected, strict=True):
            np.testing.assert_allclose(got, want, atol=2e-4)
        errors.append(loss)
    assert min(errors) < 0.4  # both branches of Huber's loss were taken
    assert max(errors) > 0.6


def test_the_rows_tell_single_from_double(updates):
    single, double = updates["single squared"][2]["loss"], updates["double squared"][2]["loss"]
    assert (np.abs(single - double) > 0.02).sum() >= 2


def test_an_update_draws_from_all_that_it_added():
    """Batches of one: over many keys, the losses are those of the update's own transitions, each of them."""
    agent = dqn(
        num_envs=3,
        rollout_length=4,
        replay_ratio=1 / 12,
        replay_size=24,
        batch_size=1,
        warmup_steps=1,
        loss="squared",
        gamma=0.7,
        hidden_sizes=(8,),
    )
    state, rows = agent.init(jax.random.key(1), SPEC), transitions()
    trajectory = jax.tree.map(lambda x: x.reshape(4, 3, *x.shape[1:]), rows)
    update = jax.jit(jax.vmap(lambda key: agent.update(state, trajectory, key, jnp.int32(0))[1]["loss"]))
    losses = update(jax.random.split(jax.random.key(2), 300))
    params = flat(state.params)
    next_q, q = (
        forward(params, rows.next_obs)[0].max(-1),
        forward(params, rows.obs)[0][np.arange(NUM_ROWS), rows.action],
    )
    expected = 0.5 * (rows.reward + 0.7 * (1 - rows.terminated) * next_q - q) ** 2
    np.testing.assert_allclose(np.unique(losses), np.sort(expected), rtol=1e-4)


# ---------------------------------------------------------------- what happens when, in environment steps

NUM_ENVS, LENGTH = 2, 2
ADDED = NUM_ENVS * LENGTH
SCHEDULES = {
    "hard": {"target_update_every": 6},  # not a multiple of an update's 4 steps: due once 6, 12, 18, ... are reached
    "soft": {"target_update_every": 4, "tau": 0.1},
}
WARMUP, NUM_UPDATES = 12, 12


@pytest.fixture(scope="module")
def histories():
    """The agent's states before and after each update, `[1 + NUM_UPDATES, ...]`, and metrics."""
    env = make("jaxrl/Probe-policy-v0")

    def run(key, arguments):
        agent = dqn(
            **arguments, num_envs=NUM_ENVS, rollout_length=LENGTH, replay_size=8, batch_size=4, warmup_steps=WARMUP,
            replay_ratio=0.25, epsilon_start=0.9, epsilon_final=0.3, epsilon_decay_steps=20, hidden_sizes=(4,),
            learning_rate=1e-2,
        )  # fmt: skip
        start = init_train(key, agent, env)

        def body(state, _):
            new, metrics = train_step(state, agent, env)
            return new, (new.agent, metrics)

        _, (states, metrics) = jax.lax.scan(body, start, length=NUM_UPDATES)
        history = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start.agent, states)
        return history, metrics

    run_all = jax.jit(lambda key: {name: run(key, arguments) for name, arguments in SCHEDULES.items()})
    return jax.device_get(run_all(jax.random.key(0)))


def same(tree, i, other, j):
    return all(np.array_equal(x[i], y[j]) for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True))


@pytest.mark.parametrize("name", SCHEDULES)
def test_nothing_is_learnt_before_the_warm_up(histories, name):
    history, metrics = histories[name]
    for i in range(1, NUM_UPDATES + 1):
        learning = i * ADDED >= WARMUP
        assert same(history.params, i, history.params, i - 1) != learning, i
        assert same(history.opt_state, i, history.opt_state, i - 1) != learning, i
        assert (metrics["loss"][i - 1] > 0) == learning, i
        assert (metrics["q_mean"][i - 1] != 0) == learning, i


def test_hard_target_updates_are_on_time(histories):
    history, _ = histories["hard"]
    due = {2, 3, 5, 6, 8, 9, 11, 12}  # the first updates at which 6, 12, 18, 24, 30, 36, 42, 48 steps are reached
    for i in range(1, NUM_UPDATES + 1):
        if i in due:
            assert same(history.target_params, i, history.params, i), i
        else:
            assert same(history.target_params, i, history.target_params, i - 1), i
            assert i * ADDED < WARMUP or not same(history.target_params, i, history.params, i), i


def test_soft_target_updates_are_exact(histories):
    history, _ = histories["soft"]
    for target, params in zip(jax.tree.leaves(history.target_params), jax.tree.leaves(history.params), strict=True):
        np.testing.assert_allclose(target[1:], 0.1 * params[1:] + 0.9 * target[:-1], rtol=1e-6, atol=1e-7)
    assert not same(history.target_params, NUM_UPDATES, history.params, NUM_UPDATES)


def test_epsilon_falls_with_environment_steps(histories):
    step = ADDED * np.arange(NUM_UPDATES)
    expected = np.maximum(0.9 + (0.3 - 0.9) * step / 20, 0.3)
    np.testing.assert_allclose(histories["hard"][1]["epsilon"], expected, rtol=1e-6)


def test_the_replay_holds_what_happened(histories):
    replay = histories["hard"][0].replay
    for i in (1, 2, 5):
        obs, action, reward = replay.obs[i], replay.rest.action[i], replay.rest.reward[i]
        written = slice(0, min(8, i * ADDED))
        matched = (action == 1) == (obs[:, 0] > 0)
        np.testing.assert_array_equal(reward[written], np.where(matched, 1.0, -1.0)[written])
        assert replay.rest.terminated[i][written].all()


def test_acting():
    """Epsilon in `act` follows the step that it is given; without exploration it is 0 at any step."""
    agent = dqn(epsilon_start=1.0, epsilon_final=0.0, epsilon_decay_steps=100, hidden_sizes=(4,))
    state = agent.init(jax.random.key(0), SPEC)
    obs = jnp.broadcast_to(jnp.array([0.3, -0.7]), (4000, 2))

    @jax.jit
    def act(key, step):
        explored, memory, extras = agent.act(state, (), obs, key, step)
        assert memory == ()
        assert extras == {}
        return explored, agent.act(state, (), obs, key, step, explore=False)[0]

    greedy = np.asarray(act(jax.random.key(1), 0)[1])
    assert (greedy == greedy[0]).all()
    for step, epsilon in ((0, 1.0), (25, 0.75), (50, 0.5), (100, 0.0), (10_000, 0.0)):
        explored, without = act(jax.random.key(step), step)
        np.testing.assert_array_equal(without, greedy)
        departures = int((explored != greedy).sum())
        low, high = scipy.stats.binom.interval(1 - 1e-5, 4000, epsilon * 2 / 3)
        assert low <= departures <= high, (step, departures)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (lambda: dqn(hidden_sizes=(8, 0)), ["dqn: hidden_sizes[1]=0"]),
        (
            lambda: dqn(replay_size=100, num_envs=3),
            ["dqn: replay_size=100", "a multiple of num_envs * rollout_length", "3"],
        ),
        (lambda: dqn(replay_size=100, batch_size=128), ["batch_size=128", "at most replay_size=100"]),
        (lambda: dqn(warmup_steps=100, batch_size=128), ["batch_size=128", "at most warmup_steps=100"]),
        (lambda: dqn(atoms=51, v_min=1.0, v_max=1.0), ["dqn: v_min=1.0", "less than v_max=1.0"]),
        (lambda: dqn(atoms=51, v_min=float("nan")), ["dqn: v_min=nan"]),
        (lambda: dqn(atoms=51, quantiles=2), ["dqn: quantiles=2", "atoms=51"]),
        (lambda: dqn(torso="rnn").init(jax.random.key(0), SPEC), ["dqn: torso='rnn'"]),
        (
            lambda: dqn().init(jax.random.key(0), SPEC._replace(action_space=box(-1, 1, (1,)))),
            ["dqn: Fake-v0 has continuous actions", "discretize_actions"],
        ),
        (
            lambda: dqn().init(jax.random.key(0), SPEC._replace(obs_space=Discrete(4))),
            ["dqn: Fake-v0", "Discrete(n=4)", "flatten_observations"],
        ),
    ],
    ids=["hidden", "multiple", "batch", "warm-up", "atoms", "atoms nan", "both", "torso", "continuous", "integers"],
)
def test_other_errors(case, words):
    with pytest.raises(JaxrlError) as error:
        case()
    assert all(word in str(error.value) for word in words), error.value


# ---------------------------------------------------------------- prioritized replay


def test_an_error_that_is_not_a_number_stays_out_of_the_tree():
    """One transition's reward is NaN: the loss shows it, and the priorities are finite, with 0 for that transition."""
    agent = dqn(
        replay="prioritized", num_envs=4, replay_size=64, batch_size=64, warmup_steps=64, replay_ratio=0.25,
        hidden_sizes=(4,),
    )  # fmt: skip
    rows = jax.tree.map(lambda x: x[None, :4], transitions())
    rows = rows._replace(reward=rows.reward.copy())
    rows.reward[0, 1] = np.nan

    @jax.jit
    def update(state, key):
        return agent.update(state, rows, key, jnp.int32(64))

    state, metrics = update(agent.init(jax.random.key(0), SPEC), jax.random.key(1))
    leaves = np.asarray(state.replay.tree[-1]).ravel()
    assert np.isnan(metrics["loss"])
    assert leaves[1] == 0
    assert (leaves[[0, 2, 3]] > 0).all()
    assert all(np.isfinite(level).all() for level in state.replay.tree)
    assert np.isfinite(state.replay.highest)


def test_priorities_are_the_errors():
    """What the update leaves in the tree is (|target - Q| + epsilon)^alpha of the parameters before it."""
    agent = dqn(
        replay="prioritized", priority_alpha=0.5, num_envs=4, replay_size=4, batch_size=4, warmup_steps=4, gamma=0.7,
        replay_ratio=0.25, hidden_sizes=(8,),
    )  # fmt: skip
    rows, state = transitions(), agent.init(jax.random.key(1), SPEC)
    chosen = jax.tree.map(lambda x: x[None, :4], rows)
    after, _ = jax.jit(agent.update)(state, chosen, jax.random.key(2), jnp.int32(0))
    params = flat(state.params)
    q = forward(params, rows.obs[:4])[0][np.arange(4), rows.action[:4]]
    target = rows.reward[:4] + 0.7 * (1 - rows.terminated[:4]) * forward(params, rows.next_obs[:4])[0].max(-1)
    expected = (np.abs(target - q) + 1e-3) ** 0.5
    np.testing.assert_allclose(np.asarray(after.replay.tree[-1])[0, :4], expected, rtol=1e-4)


def test_targets_of_distributions_by_hand():
    """Returns of 0, 1 and 2 with chances of 1/4, 1/4 and 1/2, halved and moved by 0.5; at an end the reward alone."""
    reward, discount = jnp.array([0.5, 1.0]), jnp.array([0.5, 0.0])
    logits = jnp.log(jnp.array([[0.25, 0.25, 0.5]] * 2))
    target = value_heads.categorical(3, 0.0, 2.0).target(logits, reward, discount)
    np.testing.assert_allclose(target, [[0.125, 0.625, 0.25], [0.0, 1.0, 0.0]], atol=1e-6)
    target = value_heads.quantile(2).target(jnp.array([[1.0, 2.0], [3.0, 4.0]]), reward, discount)
    np.testing.assert_allclose(target, [[1.0, 1.5], [1.0, 1.0]])


def test_priorities_of_distributions():
    """Of atoms the divergence of the target from what was said, of quantiles the mean distance: by hand."""
    said, wanted = np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]), np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    loss, errors = value_heads.categorical(3, -1.0, 1.0).loss(jnp.log(said), jnp.array(wanted))
    np.testing.assert_allclose(errors, [0.0, -np.log(0.2)], atol=1e-6)
    np.testing.assert_allclose(loss, -(wanted * np.log(said)).sum(-1), rtol=1e-6)
    quantiles, targets = jnp.array([[1.0, 2.0], [0.0, 0.0]]), jnp.array([[1.5, 1.5], [4.0, -2.0]])
    _, errors = value_heads.quantile(2).loss(quantiles, targets)
    np.testing.assert_allclose(errors, [0.5, 3.0])


@pytest.mark.parametrize(
    "head", [{"atoms": 5, "v_min": -3.0, "v_max": 3.0}, {"quantiles": 5}], ids=["atoms", "quantiles"]
)
def test_priorities_tell_surprises_of_distributions_apart(head):
    """Of four rows that are alike but for a reward that is far off, that one gets the highest priority."""
    agent = dqn(
        replay="prioritized", num_envs=4, replay_size=4, batch_size=4, warmup_steps=4, replay_ratio=0.25,
        hidden_sizes=(4,), **head,
    )  # fmt: skip
    rows = jax.tree.map(lambda x: np.repeat(x[:1], 4, axis=0)[None], transitions())
    rows = rows._replace(reward=np.array([[0.1, 0.1, 2.9, 0.1]], np.float32), terminated=np.ones((1, 4), bool))
    state = agent.init(jax.random.key(0), SPEC)
    after, _ = jax.jit(agent.update)(state, rows, jax.random.key(1), jnp.int32(0))
    priorities = np.asarray(after.replay.tree[-1])[0, :4]
    assert priorities[2] > 1.05 * priorities[[0, 1, 3]].max()
    np.testing.assert_allclose(priorities[[0, 1]], priorities[3], rtol=1e-5)
