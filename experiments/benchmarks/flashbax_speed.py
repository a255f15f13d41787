"""Times flashbax's prioritized buffer as `jaxrl bench` times ours. Runs in a virtual environment of its own:

    python3.11 -m venv flashbax-venv && flashbax-venv/bin/pip install flashbax==0.1.3
    jaxrl bench --replay-peers flashbax "flashbax-venv/bin/python experiments/benchmarks/flashbax_speed.py"

Prints one line of JSON: steps a second, in each of which a transition is added, a batch drawn, and its priorities
changed; and the seconds that compiling took. The buffer is full, and written in place.

With --called, each of the three is compiled by itself and called from Python, as in flashbax's own examples; without
it they are in one compiled loop, as ours are.
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
parser.add_argument("--called", action="store_true", help="call each function from Python")
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


def in_one_loop(state, key):
    compiled = jax.jit(many, donate_argnums=0).lower(state, key).compile()
    return lambda state: compiled(state, key)[0]


def called_from_python(state, key):
    add, change = (jax.jit(f, donate_argnums=0) for f in (buffer.add, buffer.set_priorities))
    draw = jax.jit(buffer.sample)
    # Made ahead: they are no part of what is timed.
    new, errors, keys = transition(key), jnp.ones(options.batch_size), list(jax.random.split(key, options.num_steps))

    def run(state, keys=keys):
        for one_key in keys:
            state = add(state, new)
            state = change(state, draw(state, one_key).indices, errors)
        return state

    run(jax.tree.map(jnp.copy, state), keys[:1])  # compiles
    return run


key = jax.random.key(0)
state = jax.jit(fill)(buffer.init(transition(key)))
started = time.perf_counter()
run = (called_from_python if options.called else in_one_loop)(state, key)
compile_seconds = time.perf_counter() - started
times = []
for _ in range(options.repeats + 1):  # the first is a rehearsal
    started = time.perf_counter()
    state = jax.block_until_ready(run(state))
    times.append(time.perf_counter() - started)
print(json.dumps({"steps_per_second": options.num_steps / min(times[1:]), "compile_seconds": compile_seconds}))
