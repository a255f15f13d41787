"""Reinforcement learning as pure functions on JAX.

The public API. Its names are in `__init__.pyi` and `agents/table.py`. They are imported when they are first used, so
that the command line answers before JAX is loaded.
"""

import ast
import importlib
import pathlib
from typing import Any

__version__ = "0.1.0"


def _homes(file: pathlib.Path) -> dict[str, str]:
    """The names that a file imports, and the modules that they are imported from."""
    homes = {}
    lines = [line for line in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(line, ast.ImportFrom)]
    for module, name in ((str(line.module), name) for line in lines for name in line.names):
        all_of = pathlib.Path(__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
        homes |= _homes(all_of) if name.name == "*" else {name.name: module}
    return homes


_HOMES = _homes(pathlib.Path(__file__).with_suffix(".pyi"))
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]  # it reads the stub


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxrl' has no attribute {name!r}")
    if _HOMES[name] == "jaxrl":
        return importlib.import_module(f"jaxrl.{name}")
    globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return globals()[name]


def __dir__() -> list[str]:
    return [*globals(), *__all__]
