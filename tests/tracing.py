"""What a traced program depends on: which inputs its outputs need, and whether two programs are the same.

Dead code is eliminated first, inside loops and branches, too. So an argument that is only looked at, or that changes
nothing but what nobody reads, counts as ignored. Nothing is compiled, and a program takes a fifth of a second.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import partial_eval

from jaxrl.types import Agent, Array, Spec, Transition


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
    jaxpr = closed.jaxpr
    names = [name for name in sorted(named) for _ in jax.tree.leaves(named[name])]
    found, start = {}, 0
    for part in sorted(shapes):
        count = len(jax.tree.leaves(shapes[part]))
        wanted = [start <= i < start + count for i in range(len(jaxpr.outvars))]
        start += count
        alive, used_constants, used = partial_eval.dce_jaxpr_consts(jaxpr, wanted)
        constants = [x for x, kept in zip(closed.consts, used_constants, strict=True) if kept]
        inputs = {name for name, kept in zip(names, used, strict=False) if kept}
        found[part] = Part(frozenset(inputs), _text(alive, constants, shapes[part]))
    return found, shapes


def trace_agent(
    constructor: Callable[..., Agent], static: dict[str, Any], floats: dict[str, Array], spec: Spec
) -> tuple[dict[str, Any], dict[Callable, tuple]]:
    """Traces an agent's functions.

    Args:
      constructor: of the agent.
      static: those of its arguments that are what they are.
      floats: those in place of which the programs have inputs.
      spec: where it acts.

    Returns:
      the `Part`s `init`, `act`, `greedy` (`act` with `explore=False`) and `update` (without its metrics), and `sizes`;
      and each of the functions with its arguments.
    """
    make_agent = lambda values: constructor(**static, **values)  # noqa: E731
    agent, key, step = make_agent(floats), jax.random.key(0), jnp.int32(0)
    num_envs, length = agent.num_envs, agent.rollout_length

    def begin(values, key):
        agent = make_agent(values)
        return {"init": (agent.init(key, spec), agent.init_memory(num_envs))}

    def act(values, state, memory, obs, key, step, explore=True):
        return make_agent(values).act(state, memory, obs, key, step, explore=explore)

    def update(values, state, trajectory, key, step):
        return make_agent(values).update(state, trajectory, key, step)[0]

    def go_on(values, state, memory, obs, trajectory, key, step):
        return {
            "act": act(values, state, memory, obs, key, step),
            "greedy": act(values, state, memory, obs, key, step, explore=False)[0],
            "update": update(values, state, trajectory, key, step),
        }

    def zeros(shape, like):
        return jax.ShapeDtypeStruct((*shape, *like.shape), like.dtype)

    first, shapes = parts_of(begin, floats, key)
    state, memory = shapes["init"]
    obs = zeros((num_envs,), spec.obs_space)
    action, _, extras = jax.tree.map(
        lambda x: zeros((length,), x), jax.eval_shape(act, floats, state, memory, obs, key, step)
    )
    number, flag, count = (zeros((length, num_envs), jnp.zeros((), x)) for x in (jnp.float32, bool, jnp.int32))
    extras = extras | {"episode_return": number, "episode_length": count}
    trajectory = Transition(*[zeros((length,), obs), action, number, flag, flag, zeros((length,), obs), extras])
    parts = first | parts_of(go_on, floats, state, memory, obs, trajectory, key, step)[0]
    calls = {
        begin: (floats, key),
        act: (floats, state, memory, obs, key, step),
        update: (floats, state, trajectory, key, step),
    }
    return parts | {"sizes": (num_envs, length)}, calls


def misused_keys(closed: Any) -> list[str]:
    """The random keys in a program that are made of no input of it, or that are made twice in the same way.

    The one gives the same numbers each time, the other in two places. (`jax.debug_key_reuse` sees keys that are drawn
    from twice, but not two that are folded from one with the same number.)
    """
    found = [f"a key {x.shape} that is held" for x in closed.consts if _is_key(x)]
    alive, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    seen = set()
    for equation in _equations(alive):
        if equation.primitive.name == "random_seed":
            found.append(str(equation))
        if equation.primitive.name == "random_fold_in":
            made = tuple(x.val.item() if hasattr(x, "val") else id(x) for x in equation.invars)
            found += [f"twice: {equation}"] if made in seen else []
            seen.add(made)
    return found


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
