"""Imports run one way, and nowhere in a circle. All count: those within functions, and those for type checkers."""

import ast
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# The rooms, from the ground up; `jaxrl` is the face. A room knows itself, the lines before its own, and on its own line
# what is before it as far as the next bar: what is beyond it does not know it, nor it that.
ROOMS = """
numerics checks constructors types prng sums record files
returns | exploration | planning | losses networks | replay | envs
transforms learning
agents | loop evaluation analysis
runs
jaxrl
cli
__main__
"""
PATHS = {path.relative_to(ROOT).with_suffix(""): path for path in (ROOT / "jaxrl").rglob("*.py")}
MODULES = {".".join(name.parts).removesuffix(".__init__"): path for name, path in PATHS.items()}


def imports(module: str) -> set[str]:
    """The modules of ours that a module imports anywhere; the packages that they are in do not count."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in inner}
    return found & MODULES.keys()


def room(module: str) -> str:
    return module.split(".")[:2][-1]


def known() -> dict[str, set[str]]:
    """For each room those that it may import from."""
    rooms, before = {}, set()
    for line in ROOMS.strip().splitlines():
        parts = [part.split() for part in line.split("|")]
        rooms |= {name: before | set(part[: place + 1]) for part in parts for place, name in enumerate(part)}
        before |= {name for part in parts for name in part}
    return rooms


def test_every_module_is_in_a_room():
    assert {room(module) for module in MODULES} == known().keys()


@pytest.mark.parametrize("name", known())
def test_a_room_knows_only_what_is_below_it(name):
    of_room = {module: imports(module) for module in MODULES if room(module) == name}
    wrong = [
        f"{module} imports {other}"
        for module in of_room
        for other in of_room[module]
        if room(other) not in known()[name]
    ]
    assert wrong == []


def test_no_modules_import_one_another_in_a_circle():
    graphlib.TopologicalSorter({module: imports(module) for module in MODULES}).prepare()  # a CycleError names them
