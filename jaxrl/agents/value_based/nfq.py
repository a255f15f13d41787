"""Neural fitted Q iteration (Riedmiller 2005): regressions to all that has been seen, again and again."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import checks
from jaxrl.constructors import agent_constructor
from jaxrl.exploration import epsilon_greedy, linear_epsilon
from jaxrl.learning.experience import check_replay_size, example_trajectory, interrupt_of
from jaxrl.losses import take
from jaxrl.networks import QNetwork, make_q_network
from jaxrl.networks.actor_critic import check_network
from jaxrl.replay import ring, uniform
from jaxrl.types import Agent, Array, Key, Metrics, PyTree, Spec, Transition

GROWTH, SHRINKAGE, MIN_STEP, MAX_STEP = 1.2, 0.5, 1e-6, 50.0  # of Rprop's step sizes


class NFQState(NamedTuple):
    """The network's parameters, and all the experience; the spec is static, not an array."""

    spec: Spec
    params: PyTree
    replay: ring.Ring


class FitRows(NamedTuple):
    """What a fit is of, `[n, ...]`, and which rows count: those that were written to and are not void."""

    obs: Array
    action: Array
    target: Array
    counts: Array


class RpropState(NamedTuple):
    """Of each parameter, its step size, and the gradient before this one: 0 where that changed its sign."""

    sizes: PyTree
    previous: PyTree


def rprop(learning_rate: Array | float) -> optax.GradientTransformation:
    """Resilient backpropagation: each parameter has a step size of its own, and only gradients' signs count.

    It grows by `GROWTH` where the sign stays, and shrinks by `SHRINKAGE` where it changes; the parameter then rests for
    one step (Riedmiller and Braun 1993, in the form of Igel and Huesken 2003 called iRprop-). `optax.rprop` applies
    each gradient's step one step late.

    Args:
      learning_rate: the first step size, > 0.
    """

    def init(params: PyTree) -> RpropState:
        return RpropState(optax.tree.full_like(params, learning_rate), optax.tree.zeros_like(params))

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, RpropState]:
        def resize(size: Array, grad: Array, previous: Array) -> Array:
            # Signs and not the gradients: these are small, and their product may be 0 where they agree.
            agreement = jnp.sign(grad) * jnp.sign(previous)
            factor = jnp.where(agreement > 0, GROWTH, jnp.where(agreement < 0, SHRINKAGE, 1.0))
            return jnp.clip(size * factor, MIN_STEP, MAX_STEP)

        def rest(grad: Array, previous: Array) -> Array:
            return jnp.where(jnp.sign(grad) * jnp.sign(previous) < 0, 0.0, grad)

        sizes = jax.tree.map(resize, state.sizes, updates, state.previous)
        grads = jax.tree.map(rest, updates, state.previous)
        return jax.tree.map(lambda size, grad: -size * jnp.sign(grad), sizes, grads), RpropState(sizes, grads)

    return optax.GradientTransformation(init, update)


OPTIMIZERS = ("rprop", "adam")


@agent_constructor
def nfq(
    *,
    learning_rate: float = 1e-2,
    gamma: float = 0.95,
    epsilon_start: float = 1.0,
    epsilon_final: float = 0.05,
    epsilon_decay_steps: int = 2_000,
    replay_size: int = 5_000,
    num_iterations: int = 5,
    num_gradient_steps: int = 200,
    batch_size: int = 0,
    optimizer: str = "rprop",
    num_envs: int = 1,
    rollout_length: int = 500,
    hidden_sizes: tuple[int, ...] = (20, 20),
    activation: str = "tanh",
    torso: str = "auto",
) -> Agent:
    """Neural fitted Q iteration, for discrete actions.

    Collects a batch of steps, adds it to those before, and then makes a few iterations of fitted Q. Each computes the
    targets of all steps from the network as it is, and holds them fixed while it fits the network to them (Riedmiller
    2005, figure 1):

    ```
    target_i <- r_i + gamma max_a Q(s'_i, a; params_k)                             for every step i of the data
    params_k+1 <- argmin over params of mean_i (Q(s_i, a_i; params) - target_i)^2 / 2,    begun at params_k
    ```

    The paper minimises costs with one network of (s, a), and begins each fit anew; here rewards are maximised, the
    network gives the values of all actions at once, and fits go on from one another, which takes fewer steps.

    Args:
      learning_rate: the first step size of Rprop or Adam, > 0; each fit begins with it, and Adam's falls linearly to 0
        until the fit ends, so that it ends near its minimum however small the batches.
      gamma: discount, in [0, 1].
      epsilon_start: probability of a random action at the first step, in [0, 1].
      epsilon_final: the same once it has decayed, in [0, 1].
      epsilon_decay_steps: environment steps over which epsilon falls linearly from the one to the other.
      replay_size: steps that are kept, the newest; a multiple of num_envs * rollout_length. A gradient step on all of
        them is as much work as if that many had been seen.
      num_iterations: targets computed, and fits to them, in each update.
      num_gradient_steps: of each fit.
      batch_size: steps that each gradient step is on, drawn from all that are kept; 0 is all of them, as in the paper,
        and what Rprop needs, as it goes by signs that then do not change by chance.
      optimizer: of the fits: rprop (Riedmiller and Braun 1993) or adam.
      num_envs: environments that run in parallel.
      rollout_length: steps taken in each environment between updates.
      hidden_sizes: units of each fully connected layer.
      activation: of the hidden layers: tanh, relu, swish, elu or gelu.
      torso: mlp, cnn, nature, or auto: nature for images of at least 36 x 36 pixels, cnn for smaller ones, else mlp.

    Returns:
      an `Agent`; its metrics are loss (the last gradient step's), q_mean (over all actions taken) and epsilon.

    Raises:
      JaxrlError: where an argument is out of its range; at `init`, where the environment does not fit.

    Example:
      >>> nfq(num_iterations=3).rollout_length
      500
    """
    checks.number("nfq", 0, open_low=True, learning_rate=learning_rate)
    checks.number("nfq", 0, 1, gamma=gamma)
    checks.integer("nfq", replay_size=replay_size, num_envs=num_envs, rollout_length=rollout_length)
    checks.integer("nfq", num_iterations=num_iterations, num_gradient_steps=num_gradient_steps)
    checks.integer("nfq", 0, batch_size=batch_size)
    checks.one_of("nfq", OPTIMIZERS, optimizer=optimizer)
    if batch_size and optimizer == "rprop":
        raise checks.JaxrlError(
            f"nfq: batch_size={batch_size} is not accepted with optimizer='rprop'; it must be 0, or optimizer='adam'"
        )
    check_network("nfq", hidden_sizes, activation)
    check_replay_size("nfq", replay_size, num_envs * rollout_length)
    data = uniform(capacity=replay_size, batch_size=1)  # nothing is drawn from it
    if optimizer == "adam":
        fit_optimizer = optax.adam(optax.linear_schedule(learning_rate, 0.0, num_gradient_steps))
    else:
        fit_optimizer = rprop(learning_rate)
    epsilon_at = linear_epsilon("nfq", epsilon_start, epsilon_final, epsilon_decay_steps)

    def network(spec: Spec) -> QNetwork:
        return make_q_network("nfq", spec, torso, hidden_sizes, activation)

    def init(key: Key, spec: Spec) -> NFQState:
        example = example_trajectory(spec, (rollout_length, num_envs))
        return NFQState(spec, network(spec).init(key, example.obs[0]), data.init(example, spec))

    def act(state: NFQState, memory: PyTree, obs: Array, key: Key, step: Array, explore: bool = True):
        q = network(state.spec).apply(state.params, obs)
        return epsilon_greedy(key, q, epsilon_at(step) if explore else 0.0), memory, {}

    def update(state: NFQState, trajectory: Transition, key: Key, step: Array) -> tuple[NFQState, Metrics]:
        replay = data.add(state.replay, trajectory._replace(extras={}), step)
        seen, slots = step + trajectory.reward.size, jnp.arange(replay_size)
        steps, valid = ring.window(replay, key, slots, seen, 1)  # at given slots, so the key draws nothing
        steps, valid = jax.tree.map(lambda x: x[:, 0], (steps, valid))  # [replay_size, 1, ...] -> [replay_size, ...]
        # The slots are filled in their order, and all of them once that is through.
        counts = valid & (slots < seen)
        net = network(state.spec)

        def fit_loss(params: PyTree, rows: FitRows) -> tuple[Array, Array]:
            q = take(net.apply(params, rows.obs), rows.action)
            num = jnp.maximum(rows.counts.sum(), 1)
            return jnp.sum(optax.l2_loss(q, rows.target), where=rows.counts) / num, jnp.sum(q, where=rows.counts) / num

        def iteration(params: PyTree, key: Key) -> tuple[PyTree, tuple[Array, Array]]:
            best = net.apply(params, steps.next_obs).max(axis=-1)
            target = steps.reward + gamma * (1.0 - steps.terminated) * best
            everything = FitRows(steps.obs, steps.action, target, counts)

            def gradient_step(carry, key: Key):
                params, opt_state = carry
                rows = everything
                if batch_size:
                    drawn = jax.random.randint(key, (batch_size,), 0, jnp.minimum(seen, replay_size))
                    rows = jax.tree.map(lambda x: x[drawn], everything)
                values, grads = jax.value_and_grad(fit_loss, has_aux=True)(params, rows)
                updates, opt_state = fit_optimizer.update(grads, opt_state, params)
                return (optax.apply_updates(params, updates), opt_state), values

            carry = (params, fit_optimizer.init(params))
            (params, _), values = jax.lax.scan(gradient_step, carry, jax.random.split(key, num_gradient_steps))
            return params, jax.tree.map(lambda x: x[-1], values)

        params, values = jax.lax.scan(iteration, state.params, jax.random.split(key, num_iterations))
        loss, q_mean = jax.tree.map(lambda x: x[-1], values)
        metrics = {"loss": loss, "q_mean": q_mean, "epsilon": epsilon_at(step)}
        return NFQState(state.spec, params, replay), metrics

    return Agent(
        init, act, update, num_envs, rollout_length, name="nfq", tolerates_stale_actions=True,
        interrupt=interrupt_of(data),
    )  # fmt: skip
