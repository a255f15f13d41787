"""PQN: updates against NumPy in float64, how episodes end, its schedules, what a minibatch holds, what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from slow_actor_critic import flat

from jaxrl import JaxrlError
from jaxrl.agents.value_based.pqn import pqn
from jaxrl.learning.minibatch import scan_minibatches
from jaxrl.types import Discrete, Spec, Transition, box

SPEC = Spec("Fake-v0", box(-1, 1, (2,)), Discrete(3))
LENGTH, NUM_ENVS = 5, 3


# ---------------------------------------------------------------- an update, against NumPy in float64


def forward(params, obs):
    """Action values `[..., 3]`; normalisation stands between a layer and its rectifier."""
    torso, head = params["torso"], params["Dense_0"]
    x = obs @ torso["Dense_0"]["kernel"] + torso["Dense_0"]["bias"]
    if "LayerNorm_0" in torso:
        mean = x.mean(-1, keepdims=True)
        x = (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-6)
        x = x * torso["LayerNorm_0"]["scale"] + torso["LayerNorm_0"]["bias"]
    return np.maximum(x, 0) @ head["kernel"] + head["bias"]


def slow_targets(rows, next_q, gamma, lambda_):
    targets = np.zeros((LENGTH, NUM_ENVS))
    for n in range(NUM_ENVS):
        for t in reversed(range(LENGTH)):
            best = max(next_q[t, n])
            if rows.terminated[t, n]:
                following = 0.0
            elif rows.truncated[t, n] or t == LENGTH - 1:
                following = best
            else:
                following = (1 - lambda_) * best + lambda_ * targets[t + 1, n]
            targets[t, n] = rows.reward[t, n] + gamma * following
    return targets


def slow_radam(m, v, step):
    """The direction of Liu et al. (2020), algorithm 2, with its usual constants."""
    last = 2 / (1 - 0.999) - 1
    length = last - 2 * step * 0.999**step / (1 - 0.999**step)
    mean = m / (1 - 0.9**step)
    if length < 5:
        return mean
    r = np.sqrt((length - 4) * (length - 2) * last / ((last - 4) * (last - 2) * length))
    return r * mean / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)


def reference_update(params, rows, case):
    """An update with one minibatch an epoch: its loss and mean value, and the parameters after it, as a vector."""
    vector, unflat = flat(params)
    obs, next_obs = np.asarray(rows.obs, np.float64), np.asarray(rows.next_obs, np.float64)
    targets = slow_targets(rows, forward(unflat(vector), next_obs), case["gamma"], case["lambda_"])
    chosen = np.eye(3)[rows.action]

    def objective(vector):
        q = (forward(unflat(vector), obs) * chosen).sum(-1)
        return 0.5 * np.mean((q - targets) ** 2), q.mean()

    m, v, reports = np.zeros_like(vector), np.zeros_like(vector), []
    for step in range(1, case["num_epochs"] + 1):
        reports.append(objective(vector))
        grads, width = np.zeros_like(vector), 1e-6
        for i, unit in enumerate(np.eye(len(vector)) * width):
            grads[i] = (objective(vector + unit)[0] - objective(vector - unit)[0]) / (2 * width)
        grads *= min(1.0, case["max_grad_norm"] / np.linalg.norm(grads))
        m, v = 0.9 * m + 0.1 * grads, 0.999 * v + 0.001 * grads**2
        vector = vector - case["learning_rate"] * slow_radam(m, v, step)
    return *np.mean(reports, axis=0), vector


COMMON = {"gamma": 0.8, "learning_rate": 0.05}
CASES = {  # rectified Adam rescales from the sixth step on
    "layer norm": {"lambda_": 0.6, "max_grad_norm": 100.0, "layer_norm": True, "num_epochs": 8},
    "plain, clipped": {"lambda_": 0.9, "max_grad_norm": 0.2, "layer_norm": False, "num_epochs": 3},
    "one step": {"lambda_": 0.0, "max_grad_norm": 100.0, "layer_norm": True, "num_epochs": 1},
}


def fake_trajectory():
    """Random steps, with both kinds of ends; no observation follows from another."""
    rng = np.random.default_rng(2)
    lead = (LENGTH, NUM_ENVS)
    ends = rng.permutation(LENGTH * NUM_ENVS).reshape(lead)
    return Transition(
        obs=rng.uniform(-1, 1, (*lead, 2)).astype(np.float32),
        action=rng.integers(0, 3, lead).astype(np.int32),
        reward=rng.normal(size=lead).astype(np.float32),
        terminated=ends < 2,
        truncated=(ends >= 2) & (ends < 5),
        next_obs=rng.uniform(-1, 1, (*lead, 2)).astype(np.float32),
        extras={},
    )


@pytest.fixture(scope="module")
def updates():
    """Every case out of one compiled call: parameters before and after, and metrics."""

    @jax.jit
    def run(rows):
        def one(case):
            agent = pqn(
                **COMMON, **case, num_envs=NUM_ENVS, rollout_length=LENGTH, num_minibatches=1, hidden_sizes=(4,)
            )
            state = agent.init(jax.random.key(0), SPEC)
            # biases and scales of some size: as they begin, leaving them out would change nothing
            larger = lambda x: x + 0.3 * jnp.cos(jnp.arange(x.size)).reshape(x.shape)  # noqa: E731
            state = state._replace(params=jax.tree.map(larger, state.params))
            after, metrics = agent.update(state, rows, jax.random.key(1), jnp.int32(0))
            return state.params, after.params, metrics

        return {name: one(case) for name, case in CASES.items()}

    return jax.device_get(run(fake_trajectory()))


@pytest.mark.parametrize("name", CASES)
def test_update_against_numpy(updates, name):
    before, after, metrics = updates[name]
    rows, case = fake_trajectory(), COMMON | CASES[name]
    assert ("LayerNorm_0" in before["params"]["torso"]) == case["layer_norm"]
    loss, q_mean, expected = reference_update(before, rows, case)
    assert set(metrics) == {"loss", "q_mean", "epsilon"}
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-3)
    np.testing.assert_allclose(metrics["q_mean"], q_mean, rtol=1e-3)
    np.testing.assert_allclose(flat(after)[0], expected, atol=1e-3)
    assert np.abs(expected - flat(before)[0]).max() > 5e-3
    # Lambda, and each kind of end, can be seen in these numbers.
    never = np.zeros_like(rows.truncated)
    others = [(rows, case | {"lambda_": 0.3 if case["lambda_"] else 1.0})]
    if case["lambda_"]:
        others += [(rows._replace(terminated=never), case), (rows._replace(truncated=never), case)]
    for other_rows, other_case in others:
        assert abs(reference_update(before, other_rows, other_case)[0] - loss) > 5e-3 * loss


def test_ends_by_hand():
    """One environment, rewards of 1, and a network that values the action taken, its best, at 4 everywhere."""
    agent = pqn(
        num_envs=1, rollout_length=3, num_epochs=1, num_minibatches=1, gamma=0.5, lambda_=0.5, hidden_sizes=(2,)
    )
    state = agent.init(jax.random.key(0), SPEC)
    params = jax.tree.map(jnp.zeros_like, state.params)
    params["params"]["Dense_0"]["bias"] = jnp.array([4.0, -1.0, 2.0])
    state = state._replace(params=params)

    @jax.jit
    @jax.vmap
    def loss(terminated, truncated):
        column = lambda x: x[:, None]  # noqa: E731
        obs, zeros = jnp.ones((3, 1, 2)), jnp.zeros((3, 1), jnp.int32)
        rows = Transition(obs, zeros, jnp.ones((3, 1)), column(terminated), column(truncated), obs, {})
        return agent.update(state, rows, jax.random.key(0), jnp.int32(0))[1]["loss"]

    middle, never = np.array([False, True, False]), np.zeros(3, bool)
    found = loss(np.stack([never, middle, never]), np.stack([never, never, middle]))
    targets = np.array([[2.6875, 2.75, 3.0], [2.25, 1.0, 3.0], [2.75, 3.0, 3.0]])  # goes on, terminated, truncated
    np.testing.assert_allclose(found, 0.5 * ((4 - targets) ** 2).mean(1), rtol=1e-5)


# ---------------------------------------------------------------- schedules, in environment steps


def test_schedules():
    """How far one gradient step moves falls to 0 over `anneal_steps`, and epsilon's metric follows its own schedule."""
    rows = jax.tree.map(jnp.asarray, fake_trajectory())

    @jax.jit
    @jax.vmap
    def run(step, learning_rate):
        agent = pqn(
            learning_rate=learning_rate, anneal_steps=40, epsilon_start=0.9, epsilon_final=0.3, epsilon_decay_steps=20,
            num_envs=NUM_ENVS, rollout_length=LENGTH, num_epochs=1, num_minibatches=1, hidden_sizes=(4,),
        )  # fmt: skip
        state = agent.init(jax.random.key(0), SPEC)
        after, metrics = agent.update(state, rows, jax.random.key(1), step)
        return jax.tree.map(lambda x, y: x - y, after.params, state.params), metrics["epsilon"]

    steps = np.array([0, 10, 20, 30, 40, 1000, 0])
    moved, epsilons = run(steps, np.array([0.1] * 6 + [0.05]))
    np.testing.assert_allclose(epsilons, np.maximum(0.9 - 0.6 * steps / 20, 0.3), rtol=1e-6)
    for x in jax.tree.leaves(moved):
        share = np.array([1, 0.75, 0.5, 0.25, 0, 0, 0.5]).reshape(-1, *[1] * (x.ndim - 1))
        np.testing.assert_allclose(x, share * x[0], atol=1e-6)
    assert max(np.abs(x[0]).max() for x in jax.tree.leaves(moved)) > 1e-3


def test_acting():
    """Epsilon in `act` follows the step that it is given; without exploration it is 0 at any step."""
    agent = pqn(epsilon_start=1.0, epsilon_final=0.0, epsilon_decay_steps=100, hidden_sizes=(4,))
    state = agent.init(jax.random.key(0), SPEC)
    obs = jnp.broadcast_to(jnp.array([0.3, -0.7]), (4000, 2))

    @jax.jit
    def act(key, step):
        explored, memory, extras = agent.act(state, (), obs, key, step)
        assert memory == ()
        assert extras == {}
        return explored, agent.act(state, (), obs, key, step, explore=False)[0]

    best = forward(jax.tree.map(np.asarray, state.params["params"]), np.array([0.3, -0.7])).argmax()
    for step, epsilon in ((0, 1.0), (25, 0.75), (50, 0.5), (100, 0.0), (10_000, 0.0)):
        explored, without = act(jax.random.key(step), step)
        np.testing.assert_array_equal(without, best)
        departures = int((explored != best).sum())
        low, high = scipy.stats.binom.interval(1 - 1e-5, 4000, epsilon * 2 / 3)
        assert low <= departures <= high, (step, departures)


# ---------------------------------------------------------------- minibatches


def test_minibatches():
    """Each epoch has every step once, its fields together, in an order of its own; each carry enters the next."""
    data = {"a": jnp.arange(12).reshape(3, 4), "b": -jnp.arange(24.0).reshape(3, 4, 2)}
    learn = lambda carry, batch: (2 * carry + batch["a"][0], (carry, batch))  # noqa: E731

    def run(key):
        return scan_minibatches(learn, jnp.int32(1), data, key, num_epochs=5, num_minibatches=3)

    last, (carries, seen) = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 2))
    assert seen["a"].shape == (2, 15, 4)
    orders = np.asarray(seen["a"]).reshape(10, 12)
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.broadcast_to(np.arange(12), (10, 12)))
    assert len(np.unique(orders, axis=0)) == 10
    np.testing.assert_array_equal(seen["b"][..., 0], -2 * seen["a"])
    np.testing.assert_array_equal(seen["b"][..., 1], -2 * seen["a"] - 1)
    following = 2 * carries + seen["a"][..., 0]
    np.testing.assert_array_equal(carries[:, 0], 1)
    np.testing.assert_array_equal(carries[:, 1:], following[:, :-1])
    np.testing.assert_array_equal(last, following[:, -1])


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (lambda: pqn(hidden_sizes=(8, 0)), ["pqn: hidden_sizes[1]=0"]),
        (lambda: pqn(num_envs=5, rollout_length=2, num_minibatches=3), ["pqn: num_minibatches=3", "10"]),
        (lambda: pqn(torso="rnn").init(jax.random.key(0), SPEC), ["pqn: torso='rnn'"]),
        (
            lambda: pqn().init(jax.random.key(0), SPEC._replace(action_space=box(-1, 1, (1,)))),
            ["pqn: Fake-v0 has continuous actions", "discretize_actions"],
        ),
        (
            lambda: pqn().init(jax.random.key(0), SPEC._replace(obs_space=Discrete(4))),
            ["pqn: Fake-v0", "Discrete(n=4)", "flatten_observations"],
        ),
    ],
    ids=["hidden", "divides", "torso", "continuous", "integers"],
)
def test_other_errors(case, words):
    with pytest.raises(JaxrlError) as error:
        case()
    assert all(word in str(error.value) for word in words), error.value
