"""The sum tree: its sums are exact, it samples by priority, and nothing makes it return what has none."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl import JaxrlError
from jaxrl.replay import NO_SLOT, sum_tree

CAPACITIES = (1, 7, 8, 9, 64, 1000)
TURNS, BATCH = 100_000, 8


@jax.jit
def tree_of(priorities):
    priorities = jnp.asarray(priorities, jnp.float32)
    return sum_tree.update(sum_tree.init(len(priorities)), jnp.arange(len(priorities)), priorities)


def leaves(tree):
    return np.asarray(tree[-1]).ravel()


def check_sums(tree):
    """Every parent is the float32 sum of its children, added in pairs, to the last bit."""
    levels = [np.asarray(level) for level in tree]
    for parents, children in itertools.pairwise(levels):
        sums = children
        while sums.shape[-1] > 1:
            sums = sums[:, 0::2] + sums[:, 1::2]
        np.testing.assert_array_equal(parents.ravel()[: len(children)], sums[:, 0])
        assert not parents.ravel()[len(children) :].any()


@pytest.fixture(scope="module")
def made():
    """For each capacity: priorities; the tree that `update` makes of them, and `from_priorities`; what is sampled."""

    def make(priorities):
        tree = tree_of(priorities)
        return tree, sum_tree.from_priorities(priorities), *sum_tree.sample(tree, jax.random.key(0), 100)

    rng = np.random.default_rng(0)
    priorities = {n: rng.uniform(0.1, 1, n).astype(np.float32) for n in CAPACITIES}
    trees = jax.jit(lambda each: {n: make(x) for n, x in each.items()})(priorities)
    return {n: (priorities[n], *jax.device_get(trees[n])) for n in CAPACITIES}


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_any_capacity(made, capacity):
    priorities, tree, at_once, indices, probabilities = made[capacity]
    assert len(tree[0]) == 1
    check_sums(tree)
    np.testing.assert_array_equal(leaves(tree)[:capacity], priorities)
    assert not leaves(tree)[capacity:].any()
    jax.tree.map(np.testing.assert_array_equal, at_once, tree)
    np.testing.assert_allclose(sum_tree.total(tree), priorities.sum(dtype=np.float64), rtol=1e-6)
    assert (indices.dtype, indices.shape) == (jnp.int32, (100,))
    assert 0 <= indices.min() <= indices.max() < capacity
    np.testing.assert_allclose(probabilities, priorities[indices] / priorities.sum(dtype=np.float64), rtol=1e-5)


def changes(capacity):
    """Turns of a tree's life: an update each, and in one of ten a write of one of some lengths; NumPy arrays.

    A batch names leaves several times, and indices that no leaf has. Priorities are over twelve orders of magnitude;
    differences added up would be off by far more than the last bit.
    """
    rng = np.random.default_rng(capacity)
    indices = rng.integers(0, capacity, (TURNS, BATCH), np.int32)
    indices[:, 5:7] = indices[:, :1]
    beyond = -(-capacity // sum_tree.FANOUT) * sum_tree.FANOUT
    nowhere = np.array([NO_SLOT, beyond, beyond + 1, 2 * beyond, 100 * beyond, -1, -beyond - 1], np.int32)
    indices[:, 7] = np.where(rng.random(TURNS) < 0.5, rng.choice(nowhere, TURNS), indices[:, 7])
    indices[-100:] = rng.choice(nowhere, (100, BATCH))  # after which nothing hides what they did
    values = rng.random((TURNS, BATCH)) * 10.0 ** rng.integers(-6, 6, (TURNS, BATCH))
    values = np.take_along_axis(values, indices % BATCH, axis=1).astype(np.float32)  # the same for the same leaf
    lengths = tuple(n for n in (1, 5, 20, 333, capacity) if n <= capacity)
    which = np.where(rng.random(TURNS) < 0.1, rng.integers(1, len(lengths) + 1, TURNS), 0).astype(np.int32)
    which[-100:] = 0
    room = capacity - np.array([0, *lengths])[which]
    starts = np.where(rng.random(TURNS) < 0.1, room, rng.integers(0, room + 1)).astype(np.int32)  # often at the end
    return lengths, (indices, values, which, starts)


@pytest.fixture(scope="module")
def lived():
    """For each capacity: its changes; the tree after them; and whether every write was an update to the last bit."""

    def life(capacity, lengths, turns):
        def writes(length):
            def write(tree, start, seed):
                values = (seed + jnp.arange(length, dtype=jnp.float32)) * 0.1
                new = sum_tree.write(tree, start, values)
                same = sum_tree.update(tree, start + jnp.arange(length), values)
                return new, jnp.all(jnp.stack([jnp.all(a == b) for a, b in zip(new, same, strict=True)]))

            return write

        branches = [lambda tree, start, seed: (tree, jnp.bool(True)), *(writes(length) for length in lengths)]

        def turn(carry, change):
            tree, same = carry
            indices, values, which, start = change
            tree = sum_tree.update(tree, indices, values)
            tree, equal = jax.lax.switch(which, branches, tree, start, values[0])
            return (tree, same & equal), ()

        return jax.lax.scan(turn, (sum_tree.init(capacity), jnp.bool(True)), turns)[0]

    every = {capacity: changes(capacity) for capacity in CAPACITIES}

    def run(turns):
        return {n: life(n, lengths, turns[n]) for n, (lengths, _) in every.items()}

    ends = jax.device_get(jax.jit(run)({n: turns for n, (_, turns) in every.items()}))
    return {n: (*every[n], *ends[n]) for n in CAPACITIES}


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_sums_stay_exact_over_many_changes(lived, capacity):
    lengths, turns, tree, same = lived[capacity]
    check_sums(tree)
    assert same
    expected, tenth = np.zeros(capacity, np.float32), np.float32(0.1)
    for indices, values, which, start in zip(*turns, strict=True):
        known = (indices >= 0) & (indices < capacity)
        expected[indices[known]] = values[known]
        if which:
            length = lengths[which - 1]
            expected[start : start + length] = (values[0] + np.arange(length, dtype=np.float32)) * tenth
    np.testing.assert_allclose(leaves(tree)[:capacity], expected, rtol=1e-6)
    assert not leaves(tree)[capacity:].any()
    assert len(np.unique(turns[2])) == len(lengths) + 1


def test_a_duplicate_gets_one_of_its_priorities():
    tree = sum_tree.update(sum_tree.init(9), jnp.array([4, 8, 4]), jnp.array([1.0, 5.0, 2.0]))
    assert leaves(tree)[4] in (1, 2)
    assert leaves(tree)[8] == 5
    assert sum_tree.total(tree) == leaves(tree).sum()


@pytest.mark.parametrize("batch_size", [1, 50])
def test_frequencies(batch_size):
    """Single draws and, over many batches, stratified ones find a leaf in proportion to its priority."""
    priorities = np.array([1, 0, 5, 0.25, 2, 0, 0, 9, 3, 0, 0.5, 4], np.float32)
    keys = jax.random.split(jax.random.key(1), 40_000 // batch_size)
    draw = jax.jit(jax.vmap(lambda key: sum_tree.sample(tree_of(priorities), key, batch_size)[0]))
    counts = np.bincount(np.ravel(draw(keys)), minlength=len(priorities))
    assert not counts[priorities == 0].any()
    some = priorities > 0
    expected = priorities[some] / priorities.sum() * counts.sum()
    assert scipy.stats.chisquare(counts[some], expected).pvalue > 1e-3


def test_one_draw_from_each_part():
    """Of equal priorities, as many draws as leaves find each once; sixteen find one of every four."""
    tree = tree_of(np.ones(64))
    draw = jax.jit(lambda tree, key: (sum_tree.sample(tree, key, 64)[0], sum_tree.sample(tree, key, 16)[0]))
    all_of_them, some = draw(tree, jax.random.key(0))
    np.testing.assert_array_equal(all_of_them, np.arange(64))
    np.testing.assert_array_equal(some // 4, np.arange(16))


def test_a_leaf_without_priority_is_never_drawn():
    """Sparse trees whose priorities differ by many orders of magnitude, where rounding would find a way."""
    rng = np.random.default_rng(0)
    priorities = 10.0 ** rng.uniform(-8, 8, (300, 100)) * (rng.uniform(size=(300, 100)) < 0.1)
    priorities[:, 37] = 1e-3  # so that none is empty
    priorities = jnp.asarray(priorities, jnp.float32)

    def draw(priorities, key):
        return sum_tree.sample(sum_tree.from_priorities(priorities), key, 256)

    indices, probabilities = jax.jit(jax.vmap(draw))(priorities, jax.random.split(jax.random.key(7), 300))
    assert (np.take_along_axis(np.asarray(priorities), np.asarray(indices), -1) > 0).all()
    assert (probabilities > 0).all()
    assert (np.diff(indices, axis=-1) >= 0).all()


def test_what_is_found_at_the_ends_of_leaves():
    """A leaf's part of the sum includes where it begins, and beyond the ends the nearest is found."""
    priorities = np.zeros(100)
    priorities[[3, 4, 40, 77]] = [1, 2, 4, 1]
    at = jnp.array([-1e-6, 0.0, 0.999, 1.0, 2.999, 3.0, 6.999, 7.0, 7.999, 8.0, 8.5])
    indices, found = jax.jit(sum_tree.find)(tree_of(priorities), at)
    np.testing.assert_array_equal(indices, [3, 3, 3, 4, 4, 40, 40, 77, 77, 77, 77])
    np.testing.assert_array_equal(found, priorities[np.asarray(indices)])


def test_rounding_finds_leaves_with_a_priority():
    """At the exact ends of the parts of a tree's upper levels, where what is left of a sum is nothing, or less."""
    rng = np.random.default_rng(1)
    priorities = (rng.uniform(0, 1, (200, 512)) * (rng.uniform(size=(200, 512)) < 0.3)).astype(np.float32)

    def find(priorities):
        tree = sum_tree.from_priorities(priorities)
        ends = jnp.concatenate([jnp.cumsum(level.ravel()) for level in tree])
        return sum_tree.find(tree, jnp.concatenate([ends, jnp.nextafter(ends, 0.0), jnp.nextafter(ends, jnp.inf)]))[1]

    assert (jax.jit(jax.vmap(find))(priorities) > 0).all()


BAD = [np.nan, np.inf, -np.inf, -1.0]


def test_under_a_trace_what_is_no_priority_counts_as_none():
    def change(bad):
        tree = sum_tree.from_priorities(jnp.array([1.0, 2.0, 3.0]))
        values = jnp.stack([bad, 4.0])
        changed = sum_tree.update(tree, jnp.array([0, 2]), values)
        return changed, sum_tree.sample(changed, jax.random.key(0), 32), sum_tree.write(tree, 1, values)

    changed, (indices, _), written = jax.jit(jax.vmap(change))(jnp.array(BAD))
    np.testing.assert_array_equal(changed[-1][:, 0, :3], [[0, 2, 4]] * len(BAD))
    np.testing.assert_array_equal(changed[0].sum(axis=(1, 2)), 6)
    assert set(np.asarray(indices).ravel()) == {1, 2}
    np.testing.assert_array_equal(written[-1][:, 0, :3], [[1, 0, 4]] * len(BAD))


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_priority_is_refused(bad):
    tree, values = sum_tree.init(3), np.array([bad, 4.0])
    cases = (
        lambda: sum_tree.update(tree, np.array([0, 2]), values),
        lambda: sum_tree.write(tree, 0, values),
        lambda: sum_tree.from_priorities(values),
    )
    for case in cases:
        with pytest.raises(JaxrlError, match=r"sum_tree: priorities=.* is not accepted; it must be a number"):
            case()


def test_an_empty_tree():
    """One that never had a priority, and one that lost them all: the first leaf, and nothing that is not finite."""
    lost = sum_tree.update(tree_of(np.ones(20)), jnp.arange(20), jnp.zeros(20))
    for tree in (sum_tree.init(20), lost):
        indices, probabilities = sum_tree.sample(tree, jax.random.key(0), 3)
        np.testing.assert_array_equal(indices, 0)
        np.testing.assert_array_equal(probabilities, 0)


@pytest.mark.parametrize("capacity", [0, -3, 2.5])
def test_errors(capacity):
    with pytest.raises(JaxrlError, match=f"sum_tree: capacity={capacity} is not accepted; it must be a whole number"):
        sum_tree.init(capacity)
