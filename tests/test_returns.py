"""Returns against their definitions, written as plain sums over each episode, and against numbers by hand."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl import returns
from jaxrl.checks import JaxrlError

CLIP_RHO, CLIP_C, LAMBDA = 1.3, 0.9, 0.7
SHAPES = [(1,), (9,), (8, 3), (6, 2, 2)]


def trajectory(shape, seed):
    """Random inputs of every function, terminations (discount 0) and truncations anywhere, values consistent inside."""
    rng = np.random.default_rng(seed)
    draw = lambda: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    terminated, truncated = rng.random(shape) < 0.2, rng.random(shape) < 0.2
    ended = terminated | truncated
    stops = ended.copy()
    stops[-1] = True
    x = {name: draw() for name in ("rewards", "values", "next_values", "q_taken", "next_q_taken", "log_rhos")}
    x["ended"] = ended
    x["discounts"] = np.where(terminated, 0, rng.uniform(0.5, 1, shape)).astype(np.float32)
    x["lambda_"] = rng.uniform(0, 1, shape).astype(np.float32)
    x["next_v"] = np.where(stops, x["next_values"], np.roll(x["values"], -1, 0))
    x["next_q_taken"] = np.where(stops, x["next_q_taken"], np.roll(x["q_taken"], -1, 0))
    x["next_log_rhos"] = np.where(stops, 99.0, np.roll(x["log_rhos"], -1, 0)).astype(np.float32)
    return x


def slow(definition, x, *names):
    """Applies `definition(last, t, *columns)` to each step of each column; `last` is where the step's episode stops."""
    columns = [np.asarray(x[name], np.float64).reshape(len(x["rewards"]), -1) for name in names]
    ended = x["ended"].reshape(columns[0].shape)
    out = np.zeros_like(columns[0])
    for m in range(out.shape[1]):
        for t in range(len(out)):
            last = t
            while last < len(out) - 1 and not ended[last, m]:
                last += 1
            out[t, m] = definition(last, t, *(column[:, m] for column in columns))
    return out.reshape(x["rewards"].shape)


def slow_n_step(n):
    def definition(last, t, r, d, v):
        k = min(t + n - 1, last)
        return sum(np.prod(d[t:i]) * r[i] for i in range(t, k + 1)) + np.prod(d[t : k + 1]) * v[k]

    return definition


def slow_lambda(last, t, r, d, v, lam):
    """The weighted sum of all n-step returns."""
    weights = [np.prod(lam[t:k]) * (1 - lam[k] if k < last else 1) for k in range(t, last + 1)]
    np.testing.assert_allclose(sum(weights), 1)
    return sum(w * slow_n_step(n + 1)(last, t, r, d, v) for n, w in enumerate(weights))


def slow_gae(last, t, r, d, v, next_v, lam):
    return sum(np.prod(d[t:k] * lam[t:k]) * (r[k] + d[k] * next_v[k] - v[k]) for k in range(t, last + 1))


def slow_vtrace(last, t, log_rhos, r, d, v, next_v):
    rho, c = np.minimum(np.exp(log_rhos), CLIP_RHO), np.minimum(np.exp(log_rhos), CLIP_C)
    total = sum(np.prod(d[t:k] * c[t:k]) * rho[k] * (r[k] + d[k] * next_v[k] - v[k]) for k in range(t, last + 1))
    return v[t] + total


def slow_vtrace_advantage(last, t, log_rhos, r, d, v, next_v):
    following = next_v[t] if t == last else slow_vtrace(last, t + 1, log_rhos, r, d, v, next_v)
    return min(np.exp(log_rhos[t]), CLIP_RHO) * (r[t] + d[t] * following - v[t])


def slow_retrace(last, t, q, v, log_rhos, r, d):
    """Munos et al., eq. 4, with the ratio of the action at each step itself."""
    c = LAMBDA * np.minimum(1, np.exp(log_rhos))
    terms = (np.prod(d[t:k] * c[t + 1 : k + 1]) * (r[k] + d[k] * v[k] - q[k]) for k in range(t, last + 1))
    return q[t] + sum(terms)


@jax.jit
def everything(x):
    """Each function on one trajectory, and the equivalences between them, in one compiled call."""
    r, d, v, next_v, ended = (x[name] for name in ("rewards", "discounts", "values", "next_v", "ended"))
    nv, q, log_rhos = x["next_values"], x["q_taken"], x["log_rhos"]
    q_args = (q, nv, x["next_q_taken"], r, d, x["next_log_rhos"])
    out = {f"n_step {n}": returns.n_step_returns(r, d, nv, n, ended) for n in (1, 2, 3, 100)}
    out["discounted"] = returns.discounted_returns(r, d, nv, ended)
    out["discounted last"] = returns.discounted_returns(r, d, nv[-1], ended)
    out["lambda"] = returns.lambda_returns(r, d, nv, x["lambda_"], ended)
    out["lambda 0"] = returns.lambda_returns(r, d, nv, 0.0, ended)
    out["lambda 1"] = returns.lambda_returns(r, d, nv, 1.0, ended)
    out["lambda [T]"] = returns.lambda_returns(r, d, nv, x["lambda_"].reshape(len(r), -1)[:, 0], ended)
    out["gae"], out["gae target"] = returns.gae(r, d, v, next_v, x["lambda_"], ended)
    out["gae 0"], _ = returns.gae(r, d, v, next_v, 0.0, ended)
    _, out["gae 1 target"] = returns.gae(r, d, v, next_v, 1.0, ended)
    out["vtrace"], out["vtrace advantage"] = returns.vtrace(log_rhos, r, d, v, next_v, CLIP_RHO, CLIP_C, ended)
    out["vtrace on-policy"], out["vtrace on-policy advantage"] = returns.vtrace(0 * r, r, d, v, next_v, 1.0, 1.0, ended)
    out["retrace"] = returns.retrace(*q_args, LAMBDA, ended)
    out["retrace 0"] = returns.retrace(*q_args, 0.0, ended)
    return out


@pytest.mark.parametrize("shape", SHAPES)
def test_definitions_and_equivalences(shape):
    for seed in range(4):
        x = trajectory(shape, seed)
        out = everything(x)
        assert all(y.dtype == jnp.float32 and y.shape == shape for y in out.values())
        close = lambda name, expected: np.testing.assert_allclose(out[name], expected, 1e-4, 1e-5, err_msg=name)  # noqa: E731

        for n in (1, 2, 3, 100):
            close(f"n_step {n}", slow(slow_n_step(n), x, "rewards", "discounts", "next_values"))
        close("discounted", slow(slow_n_step(100), x, "rewards", "discounts", "next_values"))
        at_end = np.zeros(shape)
        at_end[-1] = x["next_values"][-1]
        close("discounted last", slow(slow_n_step(100), x | {"b": at_end}, "rewards", "discounts", "b"))
        names = ("rewards", "discounts", "next_values", "lambda_")
        close("lambda", slow(slow_lambda, x, *names))
        first = x["lambda_"].reshape(len(x["lambda_"]), -1)[:, 0].reshape(-1, *[1] * (len(shape) - 1))
        close("lambda [T]", slow(slow_lambda, x | {"lambda_": np.broadcast_to(first, shape)}, *names))
        names = ("rewards", "discounts", "values", "next_v")
        advantages = slow(slow_gae, x, *names, "lambda_")
        close("gae", advantages)
        close("gae target", advantages + x["values"])
        close("vtrace", slow(slow_vtrace, x, "log_rhos", *names))
        close("vtrace advantage", slow(slow_vtrace_advantage, x, "log_rhos", *names))
        close("retrace", slow(slow_retrace, x, "q_taken", "next_values", "log_rhos", "rewards", "discounts"))

        td = x["rewards"] + x["discounts"] * x["next_values"]
        td_v = x["rewards"] + x["discounts"] * x["next_v"] - x["values"]
        for name in ("n_step 1", "lambda 0", "retrace 0"):
            close(name, td)
        for name in ("lambda 1", "gae 1 target", "vtrace on-policy", "n_step 100"):
            close(name, out["discounted"])
        close("gae 0", td_v)
        close("vtrace on-policy advantage", out["discounted"] - x["values"])


def test_by_hand():
    """Five steps: one terminates (1), one is truncated (3), the trajectory stops in the middle of an episode (4)."""
    r = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])
    d = jnp.array([0.5, 0.0, 0.5, 0.5, 0.5])
    v = jnp.array([1.0, 2.0, 4.0, 2.0, 8.0])
    nv = jnp.array([2.0, 100.0, 2.0, 16.0, 6.0])
    ended = jnp.array([False, True, False, True, False])
    # Terminated: 2. Truncated: 4 + 16 / 2 = 12, whatever comes next. At the end: 5 + 6 / 2 = 8.
    full = [2.0, 2.0, 9.0, 12.0, 8.0]
    assert returns.discounted_returns(r, d, nv, ended).tolist() == full
    assert returns.discounted_returns(r, d, 6.0, ended).tolist() == [2.0, 2.0, 5.0, 4.0, 8.0]
    assert returns.n_step_returns(r, d, nv, 2, ended).tolist() == full
    assert returns.n_step_returns(r, d, nv, 1, ended).tolist() == [2.0, 2.0, 4.0, 12.0, 8.0]
    assert returns.lambda_returns(r, d, nv, 0.5, ended).tolist() == [2.0, 2.0, 6.5, 12.0, 8.0]
    advantages, targets = returns.gae(r, d, v, nv, 0.5, ended)
    assert advantages.tolist() == [1.0, 0.0, 2.5, 10.0, 0.0]
    assert targets.tolist() == [2.0, 2.0, 6.5, 12.0, 8.0]
    # Ratios 1/2 and 2: at t=2, delta = (3 + 1 - 4) / 2 = 0, then 0.5 * 0.5 * (2 * 10); advantage (3 + 22 / 2 - 4) / 2.
    ratios = jnp.array([1.0, 1.0, 0.5, 4.0, 1.0])
    targets, advantages = returns.vtrace(jnp.log(ratios), r, d, v, nv, 2.0, 1.0, ended)
    np.testing.assert_allclose(targets, [2.0, 2.0, 9.0, 22.0, 8.0], 1e-6)
    np.testing.assert_allclose(advantages, [1.0, 0.0, 5.0, 20.0, 0.0], 1e-6, 1e-6)
    # c = 0.5 * min(1, 1/2): at t=2, 3 + (2 + 0.25 * (12 - 4)) / 2; at t=0, 1 + (2 + 0.25 * (2 - 8)) / 2.
    q_next = jnp.array([8.0, 7.0, 4.0, 7.0, 7.0])
    targets = returns.retrace(v, nv, q_next, r, d, jnp.log(jnp.array([0.5, 9.0, 0.5, 9.0, 9.0])), 0.5, ended)
    np.testing.assert_allclose(targets, [1.25, 2.0, 5.0, 12.0, 8.0], 1e-6)


def test_truncation_bootstraps_and_termination_does_not():
    x = {**trajectory((6,), 0), "ended": np.array([False, False, True, False, False, False])}
    x["discounts"] = np.full(6, 0.9, np.float32)
    terminated = {**x, "discounts": np.where(x["ended"], 0, x["discounts"]).astype(np.float32)}
    moved = {"next_values": x["next_values"] + x["ended"], "next_v": x["next_v"] + x["ended"]}
    kept = {"discounted last"}  # has no value to bootstrap from at a truncation
    truncated_difference, terminated_difference = (
        jax.tree.map(lambda a, b: np.asarray(b - a), everything(y), everything({**y, **moved})) for y in (x, terminated)
    )
    for name in everything(x).keys() - kept:
        assert np.abs(truncated_difference[name][2]) > 0.3, name
    for name, difference in terminated_difference.items():
        np.testing.assert_array_equal(difference, 0, err_msg=name)


def test_nothing_flows_back_across_an_end():
    """Not even a NaN, and no gradient."""
    x = trajectory((6,), 1)
    x["ended"] = np.array([False, False, True, False, False, False])
    x["discounts"] = np.full(6, 0.9, np.float32)
    reference = everything(x)
    names = ("rewards", "values", "next_values", "next_v", "q_taken", "next_q_taken", "log_rhos", "next_log_rhos")
    poisoned = {**x, **{name: np.where(np.arange(6) > 2, np.nan, x[name]) for name in names}}
    for name, out in everything(poisoned).items():
        np.testing.assert_array_equal(out[:3], reference[name][:3], err_msg=name)
        assert np.isnan(out[3:]).all(), name

    floats = {name: value for name, value in x.items() if name != "ended"}
    head = lambda floats: sum(out[:3].sum() for out in everything({**floats, "ended": x["ended"]}).values())  # noqa: E731
    for name, gradient in jax.grad(head)(floats).items():
        np.testing.assert_array_equal(gradient[3:], 0, err_msg=name)
        assert np.isfinite(gradient).all(), name
    assert np.abs(jax.grad(head)(floats)["rewards"][:3]).min() > 0


def test_vmap_and_traced_hyper_parameters():
    x = trajectory((8, 3), 2)
    r, d, v, next_v, ended = (x[name] for name in ("rewards", "discounts", "values", "next_v", "ended"))

    def one(r, d, v, next_v, ended, log_rhos, lambda_):
        q_args = (v, next_v, next_v, r, d, log_rhos)
        return (
            *returns.gae(r, d, v, next_v, lambda_, ended),
            *returns.vtrace(log_rhos, r, d, v, next_v, 2 * lambda_, lambda_, ended),
            returns.lambda_returns(r, d, next_v, lambda_, ended),
            returns.retrace(*q_args, lambda_, ended),
            returns.n_step_returns(r, d, next_v, 3, ended),
        )

    arguments = (r, d, v, next_v, ended, x["log_rhos"])
    whole = jax.jit(one)(*arguments, 0.7)
    columns = jax.jit(jax.vmap(one, in_axes=(1,) * 6 + (None,), out_axes=1))(*arguments, 0.7)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), whole, columns)
    many = jax.jit(jax.vmap(one, in_axes=(None,) * 6 + (0,)))(*arguments, jnp.array([0.1, 0.7]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[1], 1e-5, 1e-6), whole, many)


def test_half_precision_inputs_are_summed_in_float32():
    ones = jnp.ones(1000, jnp.bfloat16)
    out = jax.jit(returns.discounted_returns)(ones, ones, 0.0)
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, np.arange(1000, 0, -1))


def test_overflowing_ratios_keep_values_and_gradients_finite():
    ones = jnp.ones(3)
    total = lambda log_rhos: returns.vtrace(log_rhos, ones, ones, ones, ones, 1.0, 1.0)[0].sum()  # noqa: E731
    value, gradient = jax.value_and_grad(total)(jnp.array([200.0, -200.0, 200.0]))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    targets, _ = returns.vtrace(jnp.log(3 * ones), ones, ones, 0 * ones, 0 * ones, jnp.inf, 0.0)
    np.testing.assert_allclose(targets, 3, 1e-6)


def test_errors():
    ones = jnp.ones((4, 2))
    for n in (0, -1, 1.5, True):
        with pytest.raises(JaxrlError, match=f"n_step_returns: n={n}"):
            returns.n_step_returns(ones, ones, ones, n)
    with pytest.raises(JaxrlError, match=r"gae: lambda_=1\.5"):
        returns.gae(ones, ones, ones, ones, 1.5)
    for wrong in (
        lambda: returns.n_step_returns(ones, ones, ones[:3], 2),
        lambda: returns.gae(ones, ones[:, 0], ones, ones, 0.5),
        lambda: returns.gae(ones, ones, ones, ones, jnp.ones(2)),  # not [T]
        lambda: returns.lambda_returns(ones, ones, ones, 0.5, ended=jnp.zeros(4, bool)),
        lambda: returns.discounted_returns(ones, ones, jnp.ones(4)),  # not [...]
        lambda: returns.discounted_returns(ones, ones, jnp.ones((1, 2))),
        lambda: returns.discounted_returns(ones[:0], ones[:0], 0.0),
    ):
        with pytest.raises(AssertionError):
            wrong()


unit = st.floats(0, 1, width=32)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(unit, unit, unit, st.booleans()), min_size=9, max_size=9))
def test_returns_of_constant_worth_stay_constant(steps):
    """Where each reward is `1 - discount` and each value 1, every return is 1, whatever lambda and the ends."""
    d, lambda_, _, ended = (np.array(column) for column in zip(*steps, strict=True))
    ones = np.ones(9, np.float32)
    x = dict.fromkeys(("values", "next_values", "next_v", "q_taken", "next_q_taken"), ones)
    x |= {"discounts": d.astype(np.float32), "lambda_": lambda_.astype(np.float32), "ended": ended}
    x |= {"log_rhos": 0 * ones, "next_log_rhos": 0 * ones, "rewards": (1 - d).astype(np.float32)}
    out = everything(x)
    for name in ("n_step 3", "discounted", "lambda", "gae target", "vtrace", "retrace"):
        np.testing.assert_allclose(out[name], 1, 1e-5, err_msg=name)


def test_examples():
    result = doctest.testmod(returns)
    assert result.attempted >= 6
    assert result.failed == 0


def test_retrace_looks_at_no_action_after_an_end():
    """What stands for it there may be anything: the action that would follow has no value."""
    rng, ended = np.random.default_rng(0), np.array([False, True, False, False])
    q, next_values, next_q, rewards, log_rhos = rng.normal(size=(5, 4)).astype(np.float32)
    unused = ended | (np.arange(4) == 3)
    expected = returns.retrace(q, next_values, next_q, rewards, jnp.full(4, 0.9), log_rhos, 0.8, ended)
    for fill in (np.nan, np.inf):
        filled = [np.where(unused, fill, x) for x in (next_q, log_rhos)]
        found = returns.retrace(q, next_values, filled[0], rewards, jnp.full(4, 0.9), filled[1], 0.8, ended)
        np.testing.assert_array_equal(found, expected)
