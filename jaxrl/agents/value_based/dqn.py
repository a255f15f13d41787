"""Deep Q-network (Mnih et al. 2015), and the improvements of it that Rainbow combines (Hessel et al. 2018).

Each improvement is an argument, and they compose: `rainbow` and `qr_dqn` are calls of `dqn`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl import checks
from jaxrl.constructors import agent_constructor, preset
from jaxrl.exploration import epsilon_greedy, linear_epsilon
from jaxrl.learning import value_heads, value_regression
from jaxrl.learning.experience import ReplayState, make_experience
from jaxrl.learning.value_heads import LOSSES
from jaxrl.learning.value_regression import Loss
from jaxrl.losses import take
from jaxrl.networks import DUELING, QNetwork, make_q_network
from jaxrl.networks.actor_critic import check_network
from jaxrl.replay import Replay
from jaxrl.replay.n_step import NStep
from jaxrl.types import Agent, Array, Key, PyTree, Spec


@agent_constructor
def dqn(
    *,
    learning_rate: float = 5e-4,
    anneal_steps: int = 0,
    epsilon_start: float = 1.0,
    epsilon_final: float = 0.05,
    epsilon_decay_steps: int = 10_000,
    gamma: float = 0.99,
    n_step: int = 1,
    replay: str | Replay = "uniform",
    replay_size: int = 10_000,
    batch_size: int = 128,
    priority_alpha: float = 0.6,
    priority_beta: float = 0.4,
    priority_beta_steps: int = 100_000,
    hindsight: str = "none",
    warmup_steps: int = 1_000,
    replay_ratio: int | float = 1,
    normalize_observations: bool = False,
    num_envs: int = 1,
    rollout_length: int = 1,
    target_network: bool = True,
    target_update_every: int = 500,
    tau: float = 1.0,
    double: bool = False,
    dueling: bool = False,
    dueling_aggregation: str = "mean",
    noisy: bool = False,
    atoms: int = 1,
    v_min: float = -10.0,
    v_max: float = 10.0,
    quantiles: int = 1,
    loss: str = "huber",
    max_grad_norm: float = 10.0,
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
      epsilon_start: probability of a random action at the first step, in [0, 1].
      epsilon_final: the same once it has decayed, in [0, 1].
      epsilon_decay_steps: environment steps over which epsilon falls linearly from the one to the other.
      gamma: discount, in [0, 1].
      n_step: environment steps whose rewards a target holds before it bootstraps.
      replay: uniform, prioritized (in proportion to the error) or ranked (by the error's rank; Schaul et al. 2016); in
        Python also a `Replay`, whose own sizes count in place of replay_size and batch_size.
      replay_size: steps that the replay holds; a multiple of num_envs * rollout_length.
      batch_size: samples in each gradient step; at most warmup_steps.
      priority_alpha: how much the priorities count, in [0, 1].
      priority_beta: how much of their bias the importance weights take away at the first step, in [0, 1].
      priority_beta_steps: environment steps over which that rises linearly to 1.
      hindsight: which goals take the place of the wanted ones in four fifths of a batch, where the environment has
        goals: none, future, final or episode (Andrychowicz et al. 2017).
      warmup_steps: environment steps before the first gradient step.
      replay_ratio: gradient steps for each environment step, of all environments together; it may be less than 1.
      normalize_observations: whether observations are scaled by the running mean and standard deviation of all so far;
        the replay keeps them as they are.
      num_envs: environments that run in parallel.
      rollout_length: steps taken in each environment between updates.
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
      atoms: with more than 1, on how many returns from v_min to v_max the network puts probabilities (C51, Bellemare
        et al. 2017); `loss` then does not count.
      v_min: the least return that atoms can tell.
      v_max: the greatest; above v_min. A new network values everything halfway between the two.
      quantiles: with more than 1, how many quantiles of the return the network learns (QR-DQN, Dabney et al. 2018);
        not together with atoms; `loss` then does not count.
      loss: of the temporal-difference error: huber or squared.
      max_grad_norm: global norm that the gradient is clipped to, > 0.
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
    experience = make_experience(
        "dqn", gamma=gamma, n_step=n_step, replay=replay, replay_size=replay_size, batch_size=batch_size,
        priority_alpha=priority_alpha, priority_beta=priority_beta, priority_beta_steps=priority_beta_steps,
        hindsight=hindsight, warmup_steps=warmup_steps, replay_ratio=replay_ratio,
        normalize_observations=normalize_observations, num_envs=num_envs, rollout_length=rollout_length,
    )  # fmt: skip
    check_network("dqn", hidden_sizes, activation)
    checks.one_of("dqn", LOSSES, loss=loss)
    checks.integer("dqn", atoms=atoms, quantiles=quantiles)
    checks.number("dqn", v_min=v_min, v_max=v_max)
    checks.one_of("dqn", DUELING, dueling_aggregation=dueling_aggregation)
    if atoms > 1 and quantiles > 1:
        raise checks.JaxrlError(
            f"dqn: quantiles={quantiles} is not accepted together with atoms={atoms}; one must be 1"
        )
    if atoms > 1:  # the head is how the outputs for an action describe its return
        checks.increasing("dqn", v_min=v_min, v_max=v_max)
        head = value_heads.categorical(atoms, v_min, v_max)
    else:
        head = value_heads.quantile(quantiles) if quantiles > 1 else value_heads.expectation(loss)
    optimizer = value_regression.clipped_adam("dqn", learning_rate, max_grad_norm)
    epsilon_at = linear_epsilon("dqn", epsilon_start, epsilon_final, epsilon_decay_steps)

    def network(spec: Spec) -> QNetwork:
        return make_q_network(
            "dqn", spec, torso, hidden_sizes, activation, dueling=dueling_aggregation if dueling else "none",
            noisy=noisy, outputs=head.outputs,
        )  # fmt: skip

    def apply(params: PyTree, obs: Array, spec: Spec, key: Key | None) -> Array:
        return network(spec).apply(params, obs, rngs={"noise": key} if noisy else None)

    def init(key: Key, spec: Spec) -> ReplayState:
        obs = jnp.zeros((1, *spec.obs_space.shape), spec.obs_space.dtype)
        params = network(spec).init(key, obs)
        return value_regression.init_state(experience, params, spec, optimizer)

    def act(state: ReplayState, memory: PyTree, obs: Array, key: Key, step: Array, explore: bool = True):
        noise_key, key = jax.random.split(key) if noisy else (None, key)
        if explore:
            outputs = apply(state.params, obs, state.spec, noise_key)
        else:
            outputs = network(state.spec).apply(state.params, obs)
        return epsilon_greedy(key, head.mean(outputs), epsilon_at(step) if explore else 0.0), memory, {}

    def target(params: PyTree, target_params: PyTree, batch: NStep, spec: Spec, key: Key) -> Array:
        """y = r + gamma Q_target(s', a'), with a' = argmax Q_target(s', .), or argmax Q(s', .) where double."""
        value_key, choice_key = jax.random.split(key)
        next_outputs = apply(target_params, batch.next_obs, spec, value_key)  # [B, num_actions(, K)]
        chooser = apply(params, batch.next_obs, spec, choice_key) if double else next_outputs
        best = jnp.argmax(head.mean(chooser), axis=-1)
        return head.target(take(next_outputs, best), batch.reward, batch.discount)

    def td_loss(params: PyTree, batch: NStep, y: Array, spec: Spec, key: Key) -> Loss:
        """(y - Q(s, a))^2, Huber's in its place, or how far the distribution of returns is from that of y."""
        outputs = take(apply(params, batch.obs, spec, key), batch.action)
        losses, errors = head.loss(outputs, y)
        return Loss(losses, errors, {"q_mean": head.mean(outputs).mean()})

    # Store the transition; sample a batch; a gradient step on its loss; every so many steps the target network moves.
    learn = value_regression.regress_to_targets(
        experience, optimizer=optimizer, target=target, loss=td_loss, metrics=("q_mean",),
        target_update_every=target_update_every, tau=tau, target_network=target_network, anneal_steps=anneal_steps,
    )  # fmt: skip

    return experience.agent(init, act, learn, {"epsilon": epsilon_at})


@preset(dqn)
def rainbow(
    *,
    epsilon_start: float = 0.0,
    epsilon_final: float = 0.0,
    n_step: int = 3,
    replay: str | Replay = "prioritized",
    priority_alpha: float = 0.5,
    double: bool = True,
    dueling: bool = True,
    noisy: bool = True,
    atoms: int = 51,
    **others: Any,
) -> Agent:
    """Rainbow: double, dueling, noisy, categorical, 3-step DQN with prioritized replay (Hessel et al. 2018).

    Args:
      epsilon_start: probability of a random action at the first step, in [0, 1]; at 0 the noise alone explores.
      epsilon_final: the same once it has decayed, in [0, 1].
      n_step: environment steps whose rewards a target holds before it bootstraps.
      replay: uniform, prioritized (in proportion to the error) or ranked (by the error's rank; Schaul et al. 2016); in
        Python also a `Replay`, whose own sizes count in place of replay_size and batch_size.
      priority_alpha: how much the priorities count, in [0, 1].
      double: whether the online network chooses the action that the target network values (van Hasselt et al. 2016).
      dueling: whether the network tells a state's value from the advantages of its actions (Wang et al. 2016).
      noisy: whether the last two layers explore by noise of learnt size (Fortunato et al. 2018).
      atoms: on how many returns from v_min to v_max the network puts probabilities (Bellemare et al. 2017); 1 is off.
      **others: any other argument of `dqn`.
    """
    return dqn(
        epsilon_start=epsilon_start, epsilon_final=epsilon_final, n_step=n_step, replay=replay,
        priority_alpha=priority_alpha, double=double, dueling=dueling, noisy=noisy, atoms=atoms, **others,
    )  # fmt: skip


@preset(dqn)
def qr_dqn(*, quantiles: int = 51, **others: Any) -> Agent:
    """Quantile-regression DQN: the return's quantiles in place of its mean (Dabney et al. 2018, algorithm 1).

    Args:
      quantiles: how many quantiles of the return the network learns; not together with atoms.
      **others: any other argument of `dqn`.
    """
    return dqn(quantiles=quantiles, **others)
