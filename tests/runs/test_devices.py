"""How a CPU is shared out: what is asked for, and that JAX does as asked."""

import os
import subprocess
import sys

import jax
import pytest

from jaxrl.agents import AGENTS, constructor
from jaxrl.checks import JaxrlError
from jaxrl.runs import bench, devices

COUNT_THREADS = """
import pathlib, sys
from jaxrl.runs.devices import ask_for
ask_for(int(sys.argv[1]), int(sys.argv[2]))
import jax
jax.numpy.ones(1).block_until_ready()
names = [task.read_text().strip() for task in pathlib.Path("/proc/self/task").glob("*/comm")]
print(jax.device_count(), names.count("tf_XLAEigen"))
"""


@pytest.fixture
def asked(monkeypatch):
    """What `use_devices` asks for on a machine of so many cores, without asking JAX, which has begun already."""

    def ask(cores, agent, hyper_parameters, *numbers):
        monkeypatch.setattr(devices, "num_cores", lambda: cores)
        return devices.use_devices(constructor(agent), hyper_parameters, *numbers)

    monkeypatch.setattr(devices, "ask_for", lambda *numbers: None)
    return ask


@pytest.mark.parametrize(
    ("agent", "hyper_parameters", "product"),
    [
        ("dqn", {}, 128 * 64 * 64),
        ("dqn", {"hidden_sizes": (256, 64, 32), "batch_size": [8, 16]}, 16 * 256 * 64),
        ("dqn", {"hidden_sizes": [(8, 8), (4, 16)]}, 128 * 8 * 8),
        ("ppo", {"num_envs": 4, "rollout_length": 128, "num_minibatches": 4}, 128 * 64 * 64),
        ("ppo", {"num_envs": 4, "rollout_length": 10, "num_minibatches": 0}, 40 * 64 * 64),
        ("a2c", {"num_envs": 4, "rollout_length": [16, 128]}, 512 * 64 * 64),
        ("sac", {}, 256 * 256 * 256),
        ("nfq", {}, 5_000 * 20 * 20),
        ("nfq", {"batch_size": [64, 32]}, 64 * 20 * 20),
        ("cem", {"num_envs": 50, "rollout_length": 1}, 50),
    ],
)
def test_the_largest_product(agent, hyper_parameters, product):
    assert devices.largest_product(constructor(agent), hyper_parameters) == product


@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_has_one(agent):
    assert devices.largest_product(constructor(agent), {}) >= 1


def test_what_is_chosen(asked):
    large = {"hidden_sizes": (256, 256)}
    assert asked(8, "dqn", {}, 1) == (1, 1)
    assert asked(8, "dqn", large, 1) == (1, 8)
    assert asked(8, "dqn", {}, 4) == (4, 4)
    assert asked(8, "dqn", large, 4) == (4, 8)
    assert asked(8, "dqn", {}, 64) == asked(8, "dqn", large, 64) == (8, 8)
    assert asked(2, "dqn", large, 64, 4) == (4, 4)  # devices beyond the cores have a thread each
    assert asked(8, "dqn", {}, 64, 3) == (3, 3)
    assert asked(8, "dqn", {}, 64, 3, 5) == (3, 5)
    assert asked(8, "dqn", {}, 0) == (1, 1)  # a number of seeds that is refused later


def test_cores_are_counted_without_an_affinity(monkeypatch):
    """As on macOS and Windows, where there is none."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 11)
    assert devices.num_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert devices.num_cores() == 11
    assert bench.machine()["cores"] == 11
    monkeypatch.delenv(devices.THREADS, raising=False)
    assert devices.num_threads() == 11
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert devices.num_cores() == 1


@pytest.mark.parametrize(("name", "numbers"), [("devices", (-1, 0)), ("threads", (0, -2))])
def test_what_is_refused(name, numbers):
    before = os.environ.get("PJRT_NPROC")
    with pytest.raises(JaxrlError, match=rf"--{name} -\d is not accepted; it must be 0, which chooses, or more"):
        devices.use_devices(constructor("dqn"), {}, 1, *numbers)
    assert os.environ.get("PJRT_NPROC") == before


def test_jax_that_has_begun_keeps_its_devices(monkeypatch):
    monkeypatch.setattr(devices, "num_cores", lambda: 1)
    number, before = jax.device_count(), os.environ.get("PJRT_NPROC")
    assert devices.use_devices(constructor("dqn"), {}, 1) == (number, int(before or 1))
    with pytest.raises(JaxrlError, match=f"--devices {number + 1} is not accepted; .* before backends"):
        devices.use_devices(constructor("dqn"), {}, 1, number + 1)
    assert os.environ.get("PJRT_NPROC") == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads where Linux lists them")
@pytest.mark.parametrize(("number", "threads"), [(1, 1), (1, 5), (2, 3)])
def test_jax_does_as_asked(number, threads):
    done = subprocess.run(
        [sys.executable, "-c", COUNT_THREADS, str(number), str(threads)], capture_output=True, text=True, check=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert done.stdout.split() == [str(number), str(threads)]
