"""The loop: what it collects and counts, on environments and agents that can be followed by hand; then on real ones."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import JaxrlError, dqn, evaluate, init_train, loop, make, ppo, train, train_interval, train_step
from jaxrl.networks import MLP, ActorCritic, PolicyHead
from jaxrl.types import Agent, Discrete, Env, Outcome, Spec, Transition, box

# ---------------------------------------------------------------- an environment and an agent to follow by hand


class CountState(NamedTuple):
    time: jax.Array
    start: jax.Array


def counting() -> Env:
    """Observes `[start, time]`, of which the first is a number that is drawn where an episode begins: by its remainder
    of 3 the episode lasts 2, 3 or 4 steps. Those of 3 are truncated, the others terminate. The reward is `time + 1`:
    the returns are 3, 6 and 10."""

    def observe(state):
        return jnp.stack([state.start, state.time]).astype(jnp.float32)

    def reset(key):
        state = CountState(jnp.int32(0), (draw(key) >> 8).astype(jnp.int32))  # 24 bits, which float32 holds
        return state, observe(state)

    def step(key, state, action):
        kind = state.start % 3
        new = CountState(state.time + 1, state.start)
        ended = new.time >= kind + 2
        reward = new.time.astype(jnp.float32)
        return new, Outcome(observe(new), reward, ended & (kind != 1), ended & (kind == 1), {"drawn": draw(key)})

    return Env(reset, step, Spec("Counting", box(0, np.inf, (2,)), Discrete(2)))


def draw(key):
    return jax.random.bits(key, (), "uint32")


class RecorderState(NamedTuple):
    trajectory: Transition
    step: jax.Array
    weight: jax.Array


def recorder(num_envs=2, rollout_length=5, loss_at=lambda step: 1.0, weight_at=lambda step: 0.0) -> Agent:
    """Keeps the last trajectory; its memory counts the steps of an episode, from 5 and from 50 on."""

    def init_memory(n):
        return {"count": jnp.full((n, 2), jnp.array([5, 50])), "turns": jnp.zeros(n)}

    def act(state, memory, obs, key, step, explore=True):
        memory = {"count": memory["count"] + 1, "turns": memory["turns"] + 1.0}
        extras = {"memory": memory, "step": jnp.full(num_envs, step), "acted": jax.random.bits(key, (num_envs,))}
        return jnp.ones(num_envs, jnp.int32), memory, extras

    def init(key, spec):
        memory = jax.tree.map(lambda x: x[0], init_memory(1))
        zero, whole, bits = jnp.float32(0), jnp.int32(0), jnp.uint32(0)
        extras = {"drawn": bits, "acted": bits, "step": whole, "memory": memory}
        extras |= {"episode_return": zero, "episode_length": whole}
        blank = Transition(jnp.zeros(2), whole, zero, jnp.bool(0), jnp.bool(0), jnp.zeros(2), extras)
        blank = jax.tree.map(lambda x: jnp.zeros((rollout_length, num_envs, *x.shape), x.dtype), blank)
        return RecorderState(blank, jnp.int32(-1), jnp.float32(0))

    def update(state, trajectory, key, step):
        metrics = {"loss": jnp.float32(loss_at(step)), "step": jnp.float32(step)}
        return RecorderState(trajectory, step, jnp.float32(weight_at(step))), metrics

    return Agent(init, act, update, num_envs, rollout_length, init_memory, name="recorder")


def flat(trajectories):
    """Those of all seeds and updates side by side: `[S, U, T, N, ...]` becomes `[U*T, S*N, ...]`."""
    seeds, updates, length, width = trajectories.reward.shape
    return jax.tree.map(
        lambda x: np.moveaxis(x, 0, 2).reshape(updates * length, seeds * width, *x.shape[4:]), trajectories
    )


def by_hand(obs):
    """Of `counting` environments the start, time and length of the episode of each step, each `[T, N]`.

    Only the starts are looked up, where by the counting an episode begins.
    """
    steps = np.zeros((*obs.shape[:2], 3), int)
    for n in range(obs.shape[1]):
        start = time = length = 0
        for t in range(len(obs)):
            time += 1
            if time >= length:
                start, time = int(obs[t, n, 0]), 0
                length = start % 3 + 2
            steps[t, n] = start, time, length
    return np.moveaxis(steps, -1, 0)


NUM_UPDATES = 6


@pytest.fixture(scope="module")
def recorded():
    """The state and the metrics after each of `NUM_UPDATES` updates of 5 steps in 2 environments, for two seeds."""
    agent, env = recorder(), counting()

    def run(key):
        def body(state, _):
            state, metrics = train_step(state, agent, env)
            return state, (state, metrics)

        return jax.lax.scan(body, init_train(key, agent, env), length=NUM_UPDATES)[1]

    return jax.tree.map(jax.device_get, jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 2)))


def test_the_trajectory_is_what_happened(recorded):
    states, _ = recorded
    trajectory = flat(states.agent.trajectory)
    start, time, length = by_hand(trajectory.obs)
    ended = time == length - 1
    np.testing.assert_array_equal(trajectory.obs, np.stack([start, time], -1))
    np.testing.assert_array_equal(trajectory.next_obs, np.stack([start, time + 1], -1))  # at an end, the terminal one
    np.testing.assert_array_equal(trajectory.reward, time + 1)
    np.testing.assert_array_equal(trajectory.terminated, ended & (length != 3))
    np.testing.assert_array_equal(trajectory.truncated, ended & (length == 3))
    np.testing.assert_array_equal(trajectory.action, 1)
    np.testing.assert_array_equal(trajectory.extras["episode_length"], time + 1)
    np.testing.assert_array_equal(trajectory.extras["episode_return"], (time + 1) * (time + 2) / 2)
    assert trajectory.extras["episode_length"].dtype == np.int32
    assert trajectory.extras["episode_return"].dtype == np.float32
    assert set(length.ravel()) == {2, 3, 4}


def test_memory_is_put_back_where_an_episode_began(recorded):
    states, _ = recorded
    trajectory = flat(states.agent.trajectory)
    memory, (_, time, _) = trajectory.extras["memory"], by_hand(trajectory.obs)
    np.testing.assert_array_equal(memory["count"][..., 0], 5 + time + 1)  # act counts before it reports
    np.testing.assert_array_equal(memory["count"][..., 1], 50 + time + 1)
    np.testing.assert_array_equal(memory["turns"], time + 1.0)


def test_time_is_the_loops(recorded):
    states, metrics = recorded
    np.testing.assert_array_equal(states.step, [[10, 20, 30, 40, 50, 60]] * 2)
    np.testing.assert_array_equal(states.agent.step, [[0, 10, 20, 30, 40, 50]] * 2)  # before the trajectory
    np.testing.assert_array_equal(metrics["step"], states.agent.step)
    steps_seen_by_act = states.agent.trajectory.extras["step"]  # [S, U, T, N]
    np.testing.assert_array_equal(steps_seen_by_act[0, :, :, 0].ravel(), np.arange(0, 60, 2))
    assert states.step.dtype == np.int32


def test_every_key_is_another(recorded):
    states, _ = recorded
    extras = states.agent.trajectory.extras
    for name in ("drawn", "acted"):
        values = extras[name].ravel()
        assert len(np.unique(values)) == len(values) == 2 * NUM_UPDATES * 10, name
    assert not set(extras["drawn"].ravel()) & set(extras["acted"].ravel())
    obs = flat(states.agent.trajectory).obs
    starts = obs[obs[..., 1] == 0][:, 0]
    assert len(np.unique(starts)) == len(starts) > 30  # of two seeds, two environments, and every episode


def test_episode_metrics_against_a_count_by_hand(recorded):
    states, metrics = recorded
    _, time, length = by_hand(flat(states.agent.trajectory).obs)  # [U*T, S*N]
    time, length = (x.reshape(NUM_UPDATES, 5, 2, 2) for x in (time, length))  # [U, T, S, N]
    for i, seed in np.ndindex(NUM_UPDATES, 2):
        lengths = length[i, :, seed][(time == length - 1)[i, :, seed]]
        returns = lengths * (lengths + 1) / 2
        expected = {
            "episode_count": len(lengths),
            "episode_return": np.mean(returns),
            "episode_return_min": min(returns),
            "episode_return_max": max(returns),
            "episode_length": np.mean(lengths),
            "episode_length_min": min(lengths),
            "episode_length_max": max(lengths),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(metrics[name][seed, i], value, rtol=1e-6, err_msg=f"{name} of update {i}")


def test_updates_without_an_episodes_end():
    """One step an update: most updates see no end; the return is then the last known, and all else is NaN."""
    agent, env, num_updates = recorder(2, 1), counting(), 12

    def body(state, _):
        state, metrics = train_step(state, agent, env)
        return state, (state.agent.trajectory.obs[0], metrics)

    def run(key):
        start = init_train(key, agent, env)
        return jax.lax.scan(body, start, length=num_updates)[1], train_interval(start, agent, env, 1)

    (obs, metrics), (state, reduced) = jax.device_get(jax.jit(run)(jax.random.key(0)))
    _, time, length = by_hand(obs)
    last, seen = np.nan, []
    for t in range(num_updates):
        ends = length[t][time[t] == length[t] - 1]
        seen.append(len(ends))
        last = np.mean(ends * (ends + 1) / 2) if len(ends) else last
        np.testing.assert_allclose(metrics["episode_return"][t], last)
        assert metrics["episode_count"][t] == len(ends)
        for name, value in {"length": np.mean, "length_min": np.min, "length_max": np.max}.items():
            np.testing.assert_allclose(metrics[f"episode_{name}"][t], value(ends) if len(ends) else np.nan)
        np.testing.assert_allclose(
            metrics["episode_return_max"][t], max(ends * (ends + 1) / 2) if len(ends) else np.nan
        )
    assert 2 < seen.count(0) < num_updates - 2
    assert np.isnan(reduced["episode_return"])
    assert np.isnan(reduced["episode_return_min"])
    assert reduced["episode_count"] == 0
    assert np.isnan(state.last_return)


# ---------------------------------------------------------------- intervals, and what is not finite


def test_an_interval_is_its_steps(recorded):
    states, metrics = recorded
    agent, env = recorder(), counting()
    keys = jax.random.split(jax.random.key(0), 2)

    @jax.jit
    def run(updates):
        start = jax.vmap(lambda key: init_train(key, agent, env))(keys)
        return jax.vmap(lambda state: train_interval(state, agent, env, updates))(start)

    for n in (1, 4, NUM_UPDATES):  # one compiled program for all
        state, reduced = jax.device_get(run(n))
        expected = jax.tree.map(lambda x: x[:, n - 1], states)
        jax.tree.map(np.testing.assert_array_equal, state._replace(key=0), expected._replace(key=0))
        for name in ("loss", "step"):
            np.testing.assert_allclose(reduced[name], metrics[name][:, :n].mean(1), rtol=1e-6)
        counts = metrics["episode_count"][:, :n]
        np.testing.assert_array_equal(reduced["episode_count"], counts.sum(1))
        for name in ("episode_return", "episode_length"):
            mean = (metrics[name][:, :n] * counts).sum(1) / counts.sum(1)
            np.testing.assert_allclose(reduced[name], mean, rtol=1e-6)
            np.testing.assert_array_equal(reduced[f"{name}_min"], metrics[f"{name}_min"][:, :n].min(1))
            np.testing.assert_array_equal(reduced[f"{name}_max"], metrics[f"{name}_max"][:, :n].max(1))


LONG = 20_000_000


def test_an_interval_of_many_updates():
    """Twenty million of them, in each of which an episode ends. Added up one by one in float32 the metric's mean is
    0.10486, the count stays at 16,777,216, and the returns, which are 1 and 3 in turn, have another mean than 2."""

    @jax.jit
    def run():
        def one(i, seen):
            turn = jnp.float32(i % 2)
            returned = jnp.float32(1) + 2 * turn
            seven = jnp.float32(7)
            episode = loop.EpisodeSummary(
                jnp.int32(1), loop.Spread(*[returned] * 3), loop.Spread(jnp.int32(7), seven, seven)
            )
            return loop.add(seen, episode, {"epsilon": jnp.float32(0.1), "turn": turn})

        start = loop.nothing_seen({"epsilon": jnp.float32(0), "turn": jnp.float32(0)})
        return loop.interval_metrics(jax.lax.fori_loop(0, LONG, one, start), LONG)

    metrics = run()
    assert metrics["episode_count"] == LONG
    np.testing.assert_allclose(metrics["epsilon"], 0.1, rtol=2e-7)
    np.testing.assert_allclose(metrics["turn"], 0.5, rtol=2e-7)
    np.testing.assert_allclose(metrics["episode_return"], 2.0, rtol=2e-7)
    np.testing.assert_allclose(metrics["episode_length"], 7.0, rtol=2e-7)
    assert (metrics["episode_return_min"], metrics["episode_return_max"]) == (1, 3)
    assert (metrics["episode_length_min"], metrics["episode_length_max"]) == (7, 7)


def test_infinities_stay_in_an_interval():
    seen = loop.nothing_seen({"loss": jnp.float32(0)})
    blank = seen[0]
    for loss in (1.0, np.inf, 2.0):
        seen = loop.add(seen, blank, {"loss": jnp.float32(loss)})
    assert loop.interval_metrics(seen, 3)["loss"] == np.inf


def test_first_bad_step():
    """A seed is marked with the step after its first bad update, for good, while the others go on."""
    env = counting()
    bad_from, bad_until = jnp.array([0, 20, 30, 99]), jnp.array([99, 99, 40, 999])

    def run(first, last, value):
        agent = recorder(loss_at=lambda step: jnp.where((step >= first) & (step < last), value, 1.0))

        def body(state, _):
            state, metrics = train_step(state, agent, env)
            return state, (state.first_bad_step, metrics["loss"])

        return jax.lax.scan(body, init_train(jax.random.key(0), agent, env), length=5)[1]

    marks, losses = jax.jit(jax.vmap(run))(bad_from, bad_until, jnp.array([jnp.nan, jnp.inf, jnp.nan, jnp.nan]))
    expected = [[10] * 5, [-1, -1, 30, 30, 30], [-1, -1, -1, 40, 40], [-1] * 5]
    np.testing.assert_array_equal(marks, expected)
    np.testing.assert_array_equal(losses[3], 1.0)
    assert losses[2, 4] == 1.0  # finite again, and still marked


def test_first_bad_step_of_parameters():
    """Parameters are looked at when an interval ends."""

    def run(first):
        agent = recorder(weight_at=lambda step: jnp.where(step >= first, jnp.nan, 1.0))
        state, _ = train_interval(init_train(jax.random.key(0), agent, counting()), agent, counting(), 3)
        return state.first_bad_step

    np.testing.assert_array_equal(jax.jit(jax.vmap(run))(jnp.array([0, 20, 30])), [30, 30, -1])


class ReplayingState(NamedTuple):
    params: jax.Array
    replay: jax.Array


@pytest.mark.parametrize(("params", "replay", "mark"), [(0.0, jnp.nan, -1), (jnp.nan, 0.0, 20)])
def test_a_replay_is_not_looked_at(params, replay, mark):
    """It is long, and what is not finite in it shows in the loss of the batch that it is drawn into."""
    state = init_train(jax.random.key(0), recorder(), counting())
    state = state._replace(agent=ReplayingState(jnp.float32(params), jnp.float32(replay)), step=jnp.int32(20))
    assert loop.checked_parameters(state) == mark


@pytest.mark.parametrize(
    ("num_steps", "words"),
    [
        (9, ["num_steps=9", "recorder", "2 * 5 = 10"]),
        (0, ["num_steps=0"]),
        (-1, ["num_steps=-1"]),
        (2**31, ["less than 2**31"]),
    ],
)
def test_too_few_or_too_many_steps(num_steps, words):
    with pytest.raises(JaxrlError) as error:
        train(jax.random.key(0), recorder(), counting(), num_steps)
    assert all(word in str(error.value) for word in words), error.value


def test_an_incomplete_update_is_left_out():
    assert loop.num_updates(recorder(), 10) == 1
    assert loop.num_updates(recorder(), 29) == 2
    metrics = jax.eval_shape(lambda key: train(key, recorder(), counting(), 29), jax.random.key(0))[1]
    assert metrics["episode_return"].shape == (2,)


# ---------------------------------------------------------------- the real agents

POLICY = make("jaxrl/Probe-policy-v0")
SMALL = {
    "ppo": {"num_envs": 2, "rollout_length": 4, "num_epochs": 2, "num_minibatches": 2, "hidden_sizes": (8,)},
    "dqn": {
        "num_envs": 2,
        "rollout_length": 2,
        "replay_size": 16,
        "batch_size": 4,
        "warmup_steps": 8,
        "target_update_every": 8,
        "replay_ratio": 0.5,
        "hidden_sizes": (8,),
    },
}
SMALLEST = {  # operation by operation, each new shape is a compilation
    "ppo": {"rollout_length": 2, "num_epochs": 1, "num_minibatches": 1, "hidden_sizes": (2,)},
    "dqn": {"rollout_length": 1, "hidden_sizes": (2,)},
}
CONSTRUCTORS = {"ppo": ppo, "dqn": dqn}


def small(name, **arguments):
    return CONSTRUCTORS[name](**(SMALL[name] | arguments))


HYPER_PARAMETERS = {
    "ppo": {
        "learning_rate": [1e-3, 1e-2],
        "gamma": [0.5, 0.9],
        "gae_lambda": [0.3, 0.9],
        "clip_eps": [0.1, 0.3],
        "entropy_coef": [0.0, 0.1],
        "value_coef": [0.5, 1.0],
        "max_grad_norm": [0.1, 1.0],
    },
    "dqn": {
        "learning_rate": [1e-3, 1e-2],
        "gamma": [0.5, 0.9],
        "epsilon_start": [1.0, 0.5],
        "epsilon_final": [0.1, 0.2],
        "tau": [0.5, 1.0],
        "max_grad_norm": [0.1, 1.0],
    },
}
KEYS = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(7), jnp.arange(3))
CONFIGS = np.array([0, 1, 1])  # which column of the table above each of the three seeds takes
NUM_STEPS = 64
agents = pytest.mark.parametrize("name", SMALL)


class Run(NamedTuple):
    """What training made of a seed, or of several."""

    start: object
    state: loop.TrainState
    metrics: dict


@pytest.fixture(scope="module")
def runs():
    """Three seeds with traced hyper-parameters together, twice, and the second one alone with constants."""
    cache = {}

    def get(name) -> tuple[Run, Run, Run]:
        def run(values, key):
            agent = small(name, **values)
            start = init_train(key, agent, POLICY).agent.params
            return Run(start, *train(key, agent, POLICY, NUM_STEPS))

        if name not in cache:
            grid = {k: jnp.array(v)[CONFIGS] for k, v in HYPER_PARAMETERS[name].items()}
            together = jax.jit(jax.vmap(run))
            constants = {k: v[1] for k, v in HYPER_PARAMETERS[name].items()}
            alone = jax.jit(lambda key: run(constants, key))
            results = together(grid, KEYS), together(grid, KEYS), alone(KEYS[1])
            bare = (r._replace(state=r.state._replace(key=jax.random.key_data(r.state.key))) for r in results)
            cache[name] = tuple(jax.device_get(tuple(bare)))
        return cache[name]

    return get


@agents
def test_together_and_alone(name, runs):
    """Seeds and traced hyper-parameters under `vmap` train as each does alone, with constants: the same draws, and
    floats that differ by rounding only, since batched products sum in another order."""
    together, _, alone = runs(name)
    assert alone.metrics["episode_return"].shape == (NUM_STEPS // (8 if name == "ppo" else 4),)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[1], y, rtol=1e-4, atol=1e-5), together, alone)


@agents
def test_the_same_seed_and_another(name, runs):
    together, again, _ = runs(name)
    jax.tree.map(np.testing.assert_array_equal, together, again)  # bit for bit
    kernels = [x for x in jax.tree.leaves(together.state.agent.params) if x.ndim == 3]
    assert min(np.abs(x[1] - x[2]).max() for x in kernels) > 1e-3
    returns = together.metrics["episode_return"]
    assert not np.array_equal(returns[1], returns[2])
    assert (together.state.first_bad_step == -1).all()


@agents
def test_training_moves_every_parameter(name, runs):
    run, *_ = runs(name)
    moved = jax.tree.map(
        lambda x, y: np.abs(x - y).max(axis=tuple(range(1, x.ndim))), run.state.agent.params, run.start
    )
    assert min(x.min() for x in jax.tree.leaves(moved)) > 1e-6


@agents
def test_step_stays_unbatched_over_seeds(name):
    """`out_axes=None` refuses what is batched; and what branches on the step is still a branch."""
    agent = small(name)

    def final_steps(key):
        state, _ = train(key, agent, POLICY, NUM_STEPS)
        interval, _ = train_interval(state, agent, POLICY, 2)
        return state.step, interval.step

    one = str(jax.make_jaxpr(final_steps)(KEYS[0]))
    many = str(jax.make_jaxpr(jax.vmap(final_steps, out_axes=None))(KEYS))
    assert many.count("cond[") == one.count("cond[")
    if name == "dqn":
        assert one.count("cond[") >= 4  # the warm-up and the target network, in `train` and in `train_interval`


@agents
def test_a_state_goes_on_with_an_agent_made_anew(name, runs):
    """The state that comes out of a trace over hyper-parameters holds no tracer, and enters another trace."""
    grid = {k: jnp.array(v) for k, v in HYPER_PARAMETERS[name].items()}

    def begin(values, key):
        return init_train(key, small(name, **values), POLICY)

    def go_on(values, state):
        return train_interval(state, small(name, **values), POLICY, 1)[0]

    axes = loop.TrainState(0, 0, 0, 0, 0, 0, None, 0, 0)
    state = jax.eval_shape(jax.vmap(begin, out_axes=axes), grid, KEYS[:2])
    again = jax.eval_shape(jax.vmap(go_on, (0, axes), axes), grid, state)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), again) == jax.tree.map(lambda x: (x.shape, x.dtype), state)


def test_jit_equals_eager():
    check_eager(recorder(), counting(), jax.random.key(3))


@pytest.mark.slow
@agents
def test_jit_equals_eager_with_an_agent(name):
    """Operation by operation, some 400 small compilations."""
    # One operation a draw, where Threefry is a hundred.
    check_eager(small(name, **SMALLEST[name]), POLICY, jax.random.key(3, impl="unsafe_rbg"))


def check_eager(agent, env, key):
    def run(key):
        state = init_train(key, agent, env)._replace(step=jnp.int32(8))  # past the warm-up
        state, metrics = train_step(state, agent, env)
        return state._replace(key=0), metrics

    compiled = jax.jit(run)(key)
    with jax.disable_jit():
        eager = run(key)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), compiled, eager)


def train_and_evaluate(name):
    agent = small(name)

    def run(key):
        key, other = jax.random.split(key)
        state, metrics = train(key, agent, POLICY, NUM_STEPS)
        state, _ = train_interval(state, agent, POLICY, 2)
        return metrics, evaluate(other, agent, state.agent, POLICY, 3)

    return run


@agents
def test_no_key_is_used_twice(name):
    with jax.debug_key_reuse(True):
        jax.jit(train_and_evaluate(name)).lower(jax.random.key(0))


def test_the_check_of_keys_sees_one_used_twice():
    agent = small("ppo")

    def act(state, memory, obs, key, step, explore=True):
        jax.random.uniform(key)
        return agent.act(state, memory, obs, key, step, explore)

    careless = agent._replace(act=act)
    with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
        jax.jit(lambda key: train(key, careless, POLICY, NUM_STEPS)).lower(jax.random.key(0))


# ---------------------------------------------------------------- truncation against termination


def test_an_end_that_an_environment_calls_both_is_a_termination():
    inner = counting()

    def step(key, state, action):
        state, outcome = inner.step(key, state, action)
        return state, outcome._replace(truncated=outcome.terminated | outcome.truncated)

    agent, env = recorder(num_envs=3, rollout_length=9), Env(inner.reset, step, inner.spec)
    trajectory = jax.jit(lambda key: train(key, agent, env, 27)[0].agent.trajectory)(jax.random.key(0))
    _, time, length = by_hand(np.asarray(trajectory.obs))
    np.testing.assert_array_equal(trajectory.terminated, (time == length - 1) & (length != 3))
    np.testing.assert_array_equal(trajectory.truncated, (time == length - 1) & (length == 3))


def test_truncation_is_not_termination():
    """Reward 1 for ever, cut off after 5 steps: the value is 1 / (1 - gamma) = 10. An environment that calls the cut
    a termination has V = 1 + 0.8 gamma V, on average over the steps that look alike: 3.57."""
    gamma = 0.9
    inner = make("jaxrl/Probe-truncation-v0")

    def run(mistaken, key):
        def step(key, state, action):
            state, outcome = inner.step(key, state, action)
            cut = outcome.truncated
            return state, outcome._replace(terminated=cut & mistaken, truncated=cut & ~mistaken)

        agent = ppo(
            gamma=gamma, learning_rate=0.02, hidden_sizes=(8,), num_envs=2, rollout_length=15, num_epochs=4,
            num_minibatches=1, clip_value_loss=False, max_grad_norm=10.0,
        )  # fmt: skip
        env = Env(inner.reset, step, inner.spec)
        state, _ = train(key, agent, env, 150 * 30)
        critic = ActorCritic(MLP((8,)), MLP((8,)), PolicyHead(env.spec.action_space))
        return critic.apply(state.agent.params, jnp.ones(1), method="value")

    keys = jax.random.split(jax.random.key(0), 4)
    run_all = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))
    right, wrong = run_all(jnp.array([False, True]), keys)
    np.testing.assert_allclose(right, 10.0, atol=0.5)
    assert (wrong < 5.0).all()
