"""What the adapters of physics engines share: their states as ours, scales of the physics, and silence."""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import checks
from jaxrl.types import Array, Env, Key, Outcome, PyTree, Spec, box

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


class EngineState(NamedTuple):
    """An environment's state: the engine's own, and `time`, the steps taken in this episode (int32)."""

    base: PyTree
    time: Array


def adapt(
    owner: str,
    base: Any,
    reset: Callable[[Key], Any],
    moved: Callable[[Any], tuple[Array, Array]],
    observe: Callable[[Any], Array],
    episode_length: int,
) -> Env:
    """An engine's environment as ours, its actions in `[-1, 1]`.

    Physics that stops being finite terminates, and what is not finite then counts as 0.

    Args:
      owner: its id.
      base: the engine's environment; of its states `reward` and `done` are read here.
      reset: `reset(key) -> state`, the engine's.
      moved: of a state, positions and velocities.
      observe: of a state, what is observed.
      episode_length: the time limit in environment steps; reaching it truncates.
    """
    # Engines mix Python numbers and weak types into their states; a scan's carry wants the dtypes of the first one.
    like = jax.eval_shape(reset, jax.random.key(0))
    space = box(-np.inf, np.inf, observe(like).shape, observe(like).dtype)

    def typed(state: Any) -> Any:
        return jax.tree.map(lambda x, aval: jnp.asarray(x, aval.dtype), state, like)

    # mjx has many arrays without elements, and jaxlib 0.11 crashes where it compiles a sharded program that takes one.
    def pack(state: Any) -> PyTree:
        return jax.tree.map(lambda x: x if x.size else None, state)

    def unpack(packed: PyTree) -> Any:
        return jax.tree.map(lambda aval, x: x if aval.size else jnp.zeros(aval.shape, aval.dtype), like, packed)

    def start(key: Key) -> tuple[EngineState, Array]:
        state = typed(reset(key))
        return EngineState(pack(state), jnp.int32(0)), observe(state)

    def step(key: Key, state: EngineState, action: Array) -> tuple[EngineState, Outcome]:
        successor = typed(base.step(unpack(state.base), action))
        obs, time = observe(successor), state.time + 1
        numbers = obs, successor.reward, *moved(successor)
        terminated = (successor.done > 0) | ~jnp.stack([jnp.isfinite(x).all() for x in numbers]).all()
        truncated = (time >= episode_length) & ~terminated
        # A terminal state's value does not count, but 0 times NaN is NaN.
        reward, obs = (jnp.where(jnp.isfinite(x), x, 0) for x in (successor.reward.astype(jnp.float32), obs))
        return EngineState(pack(successor), time), Outcome(obs, reward, terminated, truncated)

    return Env(start, step, Spec(owner, space, box(-1, 1, (base.action_size,)), episode_length))


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
