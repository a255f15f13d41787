"""What a number means does not depend on whether it is traced, as a sweep traces its axes: 0 first of all.

Many arguments give 0 a meaning of its own, off or unchanged. Code that asks `if x:` of a number cannot ask it of a
tracer, and what it does instead must come to the same. All arguments that accept a 0 have it at once here, but gamma,
with which nothing would be left to learn from what follows.
"""

import jax
import numpy as np
import pytest

from jaxrl import JaxrlError, make, train
from jaxrl.agents import AGENTS
from jaxrl.constructors import lineage, parameters

# A preset is another constructor with other defaults.
CONSTRUCTORS = {name: make_agent for name, make_agent in AGENTS.items() if lineage(make_agent) == [make_agent]}
SMALL = {
    "hidden_sizes": (3,), "stream_sizes": (3,), "num_envs": 4, "rollout_length": 4, "num_minibatches": 2,
    "num_epochs": 2, "replay_size": 64, "batch_size": 4, "warmup_steps": 8, "replay_ratio": 0.25,
    "baseline_num_steps": 2, "baseline_batch_size": 4, "cg_iterations": 2, "backtrack_steps": 2, "num_elites": 2,
    "num_workers": 2, "anneal_steps": 100, "final_temperature": 0.5,
}  # fmt: skip
OPTIONS = {  # with which more of the numbers count
    "acer": {"replay_ratio": 1},
    "dqn": {"replay": "prioritized", "double": True},
    "nfq": {"num_iterations": 1, "num_gradient_steps": 2, "batch_size": 0},
    "r2d2": {"burn_in": 1, "unroll": 3, "cell_size": 3, "replay": "prioritized"},
    "sac": {"temperature": "fixed", "temperature_steps": 50},
    "td3": {"noise": "ornstein_uhlenbeck", "noise_decay_steps": 40},
}
ENVS = [
    make("jaxrl/Probe-policy-v0"),
    make("jaxrl/Probe-policy-v0", continuous=True),
    make("jaxrl/Corridor-v0"),
]


def small(name):
    """The constructor with few and small numbers, and where it can act."""
    known = parameters(CONSTRUCTORS[name])
    options = {key: value for key, value in SMALL.items() if key in known} | OPTIONS.get(name, {})
    build = lambda **numbers: CONSTRUCTORS[name](**(options | numbers))  # noqa: E731
    for env in ENVS:
        try:
            jax.eval_shape(lambda key, env=env: build().init(key, env.spec), jax.random.key(0))
        except JaxrlError:
            continue
        return build, env, known
    raise AssertionError(f"{name} acts nowhere")


def takes(build, **numbers):
    try:
        build(**numbers)
    except JaxrlError:
        return False
    return True


CHEAP = ("reinforce", "cem", "sarsa_lambda", "td")  # ppo, which asks for itself, has a test of its own


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in CHEAP else pytest.mark.slow) for name in CONSTRUCTORS]
)
def test_a_traced_0_is_0(name):
    build, env, known = small(name)
    floats = [key for key, parameter in known.items() if parameter.annotation in ("float", float)]
    zeros = {key: 0.0 for key in floats if key != "gamma" and takes(build, **{key: 0.0})}
    assert zeros or name in ("hill_climbing", "n_step_td")

    def run(zeros):
        agent = build(**zeros)
        state, metrics = train(jax.random.key(1), agent, env, 3 * agent.num_envs * agent.rollout_length)
        return state.agent, metrics

    (plain, expected), (traced, found) = jax.device_get(jax.jit(lambda numbers: (run(zeros), run(numbers)))(zeros))
    for metric in expected:
        np.testing.assert_allclose(found[metric], expected[metric], rtol=1e-4, atol=1e-5, err_msg=metric)
    params = [getattr(x, "params", x) for x in (traced, plain)]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5), *params)
