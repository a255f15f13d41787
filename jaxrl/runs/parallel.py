"""One agent's training on several devices: the environments are split over them, the parameters are on each.

The program stays the one for a single device; XLA splits it after where its arguments lie.
"""

from __future__ import annotations

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrl.checks import JaxrlError
from jaxrl.loop import TrainState


def shard_environments(state: TrainState, mesh: Mesh) -> TrainState:
    """Lays the environments, what they observe and what the policy carries in them over devices, the rest on each.

    With `dppo`, whose workers learn from their own environments, a device then has whole workers if the number of
    devices divides that of the workers, and all that the devices exchange in an update are averages: of gradients,
    metrics and advantages. Any other agent computes what it does on one device, too, but may move its data around.

    Args:
      state: from `init_train`, of one seed.
      mesh: of one axis, of devices whose number divides the environments'.

    Returns:
      the same state, to be handed to a jitted `train_step` or `train_interval`.

    Raises:
      JaxrlError: if the mesh has more axes than one, or the environments do not split.

    Example::

        mesh = jax.sharding.Mesh(jax.devices(), ("worker",))
        agent, env = dppo(num_workers=8, num_envs=64), jaxrl.make("CartPole-v1")
        state = shard_environments(jaxrl.init_train(jax.random.key(0), agent, env), mesh)
        train = jax.jit(lambda state: jaxrl.train_interval(state, agent, env, 100), donate_argnums=0)
        state, metrics = train(state)
    """
    num_envs = jax.tree.leaves(state.obs)[0].shape[0]
    if len(mesh.axis_names) != 1:
        raise JaxrlError(f"shard_environments: a mesh of axes {mesh.axis_names} is not accepted; it must have one")
    if num_envs % mesh.size:
        raise JaxrlError(f"shard_environments: {mesh.size} devices do not divide num_envs={num_envs}")
    split, whole = NamedSharding(mesh, P(mesh.axis_names[0])), NamedSharding(mesh, P())
    return TrainState(
        **{
            name: jax.device_put(part, split if name in ("memory", "env", "episode", "obs") else whole)
            for name, part in state._asdict().items()
        }
    )
