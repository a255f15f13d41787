"""Times flashbax's prioritized buffer as `jaxrl bench` times ours. Runs in a virtual environment of its own:

    python3.11 -m venv flashbax-venv && flashbax-venv/bin/pip install flashbax==0.1.3
    jaxrl bench --replay-peers flashbax "flashbax-venv/bin/python experiments/benchmarks/flashbax_speed.py"

Prints one line of JSON: steps a second, in each of which a transition is added, a batch drawn, and its priorities
changed; and the seconds that compiling took. The buffer is full, and written in place.
"""

import argparse
import json
import time

import flashbax
import jax
import jax.numpy as jnp

parser = argparse.ArgumentParser(description=__doc__)
for name in ("--capacity", "--batch-size", "--num-steps"):
    parser.add_argument(name, type=int, required=True)
parser.add_argument("--repeats", type=int, default=3, help="timed runs, of which the fastest counts")
options = parser.parse_args()

buffer = flashbax.make_prioritised_flat_buffer(
    max_length=options.capacity, min_length=1, sample_batch_size=options.batch_size, priority_exponent=0.6
)


def transition(key):
    zero = jnp.float32(0)
    obs = jax.random.normal(key, (4,))
    return {"obs": obs, "action": jnp.int32(0), "reward": zero, "terminated": zero > 0, "truncated": zero > 0}


def one(i, carry):
    state, drawn, key = carry
    new_key, sample_key, error_key = jax.random.split(jax.random.fold_in(key, i), 3)
    state = buffer.add(state, transition(new_key))
    sample = buffer.sample(state, sample_key)
    drawn += sum(jnp.sum(x["obs"]) for x in sample.experience) + jnp.sum(sample.probabilities)
    errors = jax.random.uniform(error_key, (options.batch_size,))
    return buffer.set_priorities(state, sample.indices, errors), drawn, key


def many(state, key):
    return jax.lax.fori_loop(0, options.num_steps, one, (state, jnp.float32(0), key))[:2]


def fill(state):
    return jax.lax.fori_loop(0, options.capacity, lambda i, s: buffer.add(s, transition(jax.random.key(0))), state)


key = jax.random.key(0)
state = jax.jit(fill)(buffer.init(transition(key)))
started = time.perf_counter()
compiled = jax.jit(many, donate_argnums=0).lower(state, key).compile()
compile_seconds = time.perf_counter() - started
times = []
for _ in range(options.repeats + 1):  # the first is a rehearsal
    started = time.perf_counter()
    state, _ = jax.block_until_ready(compiled(state, key))
    times.append(time.perf_counter() - started)
print(json.dumps({"steps_per_second": options.num_steps / min(times[1:]), "compile_seconds": compile_seconds}))
