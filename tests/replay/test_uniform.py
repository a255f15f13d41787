"""The uniform replay: what is stored is what is sampled, from written slots alone, all equally often."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from experience import Kind, check, fill, history, spec

from jaxrl import prng
from jaxrl.checks import JaxrlError
from jaxrl.replay import ring, uniform

CAPACITY, BATCH, LENGTH = 24, 8, 4
KINDS = {  # kind of experience, and how many adds: past several turns of the ring
    "one at a time": (Kind(1, 1, 5), 90),
    "no known limit": (Kind(1, 2, None), 40),
    "three environments": (Kind(1, 3, 5), 30),
    "limit longer than a write": (Kind(2, 3, 5), 17),
    "limit as long as a write": (Kind(4, 2, 4), 11),
    "limit shorter than a write": (Kind(4, 1, 3), 22),
    "limit longer than the ring": (Kind(2, 1, 100), 40),
    "one step": (Kind(2, 2, 1), 20),
    "whole": (Kind(12, 2, 5), 4),
    "interrupted": (Kind(1, 3, 5), 30),
    "interrupted, and no known limit": (Kind(1, 2, None), 40),
    "interrupted, and limit longer than a write": (Kind(2, 3, 9), 17),
    "interrupted, and limit shorter than a write": (Kind(4, 1, 3), 22),
}
SEAMS = (2, 3, 7, 12, 13, 14)  # of those that are interrupted


def seams_of(name):
    return SEAMS if name.startswith("interrupted") else ()


@pytest.fixture(scope="module")
def fillings():
    """Every kind, for two seeds, out of one compiled call."""
    keys = jax.random.split(prng.unrolled(jax.random.key(0)), 2)
    replay = uniform(capacity=CAPACITY, batch_size=BATCH)

    def run(keys):
        results = {}
        for name, (kind, n) in KINDS.items():
            one = functools.partial(fill, replay, kind, n, length=LENGTH, seams=seams_of(name))
            results[name] = jax.vmap(lambda key, one=one: one(key=key))(keys)
        return results

    return jax.device_get(jax.jit(run)(keys))


@pytest.mark.parametrize("name", KINDS)
def test_stored_is_sampled(fillings, name):
    kind, num_adds = KINDS[name]
    _, samples = fillings[name]
    for seed in range(2):
        check(jax.tree.map(lambda x: x[seed], samples), kind, num_adds, CAPACITY, seams_of(name))
    if seams_of(name):
        assert 0 < (samples.weights == 0).sum() < 100
    assert np.isin(samples.weights, [0, 1] if seams_of(name) else [1]).all()


def test_every_kind_of_end_was_seen(fillings):
    """What the checks above are for did occur: truncated steps, the newest step, and ends within a window."""
    _, num_adds = KINDS["limit longer than a write"]
    _, samples = fillings["limit longer than a write"]
    steps, valid = samples.steps, samples.valid
    assert (steps.truncated & valid).sum() > 20
    assert (steps.terminated & valid).sum() > 20
    seen = 6 * (1 + np.arange(num_adds))[None, :, None]
    assert (steps.action[..., 0] >= seen - 3).sum() > 5
    assert (~valid).any(axis=-1).sum() > 20


def test_dtypes_are_kept(fillings):
    state, samples = fillings["one at a time"]
    for obs, shape in ((state.obs, (2, CAPACITY, 2)), (samples.steps.obs, (2, 90, BATCH, LENGTH, 2))):
        assert obs.dtype == np.uint8
        assert obs.shape == shape
    assert state.rest.action.dtype == samples.indices.dtype == np.int32
    assert state.rest.terminated.dtype == np.bool_


@pytest.mark.parametrize(
    ("kind", "places"),
    [
        (Kind(1, 2, 500), 3),  # two blocks, and the newest row
        (Kind(1, 2, 10), 52),
        (Kind(1, 2, None), 501),
        (Kind(4, 2, 10), 65),  # a block has 8 rows
    ],
)
def test_an_observation_is_kept_once(kind, places):
    example = jax.tree.map(lambda x: jnp.asarray(x), history(kind, 1))
    state = uniform(capacity=1000, batch_size=2).init(example, spec(kind))
    assert state.obs.shape == (1000, 2)
    assert state.apart.shape == (places * kind.num_envs, 2)


def test_slots_are_equally_likely():
    kind = Kind(1, 2, None)
    replay = uniform(capacity=40, batch_size=40)
    state = replay.init(history(kind, 1), spec(kind))
    keys = jax.random.split(jax.random.key(1), 500)
    sample = jax.jit(jax.vmap(lambda key, step: replay.sample(state, key, step).indices, (0, None)))
    for step, slots in ((2, 2), (24, 24), (40, 40), (1_000_002, 40)):
        counts = np.bincount(np.asarray(sample(keys, step)).ravel(), minlength=slots)
        assert len(counts) == slots
        assert scipy.stats.chisquare(counts).pvalue > 1e-3, step
    indices = np.asarray(sample(keys, 40))
    assert any(len(set(row)) < 40 for row in indices)  # with replacement
    assert len({row.tobytes() for row in indices}) == len(keys)


def test_an_interruption_voids_what_did_not_end():
    """Of three environments one terminated and one was truncated: these steps stay as they are. Twice is as once."""
    replay, kind = uniform(capacity=6, batch_size=2), Kind(1, 3, 5)
    steps = jax.tree.map(jnp.asarray, history(kind, 1))
    steps = steps._replace(terminated=jnp.array([[True, False, False]]), truncated=jnp.array([[False, True, False]]))
    empty = replay.init(steps, spec(kind))
    once = replay.interrupt(replay.add(replay.add(empty, steps, 0), steps, 3), 6)
    assert once.rest.terminated.tolist() == [True, False, False, True, False, True]
    assert once.rest.truncated.tolist() == [False, True, False, False, True, True]
    jax.tree.map(np.testing.assert_array_equal, once, replay.interrupt(once, 6))
    jax.tree.map(np.testing.assert_array_equal, empty, replay.interrupt(empty, 0))


def test_update_changes_nothing():
    replay = uniform(capacity=4, batch_size=2)
    state = replay.init(history(Kind(1, 1, 5), 1), spec(Kind(1, 1, 5)))
    assert replay.update(state, jnp.array([0, 1]), jnp.ones(2)) is state


def test_the_write_stays_a_slice_over_seeds():
    """With the step shared, `vmap` keeps `dynamic-update-slice`; with one step for each seed it makes a scatter."""
    kind = Kind(2, 3, 5)
    replay, example = uniform(capacity=600, batch_size=2), history(kind, 1)
    states = jax.tree.map(lambda x: jnp.stack([x] * 4), replay.init(example, spec(kind)))
    examples = jax.tree.map(lambda x: jnp.stack([x] * 4), example)

    def compiled(step, axis):
        return jax.jit(jax.vmap(replay.add, (0, 0, axis))).lower(states, examples, step).compile().as_text()

    shared = compiled(jnp.int32(0), None)
    assert " dynamic-update-slice(" in shared
    assert " scatter(" not in shared
    assert " scatter(" in compiled(jnp.zeros(4, jnp.int32), 0)  # so the word is the right one to look for


def test_the_slots_that_follow():
    layout = ring.init("", 12, history(Kind(1, 3, 5), 1), spec(Kind(1, 3, 5))).layout
    assert ring.later(layout, jnp.array([0, 4, 10]), 1).tolist() == [3, 7, 1]
    assert ring.later(layout, jnp.array([0, 4, 10]), -1).tolist() == [9, 1, 7]
    assert ring.ages(layout, jnp.array([0, 4, 10]), 15).tolist() == [0, 3, 1]  # the newest row is the fifth, at 0


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (lambda: uniform(capacity=0, batch_size=1), "capacity=0"),
        (lambda: uniform(capacity=4.0, batch_size=1), "capacity=4.0"),
        (lambda: uniform(capacity=4, batch_size=0), "batch_size=0"),
        (lambda: uniform(capacity=4, batch_size=5), "batch_size=5 is not accepted; it must be at most capacity=4"),
        (
            lambda: uniform(capacity=4, batch_size=1).init(history(Kind(3, 1, 5), 1), spec(Kind(3, 1, 5))),
            "capacity=4 is not accepted; it must be a multiple of the 3",
        ),
        (lambda: uniform(capacity=4, batch_size=1).init(history(Kind(4, 2, 5), 1), spec(Kind(4, 2, 5))), "capacity=4"),
    ],
)
def test_errors(case, message):
    with pytest.raises(JaxrlError) as error:
        case()
    assert message in str(error.value)
    assert str(error.value).startswith("uniform replay: ")
