"""Distributed PPO: its numbers are PPO's, on any number of workers and devices; whose data a worker sees; errors."""

import os
import pathlib
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxrl import JaxrlError, init_train, make, ppo, train_step
from jaxrl.agents.policy_gradient.dppo import dppo
from jaxrl.learning.minibatch import WORKER, scan_minibatches
from jaxrl.runs.parallel import shard_environments

SIZES = {"num_envs": 4, "rollout_length": 5, "num_epochs": 2, "hidden_sizes": (4,), "learning_rate": 0.01}
VARIANTS = {  # each with an environment, and the numbers of workers that are compared with one
    "penalty and limit": ("jaxrl/Probe-policy-v0", (4,), {"kl_coef": 0.5, "max_kl": 1e-4}),
    "with a memory": (
        "jaxrl/Probe-truncation-v0",
        (2,),
        {"cell": "gru", "cell_size": 3, "shared_torso": True, "pop_art": True},
    ),
}


# ---------------------------------------------------------------- workers


@pytest.mark.parametrize("variant", VARIANTS)
def test_with_one_minibatch_any_number_of_workers_is_ppo(variant):
    """Advantages are whitened, and the update is stopped and penalised, by what all workers have seen together."""
    env_id, several, changes = VARIANTS[variant]
    env = make(env_id)

    def run(num_workers):
        agent = ppo(num_minibatches=1, num_workers=num_workers, **SIZES, **changes)
        state = init_train(jax.random.key(3), agent, env)
        return jax.lax.scan(lambda state, _: train_step(state, agent, env), state, length=5)

    (one, metrics), *others = jax.device_get(jax.jit(lambda: [run(n) for n in (1, *several)])())
    for state, found in others:
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), one.agent, state.agent)
        for name, values in metrics.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-5, err_msg=name)
    assert metrics["approx_kl"].max() > 1e-4  # so that the limit takes hold
    assert np.unique(metrics["policy_loss"]).size == 5


def test_a_worker_draws_from_its_own_environments_in_an_order_of_its_own():
    length, num_envs, num_workers = 3, 8, 2
    steps = jnp.arange(length * num_envs).reshape(length, num_envs)

    def learn(total, minibatch):
        return total + jax.lax.psum(minibatch.sum(), WORKER), jax.lax.all_gather(minibatch, WORKER)

    sizes = {"num_epochs": 2, "num_minibatches": 4, "num_workers": num_workers}
    total, seen = jax.jit(lambda key: scan_minibatches(learn, 0, steps, key, **sizes))(jax.random.key(0))
    assert total == 2 * np.sum(steps)
    assert seen.shape == (2 * 4, num_workers, 3)
    seen = np.asarray(seen).reshape(2, 4, num_workers, 3)
    places = []
    for w in range(num_workers):
        mine = np.asarray(steps[:, 4 * w : 4 * (w + 1)])
        for epoch in range(2):
            np.testing.assert_array_equal(np.sort(seen[epoch, :, w].ravel()), np.sort(mine.ravel()))
            places.append(tuple(seen[epoch, :, w].ravel() - 4 * w))
    assert len(set(places)) == 4


def test_sequences_of_a_worker_stay_whole():
    steps = jnp.arange(3 * 8).reshape(3, 8)
    gather = lambda carry, minibatch: (carry, jax.lax.all_gather(minibatch, WORKER))  # noqa: E731
    sizes = {"num_epochs": 1, "num_minibatches": 2, "num_workers": 2, "sequences": True}
    _, seen = jax.jit(lambda key: scan_minibatches(gather, (), steps, key, **sizes))(jax.random.key(0))
    assert seen.shape == (2, 2, 3, 2)
    np.testing.assert_array_equal(seen - seen[:, :, :1], np.broadcast_to(8 * np.arange(3)[:, None], seen.shape))
    for w in range(2):
        np.testing.assert_array_equal(np.sort(seen[:, w, 0].ravel()), 4 * w + np.arange(4))


def test_what_is_not_averaged_cannot_be_shared():
    with pytest.raises(ValueError, match="out_axes"):
        scan_minibatches(
            lambda total, x: (total + x.sum(), {}), 0, jnp.ones((2, 4)), jax.random.key(0),
            num_epochs=1, num_minibatches=1, num_workers=2,
        )  # fmt: skip


# ---------------------------------------------------------------- devices

MINIBATCHES = {"num_envs": 8, "rollout_length": 8, "num_epochs": 2, "num_minibatches": 2, "hidden_sizes": (7,)}


def ten_updates(agent, num_devices):
    """State and metrics after ten updates with environments split over devices, and the compiled program as text."""
    env = make("jaxrl/Probe-policy-v0")
    mesh = Mesh(np.array(jax.devices()[:num_devices]), ("device",))
    state = shard_environments(jax.jit(lambda key: init_train(key, agent, env))(jax.random.key(0)), mesh)
    ten = jax.jit(lambda state: jax.lax.scan(lambda state, _: train_step(state, agent, env), state, length=10))
    compiled = ten.lower(state).compile()
    return *compiled(state), compiled.as_text()


def on_four_devices(path):
    """Run by another process, which has four devices: what `ten_updates` gives on 1, 2 and 4 of them, as a file."""
    jax.config.update("jax_num_cpu_devices", 4)
    agent = dppo(num_workers=4, learning_rate=0.01, **MINIBATCHES)
    runs = {str(n): ten_updates(agent, n) for n in (1, 2, 4)}
    runs["ppo"] = ten_updates(ppo(**MINIBATCHES), 4)
    kept = {n: ((state.agent.params, state.obs, metrics), text) for n, (state, metrics, text) in runs.items()}
    specs = [
        jax.tree.leaves(part)[0].sharding.spec for part in (runs["4"][0].obs, runs["4"][0].env, runs["4"][0].agent)
    ]
    pathlib.Path(path).write_bytes(pickle.dumps((jax.device_get(kept), [tuple(spec) for spec in specs])))


@pytest.fixture(scope="module")
def devices(tmp_path_factory):
    path = tmp_path_factory.mktemp("dppo") / "runs"
    code = f"import test_dppo; test_dppo.on_four_devices({str(path)!r})"
    cache = {"JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir)}
    folder = pathlib.Path(__file__).parent
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=os.environ | cache, check=True)
    return pickle.loads(path.read_bytes())


def test_two_and_four_devices_are_one(devices):
    (one, _), (two, _), (four, _) = (devices[0][n] for n in "124")
    for other in (two, four):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4), one, other)
    assert one[2]["policy_loss"].std() > 1e-3


def test_devices_exchange_averages_and_no_data(devices):
    """Plain PPO, which shuffles all steps together, has to gather them: so the words are the right ones."""
    runs, specs = devices
    for n in "24":
        assert "all-reduce(" in runs[n][1]
        for operation in ("all-gather", "all-to-all"):
            assert operation not in runs[n][1]
    assert "all-reduce" not in runs["1"][1]
    assert "all-gather" in runs["ppo"][1]
    assert specs == [("device",), ("device",), ()]  # and so they stay where they are in the next updates


def test_what_is_split_and_what_is_whole():
    agent = dppo(num_workers=2, num_envs=4, cell="gru", cell_size=3, hidden_sizes=(2,), num_minibatches=2)
    env = make("jaxrl/Probe-policy-v0")
    state = jax.jit(lambda key: init_train(key, agent, env))(jax.random.key(0))
    sharded = shard_environments(state, Mesh(np.array(jax.devices()[:2]), ("device",)))
    for name, part in sharded._asdict().items():
        expected = P("device") if name in ("memory", "env", "obs", "episode") else P()
        leaves = jax.tree.leaves(part)
        assert leaves
        for leaf in leaves:
            assert leaf.sharding.spec == expected, name
    jax.tree.map(np.testing.assert_array_equal, state.agent, sharded.agent)


# ---------------------------------------------------------------- errors


def test_what_does_not_split_over_devices():
    agent, env = dppo(num_envs=3, num_workers=3, hidden_sizes=(2,)), make("jaxrl/Probe-policy-v0")
    state = jax.jit(lambda key: init_train(key, agent, env))(jax.random.key(0))
    with pytest.raises(JaxrlError, match="2 devices do not divide num_envs=3"):
        shard_environments(state, Mesh(np.array(jax.devices()[:2]), ("device",)))
    with pytest.raises(JaxrlError, match=r"\('seed', 'device'\) is not accepted"):
        shard_environments(state, Mesh(np.array(jax.devices()[:2]).reshape(1, 2), ("seed", "device")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_workers": 0}, "num_workers=0 is not accepted; it must be a whole number, at least 1"),
        ({"num_workers": 3}, "num_workers=3 does not divide num_envs=16"),
        ({"num_minibatches": 5}, r"num_minibatches=5 does not divide num_envs / num_workers \* rollout_length = 512"),
        ({"cell": "gru", "num_minibatches": 8}, "num_minibatches=8 does not divide num_envs / num_workers=4"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(JaxrlError, match=message):
        dppo(**arguments)


def test_dppo_is_a_call_of_ppo():
    agent = dppo(num_envs=32)
    assert (agent.name, agent.num_envs, agent.rollout_length) == ("dppo", 32, 128)
