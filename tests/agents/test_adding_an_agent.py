"""Adding an agent touches three places: its own file, its test, and one line of the table."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# The whole change: the agent's own file, its test, and a line of the table.
FILES = {
    "jaxrl/agents/search/toy.py": '''\
"""A policy that draws its actions."""

from __future__ import annotations

import jax

from jaxrl import checks
from jaxrl.constructors import agent_constructor
from jaxrl.types import Agent


@agent_constructor
def toy(*, num_envs: int = 4) -> Agent:
    """Draws every action uniformly, and learns nothing.

    Args:
      num_envs: environments that run in parallel.
    """
    checks.integer("toy", num_envs=num_envs)

    def init(key, spec):
        return {"spec": spec, "key": key}

    def act(state, memory, obs, key, step, explore=True):
        keys = jax.random.split(key, len(obs))
        return jax.vmap(state["spec"].action_space.sample)(keys), memory, {}

    def update(state, trajectory, key, step):
        return state, {"reward": trajectory.reward.mean()}

    return Agent(init, act, update, num_envs, rollout_length=1, name="toy", tolerates_stale_actions=True)
''',
    "tests/agents/test_toy.py": """\
import jax
import jaxrl


def test_it_acts():
    jaxrl.train(jax.random.key(0), jaxrl.toy(), jaxrl.make("jaxrl/Corridor-v0"), 8)
""",
}
LINE = "from jaxrl.agents.search.toy import toy as toy\n"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the sources and tests, with the toy agent."""
    tree = tmp_path_factory.mktemp("tree")
    skip = shutil.ignore_patterns("__pycache__")
    for folder in ("jaxrl", "tests"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", tree)
    for path, text in FILES.items():
        (tree / path).write_text(text)
    with (tree / "jaxrl/agents/table.py").open("a") as table:
        table.write(LINE)
    return tree


def run(tree, *words):
    environment = os.environ | {"PYTHONPATH": str(tree), "JAX_PLATFORMS": "cpu", "COLUMNS": "120"}
    done = subprocess.run([sys.executable, *words], cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


CODE = """
import jaxrl
from jaxrl import *
from jaxrl import cli

print(jaxrl.__file__, toy(), jaxrl.toy(num_envs=2), "toy" in dir(jaxrl))
cli.main(["list"])
cli.main(["train", "toy", "--help"])
"""


def test_the_library_and_the_command_line_know_it(tree):
    first, *rest = run(tree, "-c", CODE).splitlines()
    assert first.split() == [str(tree / "jaxrl/__init__.py"), "toy()", "toy(num_envs=2)", "True"]
    assert any(line.split()[:4] == ["toy", "Draws", "every", "action"] for line in rest)
    text = " ".join(" ".join(rest).split())
    assert "--num-envs INT environments that run in parallel. (default: 4)" in text


def test_the_tests_know_it(tree):
    """Its own, and those of every agent."""
    every = ["tests/test_checks.py", "tests/test_constructors.py", "tests/test_cli.py", "tests/runs/test_devices.py"]
    every += ["tests/agents/test_toy.py"]
    text = run(tree, "-m", "pytest", "-vv", "-p", "no:cacheprovider", "-k", "toy", *every)
    assert {line.partition("::")[0] for line in text.splitlines() if "PASSED" in line} == set(every)
