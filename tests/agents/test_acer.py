"""ACER: whole updates against NumPy in float64, its estimator by enumeration, the trust region, and what it refuses."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jaxrl import JaxrlError
from jaxrl.agents.policy_gradient.acer import acer, project, truncated_objective
from jaxrl.networks import MLP
from jaxrl.networks.acer import Critic, distribution, draw, statistics, stochastic_dueling
from jaxrl.types import Discrete, Spec, Transition, box

DISCRETE = Spec("Fake-v0", box(-1, 1, (2,)), Discrete(3), max_steps=100)
CONTINUOUS = DISCRETE._replace(action_space=box([-2, 0], [2, 4], (2,)))
SPECS = {"discrete": DISCRETE, "continuous": CONTINUOUS}
SAMPLES = 3

# ---------------------------------------------------------------- one gradient step in NumPy


def flat(tree):
    """The parameters as one float64 vector, and a function that undoes it."""
    leaves, structure = jax.tree.flatten(jax.device_get(tree))
    sizes, shapes = np.cumsum([x.size for x in leaves])[:-1], [x.shape for x in leaves]

    def unflat(vector):
        parts = np.split(vector, sizes)
        return jax.tree.unflatten(structure, [x.reshape(s) for x, s in zip(parts, shapes, strict=True)])

    return np.concatenate([np.asarray(x, np.float64).ravel() for x in leaves]), unflat


def dense(layer, x):
    return x @ layer["kernel"] + layer.get("bias", 0.0)


def hidden(params, obs):
    return np.tanh(dense(params["params"]["torso"]["Dense_0"], obs))


class Categorical:
    """What the logits phi say of discrete actions; gradients with respect to them."""

    def phi(params, obs):
        logits = dense(params["params"]["head"]["output"], hidden(params, obs))
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    def log_prob(phi, a):
        return phi[a] - np.log(np.exp(phi).sum())

    def entropy(phi):
        p = np.exp(phi) / np.exp(phi).sum()
        return -np.sum(p * np.log(p))

    def log_prob_slope(phi, a):
        return np.eye(len(phi))[a] - np.exp(phi)

    def entropy_slope(phi):
        return -np.exp(phi) * (phi + Categorical.entropy(phi))

    def kl(average, phi):
        return np.sum(np.exp(average) * (average - phi))

    def kl_slope(average, phi):
        return np.exp(phi) - np.exp(average)

    def values(params, obs, phi, action, others, samples):
        q = dense(params["params"]["q_head"], hidden(params, obs))
        return np.sum(np.exp(phi) * q), q[action], [q[a] for a in others]


class Gaussian:
    """The same of a mean and a log standard deviation."""

    def phi(params, obs):
        mean = dense(params["params"]["head"]["output"], hidden(params, obs))
        return np.concatenate([mean, np.broadcast_to(params["params"]["head"]["log_std"], mean.shape)], -1)

    def log_prob(phi, a):
        mean, log_std = np.split(phi, 2)
        return np.sum(-0.5 * ((a - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi))

    def entropy(phi):
        return np.sum(np.split(phi, 2)[1] + 0.5 * np.log(2 * np.pi * np.e))

    def log_prob_slope(phi, a):
        mean, log_std = np.split(phi, 2)
        return np.concatenate([(a - mean) / np.exp(2 * log_std), ((a - mean) / np.exp(log_std)) ** 2 - 1])

    def entropy_slope(phi):
        return np.concatenate([np.zeros(len(phi) // 2), np.ones(len(phi) // 2)])

    def kl(average, phi):
        (m_a, s_a), (m, s) = np.split(average, 2), np.split(phi, 2)
        return np.sum(s - s_a + (np.exp(2 * s_a) + (m_a - m) ** 2) / (2 * np.exp(2 * s)) - 0.5)

    def kl_slope(average, phi):
        (m_a, s_a), (m, s) = np.split(average, 2), np.split(phi, 2)
        variance = np.exp(2 * s)
        return np.concatenate([(m - m_a) / variance, 1 - (np.exp(2 * s_a) + (m_a - m) ** 2) / variance])

    def values(params, obs, phi, action, others, samples):
        p, x = params["params"], hidden(params, obs)

        def advantage(a):
            a = np.clip(a, -1, 1)
            h = np.tanh(dense(p["from_features"], x) + dense(p["from_action"], a))
            return dense(p["advantage_head"], h)[0]

        value, mean = dense(p["value_head"], x)[0], np.mean([advantage(u) for u in samples])
        return value, value + advantage(action) - mean, [value + advantage(a) - mean for a in others]


FAMILIES = {"discrete": Categorical, "continuous": Gaussian}


def slow_retrace(rows, q, next_value, log_rho, trace, gamma, stop_after):
    """Q_ret of one environment's steps by the recursion of equation 5; `trace` of a ratio is its factor."""
    targets, following = np.zeros(len(q)), 0.0
    for t in reversed(range(len(q))):
        if rows.terminated[t]:
            following = 0.0
        elif rows.truncated[t] or t == stop_after:
            following = next_value[t]
        else:
            following = next_value[t] + trace(log_rho[t + 1]) * (targets[t + 1] - q[t + 1])
        targets[t] = rows.reward[t] + gamma * following
    return targets


def slow_step(kind, params, average, rows, case, drawn, directions=None):
    """One gradient step's gradients, as a vector, and metrics.

    Args:
      rows: a trajectory `[T, N, ...]`, all of which counts.
      drawn: `others [M, T, N, ...]`, and `samples [n, T, N, ...]`.
      directions: those in which the gradient is wanted, if not all.
    """
    family, (num_steps, width) = FAMILIES[kind], rows.reward.shape
    size = 1 if kind == "discrete" else rows.action.shape[-1]
    clip, gamma, lambda_ = case["clip_rho"], case["gamma"], case["retrace_lambda"]
    action, behaviour = rows.extras["policy_action"], np.asarray(rows.extras["behaviour"], np.float64)
    others, samples = drawn
    vector, unflat = flat(params)
    steps, columns = [], []  # what is held fixed of each step, and what is reported
    for n in range(width):
        column = jax.tree.map(lambda x: np.asarray(x)[:, n], rows)
        phi, old = family.phi(params.policy, column.obs), family.phi(average, column.obs)
        next_phi = family.phi(params.policy, column.next_obs)
        log_rho, value, q, next_value = (np.zeros(num_steps) for _ in range(4))
        other_q, other_rho = (np.zeros((num_steps, len(others))) for _ in range(2))
        for t in range(num_steps):
            among = others[:, t, n], samples[:, t, n]
            value[t], q[t], other_q[t] = family.values(params.critic, column.obs[t], phi[t], action[t, n], *among)
            next_value[t] = family.values(params.critic, column.next_obs[t], next_phi[t], action[t, n], *among)[0]
            ratio = lambda a: family.log_prob(phi[t], a) - family.log_prob(behaviour[t, n], a)  # noqa: E731
            log_rho[t], other_rho[t] = ratio(action[t, n]), [ratio(a) for a in others[:, t, n]]

        def target(trace):
            return slow_retrace(column, q, next_value, log_rho, trace, gamma, num_steps - 1)

        q_ret = target(lambda log_rho: lambda_ * min(1.0, np.exp(log_rho / size)))
        q_opc = q_ret if kind == "discrete" else target(lambda log_rho: lambda_)
        for t in range(num_steps):
            rho = np.exp(log_rho[t])
            terms = [(min(clip, rho) * (q_opc[t] - value[t]), action[t, n])]
            for a, q_a, log_r in zip(others[:, t, n], other_q[t], other_rho[t], strict=True):
                weight = np.exp(phi[t])[a] if kind == "discrete" else 1.0
                terms.append((weight * max(0.0, 1 - clip / np.exp(log_r)) * (q_a - value[t]), a))
            g = sum(c * family.log_prob_slope(phi[t], a) for c, a in terms)
            g = g + case["entropy_coef"] * family.entropy_slope(phi[t])
            k = family.kl_slope(old[t], phi[t])
            excess = (k @ g - case["trust_region_delta"]) / (k @ k) if case["trust_region"] else 0.0
            z, value_target = g - max(0.0, excess) * k, value[t] + min(1, rho) * (q_ret[t] - q[t])
            steps.append((t, n, phi[t], terms, z, q_ret[t], value_target))
            columns.append(
                {
                    "value_loss": 0.5 * (q_ret[t] - q[t]) ** 2,
                    "entropy": family.entropy(phi[t]),
                    "kl": family.kl(old[t], phi[t]),
                    "projected": excess > 0,
                    "truncated": rho > clip,
                    "corrected": any(abs(c) > 0 for c, _ in terms[1:]),
                }
            )

    def loss(vector):
        params, total = unflat(vector), 0.0
        for t, n, old_phi, terms, z, q_ret, value_target in steps:
            phi = family.phi(params.policy, rows.obs[t, n])
            if case["trust_region"]:
                total -= z @ phi
            else:  # the policy gradient as it stands
                total -= sum(c * family.log_prob(phi, a) for c, a in terms) + case["entropy_coef"] * family.entropy(phi)
            among = others[:, t, n], samples[:, t, n]
            value, q, _ = family.values(params.critic, rows.obs[t, n], old_phi, action[t, n], *among)
            total += case["value_coef"] * 0.5 * (q_ret - q) ** 2
            if kind == "continuous":
                total += case["value_coef"] * 0.5 * (value_target - value) ** 2
        return total / len(steps)

    directions = np.eye(len(vector)) if directions is None else directions
    grads = np.array([(loss(vector + 1e-6 * d) - loss(vector - 1e-6 * d)) / 2e-6 for d in directions])
    return grads, {name: np.mean([c[name] for c in columns]) for name in columns[0]}


# ---------------------------------------------------------------- an update on the new trajectory

LENGTH, NUM_ENVS, RATE = 5, 4, 0.1
COMMON = {
    "learning_rate": RATE, "optimizer": "sgd", "max_grad_norm": 1e6, "gamma": 0.8, "value_coef": 0.7,
    "average_decay": 0.75, "hidden_sizes": (3,), "num_samples": SAMPLES, "warmup_steps": 1, "batch_size": 1,
}  # fmt: skip
CASES = {
    "region": {
        "trust_region": True, "trust_region_delta": 0.05, "clip_rho": 1.5, "retrace_lambda": 1.0, "entropy_coef": 0.0
    },
    "none": {
        "trust_region": False, "trust_region_delta": 0.05, "clip_rho": 0.7, "retrace_lambda": 0.6, "entropy_coef": 0.2
    },
}  # fmt: skip
COMBINATIONS = list(itertools.product(SPECS, CASES))


def agent_of(case, **changes):
    sizes = {"num_envs": NUM_ENVS, "rollout_length": LENGTH, "replay_size": NUM_ENVS * LENGTH, "replay_ratio": 0}
    return acer(**(COMMON | CASES[case] | sizes | changes))


def start(agent, spec):
    """A state with heads of some size, and an average policy that lies elsewhere."""
    state = jax.jit(agent.init, static_argnums=1)(jax.random.key(0), spec)
    bend = lambda by: lambda x: x + 0.4 * jnp.cos(by * jnp.arange(x.size)).reshape(x.shape)  # noqa: E731
    learner = state.learner
    params = jax.tree.map(bend(1.0), learner.params)
    return state._replace(learner=learner._replace(params=params, average=jax.tree.map(bend(1.3), learner.average)))


def fake_trajectory(kind, num_steps, width, seed=1):
    """Random steps of an arbitrary behaviour, with both kinds of ends in the middle."""
    rng = np.random.default_rng(seed)
    lead = (num_steps, width)
    if kind == "discrete":
        action, behaviour = rng.integers(0, 3, lead), rng.normal(size=(*lead, 3))
        behaviour -= np.log(np.exp(behaviour).sum(-1, keepdims=True))
    else:
        action = rng.normal(size=(*lead, 2)).astype(np.float32)
        behaviour = np.concatenate([rng.normal(0, 0.3, (*lead, 2)), rng.normal(-0.1, 0.2, (*lead, 2))], -1)
    terminated, truncated = np.zeros(lead, bool), np.zeros(lead, bool)
    terminated[1, 0] = truncated[2, -1] = True
    if width > 1:
        truncated[3, 0] = terminated[0, 1] = True
    return Transition(
        obs=rng.uniform(-1, 1, (*lead, 2)).astype(np.float32),
        action=np.zeros_like(action),  # what the environment got; the algorithm must not look at it
        reward=2 * rng.normal(size=lead).astype(np.float32),
        terminated=terminated,
        truncated=truncated,
        next_obs=rng.uniform(-1, 1, (*lead, 2)).astype(np.float32),
        extras={"policy_action": action, "behaviour": behaviour.astype(np.float32)},
    )


def drawn(kind, params, rows, key):
    """The actions that the step with this key draws."""
    policy = distribution(jnp.asarray(FAMILIES[kind].phi(params.policy, rows.obs)), SPECS[kind].action_space)
    others, _, samples = jax.device_get(draw(key, policy, SAMPLES))
    return others, samples if kind == "continuous" else others


@pytest.fixture(scope="module")
def updates():
    """Every combination, out of one compiled call: the state, the trajectory, the state after, and its metrics."""
    states = {c: start(agent_of(c[1]), SPECS[c[0]]) for c in COMBINATIONS}
    trajectories = {kind: fake_trajectory(kind, LENGTH, NUM_ENVS) for kind in SPECS}

    @jax.jit
    def run(states, trajectories):
        return {
            (kind, case): agent_of(case).update(states[kind, case], trajectories[kind], jax.random.key(3), jnp.int32(0))
            for kind, case in COMBINATIONS
        }

    results = jax.device_get(run(states, trajectories))
    return {c: (jax.device_get(states[c]), trajectories[c[0]], *results[c]) for c in COMBINATIONS}


@pytest.mark.parametrize(("kind", "case"), COMBINATIONS)
def test_update_against_numpy(updates, kind, case):
    before, trajectory, after, metrics = updates[kind, case]
    settings = COMMON | CASES[case]
    vector, unflat = flat(before.params)
    average, _ = flat(before.learner.average)
    key = jax.random.split(jax.random.key(3))[0]
    actions = drawn(kind, unflat(vector), trajectory, key)

    def reference(directions=None, **changes):
        inputs = (before.learner.average, trajectory, settings | changes, actions, directions)
        return slow_step(kind, unflat(vector), *inputs)

    grads, expected = reference()
    corrected = expected.pop("corrected")
    assert set(metrics) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    found = (vector - flat(after.params)[0]) / RATE
    np.testing.assert_allclose(found, grads, rtol=1e-3, atol=2e-4)
    moved = 0.75 * average + 0.25 * flat(after.params.policy)[0]
    np.testing.assert_allclose(flat(after.learner.average)[0], moved, atol=1e-6)
    # The data are such that each part has some say.
    assert 0.1 < expected["truncated"] < 0.9
    assert corrected > 0.05
    assert (0.1 < expected["projected"] < 0.9) == (case == "region")
    few = np.random.default_rng(0).normal(size=(4, len(vector)))
    others = [{"retrace_lambda": 0.3}, {"clip_rho": 1e6}, {"entropy_coef": 0.5}, {"value_coef": 0.1}]
    for changes in others + [{"trust_region_delta": 0.1}] * (case == "region"):
        assert np.abs(reference(few, **changes)[0] - few @ grads).max() > 5e-3, changes


# ---------------------------------------------------------------- and on replayed stretches


def test_replayed_stretches_against_numpy():
    """One environment, and a replay that holds its last trajectory: a stretch begins at one of the five steps.

    It must be learnt from up to its episode's end, or the trajectory's. The same call sees one update within the
    warm-up, where nothing is replayed.
    """
    sizes = {"num_envs": 1, "rollout_length": LENGTH, "replay_size": LENGTH, "replay_ratio": 1, "warmup_steps": 6}
    agent, trajectory = agent_of("none", **sizes), fake_trajectory("discrete", LENGTH, 1)
    trajectory.next_obs[:-1] = np.where(
        trajectory.truncated[:-1, :, None], trajectory.next_obs[:-1], trajectory.obs[1:]
    )
    before = start(agent, DISCRETE)
    keys = jax.random.split(jax.random.key(5), 8)
    run = jax.jit(jax.vmap(agent.update, (None, None, 0, None)))
    waiting, quiet = jax.device_get(run(before, trajectory, keys[:8], jnp.int32(0)))
    after, metrics = jax.device_get(run(before, trajectory, keys, jnp.int32(5)))
    before = jax.device_get(before)

    settings = COMMON | CASES["none"]
    vector, unflat = flat(before.params)
    actions = np.arange(3)[:, None, None] * np.ones((LENGTH, 1), int)
    first, _ = slow_step("discrete", unflat(vector), before.learner.average, trajectory, settings, (actions, actions))
    vector = vector - RATE * first
    for i in range(8):
        once = flat(jax.tree.map(lambda x: x[i], waiting.params))[0]
        np.testing.assert_allclose(once, vector, atol=5e-5)
    assert all((quiet[name] == 0).all() for name in quiet if name.startswith("replay_"))
    policy = unflat(vector).policy
    average = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, before.learner.average, policy)

    candidates = []
    for begin, end in [(0, 2), (1, 2), (2, 3), (3, 5), (4, 5)]:  # step 1 terminates, and step 2 is truncated
        rows = jax.tree.map(lambda x: x[begin:end], trajectory)
        inputs = (rows, settings, (actions[:, begin:end],) * 2)
        grads, expected = slow_step("discrete", unflat(vector), average, *inputs)
        # The first step's momentum, which decays by 0.9, is part of the second step.
        candidates.append((vector - RATE * (grads + 0.9 * first), expected))
    seen = set()
    for i in range(8):
        found = flat(jax.tree.map(lambda x: x[i], after.params))[0]
        errors = [np.abs(found - candidate).max() for candidate, _ in candidates]
        which = int(np.argmin(errors))
        assert errors[which] < 1e-4 < 10 * 1e-4 < np.partition(errors, 1)[1], errors
        for name, value in candidates[which][1].items():
            if name != "corrected":
                np.testing.assert_allclose(metrics[f"replay_{name}"][i], value, rtol=1e-3, atol=1e-5, err_msg=name)
        seen.add(which)
    assert len(seen) >= 3


def test_the_replay_stays_out_of_the_branches():
    """Under `vmap` over seeds the warm-up is one branch of two, and none of them gives back the replay."""
    agent = agent_of("none", replay_ratio=2, replay_size=7 * NUM_ENVS * LENGTH)
    seeds = lambda tree: jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * 2), tree)  # noqa: E731
    state = seeds(agent.init(jax.random.key(0), DISCRETE))
    rows, keys = seeds(fake_trajectory("discrete", LENGTH, NUM_ENVS)), jax.random.split(jax.random.key(0))
    program = jax.make_jaxpr(jax.vmap(agent.update, (0, 0, 0, None)))(state, rows, keys, jnp.int32(0))
    branches = [e for e in program.eqns if e.primitive.name == "cond"]
    assert len(branches) == 1
    assert all(7 * NUM_ENVS * LENGTH not in x.aval.shape for x in branches[0].outvars)


# ---------------------------------------------------------------- the estimator, by enumeration


def exact_values(transition, reward, policy, gamma):
    """Q of a policy, `[S, A]`, by solving its Bellman equation; what leads nowhere terminates."""
    num_states, num_actions = reward.shape
    lead = np.einsum("sat,tb->satb", transition, policy).reshape(num_states * num_actions, -1)
    return np.linalg.solve(np.eye(len(lead)) - gamma * lead, reward.ravel()).reshape(num_states, num_actions)


def test_the_estimator_is_unbiased():
    """All trajectories of two steps in a small process, each weighed with its probability, several c: the expected
    change of the policy is the exact gradient of sum_a pi(a | x) Q(x, a) in the states that mu comes to."""
    rng, gamma = np.random.default_rng(0), 0.8
    transition = rng.dirichlet(np.ones(3), (2, 3))[..., :2]  # the third successor is the end
    reward, initial = rng.normal(size=(2, 3)), np.array([0.3, 0.7])
    logits = rng.normal(size=(2, 3))
    policy = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    behaviour = rng.dirichlet(np.full(3, 0.7), 2)
    q = exact_values(transition, reward, policy, gamma)

    rows, probabilities = [], []
    for s0, a0, s1, a1, s2 in itertools.product(range(2), range(3), range(3), range(3), range(3)):
        ends = 1 - transition.sum(-1)
        leads = np.concatenate([transition, ends[..., None]], -1)
        after = (s0, a1) if s1 == 2 else (s1, a1)  # after an end comes another episode: here it begins where this did
        p = initial[s0] * behaviour[s0, a0] * leads[s0, a0, s1] * behaviour[after] * leads[after][s2]
        rows.append(((s0, a0, s1), (*after, s2)))
        probabilities.append(p)
    s, a, s_next = np.moveaxis(np.array(rows), -1, 0)[..., None]  # [K, T, N]
    probabilities = np.array(probabilities)
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities.min() > 0
    one_hot = np.eye(3, 2, dtype=np.float32)
    extras = {"policy_action": a, "behaviour": np.log(behaviour)[s].astype(np.float32)}
    ended = s_next == 2
    rewards = reward[s, a].astype(np.float32)
    trajectories = Transition(one_hot[s], a, rewards, ended, np.zeros_like(ended), one_hot[s_next], extras)

    spec = DISCRETE._replace(obs_space=box(0, 1, (2,)))
    sizes = {"num_envs": 1, "rollout_length": 2, "replay_size": 2, "hidden_sizes": (), "gamma": gamma}
    state = agent_of("none", **sizes).init(jax.random.key(0), spec)
    params = jax.tree.map(jnp.zeros_like, state.learner.params)
    params.policy["params"]["head"]["output"]["kernel"] = jnp.asarray(logits, jnp.float32)
    params.critic["params"]["q_head"]["kernel"] = jnp.asarray(q, jnp.float32)
    state = state._replace(learner=state.learner._replace(params=params))

    @jax.jit
    @jax.vmap
    def expected_change(clip):
        agent = agent_of("none", **sizes, clip_rho=clip, entropy_coef=0.0, learning_rate=1.0)
        after, _ = jax.vmap(agent.update, (None, 0, None, None))(state, trajectories, jax.random.key(0), jnp.int32(0))
        change = after.params.policy["params"]["head"]["output"]["kernel"] - logits
        return jnp.tensordot(probabilities, change, 1)

    clips = np.array([0.0, 0.3, 0.8, 1.5, 1e6])
    found = expected_change(jnp.asarray(clips))
    visits = sum(np.bincount(s[:, t, 0], probabilities, 2) for t in range(2)) / 2
    advantages = q - (policy * q).sum(-1, keepdims=True)
    exact = visits[:, None] * policy * advantages
    for clip, change in zip(clips, found, strict=True):
        np.testing.assert_allclose(change, exact, atol=2e-6, err_msg=str(clip))
    assert np.abs(exact).min() > 1e-2

    # One step's estimator alone, with its correction and without, in each state.
    def estimate(phi, state, taken, clip, weight):
        actions = jnp.concatenate([jnp.array([taken]), jnp.arange(3)])
        log_ratios = jnp.log(policy / behaviour)[state][actions]
        weights = weight * jnp.asarray(policy)[state]
        f = distribution(phi, Discrete(3))
        return truncated_objective(f, actions, log_ratios, jnp.asarray(advantages)[state][actions], weights, clip)

    slopes = jax.jit(jax.vmap(jax.grad(estimate), (0, 0, 0, 0, 0)))
    cases = [(s, a, c, w) for s in range(2) for a in range(3) for c in (0.3, 0.8, 1.5, 1e6) for w in (0.0, 1.0)]
    states, taken, limits, weights = (np.array(x) for x in zip(*cases, strict=True))
    g = np.asarray(slopes(jnp.asarray(logits)[states], states, taken, limits, weights))
    for state, clip, weight in itertools.product(range(2), (0.3, 0.8, 1.5, 1e6), (0.0, 1.0)):
        chosen = (states == state) & (limits == clip) & (weights == weight)
        mean = behaviour[state][taken[chosen]] @ g[chosen]
        bias = np.abs(mean - policy[state] * advantages[state]).max()
        truncates = clip < (policy / behaviour)[state].max()
        assert (bias > 1e-2) if truncates and not weight else (bias < 1e-6), (state, clip, weight, bias)
    assert ((policy / behaviour).max(-1) > 1.5).any()


def test_huge_and_zero_ratios_leave_numbers():
    """A ratio beyond a float, and one of 0, with c finite, infinite and 0."""
    log_ratios = jnp.array([200.0, -200.0, 0.0, 200.0])
    actions, advantages = jnp.array([0, 0, 1, 2]), jnp.ones(4)

    def objective(phi, clip):
        f = distribution(phi, Discrete(3))
        return truncated_objective(f, actions, log_ratios, advantages, jnp.ones(3) / 3, clip)

    slopes = jax.vmap(jax.grad(objective), (None, 0))(jnp.zeros(3), jnp.array([0.0, 2.0]))
    e = np.eye(3) - 1 / 3
    # c = 0: nothing is truncated to begin with, and all is left to the expectation, which is 0 on average.
    np.testing.assert_allclose(slopes[0], e.sum(0) / 3, atol=1e-6)
    np.testing.assert_allclose(slopes[1], 2 * e[0] + e[2] / 3, atol=1e-5)


# ---------------------------------------------------------------- the trust region


def test_projection_by_hand_and_by_quadratic_programme():
    hand = [
        ([3.0, 1.0], [2.0, 0.0], 1.0, [0.5, 1.0]),  # active: k^T z = 1
        ([3.0, 1.0], [-2.0, 0.0], 1.0, [3.0, 1.0]),  # leads back to the average
        ([3.0, 1.0], [2.0, 0.0], 6.5, [3.0, 1.0]),  # within
        ([3.0, 1.0], [0.0, 0.0], 0.0, [3.0, 1.0]),  # no constraint where the policies agree
        ([3.0, 1.0], [1.0, 1.0], np.inf, [3.0, 1.0]),
        ([3.0, 1.0], [1.0, 1.0], 0.0, [1.0, -1.0]),
    ]
    g, k, delta, expected = (np.array(x) for x in zip(*hand, strict=True))
    np.testing.assert_allclose(jax.vmap(project)(g, k, delta), expected, atol=1e-6)

    rng = np.random.default_rng(0)
    g, k, delta = rng.normal(size=(8, 4)), rng.normal(size=(8, 4)), rng.uniform(0, 1, 8)
    active = 0
    for g_i, k_i, delta_i, z in zip(g, k, delta, np.asarray(jax.vmap(project)(g, k, delta)), strict=True):
        solved = scipy.optimize.minimize(
            lambda x: 0.5 * np.sum((x - g_i) ** 2),
            np.zeros(4),
            constraints={"type": "ineq", "fun": lambda x: delta_i - k_i @ x},
            method="SLSQP",
            options={"ftol": 1e-12},
        )
        np.testing.assert_allclose(z, solved.x, atol=1e-4)
        active += k_i @ g_i > delta_i
    assert 0 < active < 8


# ---------------------------------------------------------------- networks, and acting


def test_stochastic_dueling():
    value, advantages, sampled = (
        np.array([10.0, 20.0]),
        np.arange(6.0).reshape(3, 2),
        np.array([[1.0, 5.0], [3.0, 7.0]]),
    )
    q = stochastic_dueling(jnp.asarray(value), jnp.asarray(advantages), jnp.asarray(sampled))
    np.testing.assert_allclose(q, [[8, 15], [10, 17], [12, 19]])
    # Over the actions drawn, the mean of Q is V; so it is, but for chance, over others of the policy.
    critic, policy = Critic(MLP((4,)), CONTINUOUS.action_space, 4), distribution(jnp.zeros((5, 4)), None)
    obs = jax.random.normal(jax.random.key(0), (5, 2))
    drawn, fresh = (policy.sample(seed=jax.random.key(i), sample_shape=2000) for i in (1, 2))
    params = critic.init(jax.random.key(3), obs, policy, drawn, drawn)
    value, q = critic.apply(params, obs, policy, drawn, drawn)
    np.testing.assert_allclose(q.mean(0), value, atol=1e-5)
    np.testing.assert_allclose(critic.apply(params, obs, policy, method="value"), value, atol=1e-6)
    assert q.std(0).min() > 0.05
    _, others = critic.apply(params, obs, policy, fresh, drawn)
    np.testing.assert_allclose(others.mean(0), value, atol=6 * float(q.std(0).max()) / np.sqrt(2000))


@pytest.mark.parametrize("kind", SPECS)
def test_acting(kind):
    """The kept statistics are those of the policy that the actions were drawn from; greedy actions are its mode."""
    agent, spec = agent_of("none"), SPECS[kind]
    state = start(agent, spec)
    obs = jnp.broadcast_to(jnp.array([0.3, -0.6]), (4000, 2))
    act = jax.jit(lambda key, explore: agent.act(state, (), obs, key, 0, explore), static_argnums=1)
    action, memory, extras = act(jax.random.key(1), True)
    phi = FAMILIES[kind].phi(jax.device_get(state.params.policy), np.asarray(obs[0], np.float64))
    np.testing.assert_allclose(extras["behaviour"], np.broadcast_to(phi, (4000, len(phi))), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        statistics(distribution(extras["behaviour"], spec.action_space)), extras["behaviour"], atol=1e-5
    )
    assert memory == ()
    greedy = act(jax.random.key(2), False)[0][0]
    if kind == "discrete":
        np.testing.assert_array_equal(action, extras["policy_action"])
        np.testing.assert_allclose(np.bincount(action, minlength=3) / 4000, np.exp(phi), atol=0.04)
        assert greedy == phi.argmax()
    else:
        mean, log_std = np.split(phi, 2)
        raw = np.asarray(extras["policy_action"])
        np.testing.assert_allclose(raw.mean(0), mean, atol=0.1)
        np.testing.assert_allclose(raw.std(0), np.exp(log_std), rtol=0.05)
        np.testing.assert_allclose(action, np.clip(raw, -1, 1) * 2 + np.array([0, 2]), atol=1e-5)
        np.testing.assert_allclose(greedy, np.clip(mean, -1, 1) * 2 + np.array([0, 2]), atol=1e-5)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "bad",
    [
        {"learning_rate": 0.0},
        {"optimizer": "adagrad"},
        {"anneal_steps": -1},
        {"gamma": 1.1},
        {"retrace_lambda": -0.1},
        {"clip_rho": -1.0},
        {"trust_region_delta": float("nan")},
        {"average_decay": 1.5},
        {"entropy_coef": -1},
        {"value_coef": -1},
        {"max_grad_norm": 0},
        {"replay_size": 321},
        {"replay_ratio": -1},
        {"batch_size": 0},
        {"warmup_steps": 4},
        {"num_envs": 0},
        {"rollout_length": 2.5},
        {"num_samples": 0},
        {"activation": "sine"},
    ],
    ids=lambda bad: next(iter(bad)),
)
def test_bad_arguments(bad):
    with pytest.raises(JaxrlError) as error:
        acer(**bad)
    ((name, value),) = bad.items()
    expected = (
        "batch_size=16 is not accepted; it must be at most warmup_steps=4" if name == "warmup_steps" else f"{name}="
    )
    assert f"acer: {expected}" in str(error.value)
    assert str(value) in str(error.value)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (lambda: acer(hidden_sizes=(8, 0)), ["acer: hidden_sizes[1]=0"]),
        (lambda: acer(num_envs=3, rollout_length=7, replay_size=22), ["replay_size=22", "21"]),
        (lambda: acer(torso="rnn").init(jax.random.key(0), DISCRETE), ["acer: torso='rnn'"]),
        (
            lambda: acer().init(jax.random.key(0), DISCRETE._replace(action_space=box(-1, 1, (2, 3)))),
            ["acer: Fake-v0", "(2, 3)"],
        ),
    ],
    ids=["hidden", "replay", "torso", "matrices"],
)
def test_other_errors(case, words):
    with pytest.raises(JaxrlError) as error:
        case()
    assert all(word in str(error.value) for word in words), error.value
