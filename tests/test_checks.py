"""Every error names the argument, its value and what is accepted; tracers pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import checks


@pytest.mark.parametrize(
    "check",
    [
        lambda: checks.number("f", x=0),
        lambda: checks.number("f", 0, 1, x=0.0, y=1.0, z=0.5),
        lambda: checks.number("f", 0, open_low=True, x=1e-12),
        lambda: checks.number("f", 0, 1, x=np.float32(0.3), y=jnp.float32(0.3), z=jnp.array([0.0, 0.5, 1.0])),
        lambda: checks.integer("f", x=1, y=np.int64(7)),
        lambda: checks.integer("f", 0, x=0),
        lambda: checks.one_of("f", {"a": 1, "b": 2}, x="a"),
        lambda: checks.one_of("f", iter(["a", "b"]), x="b", y="a"),
    ],
)
def test_accepts(check):
    assert check() is None


@pytest.mark.parametrize(
    ("check", "value", "accepted"),
    [
        (lambda: checks.number("f", 0, 1, ok=0.5, bad=1.5), "1.5", "a number in [0, 1]"),
        (lambda: checks.number("f", 0, 1, bad=-0.1), "-0.1", "a number in [0, 1]"),
        (lambda: checks.number("f", 0, bad=-1), "-1", "a number in [0, inf)"),
        (lambda: checks.number("f", 0, open_low=True, bad=0), "0", "a number in (0, inf)"),
        (lambda: checks.number("f", 0, 1, open_low=True, bad=0.0), "0.0", "a number in (0, 1]"),
        (lambda: checks.number("f", bad=float("nan")), "nan", "a number in (-inf, inf)"),
        (lambda: checks.number("f", 0, bad=float("inf")), "inf", "a number in [0, inf)"),
        (lambda: checks.number("f", 0, 1, bad=np.array([0.5, 2.0])), "[0.5 2. ]", "a number in [0, 1]"),
        (lambda: checks.number("f", bad="0.5"), "0.5", "a number in (-inf, inf)"),
        (lambda: checks.number("f", bad=None), "None", "a number in (-inf, inf)"),
        (lambda: checks.integer("f", ok=1, bad=0), "0", "a whole number, at least 1"),
        (lambda: checks.integer("f", 2, bad=1), "1", "a whole number, at least 2"),
        (lambda: checks.integer("f", bad=1.0), "1.0", "a whole number, at least 1"),
        (lambda: checks.integer("f", bad=True), "True", "a whole number, at least 1"),
        (lambda: checks.integer("f", bad=None), "None", "a whole number, at least 1"),
        (lambda: checks.integer("f", bad="3"), "3", "a whole number, at least 1"),
        (lambda: checks.one_of("f", ("a", "b"), ok="a", bad="c"), "'c'", "one of a, b"),
        (lambda: checks.one_of("f", ("a", "b"), bad=None), "None", "one of a, b"),
    ],
)
def test_rejects(check, value, accepted):
    with pytest.raises(checks.JaxrlError) as error:
        check()
    assert str(error.value) == f"f: bad={value} is not accepted; it must be {accepted}"


def test_tracers_pass_and_constants_beside_them_do_not():
    def traced(x):
        checks.number("f", 0, 1, x=x)
        return x

    assert jax.jit(traced)(7.0) == 7.0
    assert jax.vmap(traced)(jnp.arange(3.0)).shape == (3,)
    with pytest.raises(checks.JaxrlError, match="y=2"):
        jax.jit(lambda x: checks.number("f", 0, 1, x=x, y=2))(7.0)


def test_unknown_names():
    names = ["CartPole-v1", "Pendulum-v1", "MountainCar-v0"]
    close = str(checks.unknown_name("environment", "cartpole", names, see="jaxrl list"))
    assert close == "unknown environment 'cartpole': did you mean CartPole-v1? (jaxrl list shows all)"
    far = str(checks.unknown_name("environment", "zzz", iter(names)))
    assert far == "unknown environment 'zzz': there are: CartPole-v1, MountainCar-v0, Pendulum-v1"


def test_is_a_value_error():
    assert issubclass(checks.JaxrlError, ValueError)
