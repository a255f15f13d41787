"""Losses against the papers' formulas, written as loops over pairs, and against numbers by hand."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl import losses
from jaxrl.checks import JaxrlError

project = jax.jit(losses.categorical_projection)
quantile_loss = jax.jit(losses.quantile_huber_loss)


def slow_projection(probabilities, targets, support):
    """Algorithm 1 of Bellemare et al. (2017), and what it leaves out: all mass to a target that is an atom."""
    masses, last = np.zeros(len(support)), len(support) - 1
    for p, target in zip(probabilities, targets, strict=True):
        b = (np.clip(target, support[0], support[-1]) - support[0]) / ((support[-1] - support[0]) / last)
        low, high = int(np.floor(b)), int(np.ceil(b))
        masses[low] += p * (high - b if high > low else 1)
        masses[high] += p * (b - low)
    return masses


def slow_quantile_loss(quantiles, targets, kappa):
    """Equation 10 of Dabney et al. (2018)."""
    total = 0.0
    for i, theta in enumerate(quantiles):
        tau = (2 * i + 1) / (2 * len(quantiles))
        for target in targets:
            u = target - theta
            huber = abs(u) if kappa == 0 else 0.5 * u**2 if abs(u) <= kappa else kappa * (abs(u) - 0.5 * kappa)
            total += abs(tau - (u < 0)) * huber / len(targets)
    return total


@pytest.mark.parametrize("atoms", [2, 51])
def test_projection_against_the_algorithm(atoms):
    """Targets between atoms, on them, beyond both ends and infinite; several at a place; in no order."""
    rng = np.random.default_rng(atoms)
    support = np.linspace(-10, 10, atoms)
    probabilities = rng.dirichlet(np.ones(atoms), (4, 3))
    targets = rng.normal(scale=8, size=(4, 3, atoms))
    targets[0] = support  # stays as it is
    targets[1] = 2.5  # all at one place
    targets[2, 0] = rng.permutation(support) + support[1] - support[0]
    targets[2, 1, 0], targets[2, 1, -1] = -np.inf, np.inf
    projected = project(probabilities, targets, support)
    assert projected.dtype == jnp.float32
    for row in np.ndindex(4, 3):
        np.testing.assert_allclose(
            projected[row], slow_projection(probabilities[row], targets[row], support), atol=1e-5
        )
    np.testing.assert_allclose(projected[0], probabilities[0], atol=1e-5)


def test_projection_by_hand():
    # Mass 1/2 at 1.25, a quarter of the way from 1 to 2; 1/4 beyond each end.
    out = project(jnp.array([0.25, 0.5, 0.25]), jnp.array([-7.0, 1.25, 7.0]), jnp.array([0.0, 1.0, 2.0]))
    np.testing.assert_array_equal(out, [0.25, 0.375, 0.375])
    # Terminated: all atoms move to the reward, -1, which is the second of -2, -1, 0, 1, 2.
    out = project(jnp.full(5, 0.2), jnp.full(5, -1.0), jnp.linspace(-2.0, 2.0, 5))
    np.testing.assert_allclose(out, [0, 1, 0, 0, 0], atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-300, 300, width=32), min_size=11, max_size=11),
    st.lists(st.floats(0, 1, width=32), min_size=11, max_size=11),
    st.floats(-100, 100, width=32),
    st.floats(0.125, 30, width=32),
)
def test_projection_keeps_mass_and_mean(targets, masses, low, spacing):
    support = (low + spacing * np.arange(11)).astype(np.float32)
    targets, masses = np.array(targets, np.float32), np.array(masses, np.float32)
    out = np.asarray(project(masses, targets, support), np.float64)
    assert out.min() >= 0
    np.testing.assert_allclose(out.sum(), masses.sum(), 1e-5, 1e-6)
    mean = np.sum(np.clip(targets, support[0], support[-1]) * masses)
    np.testing.assert_allclose(out @ support, mean, 0, 1e-4 * max(1, np.abs(support).max()))


def test_quantile_loss_by_hand():
    # One quantile, the median: |1/2 - (u < 0)| = 1/2. u = 3: 3 - 1/2; u = -1/2: 1/8; mean of the two, halved.
    assert float(quantile_loss(jnp.zeros(1), jnp.array([3.0, -0.5]))) == pytest.approx((2.5 + 0.125) / 4)
    # Two, at 1/4 and 3/4, both 0; target 1 costs 1/2 * (1/4 + 3/4), target -1 costs 1/2 * (3/4 + 1/4).
    assert float(quantile_loss(jnp.zeros(2), jnp.array([1.0, -1.0]))) == pytest.approx(0.5)
    # Apart from the median they are not alike: at 0 and 1, target 1: 1/4 * 1/2.
    assert float(quantile_loss(jnp.array([0.0, 1.0]), jnp.ones(1))) == pytest.approx(0.125)
    assert float(quantile_loss(jnp.array([1.0, 0.0]), jnp.ones(1))) == pytest.approx(0.375)
    assert float(quantile_loss(jnp.array([0.0, 2.0]), jnp.ones(1), 0.0)) == pytest.approx(0.25 + 0.25)


@pytest.mark.parametrize(("num_quantiles", "num_targets"), [(1, 1), (5, 9), (11, 8)])
def test_quantile_loss_against_the_formula(num_quantiles, num_targets):
    rng = np.random.default_rng(num_quantiles)
    quantiles, targets = rng.normal(size=(3, 2, num_quantiles)), rng.normal(size=(3, 2, num_targets))
    targets[0, 0, 0] = quantiles[0, 0, 0]
    kappas = np.array([0.0, 0.3, 1.0, 20.0])
    many = jax.jit(jax.vmap(losses.quantile_huber_loss, (None, None, 0)))(quantiles, targets, kappas)
    assert (many.shape, many.dtype) == ((4, 3, 2), jnp.float32)
    for k, i, j in np.ndindex(4, 3, 2):
        expected = slow_quantile_loss(quantiles[i, j], targets[i, j], kappas[k])
        np.testing.assert_allclose(many[k, i, j], expected, 1e-5)


def test_quantile_regression_finds_the_quantiles():
    """At its minimum the plain loss has the quantiles: with 0 ... 99, those at 1/8, 3/8, 5/8, 7/8."""
    targets, gradient = jnp.arange(100.0), jax.grad(losses.quantile_huber_loss)
    descend = lambda i, q: q - (40 * 0.99**i) * gradient(q, targets, 0.0)  # noqa: E731
    quantiles = jax.jit(lambda q: jax.lax.fori_loop(0, 800, descend, q))(jnp.zeros(4))
    np.testing.assert_allclose(quantiles, [12, 37, 62, 87], atol=1.1)


def test_gradients_flow_through_every_argument():
    rng = np.random.default_rng(3)
    p, t = rng.dirichlet(np.ones(7), 2).astype(np.float32), rng.uniform(-0.9, 0.9, (2, 7)).astype(np.float32)
    support, weights = np.linspace(-1, 1, 7).astype(np.float32), rng.normal(size=(2, 7)).astype(np.float32)
    functions = {
        "projection": (lambda p, t, s: jnp.sum(weights * losses.categorical_projection(p, t, s)), (p, t, support)),
        "quantile": (lambda q, t, k: losses.quantile_huber_loss(q, t, k).sum(), (p, t, np.float32(0.3))),
        "take": (lambda v: jnp.sum(losses.take(v, jnp.array([1, 5])) ** 2), (p,)),
    }
    for name, (function, arguments) in functions.items():
        gradients = jax.jit(jax.grad(function, range(len(arguments))))(*arguments)
        for i, gradient in enumerate(gradients):
            step = rng.normal(size=np.shape(arguments[i])).astype(np.float32) * 1e-3
            up, down = ([*arguments[:i], arguments[i] + sign * step, *arguments[i + 1 :]] for sign in (1, -1))
            difference = float(function(*up) - function(*down)) / 2
            assert abs(difference) > 1e-6, name
            np.testing.assert_allclose(np.sum(gradient * step), difference, 0.02, 1e-6, err_msg=f"{name} {i}")
    # Of the pinball loss of one target above and one below: -tau / 2 + (1 - tau) / 2, and back to the targets.
    to_quantiles, to_targets = jax.grad(losses.quantile_huber_loss, (0, 1))(jnp.zeros(2), jnp.array([5.0, -5.0]), 0.0)
    np.testing.assert_allclose(to_quantiles, [0.25, -0.25])
    np.testing.assert_allclose(to_targets, [0.5, -0.5])


def test_take():
    values = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    actions = np.array([[3, 0, 1], [2, 2, 0]])
    np.testing.assert_array_equal(losses.take(values, actions), [[3, 4, 9], [14, 18, 20]])
    np.testing.assert_array_equal(losses.take(values, actions[:, 0] % 3), [values[0, 0], values[1, 2]])  # [2, 4]
    assert float(losses.take(values[0, 0], jnp.int32(2))) == 2
    np.testing.assert_array_equal(losses.take(values[0], 1), values[0, 1])
    poisoned = jnp.where(jnp.arange(4) == 1, 7.0, jnp.nan)
    value, gradient = jax.value_and_grad(losses.take)(poisoned, jnp.int32(1))
    assert float(value) == 7
    np.testing.assert_array_equal(gradient, [0, 1, 0, 0])


def test_leading_axes_are_a_vmap():
    rng = np.random.default_rng(4)
    p, t, support = rng.dirichlet(np.ones(5), (3, 2)), rng.normal(size=(3, 2, 5)), np.linspace(-1, 1, 5)
    one = jax.vmap(
        jax.vmap(lambda p, t: (losses.categorical_projection(p, t, support), losses.quantile_huber_loss(p, t)))
    )
    projected, loss = jax.jit(one)(p, t)
    np.testing.assert_allclose(projected, project(p, t, support), atol=1e-6)
    np.testing.assert_allclose(loss, quantile_loss(p, t), 1e-5)


def test_half_precision_is_summed_in_float32():
    p, t, support = jnp.full(51, 1 / 51, jnp.bfloat16), jnp.zeros(51, jnp.bfloat16), jnp.linspace(-1, 1, 51)
    out = project(p, t, support)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out.sum(), 51 * float(p[0]), 1e-5)
    assert quantile_loss(p, t).dtype == jnp.float32


def test_errors():
    with pytest.raises(JaxrlError, match=r"quantile_huber_loss: kappa=-1"):
        losses.quantile_huber_loss(jnp.zeros(3), jnp.zeros(3), -1)
    for wrong in (
        lambda: losses.categorical_projection(jnp.ones((2, 3)), jnp.ones(3), jnp.ones(3)),
        lambda: losses.categorical_projection(jnp.ones(3), jnp.ones(3), jnp.ones(4)),
        lambda: losses.categorical_projection(jnp.ones(1), jnp.ones(1), jnp.ones(1)),
        lambda: losses.quantile_huber_loss(jnp.ones((2, 3)), jnp.ones(3)),
        lambda: losses.quantile_huber_loss(jnp.ones((2, 3)), jnp.ones((1, 3))),
        lambda: losses.take(jnp.ones((2, 3)), jnp.zeros((3,), int)),
        lambda: losses.take(jnp.ones(3), jnp.zeros((3,), int)),
        lambda: losses.take(jnp.ones((2, 3, 4, 5)), jnp.zeros(2, int)),
    ):
        with pytest.raises(AssertionError):
            wrong()


def test_examples():
    result = doctest.testmod(losses)
    assert result.attempted == 3
    assert result.failed == 0
