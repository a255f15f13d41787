"""The one training loop: collect `T` steps from `N` environments, hand the trajectory to `update`, repeat.

Everything here is pure. `jit` it, `vmap` it over seeds or hyper-parameters, shard it over devices:

    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(32))
    state, metrics = jax.jit(jax.vmap(lambda key: train(key, agent, env, 200_000)))(keys)

Time belongs to the loop: `step` counts environment steps, every schedule derives from it, and since all seeds share it
it stays unbatched under `vmap`. So does all that depends on it alone: branches stay branches, writes stay slices.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import checks, prng, sums
from jaxrl.checks import JaxrlError
from jaxrl.envs.check import require_env
from jaxrl.numerics import CONFIG, standard_numbers
from jaxrl.sums import Sum
from jaxrl.types import Agent, Array, Env, HostEnv, Key, Metrics, PyTree, Transition


class Episode(NamedTuple):
    """Return and length of the episode that is going on in each of `N` environments.

    Attributes:
      total: the undiscounted sum of rewards, a compensated sum, `[N]`; with roles of their mean over all agents.
      length: steps, int32 `[N]`.
    """

    total: Sum
    length: Array


class TrainState(NamedTuple):
    """All that training carries from one update to the next.

    Attributes:
      agent: the agent's state.
      memory: what the policy carries in each environment, leaves `[N, ...]`.
      env: the environments' states, leaves `[N, ...]`.
      episode: what the episodes that are going on have come to.
      obs: the observations to act on next, `[N, ...]`.
      key: this seed's own key. It is never drawn from: the keys of an update are folded from it and `step`.
      step: int32 `()`, environment steps taken in all `N` environments together; the same for every seed.
      last_return: float32 `()`, the mean return of the episodes that ended in the last update in which one did;
        `none_yet` before the first.
      first_bad_step: int32 `()`, the `step` after the update at which a loss, or another of the agent's metrics, was
        first not finite (or a parameter, which `train_interval` looks at when it ends); -1 while all are.
    """

    agent: PyTree
    memory: PyTree
    env: PyTree
    episode: Episode | tuple
    obs: PyTree
    key: Key
    step: Array
    last_return: Array
    first_bad_step: Array


class Spread(NamedTuple):
    """Sum, least and greatest of a number over some episodes; each a scalar."""

    sum: Array | Sum
    min: Array
    max: Array


class EpisodeSummary(NamedTuple):
    """How many episodes ended in some span of training, int32 `()`, and their returns and lengths.

    Lengths are summed as int32, as the steps of a run are, which they cannot exceed.
    """

    count: Array
    returns: Spread
    lengths: Spread


def steps_per_update(agent: Agent) -> int:
    """Environment steps between two updates: `num_envs * rollout_length`."""
    return agent.num_envs * agent.rollout_length


def keys_per_step(agent: Agent) -> int:
    """Keys that a step of all environments takes: to act, and for each of them to step and to begin a new episode."""
    return 1 + 2 * agent.num_envs


def num_updates(agent: Agent, num_steps: int) -> int:
    """How many whole updates fit into `num_steps` environment steps.

    Raises:
      JaxrlError: if not even one does, or if it is not a whole number that an int32, the step counter, holds.
    """
    checks.integer("train", num_steps=num_steps)
    if num_steps < steps_per_update(agent):
        raise JaxrlError(
            f"num_steps={num_steps} is not accepted; one update of {agent.name} takes num_envs * rollout_length = "
            f"{agent.num_envs} * {agent.rollout_length} = {steps_per_update(agent)} environment steps, so at least that"
        )
    return num_steps // steps_per_update(agent)


@standard_numbers
def init_train(key: Key, agent: Agent, env: Env | HostEnv) -> TrainState:
    """The state before the first step.

    Args:
      key: the seed's key; different seeds need different ones.
      agent: whom to train.
      env: where. Of an environment on the host, `env`, `episode` and `obs` are `()`: they stay there.

    Raises:
      JaxrlError: if the agent cannot act in the environment, or an argument is of another kind.
    """
    checks.random_key("init_train", key)
    require_agent("init_train", agent)
    env = require_env("init_train", env, on_host=True)
    _check_roles(agent, env)
    init_key, env_key, run_key = jax.random.split(prng.unrolled(key), 3)
    if isinstance(env, HostEnv):
        env_state, obs, episode = (), (), ()
    else:
        env_state, obs = jax.vmap(env.reset)(jax.random.split(env_key, agent.num_envs))
        episode = _no_steps(agent.num_envs)
    return TrainState(
        agent=agent.init(init_key, env.spec),
        memory=agent.init_memory(agent.num_envs),
        env=env_state,
        episode=episode,
        obs=obs,
        key=run_key,
        step=jnp.int32(0),
        last_return=none_yet(),
        first_bad_step=jnp.int32(-1),
    )


def none_yet() -> Array:
    """The mark for a number that is not known: NaN, or infinity where `jax_debug_nans`, which stops at NaN, is on.

    Results on the host have NaN in either case.
    """
    return jnp.float32(jnp.inf if CONFIG.jax_debug_nans else jnp.nan)


def collect(state: TrainState, agent: Agent, env: Env, keys: Key) -> tuple[TrainState, Transition]:
    """Takes `T` steps in each environment, and begins a new episode where one ended.

    Args:
      state: where training stands.
      agent: who acts.
      env: where.
      keys: `[T, 1 + 2 N]`, for each step one to act with, one for each environment's step and one for its next episode.

    Returns:
      the state with the environments moved on (its `step` too), and the trajectory, leaves `[T, N, ...]`, whose extras
      have what the episode of each step has come to with it: `episode_return`, float32, and `episode_length`, int32.
    """
    width, first_memory = agent.num_envs, agent.init_memory(agent.num_envs)

    def one_step(carry, keys):
        memory, env_state, episode, obs, step = carry
        action, memory, act_extras = agent.act(state.agent, memory, obs, keys[0], step)
        env_state, outcome = jax.vmap(env.step)(keys[1 : 1 + width], env_state, action)
        episode = Episode(sums.add(episode.total, mean_reward(outcome.reward, width)), episode.length + 1)
        truncated = outcome.truncated & ~outcome.terminated  # whoever says both: that is a replay's mark of its own
        statistics = {"episode_return": sums.value(episode.total), "episode_length": episode.length}
        transition = Transition(
            obs, action, outcome.reward, outcome.terminated, truncated, outcome.obs,
            outcome.extras | statistics | act_extras,
        )  # fmt: skip
        # The one place where an episode begins after another: each environment draws its own initial state.
        fresh = first_memory, *jax.vmap(env.reset)(keys[1 + width :]), _no_steps(width)
        now = memory, env_state, outcome.obs, episode
        memory, env_state, obs, episode = where(outcome.terminated | truncated, fresh, now)
        return (memory, env_state, episode, obs, step + width), transition

    carry = (state.memory, state.env, state.episode, state.obs, state.step)
    (memory, env_state, episode, obs, step), trajectory = jax.lax.scan(one_step, carry, keys)
    return state._replace(memory=memory, env=env_state, episode=episode, obs=obs, step=step), trajectory


def where(mask: Array, yes: PyTree, no: PyTree) -> PyTree:
    """Of two trees with leaves `[N, ...]` the entries of the one where the mask `[N]` is true, else of the other."""
    return jax.tree.map(lambda x, y: jnp.where(mask.reshape(-1, *(1,) * (y.ndim - 1)), x, y), yes, no)


def _no_steps(num_envs: int) -> Episode:
    return Episode(sums.nothing((num_envs,)), jnp.zeros(num_envs, jnp.int32))


def mean_reward(reward: PyTree, num_envs: int) -> Array:
    """Each environment's reward `[N]`: with roles the mean over all of its agents, else the reward itself."""
    if isinstance(reward, jax.Array):
        return reward
    return jnp.concatenate([x.reshape(num_envs, -1) for x in jax.tree.leaves(reward)], axis=1).mean(axis=1)


def _update(state: TrainState, agent: Agent, env: Env) -> tuple[TrainState, EpisodeSummary, Metrics]:
    """One turn of the loop."""
    length, width = agent.rollout_length, agent.num_envs
    resets = width if agent.episodic else 0
    keys = jax.random.split(jax.random.fold_in(state.key, state.step), 1 + resets + length * keys_per_step(agent))
    rollout_keys = keys[1 + resets :].reshape(length, -1)  # [T * (1 + 2 N)] -> [T, 1 + 2 N]
    if agent.episodic:
        env_state, obs = jax.vmap(env.reset)(keys[1 : 1 + resets])
        state = state._replace(memory=agent.init_memory(width), env=env_state, episode=_no_steps(width), obs=obs)
    moved, trajectory = collect(state, agent, env, rollout_keys)
    return learn(moved, agent, trajectory, keys[0], state.step)


def learn(
    state: TrainState, agent: Agent, trajectory: Transition, key: Key, step: Array
) -> tuple[TrainState, EpisodeSummary, Metrics]:
    """Hands a trajectory to the agent.

    Args:
      state: where training stands after the trajectory.
      agent: who learns.
      trajectory: leaves `[T, N, ...]`, with episode statistics.
      key: the update's.
      step: environment steps before the trajectory.

    Returns:
      the new state, the episodes that ended in the trajectory, and what `agent.update` reports.
    """
    agent_state, metrics = agent.update(state.agent, trajectory, key, step)
    episodes = summarize(trajectory)
    bad = ~jnp.isfinite(sum(jax.tree.leaves(metrics), jnp.float32(0)))
    state = state._replace(
        agent=agent_state,
        last_return=jnp.where(episodes.count > 0, mean_return(episodes), state.last_return),
        first_bad_step=_mark(state.first_bad_step, bad, state.step),
    )
    return state, episodes, metrics


def _mark(first_bad_step: Array, bad: Array, step: Array) -> Array:
    return jnp.where((first_bad_step < 0) & bad, step, first_bad_step)


def require_agent(owner: str, agent: Any):
    """Checks that `agent` is an agent, and neither its constructor nor its name.

    Raises:
      JaxrlError: saying how to make one.
    """
    if not isinstance(agent, Agent):
        name = agent if isinstance(agent, str) else getattr(getattr(agent, "func", agent), "__name__", "ppo")
        hint = f"call the constructor: jaxrl.{name}()" if callable(agent) else f"it must be an Agent, as jaxrl.{name}()"
        raise JaxrlError(f"{owner}: agent={checks.shown(agent)} is not accepted; {hint}")


def _check_roles(agent: Agent, env: Env | HostEnv):
    if bool(env.spec.roles) != agent.takes_roles:
        roles = ", ".join(f"{role.num_agents} {role.name}" for role in env.spec.roles)
        has, takes = f"has roles ({roles})" if roles else "is for one agent", "many agents" if roles else "one"
        raise JaxrlError(f"{agent.name}: {env.spec.id} {has}; it must be an agent for {takes}")


def _check(owner: str, state: TrainState, agent: Agent, env: Env) -> Env:
    if not isinstance(state, TrainState):
        raise JaxrlError(
            f"{owner}: a state of type {type(state).__name__} is not accepted; it must be a TrainState, as "
            "jaxrl.init_train returns"
        )
    require_agent(owner, agent)
    return require_env(owner, env)


@standard_numbers
def train_step(state: TrainState, agent: Agent, env: Env) -> tuple[TrainState, Metrics]:
    """One update: `T` steps in `N` environments, then `agent.update`.

    Returns:
      the new state, and scalars: what `agent.update` reports, `episode_count`, and the mean, min and max of
      `episode_return` and `episode_length` over the episodes that ended. Where none did, these are NaN, except
      `episode_return`: it is the last known one (NaN only before any episode ended). With `jax_debug_nans`, which
      stops at NaN, they are infinity instead.

    Raises:
      JaxrlError: if an argument is of another kind.
    """
    state, episodes, metrics = _update(state, agent, _check("train_step", state, agent, env))
    return state, metrics | episode_metrics(episodes) | {"episode_return": state.last_return}


@standard_numbers
def train(key: Key, agent: Agent, env: Env, num_steps: int) -> tuple[TrainState, Metrics]:
    """Trains one seed from the beginning. Pure: may be jitted, vmapped over keys or hyper-parameters, and sharded.

    Args:
      key: the seed's key, from `jax.random.key` or folded from one.
      agent: whom to train, such as `ppo()`.
      env: where, such as `make("CartPole-v1")`.
      num_steps: environment steps, summed over the `N` environments; a last, incomplete update is left out.

    Returns:
      the final state, and the metrics of `train_step`, each of shape `[num_updates]`.

    Raises:
      JaxrlError: if the agent cannot act in the environment, `num_steps` is less than one update takes, or an argument
        is of another kind.
    """
    checks.random_key("train", key)
    require_agent("train", agent)
    require_env("train", env)
    length = num_updates(agent, num_steps)
    state = init_train(key, agent, env)
    return jax.lax.scan(lambda state, _: train_step(state, agent, env), state, length=length)


@standard_numbers
def train_interval(state: TrainState, agent: Agent, env: Env, updates: Array | int) -> tuple[TrainState, Metrics]:
    """Several updates with their metrics reduced in the graph, so that what reaches the host does not grow with them.

    Args:
      state: where training stands.
      agent: whom to train.
      env: where.
      updates: how many updates, at least one; it may be traced, so one compiled program serves every span.

    Returns:
      the state after them, and scalars: the means of what `agent.update` reports, and over all the episodes that ended
      the mean, min and max of `episode_return` and `episode_length` (NaN where none ended) and `episode_count`.

    Raises:
      JaxrlError: if an argument is of another kind.
    """
    env = _check("train_interval", state, agent, env)
    if not (isinstance(updates, jax.Array) and updates.shape == () and jnp.issubdtype(updates.dtype, jnp.integer)):
        checks.integer("train_interval", updates=updates)
    update = jax.jit(lambda state: _update(state, agent, env))  # traced once, for its shapes and for the loop
    _, _, shapes = jax.eval_shape(update, state)
    nothing = nothing_seen(shapes)

    def one(_, carry):
        state, seen = carry
        state, *new = update(state)
        return state, add(seen, *new)

    def block(carry):
        done, state, seen = carry
        some = jnp.minimum(updates - done, BLOCK)
        state, summed = jax.lax.fori_loop(0, some, one, (state, jax.tree.map(_one_number, nothing, is_leaf=_is_sum)))
        return done + some, state, add(seen, *summed)

    _, state, seen = jax.lax.while_loop(lambda carry: carry[0] < updates, block, (jnp.int32(0), state, nothing))
    return state._replace(first_bad_step=checked_parameters(state)), interval_metrics(seen, updates)


# So many updates are added up in single numbers before their sum joins that of an interval, which is compensated: to
# do so for each of them would cost a tabular agent a fifth of its speed.
BLOCK = 256

# Over the updates of an interval: the episodes that ended, and metrics' sums. Those are compensated, and so is that of
# the returns; within a block of updates they are single numbers.
Seen = tuple[EpisodeSummary, dict[str, Any]]


def nothing_seen(metrics: Metrics) -> Seen:
    """What an interval begins with; of the metrics only shapes and dtypes count."""
    zero, inf = jnp.int32(0), jnp.float32(jnp.inf)
    totals = {name: sums.nothing(x.shape, x.dtype) for name, x in metrics.items()}
    return EpisodeSummary(zero, Spread(sums.nothing(), inf, -inf), Spread(zero, inf, -inf)), totals


def add(seen: Seen, episodes: EpisodeSummary, metrics: Metrics) -> Seen:
    """What was seen, with another update's, or with what the updates of a block come to."""
    return merge(seen[0], episodes), {name: _plus(seen[1][name], x) for name, x in metrics.items()}


def _is_sum(x: PyTree) -> bool:
    return isinstance(x, Sum)


def _one_number(total: Array | Sum) -> Array:
    return sums.value(total) if isinstance(total, Sum) else total


def _plus(total: Array | Sum, x: Any) -> Array | Sum:
    return sums.add(total, x) if isinstance(total, Sum) else total + x


def interval_metrics(seen: Seen, updates: Array | int) -> Metrics:
    """The metrics of an interval of so many updates, as `train_interval` returns them."""
    return {name: sums.value(total) / updates for name, total in seen[1].items()} | episode_metrics(seen[0])


def checked_parameters(state: TrainState) -> Array:
    """`first_bad_step`, after a look at the agent's parameters: reading a replay would take longer than training."""
    params = getattr(state.agent, "params", state.agent)
    floats = [x for x in jax.tree.leaves(params) if jnp.issubdtype(x.dtype, jnp.floating)]
    bad = ~jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in floats]))
    return _mark(state.first_bad_step, bad, state.step)


def summarize(trajectory: Transition) -> EpisodeSummary:
    """Sums and extremes over the episodes that ended within a trajectory `[T, N, ...]`."""
    ended = trajectory.terminated | trajectory.truncated

    def spread(x: Array) -> Spread:
        real = x.astype(jnp.float32)
        least, greatest = jnp.min(real, where=ended, initial=jnp.inf), jnp.max(real, where=ended, initial=-jnp.inf)
        return Spread(jnp.sum(x, where=ended, dtype=x.dtype), least, greatest)

    count, extras = jnp.sum(ended, dtype=jnp.int32), trajectory.extras
    return EpisodeSummary(count, spread(extras["episode_return"]), spread(extras["episode_length"]))


def merge(a: EpisodeSummary, b: EpisodeSummary) -> EpisodeSummary:
    """The summary of two spans taken together, where the second one's sum of returns is one number."""

    def both(x: Spread, y: Spread) -> Spread:
        return Spread(_plus(x.sum, y.sum), jnp.minimum(x.min, y.min), jnp.maximum(x.max, y.max))

    return EpisodeSummary(a.count + b.count, both(a.returns, b.returns), both(a.lengths, b.lengths))


def mean_return(episodes: EpisodeSummary) -> Array:
    """The episodes' mean return; 0 where there are none."""
    return _one_number(episodes.returns.sum) / jnp.maximum(episodes.count, 1)


def episode_metrics(episodes: EpisodeSummary) -> Metrics:
    """A summary under the names that results and figures use; `none_yet` where no episode ended."""
    metrics = {"episode_count": episodes.count}
    mean_length = _one_number(episodes.lengths.sum) / jnp.maximum(episodes.count, 1)
    for name, mean, spread in (
        ("episode_return", mean_return(episodes), episodes.returns),
        ("episode_length", mean_length, episodes.lengths),
    ):
        known = {name: mean, f"{name}_min": spread.min, f"{name}_max": spread.max}
        metrics |= {key: jnp.where(episodes.count > 0, x, none_yet()) for key, x in known.items()}
    return metrics
