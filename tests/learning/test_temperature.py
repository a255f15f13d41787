"""The temperature's value and its loss, by hand: learnt, learnt for each state, and scheduled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import JaxrlError
from jaxrl.learning.temperature import make_temperature
from jaxrl.networks import MLP

OBS = jnp.array([[0.3, -1.0], [0.5, 2.0], [-1.5, 0.1]])
ENTROPIES = jnp.array([-1.0, 0.5, -3.0])
TARGET = -2.0
KEY = jax.random.key(0)


def made(mode, **arguments):
    options = {"first": 0.5, "last": 0.1, "steps": 100, "target_entropy": TARGET, "torso": lambda: MLP((4,))}
    return make_temperature("owner", mode, **options | arguments)


def test_auto():
    """alpha = exp(p), and dJ/dp = alpha (E[H] - target) = 0.5 (-7/6 + 2), which descends where H is above it."""
    temperature = made("auto")
    params = temperature.init(KEY, OBS)
    assert params.shape == ()
    np.testing.assert_allclose(temperature.value(params, OBS, 10**6), 0.5, rtol=1e-6)
    loss, slope = jax.value_and_grad(temperature.loss)(params, OBS, 0, ENTROPIES)
    np.testing.assert_allclose([loss, slope], 0.5 * (-7 / 6 + 2), rtol=1e-5)


def test_state():
    """One number for each state, above 0 and of the order of the first; each one's own entropy moves it."""
    temperature = made("state")
    params = temperature.init(KEY, OBS)
    alpha = temperature.value(params, OBS, 0)
    assert alpha.shape == (3,)
    assert len(np.unique(alpha)) == 3
    tripled = made("state", first=1.5).value(params, OBS, 0)
    np.testing.assert_allclose(tripled, 3 * alpha, rtol=1e-6)
    expected = np.mean(np.asarray(alpha, np.float64) * (np.asarray(ENTROPIES) - TARGET))
    np.testing.assert_allclose(temperature.loss(params, OBS, 0, ENTROPIES), expected, rtol=1e-5)
    # down the gradient: up in a state whose entropy is below the target, and down above it
    grads = jax.grad(lambda params: temperature.loss(params, OBS[2:], 0, ENTROPIES[2:]))(params)
    moved = jax.tree.map(lambda p, g: p - 1e-2 * g, params, grads)
    assert temperature.value(moved, OBS[2:], 0)[0] > alpha[2]
    grads = jax.grad(lambda params: temperature.loss(params, OBS[1:2], 0, ENTROPIES[1:2]))(params)
    moved = jax.tree.map(lambda p, g: p - 1e-2 * g, params, grads)
    assert temperature.value(moved, OBS[1:2], 0)[0] < alpha[1]


def test_fixed():
    temperature = made("fixed")
    assert temperature.init(KEY, OBS) == ()
    found = [temperature.value((), OBS, jnp.int32(step)) for step in (0, 25, 50, 100, 101, 10**9)]
    np.testing.assert_allclose(found, [0.5, 0.4, 0.3, 0.1, 0.1, 0.1], rtol=1e-6)
    constant = made("fixed", last=0.0)
    assert [float(constant.value((), OBS, jnp.int32(step))) for step in (0, 50, 10**9)] == [0.5] * 3


@pytest.mark.parametrize(
    ("mode", "arguments", "words"),
    [
        ("off", {}, "temperature='off' is not accepted; it must be one of auto, state, fixed"),
        ("auto", {"first": 0.0}, "initial_temperature=0.0 is not accepted"),
        ("fixed", {"last": -0.1}, "final_temperature=-0.1 is not accepted"),
        ("fixed", {"steps": 0}, "temperature_steps=0 is not accepted"),
    ],
)
def test_errors(mode, arguments, words):
    with pytest.raises(JaxrlError, match=words):
        made(mode, **arguments)
