"""How a CPU is shared out: devices, over which the rows of a sweep are spread, and threads, over which operations are.

Both are asked for before JAX starts; where there are accelerators, these are used instead.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from jaxrl.checks import JaxrlError
from jaxrl.constructors import parameters

# Multiply-adds of a matrix product that one thread ends as soon as two that have to meet. Measured with one seed on two
# cores: steps/s of one thread are 1.3 to 1.8 times those of two at 2**19 to 2**21 (dqn, ppo, a2c), 0.8 times at 2**22.
SMALL_PRODUCT = 2**21
THREADS = "PJRT_NPROC"  # is read when the CPU's devices are made; there is no setting of JAX's own


def use_devices(
    make_agent: Callable, hyper_parameters: Mapping[str, Any], num_rows: int, devices: int = 0, threads: int = 0
) -> tuple[int, int]:
    """Asks for the devices and threads that suit a run.

    Args:
      make_agent: the agent's constructor.
      hyper_parameters: its arguments that are not left as they are; a list holds an axis's values.
      num_rows: configurations times seeds.
      devices: CPU devices; 0 is one for each core, but no more than rows.
      threads: that these share; 0 is one for each device if the agent's operations are small, else one for each core.

    Returns:
      the numbers of devices and of threads; those that there are, if JAX has begun and none were given.

    Raises:
      JaxrlError: for a negative number; or for any that was given, where JAX has begun with other devices than asked.
    """
    cores = num_cores()
    chosen_devices = devices or max(1, min(cores, num_rows))
    small = largest_product(make_agent, hyper_parameters) <= SMALL_PRODUCT
    chosen_threads = threads or (chosen_devices if small else max(cores, chosen_devices))
    try:
        ask_for(chosen_devices, chosen_threads)
    except JaxrlError:
        if devices or threads:
            raise
        import jax

        return jax.device_count(), num_threads()
    return chosen_devices, chosen_threads


def ask_for(devices: int, threads: int):
    """Asks JAX for so many CPU devices, and threads that they share; the arguments and errors as of `use_devices`."""
    for name, number in {"devices": devices, "threads": threads}.items():
        if number < 0:
            raise JaxrlError(f"--{name} {number} is not accepted; it must be 0, which chooses, or more")
    import jax

    try:
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError as error:  # only where something in the same process has used JAX already
        raise JaxrlError(f"--devices {devices} is not accepted; {error}") from error
    os.environ[THREADS] = str(threads)


def num_threads() -> int:
    """How many threads the CPU's devices share: as many as were asked for, else one for each core."""
    return int(os.environ.get(THREADS, 0)) or num_cores()


def num_cores() -> int:
    """How many cores this process may run on; where that cannot be known (macOS, Windows), how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def largest_product(make_agent: Callable, hyper_parameters: Mapping[str, Any]) -> int:
    """Multiply-adds of the largest matrix product between an agent's hidden layers: rows of its batch x units x units.

    >>> from jaxrl.agents import dqn
    >>> largest_product(dqn, {"batch_size": [32, 128], "hidden_sizes": (64, 32)})
    262144
    """
    defaults = {name: p.default for name, p in parameters(make_agent).items()}

    def values(name: str, otherwise: Any) -> list[Any]:
        value = hyper_parameters.get(name, defaults.get(name, otherwise))
        return value if isinstance(value, list) else [value]

    units = max(math.prod(sorted(sizes)[-2:]) for sizes in values("hidden_sizes", ()))
    if "batch_size" in defaults:
        whole = max(values("replay_size", 1))  # what a batch size of 0 asks for
        return units * max(size or whole for size in values("batch_size", whole))
    rows = max(values("num_envs", 1)) * max(values("rollout_length", 1)) / max(1, *values("num_minibatches", 1))
    return units * math.ceil(rows)
