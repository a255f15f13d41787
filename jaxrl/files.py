"""Files that are whole or not there at all, and JSON for what runs record."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import re
import uuid
from collections.abc import Callable, Collection
from typing import IO, Any

import numpy as np

from jaxrl.checks import JaxrlError, RunError


def write_atomically(path: str | os.PathLike, write: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file so that others see the old content or the new, never a part of it.

    Args:
      path: the file; its folder is made if it is not there.
      write: is called with a binary file to write the content to. If it raises, the old file stays as it was.

    Raises:
      RunError: naming the file, and why it cannot be written, such as a full disk.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # beside it: a rename is atomic on one disk only
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if reason := system_reason(error):
            raise RunError(f"{path} cannot be written: {reason}") from error
        raise


def is_temporary(name: str, files: Collection[str]) -> bool:
    """Whether a file's name is one of those that `write_atomically` writes under, for one of some files."""
    return any(re.fullmatch(rf"\.{re.escape(file)}\.[0-9a-f]{{32}}", name) for file in files)


def system_reason(error: BaseException | None) -> str | None:
    """What the operating system said that led to an error, such as "No space left on device"; None if it said nothing.

    Libraries raise errors of their own in its place, which were raised from it or hold its number in their text.
    """
    if error is None:
        return None
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if number := re.search(r"os_error_code='(\d+)'", str(error)):  # TensorStore, which orbax writes with
        return os.strerror(int(number[1]))
    return system_reason(error.__cause__ or error.__context__)


def json_text(value: Any, name: str) -> bytes:
    """A value as the text of a JSON file.

    Arrays become lists, paths become text. JSON has no NaN and no infinity: they become null.

    Args:
      value: numbers, text, lists, dictionaries, arrays and the like.
      name: what an error calls the value, such as "config".

    Raises:
      JaxrlError: naming the entry that JSON cannot hold, such as `config['network'][1]`.
    """
    return (json.dumps(_jsonable(value, name), indent=2, allow_nan=False) + "\n").encode()


def write_json(path: str | os.PathLike, value: Any, name: str) -> None:
    """Writes `json_text(value, name)` with `write_atomically`; where it raises, nothing is written."""
    text = json_text(value, name)
    write_atomically(path, lambda file: file.write(text))


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Raises:
      JaxrlError: if the file is missing or damaged, or holds something else.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise JaxrlError(f"{path}: the file is missing") from None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or not JSON
        raise JaxrlError(f"{path} is damaged or cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise JaxrlError(f"{path} is damaged: it holds a {type(content).__name__}, not an object with named entries")
    return content


def _jsonable(value: Any, name: str) -> Any:
    """The value in JSON's types."""
    if isinstance(value, dict):
        return {str(key): _jsonable(entry, f"{name}[{key!r}]") for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(entry, f"{name}[{index}]") for index, entry in enumerate(value)]
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "dtype") and np.asarray(value).dtype.kind in "fiub":  # arrays and scalars of NumPy and JAX
        return _jsonable(np.asarray(value).tolist(), name)
    raise JaxrlError(f"{name}={value!r} cannot be written as JSON; it must be numbers, text, lists and the like")
