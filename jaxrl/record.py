"""What a run was made with, as JSON that comes back as it was.

An array of JSON is a tuple. What JSON does not have is an object with a name that begins with `$`:

- `{"$float": "inf"}`, `-inf` or `nan`;
- `{"$list": [...]}`, `{"$path": "..."}`;
- `{"$import": "module:name"}`, a function or class, by where it is imported from;
- `{"$partial": "module:name", "arguments": [...], "keywords": {...}}`, a `functools.partial` of one;
- `{"$call": "module:name", "keywords": {...}}`, what a function decorated with `recorded` returned, such as a replay.

To read the last three is to import and to call what they name: read only what you trust.
"""

from __future__ import annotations

import functools
import importlib
import math
import pathlib
import sys
from typing import Any

import numpy as np

from jaxrl.checks import JaxrlError
from jaxrl.constructors import call_of

# The keys of what is to be imported, or called, when it is read.
NAMED = ("$import",), ("$partial", "arguments", "keywords"), ("$call", "keywords")


def plain(value: Any) -> Any:
    """A value with Python's own numbers in place of NumPy's and JAX's scalars, also within tuples and the like."""
    if type(value) in (tuple, list):
        return type(value)(map(plain, value))
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items()}
    if getattr(value, "ndim", None) == 0 and (value.dtype.kind in "fiub" or value.dtype.name == "bfloat16"):
        return np.asarray(value).item()
    return value


def encode(value: Any, name: str, strict: bool = True) -> Any:
    """A value in JSON's types; `decode` gives back `plain(value)`.

    Args:
      value: numbers, text, None, paths, what can be imported, and tuples, lists and dictionaries of them. What
        `decode` left as it was, as it was not trusted, stays so.
      name: what an error calls it, such as `config['env_params']`.
      strict: whether to raise for what cannot be recorded; else it stays in place as it is.

    Raises:
      JaxrlError: naming the entry that cannot be recorded.
    """
    value = plain(value)
    entries = functools.partial(_entries, name=name, strict=strict)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(value)}
    if type(value) is tuple:
        return entries(value)
    if type(value) is list:
        return {"$list": entries(value)}
    if isinstance(value, pathlib.PurePath):
        return {"$path": str(value)}
    if isinstance(value, dict) and tuple(value) in NAMED:
        return value  # as `decode` leaves it where nothing is to be imported
    if isinstance(value, dict) and all(isinstance(key, str) and not key.startswith("$") for key in value):
        return entries(value)
    try:
        if isinstance(value, functools.partial):
            where = {"$partial": reference(value.func)}
            return where | {"arguments": entries(value.args), "keywords": entries(value.keywords)}
        if call := call_of(value):
            return {"$call": reference(call.function), "keywords": entries(call.arguments)}
        return {"$import": reference(value)}
    except ValueError as error:  # a JaxrlError, which has been said of an entry, is one
        if not strict:
            return value
        if isinstance(error, JaxrlError):
            raise
        raise JaxrlError(
            f"{name}={value!r} cannot be recorded, as all of a run in a folder must be; it can be numbers, text, "
            f"tuples, what has a name in a module, or a replay of a function that jaxrl.constructors.recorded decorates"
        ) from error


def _entries(values: Any, name: str, strict: bool) -> Any:
    if isinstance(values, dict):
        return {key: encode(entry, f"{name}[{key!r}]", strict) for key, entry in values.items()}
    return [encode(entry, f"{name}[{index}]", strict) for index, entry in enumerate(values)]


def decode(value: Any, trusted: bool = True) -> Any:
    """The value that was encoded; what was imported is imported again, and what was called is called.

    Args:
      value: what `encode` returned.
      trusted: whether to import and to call; else what asks for that stays as it is.

    Raises:
      JaxrlError: if something cannot be imported, or is of none of the forms above.
    """
    again = functools.partial(decode, trusted=trusted)
    if isinstance(value, list):
        return tuple(map(again, value))
    if not isinstance(value, dict):
        return value
    kind = next(iter(value), "")
    if not kind.startswith("$"):
        return {name: again(entry) for name, entry in value.items()}
    try:
        if kind == "$float":
            return float(value[kind])
        if kind == "$list":
            return [*map(again, value[kind])]
        if kind == "$path":
            return pathlib.Path(value[kind])
        if not trusted:
            return value
        if kind == "$import":
            return imported(value[kind])
        if kind == "$partial":
            return functools.partial(imported(value[kind]), *again(value["arguments"]), **again(value["keywords"]))
        if kind == "$call":
            return imported(value[kind])(**again(value["keywords"]))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, JaxrlError):
            raise
        raise JaxrlError(f"{value} is not what a run records: {error!r}") from error
    raise JaxrlError(f"{value} is not what a run records: {kind} is unknown")


def shown(value: Any) -> str:
    """What a person sees of a value: a call or a function by its name, the rest as Python writes it.

    It is the same for what `decode` returned, whether that imported what it names or left it as it was.
    """
    if type(value) is tuple:
        return f"({', '.join(map(shown, value))}{',' * (len(value) == 1)})"
    coded = encode(value, "", strict=False)
    if not (isinstance(coded, dict) and tuple(coded) in NAMED):
        return repr(plain(value))
    kind, *_ = coded
    name = coded[kind].partition(":")[2]
    if kind == "$import":
        return name
    arguments, keywords = decode([coded.get("arguments", []), coded["keywords"]], trusted=False)
    return f"{name}({', '.join([*map(shown, arguments), *(f'{k}={shown(v)}' for k, v in keywords.items())])})"


def reference(value: Any) -> str:
    """Where a function or class is imported from, `module:name`.

    Raises:
      ValueError: if it cannot be: a lambda, or what another function has made.
    """
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    found = sys.modules.get(module) if isinstance(module, str) else None
    for part in name.split(".") if isinstance(name, str) else ():
        found = getattr(found, part, None)
    if found is not value or value is None:
        raise ValueError(f"{value!r} has no name in a module")
    return f"{module}:{name}"


def imported(where: str) -> Any:
    """What is at `module:name`.

    Raises:
      JaxrlError: if it is not there, or was defined in a script.
    """
    module, _, name = where.partition(":")
    if module == "__main__" and not _is_in(sys.modules["__main__"], name):
        raise JaxrlError(f"{name} was defined in a script or notebook; the same call there resumes the run")
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise JaxrlError(f"{where} cannot be imported: {error}") from error
    return found


def _is_in(module: Any, name: str) -> bool:
    for part in name.split("."):
        module = getattr(module, part, None)
    return module is not None
