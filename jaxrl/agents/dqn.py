"""Deep Q-network (Mnih et al. 2015), and the improvements of it that Rainbow combines (Hessel et al. 2018).

Each improvement is an argument, and they compose: `rainbow` and `qr_dqn` are calls of `dqn`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from jaxrl import checks
from jaxrl.agents import replay_learning, value_heads
from jaxrl.agents.preset import preset
from jaxrl.agents.replay_learning import Loss, ReplayState
from jaxrl.agents.value_heads import LOSSES
from jaxrl.exploration import epsilon_greedy
from jaxrl.losses import take
from jaxrl.networks import ACTIVATIONS, DUELING, QNetwork, make_q_network
from jaxrl.replay import Replay
from jaxrl.replay.n_step import NStep, aggregate
from jaxrl.replay.select import select
from jaxrl.types import Agent, Array, Key, Metrics, PyTree, Spec, Transition


def dqn(
    *,
    learning_rate: float = 5e-4,
    anneal_steps: int = 0,
    gamma: float = 0.99,
    epsilon_start: float = 1.0,
    epsilon_final: float = 0.05,
    epsilon_decay_steps: int = 10_000,
    replay: str | Replay = "uniform",
    replay_size: int = 10_000,
    batch_size: int = 128,
    priority_alpha: float = 0.6,
    priority_beta: float = 0.4,
    priority_beta_steps: int = 100_000,
    hindsight: str = "none",
    warmup_steps: int = 1_000,
    target_network: bool = True,
    target_update_every: int = 500,
    tau: float = 1.0,
    double: bool = False,
    dueling: bool = False,
    dueling_aggregation: str = "mean",
    noisy: bool = False,
    n_step: int = 1,
    atoms: int = 1,
    v_min: float = -10.0,
    v_max: float = 10.0,
    quantiles: int = 1,
    loss: str = "huber",
    max_grad_norm: float = 10.0,
    num_envs: int = 1,
    rollout_length: int = 1,
    gradient_steps: int = 1,
    hidden_sizes: tuple[int, ...] = (64, 64),
    activation: str = "relu",
    torso: str = "auto",
) -> Agent:
    """Deep Q-network, for discrete actions.

    Regresses Q(s, a) to r + gamma max_a' Q_target(s', a') on transitions drawn from a replay (Mnih et al. 2015,
    algorithm 1). What follows composes freely: `double`, `dueling`, `replay="prioritized"`, `n_step`, `noisy` and
    `atoms`; all of them together are Rainbow.

    Args:
      learning_rate: Adam's step size, > 0.
      anneal_steps: environment steps over which the learning rate falls linearly to 0; 0 keeps it constant.
      gamma: discount, in [0, 1].
      epsilon_start: probability of a random action at the first step, in [0, 1].
      epsilon_final: the same once it has decayed, in [0, 1].
      epsilon_decay_steps: environment steps over which epsilon falls linearly from the one to the other.
      replay: uniform, prioritized (in proportion to the error) or ranked (by the error's rank; Schaul et al. 2016); in
        Python also a `Replay`, which comes with its own sizes.
      replay_size: transitions that the replay holds; a multiple of num_envs * rollout_length.
      batch_size: transitions in each gradient step; at most warmup_steps.
      priority_alpha: how much the priorities count, in [0, 1].
      priority_beta: how much of their bias the importance weights take away at the first step, in [0, 1].
      priority_beta_steps: environment steps over which that rises linearly to 1.
      hindsight: which goals take the place of the wanted ones in four fifths of a batch, where the environment has
        goals: none, future, final or episode (Andrychowicz et al. 2017).
      warmup_steps: environment steps before the first gradient step.
      target_network: whether there is one; without it, the online network values its own targets (naive DQN).
      target_update_every: environment steps between updates of the target network.
      tau: how far each of these moves the target towards the online network, in (0, 1]; 1 copies it.
      double: whether the online network chooses the action that the target network values (van Hasselt et al. 2016,
        equation 4).
      dueling: whether the network tells a state's value from the advantages of its actions (Wang et al. 2016).
      dueling_aggregation: what is subtracted from the advantages before they are added to the value: their mean
        (equation 9) or their max (equation 8).
      noisy: whether the last two layers explore by noise of learnt size (Fortunato et al. 2018); an epsilon of 0 then
        leaves exploring to them.
      n_step: environment steps whose rewards a target holds before it bootstraps.
      atoms: with more than 1, on how many returns from v_min to v_max the network puts probabilities (C51, Bellemare
        et al. 2017); `loss` then does not count.
      v_min: the least return that atoms can tell.
      v_max: the greatest; above v_min.
      quantiles: with more than 1, how many quantiles of the return the network learns (QR-DQN, Dabney et al. 2018);
        not together with atoms; `loss` then does not count.
      loss: of the temporal-difference error: huber or squared.
      max_grad_norm: global norm that the gradient is clipped to, > 0.
      num_envs: environments that run in parallel.
      rollout_length: steps taken in each environment between updates.
      gradient_steps: gradient steps in each update.
      hidden_sizes: units of each fully connected layer.
      activation: of the hidden layers: tanh, relu, swish, elu or gelu.
      torso: mlp, cnn, nature, or auto: nature for images of at least 36 x 36 pixels, cnn for smaller ones, else mlp.

    Returns:
      an `Agent`; its metrics are loss, q_mean (over the batch's actions) and epsilon. During the warm-up the first two
      are 0.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.

    Example:
      >>> dqn(double=True, dueling=True, replay="prioritized", n_step=3).rollout_length
      1
    """
    checks.number("dqn", 0, open_low=True, learning_rate=learning_rate, max_grad_norm=max_grad_norm)
    checks.number("dqn", 0, 1, gamma=gamma, epsilon_start=epsilon_start, epsilon_final=epsilon_final)
    checks.number("dqn", 0, 1, priority_alpha=priority_alpha, priority_beta=priority_beta)
    checks.number("dqn", 0, 1, open_low=True, tau=tau)
    checks.integer("dqn", 0, anneal_steps=anneal_steps)
    checks.integer("dqn", epsilon_decay_steps=epsilon_decay_steps, priority_beta_steps=priority_beta_steps)
    checks.integer("dqn", num_envs=num_envs, rollout_length=rollout_length, gradient_steps=gradient_steps)
    checks.integer("dqn", target_update_every=target_update_every, n_step=n_step, atoms=atoms, quantiles=quantiles)
    checks.integer("dqn", **{f"hidden_sizes[{i}]": n for i, n in enumerate(hidden_sizes)})
    checks.one_of("dqn", LOSSES, loss=loss)
    checks.one_of("dqn", ACTIVATIONS, activation=activation)
    checks.one_of("dqn", DUELING, dueling_aggregation=dueling_aggregation)
    replay_learning.check_schedule(
        "dqn",
        batch_size=batch_size,
        replay_size=replay_size,
        warmup_steps=warmup_steps,
        added=num_envs * rollout_length,
    )
    if atoms > 1 and quantiles > 1:
        raise checks.JaxrlError(
            f"dqn: quantiles={quantiles} is not accepted together with atoms={atoms}; one must be 1"
        )
    if atoms > 1:
        checks.increasing("dqn", v_min=v_min, v_max=v_max)
    memory = select(
        "dqn", replay, capacity=replay_size, batch_size=batch_size, alpha=priority_alpha, beta=priority_beta,
        beta_steps=priority_beta_steps, relabel=hindsight,
    )  # fmt: skip
    if atoms > 1:
        head = value_heads.categorical(atoms, v_min, v_max)
    else:
        head = value_heads.quantile(quantiles) if quantiles > 1 else value_heads.expectation(loss)
    optimizer = optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.adam(learning_rate))
    epsilon_at = optax.linear_schedule(epsilon_start, epsilon_final, epsilon_decay_steps)

    def network(spec: Spec) -> QNetwork:
        return make_q_network(
            "dqn", spec, torso, hidden_sizes, activation, dueling=dueling_aggregation if dueling else "none",
            noisy=noisy, outputs=head.outputs,
        )  # fmt: skip

    def apply(params: PyTree, obs: Array, spec: Spec, key: Key) -> Array:
        return network(spec).apply(params, obs, rngs={"noise": key} if noisy else None)

    def init(key: Key, spec: Spec) -> ReplayState:
        obs = jnp.zeros((1, *spec.obs_space.shape), spec.obs_space.dtype)
        params = network(spec).init(key, obs)
        return replay_learning.init_state(params, spec, optimizer, memory, (rollout_length, num_envs))

    def act(state: ReplayState, policy_memory: PyTree, obs: Array, key: Key, step: Array, explore: bool = True):
        noise_key, key = jax.random.split(key) if noisy else (None, key)
        if explore:
            outputs = apply(state.params, obs, state.spec, noise_key)
        else:
            outputs = network(state.spec).apply(state.params, obs)
        return epsilon_greedy(key, head.mean(outputs), epsilon_at(step) if explore else 0.0), policy_memory, {}

    def target(params: PyTree, target_params: PyTree, batch: NStep, spec: Spec, key: Key) -> Array:
        value_key, choice_key = jax.random.split(key)
        outputs = apply(target_params, batch.next_obs, spec, value_key)  # [B, num_actions(, K)]
        chooser = apply(params, batch.next_obs, spec, choice_key) if double else outputs
        best = jnp.argmax(head.mean(chooser), axis=-1)
        return head.target(take(outputs, best), batch.reward, batch.discount)

    def td_loss(params: PyTree, batch: NStep, target: Array, spec: Spec, key: Key) -> Loss:
        outputs = take(apply(params, batch.obs, spec, key), batch.action)
        value, errors = head.loss(outputs, target)
        return Loss(value, errors, {"q_mean": head.mean(outputs).mean()})

    learn = replay_learning.make_update(
        replay=memory, optimizer=optimizer, prepare=lambda sample: aggregate(sample, gamma), target=target,
        loss=td_loss, metrics=("q_mean",), warmup_steps=warmup_steps, gradient_steps=gradient_steps, length=n_step,
        target_update_every=target_update_every, tau=tau, target_network=target_network,
        anneal_steps=anneal_steps,
    )  # fmt: skip

    def update(state: ReplayState, trajectory: Transition, key: Key, step: Array) -> tuple[ReplayState, Metrics]:
        state, metrics = learn(state, trajectory, key, step)
        return state, metrics | {"epsilon": epsilon_at(step)}

    return Agent(init, act, update, num_envs, rollout_length, name="dqn")


rainbow = preset(
    dqn,
    "rainbow",
    """Rainbow: double, dueling, noisy, categorical, 3-step DQN with prioritized replay (Hessel et al. 2018).""",
    double=True,
    dueling=True,
    noisy=True,
    atoms=51,
    n_step=3,
    replay="prioritized",
    priority_alpha=0.5,
    epsilon_start=0.0,
    epsilon_final=0.0,
)

qr_dqn = preset(
    dqn,
    "qr_dqn",
    """Quantile-regression DQN: the return's quantiles in place of its mean (Dabney et al. 2018, algorithm 1).""",
    quantiles=51,
)
