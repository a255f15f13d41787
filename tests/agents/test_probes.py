"""Every agent on every probe environment, on several seeds: the values it finds, and what it does at the end.

A new agent is one more row of `ROWS`. All probes and all seeds of a row run in one compiled program, in which an
environment's index chooses among the probes.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import (
    a2c,
    a3c,
    acer,
    cem,
    ddpg,
    diayn,
    discrete_sac,
    dppo,
    dqn,
    evaluate,
    hill_climbing,
    make,
    naf,
    nfq,
    npg,
    one_step_actor_critic,
    ppo,
    pqn,
    qr_dqn,
    r2d2,
    rainbow,
    reinforce,
    sac,
    sac_v1,
    td3,
    train,
    trpo,
)
from jaxrl.agents.value_based.naf import NAFNetwork
from jaxrl.learning.pop_art import denormalize
from jaxrl.learning.value_heads import categorical
from jaxrl.networks import (
    MLP,
    ActorCritic,
    Policy,
    PolicyHead,
    QNetwork,
    SquashedGaussian,
    TanhPolicy,
    Value,
    greedy,
)
from jaxrl.networks import acer as acer_networks
from jaxrl.networks.off_policy import Critic, make_discrete_critics
from jaxrl.types import Agent, Box, Discrete, Env

pytestmark = pytest.mark.optimized  # they train for longer than they compile

GAMMA = 0.8
NUM_SEEDS = 4
HIDDEN = (8,)
ATOMS = {"atoms": 21, "v_min": -2.0, "v_max": 6.0}
SUPPORT = categorical(**ATOMS)
TORQUE = make("jaxrl/Probe-action-v0", continuous=True).spec.action_space


def state_value(state, obs, action_space):
    return Value(MLP(HIDDEN)).apply(state.params.value, obs)


def expected_value(state, obs, action_space):
    policy = Policy(MLP(HIDDEN), PolicyHead(action_space)).apply(state.params.actor, obs)
    q = make_discrete_critics("probes", state.spec, "mlp", HIDDEN, "tanh")(2).apply(state.params.critics, obs)
    return jnp.sum(policy.probs * q.min(axis=0), axis=-1)


def q_value(state, obs, action_space):
    return QNetwork(MLP(HIDDEN, "relu"), 2).apply(state.params, obs).max(-1)


def stream_value(**options):
    """`q_value` of a network with streams, whose hidden layer is all that there is before the outputs."""
    network = QNetwork(MLP((), "relu"), 2, stream_sizes=HIDDEN, **options)
    mean = SUPPORT.mean if network.outputs > 1 else lambda values: values
    return lambda state, obs, action_space: mean(network.apply(state.params, obs)).max(-1)


def normalized_q_value(state, obs, action_space):
    return QNetwork(MLP(HIDDEN, "relu", layer_norm=True), 2).apply(state.params, obs).max(-1)


def quantile_value(state, obs, action_space):
    return QNetwork(MLP(HIDDEN, "relu"), 2, outputs=11).apply(state.params, obs).mean(-1).max(-1)


def atom_value(state, obs, action_space):
    return SUPPORT.mean(QNetwork(MLP(HIDDEN, "relu"), 2, outputs=21).apply(state.params, obs)).max(-1)


def naf_value(state, obs, action_space):
    return NAFNetwork(MLP(HIDDEN), action_space.shape[0]).apply(state.params, obs).value


def critic_value(state, obs, action_space):
    network = ActorCritic(MLP(HIDDEN), MLP(HIDDEN), PolicyHead(action_space))
    return denormalize(getattr(state, "scale", ()), network.apply(state.params, obs, method="value"))


def baseline_value(state, obs, action_space):
    return denormalize(state.baseline.scale, Value(MLP(HIDDEN)).apply(state.baseline.params, obs))


def acer_value(state, obs, action_space):
    policy = Policy(MLP(HIDDEN), PolicyHead(action_space)).apply(state.params.policy, obs)
    return acer_networks.Critic(MLP(HIDDEN), action_space, HIDDEN[-1]).apply(
        state.params.critic, obs, policy, method="value"
    )


def first_q_value(state, obs, action):
    first = jax.tree.map(lambda x: x[0], state.params.critics)
    return Critic(MLP(()), MLP(HIDDEN)).apply(first, obs, action)


def deterministic_value(state, obs, action_space):
    action = TanhPolicy(MLP(HIDDEN), action_space.shape[0]).apply(state.params.actor, obs)
    return first_q_value(state, obs, action)


def soft_value(state, obs, action_space):
    policy = SquashedGaussian(MLP(HIDDEN), action_space.shape[0]).apply(state.params.actor, obs)
    return first_q_value(state, obs, greedy(policy))


class Row(NamedTuple):
    """An agent to be probed.

    Attributes:
      agent: to be trained with gamma = `GAMMA`.
      num_steps: for how long, in environment steps.
      action_space: the probes' actions.
      value: `value(state, obs [..., 1], action_space) -> [...]`, or None where the agent knows no values.
      tolerance: of those values, relative to those beyond 1.
    """

    agent: Agent
    num_steps: int
    action_space: Discrete | Box
    value: Callable | None
    tolerance: float = 0.05


SHARED = {"gamma": GAMMA, "learning_rate": 0.01, "hidden_sizes": HIDDEN, "num_envs": 4}
PPO = ppo(**SHARED, rollout_length=16, num_minibatches=2, clip_value_loss=False, entropy_coef=0.0)
ON_POLICY = SHARED | {"rollout_length": 16, "entropy_coef": 0.0}
DPPO = dppo(**ON_POLICY, num_workers=2, num_minibatches=2, clip_value_loss=False)
REMEMBERS = ppo(**ON_POLICY, cell="gru", cell_size=8, num_minibatches=2, clip_value_loss=False)
SHORT = ON_POLICY | {"rollout_length": 5, "optimizer": "adam", "anneal_steps": 8_000}
A2C = a2c(**SHORT, pop_art=True)
ONE_STEP = one_step_actor_critic(**ON_POLICY | {"rollout_length": 1, "num_envs": 8})
ACER = acer(
    **SHARED, rollout_length=5, replay_size=1000, batch_size=8, warmup_steps=100, replay_ratio=2, entropy_coef=0.0
)
BATCHES = {
    "gamma": GAMMA,
    "hidden_sizes": HIDDEN,
    "num_envs": 16,
    "rollout_length": 16,
    "baseline_learning_rate": 0.01,
    "baseline_batch_size": 64,
}
TRUST = BATCHES | {"max_kl": 0.05}
A3C = a3c(**SHORT, num_workers=2, delay=2)
REPLAY = {"batch_size": 32, "replay_size": 1000, "warmup_steps": 100, "replay_ratio": 0.25, "epsilon_decay_steps": 1000}
DQN = dqn(**SHARED, **REPLAY, target_update_every=20)
DOUBLE_DQN = dqn(**SHARED, **REPLAY, target_update_every=4, tau=0.1, double=True)
STRETCHES = {
    "cell_size": 8,
    "burn_in": 1,
    "unroll": 4,
    "n_step": 2,
    "rollout_length": 2,
    "replay_ratio": 0.125,
    "loss": "huber",
    "rescale": False,
}
FITS = {"replay_size": 500, "rollout_length": 25, "num_iterations": 5, "num_gradient_steps": 20}
CONTROL = {k: v for k, v in (SHARED | REPLAY).items() if k not in ("learning_rate", "epsilon_decay_steps")}
CONTROL |= {"actor_learning_rate": 0.01, "critic_learning_rate": 0.01, "tau": 0.1}
COLD = {"temperature": "fixed", "initial_temperature": 0.02}
CONTROL |= {"activation": "tanh"}  # where all observations are alike, few rectifiers may fall silent together
NAF = {"noise_decay_steps": 1000, "tau": 0.1} | {k: v for k, v in REPLAY.items() if k != "epsilon_decay_steps"}
ROWS = {
    "ppo": Row(PPO, 4_000, Discrete(2), critic_value),
    "dppo": Row(DPPO, 4_000, Discrete(2), critic_value),
    "ppo remembers": Row(REMEMBERS, 6_000, Discrete(2), None),
    "a2c": Row(A2C, 8_000, Discrete(2), critic_value),
    "one_step_actor_critic": Row(ONE_STEP, 16_000, Discrete(2), critic_value),
    "a3c": Row(A3C, 8_000, Discrete(2), critic_value),
    "reinforce": Row(reinforce(**BATCHES, learning_rate=0.01, baseline="network"), 8_000, Discrete(2), baseline_value),
    "reinforce linear": Row(reinforce(**BATCHES | {"num_envs": 4}, learning_rate=0.02), 12_000, TORQUE, None),
    "npg": Row(npg(**TRUST), 6_000, Discrete(2), baseline_value),
    "trpo": Row(trpo(**TRUST), 6_000, Discrete(2), baseline_value),
    "trpo continuous": Row(trpo(**TRUST), 12_000, TORQUE, baseline_value),
    "acer": Row(ACER, 4_000, Discrete(2), acer_value),
    "acer continuous": Row(ACER, 4_000, TORQUE, acer_value),
    "cem": Row(cem(num_elites=5, num_envs=20, rollout_length=16, hidden_sizes=HIDDEN), 4_000, Discrete(2), None),
    "hill_climbing": Row(hill_climbing(num_envs=20, rollout_length=16), 4_000, Discrete(2), None),
    "ppo continuous": Row(PPO, 6_000, TORQUE, critic_value),
    "dqn": Row(DQN, 4_000, Discrete(2), q_value),
    "dqn double": Row(DOUBLE_DQN, 4_000, Discrete(2), q_value),
    "dqn naive": Row(dqn(**SHARED, **REPLAY, target_network=False), 4_000, Discrete(2), q_value),
    "dqn dueling max, ranked": Row(
        dqn(**SHARED, **REPLAY, target_update_every=20, dueling=True, dueling_aggregation="max", replay="ranked"),
        6_000,
        Discrete(2),
        stream_value(dueling="max"),
    ),
    "dqn dueling, prioritized, 3 steps": Row(
        dqn(**SHARED, **REPLAY, target_update_every=20, dueling=True, n_step=3, replay="prioritized"),
        6_000,
        Discrete(2),
        stream_value(dueling="mean"),
    ),
    "dqn noisy": Row(
        dqn(**SHARED, **REPLAY, target_update_every=20, noisy=True, epsilon_start=0.0, epsilon_final=0.0),
        6_000,
        Discrete(2),
        stream_value(noisy=True),
    ),
    "dqn atoms": Row(dqn(**SHARED, **REPLAY, **ATOMS, target_update_every=20), 6_000, Discrete(2), atom_value),
    "qr_dqn": Row(qr_dqn(**SHARED, **REPLAY, quantiles=11, target_update_every=20), 6_000, Discrete(2), quantile_value),
    "rainbow": Row(
        rainbow(**SHARED, **REPLAY, **ATOMS, target_update_every=20),
        6_000,
        Discrete(2),
        stream_value(dueling="mean", noisy=True, outputs=21),
    ),
    "pqn": Row(
        pqn(**SHARED, rollout_length=16, num_minibatches=2, epsilon_decay_steps=1000),
        6_000,
        Discrete(2),
        normalized_q_value,
    ),
    "naf": Row(naf(**SHARED, **NAF), 4_000, TORQUE, naf_value),
    "ddpg": Row(ddpg(**CONTROL), 4_000, TORQUE, deterministic_value),
    "td3": Row(td3(**CONTROL, noise_scale=0.3), 6_000, TORQUE, deterministic_value),
    # Where no action is better than another the temperature falls, and what the entropy adds to the values with it.
    "sac": Row(sac(**CONTROL, temperature_learning_rate=0.02), 4_000, TORQUE, soft_value),
    "sac_v1": Row(sac_v1(**CONTROL, **COLD, value_learning_rate=0.01), 6_000, TORQUE, state_value),
    "discrete_sac": Row(discrete_sac(**CONTROL, **COLD), 4_000, Discrete(2), expected_value),
    "discrete_sac, prioritized, 3 steps": Row(
        discrete_sac(**CONTROL, **COLD, n_step=3, replay="prioritized", critic_value="mean"), 4_000, Discrete(2), None
    ),
    "diayn": Row(diayn(**CONTROL, num_skills=2, reward_weight=1.0, initial_temperature=0.02), 4_000, TORQUE, None),
    "r2d2": Row(
        r2d2(**SHARED, **REPLAY | STRETCHES, replay="prioritized", target_update_every=20, tau=1.0),
        8_000,
        Discrete(2),
        None,  # without what went before there is no value to compare
    ),
    "nfq": Row(nfq(**SHARED, **FITS, activation="relu", epsilon_decay_steps=1000), 5_000, Discrete(2), q_value),
}

# Variants and calls of agents whose own row is run at each change: these are run with the other slow tests.
VARIANTS = {
    *("dppo", "reinforce linear", "trpo continuous", "dqn double", "dqn naive", "dqn dueling max, ranked", "diayn"),
    *("discrete_sac, prioritized, 3 steps", "npg", "acer continuous", "ppo remembers", "qr_dqn"),
    *("dqn noisy", "dqn dueling, prioritized, 3 steps", "dqn atoms"),  # rainbow has them all
}

# What is known of each probe: the value of some observations, and the return of the best policy.
VALUES = {
    "value": {1: 1},
    "observation": {1: 1, -1: -1},
    "discount": {0: GAMMA, 1: 1},
    "truncation": {1: 1 / (1 - GAMMA)},  # and at most 2.8 where truncation is taken for termination
}
BEST = {"action": 1, "policy": 1}
PROBES = (*VALUES, *BEST)


def probe(name: str, action_space) -> Env:
    continuous = {"continuous": True} if name in BEST and isinstance(action_space, Box) else {}
    env = make(f"jaxrl/Probe-{name}-v0", **continuous)
    return env._replace(spec=env.spec._replace(action_space=action_space))


def one_of(envs: list[Env], index) -> Env:
    """The environment of that index, which may be traced."""

    def reset(key):
        return jax.lax.switch(index, [env.reset for env in envs], key)

    def step(key, state, action):
        return jax.lax.switch(index, [env.step for env in envs], key, state, action)

    return Env(reset, step, envs[0].spec._replace(id="jaxrl/Probes", max_steps=5))


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name in VARIANTS else ()) for name in ROWS],
)
def outcome(request):
    """A row, and after training the values of -1, 0 and 1, `[probe, seed, 3]`, and greedy returns, `[probe, seed]`."""
    row = ROWS[request.param]
    envs = [probe(name, row.action_space) for name in PROBES]

    def run(index, key):
        env = one_of(envs, index)
        train_key, evaluation_key = jax.random.split(key)
        state, _ = train(train_key, row.agent, env, row.num_steps)
        returns = evaluate(evaluation_key, row.agent, state.agent, env, 16)
        obs = jnp.array([[-1.0], [0.0], [1.0]])
        values = row.value(state.agent, obs, row.action_space) if row.value else jnp.zeros(3)
        return values, returns.mean(), state.first_bad_step

    keys = jax.random.split(jax.random.key(0), NUM_SEEDS)
    run_all = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))
    values, returns, bad = jax.device_get(run_all(jnp.arange(len(PROBES)), keys))
    assert (bad == -1).all()
    return row, values, returns


@pytest.mark.parametrize("name", VALUES)
def test_value(outcome, name):
    row, values, _ = outcome
    if row.value is None:
        pytest.skip("knows no values")
    for obs, expected in VALUES[name].items():
        found = values[PROBES.index(name), :, [-1, 0, 1].index(obs)]
        np.testing.assert_allclose(found, expected, atol=row.tolerance * max(1, expected), err_msg=f"V({obs})")


@pytest.mark.parametrize("name", BEST)
def test_behaviour(outcome, name):
    row, _, returns = outcome
    found = returns[PROBES.index(name)]
    if isinstance(row.action_space, Box):
        assert (found > -0.02).all(), found  # the best is 0; the best constant action has -0.25 on "policy"
    else:
        assert (found == 1).all(), found
