"""Times Stable-Baselines3, or sbx, on the benchmark's configuration. Runs in a virtual environment of its own:

    python3.11 -m venv sb3-venv && sb3-venv/bin/pip install stable-baselines3==2.9.2 sbx-rl==0.28.0
    jaxrl bench --agents sac td3 --seeds 1 \
      --peers sb3 "sb3-venv/bin/python experiments/benchmarks/sb3_speed.py" \
      sbx "sb3-venv/bin/python experiments/benchmarks/sb3_speed.py --library sbx"

Prints one line of JSON: environment steps a second, of one seed, and the seconds that the first gradient steps took
over the others; null for several seeds, which they do not train side by side. They are slow, so fewer steps are timed.
"""

import argparse
import json
import time

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--library", choices=["sb3", "sbx"], default="sb3")
parser.add_argument("--agent", choices=["a2c", "ppo", "dqn", "td3", "sac"], required=True)
parser.add_argument("--seeds", type=int, required=True)
parser.add_argument("--num-steps", type=int, required=True, help="environment steps")
parser.add_argument("--repeats", type=int, default=3, help="timed runs, of which the fastest counts")
options = parser.parse_args()

MOST_STEPS = 2_000
WARMUP = 256

if options.seeds > 1 or options.agent not in ("td3", "sac"):
    print("null")
    raise SystemExit

if options.library == "sb3":
    import stable_baselines3 as library
    from torch.nn import ReLU as relu
else:
    import sbx as library
    from flax.linen import relu

import gymnasium  # noqa: E402

learner = getattr(library, options.agent.upper())(
    "MlpPolicy",
    gymnasium.make("Pendulum-v1"),
    learning_rate=3e-4,
    buffer_size=100_000,
    learning_starts=WARMUP,
    batch_size=256,
    train_freq=1,
    gradient_steps=1,
    policy_kwargs={"net_arch": [64, 64], "activation_fn": relu},
)
steps = min(options.num_steps, MOST_STEPS)
started = time.perf_counter()
learner.learn(WARMUP + 10)
first = time.perf_counter() - started
times = []
for _ in range(options.repeats):
    started = time.perf_counter()
    learner.learn(steps, reset_num_timesteps=False)
    times.append(time.perf_counter() - started)
print(json.dumps({"steps_per_second": steps / min(times), "compile_seconds": first}))
