"""Recurrent deep Q-network with stored states and burn-in, R2D2 (Kapturowski et al. 2019), for partial observations."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import checks
from jaxrl.constructors import agent_constructor
from jaxrl.exploration import epsilon_greedy, linear_epsilon, spread_epsilons
from jaxrl.learning import value_regression
from jaxrl.learning.experience import ReplayState, make_experience
from jaxrl.learning.value_heads import LOSSES
from jaxrl.learning.value_regression import Loss
from jaxrl.losses import take
from jaxrl.networks.actor_critic import check_network
from jaxrl.networks.q_network import DUELING
from jaxrl.networks.recurrent import CELLS, RecurrentQNetwork, carry_size, make_recurrent_q_network
from jaxrl.replay import Replay, Sample
from jaxrl.returns import n_step_returns
from jaxrl.types import Agent, Array, Key, PyTree, Spec

RESCALE_SLOPE = 1e-3  # epsilon of the value rescaling


class Stretch(NamedTuple):
    """Consecutive steps, time first.

    Attributes:
      carry: float32 `[B, C]`, what the network carried when the first step was taken.
      fresh: bool `[B]`, whether that was an episode's first.
      obs: `[L + 1, B, ...]`: entry t + 1 is the true successor of step t wherever step t is valid.
      previous: int32 `[L + 1, B]`, 1 more than the action that led to that observation; 0 where an episode began.
      action: int32 `[L, B]`.
      reward: float32 `[L, B]`.
      terminated: bool `[L, B]`.
      last: bool `[L, B]`, steps after which nothing valid follows.
      counts: bool `[L, B]`, steps that are learnt from.
      ended: bool `[B]`, whether the episode ended within.
    """

    carry: Array
    fresh: Array
    obs: Array
    previous: Array
    action: Array
    reward: Array
    terminated: Array
    last: Array
    counts: Array
    ended: Array


def rescale_value(x: Array) -> Array:
    """h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x with epsilon = 0.001 (Pohlen et al. 2018, proposition A.2)."""
    return jnp.sign(x) * (jnp.sqrt(jnp.abs(x) + 1) - 1) + RESCALE_SLOPE * x


def unscale_value(x: Array) -> Array:
    """The inverse of `rescale_value`, solved for the square root r = sqrt(|h^-1(x)| + 1).

    epsilon r^2 + r = |x| + 1 + epsilon. The root is written without a difference of like numbers, which in float32
    would leave few digits.
    """
    constant = jnp.abs(x) + 1 + RESCALE_SLOPE
    root = 2 * constant / (1 + jnp.sqrt(1 + 4 * RESCALE_SLOPE * constant))
    return jnp.sign(x) * (root - 1) * (root + 1)


@agent_constructor
def r2d2(
    *,
    learning_rate: float = 1e-3,
    anneal_steps: int = 0,
    epsilon_start: float = 1.0,
    epsilon_final: float = 0.4,
    epsilon_decay_steps: int = 10_000,
    epsilon_spread: float = 7.0,
    gamma: float = 0.99,
    n_step: int = 3,
    replay: str | Replay = "prioritized",
    replay_size: int = 20_000,
    batch_size: int = 32,
    priority_alpha: float = 0.9,
    priority_beta: float = 0.6,
    priority_beta_steps: int = 100_000,
    warmup_steps: int = 1_000,
    replay_ratio: int | float = 1 / 16,
    normalize_observations: bool = False,
    num_envs: int = 4,
    rollout_length: int = 4,
    priority_eta: float = 0.9,
    target_update_every: int = 16,
    tau: float = 0.01,
    double: bool = True,
    dueling: bool = False,
    dueling_aggregation: str = "mean",
    burn_in: int = 4,
    unroll: int = 16,
    rescale: bool = True,
    loss: str = "squared",
    max_grad_norm: float = 10.0,
    cell: str = "gru",
    cell_size: int = 32,
    hidden_sizes: tuple[int, ...] = (32,),
    activation: str = "relu",
    torso: str = "auto",
) -> Agent:
    """Recurrent deep Q-network, for discrete actions and observations that do not tell the whole state.

    A DQN whose network carries a memory from step to step; the cell sees each observation beside the action before it.
    The replay keeps with each step what the memory was before it, and hands out stretches of `burn_in + unroll` steps:
    the network goes through the first of them from the stored memory only to bring it up to date, without gradient, and
    learns from the rest (Kapturowski et al. 2019, section 3). Stretches are drawn by their priorities, and each
    environment explores with an epsilon of its own (Horgan et al. 2018, section 4.1):

    ```
    target[t] = h(r[t] + ... + gamma^(m-1) r[t+m-1] + gamma^m h^-1(Q_target(s[t+m], argmax_a Q(s[t+m], a))))
    priority  = eta max_t |td[t]| + (1 - eta) mean_t |td[t]|
    epsilon_i = epsilon^(1 + spread i / (N - 1)),  i = 0 .. N - 1
    ```

    m is n_step, and fewer at an episode's or a stretch's end; h is the identity without `rescale`. A stretch may begin
    at any step, and is cut off where its episode ends. From one that begins where an episode does, whose memory is
    right whatever the network, the burn-in is learnt from, too: no other stretch could teach about these steps.

    What differs from the paper: the cell does not see the reward of the step before, which `act` is not told. Stretches
    begin anywhere, and not at every 40th step. A new one gets the highest priority so far, and not one that the actor
    computed. Epsilon falls from 1 to the paper's 0.4, and beta rises from its 0.6 to 1. Sizes are those of tasks
    that a CPU learns in minutes; the paper's are burn_in=40, unroll=80, n_step=5, gamma=0.997, batch_size=64,
    learning_rate=1e-4, tau=1 every 2,500 gradient steps, cell="lstm", cell_size=512, dueling=True and num_envs=256.

    Args:
      learning_rate: Adam's step size, > 0.
      anneal_steps: environment steps over which the learning rate falls linearly to 0; 0 keeps it constant.
      epsilon_start: probability of a random action at the first step, in [0, 1].
      epsilon_final: the same once it has decayed, in [0, 1]; that of the first environment, see `epsilon_spread`.
      epsilon_decay_steps: environment steps over which epsilon falls linearly from the one to the other.
      epsilon_spread: how much smaller it is in the other environments than in the first, >= 0; 0 gives all the same.
      gamma: discount, in [0, 1].
      n_step: environment steps whose rewards a target holds before it bootstraps.
      replay: uniform, prioritized (in proportion to the error) or ranked (by the error's rank; Schaul et al. 2016); in
        Python also a `Replay`, whose own sizes count in place of replay_size and batch_size.
      replay_size: steps that the replay holds, in each environment one stretch at least; a multiple of num_envs *
        rollout_length.
      batch_size: stretches in each gradient step; at most warmup_steps.
      priority_alpha: how much the priorities count, in [0, 1].
      priority_beta: how much of their bias the importance weights take away at the first step, in [0, 1].
      priority_beta_steps: environment steps over which that rises linearly to 1.
      warmup_steps: environment steps before the first gradient step.
      replay_ratio: gradient steps for each environment step, of all environments together; it may be less than 1.
      normalize_observations: whether observations are scaled by the running mean and standard deviation of all so far;
        the replay keeps them as they are.
      num_envs: environments that run in parallel.
      rollout_length: steps taken in each environment between updates.
      priority_eta: how much of a stretch's priority is its largest error, in [0, 1]; the rest is the mean.
      target_update_every: environment steps between updates of the target network.
      tau: how far each of these moves the target towards the online network, in (0, 1]; 1 copies it.
      double: whether the online network chooses the action that the target network values (van Hasselt et al. 2016,
        equation 4).
      dueling: whether the network tells a state's value from the advantages of its actions (Wang et al. 2016).
      dueling_aggregation: what is subtracted from the advantages before they are added to the value: their mean
        (equation 9) or their max (equation 8).
      burn_in: steps that bring the stored memory up to date; may be 0.
      unroll: steps after these that are learnt from.
      rescale: whether the network's values are squashed by h (Pohlen et al. 2018).
      loss: of the temporal-difference error: squared or huber. Huber's tends to the median of a target: where what is
        seen does not tell that an episode is about to end, it takes the end for an outlier, and values grow too high.
      max_grad_norm: global norm that the gradient is clipped to, > 0.
      cell: gru or lstm.
      cell_size: its units.
      hidden_sizes: units of each fully connected layer before the cell.
      activation: of the hidden layers: tanh, relu, swish, elu or gelu.
      torso: mlp, cnn, nature, or auto: nature for images of at least 36 x 36 pixels, cnn for smaller ones, else mlp.

    Returns:
      an `Agent`; its metrics are loss, q_mean (over the actions learnt from) and epsilon (the first environment's).
      During the warm-up the first two are 0.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.

    Example:
      >>> r2d2(cell="lstm", cell_size=16).init_memory(3).shape
      (3, 33)
    """
    experience = make_experience(
        "r2d2", gamma=gamma, n_step=n_step, replay=replay, replay_size=replay_size, batch_size=batch_size,
        priority_alpha=priority_alpha, priority_beta=priority_beta, priority_beta_steps=priority_beta_steps,
        warmup_steps=warmup_steps, replay_ratio=replay_ratio, normalize_observations=normalize_observations,
        num_envs=num_envs, rollout_length=rollout_length,
    )  # fmt: skip
    check_network("r2d2", hidden_sizes, activation)
    checks.one_of("r2d2", LOSSES, loss=loss)
    checks.number("r2d2", 0, 1, priority_eta=priority_eta)
    checks.number("r2d2", 0, epsilon_spread=epsilon_spread)
    checks.integer("r2d2", unroll=unroll, cell_size=cell_size)
    checks.integer("r2d2", 0, burn_in=burn_in)
    checks.one_of("r2d2", CELLS, cell=cell)
    checks.one_of("r2d2", DUELING, dueling_aggregation=dueling_aggregation)
    length = burn_in + unroll
    capacity, least = experience.replay.capacity, num_envs * length
    if capacity is not None and capacity < least:
        text = "replay.capacity" if isinstance(replay, Replay) else "replay_size"
        text += f"={capacity} is not accepted; it must be at least num_envs * (burn_in + unroll), which is {least}"
        raise checks.JaxrlError(f"r2d2: {text}")
    optimizer = value_regression.clipped_adam("r2d2", learning_rate, max_grad_norm)
    epsilon_at = linear_epsilon("r2d2", epsilon_start, epsilon_final, epsilon_decay_steps)
    squash, unsquash = (rescale_value, unscale_value) if rescale else (lambda x: x, lambda x: x)

    def network(spec: Spec) -> RecurrentQNetwork:
        return make_recurrent_q_network(
            "r2d2", spec, torso, hidden_sizes, activation, cell=cell, cell_size=cell_size,
            dueling=dueling_aggregation if dueling else "none",
        )  # fmt: skip

    def init_memory(num_envs: int) -> Array:
        return jnp.zeros((num_envs, carry_size(cell, cell_size) + 1))  # beside the carry, 1 more than the last action

    def parts(memory: Array) -> tuple[Array, Array]:
        """The carry `[N, C]`, and 1 more than the last action, int32 `[N]`; 0 where an episode begins."""
        return memory[:, :-1], memory[:, -1].astype(jnp.int32)

    def init(key: Key, spec: Spec) -> ReplayState:
        net = network(spec)
        obs = jnp.zeros((1, 1, *spec.obs_space.shape), spec.obs_space.dtype)
        carry, previous = parts(init_memory(1))
        params = net.init(key, carry, obs, previous[None])
        kept = {"memory": init_memory(1)[0]}
        return value_regression.init_state(experience, params, spec, optimizer, kept)

    def act(state: ReplayState, memory: Array, obs: Array, key: Key, step: Array, explore: bool = True):
        carry, previous = parts(memory)
        carries, q = network(state.spec).apply(state.params, carry, obs[None], previous[None])
        epsilon = spread_epsilons(epsilon_at(step), epsilon_spread, len(obs)) if explore else 0.0
        action = epsilon_greedy(key, q[0], epsilon)
        return action, jnp.column_stack([carries[0], action + 1]), {"memory": memory}

    def prepare(sample: Sample) -> Stretch:
        steps = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), sample.steps)  # [B, L, ...] -> [L, B, ...]
        valid, (carry, first_previous) = sample.valid.T, parts(steps.extras["memory"][0])
        previous = jnp.concatenate([first_previous[None], steps.action + 1])
        fresh = first_previous == 0
        used = (jnp.arange(length) >= burn_in)[:, None] | fresh
        # Within an episode the next observation is the next entry anyway; at its end it is the true last one.
        obs = jnp.concatenate([steps.obs[:1], steps.next_obs])
        last = ~jnp.concatenate([valid[1:], jnp.zeros_like(valid[:1])])
        # Both at once is a void step, which a stretch ends before.
        void = valid[:-1] & (steps.terminated & steps.truncated)[1:]
        ended = jnp.any(valid & (steps.terminated | steps.truncated), axis=0) | jnp.any(void, axis=0)
        counts = valid & used
        return Stretch(carry, fresh, obs, previous, steps.action, steps.reward, steps.terminated, last, counts, ended)

    def q_values(params: PyTree, batch: Stretch, spec: Spec) -> Array:
        """Q of each entry of `obs`, `[L + 1, B, num_actions]`."""
        net, carry, warm = network(spec), batch.carry, []
        if burn_in:
            carries, q = net.apply(params, carry, batch.obs[:burn_in], batch.previous[:burn_in])
            carry, warm = carries[-1], [q]
            carry = jnp.where(batch.fresh[:, None], carry, jax.lax.stop_gradient(carry))
        return jnp.concatenate([*warm, net.apply(params, carry, batch.obs[burn_in:], batch.previous[burn_in:])[1]])

    def target(params: PyTree, target_params: PyTree, batch: Stretch, spec: Spec, key: Key) -> Array:
        return unsquash(q_values(target_params, batch, spec)[1:])  # [L, B, num_actions], of the steps' successors

    def td_loss(params: PyTree, batch: Stretch, next_q: Array, spec: Spec, key: Key) -> Loss:
        q = q_values(params, batch, spec)
        best = jnp.argmax(jax.lax.stop_gradient(q[1:]) if double else next_q, axis=-1)
        discounts = experience.gamma * (1.0 - batch.terminated)
        returns = n_step_returns(batch.reward, discounts, take(next_q, best), experience.n_step, batch.last)
        taken, counts = take(q[:-1], batch.action), batch.counts
        # A selection before the loss: what is not learnt from has an error, and so a gradient, of 0.
        errors = jnp.where(counts, taken - squash(returns), 0.0)
        sizes = jnp.abs(jax.lax.stop_gradient(errors))
        num = jnp.maximum(counts.sum(axis=0), 1)
        priority = priority_eta * sizes.max(axis=0) + (1 - priority_eta) * sizes.sum(axis=0) / num
        # Too little of it has happened yet: that it is not forgotten, it is taken for the largest.
        priority = jnp.where(counts.any(axis=0) | batch.ended, priority, priority.max())
        q_mean = jnp.sum(taken, where=counts) / jnp.maximum(counts.sum(), 1)
        value = jnp.sum(LOSSES[loss](errors, jnp.zeros_like(errors)), axis=0) / unroll
        return Loss(value, priority, {"q_mean": q_mean})

    learn = value_regression.regress_to_targets(
        experience, optimizer=optimizer, target=target, loss=td_loss, metrics=("q_mean",),
        target_update_every=target_update_every, tau=tau, anneal_steps=anneal_steps, prepare=prepare, length=length,
        extras=("memory",),
    )  # fmt: skip

    return experience.agent(init, act, learn, {"epsilon": epsilon_at}, init_memory=init_memory)
