"""Learning gates: whole runs over many seeds, whose interquartile mean a broken agent misses. Minutes each: `-m slow`.

Each row is a run that a user could type; the threshold is on the interquartile mean of the final greedy evaluation.
"""

import pytest

import jaxrl

DQN = {
    "learning_rate": 2e-3,
    "rollout_length": 4,
    "replay_ratio": 0.25,
    "replay_size": 100_000,
    "batch_size": 64,
    "tau": 0.01,
    "target_update_every": 4,
    "epsilon_final": 0.1,
    "loss": "squared",
    "activation": "tanh",
}
NOISY = {"noisy": True, "epsilon_start": 0.0, "epsilon_final": 0.0}
VARIANTS = {  # of dqn; the atoms' range is that of CartPole's returns, and Acrobot's below 0
    "dqn": {},
    "double": {"double": True},
    "dueling-mean": {"dueling": True},
    "dueling-max": {"dueling": True, "dueling_aggregation": "max"},
    "prioritized": {"replay": "prioritized"},
    "ranked": {"replay": "ranked"},
    "n-step": {"n_step": 3},
    "noisy": NOISY,
    "atoms": {"atoms": 51},
    "quantiles": {"quantiles": 21, "n_step": 3},  # with one step it reaches about 350 on CartPole
    "rainbow": {"double": True, "dueling": True, "n_step": 3, "atoms": 51, "replay": "prioritized", **NOISY},
}
CARTPOLE = {"anneal_steps": 200_000, "v_min": 0.0, "v_max": 100.0}
ACROBOT = {"activation": "relu", "anneal_steps": 100_000, "v_min": -100.0, "v_max": 0.0}
NORMALIZED = {"normalize_observations": True, "normalize_rewards": True}
ANT = NORMALIZED | {
    "gamma": 0.97,
    "num_envs": 128,
    "rollout_length": 64,
    "num_minibatches": 8,
    "hidden_sizes": (128, 128),
    "entropy_coef": 0.0,
    "clip_value_loss": False,
}
BREAKOUT = {
    "learning_rate": 5e-3,
    "num_envs": 64,
    "num_minibatches": 8,
    "anneal_steps": 10_000_000,
    "activation": "relu",
    "torso": "mlp",  # on a CPU six times as fast as the convolution
}
MOUNTAIN_CAR = {
    "learning_rate": 4e-3,
    "anneal_steps": 120_000,
    "gamma": 0.98,
    "rollout_length": 16,
    "replay_ratio": 0.5,
    "replay_size": 10_240,
    "target_update_every": 608,
    "epsilon_final": 0.07,
    "epsilon_decay_steps": 24_000,
    "hidden_sizes": (128, 128),
    "activation": "tanh",
}
FITTED = {
    "optimizer": "adam",
    "batch_size": 128,
    "learning_rate": 1e-3,
    "gamma": 0.98,
    "epsilon_final": 0.1,
    "epsilon_decay_steps": 5_000,
    "replay_size": 40_000,
    "num_iterations": 10,
    "hidden_sizes": (64, 64),
}
REMEMBERS = {"num_envs": 16, "cell": "gru", "learning_rate": 1e-3}
STRETCHES = {"learning_rate": 2e-3, "anneal_steps": 200_000, "epsilon_final": 0.1, "activation": "tanh"}
SMALL_CONTROL = {"hidden_sizes": (64, 64), "actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3}
PENDULUM = {"gamma": 0.95, "entropy_coef": 0.0}
# An arm that holds its tip on the target ends the episode after 51 steps there, with about 50 in all at best.
ARM = {"learning_rate": 1e-3, "gamma": 0.9, "gae_lambda": 0.8, "activation": "relu"}
GATES = {
    "a2c-cartpole": (jaxrl.a2c, "CartPole-v1", {}, 500_000, 16, {}, 475),
    "reinforce-cartpole": (jaxrl.reinforce, "CartPole-v1", {}, 1_000_000, 16, {}, 475),
    "reinforce-network-cartpole": (
        jaxrl.reinforce,
        "CartPole-v1",
        {},
        1_000_000,
        16,
        {"baseline": "network", "learning_rate": 3e-3},
        475,
    ),
    "reinforce-plain-cartpole": (
        jaxrl.reinforce,
        "CartPole-v1",
        {},
        1_000_000,
        16,
        {"baseline": "none", "learning_rate": 3e-3},
        400,
    ),
    "one-step-cartpole": (
        jaxrl.one_step_actor_critic,
        "CartPole-v1",
        {},
        1_000_000,
        16,
        {"anneal_steps": 1_000_000},
        475,
    ),
    "a3c-cartpole": (jaxrl.a3c, "CartPole-v1", {}, 1_000_000, 16, {}, 475),
    "dppo-cartpole": (jaxrl.dppo, "CartPole-v1", {}, 1_000_000, 16, {}, 475),
    "ppo-hidden-velocities": (
        jaxrl.ppo,
        "CartPole-v1",
        {"observe": (0, 2)},
        500_000,
        16,
        REMEMBERS | {"anneal_steps": 500_000},
        475,
    ),
    "ppo-memory-chain": (jaxrl.ppo, "MemoryChain-bsuite", {"memory_length": 10}, 200_000, 16, REMEMBERS, 0.95),
    "nfq-cartpole": (jaxrl.nfq, "CartPole-v1", {}, 40_000, 16, FITTED, 475),
    "a2c-point": (
        jaxrl.a2c,
        "jaxrl/Point-v0",
        {},
        500_000,
        16,
        {"entropy_coef": 0.0, "gae_lambda": 0.95, "gamma": 0.95, "rollout_length": 16},
        -3.0,
    ),
    "a2c-arm": (jaxrl.a2c, "jaxrl/Arm-easy-v0", {}, 100_000, 16, ARM | {"rollout_length": 8}, 44),
    "ppo-arm": (jaxrl.ppo, "jaxrl/Arm-easy-v0", {}, 100_000, 16, ARM | {"rollout_length": 32}, 44),
    "trpo-arm": (
        jaxrl.trpo,
        "jaxrl/Arm-easy-v0",
        {},
        800_000,
        16,
        {"num_envs": 40, "rollout_length": 200, "log_std": -0.5, "max_kl": 0.02},
        44,
    ),
    "acer-arm": (
        jaxrl.acer,
        "jaxrl/Arm-easy-v0",
        {},
        100_000,
        16,
        {"gamma": 0.9, "activation": "relu", "entropy_coef": 0.0, "num_envs": 8, "rollout_length": 16},
        44,
    ),
    "acer-cartpole": (jaxrl.acer, "CartPole-v1", {}, 200_000, 16, {}, 475),
    "acer-pendulum": (
        jaxrl.acer,
        "Pendulum-v1",
        {},
        100_000,
        16,
        PENDULUM | {"learning_rate": 2e-3, "clip_rho": 5.0, "num_envs": 8, "rollout_length": 16},
        -250,
    ),
    "cem-cartpole": (jaxrl.cem, "CartPole-v1", {}, 500_000, 16, {}, 475),
    "hill-climbing-cartpole": (jaxrl.hill_climbing, "CartPole-v1", {}, 500_000, 16, {}, 475),
    "npg-cartpole": (jaxrl.npg, "CartPole-v1", {}, 500_000, 16, {}, 475),
    "trpo-cartpole": (jaxrl.trpo, "CartPole-v1", {}, 500_000, 16, {}, 475),
    "trpo-pendulum": (
        jaxrl.trpo,
        "Pendulum-v1",
        {},
        400_000,
        16,
        {"num_envs": 20, "rollout_length": 200, "gamma": 0.95, "gae_lambda": 0.95, "max_kl": 0.02},
        -250,
    ),
    "trpo-point": (jaxrl.trpo, "jaxrl/Point-v0", {}, 160_000, 16, {"num_envs": 40, "rollout_length": 100}, -3.0),
    "ppo-cartpole": (jaxrl.ppo, "CartPole-v1", {}, 500_000, 32, {}, 490),
    **{
        f"{name}-cartpole": (jaxrl.dqn, "CartPole-v1", {}, 200_000, 16, DQN | CARTPOLE | variant, 475)
        for name, variant in VARIANTS.items()
    },
    **{
        f"{name}-acrobot": (jaxrl.dqn, "Acrobot-v1", {}, 100_000, 16, DQN | ACROBOT | variant, -100)
        for name, variant in VARIANTS.items()
    },
    **{
        f"{name}-mountaincar": (jaxrl.dqn, "MountainCar-v0", {}, 120_000, 16, MOUNTAIN_CAR | VARIANTS[name], -130)
        for name in ("prioritized", "n-step")
    },
    "pqn-cartpole": (jaxrl.pqn, "CartPole-v1", {}, 500_000, 16, {}, 475),
    "pqn-acrobot": (jaxrl.pqn, "Acrobot-v1", {}, 500_000, 16, {}, -100),
    "r2d2-cartpole": (jaxrl.r2d2, "CartPole-v1", {}, 200_000, 16, STRETCHES, 475),
    "r2d2-hidden-velocities": (jaxrl.r2d2, "CartPole-v1", {"observe": (0, 2)}, 200_000, 16, STRETCHES, 475),
    "naf-pendulum": (jaxrl.naf, "Pendulum-v1", {}, 30_000, 16, {}, -250),
    "ddpg-pendulum": (jaxrl.ddpg, "Pendulum-v1", {}, 50_000, 16, SMALL_CONTROL, -180),
    "td3-pendulum": (jaxrl.td3, "Pendulum-v1", {}, 30_000, 16, SMALL_CONTROL, -180),
    "sac-v1-pendulum": (
        *(jaxrl.sac_v1, "Pendulum-v1", {}, 20_000, 16),
        SMALL_CONTROL
        | {"gamma": 0.98, "initial_temperature": 0.1, "value_learning_rate": 1e-3}
        | {"num_envs": 4, "replay_ratio": 0.5, "tau": 0.01, "batch_size": 128},
        -180,
    ),
    "discrete-sac-cartpole": (
        *(jaxrl.discrete_sac, "CartPole-v1", {}, 100_000, 16),
        SMALL_CONTROL
        | {"temperature_learning_rate": 1e-3, "tau": 0.01, "activation": "tanh", "n_step": 3}
        | {"num_envs": 8, "replay_ratio": 0.25, "batch_size": 64},
        475,
    ),
    "sac-pendulum": (
        jaxrl.sac,
        "Pendulum-v1",
        {},
        30_000,
        16,
        SMALL_CONTROL | {"temperature_learning_rate": 1e-3},
        -180,
    ),
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
    "ppo-ant": (jaxrl.ppo, "brax/ant", {"backend": "spring", "reset_pool": 64}, 5_000_000, 4, ANT, 4000),
}


@pytest.mark.slow
@pytest.mark.parametrize("gate", GATES)
def test_the_interquartile_mean_passes_its_gate(gate):
    constructor, env, env_params, num_steps, seeds, hyper_parameters, threshold = GATES[gate]
    results = jaxrl.sweep(constructor, env, num_steps=num_steps, seeds=seeds, env_params=env_params, **hyper_parameters)
    final = results.summary["final_return"]
    assert results.summary["diverged_seeds"] == []
    assert final["iqm"] >= threshold, final


BITS = {
    "learning_rate": 1e-3,
    "gamma": 0.98,
    "rollout_length": 4,
    "replay_ratio": 0.25,
    "replay_size": 100_000,
    "batch_size": 64,
    "tau": 0.05,
    "target_update_every": 4,
    "hidden_sizes": (128,),
    "epsilon_final": 0.1,
    "epsilon_decay_steps": 20_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["future", "final", "episode"])
def test_hindsight_flips_fifteen_bits(strategy):
    """Seven and a half flips on average are needed, of which the last one costs nothing."""
    results = jaxrl.sweep(jaxrl.dqn, "jaxrl/BitFlip-v0", num_steps=200_000, seeds=16, hindsight=strategy, **BITS)
    assert results.summary["final_return"]["iqm"] > -8


@pytest.mark.slow
def test_without_hindsight_fifteen_bits_stay_as_they_are():
    results = jaxrl.sweep(jaxrl.dqn, "jaxrl/BitFlip-v0", num_steps=200_000, seeds=16, **BITS)
    assert results.summary["final_return"]["ci_high"] < -14


REACH = SMALL_CONTROL | {"gamma": 0.95, "noise_scale": 0.2}


@pytest.mark.slow
def test_hindsight_brings_a_point_to_its_goal():
    """Some 9 steps are needed on average, of which the last one costs nothing; an episode that never gets there, 50."""
    with_it, without = (
        jaxrl.sweep(jaxrl.td3, "jaxrl/PointReach-v0", num_steps=10_000, seeds=16, hindsight=hindsight, **REACH)
        for hindsight in ("future", "none")
    )
    assert with_it.summary["final_return"]["ci_low"] > -10
    assert without.summary["final_return"]["ci_high"] < -40


SMALL_GAMES = {"torso": "mlp", "replay_size": 20_000, "warmup_steps": 1_000, "batch_size": 32, "rollout_length": 4}
SMALL_GAMES |= {"learning_rate": 1e-3, "target_update_every": 1_000}


@pytest.mark.slow
def test_rainbow_is_better_than_dqn_at_breakout():
    """After equally many steps, each of which has a gradient step."""
    rainbow, dqn = (
        jaxrl.sweep(constructor, "Breakout-MinAtar", num_steps=16_000, seeds=32, **SMALL_GAMES, **arguments)
        for constructor, arguments in [
            (jaxrl.rainbow, {"v_min": -5.0, "v_max": 5.0}),
            (jaxrl.dqn, {"epsilon_decay_steps": 5_000, "double": False}),
        ]
    )
    intervals = [results.summary["final_return"] for results in (rainbow, dqn)]
    assert intervals[0]["ci_low"] > intervals[1]["ci_high"], intervals
