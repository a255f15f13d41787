"""The sum tree: its sums are exact, it samples by priority, and nothing makes it return what has none."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl import JaxrlError
from jaxrl.replay import sum_tree

CAPACITIES = (1, 7, 8, 9, 64, 65, 1000)


def tree_of(priorities):
    tree = sum_tree.init(len(priorities))
    return sum_tree.update(tree, jnp.arange(len(priorities)), jnp.asarray(priorities, jnp.float32))


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


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_any_capacity(capacity):
    priorities = np.random.default_rng(capacity).uniform(0.1, 1, capacity).astype(np.float32)
    tree = tree_of(priorities)
    assert len(tree[0]) == 1
    check_sums(tree)
    np.testing.assert_array_equal(leaves(tree)[:capacity], priorities)
    assert not leaves(tree)[capacity:].any()
    np.testing.assert_allclose(sum_tree.total(tree), priorities.sum(dtype=np.float64), rtol=1e-6)
    indices, probabilities = sum_tree.sample(tree, jax.random.key(0), 100)
    assert (indices.dtype, indices.shape) == (jnp.int32, (100,))
    assert 0 <= indices.min() <= indices.max() < capacity
    np.testing.assert_allclose(probabilities, priorities[indices] / priorities.sum(dtype=np.float64), rtol=1e-5)


def test_sums_stay_exact_over_many_updates_with_duplicates():
    """100,000 batches, each with the same leaf several times; differences added up would be off by far more."""

    def change(step, tree):
        index_key, priority_key, scale_key = jax.random.split(jax.random.fold_in(jax.random.key(3), step), 3)
        indices = jax.random.randint(index_key, (8,), 0, 300)
        scale = 10.0 ** jax.random.randint(scale_key, (8,), -6, 6)
        return sum_tree.update(tree, indices.at[5:].set(indices[0]), scale * jax.random.uniform(priority_key, (8,)))

    tree = jax.jit(lambda tree: jax.lax.fori_loop(0, 100_000, change, tree))(sum_tree.init(300))
    check_sums(tree)
    assert (leaves(tree) > 0).sum() == 300


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
    np.testing.assert_array_equal(sum_tree.sample(tree, jax.random.key(0), 64)[0], np.arange(64))
    np.testing.assert_array_equal(sum_tree.sample(tree, jax.random.key(1), 16)[0] // 4, np.arange(16))


def test_a_leaf_without_priority_is_never_drawn():
    """Sparse trees whose priorities differ by many orders of magnitude, where rounding would find a way."""
    rng = np.random.default_rng(0)
    priorities = 10.0 ** rng.uniform(-8, 8, (300, 100)) * (rng.uniform(size=(300, 100)) < 0.1)
    priorities[:, 37] = 1e-3  # so that none is empty
    priorities = jnp.asarray(priorities, jnp.float32)

    def draw(priorities, key):
        tree = sum_tree.update(sum_tree.init(100), jnp.arange(100), priorities)
        return sum_tree.sample(tree, key, 256)

    indices, probabilities = jax.jit(jax.vmap(draw))(priorities, jax.random.split(jax.random.key(7), 300))
    assert (np.take_along_axis(np.asarray(priorities), np.asarray(indices), -1) > 0).all()
    assert (probabilities > 0).all()
    assert (np.diff(indices, axis=-1) >= 0).all()


def test_what_is_found_at_the_ends_of_leaves():
    """A leaf's part of the sum includes where it begins, and beyond the ends the nearest is found."""
    priorities = np.zeros(100)
    priorities[[3, 4, 40, 77]] = [1, 2, 4, 1]
    at = jnp.array([-1e-6, 0.0, 0.999, 1.0, 2.999, 3.0, 6.999, 7.0, 7.999, 8.0, 8.5])
    indices, found = sum_tree.find(tree_of(priorities), at)
    np.testing.assert_array_equal(indices, [3, 3, 3, 4, 4, 40, 40, 77, 77, 77, 77])
    np.testing.assert_array_equal(found, priorities[np.asarray(indices)])


def test_rounding_finds_leaves_with_a_priority():
    """At the exact ends of the parts of a tree's upper levels, where what is left of a sum is nothing, or less."""
    rng = np.random.default_rng(1)
    priorities = (rng.uniform(0, 1, (200, 512)) * (rng.uniform(size=(200, 512)) < 0.3)).astype(np.float32)

    def find(priorities):
        tree = sum_tree.update(sum_tree.init(512), jnp.arange(512), priorities)
        ends = jnp.concatenate([jnp.cumsum(level.ravel()) for level in tree])
        return sum_tree.find(tree, jnp.concatenate([ends, jnp.nextafter(ends, 0.0), jnp.nextafter(ends, jnp.inf)]))[1]

    assert (jax.jit(jax.vmap(find))(priorities) > 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1.0])
def test_what_is_no_priority_counts_as_none(bad):
    tree = sum_tree.update(tree_of([1.0, 2.0, 3.0]), jnp.array([0, 2]), jnp.array([bad, 4.0]))
    np.testing.assert_array_equal(leaves(tree)[:3], [0, 2, 4])
    assert sum_tree.total(tree) == 6
    assert set(np.asarray(sum_tree.sample(tree, jax.random.key(0), 32)[0])) == {1, 2}


def test_an_empty_tree():
    indices, probabilities = sum_tree.sample(sum_tree.init(20), jax.random.key(0), 3)
    np.testing.assert_array_equal(indices, 0)
    np.testing.assert_array_equal(probabilities, 0)


@pytest.mark.parametrize("capacity", [0, -3, 2.5])
def test_errors(capacity):
    with pytest.raises(JaxrlError, match=f"sum_tree: capacity={capacity} is not accepted; it must be a whole number"):
        sum_tree.init(capacity)
