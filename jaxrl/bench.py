"""Speed, compile time and memory over numbers of seeds, on this machine, side by side with another framework.

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
    "ppo": {"num_envs": 4, "rollout_length": 128, "num_epochs": 4, "num_minibatches": 4, "activation": "tanh"},
    "dqn": {"replay_size": 10_000, "batch_size": 128, "warmup_steps": 128, "rollout_length": 1, "activation": "relu"},
}
ENV = "CartPole-v1"
TOTAL_STEPS = {"ppo": 3_200_000, "dqn": 80_000}  # of all seeds together
STEPS_PER_SEED = {"ppo": (10_240, 409_600), "dqn": (2_048, 20_480)}  # at least, at most


def bench(
    *,
    agents: tuple[str, ...] = ("ppo", "dqn"),
    seeds: tuple[int, ...] = (1, 8, 16, 32, 128, 512),
    peer: str | None = None,
    peer_name: str = "rejax",
    peer_seeds: tuple[int, ...] = (1, 16, 32),
    rounds: int = 2,
    repeats: int = 2,
    devices: int = 0,
    out: pathlib.Path | None = None,
) -> int:
    """Measure environment steps a second, compile time and peak memory of PPO and DQN on CartPole-v1.

    Args:
      agents: which agents.
      seeds: how many seeds side by side, one measurement for each number.
      peer: command that times another framework; it is given --agent, --seeds, --num-steps and --repeats, and prints
        steps_per_second and compile_seconds as a line of JSON. experiments/benchmarks/rejax_speed.py is one.
      peer_name: what the table calls it.
      peer_seeds: numbers of seeds at which the other framework is measured, too.
      rounds: how often the two take turns.
      repeats: timed runs each time; the fastest of all rounds counts.
      devices: CPU devices to spread the seeds over; 0 is one for each core. Of accelerators all are used.
      out: JSON file to write.
    """
    from rich.console import Console
    from rich.progress import track

    for agent in agents:
        checks.one_of("bench", SETTINGS, agents=agent)
    for name, values in {"agents": agents, "seeds": seeds}.items():
        if not values:
            raise checks.JaxrlError(f"bench: {name} must hold one value at least")
    if peer is not None and not (shlex.split(peer) and shutil.which(shlex.split(peer)[0])):
        raise checks.JaxrlError(f"bench: peer={peer!r} is not accepted; it must begin with a program that is there")
    checks.integer("bench", rounds=rounds, repeats=repeats, **{f"seeds[{i}]": n for i, n in enumerate(seeds)})
    console = Console()
    rows = []
    for agent, number in track([(a, s) for a in agents for s in seeds], description="measuring", console=console):
        ours = [sys.executable, "-m", "jaxrl.bench", "--devices", str(devices)]
        theirs = shlex.split(peer) if peer and number in peer_seeds else None
        low, high = STEPS_PER_SEED[agent]
        num_steps = min(max(TOTAL_STEPS[agent] // number, low), high)
        arguments = ["--agent", agent, "--seeds", number, "--num-steps", num_steps, "--repeats", repeats]
        measured: dict[str, list[dict]] = {"ours": [], "theirs": []}
        for _ in range(rounds):
            measured["ours"].append(_measure([*ours, *map(str, arguments)]))
            if theirs:
                measured["theirs"].append(_measure([*theirs, *map(str, arguments)]))
        row = {"agent": agent, "seeds": number, "num_steps": num_steps} | _best(measured["ours"])
        if theirs:
            row["peer"] = _best(measured["theirs"])
            row["ratio"] = row["steps_per_second"] / row["peer"]["steps_per_second"]
        rows.append(row)
    console.print(_table(rows, peer_name))
    report = {"machine": machine(), "env": ENV, "settings": SETTINGS, "peer": peer_name if peer else None, "rows": rows}
    if out is not None:
        from jaxrl.files import write_json

        write_json(out, report, "bench")
        console.print(f"  {out}", highlight=False)
    return 0


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


def _speed(measured: dict[str, Any]) -> tuple[str, str]:
    return f"{measured['steps_per_second']:,.0f}", f"{measured['compile_seconds']:.1f} s"


def _main():
    parser = argparse.ArgumentParser(description="One measurement; prints a line of JSON.")
    parser.add_argument("--agent", required=True)
    for name in ("--seeds", "--num-steps", "--repeats"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--devices", type=int, default=0)
    options = vars(parser.parse_args())

    from jaxrl.folder import use_devices

    use_devices(options.pop("devices"))
    print(json.dumps(measure(**options)))


if __name__ == "__main__":
    _main()
