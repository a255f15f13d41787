"""Parameters of an environment as axes of a sweep: every environment of the grid, and which axes one program serves."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxrl import checks
from jaxrl.envs.randomize import traced_spec
from jaxrl.envs.registry import float_parameters, make
from jaxrl.types import Env, HostEnv


class Grid(NamedTuple):
    """The environments of a sweep.

    Attributes:
      envs: of every combination of the axes' values, the last axis' the fastest; one where there are no axes.
      shared: the axes that may be traced, so that one compiled program serves all their values.
    """

    envs: list[Env | HostEnv]
    shared: frozenset[str]


def make_grid(env_id: str, params: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> Grid:
    """Makes every environment of a sweep, which checks every value.

    An axis is shared where its parameter is a float, and the environment's `Spec` is the same for all its values and
    with it traced. The bounds of CartPole's observations depend on `x_threshold`, say: of that each value has a program
    of its own.

    Args:
      env_id: as `make` takes it.
      params: the parameters that are the same everywhere.
      axes: for each other one its values.

    Raises:
      JaxrlError: for an empty axis, and for a value that `make` refuses.
    """
    for name, values in axes.items():
        if not values:
            raise checks.JaxrlError(f"{env_id}: {name}=[] is not accepted; it must hold one value at least")
    points = [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]
    try:
        envs = [make(env_id, **params, **point) for point in points]
    except checks.JaxrlError as error:
        if not any(f"{name}=" in str(error) for name in axes):
            raise
        raise checks.JaxrlError(f"{error} (in a sweep a list of values is an axis, and a tuple one value)") from error
    floats = [name for name in axes if name in float_parameters(env_id)]

    def may_share(names: Sequence[str]) -> bool:
        for rest in itertools.product(*(values for name, values in axes.items() if name not in names)):
            static = dict(zip((name for name in axes if name not in names), rest, strict=True))
            try:
                spec = traced_spec(
                    functools.partial(make, env_id, **params, **static), {name: axes[name][0] for name in names}
                )
            except checks.JaxrlError:
                return False
            alike = (env for point, env in zip(points, envs, strict=True) if static.items() <= point.items())
            if any(env.spec != spec for env in alike):
                return False
        return True

    if floats and not may_share(floats):
        floats = [name for name in floats if len(floats) > 1 and may_share([name])]
    return Grid(envs, frozenset(floats))
