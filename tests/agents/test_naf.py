"""NAF: each update against NumPy, what it does to the environment and remembers of it, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import JaxrlError, init_train, make, train_step
from jaxrl.agents.value_based.naf import NAFNetwork, Quadratic, naf, q_value
from jaxrl.learning.action_noise import MAX_ACTION_SIZE
from jaxrl.learning.action_scale import from_action_space, to_action_space
from jaxrl.networks import MLP
from jaxrl.types import Discrete, Spec, Transition, box

BOUNDS = np.array([[-2.0, 0.0], [2.0, 10.0]], np.float32)
SPEC = Spec("Fake-v0", box(-1, 1, (2,)), box(*BOUNDS, (2,)))


def drawn(shapes, seed):
    """Parameters of a scale at which everything counts, the biases and the small heads too."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda like: rng.normal(size=like.shape).astype(np.float32) * 0.6, shapes)


# ---------------------------------------------------------------- the action values


def slow_q(value, mean, tril, action):
    """The formula as it is written, one state at a time, with P in full."""
    return value - 0.5 * (action - mean) @ (tril @ tril.T) @ (action - mean)


def test_q_value_by_hand():
    """P = [[1, 2], [2, 13]], a - mu = (1, -1): 5 - (1 - 2 - 2 + 13) / 2 = 0; with L^T L for P it would be 4."""
    tril = jnp.array([[1.0, 0.0], [2.0, 3.0]])
    quadratic = Quadratic(jnp.array(5.0), jnp.array([0.5, 0.5]), tril)
    assert float(q_value(quadratic, jnp.array([1.5, -0.5]))) == 0.0
    assert float(q_value(quadratic, quadratic.mean)) == 5.0


def test_network():
    """V is the greatest value, mu is bounded and has it, and L is lower-triangular with a positive diagonal."""
    network = NAFNetwork(MLP((8,)), 3)

    @jax.jit
    def run(params, obs, actions):
        out = network.apply(params, obs)
        return out, jax.vmap(q_value, (None, 0))(out, actions), q_value(out, out.mean)

    rng = np.random.default_rng(0)
    obs = rng.normal(size=(5, 2)).astype(np.float32)
    actions = rng.uniform(-1, 1, (50, 5, 3)).astype(np.float32)
    params = drawn(jax.eval_shape(network.init, jax.random.key(0), obs), 0)
    out, q, best = run(params, obs, actions)
    assert (out.value.shape, out.mean.shape, out.tril.shape) == ((5,), (5, 3), (5, 3, 3))
    assert (np.abs(out.mean) < 1).all()
    assert (np.triu(out.tril, 1) == 0).all()
    assert (np.abs(np.asarray(out.tril)[:, *np.tril_indices(3)]) > 0).all()
    assert (np.diagonal(out.tril, axis1=1, axis2=2) > 0).all()
    assert (q < out.value).all()
    np.testing.assert_allclose(best, out.value, rtol=1e-6)
    wide = [np.asarray(x, np.float64) for x in out]
    slow = [[slow_q(*(x[i] for x in wide), np.asarray(a[i], np.float64)) for i in range(5)] for a in actions]
    np.testing.assert_allclose(q, slow, rtol=1e-4, atol=1e-4)


def test_actions_there_and_back():
    policy = np.array([[-1.0, -0.5], [0.0, 1.0], [0.25, 0.75]], np.float32)
    actions = np.array([[-2.0, 2.5], [0.0, 10.0], [0.5, 8.75]], np.float32)
    np.testing.assert_allclose(from_action_space(actions, SPEC.action_space), policy, atol=1e-6)
    np.testing.assert_allclose(to_action_space(policy, SPEC.action_space), actions, atol=1e-6)


# ---------------------------------------------------------------- one update, against NumPy in float64

LAYERS = ("value", "mean", "tril")


def flat(params):
    params = params["params"]
    layers = [params["torso"]["Dense_0"], *(params[name] for name in LAYERS)]
    return [np.asarray(layer[part], np.float64) for layer in layers for part in ("kernel", "bias")]


def forward(params, obs):
    """V, mu and L in one state, of a network with one hidden layer of tanh."""
    w, b, value_w, value_b, mean_w, mean_b, tril_w, tril_b = params
    hidden = np.tanh(obs @ w + b)
    entries = (hidden @ tril_w + tril_b).reshape(2, 2)
    tril = np.tril(entries, -1) + np.diag(np.exp(np.diag(entries)))
    return (hidden @ value_w + value_b)[0], np.tanh(hidden @ mean_w + mean_b), tril


def numeric_gradient(function, params, eps=1e-6):
    grads = [np.zeros_like(p) for p in params]
    for param, grad in zip(params, grads, strict=True):
        for i in np.ndindex(param.shape):
            kept = param[i]
            param[i] = kept + eps
            above = function(params)
            param[i] = kept - eps
            grad[i] = (above - function(params)) / (2 * eps)
            param[i] = kept
    return grads


def reference_update(params, target_params, row, *, loss, gamma, learning_rate, max_grad_norm, gradient_steps, tau):
    """What an update on a replay that holds one transition does: its metrics, and both networks after it."""
    obs, action, reward, terminated, next_obs = (np.asarray(x, np.float64) for x in row)
    low, high = BOUNDS.astype(np.float64)
    action = (action - (low + high) / 2) / ((high - low) / 2)
    target = reward + (0.0 if terminated else gamma * forward(target_params, next_obs)[0])
    m, v = [np.zeros_like(p) for p in params], [np.zeros_like(p) for p in params]
    params, losses, qs = [p.copy() for p in params], [], []

    def td_loss(params):
        error = slow_q(*forward(params, obs), action) - target
        return 0.5 * error**2 if loss == "squared" or abs(error) <= 1 else abs(error) - 0.5

    for step in range(1, gradient_steps + 1):
        losses.append(td_loss(params))
        qs.append(slow_q(*forward(params, obs), action))
        grads = numeric_gradient(td_loss, params)
        norm = np.sqrt(sum((g**2).sum() for g in grads))
        grads = [g * min(1, max_grad_norm / norm) for g in grads]
        m = [0.9 * x + 0.1 * g for x, g in zip(m, grads, strict=True)]
        v = [0.999 * x + 0.001 * g**2 for x, g in zip(v, grads, strict=True)]
        steps = [(x / (1 - 0.9**step)) / (np.sqrt(y / (1 - 0.999**step)) + 1e-8) for x, y in zip(m, v, strict=True)]
        params = [p - learning_rate * s for p, s in zip(params, steps, strict=True)]
    moved = [tau * p + (1 - tau) * t for p, t in zip(params, target_params, strict=True)]
    return np.mean(losses), np.mean(qs), params, moved


CASES = {
    "squared": {"loss": "squared", "max_grad_norm": 0.3},
    "huber": {"loss": "huber", "max_grad_norm": 100.0},
}
COMMON = {"gamma": 0.7, "learning_rate": 0.05, "tau": 0.1}
NUM_ROWS = 9


def transitions():
    """`NUM_ROWS` transitions; a third each terminates, is truncated, and goes on."""
    rng = np.random.default_rng(0)
    kind = np.arange(NUM_ROWS) % 3
    return Transition(
        obs=rng.uniform(-1, 1, (NUM_ROWS, 2)).astype(np.float32),
        action=rng.uniform(*BOUNDS, (NUM_ROWS, 2)).astype(np.float32),
        reward=rng.normal(size=NUM_ROWS).astype(np.float32) * 1.5,
        terminated=kind == 0,
        truncated=kind == 1,
        next_obs=rng.uniform(-1, 1, (NUM_ROWS, 2)).astype(np.float32),
        extras={},
    )


@pytest.fixture(scope="module")
def updates():
    """Every case on every transition, out of one compiled call: states before and after, and metrics."""

    agents = {
        name: naf(
            **case, **COMMON, replay_ratio=3, replay_size=4, batch_size=1, warmup_steps=1, hidden_sizes=(4,),
            activation="tanh",
        )
        for name, case in CASES.items()
    }  # fmt: skip

    def one(agent, state, row):
        trajectory = jax.tree.map(lambda x: x[None, None], row)
        return agent.update(state, trajectory, jax.random.key(2), jnp.int32(0))

    @jax.jit
    def run(rows, params, target_params):
        state = agents["huber"].init(jax.random.key(1), SPEC)._replace(params=params, target_params=target_params)
        return state, {
            name: jax.vmap(lambda row, agent=agent: one(agent, state, row))(rows) for name, agent in agents.items()
        }

    shapes = jax.eval_shape(lambda: agents["huber"].init(jax.random.key(1), SPEC).params)
    return jax.device_get(run(transitions(), drawn(shapes, 0), drawn(shapes, 1)))


@pytest.mark.parametrize("name", CASES)
def test_update_against_numpy(updates, name):
    before, (after, metrics) = updates[0], updates[1][name]
    rows = transitions()
    online, target = flat(before.params), flat(before.target_params)
    losses = []
    for i in range(NUM_ROWS):
        result, target_result = (
            flat(jax.tree.map(lambda x: x[i], params)) for params in (after.params, after.target_params)
        )
        row = (rows.obs[i], rows.action[i], rows.reward[i], rows.terminated[i], rows.next_obs[i])
        loss, q, expected, moved = reference_update(online, target, row, **CASES[name], **COMMON, gradient_steps=3)
        np.testing.assert_allclose(metrics["loss"][i], loss, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(metrics["q_mean"][i], q, rtol=1e-3, atol=1e-5)
        for got, want in zip(result + target_result, expected + moved, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-3)
        losses.append(loss)
    assert max(losses) > 0.6
    if name == "huber":  # both of its branches were taken
        assert min(losses) < 0.4


def test_no_gradient_where_the_exponent_overflows():
    """What lies off L's diagonal is not exponentiated, nor is its gradient."""
    network = NAFNetwork(MLP((2,)), 2)

    @jax.jit
    def gradient(params):
        return jax.grad(lambda params: network.apply(params, jnp.ones((1, 2))).tril.sum())(params)

    params = drawn(jax.eval_shape(network.init, jax.random.key(0), jnp.ones((1, 2))), 0)
    params["params"]["tril"]["bias"] = np.array([0.0, 0.0, 200.0, 0.0], np.float32)  # L[1, 0]
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient(params)))


# ---------------------------------------------------------------- acting

NUM_ENVS = 2000


@pytest.fixture(scope="module")
def acts():
    """For each noise: greedy actions, and explored ones at steps 0, 50 and 100 with the memory after each."""

    def run(noise):
        agent = naf(noise=noise, noise_scale=0.2, noise_final=0.1, noise_decay_steps=100, hidden_sizes=(4,))
        state = agent.init(jax.random.key(0), SPEC)
        obs = jnp.broadcast_to(jnp.array([0.3, -0.7]), (NUM_ENVS, 2))
        memory = agent.init_memory(NUM_ENVS)
        greedy, kept, extras = agent.act(state, memory, obs, jax.random.key(1), 0, explore=False)
        assert extras == {}
        explored = []
        for step in (0, 50, 100):
            action, memory, extras = agent.act(state, memory, obs, jax.random.key(step), step)
            assert extras == {}
            explored.append((action, memory))
        return greedy, kept, explored

    return jax.device_get(jax.jit(lambda: {noise: run(noise) for noise in ("gaussian", "ornstein_uhlenbeck")})())


def departures(acts, noise):
    """How far each action is from the greedy one, in units of [-1, 1]: `[3, NUM_ENVS, 2]`."""
    greedy, _, explored = acts[noise]
    return np.stack([2 * (action - greedy) / (BOUNDS[1] - BOUNDS[0]) for action, _ in explored])


def test_gaussian_noise(acts):
    greedy, kept, explored = acts["gaussian"]
    assert (greedy == greedy[0]).all()
    assert kept == ()
    assert all(memory == () for _, memory in explored)
    noise = departures(acts, "gaussian")
    np.testing.assert_allclose(noise.std(axis=(1, 2)), [0.2, 0.15, 0.1], rtol=0.08)
    assert np.abs(noise.mean(axis=(1, 2))).max() < 0.015
    assert abs(np.corrcoef(noise[:, :, 0].ravel(), noise[:, :, 1].ravel())[0, 1]) < 0.06


def test_ornstein_uhlenbeck_noise(acts):
    greedy, kept, explored = acts["ornstein_uhlenbeck"]
    assert (greedy == greedy[0]).all()
    assert kept.shape == (NUM_ENVS, MAX_ACTION_SIZE)
    assert (kept == 0).all()  # greedy actions leave it as it is
    noise = departures(acts, "ornstein_uhlenbeck")
    for scale, row, (_, memory) in zip([0.2, 0.15, 0.1], noise, explored, strict=True):
        np.testing.assert_allclose(row, scale * memory[:, :2], atol=1e-5)
        assert (memory[:, 2:] == 0).all()
    rising = np.sqrt(1 - 0.85 ** (2 * np.arange(1, 4)))
    np.testing.assert_allclose(noise.std(axis=(1, 2)), rising * [0.2, 0.15, 0.1], rtol=0.08)
    assert np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1] > 0.5


def test_what_was_done_is_what_is_learnt():
    """Noise far beyond the bounds: the replay keeps the actions that the rewards came from, and noise starts anew."""
    env = make("jaxrl/Probe-policy-v0", continuous=True)
    agent = naf(
        noise="ornstein_uhlenbeck", noise_scale=5.0, num_envs=4, rollout_length=2, replay_size=64, batch_size=8,
        replay_ratio=0.125, warmup_steps=8, noise_final=1.0, noise_decay_steps=80, hidden_sizes=(4,),
    )  # fmt: skip

    def run(key):
        return jax.lax.scan(lambda s, _: train_step(s, agent, env), init_train(key, agent, env), length=8)

    state, metrics = jax.device_get(jax.jit(run)(jax.random.key(0)))
    held = state.agent.replay
    action, obs, reward = held.rest.action, held.obs, held.rest.reward
    np.testing.assert_allclose(reward, -np.square(action[:, 0] - 0.5 * obs[:, 0]), atol=1e-6)
    assert np.abs(action).max() == 1.0
    assert (np.abs(action) == 1.0).mean() < 0.9
    assert (state.memory == 0).all()  # every step of this environment ends an episode
    np.testing.assert_allclose(metrics["noise"], 5.0 - 4.0 * np.arange(8) * 8 / 80, rtol=1e-6)
    assert np.isfinite(metrics["loss"]).all()


# ---------------------------------------------------------------- errors


def init_with(action_space, **arguments):
    return lambda: naf(**arguments).init(jax.random.key(0), SPEC._replace(action_space=action_space))


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (lambda: naf(hidden_sizes=(8, 0)), ["naf: hidden_sizes[1]=0"]),
        (lambda: naf(replay_size=100, num_envs=3), ["naf: replay_size=100", "a multiple of", "3"]),
        (lambda: naf(batch_size=2000), ["naf: batch_size=2000", "warmup_steps=1000"]),
        (init_with(Discrete(2)), ["naf: Fake-v0 has discrete actions", "dqn"]),
        (init_with(box(-1, 1, (2, 2))), ["naf: Fake-v0 has actions of shape (2, 2)", "vectors"]),
        (init_with(box(-1, np.inf, (1,))), ["naf: Fake-v0 has actions between [-1.0] and [inf]", "finite"]),
        (init_with(box(0, [0, 1], (2,))), ["between [0.0, 0.0] and [0.0, 1.0]", "below"]),
        (init_with(box(-1, 1, (65,)), noise="ornstein_uhlenbeck"), ["noise='ornstein_uhlenbeck'", "65", "64"]),
        (
            lambda: naf().init(jax.random.key(0), SPEC._replace(obs_space=Discrete(4))),
            ["naf: Fake-v0", "Discrete(n=4)", "flatten_observations"],
        ),
    ],
    ids=["hidden", "multiple", "batch", "discrete", "matrix", "unbounded", "empty", "wide", "integers"],
)
def test_other_errors(case, words):
    with pytest.raises(JaxrlError) as error:
        case()
    assert all(word in str(error.value) for word in words), error.value
