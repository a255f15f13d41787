"""Seeds times hyper-parameters as compiled programs: plan the grid, group it by what is static, vmap, shard.

A grid point is a *configuration*, and a configuration with a seed a *row*. All rows whose static arguments (integers,
strings, booleans, tuples) agree are one group and one program: float hyper-parameters are arrays over its rows, and the
rows are split over the devices, which share nothing and so need not wait for each other.
"""

from __future__ import annotations

import concurrent.futures
import inspect
import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrl import checks
from jaxrl.evaluation import evaluate
from jaxrl.loop import TrainState, init_train, train_interval
from jaxrl.types import Agent, Array, Env, Key, Metrics, PyTree

Constructor = Callable[..., Agent]

# What of a `TrainState` belongs to one row: all but the step, which every row shares.
ROW_AXES = TrainState(**{name: None if name == "step" else 0 for name in TrainState._fields})

# Evaluation folds its keys from the upper half of the numbers that training, which folds in `step`, leaves free.
EVALUATION = np.uint32(2**31)


class Group(NamedTuple):
    """Configurations that one compiled program trains.

    Attributes:
      indices: their places in the plan's list of configurations.
      static: the arguments they have in common, all but the traced ones.
      traced: for each float hyper-parameter that varies, its value in each configuration, float32 `[C]`.
    """

    indices: tuple[int, ...]
    static: dict[str, Any]
    traced: dict[str, np.ndarray]


class Plan(NamedTuple):
    """A grid of hyper-parameters.

    Attributes:
      configs: for each configuration the hyper-parameters that vary; `[{}]` where none does.
      groups: the configurations, by program.
    """

    configs: list[dict[str, Any]]
    groups: list[Group]


def is_axis(value: Any) -> bool:
    """Whether a hyper-parameter's value makes it an axis: a list, or an array that is not a scalar."""
    return isinstance(value, list) or (hasattr(value, "ndim") and value.ndim > 0)


def axis_values(values: Any) -> list[Any]:
    """An axis's values as Python's own numbers, text and the like, which JSON holds and one `repr` tells apart."""
    if hasattr(values, "tolist"):
        return values.tolist()
    return [value.tolist() if hasattr(value, "tolist") else value for value in values]


def name_of(constructor: Constructor) -> str:
    """The name of an agent's constructor, also of a `functools.partial` of one."""
    return getattr(getattr(constructor, "func", constructor), "__name__", "agent")


def float_arguments(constructor: Constructor) -> set[str]:
    """The hyper-parameters that may vary within one compiled program: those annotated `float`."""
    parameters = inspect.signature(constructor).parameters.values()
    return {p.name for p in parameters if p.annotation in ("float", float)}


def plan(constructor: Constructor, hyper_parameters: Mapping[str, Any]) -> Plan:
    """Lays out the grid of all combinations of the axes, and checks every point of it.

    Args:
      constructor: of the agent, such as `ppo`.
      hyper_parameters: its keyword arguments; a list or an array makes one an axis.

    Raises:
      JaxrlError: for a hyper-parameter that the constructor does not know, an empty axis, or a value that it refuses.
    """
    name, accepted = name_of(constructor), inspect.signature(constructor).parameters
    for argument in hyper_parameters:
        if argument not in accepted:
            raise checks.unknown_name(f"hyper-parameter of {name}", argument, accepted)
    axes = {k: axis_values(v) for k, v in hyper_parameters.items() if is_axis(v)}
    for argument, values in axes.items():
        if not values:
            raise checks.JaxrlError(f"{name}: {argument}=[] is not accepted; it must hold one value at least")
        if isinstance(accepted[argument].default, tuple) and not all(isinstance(v, list | tuple) for v in values):
            raise checks.JaxrlError(
                f"{name}: {argument}={values} is not accepted; it must be a tuple, such as "
                f"{accepted[argument].default}, or a list of tuples, which is an axis"
            )
    fixed = {k: v for k, v in hyper_parameters.items() if k not in axes}
    configs = [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]
    floats = float_arguments(constructor) & axes.keys()
    members: dict[tuple, list[int]] = {}
    for index, config in enumerate(configs):
        constructor(**fixed, **config)  # raises for a bad value, before anything is traced
        members.setdefault(tuple(repr(v) for k, v in config.items() if k not in floats), []).append(index)
    groups = []
    for indices in members.values():
        static = fixed | {k: v for k, v in configs[indices[0]].items() if k not in floats}
        traced = {k: np.array([configs[i][k] for i in indices], np.float32) for k in axes if k in floats}
        groups.append(Group(tuple(indices), static, traced))
    return Plan(configs, groups)


class Program(NamedTuple):
    """A group's compiled functions; everything with a leading axis has `R` rows, padded to a multiple of the devices.

    Attributes:
      init: `init() -> state`, a `TrainState` whose leaves but `step` are `[R, ...]`.
      train: `train(state, updates) -> (state, metrics)`, metrics `[R]`; the state given is consumed.
      evaluate: `evaluate(state, draw=0) -> returns [R, num_episodes]`; another `draw` is other episodes.
      agent: an agent of the group, for its static facts.
      num_rows: configurations times seeds, without the padding.
      mesh: the devices that the rows are split over.
      shapes: the state's shapes, types and sharding.
      compile_seconds: wall-clock time of tracing and compiling all three.
      memory_bytes: memory of all devices together that `train` needs at its peak, by the compiler's own analysis.
    """

    init: Callable[[], TrainState]
    train: Callable[[TrainState, Array], tuple[TrainState, Metrics]]
    evaluate: Callable[..., Array]
    agent: Agent
    num_rows: int
    mesh: Mesh
    shapes: TrainState
    compile_seconds: float
    memory_bytes: int


def group_agent(constructor: Constructor, group: Group, place: int = 0) -> Agent:
    """The agent of one of a group's configurations; any of them has the static facts that all of them share."""
    return constructor(**group.static, **{name: float(values[place]) for name, values in group.traced.items()})


def seed_keys(run_key: Key, seeds: Array) -> Key:
    """The keys of seeds: seed `i` has `fold_in(run_key, i)`, whatever other seeds run beside it."""
    return jax.vmap(jax.random.fold_in, (None, 0))(run_key, seeds)


def compile_group(
    constructor: Constructor,
    group: Group,
    env: Env,
    *,
    run_key: Key,
    num_seeds: int,
    num_eval_episodes: int,
    parts: tuple[str, ...] = ("init", "train", "evaluate"),
) -> Program:
    """Compiles the functions that train a group, at once and each once.

    Args:
      constructor: of the agent.
      group: its configurations.
      env: where.
      run_key: the run's key, which the seeds' keys are folded from.
      num_seeds: seeds of each configuration.
      num_eval_episodes: episodes of each evaluation of a row.
      parts: which of the program's functions are needed.

    Raises:
      JaxrlError: if the agent cannot act in the environment.
    """
    started = time.perf_counter()
    num_rows = len(group.indices) * num_seeds
    devices = jax.devices()[:num_rows]
    mesh = Mesh(np.array(devices), ("row",))
    padded = -(-num_rows // len(devices)) * len(devices)
    row = np.arange(padded) % num_rows  # the padding repeats the first rows; it is dropped from the metrics
    keys = seed_keys(run_key, jnp.asarray(row % num_seeds))
    hypers = {name: jnp.asarray(values[row // num_seeds]) for name, values in group.traced.items()}

    def agent_of(hypers: dict[str, Array]) -> Agent:
        return constructor(**group.static, **hypers)

    def init(keys: Key, hypers: dict[str, Array]) -> TrainState:
        return jax.vmap(lambda key, h: init_train(key, agent_of(h), env), out_axes=ROW_AXES)(keys, hypers)

    def train(state: TrainState, hypers: dict[str, Array], updates: Array) -> tuple[TrainState, Metrics]:
        one = lambda state, h: train_interval(state, agent_of(h), env, updates)  # noqa: E731
        return jax.vmap(one, in_axes=(ROW_AXES, 0), out_axes=(ROW_AXES, 0))(state, hypers)

    def evaluation(state: TrainState, hypers: dict[str, Array], draw: Array) -> Array:
        def one(state: TrainState, h: dict[str, Array]) -> Array:
            key = jax.random.fold_in(state.key, EVALUATION + state.step.astype(jnp.uint32))
            return evaluate(jax.random.fold_in(key, draw), agent_of(h), state.agent, env, num_eval_episodes)

        return jax.vmap(one, in_axes=(ROW_AXES, 0))(state, hypers)

    rows, shared = P("row"), P()
    state_spec = TrainState(*(rows if axis == 0 else shared for axis in ROW_AXES))

    def sharded(function: Callable, in_specs: tuple, out_specs: Any) -> Callable:
        # Under a `jit` of its own the function keeps the arrays that it closes over. Without, they become arguments of
        # the map, and jaxlib 0.11 crashes where one of them is empty (brax has such).
        return jax.shard_map(jax.jit(function), mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)

    def place(tree: PyTree, spec: P) -> PyTree:
        return jax.device_put(tree, NamedSharding(mesh, spec))

    keys, hypers = place((keys, hypers), rows)
    starting = jax.jit(sharded(init, (rows, rows), state_spec)).trace(keys, hypers)
    shapes = TrainState(
        *(
            jax.tree.map(
                lambda x, spec=spec: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec)), x
            )
            for x, spec in zip(starting.out_info, state_spec, strict=True)
        )
    )
    count = jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(mesh, shared))
    lowered = {
        "init": starting.lower,
        "train": lambda: jax.jit(
            sharded(train, (state_spec, rows, shared), (state_spec, rows)), donate_argnums=0
        ).lower(shapes, hypers, count),
        "evaluate": lambda: jax.jit(sharded(evaluation, (state_spec, rows, shared), rows)).lower(shapes, hypers, count),
    }
    # What runs once need not be fast: on a CPU, where optimising is most of compiling, `init` goes without.
    hasty = {"xla_backend_optimization_level": 0} if devices[0].platform == "cpu" else {}
    # Tracing holds Python's lock and compiling does not, so each is compiled while the next is traced.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        pending = {
            part: pool.submit(lowered[part]().compile, compiler_options=hasty if part == "init" else {})
            for part in lowered
            if part in parts
        }
    compiled = {part: future.result() for part, future in pending.items()}
    return Program(
        init=lambda: compiled["init"](keys, hypers),
        train=lambda state, updates: compiled["train"](state, hypers, place(jnp.int32(updates), shared)),
        evaluate=lambda state, draw=0: compiled["evaluate"](state, hypers, place(jnp.int32(draw), shared)),
        agent=group_agent(constructor, group),
        num_rows=num_rows,
        mesh=mesh,
        shapes=shapes,
        compile_seconds=time.perf_counter() - started,
        memory_bytes=_memory(compiled["train"]) * len(devices) if "train" in compiled else 0,
    )


def _memory(compiled: Any) -> int:
    """Bytes that one device needs at the peak of a compiled program, its donated arguments counted once."""
    memory = compiled.memory_analysis()
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return used - memory.alias_size_in_bytes
