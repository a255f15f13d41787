"""Baselines: the linear one against NumPy's least squares, the network against NumPy's Adam, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import JaxrlError
from jaxrl.learning.baseline import make_baseline, solve_ridge
from jaxrl.types import Discrete, Spec, Transition, box

SPEC = Spec("Fake-v0", box(-1, 1, (2,)), Discrete(3))
LENGTH, NUM_ENVS = 40, 3


def trajectory_of(obs, next_obs, length):
    zeros = np.zeros(length.shape, np.float32)
    return Transition(obs, zeros, zeros, zeros > 0, zeros > 0, next_obs, {"episode_length": length})


def fake(seed=0, late=0):
    """A trajectory, targets that are no function of the features, and a mask; what it hides is far off."""
    rng = np.random.default_rng(seed)
    lead = (LENGTH, NUM_ENVS)
    obs, next_obs = (rng.normal(size=(*lead, 2)).astype(np.float32) * [1, 8] + [0, 3] for _ in range(2))
    length = (np.arange(LENGTH)[:, None] % np.array([40, 17, 9]) + 1 + late).astype(np.int32)
    counts = rng.uniform(size=lead) < 0.7
    targets = 5 + obs[..., 0] - 0.1 * obs[..., 1] ** 2 + 0.2 * length + rng.normal(size=lead)
    targets, obs = np.where(counts, targets, 1e4), np.where(counts[..., None], obs, -5)
    return (
        trajectory_of(obs.astype(np.float32), next_obs.astype(np.float32), length),
        targets.astype(np.float32),
        counts,
    )


# ---------------------------------------------------------------- linear


def linear_features(obs, time):
    """Row by row: observations cut off at 10, their squares, three powers of the time in hundreds, and 1."""
    rows = []
    for o, t in zip(obs.reshape(-1, obs.shape[-1]).astype(np.float64), time.reshape(-1) / 100, strict=True):
        cut = [min(max(x, -10.0), 10.0) for x in o]
        rows.append([*cut, *(x * x for x in cut), t, t**2, t**3, 1.0])
    return np.array(rows)


def least_squares(x, y):
    """Ridge regression, as least squares with a row for each weight: its feature's root mean square times the root."""
    penalty = np.diag(np.sqrt(1e-5 * np.mean(x**2, axis=0) * len(x)))
    rows, sides = np.concatenate([x, penalty]), np.concatenate([y, np.zeros(len(penalty))])
    return np.linalg.lstsq(rows, sides, rcond=None)[0]


def degenerate(name):
    trajectory, targets, counts = fake()
    obs = trajectory.obs.copy()
    if name == "constant":
        obs[:] = [2.0, 0.0]
    elif name == "the same twice":
        obs[..., 1] = obs[..., 0]
    elif name == "huge":
        obs[..., 0] = 1e30
    elif name == "one step":
        counts = np.zeros_like(counts)
        counts[3, 1] = True
        targets = np.full_like(targets, 7.0)
    return trajectory._replace(obs=obs), targets, counts


CASES = {"usual": fake(), "late": fake(1, late=9_000)}
CASES |= {name: degenerate(name) for name in ("constant", "the same twice", "huge", "one step")}


@pytest.fixture(scope="module")
def linear():
    """Of every case the values after one fit, and after a second one in which nothing counts."""
    baseline = make_baseline("test", "linear")

    @jax.jit
    @jax.vmap
    def run(trajectory, targets, counts):
        key = jax.random.key(0)
        state = baseline.init(key, SPEC)
        before = baseline.values(state, trajectory, SPEC)
        fitted = baseline.fit(state, trajectory, targets, counts, key, SPEC)
        again = baseline.fit(fitted, trajectory, targets, jnp.zeros_like(counts), key, SPEC)
        return before, baseline.values(fitted, trajectory, SPEC), baseline.values(again, trajectory, SPEC)

    stacked = jax.tree.map(lambda *x: np.stack(x), *CASES.values())
    results = jax.device_get(run(*stacked))
    return {name: jax.tree.map(lambda x, i=i: x[i], results) for i, name in enumerate(CASES)}


@pytest.mark.parametrize("name", CASES)
def test_a_linear_baseline_is_least_squares(linear, name):
    (trajectory, targets, counts), (before, (values, next_values), again) = CASES[name], linear[name]
    length = trajectory.extras["episode_length"]
    x, following = linear_features(trajectory.obs, length - 1), linear_features(trajectory.next_obs, length)
    weights = least_squares(x[counts.ravel()], targets[counts].astype(np.float64))
    np.testing.assert_array_equal(before, 0)
    np.testing.assert_array_equal(again, (values, next_values))  # nothing counted
    np.testing.assert_allclose(values[counts], (x @ weights)[counts.ravel()], rtol=2e-3, atol=0.02)
    if name in ("usual", "late"):
        np.testing.assert_allclose(values.ravel(), x @ weights, rtol=2e-3, atol=0.02)
        np.testing.assert_allclose(next_values.ravel(), following @ weights, rtol=2e-3, atol=0.02)
        assert np.std(values[counts]) > 2
    assert np.isfinite(next_values).all()


def test_a_ridge():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(8, 5)).astype(np.float32)
    cases = [(rows[:n].T @ rows[:n], rows[0], ridge) for n in (3, 8) for ridge in (0.1, 2.0)]
    grams, moments, ridges = (np.stack(x).astype(np.float32) for x in zip(*cases, strict=True))
    found = jax.jit(jax.vmap(solve_ridge))(grams, moments, ridges)
    expected = [np.linalg.solve(a + r * np.eye(5), b) for a, b, r in cases]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------- network


def value_of(params, obs):
    hidden, head = params["torso"]["Dense_0"], params["value_head"]
    return (np.tanh(obs @ hidden["kernel"] + hidden["bias"]) @ head["kernel"] + head["bias"])[..., 0]


def test_a_network_takes_adam_steps_on_a_scaled_target():
    """Two gradient steps of three rows each, from differences in float64."""
    sizes = {"hidden_sizes": (3,), "learning_rate": 0.05, "num_steps": 2, "batch_size": 3}
    baseline, (trajectory, targets, counts), key = make_baseline("test", "network", **sizes), fake(), jax.random.key(5)

    @jax.jit
    def run(trajectory, targets, counts):
        state = baseline.init(jax.random.key(1), SPEC)
        return state, baseline.fit(state, trajectory, targets, counts, key, SPEC)

    state, fitted = jax.device_get(run(trajectory, targets, counts))
    rows = np.flatnonzero(counts)[jax.random.randint(key, (2, 3), 0, counts.sum())]
    obs, y = trajectory.obs.reshape(-1, 2)[rows].astype(np.float64), targets.ravel()[rows].astype(np.float64)
    leaves, structure = jax.tree.flatten(state.params["params"])
    vector = np.concatenate([x.ravel() for x in leaves]).astype(np.float64)

    def loss(vector, step):
        parts = np.split(vector, np.cumsum([x.size for x in leaves])[:-1])
        shaped = [part.reshape(x.shape) for part, x in zip(parts, leaves, strict=True)]
        error = value_of(jax.tree.unflatten(structure, shaped), obs[step]) - (y[step] - y.mean()) / y.std()
        return 0.5 * np.mean(error**2)

    m, v = np.zeros_like(vector), np.zeros_like(vector)
    for step in range(2):
        units = np.eye(len(vector)) * 1e-6
        grads = np.array([(loss(vector + unit, step) - loss(vector - unit, step)) / 2e-6 for unit in units])
        m, v = 0.9 * m + 0.1 * grads, 0.999 * v + 0.001 * grads**2
        vector -= 0.05 * (m / (1 - 0.9 ** (step + 1))) / (np.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-5)
    after = np.concatenate([x.ravel() for x in jax.tree.leaves(fitted.params["params"])])
    np.testing.assert_allclose(after, vector, atol=1e-3)
    np.testing.assert_allclose([fitted.scale.mean, fitted.scale.sigma], [y.mean(), y.std()], rtol=1e-4)


@pytest.fixture(scope="module")
def network():
    """`[variant]`: values and next values, after 0 and after 60 fits; then targets of another scale, and no steps."""
    baseline = make_baseline("test", "network", hidden_sizes=(16,), learning_rate=0.01, num_steps=10, batch_size=40)
    trajectory, targets, counts = fake()
    targets = np.where(counts, 3 * trajectory.obs[..., 0], 1e4).astype(np.float32)
    trajectory = trajectory._replace(next_obs=trajectory.obs[::-1])

    @jax.jit
    def run(trajectory, targets, counts):
        state = baseline.init(jax.random.key(1), SPEC)

        def fit(state, key):
            return baseline.fit(state, trajectory, targets, counts, key, SPEC), None

        fitted = jax.lax.scan(fit, state, jax.random.split(jax.random.key(2), 60))[0]
        return [baseline.values(s, trajectory, SPEC) for s in (state, fitted)]

    variants = np.stack([targets, 1000 * targets + 5000, targets]), np.stack([counts, counts, np.zeros_like(counts)])
    return targets, counts, jax.device_get(jax.vmap(run, (None, 0, 0))(trajectory, *variants))


def test_a_network_comes_near_the_targets_that_count(network):
    targets, counts, ((before, _), (values, next_values)) = network
    assert np.abs(before[0] - targets)[counts].mean() > 1.5
    assert np.abs(values[0] - targets)[counts].mean() < 0.3
    np.testing.assert_allclose(next_values[0], values[0][::-1], rtol=1e-4, atol=1e-4)


def test_a_networks_values_have_the_scale_of_the_targets(network):
    _, counts, (_, (values, _)) = network
    np.testing.assert_allclose(values[1][counts], 1000 * values[0][counts] + 5000, atol=100)


def test_a_network_stays_where_no_step_counts(network):
    _, _, ((before, _), (values, _)) = network
    np.testing.assert_allclose(values[2], before[2], rtol=1e-5)


# ---------------------------------------------------------------- none, and errors


def test_no_baseline():
    baseline, (trajectory, targets, counts) = make_baseline("test", "none"), fake()
    assert baseline.init(jax.random.key(0), SPEC) == ()
    assert baseline.fit((), trajectory, targets, counts, jax.random.key(0), SPEC) == ()
    np.testing.assert_array_equal(baseline.values((), trajectory, SPEC), np.zeros((2, LENGTH, NUM_ENVS)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "mean"}, "test: baseline='mean' is not accepted; it must be one of none, linear, network"),
        ({"learning_rate": 0.0}, "test: baseline_learning_rate=0.0 is not accepted"),
        ({"num_steps": 0}, "test: baseline_num_steps=0 is not accepted"),
        ({"batch_size": 1.5}, "test: baseline_batch_size=1.5 is not accepted"),
        ({"hidden_sizes": (4, 0)}, r"test: hidden_sizes\[1\]=0 is not accepted"),
        ({"activation": "sine"}, "test: activation='sine' is not accepted"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_bad_arguments(arguments, words):
    with pytest.raises(JaxrlError, match=words):
        make_baseline("test", **({"kind": "network"} | arguments))


def test_a_linear_baseline_divides_pixels_by_255():
    """Its features are cut off at 10, where bytes would be nearly all alike."""
    baseline, length = make_baseline("test", "linear"), np.ones((4, 1), np.int32)
    obs = np.array([0, 9, 11, 255], np.uint8)[:, None, None]
    weights = baseline.init(jax.random.key(0), pixels := SPEC._replace(obs_space=box(0, 255, (1,), np.uint8)))
    state = jax.tree.map(lambda x: x + jnp.arange(6.0), weights)
    raw, scaled = trajectory_of(obs, obs, length), trajectory_of(obs / np.float32(255), obs / np.float32(255), length)
    expected = baseline.values(state, scaled, SPEC._replace(obs_space=box(0, 1, (1,))))
    np.testing.assert_allclose(baseline.values(state, raw, pixels), expected, rtol=1e-6)
    assert len(np.unique(expected[0])) == 4


def test_a_linear_baseline_needs_arrays():
    baseline = make_baseline("test", "linear")
    with pytest.raises(JaxrlError, match=r"test: baseline='linear' is not accepted on Fake-v0.*Discrete"):
        baseline.init(jax.random.key(0), SPEC._replace(obs_space=Discrete(4)))
