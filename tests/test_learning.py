"""Learning gates: whole runs over many seeds, whose interquartile mean a broken agent misses. Minutes each: `-m slow`.

Each row is a run that a user could type; the threshold is on the interquartile mean of the final greedy evaluation.
"""

import pytest

import jaxrl

DOUBLE_DQN = {"double": True, "rollout_length": 4, "replay_size": 100_000, "learning_rate": 1e-3}
NORMALIZED = {"normalize_observations": True, "normalize_rewards": True}
BREAKOUT = {
    "learning_rate": 5e-3,
    "num_envs": 64,
    "num_minibatches": 8,
    "anneal_steps": 10_000_000,
    "activation": "relu",
    "torso": "mlp",  # on a CPU six times as fast as the convolution
}
GATES = {
    "ppo-cartpole": (jaxrl.ppo, "CartPole-v1", {}, 500_000, 32, {}, 490),
    "dqn-cartpole": (jaxrl.dqn, "CartPole-v1", {}, 100_000, 16, DOUBLE_DQN, 450),
    "ppo-pendulum": (
        jaxrl.ppo,
        "Pendulum-v1",
        {},
        1_000_000,
        8,
        {"learning_rate": 1e-3, "gamma": 0.9, "num_envs": 8, "entropy_coef": 0.0, "normalize_rewards": True},
        -250,
    ),
    "ppo-breakout": (jaxrl.ppo, "Breakout-MinAtar", {}, 10_000_000, 2, BREAKOUT, 30),
    "ppo-inverted-pendulum": (
        jaxrl.ppo,
        "brax/inverted_pendulum",
        {},
        1_000_000,
        8,
        NORMALIZED | {"learning_rate": 1e-3, "num_envs": 16, "entropy_coef": 0.0, "anneal_steps": 1_000_000},
        950,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("gate", GATES)
def test_the_interquartile_mean_passes_its_gate(gate):
    constructor, env, env_params, num_steps, seeds, hyper_parameters, threshold = GATES[gate]
    results = jaxrl.sweep(constructor, env, num_steps=num_steps, seeds=seeds, env_params=env_params, **hyper_parameters)
    final = results.summary["final_return"]
    assert results.summary["diverged_seeds"] == []
    assert final["iqm"] >= threshold, final
