"""Speed, compile time and memory of agents and of prioritized replay, on this machine, side by side with others'.

Every measurement runs in a process of its own, so that none inherits another's memory or compiled programs, and the two
frameworks take turns. What is timed is a whole training run, initialisation included and compilation not.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import sys
import time
from typing import Any

from jaxrl import checks

# The configuration that is timed, beside the peers' the same: CartPole-v1, two layers of 64 units.
SETTINGS: dict[str, dict[str, Any]] = {
    "a2c": {"num_envs": 4, "rollout_length": 128, "activation": "tanh"},
    "ppo": {"num_envs": 4, "rollout_length": 128, "num_epochs": 4, "num_minibatches": 4, "activation": "tanh"},
    "dqn": {"replay_size": 10_000, "batch_size": 128, "warmup_steps": 128, "rollout_length": 1, "activation": "relu"},
}
ENV = "CartPole-v1"
TOTAL_STEPS = {"a2c": 6_400_000, "ppo": 3_200_000, "dqn": 80_000}  # of all seeds together
STEPS_PER_SEED = {"a2c": (10_240, 819_200), "ppo": (10_240, 409_600), "dqn": (2_048, 20_480)}  # at least, at most
BATCH_SIZES = {2**14: 64, 2**17: 256, 2**20: 256}  # of prioritized replay, by capacity
REPLAY_STEPS = 2_000


def bench(
    *,
    agents: tuple[str, ...] = ("a2c", "ppo", "dqn"),
    seeds: tuple[int, ...] = (1, 8, 16, 32, 128, 512),
    peer: str | None = None,
    peer_name: str = "rejax",
    peer_seeds: tuple[int, ...] = (1, 16, 32),
    replays: tuple[int, ...] = tuple(BATCH_SIZES),
    replay_peer: str | None = None,
    replay_peer_name: str = "flashbax",
    rounds: int = 2,
    repeats: int = 2,
    devices: int = 0,
    out: pathlib.Path | None = None,
) -> int:
    """Measure A2C, PPO and DQN on CartPole-v1 (steps a second, compile time, peak memory), and prioritized replay.

    Args:
      agents: which agents.
      seeds: how many seeds side by side, one measurement for each number.
      peer: command that times another framework; it is given --agent, --seeds, --num-steps and --repeats, and prints
        steps_per_second and compile_seconds as a line of JSON. experiments/benchmarks/rejax_speed.py is one.
      peer_name: what the table calls it.
      peer_seeds: numbers of seeds at which the other framework is measured, too.
      replays: capacities of prioritized replay, of which a step is timed: a transition added, a batch drawn, and its
        priorities changed; any of 16384, 131072 and 1048576.
      replay_peer: command that times another replay; it is given --capacity, --batch-size, --num-steps and --repeats.
        experiments/benchmarks/flashbax_speed.py is one.
      replay_peer_name: what the table calls it.
      rounds: how often the two take turns.
      repeats: timed runs each time; the fastest of all rounds counts.
      devices: CPU devices to spread the seeds over; 0 is one for each core. Of accelerators all are used.
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
    for name, command in {"peer": peer, "replay_peer": replay_peer}.items():
        if command is not None and not (shlex.split(command) and shutil.which(shlex.split(command)[0])):
            raise checks.JaxrlError(
                f"bench: {name}={command!r} is not accepted; it must begin with a program that is there"
            )
    checks.integer("bench", rounds=rounds, repeats=repeats, **{f"seeds[{i}]": n for i, n in enumerate(seeds)})
    console = Console()
    tasks = [(agent, number) for agent in agents for number in seeds] + [("replay", number) for number in replays]
    rows, replay_rows = [], []
    for task, number in track(tasks, description="measuring", console=console):
        if task == "replay":
            what = {"capacity": number, "batch_size": BATCH_SIZES[number], "num_steps": REPLAY_STEPS}
            replay_rows.append(what | _compare(what, replay_peer, rounds, repeats))
        else:
            low, high = STEPS_PER_SEED[task]
            steps = min(max(TOTAL_STEPS[task] // number, low), high)
            what = {"agent": task, "seeds": number, "num_steps": steps}
            rows.append(what | _compare(what, peer if number in peer_seeds else None, rounds, repeats, devices))
    report = {"machine": machine(), "env": ENV, "settings": SETTINGS}
    if rows:
        console.print(_table(rows, peer_name))
    if replay_rows:
        console.print(_replay_table(replay_rows, replay_peer_name))
    report |= {"peer": peer_name if peer else None, "rows": rows}
    report |= {"replay_peer": replay_peer_name if replay_peer else None, "replay_rows": replay_rows}
    if out is not None:
        from jaxrl.files import write_json

        write_json(out, report, "bench")
        console.print(f"  {out}", highlight=False)
    return 0


def _compare(
    what: dict[str, Any], peer: str | None, rounds: int, repeats: int, devices: int | None = None
) -> dict[str, Any]:
    """Measures a row of the table, and the peer's beside it, taking turns."""
    options = [w for name, value in what.items() for w in (f"--{name.replace('_', '-')}", str(value))]
    options += ["--repeats", str(repeats)]
    place = [] if devices is None else ["--devices", str(devices)]
    ours = [sys.executable, "-m", "jaxrl.bench", *place, *options]
    measured: dict[str, list[dict]] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        measured["ours"].append(_measure(ours))
        if peer:
            measured["theirs"].append(_measure([*shlex.split(peer), *options]))
    row = _best(measured["ours"])
    if peer:
        row["peer"] = _best(measured["theirs"])
        row["ratio"] = row["steps_per_second"] / row["peer"]["steps_per_second"]
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
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "jax": importlib.metadata.version("jax"),
    }


def measure(agent: str, seeds: int, num_steps: int, repeats: int) -> dict[str, Any]:
    """Times one training run in this process: `num_steps` environment steps of each of the seeds."""
    import jax

    from jaxrl.agents import constructor
    from jaxrl.envs import make
    from jaxrl.loop import num_updates, steps_per_update
    from jaxrl.program import compile_group, plan

    make_agent = constructor(agent)
    [group] = plan(make_agent, SETTINGS[agent]).groups
    program = compile_group(
        make_agent, group, make(ENV), run_key=jax.random.key(0), num_seeds=seeds, num_eval_episodes=1,
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
    spec = Spec(ENV, box(-1, 1, (4,)), Discrete(2), max_steps=500)
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


def _measure(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise checks.JaxrlError(f"{shlex.join(command)} failed:\n{done.stderr.strip()[-2000:]}")
    try:
        measured = json.loads(done.stdout.strip().splitlines()[-1])
        return measured | {name: float(measured[name]) for name in ("steps_per_second", "compile_seconds")}
    except (IndexError, KeyError, ValueError, TypeError) as error:
        raise checks.JaxrlError(
            f"{shlex.join(command)} must print a line of JSON with steps_per_second and compile_seconds, not "
            f"{done.stdout.strip()[-200:]!r}"
        ) from error


def _best(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """The fastest of several measurements, with the shortest compile time of them."""
    best = max(measured, key=lambda m: m["steps_per_second"])
    return best | {"compile_seconds": min(m["compile_seconds"] for m in measured)}


def _table(rows: list[dict[str, Any]], peer_name: str) -> Any:
    from rich.table import Table

    table = Table(title=f"{ENV}, environment steps a second of all seeds together", box=None)
    for name in ("agent", "seeds", "steps/s", "compile", "memory", f"{peer_name} steps/s", "compile", "ratio"):
        table.add_column(name, justify="right")
    for row in rows:
        ours, peer = _speed(row), _speed(row["peer"]) if "peer" in row else ("", "")
        memory, ratio = f"{row['memory_bytes'] / 2**20:,.1f} MiB", f"{row['ratio']:.2f}" if "ratio" in row else ""
        table.add_row(row["agent"], str(row["seeds"]), *ours, memory, *peer, ratio)
    return table


def _replay_table(rows: list[dict[str, Any]], peer_name: str) -> Any:
    from rich.table import Table

    table = Table(title="Prioritized replay: a transition added, a batch drawn, its priorities changed", box=None)
    for name in ("capacity", "batch", "ms a step", f"{peer_name} ms", "ratio"):
        table.add_column(name, justify="right")
    for row in rows:
        times = [f"{1000 / measured['steps_per_second']:.3f}" for measured in (row, row.get("peer")) if measured]
        ratio = [f"{row['ratio']:.1f}"] if "ratio" in row else []
        table.add_row(f"{row['capacity']:,}", str(row["batch_size"]), *times, *ratio)
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

    from jaxrl.folder import use_devices

    use_devices(options.pop("devices"))
    print(json.dumps(measure(**options) if "agent" in options else measure_replay(**options)))


if __name__ == "__main__":
    _main()
