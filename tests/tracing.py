"""What a traced program depends on: which inputs its outputs need, and whether two programs are the same.

Dead code is eliminated first, inside loops and branches, too. So an argument that is only looked at, or that changes
nothing but what nobody reads, counts as ignored. Nothing is compiled, and a program takes a fifth of a second.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.interpreters import partial_eval


class Part(NamedTuple):
    """Some outputs of a program.

    Attributes:
      inputs: the names of the inputs that they depend on.
      program: text that is the same for the same computation of them.
    """

    inputs: frozenset[str]
    program: str


def parts_of(
    function: Callable[..., dict[str, Any]], named: dict[str, Any], *rest: Any
) -> tuple[dict[str, Part], dict[str, Any]]:
    """Traces `function(named, *rest)`, which returns a dictionary of outputs, and looks at each entry apart.

    Returns:
      of each entry the part, and the shapes.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(named, *rest)
    jaxpr, num_constants = partial_eval.convert_constvars_jaxpr(closed.jaxpr), len(closed.consts)
    names = [name for name in sorted(named) for _ in jax.tree.leaves(named[name])]
    found, start = {}, 0
    for part in sorted(shapes):
        count = len(jax.tree.leaves(shapes[part]))
        wanted = [start <= i < start + count for i in range(len(jaxpr.outvars))]
        start += count
        alive, used = partial_eval.dce_jaxpr(jaxpr, wanted)
        constants = [x for x, kept in zip(closed.consts, used, strict=False) if kept]
        inputs = {name for name, kept in zip(names, used[num_constants:], strict=False) if kept}
        found[part] = Part(frozenset(inputs), _text(alive, constants, shapes[part]))
    return found, shapes


def keys_from_nowhere(closed: Any) -> list[str]:
    """The random keys in a program that are made of no input of it: numbers that are the same each time."""
    held = [f"a key {x.shape}" for x in closed.consts if _is_key(x)]
    alive, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return held + [str(e) for e in _equations(alive) if e.primitive.name == "random_seed"]


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _text(jaxpr: Any, constants: list[Any], shapes: Any) -> str:
    """A program as text; the addresses in it, which differ from one tracing to the next, are left out."""
    arrays = [*constants, *(x for e in _equations(jaxpr) for x in _constants(e))]
    numbers = [np.asarray(jax.random.key_data(x) if _is_key(x) else x) for x in arrays]
    held = ";".join(f"{x.dtype}{x.shape}{x.tobytes().hex()}" for x in numbers)
    return re.sub(r" at 0x[0-9a-f]+", "", f"{jaxpr}\n{held}\n{shapes}")


def _constants(equation: Any) -> list[Any]:
    """The arrays that an equation holds, of which its text may show the shape alone."""
    inner = [x for value in equation.params.values() for x in getattr(value, "consts", ())]
    literals = [x.val for x in equation.invars if hasattr(x, "val")]
    return [x for x in (*inner, *literals) if getattr(x, "size", 1) > 1]


def _equations(jaxpr: Any):
    """All equations of a program, those of loops and branches, too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)
