"""The uniform replay: what is stored is what is sampled, from written slots alone, all equally often."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl import prng
from jaxrl.checks import JaxrlError
from jaxrl.replay import uniform

CAPACITY, BATCH = 12, 8


class Item(NamedTuple):
    obs: jax.Array
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    extras: dict


def encode(ids) -> Item:
    """Items every field of which tells their id (from 1 on, so that an unwritten slot cannot pass for one)."""
    ids = jnp.asarray(ids, jnp.int32)
    return Item(
        obs=(ids[..., None, None] + jnp.arange(6).reshape(2, 3)).astype(jnp.uint8),
        action=3 * ids + 1,
        reward=0.5 * ids - 7.0,
        terminated=ids % 3 == 0,
        extras={"next_obs": jnp.stack([ids, -ids], axis=-1).astype(jnp.float32)},
    )


def fill(added: int, num_adds: int, key):
    """Adds, and samples after each add, `num_adds` times; returns the samples and the last state."""
    replay = uniform(capacity=CAPACITY, batch_size=BATCH)
    key = prng.unrolled(key)

    def body(state, x):
        turn, key = x
        step = turn * added
        state = replay.add(state, encode(1 + step + jnp.arange(added)), step)
        return state, replay.sample(state, key, step + added)

    state = replay.init(jax.tree.map(lambda x: x[0], encode(jnp.zeros(1))))
    return jax.lax.scan(body, state, (jnp.arange(num_adds), jax.random.split(key, num_adds)))


SIZES = {1: 40, 3: 17, 4: 10, 12: 3}


@pytest.fixture(scope="module")
def fillings():
    """Several sizes of add, past several wrap-arounds, for three seeds, out of one compiled call."""
    keys = jax.random.split(jax.random.key(0), 3)
    run = jax.jit(lambda keys: {k: jax.vmap(lambda key: fill(k, n, key))(keys) for k, n in SIZES.items()})
    return jax.tree.map(np.asarray, run(keys))


@pytest.mark.parametrize("added", SIZES)
def test_stored_is_sampled(fillings, added):
    state, samples = fillings[added]
    ids = (samples.items.action - 1) // 3  # [S, turns, B]
    expected = encode(ids)
    for field, got, want in zip(Item._fields, samples.items, expected, strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y, err_msg=field), got, want)
    seen = added * (1 + np.arange(SIZES[added]))[None, :, None]
    assert ((ids >= 1) & (ids > seen - CAPACITY) & (ids <= seen)).all()
    np.testing.assert_array_equal(samples.indices, (ids - 1) % CAPACITY)
    np.testing.assert_array_equal(samples.weights, 1.0)
    total = added * SIZES[added]
    newest = 1 + np.arange(total - CAPACITY, total)  # what a ring of the last items holds, slot by slot
    np.testing.assert_array_equal(state.action[0], 3 * np.roll(newest, total % CAPACITY) + 1)


def test_dtypes_are_kept(fillings):
    state, samples = fillings[1]
    for tree, lead in ((state, (3, CAPACITY)), (samples.items, (3, SIZES[1], BATCH))):
        assert [tree.obs.dtype, tree.action.dtype, tree.terminated.dtype] == [np.uint8, np.int32, np.bool_]
        assert tree.obs.shape == (*lead, 2, 3)
    assert samples.indices.dtype == np.int32


def test_slots_are_equally_likely():
    replay = uniform(capacity=40, batch_size=40)
    state = replay.init(jnp.int32(0))
    keys = jax.random.split(jax.random.key(1), 500)
    sample = jax.jit(jax.vmap(lambda key, step: replay.sample(state, key, step).indices, (0, None)))
    for step, slots in ((1, 1), (25, 25), (40, 40), (1_000_003, 40)):
        counts = np.bincount(np.asarray(sample(keys, step)).ravel(), minlength=slots)
        assert len(counts) == slots
        if slots > 1:
            assert scipy.stats.chisquare(counts).pvalue > 1e-3, step
    indices = np.asarray(sample(keys, 40))
    assert any(len(set(row)) < 40 for row in indices)  # with replacement
    assert len({row.tobytes() for row in indices}) == len(keys)


def test_update_changes_nothing():
    replay = uniform(capacity=4, batch_size=2)
    state = replay.init(jnp.float32(0))
    assert replay.update(state, jnp.array([0, 1]), jnp.ones(2)) is state


def test_the_write_stays_a_slice_over_seeds():
    """With the step shared, `vmap` keeps one `dynamic-update-slice`; with one step for each seed it makes a scatter."""
    replay = uniform(capacity=64, batch_size=2)
    state, items = jnp.zeros((4, 64, 3)), jnp.ones((4, 2, 3))

    def compiled(step, axis):
        return jax.jit(jax.vmap(replay.add, (0, 0, axis))).lower(state, items, step).compile().as_text()

    shared = compiled(jnp.int32(0), None)
    assert " dynamic-update-slice(" in shared
    assert " scatter(" not in shared
    assert " scatter(" in compiled(jnp.zeros(4, jnp.int32), 0)  # so the word is the right one to look for


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (lambda: uniform(capacity=0, batch_size=1), "capacity=0"),
        (lambda: uniform(capacity=4.0, batch_size=1), "capacity=4.0"),
        (lambda: uniform(capacity=4, batch_size=0), "batch_size=0"),
        (lambda: uniform(capacity=4, batch_size=5), "batch_size=5 is not accepted; it must be at most capacity=4"),
        (
            lambda: uniform(capacity=4, batch_size=1).add(jnp.zeros(4), jnp.zeros(3), 0),
            "capacity=4 is not accepted; it must be a multiple of the 3",
        ),
        (lambda: uniform(capacity=4, batch_size=1).add(jnp.zeros(4), jnp.zeros(8), 0), "capacity=4"),
    ],
)
def test_errors(case, message):
    with pytest.raises(JaxrlError) as error:
        case()
    assert message in str(error.value)
    assert str(error.value).startswith("uniform replay: ")
