"""Sums of more numbers than one float32 can add: what rounding leaves out of the total is kept beside it.

A float32 has 24 bits. A total stops growing where what is added is less than half of its last bit (ones, at
16,777,216), and long before that it drifts; with a second number it does neither, at the cost of a few additions.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from jaxrl.types import Array


class Sum(NamedTuple):
    """A sum: `total + rest`, floats of one shape and dtype.

    Attributes:
      total: the sum as far as one number holds it.
      rest: what is missing in it, less than its last bit.
    """

    total: Array
    rest: Array | float


def nothing(shape: tuple[int, ...] = (), dtype: jnp.dtype = jnp.float32) -> Sum:
    """The sum of no numbers."""
    return Sum(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


def add(so_far: Sum, x: Array) -> Sum:
    """The sum with one more number.

    ```
    y = x + rest,   total' = total + y,   rest' = what rounding left out of total'
    ```

    Kahan (1965), with Knuth's (1969) way of finding what was left out, which is exact whichever of the two is larger.

    Args:
      so_far: `[...]`.
      x: `[...]`.

    >>> total = nothing()
    >>> for x in (16_777_216.0, 1.0, 1.0):
    ...     total = add(total, x)
    >>> float(value(total))
    16777218.0
    """
    y = jnp.asarray(x, so_far.total.dtype) + so_far.rest
    total = so_far.total + y
    added = total - so_far.total
    lost = (so_far.total - (total - added)) + (y - added)
    return Sum(total, jnp.where(jnp.isfinite(total), lost, 0))  # infinity stays infinity


def value(total: Sum) -> Array:
    """The sum as one number."""
    return total.total + total.rest
