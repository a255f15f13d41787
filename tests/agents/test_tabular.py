"""The tabular agents: their updates against slow NumPy versions from the book, what they have in common, and gates."""

import concurrent.futures
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jaxrl
from jaxrl import checks, make, planning, train
from jaxrl.exploration import epsilon_greedy
from jaxrl.types import Discrete, Spec, Transition

pytestmark = pytest.mark.optimized  # they train for longer than they compile

NUM_STATES, NUM_ACTIONS, NUM_FEATURES = 5, 3, 4
LENGTH = 360  # of the stream, and
ROLLOUT = 40  # of Monte Carlo's parts of it
ALPHA, GAMMA = 0.3, 0.8
ANNEALED = {"epsilon_start": 0.9, "epsilon_final": 0.1, "epsilon_decay_steps": 250}
CONTROL = {"learning_rate": ALPHA, "gamma": GAMMA, "initial_value": 0.5, **ANNEALED}
PREDICTION = {"learning_rate": 0.1, "gamma": GAMMA}
MATRIX = np.random.default_rng(7).normal(size=(NUM_STATES, NUM_FEATURES)).astype(np.float32)
SPEC = Spec("test/Stream-v0", Discrete(NUM_STATES), Discrete(NUM_ACTIONS))


def features(obs):
    return jnp.asarray(MATRIX)[obs]


AGENTS = {
    "q_learning": jaxrl.q_learning(**CONTROL),
    "double_q_learning": jaxrl.double_q_learning(**CONTROL),
    "sarsa": jaxrl.sarsa(**CONTROL),
    "expected_sarsa": jaxrl.expected_sarsa(**CONTROL),
    "n_step_sarsa 1": jaxrl.n_step_sarsa(n=1, **CONTROL),
    "n_step_sarsa 3": jaxrl.n_step_sarsa(n=3, **CONTROL),
    "sarsa_lambda accumulating": jaxrl.sarsa_lambda(lambda_=0.7, traces="accumulating", **CONTROL),
    "sarsa_lambda replacing": jaxrl.sarsa_lambda(lambda_=0.7, traces="replacing", **CONTROL),
    "monte_carlo first": jaxrl.monte_carlo(rollout_length=ROLLOUT, **CONTROL),
    "monte_carlo every": jaxrl.monte_carlo(rollout_length=ROLLOUT, first_visit=False, **CONTROL),
    "td 0": jaxrl.td(features=features, **PREDICTION),
    "td online": jaxrl.td(lambda_=0.7, features=features, **PREDICTION),
    "td offline": jaxrl.td(lambda_=0.7, online=False, features=features, **PREDICTION),
    "td one-hot": jaxrl.td(lambda_=0.7, **PREDICTION),
    "td monte carlo": jaxrl.td(lambda_=1.0, online=False, **PREDICTION),
    "n_step_td 1": jaxrl.n_step_td(n=1, features=features, **PREDICTION),
    "n_step_td 3": jaxrl.n_step_td(n=3, features=features, **PREDICTION),
    "n_step_td one-hot": jaxrl.n_step_td(n=3, **PREDICTION),
}


# The stream: episodes of about five steps that end in both ways, in states whose values are not 0.


@functools.cache
def stream() -> Transition:
    """A hand-made trajectory, leaves `[LENGTH]`; its last step ends an episode."""
    rng = np.random.default_rng(0)
    end = rng.choice(3, LENGTH, p=[0.8, 0.1, 0.1])
    end[-1] = 1
    end[50:75] = 0  # one long episode, across parts of Monte Carlo's
    next_obs = rng.integers(NUM_STATES, size=LENGTH)
    obs = np.append(0, np.where(end > 0, rng.integers(NUM_STATES, size=LENGTH), next_obs)[:-1])
    action = rng.integers(NUM_ACTIONS, size=LENGTH)
    reward = rng.normal(size=LENGTH).astype(np.float32)
    return Transition(obs.astype(np.int32), action.astype(np.int32), reward, end == 1, end == 2, next_obs, {})


def along(agent, trajectory, key, state=None):
    """`agent.update` along a stream: the states after each update, the metrics, and the keys."""
    length = agent.rollout_length
    parts = jax.tree.map(lambda x: jnp.asarray(x).reshape(-1, length, 1), trajectory)
    steps = jnp.arange(len(parts.reward)) * length
    keys = jax.random.split(key, len(steps))

    def body(state, x):
        part, key, step = x
        state, metrics = agent.update(state, part, key, step)
        return state, (state, metrics)

    state = agent.init(key, SPEC) if state is None else state
    return *jax.lax.scan(body, state, (parts, keys, steps))[1], keys


@pytest.fixture(scope="module")
def runs():
    """Every agent along the stream, out of one compiled call."""
    run = lambda key: {name: along(agent, stream(), key) for name, agent in AGENTS.items()}  # noqa: E731
    runs = jax.jit(run)(jax.random.key(1))
    return {
        name: (*jax.tree.map(np.asarray, (states, metrics)), keys) for name, (states, metrics, keys) in runs.items()
    }


def epsilon_at(step):
    return max(0.9 - 0.8 * step / 250, 0.1)


def moments():
    """The stream step by step: `(t, s, a, r, terminated, truncated, s')`."""
    s = stream()
    return zip(range(LENGTH), s.obs, s.action, s.reward, s.terminated, s.truncated, s.next_obs, strict=True)


def episodes(first=0, last=LENGTH):
    """The stream's episodes as lists of moments; the last one of a part may not have ended."""
    found = [[]]
    for moment in list(moments())[first:last]:
        found[-1].append(moment)
        if moment[4] or moment[5]:
            found.append([])
    return [episode for episode in found if episode]


def assert_same(found, expected):
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-4, atol=1e-5)


def assert_metrics(metrics, errors, rollout=1):
    assert_same(metrics["td_error"], errors)
    if "epsilon" in metrics:
        steps = np.arange(0, LENGTH, rollout)
        assert_same(metrics["epsilon"], [epsilon_at(step) for step in steps])


def next_actions(name, runs):
    """What was drawn for each next state, which is checked against the table that it should be drawn from."""
    states, _, keys = runs[name]
    before = np.concatenate([np.full_like(states.q[:1], 0.5), states.q[:-1]])
    rows = before[np.arange(LENGTH), stream().next_obs]
    epsilons = np.array([epsilon_at(step) for step in range(LENGTH)], np.float32)
    assert np.array_equal(states.next_action, jax.jit(jax.vmap(epsilon_greedy))(keys, rows, epsilons))
    return states.next_action


def test_stream_has_what_it_takes():
    s = stream()
    assert s.terminated.sum() > 20
    assert s.truncated.sum() > 20
    lengths = [len(episode) for episode in episodes()]
    assert {1, 2, 3, 4} < set(lengths)
    assert max(lengths) > 20
    ends_of_parts = (s.terminated | s.truncated)[ROLLOUT - 1 :: ROLLOUT]
    assert 0 < ends_of_parts[:-1].sum() + 1 < len(ends_of_parts)


def test_q_learning(runs):
    q, history, errors = np.full((NUM_STATES, NUM_ACTIONS), 0.5), [], []
    for _, s, a, r, terminated, _, s1 in moments():
        error = r + (0 if terminated else GAMMA * max(q[s1])) - q[s, a]
        q[s, a] += ALPHA * error
        history.append(q.copy())
        errors.append(abs(error))
    states, metrics, _ = runs["q_learning"]
    assert_same(states.q, history)
    assert_metrics(metrics, errors)


def test_double_q_learning(runs):
    states, metrics, keys = runs["double_q_learning"]
    coin_keys, tie_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    coins = np.asarray(jax.vmap(jax.random.bernoulli)(coin_keys)).astype(int)
    before = np.concatenate([np.full_like(states.tables[:1], 0.5), states.tables[:-1]])
    rows = before[np.arange(LENGTH), coins, stream().next_obs]
    chosen = np.asarray(jax.vmap(epsilon_greedy, (0, 0, None))(tie_keys, rows, 0.0))
    assert (np.take_along_axis(rows, chosen[:, None], -1)[:, 0] == rows.max(-1)).all()
    assert abs(coins.mean() - 0.5) < 5 * 0.5 / np.sqrt(LENGTH)

    tables, history, errors = np.full((2, NUM_STATES, NUM_ACTIONS), 0.5), [], []
    for t, s, a, r, terminated, _, s1 in moments():
        learner, judge = tables[coins[t]], tables[1 - coins[t]]
        error = r + (0 if terminated else GAMMA * judge[s1, chosen[t]]) - learner[s, a]
        learner[s, a] += ALPHA * error
        history.append(tables.copy())
        errors.append(abs(error))
    assert_same(states.tables, history)
    assert_same(jax.vmap(lambda state: state.q)(states), np.mean(history, axis=1))
    assert_metrics(metrics, errors)


def test_sarsa(runs):
    chosen = next_actions("sarsa", runs)
    q, history, errors = np.full((NUM_STATES, NUM_ACTIONS), 0.5), [], []
    for t, s, a, r, terminated, _, s1 in moments():
        error = r + (0 if terminated else GAMMA * q[s1, chosen[t]]) - q[s, a]
        q[s, a] += ALPHA * error
        history.append(q.copy())
        errors.append(abs(error))
    states, metrics, _ = runs["sarsa"]
    assert_same(states.q, history)
    assert_metrics(metrics, errors)


def test_expected_sarsa(runs):
    q, history, errors = np.full((NUM_STATES, NUM_ACTIONS), 0.5), [], []
    for t, s, a, r, terminated, _, s1 in moments():
        best = np.flatnonzero(q[s1] == q[s1].max())
        expected = epsilon_at(t) * q[s1].mean() + (1 - epsilon_at(t)) * q[s1, best].mean()
        error = r + (0 if terminated else GAMMA * expected) - q[s, a]
        q[s, a] += ALPHA * error
        history.append(q.copy())
        errors.append(abs(error))
    states, metrics, _ = runs["expected_sarsa"]
    assert_same(states.q, history)
    assert_metrics(metrics, errors)


@pytest.mark.parametrize("n", [1, 3])
def test_n_step_sarsa(runs, n):
    """The algorithm of section 7.2: step tau is learned from n steps later, or when the episode ends."""
    states, metrics, _ = runs[f"n_step_sarsa {n}"]
    chosen = next_actions(f"n_step_sarsa {n}", runs)
    q, history, errors = np.full((NUM_STATES, NUM_ACTIONS), 0.5), [], []
    for episode in episodes():
        for now, (t, _, _, _, terminated, truncated, s1) in enumerate(episode):
            follows = 0 if terminated else q[s1, chosen[t]]
            due = range(max(now - n + 1, 0), now + 1) if terminated or truncated else range(now - n + 1, now - n + 2)
            sizes = []
            for tau in due:
                if tau >= 0:
                    rewards = [moment[3] for moment in episode[tau : now + 1]]
                    target = sum(GAMMA**k * r for k, r in enumerate(rewards)) + GAMMA ** len(rewards) * follows
                    _, s, a, *_ = episode[tau]
                    sizes.append(abs(target - q[s, a]))
                    q[s, a] += ALPHA * (target - q[s, a])
            history.append(q.copy())
            errors.append(np.mean(sizes) if sizes else 0)
    assert_same(states.q, history)
    assert_metrics(metrics, errors)


@pytest.mark.parametrize("traces", ["accumulating", "replacing"])
def test_sarsa_lambda(runs, traces):
    states, metrics, _ = runs[f"sarsa_lambda {traces}"]
    chosen = next_actions(f"sarsa_lambda {traces}", runs)
    q, history, errors = np.full((NUM_STATES, NUM_ACTIONS), 0.5), [], []
    for episode in episodes():
        trace = np.zeros_like(q)
        for t, s, a, r, terminated, _, s1 in episode:
            error = r + (0 if terminated else GAMMA * q[s1, chosen[t]]) - q[s, a]
            trace[s, a] = trace[s, a] + 1 if traces == "accumulating" else 1
            q += ALPHA * error * trace
            trace *= GAMMA * 0.7
            history.append(q.copy())
            errors.append(abs(error))
    assert_same(states.q, history)
    assert_metrics(metrics, errors)
    ended = stream().terminated | stream().truncated
    assert not states.trace[ended].any()
    assert states.trace[~ended].any((-2, -1)).all()


@pytest.mark.parametrize("visits", ["first", "every"])
def test_monte_carlo(runs, visits):
    """Episode by episode, wherever rollouts are cut: what counts is looked up in the list of all moments.

    A visit is the first if none before it in its episode was to the same pair. It counts if the rollout that it lies in
    is the one that its episode ends in.
    """
    q, history, errors = np.full((NUM_STATES, NUM_ACTIONS), 0.5), [], []
    every_moment, left_out = list(moments()), 0
    ends = [t for t, *_, terminated, truncated, _ in every_moment if terminated or truncated]
    for first in range(0, LENGTH, ROLLOUT):
        old, sizes = q.copy(), []
        for t in range(first, first + ROLLOUT):
            begin = max((end + 1 for end in ends if end < t), default=0)
            end = min(end for end in ends if end >= t)
            _, s, a, *_ = every_moment[t]
            again = any(moment[1:3] == (s, a) for moment in every_moment[begin:t])
            if end >= first + ROLLOUT or (visits == "first" and again):
                left_out += end < first + ROLLOUT and not any(
                    m[1:3] == (s, a) for m in every_moment[max(begin, first) : t]
                )
                continue
            target = sum(GAMMA ** (u - t) * every_moment[u][3] for u in range(t, end + 1))
            if every_moment[end][5]:
                target += GAMMA ** (end + 1 - t) * max(old[every_moment[end][6]])
            sizes.append(abs(target - q[s, a]))
            q[s, a] += ALPHA * (target - q[s, a])
        history.append(q.copy())
        errors.append(np.mean(sizes))
    states, metrics, _ = runs[f"monte_carlo {visits}"]
    assert_same(states.q, history)
    assert_metrics(metrics, errors, ROLLOUT)
    assert left_out or visits == "every"  # first in their rollout, and not in their episode


@pytest.mark.parametrize(("rollout_length", "q"), [(1, 0.0), (2, 0.0), (4, 4.0)])
def test_a_first_visit_is_the_episodes(rollout_length, q):
    """Four steps from one state by one action, with a reward of 1 each: the first visit's return is 4, and never 2."""
    agent = jaxrl.monte_carlo(learning_rate=1.0, gamma=1.0, rollout_length=rollout_length)
    zeros = np.zeros(8, np.int32)
    ended = np.arange(8) % 4 == 3
    twice = Transition(zeros, zeros, np.ones(8, np.float32), ended, np.zeros(8, bool), zeros, {})
    states, *_ = jax.jit(lambda key: along(agent, twice, key))(jax.random.key(0))
    assert states.q[-1, 0, 0] == q
    assert not states.seen[-1].any()


@pytest.mark.parametrize(
    ("name", "lambda_", "online", "x"),
    [
        ("td 0", 0.0, True, MATRIX),
        ("td online", 0.7, True, MATRIX),
        ("td offline", 0.7, False, MATRIX),
        ("td one-hot", 0.7, True, np.eye(NUM_STATES)),
    ],
)
def test_td(runs, name, lambda_, online, x):
    states, metrics, _ = runs[name]
    weights, history, errors = np.zeros(x.shape[1]), [], []
    for episode in episodes():
        trace, later = np.zeros_like(weights), np.zeros_like(weights)
        for _, s, _, r, terminated, truncated, s1 in episode:
            trace = GAMMA * lambda_ * trace + x[s]
            error = r + (0 if terminated else GAMMA * weights @ x[s1]) - weights @ x[s]
            later = later + 0.1 * error * trace
            if online or terminated or truncated:
                weights, later = weights + later, np.zeros_like(weights)
            history.append(weights)
            errors.append(abs(error))
    assert_same(states.weights, history)
    assert_metrics(metrics, errors)
    ended = stream().terminated | stream().truncated
    assert not states.trace[ended].any()
    assert not states.pending[ended].any()


@pytest.mark.parametrize(
    ("name", "n", "x"), [("n_step_td 1", 1, MATRIX), ("n_step_td 3", 3, MATRIX), ("n_step_td one-hot", 3, np.eye(5))]
)
def test_n_step_td(runs, name, n, x):
    states, metrics, _ = runs[name]
    weights, history, errors = np.zeros(x.shape[1]), [], []
    for episode in episodes():
        for now, (_, _, _, _, terminated, truncated, s1) in enumerate(episode):
            follows = 0 if terminated else weights @ x[s1]
            due = range(max(now - n + 1, 0), now + 1) if terminated or truncated else range(now - n + 1, now - n + 2)
            sizes = []
            for tau in due:
                if tau >= 0:
                    rewards = [moment[3] for moment in episode[tau : now + 1]]
                    target = sum(GAMMA**k * r for k, r in enumerate(rewards)) + GAMMA ** len(rewards) * follows
                    s = episode[tau][1]
                    error = target - weights @ x[s]
                    sizes.append(abs(error))
                    weights = weights + 0.1 * error * x[s]
            history.append(weights)
            errors.append(np.mean(sizes) if sizes else 0)
    assert_same(states.weights, history)
    assert_metrics(metrics, errors)


def test_offline_td_1_is_monte_carlo(runs):
    """Every visit moves the value by the return that followed, all at once when the episode has ended."""
    values, history = np.zeros(NUM_STATES), []
    for episode in episodes():
        history += [values] * (len(episode) - 1)
        _, _, _, _, _, truncated, s1 = episode[-1]
        target, change = values[s1] if truncated else 0.0, np.zeros(NUM_STATES)
        for _, s, _, r, *_ in reversed(episode):
            target = r + GAMMA * target
            change[s] += 0.1 * (target - values[s])
        values = values + change
        history.append(values)
    assert_same(runs["td monte carlo"][0].weights, history)


def test_truncation_bootstraps_and_termination_does_not():
    """One step to a state worth 2, and one more to one worth 2 that ends the episode either way."""
    step = Transition(
        np.array([0, 1], np.int32), np.zeros(2, np.int32), np.ones(2, np.float32), None, None, np.array([1, 2]), {}
    )
    last = np.array([False, True])
    never = np.array([False, False])
    control = {"gamma": 0.5, "learning_rate": 1.0, "initial_value": 2.0, "epsilon_start": 0.0, "epsilon_final": 0.0}
    # [Q(0, 0), Q(1, 0)] where the end is a terminal state, and where it is a time limit.
    at_once, later = ([2, 1], [2, 2]), ([1.5, 1], [2, 2])
    expected = {
        jaxrl.q_learning: at_once,
        jaxrl.sarsa: at_once,
        jaxrl.expected_sarsa: at_once,
        functools.partial(jaxrl.n_step_sarsa, n=2): later,
        functools.partial(jaxrl.sarsa_lambda, lambda_=1.0): later,
        functools.partial(jaxrl.monte_carlo, rollout_length=2): later,
    }

    def run():
        results = []
        for make_agent in expected:
            agent = make_agent(**control)
            for terminated, truncated in ((last, never), (never, last)):
                states, _, _ = along(
                    agent, step._replace(terminated=terminated, truncated=truncated), jax.random.key(0)
                )
                results.append(states.q[-1, :2, 0])
        return jnp.array(results).reshape(-1, 2, 2)

    found = jax.jit(run)()
    np.testing.assert_allclose(found, np.array(list(expected.values())), atol=1e-6)


# Identities, through the loop.


def test_an_interruption_ends_all_that_is_going_on():
    """In the midst of an episode. Who goes on learns as one that knows as much and begins, and not as if it were none.

    What an offline agent would have added to its weights at the end, it adds then.
    """

    def run(key):
        results = {}
        for name, agent in AGENTS.items():
            before, after = (jax.tree.map(lambda x, s=s: x[s], stream()) for s in (slice(20, 60), slice(60, 100)))
            state = jax.tree.map(lambda x: x[-1], along(agent, before, key)[0])
            known = {field: getattr(state, field) for field in state._fields if field in ("q", "tables", "weights")}
            if hasattr(state, "pending"):
                known["weights"] += state.pending
            begins = agent.init(key, SPEC)._replace(**known)
            states = agent.interrupt(state, jnp.int32(40)), begins, state
            states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
            went_on = jax.vmap(lambda state, agent=agent, after=after: along(agent, after, key, state)[0])(states)
            results[name] = [getattr(went_on, field) for field in known]
        return results

    carrying = {"monte_carlo first", "n_step_sarsa 3", "sarsa_lambda accumulating", "sarsa_lambda replacing",
                "td online", "td offline", "td one-hot", "td monte carlo", "n_step_td 3",
                "n_step_td one-hot"}  # fmt: skip
    for name, [values] in jax.jit(run)(jax.random.key(3)).items():
        cut, begins, went_on = values
        np.testing.assert_array_equal(cut, begins)
        assert np.any(cut != went_on) == (name in carrying), name


def test_special_cases_are_the_same_agent():
    env = make("jaxrl/Maze-v0")
    schedule = {"epsilon_start": 1.0, "epsilon_final": 0.1, "epsilon_decay_steps": 1000, "initial_value": 0.1}
    control = {
        "sarsa": jaxrl.sarsa(**schedule),
        "n_step_sarsa": jaxrl.n_step_sarsa(n=1, **schedule),
        "accumulating": jaxrl.sarsa_lambda(lambda_=0.0, traces="accumulating", **schedule),
        "replacing": jaxrl.sarsa_lambda(lambda_=0.0, traces="replacing", **schedule),
    }
    prediction = {"td": jaxrl.td(lambda_=0.0), "n_step_td": jaxrl.n_step_td(n=1)}
    walk = make("jaxrl/RandomWalk-v0")

    def run(key):
        tables = {name: train(key, agent, env, 2000)[0].agent.q for name, agent in control.items()}
        weights = {name: train(key, agent, walk, 2000)[0].agent.weights for name, agent in prediction.items()}
        return tables, weights

    keys = jax.random.split(jax.random.key(2), 4)
    tables, weights = jax.tree.map(np.asarray, jax.jit(jax.vmap(run))(keys))
    assert (np.abs(tables["sarsa"] - 0.1).max((-2, -1)) > 0.5).all()
    for name in ("n_step_sarsa", "accumulating", "replacing"):
        assert np.array_equal(tables["sarsa"], tables[name]), name
    assert (np.abs(weights["td"]).max(-1) > 0.2).all()
    np.testing.assert_allclose(weights["td"], weights["n_step_td"], atol=1e-6)


def test_linear_td_finds_its_fixed_point():
    """TD(0) ends where the projected Bellman equation says, which is neither the truth nor what is nearest to it.

    On the random walk with 19 states, four of which share a feature. The mean over seeds is compared, as with a
    constant step size each of them keeps some noise. (Sutton and Barto 2018, section 9.4.)
    """
    env, gamma = make("jaxrl/RandomWalk-v0"), 0.95
    x = np.eye(5)[np.minimum(np.arange(21) // 4, 4)]
    x[19:] = 3.0  # of the two ends, and must not count

    coin = np.full((21, 2), 0.5, np.float32)
    truth = np.asarray(planning.policy_evaluation(env.model, coin, gamma=gamma), np.float64)[:19]
    transition = env.model.transition.mean(1).astype(np.float64)[:19, :19]
    reward = env.model.reward.mean(1).astype(np.float64)[:19]
    visits = np.linalg.solve(np.eye(19) - transition.T, env.model.start[:19])
    weighted = x[:19].T * (visits / visits.sum())
    fixed = np.linalg.solve(weighted @ (x[:19] - gamma * transition @ x[:19]), weighted @ reward)
    nearest = np.linalg.solve(weighted @ x[:19], weighted @ truth)  # as Monte Carlo would find
    assert np.abs(x[:19] @ fixed - truth).max() > 0.5
    assert np.abs(fixed - nearest).max() > 0.2

    agent = jaxrl.td(lambda_=0.0, gamma=gamma, learning_rate=0.01, features=lambda obs: jnp.asarray(x)[obs])
    keys = jax.random.split(jax.random.key(3), 256)
    weights = jax.jit(jax.vmap(lambda key: train(key, agent, env, 45_000)[0].agent.weights))(keys)
    weights = np.asarray(weights, np.float64)
    np.testing.assert_allclose(weights.mean(0), fixed, atol=0.02)


# Acting.


def watched(agent):
    """The agent, with what it did among its metrics."""

    def update(state, trajectory, key, step):
        new, metrics = agent.update(state, trajectory, key, step)
        ended = (trajectory.terminated | trajectory.truncated)[0, 0]
        seen = {"action": trajectory.action[0, 0], "chosen": new.next_action, "ended": ended}
        return new, metrics | jax.tree.map(jnp.float32, seen)

    return agent._replace(update=update)


def test_sarsa_acts_as_it_learned():
    """The action that follows is the one it learned with, until the episode ends; then it is drawn anew."""
    agents = {
        "sarsa": jaxrl.sarsa(epsilon_final=1.0),
        "n_step_sarsa": jaxrl.n_step_sarsa(epsilon_final=1.0),
        "sarsa_lambda": jaxrl.sarsa_lambda(epsilon_final=1.0),
    }
    env = make("jaxrl/Maze-v0")

    def run(key):
        return {name: train(key, watched(agent), env, 3000)[1] for name, agent in agents.items()}

    for name, seen in jax.jit(run)(jax.random.key(0)).items():
        action, chosen, ended = (np.asarray(seen[key]) for key in ("action", "chosen", "ended"))
        same, goes_on = action[1:] == chosen[:-1], ended[:-1] == 0
        assert goes_on.sum() > 2000, name
        assert same[goes_on].all(), name
        begun = ~goes_on
        assert begun.sum() > 50
        assert abs(same[begun].mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / begun.sum()), name
        assert set(action) == {0, 1, 2, 3}


CONTROL_AGENTS = {
    "q_learning": jaxrl.q_learning,
    "double_q_learning": jaxrl.double_q_learning,
    "sarsa": jaxrl.sarsa,
    "expected_sarsa": jaxrl.expected_sarsa,
    "n_step_sarsa": jaxrl.n_step_sarsa,
    "sarsa_lambda": jaxrl.sarsa_lambda,
    "monte_carlo": jaxrl.monte_carlo,
}


def test_acting():
    """Ties are broken at random, the best is taken when not exploring, and epsilon is that of the step."""
    num_draws = 8000
    schedule = {"epsilon_start": 0.8, "epsilon_final": 0.0, "epsilon_decay_steps": 100}
    spec = make("jaxrl/Maze-v0").spec
    obs = jnp.zeros(1, jnp.int32)

    def run(key):
        results = {}
        for name, make_agent in CONTROL_AGENTS.items():
            agent = make_agent(**schedule)
            state = agent.init(key, spec)
            one = jnp.zeros((16, 4)).at[:, 2].set(1.0)
            knows = (
                state._replace(tables=jnp.stack([one] * 2)) if name == "double_q_learning" else state._replace(q=one)
            )

            def act(state, step, explore, agent=agent):
                keys = jax.random.split(key, num_draws)
                draw = lambda key: agent.act(state, agent.init_memory(1), obs, key, step, explore)[0][0]  # noqa: E731
                return jax.vmap(draw)(keys)

            results[name] = act(state, 200, True), act(state, 0, False), act(knows, 0, False), act(knows, 50, True)
        return results

    results = jax.jit(run)(jax.random.key(4))
    for name, draws in results.items():
        counts = [np.bincount(np.asarray(actions), minlength=4) for actions in draws]
        assert scipy.stats.chisquare(counts[0]).pvalue > 1e-4, (name, counts[0])
        assert scipy.stats.chisquare(counts[1]).pvalue > 1e-4, (name, counts[1])
        assert counts[2].tolist() == [0, 0, num_draws, 0], name
        expected = np.array([0.1, 0.1, 0.7, 0.1]) * num_draws  # epsilon is 0.4 at step 50
        assert scipy.stats.chisquare(counts[3], expected).pvalue > 1e-4, (name, counts[3])


def test_evaluation_leaves_the_learned_action_alone():
    """Not exploring, Sarsa takes the best action and not the one that it drew for learning."""
    agent = jaxrl.sarsa()
    state = agent.init(jax.random.key(0), SPEC)
    state = state._replace(q=jnp.zeros((5, 3)).at[:, 1].set(1.0), next_action=jnp.int32(2))
    for memory in (jnp.array([True]), jnp.array([False])):
        action, _, _ = agent.act(state, memory, jnp.array([3]), jax.random.key(0), 0, False)
        assert action.tolist() == [1]
    action, memory, _ = agent.act(state, jnp.array([True]), jnp.array([3]), jax.random.key(0), 0)
    assert (action.tolist(), memory.tolist()) == ([2], [True])


def test_prediction_acts_by_its_policy():
    spec = make("jaxrl/RandomWalk-v0").spec
    for make_agent in (jaxrl.td, jaxrl.n_step_td):
        agent = make_agent(policy=lambda key, obs: obs % 2)
        action, _, _ = agent.act(agent.init(jax.random.key(0), spec), (), jnp.array([3, 4]), jax.random.key(0), 0)
        assert action.tolist() == [1, 0]
        agent = make_agent()
        draws, _, _ = agent.act(agent.init(jax.random.key(0), spec), (), jnp.zeros(4000), jax.random.key(0), 0)
        assert scipy.stats.chisquare(np.bincount(np.asarray(draws), minlength=2)).pvalue > 1e-4


# Gates: how many of 256 seeds find a shortest path, and q-learning the values along it.

NUM_SEEDS = 256
GATED = {
    "q_learning": jaxrl.q_learning,
    "double_q_learning": jaxrl.double_q_learning,
    "sarsa": jaxrl.sarsa,
    "expected_sarsa": jaxrl.expected_sarsa,
    "n_step_sarsa": jaxrl.n_step_sarsa,
    "sarsa_lambda replacing": jaxrl.sarsa_lambda,
    "sarsa_lambda accumulating": functools.partial(jaxrl.sarsa_lambda, traces="accumulating"),
    "monte_carlo": functools.partial(jaxrl.monte_carlo, learning_rate=0.05),
}
WORLDS = {
    "corridor": (make("jaxrl/Corridor-v0"), 10_000, 5),
    "lake": (make("FrozenLake-misc", is_slippery=False), 15_000, 6),
    "maze": (make("jaxrl/Maze-v0"), 50_000, 6),
}
CLIFF = {
    "double_q_learning": (jaxrl.double_q_learning, 1.0, 150_000),  # the longest of all, and so begun first
    "q_learning": (jaxrl.q_learning, 0.01, 50_000),
    "expected_sarsa": (jaxrl.expected_sarsa, 0.01, 50_000),
}


def gate(make_agent, env, num_steps, **arguments):
    """Of each seed: how long its greedy policy's path is, and how far the values along it are from the best ones."""
    agent = make_agent(**arguments, epsilon_decay_steps=num_steps * 4 // 5)
    model = jax.tree.map(jnp.asarray, env.model)
    best = planning.value_iteration(model, gamma=arguments["gamma"])

    def run(key):
        q = train(key, agent, env, num_steps)[0].agent.q
        policy = q.argmax(-1)
        follow = lambda state, _: (model.transition[state, policy[state]].argmax(), state)  # noqa: E731
        path = jax.lax.scan(follow, model.start.argmax(), length=20)[1]
        errors = jnp.abs(jnp.where(model.terminal, 0.0, q.max(-1) - best.values))
        return planning.path_length(model, policy, 50), errors[path].max()

    lengths, errors = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(5), NUM_SEEDS))
    return np.asarray(lengths), np.asarray(errors), int(planning.path_length(model, best.policy, 50))


@pytest.fixture(scope="module")
def gates():
    """What `gate` says of each agent in each world, to be asked for with `result`; two at a time are worked out."""
    jobs = {}
    for name, (make_agent, epsilon, num_steps) in CLIFF.items():
        arguments = {"gamma": 1.0, "learning_rate": 0.5, "epsilon_start": epsilon}
        jobs[name, "cliff"] = functools.partial(gate, make_agent, make("jaxrl/Cliff-v0"), num_steps, **arguments)
    for name, make_agent in GATED.items():
        for world, (env, num_steps, _) in WORLDS.items():
            jobs[name, world] = functools.partial(gate, make_agent, env, num_steps, gamma=0.9)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        yield {which: pool.submit(job) for which, job in jobs.items()}
        pool.shutdown(cancel_futures=True)


def assert_passes(result, name, shortest):
    lengths, errors, best = result
    assert best == shortest
    assert np.mean(lengths == best) >= 0.95, np.bincount(lengths)
    if name in ("q_learning", "double_q_learning"):
        assert np.mean(errors <= 0.05) >= 0.95, np.sort(errors)[-20:]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", GATED)
def test_finds_the_shortest_path(gates, name, world):
    assert_passes(gates[name, world].result(), name, WORLDS[world][2])


@pytest.mark.parametrize("name", CLIFF)
def test_finds_the_way_along_the_cliff(gates, name):
    assert_passes(gates[name, "cliff"].result(), name, 13)


# Errors.


@pytest.mark.parametrize("name", CONTROL_AGENTS)
def test_errors_of_control(name):
    make_agent = CONTROL_AGENTS[name]
    with pytest.raises(
        checks.JaxrlError, match=rf"{name}: CartPole-v1 observes arrays .* such as dqn or ppo, or one of"
    ):
        make_agent().init(jax.random.key(0), make("CartPole-v1").spec)
    continuous = SPEC._replace(id="test/Torque", action_space=make("Pendulum-v1").spec.action_space)
    with pytest.raises(checks.JaxrlError, match=rf"{name}: test/Torque has continuous actions.*discretize_actions=n"):
        make_agent().init(jax.random.key(0), continuous)
    with pytest.raises(checks.JaxrlError, match=f"{name}: Pendulum-v1 observes arrays"):
        train(jax.random.key(0), make_agent(), make("Pendulum-v1"), 1000)
    wrong = {
        "learning_rate": (0, 1.5),
        "gamma": (-0.1, 1.1),
        "epsilon_start": (-0.1, 2),
        "epsilon_final": (-0.1, 2),
        "epsilon_decay_steps": (0, 0.5),
        "initial_value": (np.nan, np.inf),
        "n": (0, 1.5),
        "lambda_": (-0.1, 1.1),
        "rollout_length": (0,),
    }
    extra = {"n_step_sarsa": {"n"}, "sarsa_lambda": {"lambda_"}, "monte_carlo": {"rollout_length"}}.get(name, set())
    for argument, values in wrong.items():
        if argument in extra or argument not in ("n", "lambda_", "rollout_length"):
            for value in values:
                with pytest.raises(checks.JaxrlError, match=rf"{name}: {argument}={value} is not accepted"):
                    make_agent(**{argument: value})


def test_errors_of_prediction():
    for name in ("td", "n_step_td"):
        for argument, value in (("learning_rate", 0), ("gamma", 1.1), ("gamma", -0.1)):
            with pytest.raises(checks.JaxrlError, match=f"{name}: {argument}={value} is not accepted"):
                getattr(jaxrl, name)(**{argument: value})
    with pytest.raises(checks.JaxrlError, match=r"td: lambda_=1.1 is not accepted"):
        jaxrl.td(lambda_=1.1)
    with pytest.raises(
        checks.JaxrlError, match=r"n_step_td: n=0 is not accepted; it must be a whole number, at least 1"
    ):
        jaxrl.n_step_td(n=0)


def test_errors_of_traces():
    message = "sarsa_lambda: traces='dutch' is not accepted; it must be one of accumulating, replacing"
    with pytest.raises(checks.JaxrlError, match=message):
        jaxrl.sarsa_lambda(traces="dutch")


def test_no_key_is_used_twice():
    with jax.debug_key_reuse(True):
        for agent in AGENTS.values():
            jax.jit(lambda key, agent=agent: agent.init(key, SPEC)).lower(jax.random.key(0))
            state = agent.init(jax.random.key(0), SPEC)
            part = jax.tree.map(lambda x: jnp.asarray(x)[: agent.rollout_length, None], stream())
            jax.jit(agent.update).lower(state, part, jax.random.key(0), 0)
            jax.jit(agent.act).lower(state, agent.init_memory(1), jnp.zeros(1, jnp.int32), jax.random.key(0), 0)
