"""Boxes: what they hold, and how elements are drawn from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import JaxrlError
from jaxrl.types import Box, box


def drawn(space: Box, number: int = 4000) -> np.ndarray:
    return np.asarray(jax.jit(jax.vmap(space.sample))(jax.random.split(jax.random.key(0), number)))


@pytest.mark.parametrize(
    ("low", "high", "dtype", "values"),
    [
        (0, 1, np.int32, [0, 1]),
        (-2, 1, np.int8, [-2, -1, 0, 1]),
        (250, 255, np.uint8, range(250, 256)),
        (0, 1, bool, [0, 1]),
        (-0.5, 1.5, np.int32, [0, 1]),
        (2**24 - 1, 2**24, np.int32, [2**24 - 1, 2**24]),
    ],
)
def test_whole_numbers_are_drawn_equally_often(low, high, dtype, values):
    """Both ends among them, each number of an element by itself."""
    sample = drawn(box(low, high, (2,), dtype))
    assert (sample.shape, sample.dtype) == ((4000, 2), dtype)
    found, counts = np.unique(sample.astype(np.int64), return_counts=True)
    assert found.tolist() == list(values)
    np.testing.assert_allclose(counts / sample.size, 1 / len(values), atol=0.03)
    assert (sample[:, 0] != sample[:, 1]).any()


def test_every_number_has_its_own_bounds():
    whole = drawn(Box(np.float32([0, 5]), np.float32([3, 5]), np.dtype(np.int32)))
    assert [np.unique(column).tolist() for column in whole.T] == [[0, 1, 2, 3], [5]]
    real = drawn(Box(np.float32([0, 5]), np.float32([3, 6])))
    assert real.dtype == np.float32
    np.testing.assert_allclose([real.min(0), real.max(0), real.mean(0)], [[0, 5], [3, 6], [1.5, 5.5]], atol=0.05)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (box(-np.inf, 1, (1,)), "they must be finite, and at most 1e18"),
        (box(0, np.inf, (1,), np.int32), "at most 2**24, as it holds whole numbers"),
        (box(-(2**31), 2**31 - 1, (1,), np.int32), "at most 2**24"),
    ],
)
def test_bounds_that_nothing_can_be_drawn_between(space, words):
    assert not space.bounded
    with pytest.raises(JaxrlError) as error:
        space.sample(jax.random.key(0))
    assert str(error.value).startswith("Box.sample: bounds of [")
    assert words in str(error.value)


def test_cast():
    assert box(0, 9, (), np.int32).cast(jnp.array([0.4, 0.6, -1.6, jnp.nan])).tolist() == [0, 1, -2, 0]
    assert box(0, 9, ()).cast(jnp.array([0.4, -1.6])).dtype == jnp.float32
