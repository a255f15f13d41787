"""Where an episode ends the loop begins another: in environments of several kinds, each step taken again by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tracing import misused_keys

from jaxrl import init_train, make, train_step
from jaxrl.loop import collect, keys_per_step
from jaxrl.types import Agent, Discrete, Env, Outcome, Spec, Transition, box

ENVS = {
    "gymnax": make("CartPole-v1"),
    "gymnax, in wrappers": make(
        "Pendulum-v1", randomize={"g": (8.0, 12.0)}, observe_randomized=True, time_limit=3, frame_stack=2
    ),
    "brax": make("brax/fast", episode_length=4),
    "maze": make("jaxrl/Maze-v0"),
    "probe": make("jaxrl/Probe-policy-v0"),
    "arm, from a pool": make("jaxrl/Arm-hard-v0", time_limit=5, reset_pool=3),
}
N, T = 3, 40
FIRST = 7


def wanderer(spec: Spec, length: int = T) -> Agent:
    """It acts at random, and its memory counts the steps of an episode from 7 on."""

    def act(state, memory, obs, key, step, explore=True):
        memory = memory + 1
        return jax.vmap(spec.action_space.sample)(jax.random.split(key, N)), memory, {"memory": memory}

    return Agent(
        init=lambda key, spec: (),
        act=act,
        update=lambda state, trajectory, key, step: (state, {}),
        num_envs=N,
        rollout_length=length,
        init_memory=lambda n: jnp.full(n, FIRST),
        name="wanderer",
    )


def with_states(env: Env) -> Env:
    """The environment whose extras have the states that steps led to."""

    def step(key, state, action):
        state, outcome = env.step(key, state, action)
        return state, outcome._replace(extras={"state": state})

    return env._replace(step=step)


def choose(mask, yes, no):
    return jax.tree.map(lambda x, y: jnp.where(mask.reshape(*mask.shape, *(1,) * (x.ndim - 2)), x, y), yes, no)


def once(env: Env, key: jax.Array) -> dict:
    """A trajectory, and what each of its steps leads to with the key and the state that belong to it."""
    agent = wanderer(env.spec)
    start, keys = init_train(key, agent, env), jax.random.split(key, (T, keys_per_step(agent)))
    end, trajectory = collect(start, agent, with_states(env), keys)
    each = lambda function: jax.vmap(jax.vmap(function))  # noqa: E731
    fresh = each(env.reset)(keys[:, 1 + N :])
    led_to = trajectory.extras["state"], trajectory.next_obs
    states, obs = choose(trajectory.terminated | trajectory.truncated, fresh, led_to)
    before = jax.tree.map(lambda x, y: jnp.concatenate([x[None], y[:-1]]), start.env, states)
    again = each(env.step)(keys[:, 1 : 1 + N], before, trajectory.action)
    return {
        "start": start.obs,
        "end": end._replace(key=0),
        "trajectory": trajectory,
        "then": (states, obs),
        "fresh": fresh[1],
        "again": again,
    }


@pytest.fixture(scope="module")
def played():
    run = jax.jit(lambda key: {name: once(env, key) for name, env in ENVS.items()})
    return jax.device_get(run(jax.random.key(0)))


def close(x, y):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), x, y)


@pytest.mark.parametrize("name", ENVS)
def test_each_step_follows_from_the_one_before_or_from_a_fresh_state(played, name):
    """The state of an episode that goes on is untouched; where one ended, each has the one drawn with its own key."""
    of = played[name]
    trajectory, (states, obs), (again, outcome) = of["trajectory"], of["then"], of["again"]
    ended = trajectory.terminated | trajectory.truncated
    assert ended.sum() > 2
    assert ended.all() or not ended.any(1).all()
    close(trajectory.obs, np.concatenate([of["start"][None], obs[:-1]]))
    close((of["end"].env, of["end"].obs), jax.tree.map(lambda x: x[-1], (states, obs)))
    close((again, outcome.obs), (trajectory.extras["state"], trajectory.next_obs))
    close(outcome.reward, trajectory.reward)
    np.testing.assert_array_equal(outcome.terminated, trajectory.terminated)
    np.testing.assert_array_equal(outcome.truncated, trajectory.truncated)
    assert not (trajectory.terminated & trajectory.truncated).any()


def test_initial_states_are_of_as_many_draws_as_episodes(played):
    """But from a pool of three there are three."""
    for name, number in (("gymnax", None), ("gymnax, in wrappers", None), ("arm, from a pool", 3)):
        of = played[name]
        ended = of["trajectory"].terminated | of["trajectory"].truncated
        begun = np.concatenate([of["start"], of["then"][1][ended]])
        assert len(np.unique(begun, axis=0)) == (number or len(begun)), name
        led_to = of["trajectory"].next_obs
        assert (led_to[ended] != of["then"][1][ended]).any(-1).all(), name


@pytest.mark.parametrize("name", ENVS)
def test_memory_return_and_length_begin_anew(played, name):
    trajectory, end = played[name]["trajectory"], played[name]["end"]
    extras, ended = trajectory.extras, trajectory.terminated | trajectory.truncated
    length, total = np.zeros(N, int), np.zeros(N)
    for t in range(T):
        length, total = length + 1, total + trajectory.reward[t]
        np.testing.assert_array_equal(extras["memory"][t], FIRST + length)
        np.testing.assert_array_equal(extras["episode_length"][t], length)
        np.testing.assert_allclose(extras["episode_return"][t], total, rtol=1e-5, atol=1e-5)
        length, total = np.where(ended[t], 0, length), np.where(ended[t], 0, total)
    np.testing.assert_array_equal(end.memory, FIRST + length)
    np.testing.assert_array_equal(end.episode.length, length)


@pytest.mark.parametrize("name", ENVS)
def test_keys_are_used_once(name):
    env = ENVS[name]
    agent = wanderer(env.spec, 2)
    with jax.debug_key_reuse(True):
        program = jax.jit(lambda key: train_step(init_train(key, agent, env), agent, env)).trace(jax.random.key(0))
    held = [text for text in misused_keys(program.jaxpr) if "twice" in text or "a key" in text]
    assert held == []


def endless(reward: float) -> Env:
    outcome = Outcome(jnp.zeros(1), jnp.float32(reward), jnp.bool(False), jnp.bool(False))
    spec = Spec("Endless-v0", box(0, 1, (1,)), Discrete(2))
    return Env(lambda key: ((), jnp.zeros(1)), lambda key, state, action: ((), outcome), spec)


def test_a_long_episodes_return_is_its_rewards_sum():
    """A million rewards of 0.1: added up one by one in float32 they are 100,958."""
    env, agent = endless(0.1), wanderer(endless(0.1).spec)._replace(num_envs=1, act=still)
    keys = jax.random.split(jax.random.key(0), (1_000, keys_per_step(agent)))

    def run():
        turn = lambda _, carry: collect(carry[0], agent, env, keys)  # noqa: E731
        first = collect(init_train(jax.random.key(0), agent, env), agent, env, keys)
        return jax.lax.fori_loop(1, 1_000, turn, first)

    state, trajectory = jax.jit(run)()
    assert (int(state.step), int(state.episode.length[0])) == (1_000_000, 1_000_000)
    np.testing.assert_allclose(trajectory.extras["episode_return"][-1], 1e6 * np.float64(np.float32(0.1)), rtol=2e-7)


def still(state, memory, obs, key, step, explore=True):
    return jnp.zeros(1, jnp.int32), memory, {}


def test_an_episodic_agents_trajectories_begin_with_new_episodes():
    """Whatever is going on: states and observations, memory, returns and lengths."""
    env = ENVS["gymnax"]
    agent = wanderer(env.spec, 5)._replace(episodic=True, init=lambda key, spec: jnp.zeros(()), update=keep)

    def run(key):
        body = lambda state, _: train_step(state, agent, env)  # noqa: E731
        return jax.lax.scan(body, init_train(key, agent, env), length=4)

    state, metrics = jax.device_get(jax.jit(run)(jax.random.key(0)))
    np.testing.assert_array_equal(metrics["first_length"], 1)
    np.testing.assert_array_equal(metrics["first_memory"], FIRST + 1)
    np.testing.assert_array_equal(metrics["last_length"], 5)
    assert (metrics["first_place"] < 0.05).all()
    assert len(np.unique(metrics["first_place"])) == 4
    np.testing.assert_array_equal(state.episode.length, 5)


def keep(state, trajectory: Transition, key, step):
    extras = trajectory.extras
    return state, {
        "first_length": extras["episode_length"][0].max().astype(jnp.float32),
        "last_length": extras["episode_length"][-1].min().astype(jnp.float32),
        "first_memory": extras["memory"][0].max().astype(jnp.float32),
        "first_place": jnp.abs(trajectory.obs[0]).max(),
    }
