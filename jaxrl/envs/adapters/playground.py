"""MuJoCo Playground's environments (Zakka et al., 2025) as ours, without its wrappers.

The package `playground` is optional, and imported where it is needed. Of its suites the one after DeepMind's Control
Suite is here. The robots of the other two need models that the package clones from GitHub when one is made.

The physics is MJX, on the device, `impl="jax"`: unlike `impl="warp"`, playground's own default, it runs on every
backend, under any number of `vmap`s, and its parameters may be traced.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxrl import checks
from jaxrl.envs.adapters import physics
from jaxrl.types import Array, Env, Key

NAMES = (
    *("AcrobotSwingup", "AcrobotSwingupSparse", "BallInCup", "CartpoleBalance", "CartpoleBalanceSparse"),
    *("CartpoleSwingup", "CartpoleSwingupSparse", "CheetahRun", "FingerSpin", "FingerTurnEasy", "FingerTurnHard"),
    *("FishSwim", "HopperHop", "HopperStand", "HumanoidRun", "HumanoidStand", "HumanoidWalk", "PendulumSwingup"),
    *("PointMass", "ReacherEasy", "ReacherHard", "SwimmerSwimmer6", "WalkerRun", "WalkerStand", "WalkerWalk"),
)
IDS = tuple(f"playground/{name}" for name in NAMES)
# Playground's names that need a download.
ROBOTS = (
    *("AeroCubeRotateZAxis", "AlohaHandOver", "AlohaSinglePegInsertion", "ApolloJoystickFlatTerrain"),
    *("BarkourJoystick", "BerkeleyHumanoidJoystickFlatTerrain", "BerkeleyHumanoidJoystickRoughTerrain"),
    *("G1JoystickFlatTerrain", "G1JoystickRoughTerrain", "Go1Footstand", "Go1Getup", "Go1Handstand"),
    *("Go1JoystickFlatTerrain", "Go1JoystickRoughTerrain", "H1InplaceGaitTracking", "H1JoystickGaitTracking"),
    *("LeapCubeReorient", "LeapCubeRotateZAxis", "Op3Joystick", "PandaOpenCabinet", "PandaPickCube"),
    *("PandaPickCubeCartesian", "PandaPickCubeOrientation", "PandaRobotiqPushCube", "SpotFlatTerrainJoystick"),
    *("SpotGetup", "SpotJoystickGaitTracking", "T1JoystickFlatTerrain", "T1JoystickRoughTerrain"),
)
FAILING = {
    f"playground/{name}": f"playground/{name}: it needs models of robots, which playground clones from GitHub when the "
    "environment is made, and jaxrl downloads nothing; those of the control suite, such as playground/CheetahRun, need "
    "no download (jaxrl list shows them)"
    for name in ROBOTS
}
PARAMETERS = ("episode_length", *physics.SCALES, "ctrl_dt", "sim_dt")


def list_ids() -> list[str]:
    """The ids of playground's environments, without those that need a download; none where the package is missing."""
    return list(IDS) if importlib.util.find_spec("mujoco_playground") else []


def playground_env(
    name: str,
    *,
    episode_length: int | None = None,
    ctrl_dt: float | None = None,
    sim_dt: float | None = None,
    **scales: float,
) -> Env:
    """Adapts one of playground's environments.

    Args:
      name: as playground names it, such as `CartpoleBalance`.
      episode_length: the time limit in environment steps, playground's own unless given; reaching it truncates.
      ctrl_dt: seconds that an action lasts, playground's own unless given.
      sim_dt: seconds of a step of the physics, of which an action lasts a whole number; playground's own unless given.
      **scales: `gravity_scale`, `friction_scale` and `mass_scale`, factors on the physics, where they change
        anything; they may be traced.

    Returns:
      The environment; its actions are in `[-1, 1]`. Physics that stops being finite terminates, and what is not finite
      then counts as 0. Where observations are dictionaries, they are the entry `state`.

    Raises:
      JaxrlError: for a value that is not accepted, and where the package is missing.
    """
    owner = f"playground/{name}"
    suite = _suite(owner)
    with jax.ensure_compile_time_eval(), physics.quiet():
        config = suite.get_default_config(name)
        given = {"ctrl_dt": ctrl_dt, "sim_dt": sim_dt}
        times = {k: config[k] if value is None else value for k, value in given.items()}
        checks.number(owner, 0, open_low=True, **times)
        if not np.isclose(times["ctrl_dt"] / times["sim_dt"], max(1, round(times["ctrl_dt"] / times["sim_dt"]))):
            raise checks.JaxrlError(
                f"{owner}: ctrl_dt={times['ctrl_dt']} is not accepted; it must be a multiple of "
                f"sim_dt={times['sim_dt']}"
            )
        limit = config.episode_length if episode_length is None else episode_length
        checks.integer(owner, episode_length=limit)
        base = suite.load(name, config=config, config_overrides={"impl": "jax", **times})
        if scales:
            physics.refuse_inert(owner, base.mjx_model, base.mj_model, scales)
            base._mjx_model = physics.scale_physics(owner, base.mjx_model, scales)

    def reset(key: Key) -> Any:
        return base.reset(jax.random.key_data(key))  # Playground's own keys are untyped, and its states hold them

    def moved(state: Any) -> tuple[Array, Array]:
        return state.data.qpos, state.data.qvel

    def observe(state: Any) -> Array:
        return state.obs["state"] if isinstance(state.obs, Mapping) else state.obs

    return physics.adapt(owner, base, reset, moved, observe, limit)


def _suite(owner: str) -> Any:
    try:
        with jax.ensure_compile_time_eval(), physics.quiet():
            from mujoco_playground import dm_control_suite  # pyright: ignore[reportMissingImports]  # of an extra
    except ModuleNotFoundError as error:
        raise checks.JaxrlError(
            f"{owner}: the package {error.name} is missing; pip install 'jaxrl[playground]' gets it"
        ) from error
    return dm_control_suite
