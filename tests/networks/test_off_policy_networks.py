"""Ensembles of critics against separate networks, and the squashed Gaussian's density against a change of variables."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl import JaxrlError
from jaxrl.networks import CNN, MLP, SquashedGaussian, TanhPolicy, greedy, make_critics, squashed_gaussian
from jaxrl.networks.off_policy import LOG_STD_BOUNDS, Critic
from jaxrl.types import Discrete, Spec, box

VECTOR = Spec("Env-v0", box(-1, 1, (3,)), box(-1, 1, (2,)))
IMAGE = Spec("Image-v0", box(0, 1, (5, 4, 2)), box(-1, 1, (2,)))


# ---------------------------------------------------------------- the density

SAMPLES = 40
MEANS = np.array([[0.0, 0.5, -1.0], [8.0, -8.0, 5.0], [-9.0, 3.0, 9.0]], np.float32)  # [3, A]
LOG_STDS = np.array([-5.0, -2.0, 0.0, 1.0, 2.0], np.float32)


def log_density_by_change_of_variables(u, mean, std):
    """log P(a - da < A < a + da) / (2 da) at a = tanh(u): a quotient of differences, exact near the bounds, too.

    What lies between two actions is small beside both of them, so it is taken from how far they are from the bound,
    1 - tanh(u) = 2 / (1 + exp(2 u)), and the chance from the tail that is nearer; all on the side where u > 0.
    """
    sign = np.where(u < 0, -1.0, 1.0)
    u, mean = u * sign, mean * sign
    width = 1e-4 * np.minimum(std, 1.0)
    low, high = u - width, u + width
    actions = 2 / (1 + np.exp(2 * low)) - 2 / (1 + np.exp(2 * high))
    side = np.where(u > mean, -1.0, 1.0)
    chance = np.abs(scipy.stats.norm.cdf(side * (high - mean) / std) - scipy.stats.norm.cdf(side * (low - mean) / std))
    return np.log(chance / actions)


@pytest.fixture(scope="module")
def drawn():
    """Actions, the logarithms of their densities, and the standard normal numbers that they were made of."""

    def run(key, mean, log_std):
        policy = squashed_gaussian(mean, jnp.exp(log_std) * jnp.ones(3))
        action, log_prob = policy.sample_and_log_prob(seed=key, sample_shape=SAMPLES)
        same = policy.distribution.sample(seed=key, sample_shape=SAMPLES)
        return action, log_prob, distrax.MultivariateNormalDiag(jnp.zeros(3), jnp.ones(3)).sample(
            seed=key, sample_shape=SAMPLES
        ), same  # fmt: skip

    keys = jax.random.split(jax.random.key(0), (len(MEANS), len(LOG_STDS)))
    return jax.device_get(jax.jit(jax.vmap(jax.vmap(run, (0, None, 0)), (0, 0, None)))(keys, MEANS, LOG_STDS))


def test_log_probability_is_that_of_a_change_of_variables(drawn):
    action, log_prob, normal, gaussian = drawn
    std = np.exp(LOG_STDS.astype(np.float64))[None, :, None, None]
    mean = MEANS.astype(np.float64)[:, None, None]
    u = mean + std * normal
    np.testing.assert_allclose(u, gaussian, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(action, np.tanh(u), atol=1e-6)
    expected = log_density_by_change_of_variables(u, mean, std).sum(-1)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-6, atol=1e-5)
    beyond = np.abs(u).max(-1) > 8.5
    assert beyond.sum() > 100  # where tanh is 1 or -1 in float32
    np.testing.assert_allclose(np.abs(action[np.abs(u) > 10]), 1, rtol=1e-6)


def test_the_change_of_variables_is_a_density():
    """It sums to 1 over the actions."""
    u = np.linspace(-9, 9, 20_001)
    a = np.tanh(u)
    for mean, std in ((0.3, 0.5), (-1.0, 1.5)):
        density = np.exp(log_density_by_change_of_variables(u, np.full_like(u, mean), np.full_like(u, std)))
        np.testing.assert_allclose(np.trapezoid(density, a), 1.0, atol=1e-3)


@pytest.fixture(scope="module")
def policies():
    """A network whose outputs are its bias: for each log_std, its distribution's deviation and the bias's gradient."""
    network = SquashedGaussian(MLP((2,)), 1)
    params = jax.tree.map(
        lambda x: jnp.zeros(x.shape), jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 3)))
    )

    def run(log_std):
        def std(bias):
            params["params"]["output"]["bias"] = bias
            policy = network.apply(params, jnp.ones((1, 3)))
            return policy.distribution.stddev()[0, 0], greedy(policy)

        return jax.value_and_grad(std, has_aux=True)(jnp.array([0.4, log_std]))

    return jax.device_get(jax.jit(jax.vmap(run))(jnp.array([-50.0, -20.5, -3.0, 0.0, 1.9, 2.1, 40.0])))


def test_the_logarithm_of_the_deviation_is_clipped(policies):
    (std, best), grads = policies
    low, high = LOG_STD_BOUNDS
    assert (low, high) == (-20, 2)
    np.testing.assert_allclose(std, np.exp([low, low, -3.0, 0.0, 1.9, high, high]), rtol=1e-5)
    np.testing.assert_array_equal(grads[:, 1] > 0, [False, False, True, True, True, False, False])
    np.testing.assert_allclose(best[:, 0, 0], np.tanh(0.4), rtol=1e-6)


def test_policies_begin_near_the_middle():
    """And with a deviation of about 1, before it is squashed; shapes with two leading axes."""
    obs = jax.random.normal(jax.random.key(1), (6, 7, 3))
    for network in (TanhPolicy(MLP((8,)), 2), SquashedGaussian(MLP((8,)), 2)):
        out = network.apply(jax.jit(network.init)(jax.random.key(0), obs), obs)
        action = out if isinstance(network, TanhPolicy) else greedy(out)
        assert action.shape == (6, 7, 2)
        assert np.abs(action).max() < 0.05
        assert len(np.unique(action)) == action.size
    np.testing.assert_allclose(out.distribution.stddev(), 1.0, atol=0.05)


# ---------------------------------------------------------------- ensembles


@pytest.fixture(scope="module", params=[VECTOR, IMAGE], ids=["vector", "image"])
def ensemble(request):
    """Three critics that are normalised and drop: parameters; outputs together, of each alone and of the first; and of
    three that are the same, with two keys for what they drop and without."""
    spec, image = request.param, request.param is IMAGE
    make = make_critics("owner", spec, "auto", (6, 5), "relu", layer_norm=True, dropout=0.5)
    torso = MLP((5,) if image else (6, 5), "relu", layer_norm=True)
    one = Critic(CNN((6, 5), "relu", layer_norm=True) if image else MLP(()), torso)
    obs = jax.random.uniform(jax.random.key(0), (2, 4, *spec.obs_space.shape))
    action = jax.random.uniform(jax.random.key(1), (2, 4, 2))
    params = jax.jit(lambda key: make(3).init(key, obs, action))(jax.random.key(3))
    each = [jax.tree.map(lambda x: x[i], params) for i in range(3)]
    same = jax.tree.map(lambda x: jnp.stack([x[0]] * 3), params)
    together, alone = jax.jit(make(3).apply), jax.jit(one.apply)
    drop = jax.jit(lambda key: make(3).apply(same, obs, action, rngs={"dropout": key}))
    return jax.device_get(
        (
            params,
            together(params, obs, action),
            jnp.stack([alone(p, obs, action) for p in each]),
            make(1).apply(jax.tree.map(lambda x: x[:1], params), obs, action),
            [drop(jax.random.key(0)), drop(jax.random.key(1)), together(same, obs, action)],
        )
    )


def test_an_ensemble_is_so_many_networks(ensemble):
    params, together, alone, first, _ = ensemble
    assert together.shape == (3, 2, 4)
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(first, alone[:1], rtol=1e-4, atol=1e-5)
    for path, leaf in jax.tree.leaves_with_path(params):
        assert len(leaf) == 3
        if "kernel" in jax.tree_util.keystr(path):
            assert min(np.abs(leaf[i] - leaf[j]).max() for i, j in ((0, 1), (0, 2), (1, 2))) > 0.05


def test_critics_drop_apart(ensemble):
    """Each has its own mask, anew with each key; without a key nothing is dropped."""
    _, _, alone, _, (one, other, without) = ensemble
    np.testing.assert_allclose(without, np.stack([alone[0]] * 3), rtol=1e-4, atol=1e-5)
    assert np.abs(one - other).max() > 0.01
    assert min(np.abs(one[i] - one[j]).max() for i, j in ((0, 1), (0, 2), (1, 2))) > 0.01


def test_dropout_keeps_the_mean():
    """Over many masks, the outputs of a linear layer are as without: what is kept is scaled up."""

    network, x = MLP((50,), "relu", dropout=0.3), jnp.ones((1, 2))
    kernel = jax.random.normal(jax.random.key(0), (2, 50))
    params = {"params": {"Dense_0": {"kernel": kernel, "bias": jnp.full(50, 5.0)}}}  # no rectifier is at rest
    keys = jax.random.split(jax.random.key(1), 4000)
    out = np.asarray(jax.jit(jax.vmap(lambda key: network.apply(params, x, rngs={"dropout": key})))(keys))[:, 0]
    whole = np.asarray(network.apply(params, x))[0]
    np.testing.assert_allclose((out == 0).mean(), 0.3, atol=0.01)
    np.testing.assert_allclose(out.mean(0), whole, rtol=0.06)
    np.testing.assert_allclose(out[out > 0], np.broadcast_to(whole / 0.7, out.shape)[out > 0], rtol=1e-5)


def test_observations_that_do_not_fit():
    with pytest.raises(JaxrlError, match=r"owner: Env-v0 has Discrete\(n=4\) observations"):
        make_critics("owner", VECTOR._replace(obs_space=Discrete(4)), "auto", (4,), "relu")
    with pytest.raises(JaxrlError, match="owner: torso='cnn' is not accepted on Env-v0"):
        make_critics("owner", VECTOR, "cnn", (4,), "relu")
