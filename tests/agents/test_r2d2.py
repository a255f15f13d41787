"""R2D2: each update against NumPy on hand-made stretches, the memory that the replay keeps, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import JaxrlError, evaluate, init_train, make, train
from jaxrl.agents.value_based.r2d2 import r2d2, rescale_value, unscale_value
from jaxrl.loop import collect, keys_per_step
from jaxrl.networks import make_recurrent_q_network
from jaxrl.replay import Replay, Sample
from jaxrl.replay.prioritized import PrioritizedState
from jaxrl.types import Discrete, Env, Outcome, Spec, Transition, box

SPEC = Spec("Fake-v0", box(-1, 1, (2,)), Discrete(3))

# ---------------------------------------------------------------- one update, against NumPy in float64


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def one_step(p, cell, dueling, carry, obs, previous):
    """The carry after one observation `[2]`, to which an action led (or None), and action values `[3]`."""
    p = p["params"]
    x = np.maximum(obs @ p["torso"]["Dense_0"]["kernel"] + p["torso"]["Dense_0"]["bias"], 0)
    x = np.concatenate([x, np.zeros(3) if previous is None else np.eye(3)[previous]])
    x = x @ p["memory"]["inputs"]["kernel"] + p["memory"]["inputs"]["bias"]
    u, n = p["memory"]["kernel"], len(p["memory"]["kernel"])
    if cell == "gru":
        h = carry
        r, z = sigmoid(x[:n] + h @ u[:, :n]), sigmoid(x[n : 2 * n] + h @ u[:, n : 2 * n])
        new = np.tanh(x[2 * n :] + r * (h @ u[:, 2 * n :] + p["memory"]["reset_bias"]))
        h = carry = (1 - z) * new + z * h
    else:
        h, c = carry[:n], carry[n:]
        i, f, o, g = ((x + h @ u)[k * n : (k + 1) * n] for k in range(4))
        c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        carry = np.concatenate([h, c])

    def dense(x, name):
        return x @ p["head"][name]["kernel"] + p["head"][name]["bias"]

    if not dueling:
        return carry, dense(h, "Dense_0")
    value, advantage = (dense(np.maximum(dense(h, f"{s}_0"), 0), f"{s}_1") for s in ("value", "advantage"))
    return carry, value + advantage - advantage.mean()


def squash(x, rescale):
    return np.sign(x) * (np.sqrt(abs(x) + 1) - 1) + 1e-3 * x if rescale else x


def unsquash(x, rescale):
    return np.sign(x) * (((np.sqrt(1 + 4e-3 * (abs(x) + 1 + 1e-3)) - 1) / 2e-3) ** 2 - 1) if rescale else x


def element(params, online, target, row, *, cell, dueling, double, loss, n_step, rescale, burn_in):
    """Loss, |td| and Q of the counted steps of one stretch; `params` are differentiated, the others constant."""
    memory, valid = row.extras["memory"][0], row.valid
    length, fresh = int(valid.sum()), not memory.any()  # only valid steps are ever looked at
    before = [None if fresh else int(memory[-1]) - 1, *row.action]  # the action that led to each observation

    def values(p, burn_in_params):
        """Q of each valid step, and of its true successor."""
        q, next_q, carry = [], [], memory[:-1]
        for t in range(length):
            after, q_t = one_step(p, cell, dueling, carry, row.obs[t], before[t])
            next_q.append(one_step(p, cell, dueling, after, row.next_obs[t], before[t + 1])[1])
            carry = one_step(burn_in_params if t < burn_in else p, cell, dueling, carry, row.obs[t], before[t])[0]
            q.append(q_t)
        return q, next_q

    q, _ = values(params, params if fresh else online)
    _, chooser = values(online, online)
    _, judge = values(target, target)
    total, sizes, taken = 0.0, [], []
    for t in range(length):
        if t < burn_in and not fresh:
            continue
        goal, factor = 0.0, 1.0
        for k in range(t, min(t + n_step, length)):
            goal += factor * row.reward[k]
            factor *= 0.0 if row.terminated[k] else GAMMA
        best = np.argmax(chooser[k] if double else judge[k])
        error = q[t][row.action[t]] - squash(goal + factor * unsquash(judge[k][best], rescale), rescale)
        total += 0.5 * error**2 if loss == "squared" or abs(error) <= 1 else abs(error) - 0.5
        sizes.append(abs(error))
        taken.append(q[t][row.action[t]])
    return total / (len(valid) - burn_in), sizes, taken


GAMMA, ETA, BURN_IN, LENGTH = 0.7, 0.8, 2, 6
COMMON = {"gamma": GAMMA, "priority_eta": ETA, "max_grad_norm": 1e6, "hidden_sizes": (3,), "cell_size": 2}
DEFAULT = {
    "cell": "gru", "dueling": False, "double": True, "loss": "huber", "n_step": 2, "rescale": False, "burn_in": BURN_IN
}  # fmt: skip
CASES = {
    "gru": DEFAULT,
    "lstm": DEFAULT | {"cell": "lstm", "double": False, "loss": "squared", "n_step": 1},
    "rescaled": DEFAULT | {"rescale": True, "dueling": True, "n_step": 4},
    "no burn-in": DEFAULT | {"burn_in": 0, "n_step": 9},
}
# Of each stretch: how many steps are valid, how it ends, and whether it begins an episode.
STRETCHES = [
    (6, "goes on", False),
    (4, "terminated", False),
    (5, "truncated", False),
    (5, "goes on", False),  # the next step has not been taken yet
    (3, "terminated", True),
    (6, "truncated", True),
    (2, "goes on", False),  # burn-in, and nothing after it yet
    (1, "truncated", False),  # burn-in, and never anything after it
    (1, "interrupted", False),  # the same: the next step is void
]


def stretches(carry_size, seed=0):
    """A sample of `STRETCHES`, NumPy in float32."""
    rng = np.random.default_rng(seed)
    size = len(STRETCHES)
    obs = rng.uniform(-2, 2, (size, LENGTH + 1, 2)).astype(np.float32)
    next_obs, obs = obs[:, 1:].copy(), obs[:, :-1]
    terminated, truncated = rng.random((2, size, LENGTH)) < 0.3  # of what is not valid, anything but void
    truncated &= ~terminated
    memory = rng.uniform(-1, 1, (size, LENGTH, carry_size)).astype(np.float32)
    memory = np.concatenate([memory, rng.integers(1, 4, (size, LENGTH, 1))], axis=-1, dtype=np.float32)
    valid = np.zeros((size, LENGTH), bool)
    for b, (steps, end, fresh) in enumerate(STRETCHES):
        valid[b, :steps] = True
        terminated[b, :steps] = truncated[b, :steps] = False
        terminated[b, steps - 1], truncated[b, steps - 1] = end == "terminated", end == "truncated"
        if end == "interrupted":
            terminated[b, steps] = truncated[b, steps] = True
        if end == "truncated":
            next_obs[b, steps - 1] = rng.uniform(-2, 2, 2)
        memory[b, 0] *= not fresh
    action = rng.integers(0, 3, (size, LENGTH)).astype(np.int32)
    reward = 1.5 * rng.normal(size=(size, LENGTH)).astype(np.float32)
    steps = Transition(obs, action, reward, terminated, truncated, next_obs, {"memory": memory})
    weights = rng.uniform(0.3, 1, size).astype(np.float32)
    return Sample(steps, valid, np.arange(size, dtype=np.int32), weights)


def with_other_rest(sample, burn_in):
    """The same sample, but for all that must not count."""
    rng = np.random.default_rng(7)
    other = jax.tree.map(lambda x: rng.permutation(x.ravel()).reshape(x.shape), sample.steps)
    void = sample.steps.terminated & sample.steps.truncated
    other = other._replace(
        reward=other.reward + 100, obs=other.obs + 3, next_obs=other.next_obs - 3,
        terminated=other.terminated | void, truncated=other.truncated & ~other.terminated | void,
    )  # fmt: skip
    rest = ~sample.valid
    fresh = ~sample.steps.extras["memory"][:, 0].any(-1)
    warm = sample.valid & (np.arange(LENGTH) < burn_in) & ~fresh[:, None]

    def mix(old, new, where):
        return np.where(where.reshape(where.shape + (1,) * (old.ndim - 2)), new, old)

    steps = jax.tree.map(lambda old, new: mix(old, new, rest), sample.steps, other)
    stored = steps.extras["memory"].copy()
    stored[:, 1:] += 1  # only the first is used
    return sample._replace(
        steps=steps._replace(
            next_obs=mix(steps.next_obs, other.next_obs, sample.valid & sample.steps.terminated),
            reward=mix(steps.reward, other.reward, warm),
            extras={"memory": stored},
        )
    )


def fixed(sample) -> Replay:
    """A replay that always hands out this, and whose state is what it was told of it."""
    size = sample.valid.shape[0]
    return Replay(
        init=lambda trajectory, spec: jnp.zeros(size),
        add=lambda state, trajectory, step: state,
        sample=lambda state, key, step, length=1: sample,
        update=lambda state, indices, errors: errors,
    )


@pytest.fixture(scope="module")
def updates():
    """Every case on its sample and on one that differs in what must not count; out of one compiled call."""

    def one(case, sample):
        agent = r2d2(
            **case, **COMMON, unroll=LENGTH - case["burn_in"], replay=fixed(sample), warmup_steps=32, num_envs=1,
            rollout_length=1, replay_ratio=1, target_update_every=10**6,
        )  # fmt: skip
        keys = jax.random.split(jax.random.key(1))
        state, other = jax.vmap(lambda key: agent.init(key, SPEC))(keys).params, None
        state, other = (jax.tree.map(lambda x, i=i: 2 * x[i], state) for i in (0, 1))  # biases are 0, but for this:
        state, other = (
            jax.tree.map(lambda x, i=i: x + 0.3 * jax.random.normal(jax.random.key(i), x.shape), p)
            for i, p in enumerate((state, other))
        )
        before = agent.init(keys[0], SPEC)._replace(params=state, target_params=other)
        trajectory = jax.tree.map(lambda x: x[:1, :1], sample.steps)
        after, metrics = agent.update(before, trajectory, jax.random.key(2), jnp.int32(1000))
        moment = next(
            x for x in jax.tree.leaves(after.opt_state, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(x, "mu")
        )
        return before, after, metrics, jax.tree.map(lambda m: 10 * m, moment.mu)

    samples = {}
    for name, case in CASES.items():
        first = stretches(4 if case["cell"] == "lstm" else 2)
        pair = (first, with_other_rest(first, case["burn_in"]))
        samples[name] = jax.tree.map(lambda *x: np.stack(x), *pair)
    run = jax.jit(
        lambda samples: {name: jax.vmap(lambda s, c=case: one(c, s))(samples[name]) for name, case in CASES.items()},
    )
    return samples, jax.device_get(run(samples))


@pytest.mark.parametrize("name", CASES)
def test_update_against_numpy(updates, name):
    samples, results = updates
    case = CASES[name]
    sample = jax.tree.map(lambda x: x[0], samples[name])
    before, after, metrics, grads = jax.tree.map(lambda x: np.asarray(x[0], np.float64), results[name])
    online, target = before.params, before.target_params

    class Row:
        def __init__(self, b):
            self.__dict__ |= jax.tree.map(lambda x: x[b], sample.steps)._asdict()
            self.valid = sample.valid[b]

    rows = [Row(b) for b in range(len(STRETCHES))]

    def batch_loss(params):
        found = [element(params, online, target, row, **case) for row in rows]
        return np.mean([w * f[0] for w, f in zip(sample.weights, found, strict=True)]), found

    loss, found = batch_loss(online)
    sizes = [f[1] for f in found]
    np.testing.assert_allclose(metrics["loss"], loss, rtol=2e-5)
    np.testing.assert_allclose(metrics["q_mean"], np.mean(np.concatenate([f[2] for f in found])), rtol=2e-5)
    priorities = np.array([ETA * max(s) + (1 - ETA) * np.mean(s) if s else 0.0 for s in sizes])
    if case["burn_in"]:
        assert [len(s) for s in sizes] == [4, 2, 3, 3, 3, 6, 0, 0, 0]
        priorities[6] = priorities.max()
    np.testing.assert_allclose(after.replay, priorities, rtol=2e-5, atol=1e-6)
    assert min(map(min, filter(None, sizes))) < 1 < max(map(max, filter(None, sizes)))  # both branches of Huber's loss

    leaves, tree = jax.tree.flatten(online)
    for i, leaf in enumerate(leaves):
        slope = np.zeros_like(leaf)
        for at in np.ndindex(leaf.shape):
            sides = []
            for sign in (1, -1):
                moved = [x.copy() for x in leaves]
                moved[i][at] += sign * 1e-6
                sides.append(batch_loss(jax.tree.unflatten(tree, moved))[0])
            slope[at] = (sides[0] - sides[1]) / 2e-6
        np.testing.assert_allclose(jax.tree.leaves(grads)[i], slope, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_nothing_comes_from_beyond_the_end_or_is_learnt_from_the_burn_in(updates, name):
    _, after, metrics, grads = updates[1][name]
    for x in jax.tree.leaves((after.replay, metrics, grads)):
        np.testing.assert_allclose(x[0], x[1], rtol=1e-5, atol=1e-6)


def test_rescaling_has_an_inverse():
    x = np.array([-300.0, -2.0, -1e-3, 0.0, 1e-3, 0.5, 7.0, 1e4], np.float32)
    np.testing.assert_allclose(rescale_value(x), squash(x.astype(np.float64), True), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(unscale_value(rescale_value(x)), x, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(rescale_value(jnp.float32(8.0)), 2.008, rtol=1e-6)


# ---------------------------------------------------------------- what acting leaves in the replay


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_stored_memory_reproduces_acting(cell):
    """From any step's stored memory, the observations stored from there on lead to the actions that were chosen."""
    env, length, num_envs = make("CartPole-v1"), 30, 3
    agent = r2d2(
        cell=cell, cell_size=4, hidden_sizes=(4,), num_envs=num_envs, rollout_length=length, epsilon_start=0.0,
        epsilon_final=0.0, replay_size=2 * length * num_envs, replay_ratio=1 / length / num_envs,
    )  # fmt: skip
    net = make_recurrent_q_network("test", env.spec, "mlp", (4,), "relu", cell=cell, cell_size=4)

    @jax.jit
    def run(key):
        start = init_train(key, agent, env)
        keys = jax.random.split(key, (length, keys_per_step(agent)))
        _, trajectory = collect(start, agent, env, keys)
        state, _ = agent.update(start.agent, trajectory, key, jnp.int32(0))
        memory, obs = trajectory.extras["memory"], trajectory.obs
        unrolled = [
            net.apply(start.agent.params, memory[t, :, :-1], obs[t : t + 3], memory[t : t + 3, :, -1].astype(int))
            for t in range(length - 3)
        ]
        return trajectory, state.replay.ring.rest.extras["memory"], unrolled

    trajectory, stored, unrolled = jax.device_get(run(jax.random.key(3)))
    memory, ended = trajectory.extras["memory"], trajectory.terminated | trajectory.truncated
    np.testing.assert_array_equal(stored[: length * num_envs].reshape(memory.shape), memory)
    assert ended.any()
    compared = 0
    for t, (carries, q) in enumerate(unrolled):
        for env_index in range(num_envs):
            for k in range(3):
                chosen = q[k, env_index, trajectory.action[t + k, env_index]]
                assert chosen >= q[k, env_index].max() - 1e-6  # the highest, or as high
                after, action = (carries[k, env_index], trajectory.action[t + k, env_index] + 1)
                after, action = (0, 0) if ended[t + k, env_index] else (after, action)
                np.testing.assert_allclose(memory[t + k + 1, env_index, :-1], after, atol=1e-6)
                assert memory[t + k + 1, env_index, -1] == action
                compared += 1
                if ended[t + k, env_index]:
                    break
    assert compared > 150


def test_environments_explore_with_epsilons_of_their_own():
    """From 0.5 in the first to 0.5^3 in the last; halfway to there, from 0.75; greedy ones do not explore."""
    options = {"hidden_sizes": (3,), "cell_size": 2, "epsilon_final": 0.5, "epsilon_decay_steps": 100}
    agent, num_envs, steps = r2d2(**options, epsilon_spread=2.0), 8000, [50, 100, 10**6]
    obs, memory = jnp.full((num_envs, 2), 0.3), agent.init_memory(num_envs)

    def act(key):
        state = agent.init(key, SPEC)
        explored = [agent.act(state, memory, obs, key, jnp.int32(step))[0] for step in steps]
        return agent.act(state, memory, obs, key, jnp.int32(100), explore=False)[0], explored

    run = jax.jit(act)
    greedy, explored = jax.device_get(run(jax.random.key(0)))
    for epsilon, actions in zip([0.75, 0.5, 0.5], explored, strict=True):
        chances = 2 / 3 * epsilon ** (1 + 2 * np.arange(num_envs) / (num_envs - 1))
        departures = (actions != greedy).reshape(4, -1).mean(axis=1)
        np.testing.assert_allclose(departures, chances.reshape(4, -1).mean(axis=1), atol=0.05)


def test_stretches_are_drawn_by_their_priorities_unless_told_otherwise():
    replay = jax.eval_shape(lambda: r2d2(replay_size=400).init(jax.random.key(0), SPEC)).replay
    assert isinstance(replay, PrioritizedState)


def recall(steps: int) -> Env:
    """Shows 1 or -1 at first, then 0; the last step is rewarded 1 where the action says which it was, else -1."""

    def reset(key):
        cue = jax.random.rademacher(key, (), jnp.float32)
        return (cue, jnp.int32(0)), cue[None]

    def step(key, state, action):
        cue, time = state
        last = time == steps - 1
        reward = jnp.where(last, jnp.where((action == 1) == (cue > 0), 1.0, -1.0), 0.0)
        return (cue, time + 1), Outcome(jnp.zeros(1), reward, last, jnp.bool(False))

    return Env(reset, step, Spec("Recall-v0", box(-1, 1, (1,)), Discrete(2), steps))


def test_it_remembers():
    """What an episode showed first decides its last action, although the burn-in is as long as the episode."""
    env = recall(3)
    agent = r2d2(
        burn_in=3, unroll=2, n_step=2, cell_size=8, hidden_sizes=(8,), learning_rate=0.01, rollout_length=4,
        replay_size=2_000, batch_size=16, warmup_steps=200, target_update_every=200, tau=1.0, epsilon_decay_steps=2_000,
        gamma=0.9,
    )  # fmt: skip

    def run(key):
        state, _ = train(key, agent, env, 8_000)
        return evaluate(key, agent, state.agent, env, 16).mean()

    returns = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 4))
    np.testing.assert_array_equal(returns, 1)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (lambda: r2d2(hidden_sizes=(8, 0)), ["r2d2: hidden_sizes[1]=0"]),
        (lambda: r2d2(replay_size=100, num_envs=3, replay_ratio=1), ["r2d2: replay_size=100", "a multiple of", "12"]),
        (lambda: r2d2(replay_size=48, burn_in=3), ["r2d2: replay_size=48", "num_envs * (burn_in + unroll)", "76"]),
        (lambda: r2d2(batch_size=128, warmup_steps=100), ["batch_size=128", "100"]),
        (
            lambda: r2d2().init(jax.random.key(0), SPEC._replace(action_space=box(-1, 1, (1,)))),
            ["r2d2: Fake-v0 has continuous actions", "discretize_actions"],
        ),
        (
            lambda: r2d2().init(jax.random.key(0), SPEC._replace(obs_space=Discrete(4))),
            ["r2d2: Fake-v0", "Discrete(n=4)", "flatten_observations"],
        ),
    ],
    ids=["hidden", "multiple", "stretch", "batch", "continuous", "integers"],
)
def test_other_errors(case, words):
    with pytest.raises(JaxrlError) as error:
        case()
    assert all(word in str(error.value) for word in words), error.value
