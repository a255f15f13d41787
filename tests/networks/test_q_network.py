"""Noise of noisy layers, and Q-networks against the same in NumPy."""

import doctest
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import networks
from jaxrl.checks import JaxrlError
from jaxrl.networks import MLP, NoisyDense, QNetwork, make_q_network, noisy, orthogonal
from jaxrl.types import Discrete, Spec, box

VECTOR = Spec("Env-v0", box(0, 1, (5,)), Discrete(3))
IMAGE = Spec("Image-v0", box(0, 1, (6, 6, 2)), Discrete(3))
INPUTS, FEATURES = 6, 4


@pytest.fixture(scope="module")
def layer():
    """A noisy layer's parameters, sigmas drawn at random, and 4000 draws of its outputs for the unit inputs and 0."""
    module = NoisyDense(FEATURES)
    rows = jnp.concatenate([jnp.eye(INPUTS), jnp.zeros((1, INPUTS))])
    params = module.init(jax.random.key(0), rows)
    drawn = lambda key, x: jax.random.uniform(key, x.shape, minval=0.1, maxval=1.0)  # noqa: E731
    params["params"]["kernel_sigma"] = drawn(jax.random.key(1), params["params"]["kernel_sigma"])
    params["params"]["bias_sigma"] = drawn(jax.random.key(2), params["params"]["bias_sigma"])
    draw = jax.jit(jax.vmap(lambda key: module.apply(params, rows, rngs={"noise": key})))
    outputs = np.asarray(draw(jax.random.split(jax.random.key(3), 4000)), np.float64)
    bias = outputs[:, -1]
    kernel = outputs[:, :-1] - bias[:, None]
    p = jax.tree.map(np.asarray, params["params"])
    return module, params, (kernel - p["kernel"]) / p["kernel_sigma"], (bias - p["bias"]) / p["bias_sigma"]


def test_noisy_weights_start_as_in_the_paper():
    params = NoisyDense(300, sigma=0.4).init(jax.random.key(0), jnp.ones(25))["params"]
    assert {name: x.shape for name, x in params.items()} == {
        "kernel": (25, 300),
        "bias": (300,),
        "kernel_sigma": (25, 300),
        "bias_sigma": (300,),
    }
    for name in ("kernel", "bias"):  # uniform in +-1/5
        assert 0.19 < np.abs(params[name]).max() <= 0.2
        assert np.abs(params[name]).mean() == pytest.approx(0.1, abs=0.01)
        assert np.mean(params[name]) == pytest.approx(0, abs=0.02)
        np.testing.assert_allclose(params[f"{name}_sigma"], 0.4 / 5, 1e-6)
    kernel = NoisyDense(7, kernel_init=nn.initializers.ones).init(jax.random.key(0), jnp.ones(3))["params"]["kernel"]
    np.testing.assert_array_equal(kernel, 1)


def test_noise_is_an_outer_product_with_the_bias_as_a_factor(layer):
    _, _, kernel_noise, bias_noise = layer
    values = np.linalg.svd(kernel_noise, compute_uv=False)
    assert values[:, 1].max() < 1e-4
    assert values[:, 0].min() > 1e-2
    # kernel[i, j] = f(e_in[i]) f(e_out[j]) and bias[j] = f(e_out[j]), so each row over the bias is one number.
    j = np.argmax(np.abs(bias_noise), axis=1)
    each = np.arange(len(j))
    rows = kernel_noise[each, :, j] / bias_noise[each, j][:, None]
    np.testing.assert_allclose(kernel_noise, rows[:, :, None] * bias_noise[:, None], atol=1e-4)
    # f(e) = sgn(e) sqrt(|e|) of a standard normal number: f^2 is |e|.
    for factor in (rows, bias_noise):
        assert np.mean(factor) == pytest.approx(0, abs=0.03)
        assert np.mean(factor**2) == pytest.approx(np.sqrt(2 / np.pi), abs=0.03)  # E|e|
        assert np.mean(factor**4) == pytest.approx(1, abs=0.06)  # E e^2
    factors = np.concatenate([rows, bias_noise], axis=1)  # all of them independent
    np.testing.assert_allclose(np.corrcoef(factors.T), np.eye(INPUTS + FEATURES), atol=0.08)


def test_noisy_layer_is_its_mean_without_a_stream(layer):
    module, params, _, _ = layer
    x = np.random.default_rng(0).normal(size=(7, 2, INPUTS)).astype(np.float32)
    expected = x @ np.asarray(params["params"]["kernel"]) + np.asarray(params["params"]["bias"])
    np.testing.assert_allclose(module.apply(params, x), expected, atol=1e-5)
    np.testing.assert_allclose(module.apply(params, x, rngs={"dropout": jax.random.key(0)}), expected, atol=1e-5)
    gradient = jax.grad(lambda p: module.apply(p, x).sum())(params)["params"]
    np.testing.assert_array_equal(gradient["kernel_sigma"], 0)
    noise = {"noise": jax.random.key(5)}
    gradient = jax.grad(lambda p: module.apply(p, x, rngs=noise).sum())(params)["params"]
    assert min(np.abs(g).min() for g in jax.tree.leaves(gradient)) > 1e-3


def test_noise_is_one_draw_for_the_batch(layer):
    module, params, _, _ = layer
    out = module.apply(params, jnp.ones((9, INPUTS)), rngs={"noise": jax.random.key(4)})
    np.testing.assert_allclose(out, np.broadcast_to(out[0], out.shape), atol=1e-6)
    mean = module.apply(params, jnp.ones(INPUTS))
    other = module.apply(params, jnp.ones(INPUTS), rngs={"noise": jax.random.key(5)})
    assert min(np.abs(out[0] - mean).max(), np.abs(out[0] - other).max()) > 1e-2


def test_layers_of_one_network_draw_independently():
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x):
            return NoisyDense(3)(x), NoisyDense(3)(x)

    params = Two().init(jax.random.key(0), jnp.ones(3))
    zero = jax.tree.map(jnp.zeros_like, params)
    ones = {"params": {n: {**p, "bias_sigma": jnp.ones(3)} for n, p in zero["params"].items()}}
    draw = jax.jit(jax.vmap(lambda key: Two().apply(ones, jnp.ones(3), rngs={"noise": key})))
    a, b = draw(jax.random.split(jax.random.key(1), 2000))
    assert np.abs(np.corrcoef(a.T, b.T)[:3, 3:]).max() < 0.1


class Today(nn.Module):
    """A torso and one layer."""

    torso: nn.Module
    num_actions: int

    @nn.compact
    def __call__(self, obs):
        return nn.Dense(self.num_actions, kernel_init=orthogonal(1.0))(self.torso(obs))


def test_plain_network_is_a_torso_and_a_layer():
    obs = jax.random.normal(jax.random.key(1), (2, 4, 5))
    plain, today = make_q_network("dqn", VECTOR, "auto", (8, 6), "relu"), Today(MLP((8, 6), "relu"), 3)
    params = plain.init(jax.random.key(0), obs)
    assert set(params["params"]) == {"torso", "Dense_0"}
    jax.tree.map(np.testing.assert_array_equal, params, today.init(jax.random.key(0), obs))
    np.testing.assert_array_equal(plain.apply(params, obs), today.apply(params, obs))


def random_params(network, obs, seed=0):
    """Parameters of the right shapes, drawn at random, biases too; far quicker than to compile the initialisation."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(network.init, jax.random.key(0), obs)
    return jax.tree.map(lambda x: rng.normal(scale=0.5, size=x.shape).astype(np.float32), shapes)


CASES = list(itertools.product(("none", "mean", "max"), (False, True), (1, 4)))


@pytest.fixture(scope="module")
def outputs_of_cases():
    """Each case's parameters, mean and noisy action values, all in one compiled call."""
    obs = np.random.default_rng(0).normal(size=(2, 7, 5)).astype(np.float32)
    cases = {}
    for dueling, is_noisy, outputs in CASES:
        options = {"dueling": dueling, "noisy": is_noisy, "outputs": outputs}
        network = make_q_network("dqn", VECTOR, "auto", (8, 6), "tanh", **options)
        cases[dueling, is_noisy, outputs] = network, random_params(network, obs)
    noise = {"noise": jax.random.key(2)}

    def both(params):
        return {
            case: (network.apply(params[case], obs), network.apply(params[case], obs, rngs=noise))
            for case, (network, _) in cases.items()
        }

    params = {case: params for case, (_, params) in cases.items()}
    return obs, params, jax.jit(both)(params)


@pytest.mark.parametrize(("dueling", "is_noisy", "outputs"), CASES)
def test_against_numpy(outputs_of_cases, dueling, is_noisy, outputs):
    features, params, values = outputs_of_cases
    weights = params[dueling, is_noisy, outputs]["params"]
    q, drawn = values[dueling, is_noisy, outputs]

    def through(layer, x):
        return x @ weights[layer]["kernel"] + weights[layer]["bias"]

    for layer in weights["torso"].values():
        features = np.tanh(features @ layer["kernel"] + layer["bias"])
    split = is_noisy or dueling != "none"
    assert features.shape == (2, 7, 8 if split else 6)
    kind = "NoisyDense" if is_noisy else "Dense"
    if dueling == "none":
        assert set(weights) == {"torso", *(f"{kind}_{i}" for i in range(1 + split))}
        if split:
            features = np.tanh(through(f"{kind}_0", features))
        expected = through(f"{kind}_{int(split)}", features).reshape(2, 7, 3, outputs)
    else:
        assert set(weights) == {"torso", "value_0", "value_1", "advantage_0", "advantage_1"}
        value = through("value_1", np.tanh(through("value_0", features)))
        advantage = through("advantage_1", np.tanh(through("advantage_0", features))).reshape(2, 7, 3, outputs)
        expected = np.zeros((2, 7, 3, outputs))
        for i, j, a, k in np.ndindex(expected.shape):
            over = advantage[i, j, :, k]
            expected[i, j, a, k] = value[i, j, k] + over[a] - (over.mean() if dueling == "mean" else over.max())
    assert q.dtype == jnp.float32
    np.testing.assert_allclose(q, expected[..., 0] if outputs == 1 else expected, atol=1e-5)
    assert all(("kernel_sigma" in layer) == is_noisy for name, layer in weights.items() if name != "torso")
    assert (np.abs(drawn - q).max() > 1e-2) == is_noisy


def test_dueling_by_hand():
    """Value 5 and advantages 1, 2, 6, all from biases: the mean is 3 and the maximum 6."""
    for dueling, expected in {"mean": [3, 4, 8], "max": [0, 1, 5]}.items():
        network = QNetwork(MLP(()), 3, dueling=dueling)
        params = jax.tree.map(np.zeros_like, random_params(network, jnp.ones(5)))
        params["params"]["value_0"]["bias"] = jnp.array([5.0])
        params["params"]["advantage_0"]["bias"] = jnp.array([1.0, 2.0, 6.0])
        np.testing.assert_allclose(network.apply(params, jnp.ones(5)), expected, 1e-6)


def test_initial_kernels_are_orthogonal():
    network = QNetwork(MLP((8,)), 3, (6,), dueling="mean")
    layers = network.init(jax.random.key(0), jnp.ones(5))["params"]
    for name, square in {"value_0": 2, "advantage_0": 2, "value_1": 1, "advantage_1": 1}.items():
        kernel = layers[name]["kernel"]
        np.testing.assert_allclose(kernel.T @ kernel, square * np.eye(kernel.shape[1]), atol=1e-5)
        np.testing.assert_array_equal(layers[name]["bias"], 0)


@pytest.mark.parametrize("spec", [VECTOR, IMAGE], ids=["vector", "image"])
@pytest.mark.parametrize("hidden_sizes", [(), (4,), [4, 6]], ids=str)
def test_any_hidden_sizes(spec, hidden_sizes):
    obs = jnp.ones((2, *spec.obs_space.shape))
    for dueling, is_noisy in (("none", False), ("none", True), ("max", False)):
        network = make_q_network("dqn", spec, "auto", hidden_sizes, "relu", dueling=dueling, noisy=is_noisy, outputs=2)
        shapes = jax.eval_shape(network.init, jax.random.key(0), obs)
        assert jax.eval_shape(network.apply, shapes, obs).shape == (2, 3, 2)
        split = is_noisy or dueling != "none"
        assert network.stream_sizes == (tuple(hidden_sizes)[-1:] if split else ())
        assert network.torso.hidden_sizes == tuple(hidden_sizes)[: len(hidden_sizes) - split if hidden_sizes else 0]


def test_vmap_over_seeds_with_their_own_noise():
    network = make_q_network("dqn", VECTOR, "auto", (8, 6), "relu", dueling="mean", noisy=True)
    obs, keys = np.random.default_rng(0).normal(size=(4, 5)), jax.random.split(jax.random.key(0), 3)
    params = [random_params(network, obs, seed) for seed in range(3)]

    def one(params, key):
        return network.apply(params, obs, rngs={"noise": key})

    together = jax.jit(jax.vmap(one))(jax.tree.map(lambda *x: np.stack(x), *params), keys)
    with jax.debug_key_reuse(True):
        for i in range(3):
            np.testing.assert_allclose(together[i], jax.jit(one)(params[i], keys[i]), atol=1e-5)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ({"dueling": "sum"}, ["dqn: dueling='sum'", "none, mean, max"]),
        ({"outputs": 0}, ["dqn: outputs=0"]),
        ({"hidden_sizes": (8, 0)}, [r"dqn: hidden_sizes[1]=0"]),
        ({"activation": "sine"}, ["dqn: activation='sine'", "relu"]),
        ({"torso": "cnn"}, ["dqn: torso='cnn'", "Env-v0"]),
        ({"spec": VECTOR._replace(action_space=box(-1, 1, (2,)))}, ["dqn: Env-v0 has continuous actions"]),
    ],
    ids=lambda case: str(next(iter(case))),
)
def test_errors(case, words):
    arguments = {"spec": VECTOR, "torso": "auto", "hidden_sizes": (8,), "activation": "relu", **case}
    with pytest.raises(JaxrlError) as error:
        make_q_network("dqn", **arguments)
    assert all(word in str(error.value) for word in words), error.value


def test_errors_of_a_network_made_by_hand():
    with pytest.raises(JaxrlError, match="QNetwork: dueling='sum'"):
        QNetwork(MLP((4,)), 3, dueling="sum").init(jax.random.key(0), jnp.ones(5))


def test_examples():
    assert set(networks.__all__) >= {"NoisyDense", "QNetwork", "make_q_network"}
    result = doctest.testmod(noisy)
    assert result.attempted == 3
    assert result.failed == 0
