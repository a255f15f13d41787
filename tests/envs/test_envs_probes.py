"""The probe environments, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import rollout

from jaxrl import checks, envs

IDS = envs.registry.probes.PROBES


@pytest.fixture(scope="module")
def runs():
    """A rollout of every probe, and of the continuous ones, out of one compiled call."""
    made = {env_id.split("-")[1]: envs.make(env_id) for env_id in IDS}
    for name in ("action", "policy"):
        made[f"{name} continuous"] = envs.make(f"jaxrl/Probe-{name}-v0", continuous=True)
    play = jax.jit(lambda key: {name: rollout(env, key, 40) for name, env in made.items()})
    return jax.tree.map(np.asarray, play(jax.random.key(0)))


def test_all_are_well_formed(runs):
    assert len(runs) == 8
    for name, (_, obs, _, outcome, _) in runs.items():
        assert (obs.shape, obs.dtype, outcome.reward.dtype) == ((40, 1), jnp.float32, jnp.float32), name
        assert outcome.reward.shape == outcome.terminated.shape == outcome.truncated.shape == (40,)
        assert (outcome.obs.shape, outcome.obs.dtype) == ((40, 1), jnp.float32), name
        if name not in ("discount", "truncation"):
            assert outcome.terminated.all()
        if name != "truncation":
            assert not outcome.truncated.any()


def test_value(runs):
    _, obs, _, outcome, _ = runs["value"]
    assert (obs == 1).all()
    assert (outcome.reward == 1).all()


def test_observation(runs):
    _, obs, _, outcome, _ = runs["observation"]
    assert set(obs.ravel().tolist()) == {-1.0, 1.0}
    assert np.array_equal(outcome.reward, obs[:, 0])


def test_discount(runs):
    _, obs, _, outcome, _ = runs["discount"]
    assert obs[:, 0].tolist() == [0, 1] * 20
    assert outcome.reward.tolist() == [0, 1] * 20
    assert outcome.terminated.tolist() == [False, True] * 20
    assert (outcome.obs == 1).all()


def test_action(runs):
    _, obs, action, outcome, _ = runs["action"]
    assert (obs == 1).all()
    assert np.array_equal(outcome.reward, np.where(action == 1, 1, -1))
    _, _, action, outcome, _ = runs["action continuous"]
    assert action.shape == (40, 1)
    assert np.allclose(outcome.reward, -((action[:, 0] - 0.5) ** 2))


def test_policy(runs):
    _, obs, action, outcome, _ = runs["policy"]
    assert np.array_equal(outcome.reward, np.where((action == 1) == (obs[:, 0] == 1), 1, -1))
    assert set(outcome.reward.tolist()) == {-1, 1}
    _, obs, action, outcome, _ = runs["policy continuous"]
    assert np.allclose(outcome.reward, -((action[:, 0] - 0.5 * obs[:, 0]) ** 2))


def test_truncation(runs):
    _, obs, _, outcome, _ = runs["truncation"]
    assert (obs == 1).all()
    assert (outcome.reward == 1).all()
    assert not outcome.terminated.any()
    assert outcome.truncated.tolist() == [False, False, False, False, True] * 8


def test_errors_say_what_to_do():
    with pytest.raises(checks.JaxrlError, match="continuous='yes' is not accepted; it must be True or False"):
        envs.make("jaxrl/Probe-action-v0", continuous="yes")
    with pytest.raises(checks.JaxrlError, match="unknown parameter 'continuous'"):
        envs.make("jaxrl/Probe-value-v0", continuous=True)
