"""Hindsight: the goals put in place were reached in the same episode, and all else follows from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from experience import GOAL, Kind, fill, goal_history, goal_spec, history, spec, void_steps
from playing import rollout

import jaxrl
from jaxrl import prng
from jaxrl.checks import JaxrlError
from jaxrl.envs.own import bit_flip
from jaxrl.replay import hindsight, prioritized, uniform
from jaxrl.replay.hindsight import STRATEGIES, relabel
from jaxrl.replay.prioritized import PrioritizedState
from jaxrl.types import Transition

PROBABILITY, BATCH, LENGTH = 0.75, 12, 3
FILLINGS = {  # replay, strategy, kind of experience, how many adds, and capacity
    "future": (uniform, "future", Kind(2, 3, 6), 20, 48),
    "final": (prioritized, "final", Kind(1, 2, 6), 30, 40),
    "episode": (uniform, "episode", Kind(1, 2, 30), 40, 24),  # which may be longer than the ring
}
BITS = Kind(2, 3, 4)  # an episode is truncated after four steps


def bit_flips(num_adds):
    """Random steps of four bits, leaves `[num_adds * T, N, ...]`, and the spec."""
    env = jaxrl.make("jaxrl/BitFlip-v0", num_bits=4)

    play = jax.vmap(lambda key: rollout(env, key, num_adds * BITS.length), out_axes=1)
    _, obs, action, end, _ = play(jax.random.split(jax.random.key(5), BITS.num_envs))
    return Transition(obs, action, end.reward, end.terminated, end.truncated, end.obs, {}), env.spec


def at_the_end(replay, state, key, step):
    """The goals of many single steps, all replaced: which slots, and what is wanted now."""
    sample = jax.vmap(lambda key: replay.sample(state, key, step))(jax.random.split(key, 500))
    return sample.indices.ravel(), sample.steps.obs[..., 1].ravel()


@pytest.fixture(scope="module")
def fillings():
    """Samples of every filling, after each add; and many goals after the last. Out of one compiled call."""
    replays = {
        name: make(capacity=capacity, batch_size=BATCH, read=hindsight(strategy=strategy, probability=PROBABILITY))
        for name, (make, strategy, _, _, capacity) in FILLINGS.items()
    }

    def run(key):
        results = {}
        for name, (_, strategy, kind, num_adds, capacity) in FILLINGS.items():
            everything = goal_history(kind, num_adds)
            state, samples = fill(replays[name], kind, num_adds, key, LENGTH, everything, goal_spec)
            always = uniform(capacity=capacity, batch_size=BATCH, read=hindsight(strategy=strategy, probability=1))
            ring = state.ring if isinstance(state, PrioritizedState) else state
            goals = at_the_end(always, ring, key, num_adds * kind.length * kind.num_envs)
            results[name] = everything, samples, goals
        everything, bits_spec = bit_flips(20)
        replay = uniform(capacity=48, batch_size=BATCH, read=hindsight())
        _, samples = fill(replay, BITS, 20, key, LENGTH, everything, lambda kind: bits_spec)
        return results | {"bits": (everything, samples, ())}

    return jax.device_get(jax.jit(run)(prng.unrolled(jax.random.key(0))))


def allowed(strategy, first, ended, num_envs, seen, capacity):
    """The steps whose goals may be put in place of that of one, by walking along its episode."""
    start = stop = first
    while start - num_envs >= max(0, seen - capacity) and not ended[start - num_envs]:
        start -= num_envs
    while stop + num_envs < seen and not ended[stop]:
        stop += num_envs
    return {"future": range(first, stop + 1, num_envs), "final": [stop]}.get(strategy, range(start, stop + 1, num_envs))


def check(everything, samples, strategy, kind, capacity, goal):
    """Everything that was sampled; how many goals were replaced, and how many windows ended where one was reached."""
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), everything)
    ended = flat.terminated | flat.truncated
    reached, wanted_then = np.asarray(goal.achieved(flat.next_obs)), flat.obs[..., goal.achieved(flat.obs).shape[-1] :]
    turns = np.repeat(np.arange(len(samples.valid)), BATCH)
    samples = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), samples)
    seen = (turns + 1) * kind.length * kind.num_envs
    first = seen - 1 - (seen - 1 - samples.indices) % capacity
    assert (first >= 0).all()
    wanted = samples.steps.obs[:, 0, reached.shape[-1] :]
    replaced = (wanted != wanted_then[first]).any(axis=-1)
    for m in np.flatnonzero(replaced):
        sources = allowed(strategy, first[m], ended, kind.num_envs, seen[m], capacity)
        assert (reached[list(sources)] == wanted[m]).all(axis=-1).any(), m

    ids = np.minimum(first[:, None] + np.arange(LENGTH) * kind.num_envs, len(ended) - 1)  # [M, L]
    taken = first[:, None] + np.arange(LENGTH) * kind.num_envs < seen[:, None]
    want = np.repeat(wanted[:, None], LENGTH, axis=1)
    reward, there = (np.asarray(x) for x in goal.reward(reached[ids], want))
    reward = np.where(replaced[:, None], reward, flat.reward[ids])
    terminated = np.where(replaced[:, None], there, flat.terminated[ids])
    over = np.cumsum(terminated | ended[ids] | ~taken, axis=1) - (terminated | ended[ids] | ~taken) > 0
    valid = taken & ~over
    np.testing.assert_array_equal(samples.valid, valid)
    expected = flat._replace(
        obs=goal.replace(flat.obs[ids], want),
        action=flat.action[ids],
        reward=reward,
        terminated=terminated,
        truncated=ended[ids] & ~terminated,
        next_obs=goal.replace(flat.next_obs[ids], want),
        extras={name: x[ids] for name, x in flat.extras.items()},
    )
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[valid], np.asarray(b)[valid]), samples.steps, expected)
    stopped = replaced & (valid & there).any(axis=1) & ~valid[:, -1]
    was_terminated = replaced[:, None] & valid & flat.terminated[ids]
    return replaced, stopped.sum(), (was_terminated & ~terminated).sum(), (was_terminated & terminated).sum()


@pytest.mark.parametrize("name", FILLINGS)
def test_goals_were_reached_in_the_episode(fillings, name):
    """Goals, rewards, ends, next observations and what is valid, of windows from every part of the episodes."""
    _, strategy, kind, _, capacity = FILLINGS[name]
    everything, samples, _ = fillings[name]
    replaced, stopped, no_longer, still = check(everything, samples, strategy, kind, capacity, GOAL)
    assert scipy.stats.binomtest(int(replaced.sum()), replaced.size, PROBABILITY).pvalue > 1e-3
    assert stopped > 10
    assert still > 10  # at a terminal step, too, what was seen there is the goal
    if strategy == "episode":  # the others' goals are reached there at the latest
        assert no_longer > 10


def test_no_goal_is_from_the_other_side_of_an_interruption():
    """Nor from a step that is void; every strategy, with each step's goal replaced."""
    kind, num_adds, seams = Kind(1, 2, 6), 12, (3, 7, 8)
    everything = goal_history(kind, num_adds, seams)
    ended, goals = (everything.terminated | everything.truncated).ravel(), everything.next_obs[..., 0].ravel()
    void = np.isin(np.arange(ended.size), list(void_steps(everything, kind, seams, num_adds)))
    assert void.sum() == 5
    apart = ended | void | np.append(void[kind.num_envs :], [False, False])

    def run(key):
        replays = [
            uniform(capacity=24, batch_size=BATCH, read=hindsight(strategy=s, probability=1)) for s in STRATEGIES
        ]
        state, _ = fill(replays[0], kind, num_adds, key, 1, everything, goal_spec, seams)
        return [at_the_end(replay, state, key, ended.size) for replay in replays]

    results = jax.device_get(jax.jit(run)(prng.unrolled(jax.random.key(2))))
    for strategy, (first, wanted) in zip(STRATEGIES, results, strict=True):
        for step in np.flatnonzero(~void):
            sources = list(allowed(strategy, step, apart, kind.num_envs, ended.size, 24))
            assert set(wanted[first == step]) == set(goals[sources]), (strategy, step)


@pytest.mark.parametrize("name", FILLINGS)
def test_goals_are_equally_likely(fillings, name):
    """Each of those allowed, of each step; of steps with as many, the counts are added up by their order."""
    _, strategy, kind, _, capacity = FILLINGS[name]
    everything, _, (indices, wanted) = fillings[name]
    ended = (everything.terminated | everything.truncated).ravel()
    goals = everything.next_obs[..., 0].ravel()
    seen = ended.size
    counts = {}
    for slot, goal in zip(indices, wanted, strict=True):
        first = seen - 1 - (seen - 1 - slot) % capacity
        sources = list(allowed(strategy, first, ended, kind.num_envs, seen, capacity))
        counts.setdefault(len(sources), np.zeros(len(sources)))[list(goals[sources]).index(goal)] += 1
    if strategy == "final":
        assert list(counts) == [1]
        return
    assert max(counts) > 3
    for number, count in counts.items():
        if number > 1:
            assert scipy.stats.chisquare(count).pvalue > 1e-3, number


def test_bit_flip(fillings):
    """An environment as it is, where the same goal may be reached several times."""
    everything, samples, _ = fillings["bits"]
    replaced, stopped, *_ = check(everything, samples, "future", BITS, 48, bit_flip.GOAL)
    assert 0.7 < replaced.mean() < 0.85  # of 0.8, where they happened to be others
    assert stopped > 10


def test_by_hand():
    """Positions 1, 2, 3 were reached; 2 is wanted now. What was the end of the episode is a truncation."""
    steps = Transition(
        obs=jnp.array([[[0.0, 9], [1, 9], [2, 9]]]),
        action=jnp.zeros((1, 3), jnp.int32),
        reward=jnp.full((1, 3), 7.0),
        terminated=jnp.array([[False, False, True]]),
        truncated=jnp.zeros((1, 3), bool),
        next_obs=jnp.array([[[1.0, 9], [2, 9], [3, 9]]]),
        extras={},
    )
    new, still = jax.jit(lambda steps: relabel(GOAL, steps, jnp.array([[2.0]])))(steps)
    np.testing.assert_array_equal(new.obs, [[[0, 2], [1, 2], [2, 2]]])
    np.testing.assert_array_equal(new.next_obs, [[[1, 2], [2, 2], [3, 2]]])
    np.testing.assert_array_equal(new.reward, [[-1, 0, -1]])
    np.testing.assert_array_equal(new.terminated, [[False, True, False]])
    np.testing.assert_array_equal(new.truncated, [[False, False, True]])
    np.testing.assert_array_equal(still, [[True, True, False]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "past"}, "strategy='past' is not accepted; it must be one of future, final, episode"),
        ({"probability": -0.1}, "probability=-0.1 is not accepted; it must be a number in [0, 1]"),
        ({"probability": 1.5}, "probability=1.5"),
        ({"probability": np.nan}, "probability=nan"),
    ],
)
def test_errors(options, message):
    with pytest.raises(JaxrlError) as error:
        hindsight(**options)
    assert str(error.value).startswith(f"hindsight: {message}")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_environments_without_goals_are_refused(strategy):
    kind = Kind(1, 2, 5)
    replay = uniform(capacity=4, batch_size=2, read=hindsight(strategy=strategy))
    unlimited = goal_spec(kind)._replace(max_steps=None)
    for fake, example in ((spec(kind), history(kind, 1)), (unlimited, goal_history(kind, 1))):
        state = jax.eval_shape(lambda f=fake, e=example: replay.init(e, f))
        with pytest.raises(JaxrlError, match=r"hindsight: Fake.*-v0 has no goal .*, or no time limit; .*BitFlip-v0"):
            jax.eval_shape(lambda s: replay.sample(s, jax.random.key(0), 2), state)
