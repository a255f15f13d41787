"""Shapes of the torsos, what they see, and the errors of the one that chooses among them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import networks
from jaxrl.checks import JaxrlError
from jaxrl.networks import MLP, Value, make_actor_critic, make_policy
from jaxrl.networks.actor_critic import memory_size
from jaxrl.types import Discrete, Spec, box


def spec(shape=(3,), obs_space=None, dtype=np.float32):
    return Spec("Env-v0", obs_space or box(0, 1, shape, dtype), Discrete(2))


def apply(torso: nn.Module, obs):
    params = torso.init(jax.random.key(0), obs)
    return params, torso.apply(params, obs)


@pytest.mark.parametrize("leading", [(), (5,), (2, 5)], ids=str)
@pytest.mark.parametrize("shape", [(3,), (2, 3), ()], ids=str)
def test_mlp_shapes(leading, shape):
    torso = networks.make_torso("ppo", spec(shape), "auto", (8, 4), "tanh")()
    obs = jnp.ones(leading + shape)
    _, features = apply(torso, obs)
    assert (features.shape, features.dtype) == ((*leading, 4), jnp.float32)


def test_mlp_against_numpy():
    obs = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    params, features = apply(networks.MLP((8, 4), "tanh"), obs)
    expected = obs
    for layer in ("Dense_0", "Dense_1"):
        expected = np.tanh(expected @ params["params"][layer]["kernel"] + params["params"][layer]["bias"])
    np.testing.assert_allclose(features, expected, atol=1e-6)
    kernel = params["params"]["Dense_0"]["kernel"]  # [3, 8], rows orthogonal with norm sqrt(2)
    np.testing.assert_allclose(kernel @ kernel.T, 2 * np.eye(3), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "at_minus_one"), [("tanh", -0.76159), ("relu", 0), ("elu", -0.63212), ("swish", -0.26894)]
)
def test_activations(name, at_minus_one):
    assert float(networks.ACTIVATIONS[name](jnp.float32(-1.0))) == pytest.approx(at_minus_one, abs=1e-4)


def test_relu_has_the_derivative_of_a_rectifier():
    x = jnp.array([-2.0, -1e-3, 0.0, 1e-3, 2.0])
    np.testing.assert_array_equal(jax.vmap(jax.grad(networks.ACTIVATIONS["relu"]))(x), [0, 0, 0, 1, 1])
    _, tangents = jax.jvp(networks.ACTIVATIONS["relu"], (x,), (jnp.arange(5.0),))
    np.testing.assert_array_equal(tangents, [0, 0, 0, 3, 4])


def test_cnn_sees_images_of_any_dtype():
    shape = (10, 10, 4)
    torso = networks.make_torso("dqn", spec(shape), "auto", (8,), "relu")()
    assert isinstance(torso, networks.CNN)
    obs = jax.random.bernoulli(jax.random.key(1), 0.3, (2, 3, *shape))  # bool
    params, features = apply(torso, obs)
    assert (features.shape, features.dtype) == ((2, 3, 8), jnp.float32)
    assert params["params"]["Dense_0"]["kernel"].shape == (3 * 3 * 4, 16)
    assert params["params"]["MLP_0"]["Dense_0"]["kernel"].shape == (8 * 8 * 16, 8)
    weights = params["params"]
    windows = np.lib.stride_tricks.sliding_window_view(obs[0, 0], (3, 3), axis=(0, 1))  # [8, 8, 4, 3, 3]
    kernel = weights["Dense_0"]["kernel"].reshape(3, 3, 4, 16)
    hidden = np.einsum("ijchw,hwco->ijo", windows, kernel) + weights["Dense_0"]["bias"]
    dense = weights["MLP_0"]["Dense_0"]
    expected = np.maximum(np.maximum(hidden, 0).ravel() @ dense["kernel"] + dense["bias"], 0)
    np.testing.assert_allclose(features[0, 0], expected, atol=1e-4)
    for dtype in (jnp.float32, jnp.uint8):
        np.testing.assert_array_equal(torso.apply(params, obs.astype(dtype)), features)
    np.testing.assert_allclose(torso.apply(params, obs[1, 2]), features[1, 2], atol=1e-5)
    assert np.abs(features[0, 0] - features[0, 1]).max() > 1e-3


def normalized(x):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-6)


@pytest.mark.parametrize("shape", [(3,), (4, 5, 2)], ids=["mlp", "cnn"])
def test_layer_norm_against_numpy(shape):
    """Each layer's output is normalised over its units, or channels, then scaled and shifted, before its activation."""
    torso = networks.make_torso("pqn", spec(shape), "auto", (8, 6), "tanh", layer_norm=True)()
    obs = np.random.default_rng(0).normal(size=(5, *shape)).astype(np.float32)
    params = jax.jit(torso.init)(jax.random.key(0), obs)
    params = jax.tree.map(lambda x: x + 0.3 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), params)
    weights, x = jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"]), np.float64(obs)
    layers = [(weights, 0), (weights, 1)]
    if len(shape) == 3:
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))  # [5, 2, 3, 2, 3, 3]
        x = np.moveaxis(windows, 3, -1).reshape(5, 2, 3, 3 * 3 * 2)
        layers = [(weights, 0), (weights["MLP_0"], 0), (weights["MLP_0"], 1)]
    for owner, i in layers:
        dense, norm = owner[f"Dense_{i}"], owner[f"LayerNorm_{i}"]
        x = x if x.shape[-1] == len(dense["kernel"]) else x.reshape(len(x), -1)
        x = np.tanh(normalized(x @ dense["kernel"] + dense["bias"]) * norm["scale"] + norm["bias"])
    np.testing.assert_allclose(torso.apply(params, obs), x, atol=1e-5)


@pytest.mark.parametrize("shape", [(3,), (4, 5, 2)], ids=["mlp", "cnn"])
def test_without_layer_norm_nothing_of_it_is_there(shape):
    """The other parameters have the same names and shapes with it and without."""
    trees = [
        jax.eval_shape(
            networks.make_torso("pqn", spec(shape), "auto", (8, 6), "tanh", **options)().init,
            jax.random.key(0),
            jnp.zeros(shape),
        )
        for options in ({}, {"layer_norm": False}, {"layer_norm": True})
    ]
    default, without, with_norm = (
        {jax.tree_util.keystr(path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(tree)} for tree in trees
    )
    assert default == without == {name: x for name, x in with_norm.items() if "LayerNorm" not in name}
    assert len(with_norm) == 2 * len(default)


def just(obs):
    return (obs,)


FAMILIES = {  # functions of a spec and a torso that make a network, and what it takes for a batch of 2 observations
    "actor-critic": (lambda s, t: make_actor_critic("a", s, t, (4,), "tanh"), just),
    "policy": (lambda s, t: make_policy("a", s, t, (4,), "tanh"), just),
    "q-network": (lambda s, t: networks.make_q_network("a", s, t, (4,), "tanh"), just),
    "critics": (lambda s, t: networks.make_critics("a", s, t, (4,), "tanh")(2), lambda obs: (obs, jnp.ones((2, 1)))),
    "discrete critics": (lambda s, t: networks.make_discrete_critics("a", s, t, (4,), "tanh")(2), just),
    "recurrent": (
        lambda s, t: networks.make_recurrent_q_network("a", s, t, (4,), "tanh", cell_size=3),
        lambda obs: (jnp.zeros((2, 3)), obs[None], jnp.ones((1, 2), jnp.int32)),
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_pixels_are_divided_by_255_everywhere(name):
    """Bytes from 0 to 255 of any shape, in every torso; not bytes of a smaller range, and not what became floats."""
    make, takes = FAMILIES[name]
    shapes = [((6, 5, 3), "auto"), ((6, 5, 3), "mlp"), ((5,), "auto")]
    cases = [(*one, high) for one in (*shapes, *[((36, 37, 1), "auto")] * (name == "policy")) for high in (255, 3)]

    @jax.jit
    def differences():
        found = []
        for shape, torso, high in cases:
            network = make(spec(obs_space=box(0, high, shape, np.uint8)), torso)
            obs = jax.random.randint(jax.random.key(1), (2, *shape), 0, high + 1).astype(jnp.uint8)
            like = jax.eval_shape(network.init, jax.random.key(0), *takes(obs))
            params = jax.tree.map(lambda x: 0.3 * jnp.cos(jnp.arange(1.0, x.size + 1)).reshape(x.shape), like)
            outputs = [network.apply(params, *takes(x)) for x in (obs, obs / high, obs.astype(jnp.float32))]
            as_bytes, scaled, unscaled = (numbers(output) for output in outputs)
            found.append([jnp.abs(as_bytes - x).max() for x in (scaled, unscaled)])
        return jnp.array(found)

    for (_, _, high), (to_scaled, to_unscaled) in zip(cases, np.asarray(differences()), strict=True):
        same, other = (to_scaled, to_unscaled) if high == 255 else (to_unscaled, to_scaled)
        assert same < 1e-5
        assert other > 1e-4


def numbers(output):
    """All numbers of a network's output, which may hold distributions."""
    leaves = jax.tree.leaves(output, is_leaf=lambda x: hasattr(x, "log_prob"))
    return jnp.concatenate([jnp.ravel(getattr(x, "logits", x)) for x in leaves])


@pytest.mark.parametrize("name", FAMILIES)
def test_every_network_refuses_observations_that_it_would_misread(name):
    """Channels that come first, and no numbers at all. An image that a convolution does not fit goes through an MLP."""
    make, takes = FAMILIES[name]
    for shape, torso, words in (
        ((3, 48, 48), "auto", "have their channels first; an image must be [height, width, channels]"),
        ((4, 84, 84), "nature", "jnp.moveaxis(obs, 0, -1) makes it so"),
        ((1, 40, 48), "cnn", "torso='mlp' takes any order"),
        ((12, 84, 84), "auto", "have their channels first"),
        ((0,), "auto", "shape (0,); it needs at least one number"),
        ((0, 10, 3), "mlp", "it needs at least one number"),
        ((2, 9, 2), "cnn", "torso='cnn' is not accepted on Env-v0, whose observations have shape (2, 9, 2)"),
        ((35, 99, 3), "nature", "torso='nature' is not accepted"),
    ):
        with pytest.raises(JaxrlError) as error:
            make(spec(shape), torso)
        assert words in str(error.value), shape
    fine = [((3, 48, 48), "mlp"), ((2, 9, 2), "auto"), ((1, 1), "auto"), ((5, 12, 6), "cnn"), ((3, 10, 4), "auto")]
    for shape, torso in fine:
        jax.eval_shape(make(spec(shape), torso).init, jax.random.key(0), *takes(jnp.zeros((2, *shape))))


def test_make_torso_chooses():
    image, vector = spec((10, 10, 4)), spec((4,))
    assert isinstance(networks.make_torso("ppo", image, "mlp", (8,), "relu")(), networks.MLP)
    assert isinstance(networks.make_torso("ppo", image, "cnn", (8,), "relu")(), networks.CNN)
    assert isinstance(networks.make_torso("ppo", vector, "auto", (8,), "relu")(), networks.MLP)
    flat = networks.make_torso("ppo", image, "mlp", (8,), "relu")()
    assert apply(flat, jnp.zeros((6, 10, 10, 4)))[1].shape == (6, 8)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (lambda: networks.make_torso("ppo", spec(), "rnn", (8,), "tanh"), ["ppo: torso='rnn'", "auto, mlp, cnn"]),
        (
            lambda: networks.make_torso("dqn", spec(), "cnn", (8,), "tanh"),
            ["dqn: torso='cnn'", "Env-v0", "(3,)", "'mlp'"],
        ),
        (
            lambda: networks.make_torso("ppo", spec(obs_space=Discrete(5)), "auto", (8,), "tanh"),
            ["ppo: Env-v0", "Discrete(n=5)", "flatten_observations=True"],
        ),
    ],
    ids=["unknown", "cnn on vectors", "integers"],
)
def test_errors(case, words):
    with pytest.raises(JaxrlError) as error:
        case()
    assert all(word in str(error.value) for word in words), error.value


# ---------------------------------------------------------------- actors and critics


@pytest.mark.parametrize(("cell", "shared"), [("gru", False), ("lstm", True)])
def test_an_actor_critic_that_remembers(cell, shared):
    """Where an episode began it starts from nothing; step by step or at once, it says the same."""
    fake = Spec("Fake-v0", box(-1, 1, (2,)), Discrete(3))
    network = make_actor_critic("test", fake, "mlp", (3,), "tanh", shared_torso=shared, cell=cell, cell_size=4)
    width = memory_size(shared, cell, 4)
    obs = jax.random.normal(jax.random.key(1), (6, 2, 2))
    next_obs = jax.random.normal(jax.random.key(2), (6, 2, 2))
    fresh = jnp.zeros((6, 2), bool).at[3, 0].set(True).at[1, 1].set(True)
    memory = jax.random.normal(jax.random.key(3), (2, width))

    @jax.jit
    def run():
        params = network.init(jax.random.key(0), obs, memory)
        policy, values = network.apply(params, obs, memory, fresh)
        carry, logits, carries = memory, [], []
        for t in range(6):
            carry = jnp.where(fresh[t][:, None], 0.0, carry)
            carry, one = network.apply(params, obs[t], carry, method="act")
            logits.append(one.logits)
            carries.append(carry)
        both = network.apply(params, obs, next_obs, memory, fresh, method="values")
        one_more = [network.apply(params, next_obs[t][None], carries[t])[1][0] for t in range(6)]
        return policy.logits, jnp.stack(logits), values, both, jnp.stack(one_more)

    at_once, step_by_step, values, both, one_more = run()
    np.testing.assert_allclose(at_once, step_by_step, atol=1e-5)
    np.testing.assert_allclose(both[0], values, atol=1e-6)
    np.testing.assert_allclose(both[1], one_more, atol=1e-5)
    assert np.abs(np.diff(at_once, axis=0)).min() > 1e-6


def test_policies_of_both_kinds():
    """A Gaussian begins with the deviation that is asked for; a policy alone is the head on the torso."""
    fake = Spec("Fake-v0", box(-1, 1, (2,)), box(-1, 1, (3,)))
    policy = make_policy("test", fake, "mlp", (4,), "tanh", log_std=-1.0)
    params = policy.init(jax.random.key(0), jnp.zeros((1, 2)))
    distribution = policy.apply(params, jnp.ones((5, 2)))
    assert distribution.batch_shape == (5,)
    np.testing.assert_allclose(distribution.stddev(), np.exp(-1.0), rtol=1e-6)
    value = Value(MLP((4,)))
    assert value.apply(value.init(jax.random.key(0), jnp.zeros((1, 2))), jnp.ones((7, 5, 2))).shape == (7, 5)
    matrices = fake._replace(action_space=box(-1, 1, (2, 2)))
    with pytest.raises(JaxrlError, match=r"test: Fake-v0 has actions of shape \(2, 2\)"):
        make_policy("test", matrices, "mlp", (4,), "tanh")
