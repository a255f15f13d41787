"""Neural fitted Q iteration: each update against NumPy, which steps it fits, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import JaxrlError
from jaxrl.agents.value_based.nfq import nfq
from jaxrl.types import Discrete, Spec, Transition, box

SPEC = Spec("Fake-v0", box(-1, 1, (2,)), Discrete(3), 2)

# ---------------------------------------------------------------- updates, against NumPy in float64


def flat(params):
    torso, head = params["params"]["torso"]["Dense_0"], params["params"]["Dense_0"]
    return [np.asarray(x, np.float64) for x in (torso["kernel"], torso["bias"], head["kernel"], head["bias"])]


def forward(params, obs):
    hidden = np.tanh(obs @ params[0] + params[1])
    return hidden @ params[2] + params[3], hidden


class Rprop:
    """Riedmiller and Braun (1993) in the form without weight-backtracking (Igel and Huesken 2003, iRprop-)."""

    def __init__(self, params, rate):
        self.sizes, self.before = [np.full_like(p, rate) for p in params], [np.zeros_like(p) for p in params]

    def __call__(self, params, grads):
        new = []
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            agree = g * self.before[i]
            self.sizes[i] = np.where(
                agree > 0, self.sizes[i] * 1.2, np.where(agree < 0, self.sizes[i] * 0.5, self.sizes[i])
            )
            g = np.where(agree < 0, 0, g)
            new.append(p - self.sizes[i] * np.sign(g))
            self.before[i] = g
        return new


class Adam:
    """Kingma and Ba (2015), with a rate that falls to 0 over the fit."""

    def __init__(self, params, rate):
        self.m, self.v = [0 * p for p in params], [0 * p for p in params]
        self.rate, self.count = rate, 0

    def __call__(self, params, grads):
        rate = self.rate * (1 - self.count / NUM_GRADIENT_STEPS)
        self.count += 1
        self.m = [0.9 * m + 0.1 * g for m, g in zip(self.m, grads, strict=True)]
        self.v = [0.999 * v + 0.001 * g**2 for v, g in zip(self.v, grads, strict=True)]
        scales = 1 - 0.9**self.count, 1 - 0.999**self.count
        return [
            p - rate * (m / scales[0]) / (np.sqrt(v / scales[1]) + 1e-8)
            for p, m, v in zip(params, self.m, self.v, strict=True)
        ]


def reference_update(params, data, make_optimizer):
    """Fitted Q on these steps: metrics of the last gradient step, and the parameters after it."""
    obs, action, reward, terminated, next_obs = data
    size = len(action)
    for _ in range(NUM_ITERATIONS):
        target = reward + np.where(terminated, 0, GAMMA * forward(params, next_obs)[0].max(1))
        optimizer = make_optimizer(params, RATE)
        for _ in range(NUM_GRADIENT_STEPS):
            q, hidden = forward(params, obs)
            taken = q[np.arange(size), action]
            loss, q_mean = 0.5 * np.mean((taken - target) ** 2), taken.mean()
            d_q = np.zeros_like(q)
            d_q[np.arange(size), action] = (taken - target) / size
            d_hidden = d_q @ params[2].T * (1 - hidden**2)
            params = optimizer(params, [obs.T @ d_hidden, d_hidden.sum(0), hidden.T @ d_q, d_q.sum(0)])
    return loss, q_mean, params


GAMMA, RATE, NUM_ITERATIONS, NUM_GRADIENT_STEPS = 0.8, 0.02, 3, 4
NUM_ENVS, LENGTH, NUM_UPDATES = 2, 4, 3
SIZE = 2 * NUM_ENVS * LENGTH  # the third update overwrites what the first brought
CASES = {"rprop": Rprop, "adam": Adam}


def experience():
    """`[NUM_UPDATES * LENGTH, NUM_ENVS]` steps: every other one ends an episode, terminated or truncated."""
    rng = np.random.default_rng(0)
    rows = NUM_UPDATES * LENGTH
    obs = rng.uniform(-1, 1, (rows + 1, NUM_ENVS, 2)).astype(np.float32)
    ends = (np.arange(rows) % 2 == 1)[:, None]
    terminated = ends & (rng.random((rows, NUM_ENVS)) < 0.5)
    truncated = ends & ~terminated
    assert terminated.sum() > 3
    assert truncated.sum() > 3
    last = rng.uniform(-1, 1, (rows, NUM_ENVS, 2)).astype(np.float32)
    next_obs = np.where(truncated[..., None], last, obs[1:])  # a truncated episode's last observation is its own
    action = rng.integers(0, 3, (rows, NUM_ENVS)).astype(np.int32)
    reward = rng.normal(size=(rows, NUM_ENVS)).astype(np.float32)
    return Transition(obs[:-1], action, reward, terminated, truncated, next_obs, {"episode_return": reward})


@pytest.fixture(scope="module")
def histories():
    """For both optimisers, parameters before and after each update, and metrics; out of one compiled call."""

    def run(name, chunks):
        agent = nfq(
            optimizer=name, learning_rate=RATE, gamma=GAMMA, num_iterations=NUM_ITERATIONS, hidden_sizes=(5,),
            num_gradient_steps=NUM_GRADIENT_STEPS, replay_size=SIZE, num_envs=NUM_ENVS, rollout_length=LENGTH,
            epsilon_start=0.9, epsilon_final=0.3, epsilon_decay_steps=20,
        )  # fmt: skip

        def body(carry, trajectory):
            state, step = carry
            new, metrics = agent.update(state, trajectory, jax.random.key(1), step)
            return (new, step + NUM_ENVS * LENGTH), (state.params, new.params, metrics)

        return jax.lax.scan(body, (agent.init(jax.random.key(0), SPEC), jnp.int32(0)), chunks)[1]

    chunks = jax.tree.map(lambda x: x.reshape(NUM_UPDATES, LENGTH, *x.shape[1:]), experience())
    return jax.device_get(jax.jit(lambda chunks: {name: run(name, chunks) for name in CASES})(chunks))


@pytest.mark.parametrize("name", CASES)
def test_update_against_numpy(histories, name):
    """Only the newest of what has been seen counts; truncated episodes bootstrap, terminated ones do not."""
    before, after, metrics = histories[name]
    everything = experience()
    for update in range(NUM_UPDATES):
        rows = slice(max(0, update - 1) * LENGTH, (update + 1) * LENGTH)
        fields = (everything.obs, everything.action, everything.reward, everything.terminated, everything.next_obs)
        data = [x[rows].reshape(-1, *x.shape[2:]) for x in fields]
        start, end = (flat(jax.tree.map(lambda x, u=update: x[u], params)) for params in (before, after))
        loss, q_mean, expected = reference_update(start, data, CASES[name])
        np.testing.assert_allclose(metrics["loss"][update], loss, rtol=1e-4)
        np.testing.assert_allclose(metrics["q_mean"][update], q_mean, rtol=1e-4, atol=1e-5)
        for got, want in zip(end, expected, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-4)


def test_epsilon_falls_with_environment_steps(histories):
    step = NUM_ENVS * LENGTH * np.arange(NUM_UPDATES)
    expected = np.maximum(0.9 - 0.6 * step / 20, 0.3)
    np.testing.assert_allclose(histories["adam"][2]["epsilon"], expected, rtol=1e-6)


def test_a_batch_is_drawn_from_what_has_been_seen():
    """Of equal steps a batch of one is as good as all of them, but not one of a slot that nothing is in yet."""
    one = jax.tree.map(lambda x: jnp.broadcast_to(x[:1, :1], (LENGTH, NUM_ENVS, *x.shape[2:])), experience())

    def run(batch_size):
        agent = nfq(
            optimizer="adam", num_iterations=2, num_gradient_steps=20, batch_size=batch_size, replay_size=4 * SIZE,
            num_envs=NUM_ENVS, rollout_length=LENGTH, hidden_sizes=(5,),
        )  # fmt: skip
        return agent.update(agent.init(jax.random.key(0), SPEC), one, jax.random.key(1), jnp.int32(0))[0].params

    drawn, everything = jax.jit(lambda: (run(1), run(0)))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.01), drawn, everything)


@pytest.mark.parametrize(
    ("fit", "within"),
    [
        ({"num_gradient_steps": 40}, 0.01),
        ({"num_gradient_steps": 600, "optimizer": "adam", "batch_size": 6, "learning_rate": 3e-3}, 0.03),
    ],
    ids=["rprop", "batches"],
)
def test_fits_reach_the_fixed_point(fit, within):
    """A chain of three states, of which the last step terminates: all values."""
    agent = nfq(gamma=0.5, num_iterations=10, replay_size=12, rollout_length=12, hidden_sizes=(8,), **fit)
    spec = SPEC._replace(obs_space=box(0, 1, (3,)), action_space=Discrete(2), max_steps=None)
    places, action = np.repeat(np.arange(3), 4), np.arange(12) % 2
    obs = np.eye(4, 3, dtype=np.float32)  # what follows the last is never looked at
    reward = (places == 2) * np.where(action == 1, 4.0, 2.0)
    never = np.zeros(12, bool)
    chain = Transition(obs[places], action, reward, places == 2, never, obs[(places + 1)], {})
    chain = jax.tree.map(lambda x: jnp.asarray(x)[:, None], chain)
    chain = chain._replace(reward=chain.reward.astype(jnp.float32), action=chain.action.astype(jnp.int32))

    @jax.jit
    def run(key):
        state, _ = agent.update(agent.init(key, spec), chain, key, jnp.int32(0))
        obs, key = jnp.broadcast_to(jnp.eye(3)[2], (100, 3)), jax.random.key(1)
        greedy = agent.act(state, (), obs, key, jnp.int32(0), explore=False)
        return state, greedy[0], agent.act(state, (), obs, key, jnp.int32(0))[0]

    state, greedy, explored = run(jax.random.key(0))
    params = flat(jax.tree.map(np.asarray, state.params))
    np.testing.assert_allclose(forward(params, np.eye(3))[0], [[1, 1], [2, 2], [2, 4]], atol=within)
    assert (greedy == 1).all()
    assert 20 < explored.sum() < 80  # epsilon is 1 at the first step


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (lambda: nfq(hidden_sizes=(8, 0)), ["nfq: hidden_sizes[1]=0"]),
        (lambda: nfq(replay_size=700), ["nfq: replay_size=700", "a multiple of num_envs * rollout_length", "500"]),
        (
            lambda: nfq().init(jax.random.key(0), SPEC._replace(action_space=box(-1, 1, (1,)))),
            ["nfq: Fake-v0 has continuous actions", "discretize_actions"],
        ),
        (
            lambda: nfq().init(jax.random.key(0), SPEC._replace(obs_space=Discrete(4))),
            ["nfq: Fake-v0", "Discrete(n=4)", "flatten_observations"],
        ),
    ],
    ids=["hidden", "multiple", "continuous", "integers"],
)
def test_other_errors(case, words):
    with pytest.raises(JaxrlError) as error:
        case()
    assert all(word in str(error.value) for word in words), error.value


def test_rprop_is_not_for_batches():
    with pytest.raises(JaxrlError, match="nfq: batch_size=64 is not accepted with optimizer='rprop'; it must be 0"):
        nfq(batch_size=64)
