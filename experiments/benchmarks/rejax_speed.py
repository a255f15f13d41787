"""Times rejax on the benchmark's configuration. Runs in a virtual environment of its own, since its pins differ:

    python3.11 -m venv rejax-venv && rejax-venv/bin/pip install rejax==0.1.3 gymnax==0.0.9
    jaxrl bench --peers rejax "rejax-venv/bin/python experiments/benchmarks/rejax_speed.py"

Prints one line of JSON: environment steps a second of all seeds together, and the seconds that compiling took.
"""

import argparse
import json
import time

import jax
import jax.numpy as jnp

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument(
    "--agent", choices=["a2c", "ppo", "dqn", "td3", "sac"], required=True, help="it has no a2c, and times ppo"
)
parser.add_argument("--seeds", type=int, required=True)
parser.add_argument("--num-steps", type=int, required=True, help="environment steps of each seed")
parser.add_argument("--repeats", type=int, default=3, help="timed runs, of which the fastest counts")
options = parser.parse_args()

import rejax  # noqa: E402

SHARED = {
    "env": "Pendulum-v1" if options.agent in ("td3", "sac") else "CartPole-v1",
    "total_timesteps": options.num_steps,
    "eval_freq": options.num_steps,
    "skip_initial_evaluation": True,
    "learning_rate": 3e-4,
}
if options.agent in ("a2c", "ppo"):
    network = {"activation": "tanh", "hidden_layer_sizes": (64, 64)}
    algorithm = rejax.PPO.create(
        num_envs=4, num_steps=128, num_epochs=4, num_minibatches=4, max_grad_norm=0.5, agent_kwargs=network, **SHARED
    )
elif options.agent in ("td3", "sac"):
    # Its networks have two layers of 64 units, which is what we take, too.
    memory = {"buffer_size": 100_000, "fill_buffer": 256, "batch_size": 256}
    networks = {"actor_kwargs": {"activation": "relu"}, "critic_kwargs": {"activation": "relu"}}
    if options.agent == "td3":
        algorithm = rejax.TD3.create(num_envs=1, policy_delay=2, **networks, **memory, **SHARED)
    else:
        algorithm = rejax.SAC.create(num_envs=1, agent_kwargs={"activation": "relu"}, **memory, **SHARED)
else:
    # Its Q-network has two layers of 64 units, whatever is asked for.
    algorithm = rejax.DQN.create(
        num_envs=1,
        buffer_size=10_000,
        fill_buffer=128,
        batch_size=128,
        target_update_freq=500,
        polyak=0.0,
        max_grad_norm=10.0,
        ddqn=False,
        agent_kwargs={"activation": "relu"},
        **SHARED,
    )
algorithm = algorithm.replace(eval_callback=lambda algorithm, state, key: jnp.float32(0))

keys = jax.random.split(jax.random.PRNGKey(0), options.seeds)
started = time.perf_counter()
compiled = jax.jit(jax.vmap(algorithm.train)).lower(keys).compile()
compile_seconds = time.perf_counter() - started
times = []
for _ in range(options.repeats):
    started = time.perf_counter()
    jax.block_until_ready(compiled(keys))
    times.append(time.perf_counter() - started)
print(
    json.dumps({"steps_per_second": options.num_steps * options.seeds / min(times), "compile_seconds": compile_seconds})
)
