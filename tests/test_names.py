"""The public names: each is written in one place, and the package, its stub and the command line's table have it."""

import ast
import importlib
import inspect
import pathlib
import subprocess
import sys

import pytest

import jaxrl
from jaxrl.agents import AGENTS, table

ROOT = pathlib.Path(jaxrl.__file__).parent
FIXED = {  # by the design
    *("make", "check_env", "train", "sweep", "evaluate", "Results"),
    *("init_train", "train_step", "train_interval", "TrainState"),
    *("Agent", "Box", "Discrete", "Env", "HostEnv", "JaxrlError", "Outcome", "Role", "Spec", "Transition", "box"),
    *("agents", "analysis", "envs", "exploration", "losses", "networks", "planning", "replay", "returns", "runs"),
    "transforms",
}


def test_all_names_are_there():
    assert set(jaxrl.__all__) == FIXED | AGENTS.keys()
    assert set(jaxrl.__all__) <= set(dir(jaxrl))
    for name in jaxrl.__all__:
        assert getattr(jaxrl, name) is not None
    with pytest.raises(AttributeError, match="module 'jaxrl' has no attribute 'AGENTS'"):
        _ = jaxrl.AGENTS


def test_a_star_takes_them_all():
    names = {}
    exec("from jaxrl import *", names)
    assert set(jaxrl.__all__) <= names.keys()
    assert names["ppo"] is jaxrl.ppo is AGENTS["ppo"] is table.ppo


def test_nothing_is_imported_before_it_is_used():
    code = "import sys, jaxrl; dir(jaxrl); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_constructor_is_in_the_table():
    """What a file in `agents/` decorates as a constructor or preset."""
    found = []
    for file in sorted(ROOT.glob("agents/*/*.py")):
        module = "jaxrl." + ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for node in ast.parse(file.read_text()).body:
            marks = [ast.unparse(mark).partition("(")[0] for mark in getattr(node, "decorator_list", ())]
            if {"agent_constructor", "preset"} & set(marks):
                found.append(node.name)
                assert AGENTS.get(node.name) is getattr(importlib.import_module(module), node.name)
    assert sorted(found) == sorted(AGENTS)


def test_the_name_of_each_is_that_of_its_function():
    for name, constructor in AGENTS.items():
        assert (constructor.__name__, constructor().name) == (name, name)
        assert inspect.signature(constructor).return_annotation == "Agent"
