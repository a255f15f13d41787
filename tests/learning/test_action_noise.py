"""Noise of exploring: its schedules by hand, its statistics, and its memory from step to step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl import JaxrlError, init_train, td3, train_step
from jaxrl.learning.action_noise import MAX_ACTION_SIZE, make_action_noise
from jaxrl.types import Env, Outcome, Spec, box

NUM_ENVS = 5000


def test_linear():
    noise = make_action_noise("owner", "gaussian", 0.9, 0.3, 20)
    found = [noise.scale(jnp.int32(step)) for step in (0, 5, 10, 20, 21, 10**9)]
    np.testing.assert_allclose(found, [0.9, 0.75, 0.6, 0.3, 0.3, 0.3], rtol=1e-6)


@pytest.mark.parametrize("schedule", ["linear", "exponential"])
def test_no_decay(schedule):
    noise = make_action_noise("owner", "gaussian", 0.9, 0.3, 0, schedule)
    assert [noise.scale(jnp.int32(step)) for step in (0, 1, 10**9)] == [0.9] * 3


def test_exponential():
    """A variance of 3 that each step multiplies by 0.9998, over 40 000 steps: the deviation by its square root."""
    last = np.sqrt(3.0) * 0.9998 ** (40_000 / 2)
    noise = make_action_noise("owner", "gaussian", np.sqrt(3.0), last, 40_000, "exponential")
    steps = np.array([0, 1, 2, 1000, 20_000, 40_000, 50_000, 10**9])
    expected = 3.0 * 0.9998 ** np.minimum(steps, 40_000)
    np.testing.assert_allclose(noise.scale(jnp.asarray(steps, jnp.int32)) ** 2, expected, rtol=1e-4)


@pytest.mark.parametrize("schedule", ["linear", "exponential"])
def test_scales_may_be_traced(schedule):
    def scale(first, last, step):
        return make_action_noise("owner", "gaussian", first, last, 100, schedule).scale(step)

    found = jax.vmap(scale, (0, 0, None))(jnp.array([0.5, 0.2]), jnp.array([0.1, 0.4]), jnp.int32(50))
    each = [make_action_noise("owner", "gaussian", *pair, 100, schedule).scale(50) for pair in ((0.5, 0.1), (0.2, 0.4))]
    np.testing.assert_allclose(found, each, rtol=1e-6)


def test_gaussian():
    noise = make_action_noise("owner", "gaussian", 0.5, 0.1, 100)
    assert noise.init_memory(3) == ()
    action = jnp.broadcast_to(jnp.array([0.9, -0.4, 0.0]), (NUM_ENVS, 3))
    found, memory = noise.add(jax.random.key(0), action, (), jnp.int32(50))
    assert memory == ()
    departures = np.asarray(found - action) / 0.3
    assert all(scipy.stats.kstest(x, "norm").pvalue > 1e-3 for x in departures.T)
    assert np.abs(np.corrcoef(departures.T) - np.eye(3)).max() < 5 / np.sqrt(NUM_ENVS)
    assert found.max() > 1.2  # beyond the bounds: who acts cuts it off


def test_ornstein_uhlenbeck():
    """From 0 its deviation rises to the scale, and its steps correlate; how far it wanders goes on as scale changes."""
    noise = make_action_noise("owner", "ornstein_uhlenbeck", 0.5, 0.1, 100, theta=0.3)
    memory = noise.init_memory(NUM_ENVS)
    assert (memory == 0).all()
    paths = []
    for i, step in enumerate((0, 0, 0, 50, 200)):
        found, memory = noise.add(jax.random.key(i), jnp.zeros((NUM_ENVS, 2)), memory, jnp.int32(step))
        paths.append(np.asarray(found)[:, 0])
        assert memory.shape == (NUM_ENVS, MAX_ACTION_SIZE)
        assert (memory[:, 2:] == 0).all()
    spread = np.sqrt(1 - 0.7 ** (2 * np.arange(1, 6))) * [0.5, 0.5, 0.5, 0.3, 0.1]
    np.testing.assert_allclose(np.std(paths, axis=1), spread, rtol=5 / np.sqrt(2 * NUM_ENVS))
    assert np.corrcoef(paths[3], paths[4])[0, 1] > 0.6


def test_an_episodes_end_puts_the_memory_back():
    """Episodes end at random, and what is observed is their age: the noise is 0 where one begins, and only there."""

    def reset(key):
        return jnp.zeros(1), jnp.zeros(1)

    def step(key, age, action):
        return age + 1, Outcome(age + 1, jnp.float32(0), jax.random.bernoulli(key, 0.3), jnp.bool(False))

    env = Env(reset, step, Spec("Fake-v0", box(-1, 1, (1,)), box(-1, 1, (2,))))
    agent = td3(noise="ornstein_uhlenbeck", num_envs=8, batch_size=8, replay_size=400, hidden_sizes=(2,))

    def run(key):
        def body(state, _):
            new, _ = train_step(state, agent, env)
            return new, (new.memory, new.obs)

        return jax.lax.scan(body, init_train(key, agent, env), length=30)[1]

    memory, obs = jax.device_get(jax.jit(run)(jax.random.key(0)))
    np.testing.assert_array_equal((memory == 0).all(-1), obs[..., 0] == 0)
    assert 20 < (obs == 0).sum() < 200


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pink", 0.1, 0.1, 10), "noise='pink' is not accepted"),
        (("gaussian", -0.1, 0.1, 10), r"noise_scale=-0.1 is not accepted; it must be a number in \[0"),
        (("gaussian", 0.1, -0.1, 10), "noise_final=-0.1 is not accepted"),
        (("gaussian", 0.1, 0.0, 10, "exponential"), r"noise_final=0.0 is not accepted; it must be a number in \(0"),
        (("gaussian", 0.1, 0.1, -1), "noise_decay_steps=-1 is not accepted"),
        (("gaussian", 0.1, 0.1, 10, "cosine"), "noise_schedule='cosine' is not accepted"),
        (("gaussian", 0.1, 0.1, 10, "linear", 0.0), "noise_theta=0.0 is not accepted"),
        (("gaussian", 0.1, 0.1, 10, "linear", 1.1), "noise_theta=1.1 is not accepted"),
    ],
)
def test_errors(arguments, words):
    with pytest.raises(JaxrlError, match=words):
        make_action_noise("owner", *arguments)
