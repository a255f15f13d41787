"""What the adapters of physics engines share: scales of the physics and the like."""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import checks
from jaxrl.types import Array, PyTree

# Factors on the physics, and which fields of a brax `System` or an mjx `Model` each changes, to which power. How hard
# the engines' constraints are follows the masses, as joints of heavy bodies are no softer than those of light ones: of
# what is derived from the masses when a model is loaded (`invweight`) as if joints had no inertia of their own, and of
# the springs that are the joints in brax's simplest engine. Motors, dampers and springs of the model are as they were.
SCALES: dict[str, dict[str, int]] = {
    "gravity_scale": {"gravity": 1, "opt.gravity": 1},
    "friction_scale": {"geom_friction": 1, "pair_friction": 1},
    "mass_scale": {
        "body_mass": 1, "body_inertia": 1, "body_subtreemass": 1, "link.inertia.mass": 1, "link.inertia.i": 1,
        "body_invweight0": -1, "dof_invweight0": -1, "tendon_invweight0": -1, "link.invweight": -1, "dof.invweight": -1,
        "link.constraint_stiffness": 1, "link.constraint_limit_stiffness": 1,
        "link.constraint_vel_damping": 1, "link.constraint_ang_damping": 1,
    },
}  # fmt: skip


def scale_physics(owner: str, model: Any, scales: Mapping[str, Any]) -> Any:
    """A model with other gravity, friction or masses.

    Args:
      owner: the environment's id, for messages.
      model: a brax `System` or an mjx `Model`.
      scales: a factor for each of some names of `SCALES`; it may be traced. 1 leaves the model as it is.

    Raises:
      JaxrlError: for a factor that is not a number of at least 0, and for a mass's of 0.
    """
    for name, scale in scales.items():
        checks.number(owner, 0, open_low=name == "mass_scale", **{name: scale})
    powers = {
        field: factor**power
        for name, factor in scales.items()
        if isinstance(factor, jax.Array) or factor != 1
        for field, power in SCALES[name].items()
    }
    changed = {}
    for field, factor in powers.items():
        value = functools.reduce(lambda node, name: getattr(node, name, None), field.split("."), model)
        if value is not None:
            changed[field] = jnp.asarray(value) * factor
    return model.tree_replace(changed) if changed else model


def refuse_inert(owner: str, model: Any, mj_model: Any, scales: Mapping[str, Any]):
    """Checks that no factor would do nothing, as gravity's does to what moves in a plane that is level.

    Args:
      owner: the environment's id, for messages.
      model: a brax `System` or an mjx `Model`.
      mj_model: the same as MuJoCo's own `MjModel`.
      scales: as of `scale_physics`.

    Raises:
      JaxrlError: naming the first that would, and why.
    """
    import mujoco
    from mujoco import mjx

    compiled: Any = mujoco  # whose functions no type checker sees

    def gravity_moves() -> bool:
        data, rng = compiled.MjData(mj_model), np.random.default_rng(0)
        for _ in range(4):  # at rest, somewhere
            data.qpos[:] = mj_model.qpos0 + rng.normal(size=mj_model.nq)
            compiled.mj_normalizeQuat(mj_model, data.qpos)
            compiled.mj_fwdPosition(mj_model, data)
            compiled.mj_fwdVelocity(mj_model, data)
            if np.abs(data.qfrc_bias - data.qfrc_gravcomp).max() > 1e-6 * mj_model.body_mass.sum():
                return True
        return False

    reasons = {
        "gravity_scale": ("gravity moves nothing in it", gravity_moves),
        "friction_scale": ("nothing in it touches anything", lambda: mjx.make_data(model).ncon > 0),
    }
    for name in scales:
        if name in reasons and not reasons[name][1]():
            raise checks.JaxrlError(
                f"{owner}: {name}={scales[name]} is not accepted; {reasons[name][0]}, so it must be left out"
            )


MASSES_TO_A_POWER = ("spring", "positional")  # backends of brax's


def with_masses_in_use(system: Any) -> Any:
    """A brax `System` whose masses and inertias are those that its engines `MASSES_TO_A_POWER` compute with.

    They take each to the power of `1 - spring_mass_scale` or `1 - spring_inertia_scale`, which in many models is 0: all
    links weigh 1 then, whatever `link.inertia` says. Here that has been done, and both powers are 1.
    """
    inertia = system.link.inertia
    diagonals = jax.vmap(jnp.diagonal)(inertia.i) ** (1 - system.spring_inertia_scale)
    return system.tree_replace(
        {
            "link.inertia.mass": inertia.mass ** (1 - system.spring_mass_scale),
            "link.inertia.i": jax.vmap(jnp.diag)(diagonals),
            "spring_mass_scale": jnp.zeros_like(system.spring_mass_scale),
            "spring_inertia_scale": jnp.zeros_like(system.spring_inertia_scale),
        }
    )


def all_finite(*arrays: Array) -> Array:
    """Whether every number is finite, bool `()`."""
    return jnp.stack([jnp.isfinite(x).all() for x in arrays]).all()


def finite(x: Array) -> Array:
    """`x` with 0 in place of what is not finite: a terminal state's value does not count, but 0 times NaN is NaN."""
    return jnp.where(jnp.isfinite(x), x, 0)


def packing(like: PyTree) -> tuple[Callable[[PyTree], PyTree], Callable[[PyTree], PyTree]]:
    """Functions that put None in place of a state's arrays without elements, and those arrays back.

    mjx has many, and jaxlib 0.11 crashes where it compiles a sharded program that takes one.

    Args:
      like: the state's shapes and dtypes.
    """

    def pack(state: PyTree) -> PyTree:
        return jax.tree.map(lambda x: x if x.size else None, state)

    def unpack(packed: PyTree) -> PyTree:
        return jax.tree.map(lambda aval, x: x if aval.size else jnp.zeros(aval.shape, aval.dtype), like, packed)

    return pack, unpack


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops what engines print and warn of by themselves: that `warp`, which is optional, is missing, or their age."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
