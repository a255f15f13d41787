"""Learning from a replay: what off-policy agents do between their environment steps, but for targets and losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import checks
from jaxrl.agents.optimizer import annealed
from jaxrl.replay import NO_SLOT, Replay, Sample
from jaxrl.types import Array, Key, Metrics, PyTree, Spec, Transition


class ReplayState(NamedTuple):
    """Online and target parameters, the optimiser's state, and the replay; the spec is static, not an array."""

    spec: Spec
    params: PyTree
    target_params: PyTree
    opt_state: PyTree
    replay: PyTree


class Loss(NamedTuple):
    """What a loss reports of a batch.

    Attributes:
      loss: float32 `[B]`, before the importance weights.
      errors: float32 `[B]`, what the replay takes priorities from.
      metrics: float scalars.
    """

    loss: Array
    errors: Array
    metrics: Metrics


def check_schedule(owner: str, *, batch_size: int, replay_size: int, warmup_steps: int, added: int, **counts: int):
    """Checks the sizes and periods that agents with a replay share.

    Args:
      owner: the agent.
      batch_size: transitions in a batch.
      replay_size: transitions in the replay.
      warmup_steps: environment steps before the first gradient step.
      added: num_envs * rollout_length.
      **counts: more arguments that are whole numbers of at least 1.

    Raises:
      JaxrlError: naming the argument, its value and what is accepted.
    """
    checks.integer(owner, batch_size=batch_size, replay_size=replay_size, warmup_steps=warmup_steps, **counts)
    check_replay_size(owner, replay_size, added)
    for name, value in {"replay_size": replay_size, "warmup_steps": warmup_steps}.items():
        if batch_size > value:
            raise checks.JaxrlError(
                f"{owner}: batch_size={batch_size} is not accepted; it must be at most {name}={value}"
            )


def check_replay_size(owner: str, replay_size: int, added: int):
    """Checks that a replay holds a whole number of what is added at once.

    Raises:
      JaxrlError: if it does not.
    """
    if replay_size % added:
        raise checks.JaxrlError(
            f"{owner}: replay_size={replay_size} is not accepted; it must be a multiple of num_envs * rollout_length, "
            f"which is {added}"
        )


def example_trajectory(spec: Spec, shape: tuple[int, int], extras: dict[str, Array] | None = None) -> Transition:
    """Zeros of the shapes and dtypes that a replay will hold, `[T, N, ...]`; the arguments as in `init_state`."""

    def example(like: Any) -> Array:
        return jnp.zeros((*shape, *like.shape), like.dtype)

    flag, obs = example(jnp.bool(False)), example(spec.obs_space)
    kept = jax.tree.map(example, extras or {})
    return Transition(obs, example(spec.action_space), jnp.zeros(shape), flag, flag, obs, kept)


def init_state(
    params: PyTree,
    spec: Spec,
    optimizer: optax.GradientTransformation,
    replay: Replay,
    shape: tuple[int, int],
    extras: dict[str, Array] | None = None,
) -> ReplayState:
    """The state before the first step.

    Args:
      params: of the network.
      spec: the environment's.
      optimizer: of the parameters.
      replay: where transitions are kept.
      shape: (T, N).
      extras: examples of what `act` reports and the replay is to keep, of one environment.
    """
    stored = replay.init(example_trajectory(spec, shape, extras), spec)
    return ReplayState(spec, params, jax.tree.map(jnp.copy, params), optimizer.init(params), stored)


def make_learning(
    *,
    replay: Replay,
    prepare: Callable[[Sample], Any],
    metrics: tuple[str, ...],
    warmup_steps: int,
    gradient_steps: int,
    length: int = 1,
    extras: tuple[str, ...] = (),
) -> Callable[..., tuple[PyTree, PyTree, Metrics]]:
    """What every agent with a replay does in an update: store the trajectory, and after the warm-up learn from samples.

    Args:
      replay: where transitions are kept.
      prepare: from a sample to the batch that a gradient step gets.
      metrics: the names that a gradient step reports; they are 0 during the warm-up.
      warmup_steps: environment steps before the first gradient step.
      gradient_steps: gradient steps in each update.
      length: steps of experience in each element of a sample.
      extras: names of what `act` reports and the replay keeps.

    Returns:
      `learn(gradient_step, learner, memory, trajectory, key, step) -> (learner, memory, metrics)`, where
      `gradient_step(learner, batch, weights, key, count) -> (learner, errors, metrics)`: the learner is what gradient
      steps change, `weights` the importance weights `[B]`, `errors` `[B]` what the replay takes priorities from, and
      `count` the number of the gradient step, which goes on through the warm-up; all seeds share it.
    """

    def learn(
        gradient_step: Callable[..., tuple[PyTree, Array, Metrics]],
        learner: PyTree,
        memory: PyTree,
        trajectory: Transition,
        key: Key,
        step: Array,
    ) -> tuple[PyTree, PyTree, Metrics]:
        kept = {name: trajectory.extras[name] for name in extras}
        memory = replay.add(memory, trajectory._replace(extras=kept), step)
        seen = step + trajectory.reward.size
        first = step // trajectory.reward.size * gradient_steps

        def one(learner: PyTree, inputs: tuple[Key, Array]):
            sample_key, key = jax.random.split(inputs[0])
            sample = replay.sample(memory, sample_key, seen, length)
            learner, errors, values = gradient_step(learner, prepare(sample), sample.weights, key, inputs[1])
            return learner, (values, sample.indices, errors)

        def wait(learner: PyTree, inputs: PyTree):
            batch_size = jax.eval_shape(lambda: replay.sample(memory, key, seen, length)).indices.shape[0]
            errors = jnp.zeros((gradient_steps, batch_size))
            nothing = {name: jnp.zeros(gradient_steps) for name in metrics}
            return learner, (nothing, jnp.full(errors.shape, NO_SLOT, jnp.int32), errors)

        # Neither branch carries the replay: a branch that did would copy it.
        learner, (values, indices, errors) = jax.lax.cond(
            seen >= warmup_steps,
            lambda learner, inputs: jax.lax.scan(one, learner, inputs),
            wait,
            learner,
            (jax.random.split(key, gradient_steps), first + jnp.arange(gradient_steps)),
        )
        memory = replay.update(memory, indices.reshape(-1), errors.reshape(-1))
        return learner, memory, jax.tree.map(jnp.mean, values)

    return learn


def make_update(
    *,
    replay: Replay,
    optimizer: optax.GradientTransformation,
    prepare: Callable[[Sample], Any],
    target: Callable[[PyTree, PyTree, Any, Spec, Key], Any],
    loss: Callable[[PyTree, Any, Any, Spec, Key], Loss],
    metrics: tuple[str, ...],
    warmup_steps: int,
    gradient_steps: int,
    target_update_every: int,
    tau: Array | float,
    target_network: bool = True,
    anneal_steps: int = 0,
    length: int = 1,
    extras: tuple[str, ...] = (),
) -> Callable[[ReplayState, Transition, Key, Array], tuple[ReplayState, Metrics]]:
    """The `update` of an agent that keeps its experience in a replay and regresses one network to targets.

    Args:
      replay: where transitions are kept.
      optimizer: of the parameters.
      prepare: from a sample to the batch that the next two get.
      target: `target(params, target_params, batch, spec, key)`, what the loss takes for constant.
      loss: `loss(params, batch, target, spec, key) -> Loss`.
      metrics: the names that the loss reports; they are 0 during the warm-up.
      warmup_steps: environment steps before the first gradient step.
      gradient_steps: gradient steps in each update.
      target_update_every: environment steps between updates of the target network.
      tau: how far each of these moves the target towards the online network; 1 copies it.
      target_network: whether there is one; if not, the online network takes its place.
      anneal_steps: environment steps over which the steps of the optimiser shrink linearly to nothing; 0 keeps them.
      length: steps of experience in each element of a sample.
      extras: names of what `act` reports and the replay keeps.
    """
    learn = make_learning(
        replay=replay, prepare=prepare, metrics=("loss", *metrics), warmup_steps=warmup_steps,
        gradient_steps=gradient_steps, length=length, extras=extras,
    )  # fmt: skip

    def update(state: ReplayState, trajectory: Transition, key: Key, step: Array) -> tuple[ReplayState, Metrics]:
        def gradient_step(learner: tuple[PyTree, PyTree], batch: Any, weights: Array, key: Key, count: Array):
            params, opt_state = learner
            target_key, loss_key = jax.random.split(key)
            target_params = state.target_params if target_network else params
            goal = jax.lax.stop_gradient(target(params, target_params, batch, state.spec, target_key))
            # First the target, then the rest: neither network's activations are in memory together with the other's.
            goal, params = jax.lax.optimization_barrier((goal, params))

            def weighted(params: PyTree) -> tuple[Array, Loss]:
                out = loss(params, batch, goal, state.spec, loss_key)
                return jnp.mean(weights * out.loss), out

            (value, out), grads = jax.value_and_grad(weighted, has_aux=True)(params)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            if anneal_steps:
                updates = jax.tree.map(lambda u: annealed(step, anneal_steps) * u, updates)
            return (optax.apply_updates(params, updates), opt_state), out.errors, {"loss": value, **out.metrics}

        learner = (state.params, state.opt_state)
        (params, opt_state), memory, values = learn(gradient_step, learner, state.replay, trajectory, key, step)
        target_params = jax.lax.cond(
            (step + trajectory.reward.size) // target_update_every != step // target_update_every,
            lambda: optax.incremental_update(params, state.target_params, tau),
            lambda: state.target_params,
        )
        return ReplayState(state.spec, params, target_params, opt_state, memory), values

    return update
