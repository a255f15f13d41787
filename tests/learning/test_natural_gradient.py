"""The parts of a natural gradient step: the Fisher matrix in two other ways, conjugate gradients, the line search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from slow_policy import SlowPolicy, gradient

from jaxrl.learning.natural_gradient import (
    Trial,
    backtracking_search,
    conjugate_gradient,
    fisher_vector_product,
    step_size,
    whole_step,
)
from jaxrl.networks.actor_critic import make_policy
from jaxrl.types import Discrete, Spec, box

SPACES = {"discrete": Discrete(3), "continuous": box(-1, 1, (2,))}
OBS = np.random.default_rng(0).uniform(-1, 1, (5, 2)).astype(np.float32)

# ---------------------------------------------------------------- the Fisher matrix


def outer_product_fisher(policy):
    """E[grad log pi grad log pi^T], over the states and every action."""
    size, total = len(policy.flat), 0
    for obs in OBS.astype(np.float64):
        for action, weight in policy.actions_and_weights(obs):
            score = gradient(lambda flat, o=obs, a=action: policy.log_prob(flat, o, a), policy.flat)
            total = total + weight * np.outer(score, score)
    assert total.shape == (size, size)
    return total / len(OBS)


def kl_hessian(policy):
    kl, width = lambda flat: policy.mean_kl(flat, OBS.astype(np.float64)), 1e-4
    return gradient(lambda flat: gradient(kl, flat, width), policy.flat, width)


@pytest.mark.parametrize("kind", SPACES)
def test_products_are_with_the_fisher_matrix(kind):
    network = make_policy("t", Spec("Fake-v0", box(-1, 1, (2,)), SPACES[kind]), "mlp", (3,), "tanh", log_std=-0.3)
    params = network.init(jax.random.key(0), OBS)
    # heads of some size: the policy's initial scale of 0.01 would leave nothing to see
    params = jax.tree.map(lambda x: x + 0.5 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), params)
    flat, unravel = ravel_pytree(params)
    old = network.apply(params, OBS)

    @jax.jit
    def matrix(damping):
        mean_kl = lambda flat: old.kl_divergence(network.apply(unravel(flat), OBS)).mean()  # noqa: E731
        return jax.vmap(fisher_vector_product(mean_kl, flat, damping))(jnp.eye(len(flat)))

    found, policy = matrix(0.0), SlowPolicy(params)
    assert np.abs(found).max() > 0.2
    np.testing.assert_allclose(found, outer_product_fisher(policy), atol=1e-4)
    np.testing.assert_allclose(found, kl_hessian(policy), atol=1e-4)
    np.testing.assert_allclose(matrix(0.7), found + 0.7 * np.eye(len(flat)), atol=1e-5)


# ---------------------------------------------------------------- conjugate gradients


def slow_conjugate_gradient(matrix, b, iterations):
    x, residual = np.zeros(len(b)), np.array(b, np.float64)
    direction = residual
    for _ in range(iterations):
        alpha = residual @ residual / (direction @ matrix @ direction)
        x, new = x + alpha * direction, residual - alpha * matrix @ direction
        direction, residual = new + (new @ new) / (residual @ residual) * direction, new
    return x


def test_conjugate_gradient_solves():
    """Batched as over seeds: some are done at once, one never begins, and one matrix is singular."""
    rng = np.random.default_rng(1)
    root = rng.normal(size=(3, 6, 6))
    definite = root @ root.transpose(0, 2, 1) + 0.5 * np.eye(6)
    b = rng.normal(size=(3, 6))
    singular = np.diag([4.0, 2.0, 1.0, 0.0, 0.0, 0.0])
    matrices = np.stack([*definite, np.eye(6), definite[0], singular, 1e-6 * definite[1]])
    rights = np.stack([*b, b[0], np.zeros(6), [4.0, 2.0, 3.0, 0.0, 0.0, 0.0], 1e-6 * b[1]])
    solve = lambda n: jax.jit(jax.vmap(lambda a, b: conjugate_gradient(lambda v: a @ v, b, n)))  # noqa: E731
    found = solve(12)(matrices, rights)
    expected = [np.linalg.solve(a, b) for a, b in zip(definite, b, strict=True)]
    expected += [b[0], np.zeros(6), [1, 1, 3, 0, 0, 0], expected[1]]
    np.testing.assert_allclose(found, np.stack(expected), rtol=2e-3, atol=2e-3)
    after_two = [slow_conjugate_gradient(*system, 2) for system in zip(definite, b, strict=True)]
    np.testing.assert_allclose(solve(2)(matrices, rights)[:3], after_two, rtol=1e-4, atol=1e-5)
    assert np.abs(np.stack(after_two) - np.stack(expected[:3])).max() > 0.1


def test_conjugate_gradient_stops_where_it_is_done():
    products = []

    def run(b):
        def product(v):
            jax.debug.callback(lambda: products.append(1))
            return 2.0 * v

        return conjugate_gradient(product, b, 50)

    for b, count in ((jnp.array([3.0, 4.0]), 1), (jnp.zeros(2), 0)):
        products.clear()
        np.testing.assert_allclose(jax.jit(run)(b), b / 2)
        jax.effects_barrier()
        assert len(products) == count


def test_step_size():
    """s^T F s = 3 and 2 max_kl = 0.12: the step's own second-order divergence is then the bound."""
    direction, image = jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0])
    assert step_size(direction, image, 0.06) == pytest.approx(0.2)
    assert step_size(jnp.zeros(2), jnp.zeros(2), 0.06) == 0


# ---------------------------------------------------------------- the line search


def parabola(x):
    """The loss (x - 1)^2, and a mean divergence of x^2 / 2 (four times that at most); not a number beyond 8."""
    known = lambda value: jnp.where(x[0] > 8, jnp.nan, value)  # noqa: E731
    return Trial(known((x[0] - 1) ** 2), known(x[0] ** 2 / 2), known(2 * x[0] ** 2))


# From 0, whose loss is 1. By step and bound: where it ends, what it is worth, and how often it was shortened.
SEARCHES = {
    (1.0, 0.5): (1.0, 0.0, 0.5, 0, True),
    (4.0, 0.5): (1.0, 0.0, 0.5, 2, True),  # 4 is worse, 2 as good as 0
    (4.0, 0.2): (0.5, 0.25, 0.125, 3, True),  # 1 is best, but too far
    (32.0, 9.0): (1.0, 0.0, 0.5, 5, True),  # 32 and 16 are not numbers
    (64.0, 9.0): (0.0, 1.0, 0.0, 5, False),  # 2 is as far as it gets
    (-1.0, 9.0): (0.0, 1.0, 0.0, 5, False),  # the wrong way
    (1.0, 1e-6): (0.0, 1.0, 0.0, 5, False),
    (0.0, 0.5): (0.0, 1.0, 0.0, 5, False),  # as good is not better
}


def test_the_line_search():
    def search(step, max_kl):
        limits = {"ratio": 0.5, "backtracks": 5}
        return backtracking_search(parabola, jnp.zeros(1), jnp.float32(1), step[None], max_kl, **limits)

    steps, bounds = jnp.array(list(SEARCHES)).T
    expected = np.array(list(SEARCHES.values()))
    for found in (
        jax.jit(jax.vmap(search))(steps, bounds),
        jax.jit(lambda: jax.lax.map(lambda x: search(*x), (steps, bounds)))(),
    ):
        np.testing.assert_allclose(found.params[:, 0], expected[:, 0], atol=1e-6)
        np.testing.assert_allclose(found.trial.loss, expected[:, 1], atol=1e-6)
        np.testing.assert_allclose(found.trial.kl, expected[:, 2], atol=1e-6)
        np.testing.assert_allclose(found.trial.max_kl, 4 * expected[:, 2], atol=1e-6)
        np.testing.assert_array_equal(found.backtracks, expected[:, 3])
        np.testing.assert_array_equal(found.accepted, expected[:, 4])


def test_a_whole_step_is_taken_whatever_it_is_worth():
    found = whole_step(parabola, jnp.ones(1), jnp.array([3.0]))
    assert (found.params.item(), found.trial.loss, found.trial.kl, found.backtracks) == (4, 9, 8, 0)
    assert found.accepted
