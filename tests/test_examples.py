"""The examples in the docstrings, the README and the notebooks run, and give what they say."""

import doctest
import importlib
import json
import pathlib
import pkgutil
import re

import jax.numpy as jnp
import pytest

import jaxrl

ROOT = pathlib.Path(__file__).parent.parent
MODULES = [module.name for module in pkgutil.walk_packages(jaxrl.__path__, "jaxrl.")]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, extraglobs={"jnp": jnp}, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_every_public_name_is_there():
    assert {name for name in jaxrl.__all__ if not hasattr(jaxrl, name)} == set()
    assert jaxrl.sweep.__module__ == "jaxrl.runs.sweep"  # a function, and not a module of the same name


def test_the_readme_in_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    code = "\n".join(block for block in blocks if "agent.init(key, spec)" not in block)
    assert "jaxrl.sweep" in code
    small = {"num_episodes=10": "num_episodes=2", "arange(8)": "arange(2)", "seeds=4": "seeds=2"}
    code = smaller(code, {"50_000": "1_024", "20_000": "1_200", "3_000": "300", **small})
    names = {}
    exec(code, names)
    assert names["returns"].shape == (2,)
    assert len(names["results"].configs) == 4
    assert (tmp_path / "runs" / "maze.png").exists()


def smaller(code: str, replacements: dict[str, str]) -> str:
    for text, replacement in replacements.items():
        assert text in code
        code = code.replace(text, replacement)
    return code


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_computed(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] for cell in cells)
    code = "".join("".join(cell["source"]) + "\n" for cell in cells)
    exec(re.sub(r"^%.*$", "", smaller(code, {"20_000": "1_000"}), flags=re.MULTILINE), {})
