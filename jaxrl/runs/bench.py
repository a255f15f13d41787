"""Speed, compile time and memory of agents and of prioritized replay, on this machine, side by side with others'.

Every measurement runs in a process of its own, so that none inherits another's memory or compiled programs, and the two
frameworks take turns. What is timed is a whole training run, initialisation included and compilation not. The process
that starts them does without JAX, which is imported where it is measured.
"""

from __future__ import annotations

import argparse
import datetime
import json
import pathlib
import platform
import shlex
import shutil
import subprocess
import sys
import time
from typing import Any

from jaxrl import checks
from jaxrl.files import write_json
from jaxrl.runs.devices import num_cores, use_devices

# The configurations that are timed, beside the peers' the same; of discrete actions CartPole, of continuous Pendulum.
OFF_POLICY = {"batch_size": 256, "warmup_steps": 256, "replay_size": 100_000, "hidden_sizes": (64, 64)}
SETTINGS: dict[str, dict[str, Any]] = {
    "a2c": {"num_envs": 4, "rollout_length": 128, "activation": "tanh"},
    "ppo": {"num_envs": 4, "rollout_length": 128, "num_epochs": 4, "num_minibatches": 4, "activation": "tanh"},
    "dqn": {"replay_size": 10_000, "batch_size": 128, "warmup_steps": 128, "rollout_length": 1, "activation": "relu"},
    "td3": OFF_POLICY,
    "sac": OFF_POLICY,
}
ENVS = {agent: "Pendulum-v1" if agent in ("td3", "sac") else "CartPole-v1" for agent in SETTINGS}
# Of all seeds together; and of each seed at least and at most.
TOTAL_STEPS = {"a2c": 6_400_000, "ppo": 3_200_000, "dqn": 80_000, "td3": 32_768, "sac": 32_768}
STEPS_PER_SEED = {
    "a2c": (10_240, 819_200),
    "ppo": (10_240, 409_600),
    "dqn": (2_048, 20_480),
    "td3": (2_048, 8_192),
    "sac": (2_048, 8_192),
}
BATCH_SIZES = {2**14: 64, 2**17: 256, 2**20: 256}  # of prioritized replay, by capacity
REPLAY_STEPS = 2_000


def bench(
    *,
    agents: tuple[str, ...] = tuple(SETTINGS),
    seeds: tuple[int, ...] = (1, 8, 16, 32, 128, 512),
    peers: dict[str, str] | None = None,
    peer_seeds: tuple[int, ...] = (1, 16, 32),
    replays: tuple[int, ...] = tuple(BATCH_SIZES),
    replay_peers: dict[str, str] | None = None,
    rounds: int = 2,
    repeats: int = 2,
    devices: int = 0,
    out: pathlib.Path | None = None,
) -> int:
    """Measure agents (steps a second, compile time, peak memory) and prioritized replay, beside others'.

    A2C, PPO and DQN learn CartPole-v1, TD3 and SAC Pendulum-v1.

    Args:
      agents: which agents.
      seeds: how many seeds side by side, one measurement for each number.
      peers: other frameworks, by name the command that times one; it is given --agent, --seeds, --num-steps and
        --repeats, and prints steps_per_second and compile_seconds as a line of JSON, or null where it has no such
        agent or number of seeds. experiments/benchmarks/ has those of rejax and Stable-Baselines3.
      peer_seeds: numbers of seeds at which the other frameworks are measured, too.
      replays: capacities of prioritized replay, of which a step is timed: a transition added, a batch drawn, and its
        priorities changed; any of 16384, 131072 and 1048576.
      replay_peers: the same of other replays; the command is given --capacity, --batch-size, --num-steps and --repeats.
        experiments/benchmarks/flashbax_speed.py is one.
      rounds: how often all take turns.
      repeats: timed runs each time; the fastest of all rounds counts.
      devices: CPU devices to spread the seeds over; 0 is one for each core, if there are as many seeds. Of accelerators
        all are used.
      out: JSON file to write.
    """
    from rich.console import Console
    from rich.progress import track

    for agent in agents:
        checks.one_of("bench", SETTINGS, agents=agent)
    for capacity in replays:
        checks.one_of("bench", BATCH_SIZES, replays=capacity)
    if not (agents and seeds) and not replays:
        raise checks.JaxrlError("bench: agents and seeds, or replays, must hold one value at least")
    peers, replay_peers = peers or {}, replay_peers or {}
    for argument, commands in {"peers": peers, "replay_peers": replay_peers}.items():
        for name, command in commands.items():
            if not (shlex.split(command) and shutil.which(shlex.split(command)[0])):
                raise checks.JaxrlError(
                    f"bench: {argument}: {name}={command!r} is not accepted; it must begin with a program that is there"
                )
    checks.integer("bench", rounds=rounds, repeats=repeats, **{f"seeds[{i}]": n for i, n in enumerate(seeds)})
    console = Console()
    tasks = [(agent, number) for agent in agents for number in seeds] + [("replay", number) for number in replays]
    rows, replay_rows = [], []
    for task, number in track(tasks, description="measuring", console=console):
        if task == "replay":
            what = {"capacity": number, "batch_size": BATCH_SIZES[number], "num_steps": REPLAY_STEPS}
            replay_rows.append(what | _compare(what, replay_peers, rounds, repeats))
        else:
            low, high = STEPS_PER_SEED[task]
            steps = min(max(TOTAL_STEPS[task] // number, low), high)
            what = {"agent": task, "seeds": number, "num_steps": steps}
            rows.append(what | _compare(what, peers if number in peer_seeds else {}, rounds, repeats, devices))
    if rows:
        console.print(_table(rows))
    if replay_rows:
        console.print(_replay_table(replay_rows))
    report = {"machine": machine(), "envs": ENVS, "settings": SETTINGS, "rows": rows, "replay_rows": replay_rows}
    if out is not None:
        write_json(out, report, "bench")
        console.print(f"  {out}", highlight=False)
    return 0


def _compare(
    what: dict[str, Any], peers: dict[str, str], rounds: int, repeats: int, devices: int | None = None
) -> dict[str, Any]:
    """Measures a row of the table, and the peers' beside it, taking turns."""
    options = [w for name, value in what.items() for w in (f"--{name.replace('_', '-')}", str(value))]
    options += ["--repeats", str(repeats)]
    place = [] if devices is None else ["--devices", str(devices)]
    commands = {"jaxrl": [sys.executable, "-m", "jaxrl.runs.bench", *place]}
    commands |= {name: shlex.split(command) for name, command in peers.items()}
    measured: dict[str, list[Any]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            measured[name].append(_measure([*command, *options]))
    row = _best(measured.pop("jaxrl"))
    there = {name: _best(runs) for name, runs in measured.items() if None not in runs}
    speed = row["steps_per_second"]
    row["peers"] = {name: best | {"ratio": speed / best["steps_per_second"]} for name, best in there.items()}
    return row


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import importlib.metadata

    model = platform.processor()
    cpu = pathlib.Path("/proc/cpuinfo")
    if cpu.exists():
        names = [
            line.partition(":")[2].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return {
        "date": datetime.date.today().isoformat(),
        "processor": model,
        "cores": num_cores(),
        "python": platform.python_version(),
        "jax": importlib.metadata.version("jax"),
    }


def measure(agent: str, seeds: int, num_steps: int, repeats: int) -> dict[str, Any]:
    """Times one training run in this process: `num_steps` environment steps of each of the seeds."""
    import jax

    from jaxrl.agents import constructor
    from jaxrl.envs import make
    from jaxrl.loop import num_updates, steps_per_update
    from jaxrl.runs.program import compile_group, plan

    make_agent = constructor(agent)
    [group] = plan(make_agent, SETTINGS[agent]).groups
    env: Any = make(ENVS[agent])  # none is on the host
    program = compile_group(
        make_agent, group, env, run_key=jax.random.key(0), num_seeds=seeds, num_eval_episodes=1,
        parts=("init", "train"),
    )  # fmt: skip
    updates = num_updates(program.agent, num_steps)
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(program.train(program.init(), updates))
        times.append(time.perf_counter() - started)
    return {
        "steps_per_second": seeds * updates * steps_per_update(program.agent) / min(times),
        "compile_seconds": program.compile_seconds,
        "memory_bytes": program.memory_bytes,
        "devices": program.mesh.size,
        "device": program.mesh.devices.flat[0].device_kind,
    }


def measure_replay(capacity: int, batch_size: int, num_steps: int, repeats: int) -> dict[str, Any]:
    """Times steps of a full prioritized replay: a transition is added, a batch drawn, and its priorities changed.

    Transitions are CartPole's; the errors are random numbers.
    """
    import jax
    import jax.numpy as jnp

    from jaxrl.prng import unrolled
    from jaxrl.replay import prioritized
    from jaxrl.types import Discrete, Spec, Transition, box

    replay = prioritized(capacity=capacity, batch_size=batch_size)
    spec = Spec("CartPole-v1", box(-1, 1, (4,)), Discrete(2), max_steps=500)
    flag, number = jnp.zeros((1, 1), bool), jnp.zeros((1, 1))

    def transition(key: Any) -> Transition:
        obs = jax.random.normal(key, (1, 1, 4))
        return Transition(obs, flag.astype(jnp.int32), number, flag, flag, obs, {})

    def one(i: Any, carry: tuple) -> tuple:
        state, drawn, key = carry
        new_key, sample_key, error_key = jax.random.split(jax.random.fold_in(key, i), 3)
        step = capacity + i
        state = replay.add(state, transition(new_key), step)
        sample = replay.sample(state, sample_key, step + 1)
        drawn += sum(jnp.sum(x) for x in jax.tree.leaves((sample.steps.obs, sample.steps.next_obs, sample.weights)))
        return replay.update(state, sample.indices, jax.random.uniform(error_key, (batch_size,))), drawn, key

    def many(state: Any, key: Any, steps: int) -> tuple:
        return jax.lax.fori_loop(0, steps, one, (state, jnp.float32(0), unrolled(key)))[:2]

    key = jax.random.key(0)
    state = replay.init(transition(key), spec)
    started = time.perf_counter()
    compiled = jax.jit(many, donate_argnums=0).lower(state, key, num_steps).compile()
    compile_seconds = time.perf_counter() - started
    state = jax.jit(jax.lax.fori_loop, static_argnums=2)(
        0, capacity, lambda i, state: replay.add(state, transition(key), i), state
    )
    times = []
    for _ in range(repeats + 1):  # the first is a rehearsal
        started = time.perf_counter()
        state, _ = jax.block_until_ready(compiled(state, key, num_steps))
        times.append(time.perf_counter() - started)
    return {"steps_per_second": num_steps / min(times[1:]), "compile_seconds": compile_seconds}


def _measure(command: list[str]) -> dict[str, Any] | None:
    """What a command printed of its measurement; None where it has none to make."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise checks.JaxrlError(f"{shlex.join(command)} failed:\n{done.stderr.strip()[-2000:]}")
    try:
        measured = json.loads(done.stdout.strip().splitlines()[-1])
        return measured and measured | {name: float(measured[name]) for name in ("steps_per_second", "compile_seconds")}
    except (IndexError, KeyError, ValueError, TypeError) as error:
        raise checks.JaxrlError(
            f"{shlex.join(command)} must print a line of JSON with steps_per_second and compile_seconds, not "
            f"{done.stdout.strip()[-200:]!r}"
        ) from error


def _best(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """The fastest of several measurements, with the shortest compile time of them."""
    best = max(measured, key=lambda m: m["steps_per_second"])
    return best | {"compile_seconds": min(m["compile_seconds"] for m in measured)}


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(title="environment steps a second of all seeds together", box=None)
    for name in ("agent", "env", "seeds", "", "steps/s", "compile", "memory", "ratio"):
        table.add_column(name, justify="left" if name in ("agent", "env", "") else "right")
    for row in rows:
        what = (row["agent"], ENVS[row["agent"]], str(row["seeds"]))
        table.add_row(*what, "jaxrl", *_speed(row), f"{row['memory_bytes'] / 2**20:,.1f} MiB", "")
        for name, peer in row["peers"].items():
            table.add_row("", "", "", name, *_speed(peer), "", f"{peer['ratio']:.2f}")
    return table


def _replay_table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(title="Prioritized replay: a transition added, a batch drawn, its priorities changed", box=None)
    for name in ("capacity", "batch", "", "ms a step", "ratio"):
        table.add_column(name, justify="left" if not name else "right")
    for row in rows:
        what = (f"{row['capacity']:,}", str(row["batch_size"]))
        table.add_row(*what, "jaxrl", f"{1000 / row['steps_per_second']:.3f}", "")
        for name, peer in row["peers"].items():
            table.add_row("", "", name, f"{1000 / peer['steps_per_second']:.3f}", f"{peer['ratio']:.1f}")
    return table


def _speed(measured: dict[str, Any]) -> tuple[str, str]:
    return f"{measured['steps_per_second']:,.0f}", f"{measured['compile_seconds']:.1f} s"


def _main():
    parser = argparse.ArgumentParser(description="One measurement; prints a line of JSON.")
    parser.add_argument("--agent")
    for name in ("--seeds", "--capacity", "--batch-size", "--num-steps", "--repeats"):
        parser.add_argument(name, type=int)
    parser.add_argument("--devices", type=int, default=0)
    options = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}

    from jaxrl.agents import constructor

    devices = options.pop("devices")
    if "agent" not in options:
        print(json.dumps(measure_replay(**options)))
        return
    agent = options["agent"]
    _, threads = use_devices(constructor(agent), SETTINGS[agent], options["seeds"], devices)
    print(json.dumps(measure(**options) | {"threads": threads}))


if __name__ == "__main__":
    _main()
