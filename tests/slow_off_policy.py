"""DDPG's, TD3's and SAC's networks and gradient steps in NumPy and float64, and batches to compare them on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.networks import make_critics
from jaxrl.replay import Replay, Sample
from jaxrl.types import Spec, Transition, box

BOUNDS = np.array([[-2.0, 0.0], [2.0, 10.0]], np.float32)  # of the actions; not symmetric
SPEC = Spec("Fake-v0", box(-1, 1, (2,)), box(*BOUNDS, (2,)))
HIDDEN, GAMMA, BATCH, LENGTH = 4, 0.7, 6, 3
SIZES = {"warmup_steps": 1, "batch_size": 1, "hidden_sizes": (HIDDEN,), "gamma": GAMMA}
STEP = 1  # an update's first environment step, so that the gradient steps do not begin with number 0


# ---------------------------------------------------------------- what is learnt from


def sample(seed=0):
    """Stretches of `LENGTH` steps, of which some end or are cut off; the weights are not 1."""
    rng = np.random.default_rng(seed)
    ends = np.array([0, 0, 1, 1, 2, 2])  # the step at which each of them ends, if it does
    at = np.arange(LENGTH) == ends[:, None]
    steps = Transition(
        obs=rng.uniform(-1, 1, (BATCH, LENGTH, 2)).astype(np.float32),
        action=rng.uniform(*BOUNDS, (BATCH, LENGTH, 2)).astype(np.float32),
        reward=rng.normal(size=(BATCH, LENGTH)).astype(np.float32) * 2,
        terminated=at & (np.arange(BATCH) % 2 == 0)[:, None],
        truncated=at & (np.arange(BATCH) == 3)[:, None],  # 1 and 5 go on: what follows 1 has not happened yet
        next_obs=rng.uniform(-1, 1, (BATCH, LENGTH, 2)).astype(np.float32),
        extras={},
    )
    weights = rng.uniform(0.2, 1.0, BATCH).astype(np.float32)
    return Sample(steps, np.arange(LENGTH) <= ends[:, None], np.arange(BATCH, dtype=np.int32), weights)


def trajectory(length, num_envs):
    """What is added to a replay, `[length, num_envs, ...]`; a reward is the number of its transition, from 1 on."""
    shape = (length, num_envs)
    flags = jnp.zeros(shape, bool)
    obs = jnp.zeros((*shape, 2))
    reward = 1.0 + jnp.arange(length * num_envs).reshape(shape)
    return Transition(obs, obs, reward, flags, flags, obs, {"kept": 2 * reward, "left": reward})


def always(drawn, gradient_steps):
    """A replay that gives one sample again and again; its state is the errors that came back last, of each step."""

    def draw(state, key, step, length=1):
        steps = jax.tree.map(lambda x: x[:, :length], drawn.steps)
        return Sample(steps, drawn.valid[:, :length], drawn.indices, drawn.weights)

    return Replay(
        init=lambda trajectory, spec: jnp.zeros(gradient_steps * BATCH),
        add=lambda state, trajectory, step: state,
        sample=draw,
        update=lambda state, indices, errors: jnp.concatenate(
            [state[BATCH:], jnp.where(indices == drawn.indices, errors, -1)]
        ),
    )


def n_steps(drawn, n):
    """(obs, action in [-1, 1], reward, discount, next obs) of each stretch, by going through it step by step."""
    rows = []
    low, high = BOUNDS.astype(np.float64)
    for b in range(BATCH):
        total, discount = 0.0, 1.0
        for k in range(n):
            step = jax.tree.map(lambda x: np.asarray(x[b, k], np.float64), drawn.steps)
            total, discount = total + discount * step.reward, discount * GAMMA
            if step.terminated:
                discount = 0.0
            if step.terminated or step.truncated or k + 1 == n or not drawn.valid[b, k + 1]:
                break
        action = np.asarray(drawn.steps.action[b, 0], np.float64)
        rows.append((drawn.steps.obs[b, 0], (action - (low + high) / 2) / ((high - low) / 2), total, discount))
        rows[-1] += (step.next_obs,)
    return [np.asarray(x, np.float64) for x in zip(*rows, strict=True)]


# ---------------------------------------------------------------- networks


def shapes(agent, spec=SPEC):
    """Of the agent's state."""
    return jax.eval_shape(lambda: agent.init(jax.random.key(0), spec))


def zeros(agent, spec=SPEC):
    """A state of zeros, which is how its optimisers start."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes(agent, spec))


def drawn_like(shapes, seed, scale=0.7):
    """Parameters of these shapes at random, biases and all."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda like: (rng.normal(size=like.shape) * scale).astype(np.float32), shapes)


def first(params, n):
    """The first n of an ensemble's critics."""
    return jax.tree.map(lambda x: x[:n], params)


def flat(params):
    """The parameters as one float64 vector, and a function that undoes it."""
    leaves, structure = jax.tree.flatten(params)
    shapes = [np.shape(x) for x in leaves]
    sizes = np.cumsum([np.size(x) for x in leaves])[:-1]

    def unflat(vector):
        parts = np.split(vector, sizes)
        return jax.tree.unflatten(structure, [x.reshape(s) for x, s in zip(parts, shapes, strict=True)])

    return np.concatenate([np.asarray(x, np.float64).ravel() for x in leaves]), unflat


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def hidden(torso, x, masks=1.0):
    """One layer of rectifiers; `masks` is 0 where a unit is dropped and else 1 / (1 - p)."""
    x = dense(torso["Dense_0"], x) * masks
    if "LayerNorm_0" in torso:
        norm = torso["LayerNorm_0"]
        deviation = x - x.mean(-1, keepdims=True)
        x = deviation / np.sqrt((deviation**2).mean(-1, keepdims=True) + 1e-6) * norm["scale"] + norm["bias"]
    return np.maximum(x, 0.0)


def output(params, obs):
    return dense(params["params"]["output"], hidden(params["params"]["torso"], obs))


def q_values(params, obs, action, masks=None):
    """One critic after the other: `[n, B]`."""
    n = params["params"]["output"]["bias"].shape[0]
    rows = []
    for i in range(n):
        one = jax.tree.map(lambda x: x[i], params["params"])
        features = hidden(one["torso"], np.concatenate([obs, action], -1), 1.0 if masks is None else masks[i])
        rows.append(dense(one["output"], features)[:, 0])
    return np.stack(rows)


def squashed(params, obs, noise):
    """An action that the policy draws with this noise, `[B, A]`, and the logarithm of its density, `[B]`."""
    mean, log_std = np.split(output(params, obs), 2, -1)
    log_std = np.clip(log_std, -20, 2)
    u = mean + np.exp(log_std) * noise
    log_normal = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)
    return np.tanh(u), (log_normal - np.log(1 - np.tanh(u) ** 2)).sum(-1)


def masks_of(key, n, dropout):
    """What an ensemble of n critics drops with this key, `[n, B, HIDDEN]`, read off networks that give it away."""
    code = np.rint(_sums_of_powers(n, dropout)(key) * (1 - dropout)).astype(int)
    return (code[..., None] >> np.arange(HIDDEN) & 1) / (1 - dropout)


@functools.cache
def _sums_of_powers(n, dropout):
    """An ensemble in which each unit that is not dropped adds a power of 2, as a function of the key."""
    critics = make_critics("test", SPEC, "mlp", (HIDDEN,), "relu", dropout=dropout)(n)
    obs, action = jnp.zeros((BATCH, 2)), jnp.zeros((BATCH, 2))
    like = jax.eval_shape(lambda: critics.init(jax.random.key(0), obs, action))
    params = jax.tree.map(lambda x: jnp.zeros(x.shape), like)
    params["params"]["torso"]["Dense_0"]["bias"] += 1.0
    params["params"]["output"]["kernel"] += 2.0 ** jnp.arange(HIDDEN)[:, None]
    return jax.jit(lambda key: critics.apply(params, obs, action, rngs={"dropout": key}))


# ---------------------------------------------------------------- gradient steps


def gradient(function, vector, width=1e-6):
    """By central differences."""
    units = np.eye(len(vector)) * width
    return np.array([(function(vector + unit) - function(vector - unit)) / (2 * width) for unit in units])


class Network:
    """Parameters as a vector, and Adam on them (Kingma and Ba 2015, algorithm 1)."""

    def __init__(self, params, learning_rate):
        self.vector, self.unflat = flat(params)
        self.learning_rate, self.steps, self.m, self.v = learning_rate, 0, 0.0, 0.0

    @property
    def params(self):
        return self.unflat(self.vector)

    def descend(self, loss):
        """A step down the loss of the parameters."""
        grads = gradient(lambda vector: loss(self.unflat(vector)), self.vector)
        self.steps += 1
        self.m, self.v = 0.9 * self.m + 0.1 * grads, 0.999 * self.v + 0.001 * grads**2
        direction = (self.m / (1 - 0.9**self.steps)) / (np.sqrt(self.v / (1 - 0.999**self.steps)) + 1e-8)
        self.vector = self.vector - self.learning_rate * direction


def moved(target, network, tau):
    """A target network's parameters after it moved towards the online one."""
    return jax.tree.map(lambda t, p: (1 - tau) * t + tau * p, target, network.params)


def step_keys(key, gradient_steps):
    """The keys of an update's gradient steps: of each step's two the second one, the first being the replay's."""
    return [jax.random.split(k)[1] for k in jax.random.split(key, gradient_steps)]


def close(got, wanted, **tolerance):
    """Compares two trees of parameters, leaf by leaf."""
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, **tolerance)
