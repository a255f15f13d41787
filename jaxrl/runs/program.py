"""Seeds times hyper-parameters as compiled programs: plan the grid, group it by what is static, vmap, shard.

A grid point is a *configuration*, and a configuration with a seed a *row*. All rows whose static arguments (integers,
strings, booleans, tuples) agree are one group and one program: float hyper-parameters are arrays over its rows, and the
rows are split over the devices, which share nothing and so need not wait for each other.
"""

from __future__ import annotations

import concurrent.futures
import functools
import inspect
import itertools
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrl import checks, prng
from jaxrl.constructors import parameters, signature_of
from jaxrl.evaluation import evaluate
from jaxrl.loop import TrainState, init_train, train_interval
from jaxrl.numerics import standard_numbers
from jaxrl.record import plain
from jaxrl.types import Agent, Array, Env, Key, Metrics, PyTree

Constructor = Callable[..., Agent]

# What of a `TrainState` belongs to one row: all but the step, which every row shares.
ROW_AXES: Any = TrainState._make(None if name == "step" else 0 for name in TrainState._fields)

# Evaluation folds its keys from the upper half of the numbers that training, which folds in `step`, leaves free.
EVALUATION = np.uint32(2**31)


# What the environment's parameters are called among a sweep's axes: an agent may have one of the same name.
ENV = "env."


class Group(NamedTuple):
    """Configurations that one compiled program trains.

    Attributes:
      indices: their places in the plan's list of configurations.
      static: the arguments they have in common, all but the traced ones.
      traced: for each float hyper-parameter that varies, its value in each configuration, float32 `[C]`.
      env_static: the environment's parameters that are axes and that they have in common.
      env_traced: for each of its float parameters that vary within the group, as in `traced`.
    """

    indices: tuple[int, ...]
    static: dict[str, Any]
    traced: dict[str, np.ndarray]
    env_static: dict[str, Any] = {}  # noqa: RUF012 - read, and never written to
    env_traced: dict[str, np.ndarray] = {}  # noqa: RUF012


class Plan(NamedTuple):
    """A grid of hyper-parameters.

    Attributes:
      configs: for each configuration the hyper-parameters that vary, and the environment's parameters that do, named
        `env.g`; `[{}]` where none does.
      groups: the configurations, by program.
    """

    configs: list[dict[str, Any]]
    groups: list[Group]


def is_axis(value: Any) -> bool:
    """Whether a hyper-parameter's value makes it an axis: a list, or an array that is not a scalar."""
    return isinstance(value, list) or (hasattr(value, "ndim") and value.ndim > 0)


def split_axes(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """An environment's parameters: those with one value, and the axes of a sweep with all of theirs."""
    axes = {k: axis_values(v) for k, v in params.items() if is_axis(v)}
    return {k: v for k, v in params.items() if k not in axes}, axes


def axis_values(values: Any) -> list[Any]:
    """An axis's values as Python's own numbers, text and the like, which JSON holds and one `repr` tells apart."""
    if hasattr(values, "tolist"):
        return values.tolist()
    return [value.tolist() if hasattr(value, "tolist") else plain(value) for value in values]


def name_of(constructor: Constructor) -> str:
    """The name of an agent's constructor, also of a `functools.partial` of one."""
    return getattr(getattr(constructor, "func", constructor), "__name__", "agent")


def unwrapped(constructor: Constructor, hyper_parameters: Mapping[str, Any]) -> tuple[Constructor, dict[str, Any]]:
    """The function in a `functools.partial`, and the partial's arguments beside those given, which come before them.

    A partial of arguments that have no name is left as it is.

    Raises:
      JaxrlError: if the function does not take the partial's positional arguments.
    """
    if not isinstance(constructor, functools.partial):
        return constructor, dict(hyper_parameters)
    signature = signature_of(constructor.func)
    try:
        named = signature.bind_partial(*constructor.args).arguments
    except TypeError as error:
        raise checks.JaxrlError(f"{name_of(constructor)}: {constructor} is not accepted; {error}") from error
    nameless = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
    if any(signature.parameters[name].kind in nameless for name in named):
        return constructor, dict(hyper_parameters)
    return unwrapped(constructor.func, named | constructor.keywords | dict(hyper_parameters))


def with_defaults(constructor: Constructor, hyper_parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Hyper-parameters, and after them those that were left at their defaults.

    A default that is a list is left out: it is no axis, which it would be among them.
    """
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    defaults = {
        p.name: p.default for p in parameters(constructor).values() if p.kind in named and p.default is not p.empty
    }
    left = {k: v for k, v in defaults.items() if k not in hyper_parameters and not is_axis(v)}
    return dict(hyper_parameters) | left


def float_arguments(constructor: Constructor) -> set[str]:
    """The hyper-parameters that may vary within one compiled program: those annotated `float`."""
    return {p.name for p in parameters(constructor).values() if p.annotation in ("float", float)}


def plan(
    constructor: Constructor,
    hyper_parameters: Mapping[str, Any],
    env_axes: Mapping[str, Sequence[Any]] | None = None,
    env_shared: Collection[str] = (),
) -> Plan:
    """Lays out the grid of all combinations of the axes, and checks every point of it.

    Args:
      constructor: of the agent, such as `ppo`.
      hyper_parameters: its keyword arguments; a list or an array makes one an axis.
      env_axes: for each parameter of the environment that is an axis its values; they follow the agent's.
      env_shared: those of them that may vary within one compiled program.

    Raises:
      JaxrlError: for a hyper-parameter that the constructor does not know, an empty axis, or a value that it refuses.
    """
    name, accepted = name_of(constructor), parameters(constructor)
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
    floats = float_arguments(constructor) & axes.keys() | {ENV + name for name in env_shared}
    axes |= {ENV + name: values for name, values in (env_axes or {}).items()}
    configs = [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]
    members: dict[tuple, list[int]] = {}
    for index, config in enumerate(configs):
        constructor(**fixed, **_by_owner(config)[0])  # raises for a bad value, before anything is traced
        members.setdefault(tuple(repr(v) for k, v in config.items() if k not in floats), []).append(index)
    groups = []
    for indices in members.values():
        static, env_static = _by_owner({k: v for k, v in configs[indices[0]].items() if k not in floats})
        traced, env_traced = _by_owner(
            {k: np.array([configs[i][k] for i in indices], np.float32) for k in axes if k in floats}
        )
        groups.append(Group(tuple(indices), fixed | static, traced, env_static, env_traced))
    return Plan(configs, groups)


def _by_owner(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A configuration's values: the agent's, and the environment's under their own names."""
    agent = {name: value for name, value in config.items() if not name.startswith(ENV)}
    return agent, {name.removeprefix(ENV): value for name, value in config.items() if name not in agent}


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
      close: ends what the program holds on the host.
    """

    init: Callable[[], TrainState]
    train: Callable[[TrainState, int], tuple[TrainState, Metrics]]
    evaluate: Callable[..., Array | np.ndarray]
    agent: Agent
    num_rows: int
    mesh: Mesh
    shapes: TrainState
    compile_seconds: float
    memory_bytes: int
    close: Callable[[], None] = lambda: None


def group_agent(constructor: Constructor, group: Group, place: int = 0) -> Agent:
    """The agent of one of a group's configurations; any of them has the static facts that all of them share."""
    return constructor(**group.static, **{name: float(values[place]) for name, values in group.traced.items()})


def seed_keys(run_key: Key, seeds: Array) -> Key:
    """The keys of seeds: seed `i` has `fold_in(run_key, i)`, whatever other seeds run beside it."""
    return jax.vmap(jax.random.fold_in, (None, 0))(run_key, seeds)


@standard_numbers
def compile_group(
    constructor: Constructor,
    group: Group,
    env: Env | Callable[..., Env],
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
      env: where; if its parameters vary within the group, what makes it of them.
      run_key: the run's key, which the seeds' keys are folded from.
      num_seeds: seeds of each configuration.
      num_eval_episodes: episodes of each evaluation of a row.
      parts: which of the program's functions are needed.

    Raises:
      JaxrlError: if the agent cannot act in the environment.
    """
    started = time.perf_counter()
    rows = lay_out(constructor, group, run_key, num_seeds, jax.devices())

    def env_of(hypers: dict[str, Array]) -> Env:
        return env if isinstance(env, Env) else env(**{name: hypers[ENV + name] for name in group.env_traced})

    def init(keys: Key, hypers: dict[str, Array]) -> TrainState:
        return jax.vmap(lambda key, h: init_train(key, rows.agent_of(h), env_of(h)), out_axes=ROW_AXES)(keys, hypers)

    def train(state: TrainState, hypers: dict[str, Array], updates: Array) -> tuple[TrainState, Metrics]:
        one = lambda state, h: train_interval(state, rows.agent_of(h), env_of(h), updates)  # noqa: E731
        return jax.vmap(one, in_axes=(ROW_AXES, 0), out_axes=(ROW_AXES, 0))(state, hypers)

    def evaluation(state: TrainState, hypers: dict[str, Array], draw: Array) -> Array:
        def one(state: TrainState, h: dict[str, Array]) -> Array:
            key = evaluation_key(state, draw)
            return evaluate(key, rows.agent_of(h), state.agent, env_of(h), num_eval_episodes)

        return jax.vmap(one, in_axes=(ROW_AXES, 0))(state, hypers)

    starting, shapes = rows.starting(init)
    count = rows.shape(jax.ShapeDtypeStruct((), jnp.int32), SHARED)
    hypers = rows.hypers
    training = rows.sharded(train, (STATE, ROWS, SHARED), (STATE, ROWS))
    evaluating = rows.sharded(evaluation, (STATE, ROWS, SHARED), ROWS)
    lowered = {
        "init": starting.lower,
        "train": lambda: jax.jit(training, donate_argnums=0).lower(shapes, hypers, count),
        "evaluate": lambda: jax.jit(evaluating).lower(shapes, hypers, count),
    }
    compiled = compile_parts({part: lowered[part] for part in lowered if part in parts})
    return Program(
        init=lambda: compiled["init"](rows.keys, hypers),
        train=lambda state, updates: compiled["train"](state, hypers, rows.place(jnp.int32(updates), SHARED)),
        evaluate=lambda state, draw=0: compiled["evaluate"](state, hypers, rows.place(jnp.int32(draw), SHARED)),
        agent=group_agent(constructor, group),
        num_rows=rows.num_rows,
        mesh=rows.mesh,
        shapes=shapes,
        compile_seconds=time.perf_counter() - started,
        memory_bytes=memory_of(compiled["train"]) * rows.mesh.size if "train" in compiled else 0,
    )


# How what a program takes and gives is split over the devices: rows, the same for all, and a `TrainState`'s fields.
ROWS, SHARED = P("row"), P()
STATE: Any = TrainState._make(ROWS if axis == 0 else SHARED for axis in ROW_AXES)


class Layout(NamedTuple):
    """How a group's rows lie on the devices.

    Attributes:
      mesh: the devices.
      num_rows: configurations times seeds.
      row: int `[R]`, which row is in each place. Padding repeats the first ones; it is dropped from the metrics.
      keys: each row's key, `[R]`.
      hypers: each row's float hyper-parameters that vary, `[R]`, and its environment's, under `ENV` names.
      agent_of: `agent_of(hypers) -> agent` of one row.
    """

    mesh: Mesh
    num_rows: int
    row: np.ndarray
    keys: Key
    hypers: dict[str, Array]
    agent_of: Callable[[dict[str, Array]], Agent]

    def place(self, tree: PyTree, spec: P) -> PyTree:
        """Puts arrays onto the devices."""
        return jax.device_put(tree, NamedSharding(self.mesh, spec))

    def shape(self, tree: PyTree, spec: P) -> PyTree:
        """Shapes and dtypes as those of arrays that lie so on the devices."""
        sharding = NamedSharding(self.mesh, spec)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

    def sharded(self, function: Callable, in_specs: tuple, out_specs: Any) -> Callable:
        """A function of all rows, of which each device computes its own."""
        # Under a `jit` of its own the function keeps the arrays that it closes over. Without, they become arguments of
        # the map, and jaxlib 0.11 crashes where one of them is empty (brax has such).
        return jax.shard_map(jax.jit(function), mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)

    def starting(self, init: Callable[[Key, dict[str, Array]], TrainState]) -> tuple[Any, TrainState]:
        """The traced `init(keys, hypers)`, and what it returns as shapes on the devices."""
        traced = jax.jit(self.sharded(init, (ROWS, ROWS), STATE)).trace(self.keys, self.hypers)
        fields = zip(traced.out_info, STATE, strict=True)
        return traced, TrainState(*(self.shape(field, spec) for field, spec in fields))


def lay_out(constructor: Constructor, group: Group, run_key: Key, num_seeds: int, devices: Sequence[Any]) -> Layout:
    """Lays the rows of a group, configurations times seeds, over devices; the arguments as of `compile_group`."""
    num_rows = len(group.indices) * num_seeds
    mesh = Mesh(np.array(devices[:num_rows]), ("row",))
    row = np.arange(-(-num_rows // mesh.size) * mesh.size) % num_rows
    keys = seed_keys(run_key, jnp.asarray(row % num_seeds))
    varied = group.traced | {ENV + name: values for name, values in group.env_traced.items()}
    hypers = {name: jnp.asarray(values[row // num_seeds]) for name, values in varied.items()}
    keys, hypers = jax.device_put((keys, hypers), NamedSharding(mesh, ROWS))

    def agent_of(hypers: dict[str, Array]) -> Agent:
        return constructor(**group.static, **{name: hypers[name] for name in group.traced})

    return Layout(mesh, num_rows, row, keys, hypers, agent_of)


# ---------------------------------------------------------------- a state without its devices


def stored_shapes(program: Program) -> TrainState:
    """Shapes and dtypes of what `stored` returns."""
    rows = lambda leaf: jax.ShapeDtypeStruct((program.num_rows, *leaf.shape[1:]), leaf.dtype)  # noqa: E731
    return by_field(rows, lambda leaf: leaf, jax.eval_shape(prng.as_numbers, program.shapes))


def stored(program: Program, state: TrainState) -> TrainState:
    """A training state as NumPy arrays of its own, keys as the integers that they are made of, without the padding.

    It is the same on any number of devices.
    """
    rows = lambda leaf: np.array(np.asarray(leaf)[: program.num_rows])  # noqa: E731
    return by_field(rows, np.array, prng.as_numbers(state))


def placed(program: Program, state: TrainState) -> TrainState:
    """What was stored, on the program's devices: the padding is made anew."""
    row = np.arange(len(program.shapes.key)) % program.num_rows

    def shared(values: Any, like: Any) -> Array:
        return jax.device_put(prng.from_numbers(values, like), like.sharding)

    return by_field(lambda values, like: shared(values[row], like), shared, state, program.shapes)


def by_field(rows: Callable, shared: Callable, *states: TrainState) -> TrainState:
    """Maps one function over the leaves that have rows, and another over the others."""
    fields = zip(ROW_AXES, *states, strict=True)
    return TrainState(*(jax.tree.map(shared if axis is None else rows, *parts) for axis, *parts in fields))


def evaluation_key(state: TrainState, draw: Array) -> Key:
    """The key of one row's evaluation."""
    return jax.random.fold_in(jax.random.fold_in(state.key, EVALUATION + state.step.astype(jnp.uint32)), draw)


def compile_parts(lowered: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Compiles a program's functions at once; each is given as what traces and lowers it."""
    # What runs once need not be fast: on a CPU, where optimising is most of compiling, `init` goes without.
    hasty = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
    # Tracing holds Python's lock and compiling does not, so each is compiled while the next is traced.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        pending = {
            part: pool.submit(lower().compile, compiler_options=hasty if part == "init" else {})
            for part, lower in lowered.items()
        }
    return {part: future.result() for part, future in pending.items()}


def memory_of(compiled: Any) -> int:
    """Bytes that one device needs at the peak of a compiled program, its donated arguments counted once."""
    memory = compiled.memory_analysis()
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return used - memory.alias_size_in_bytes
