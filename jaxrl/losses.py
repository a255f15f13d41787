"""Terms of losses that several agents share, as pure functions; all axes but the last, or the named ones, are leading.

Sums and projections are in float32, or in float64 where an input is. Gradients flow through every floating-point
argument: no function here stops them, so a caller that wants constants applies `jax.lax.stop_gradient`.
"""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp

from jaxrl.checks import number
from jaxrl.types import Array

# Pairs of atoms are summed up in a loop over the one index, the other being a vector: XLA's CPU code for a reduction of
# the pairs' matrix is not vectorised, and 3 to 6 times as slow. Several steps of the loop make one fused kernel.
UNROLL = 8


def _floating(*arrays: Array) -> list[Array]:
    """The arrays in one floating dtype, float32 at least."""
    dtype = jnp.promote_types(jnp.result_type(*arrays), jnp.float32)
    return [jnp.asarray(array).astype(dtype) for array in arrays]


def _column(x: Array, j: Array) -> Array:
    """`x[..., j : j + 1]`."""
    return jax.lax.dynamic_slice_in_dim(x, j, 1, axis=-1)


def take(values: Array, actions: Array) -> Array:
    """The values of the actions taken.

    A mask chooses them, and not a gather: its gradient is a product, that of a gather a scatter.

    Args:
      values: `[..., num_actions]`, or `[..., num_actions, K]` for K numbers of each action.
      actions: `[...]`, integers; one that is out of range takes zeros.

    Returns:
      `[...]` or `[..., K]`.

    Raises:
      AssertionError: if the shapes do not agree, at trace time.

    >>> take(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([1, 0])).tolist()
    [2.0, 3.0]
    """
    values, actions = jnp.asarray(values), jnp.asarray(actions)
    axis = actions.ndim
    chex.assert_rank(values, {axis + 1, axis + 2})
    if axis:
        chex.assert_equal_shape_prefix((values, actions), axis)
    taken = jnp.arange(values.shape[axis]) == actions[..., None]
    taken = taken.reshape(taken.shape + (1,) * (values.ndim - taken.ndim))
    return jnp.sum(jnp.where(taken, values, 0), axis=axis)


def categorical_projection(probabilities: Array, targets: Array, support: Array) -> Array:
    """Projects a distribution on any points onto the atoms of a fixed, evenly spaced support.

    ```
    m[i] = sum_j clip(1 - |clip(targets[j], support[0], support[-1]) - support[i]| / spacing, 0, 1) * probabilities[j]
    ```

    Each point's mass goes to the two atoms beside it, in proportion to how near they are; beyond the support's ends, to
    the last atom. Bellemare et al. (2017), eq. 7 and algorithm 1.

    Args:
      probabilities: `[..., num_atoms]`, masses of the points.
      targets: `[..., num_atoms]`, the points, in any order: of C51, `reward + discount * support`.
      support: `[num_atoms]`, at least two, rising in equal steps.

    Returns:
      masses of the support's atoms `[..., num_atoms]`: their sum is that of `probabilities`, and none is below 0.

    Raises:
      AssertionError: if the shapes do not agree, at trace time.

    >>> categorical_projection(jnp.array([0.5, 0.0, 0.5]), jnp.array([0.25, 1.0, 9.0]), jnp.arange(3.0)).tolist()
    [0.375, 0.125, 0.5]
    """
    probabilities, targets, support = _floating(probabilities, targets, support)
    chex.assert_equal_shape((probabilities, targets))
    chex.assert_shape(support, probabilities.shape[-1:])
    chex.assert_axis_dimension_gteq(support, 0, 2)
    last = support.shape[0] - 1
    spacing = (support[-1] - support[0]) / last
    # Clipped after the division, whose rounding would otherwise carry mass over the end.
    places = jnp.clip((targets - support[0]) / spacing, 0, last)
    atoms = jnp.arange(last + 1, dtype=places.dtype)

    def add(j: Array, masses: Array) -> Array:
        return masses + jnp.maximum(1 - jnp.abs(_column(places, j) - atoms), 0) * _column(probabilities, j)

    return jax.lax.fori_loop(0, last + 1, add, jnp.zeros_like(probabilities), unroll=UNROLL)


def quantile_huber_loss(quantiles: Array, targets: Array, kappa: Array | float = 1.0) -> Array:
    """The quantile regression loss of a distribution's quantiles, made smooth near zero.

    ```
    sum_i mean_j |tau[i] - (u < 0)| * L(u),    u = targets[j] - quantiles[i],    tau[i] = (2 i + 1) / 2 N
    L(u) = u^2 / 2 where |u| <= kappa, else kappa * (|u| - kappa / 2)
    ```

    Dabney et al. (2018), eqs. 9 and 10 and algorithm 1. With `kappa=0`, as there, L(u) = |u|, which is plain quantile
    regression (eq. 8).

    Args:
      quantiles: `[..., N]`, estimates of the quantiles at `tau`.
      targets: `[..., M]`, samples of the distribution, or quantiles of it, of equal weight.
      kappa: >= 0.

    Returns:
      the loss `[...]`.

    Raises:
      JaxrlError: if `kappa` is negative or not finite.
      AssertionError: if the shapes do not agree, at trace time.

    >>> float(quantile_huber_loss(jnp.array([0.0, 0.0]), jnp.array([2.0, -2.0])))
    1.5
    """
    number("quantile_huber_loss", 0, kappa=kappa)
    quantiles, targets = _floating(quantiles, targets)
    chex.assert_equal_rank((quantiles, targets))
    chex.assert_shape(targets, (*quantiles.shape[:-1], None))
    num_quantiles, num_targets = quantiles.shape[-1], targets.shape[-1]
    kappa = jnp.asarray(kappa, quantiles.dtype)
    tau = (jnp.arange(num_quantiles, dtype=quantiles.dtype) + 0.5) / num_quantiles

    # Computed again on the way back: kept, the pairs would take N * M numbers of each element of the batch.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def add(j: Array, losses: Array) -> Array:
        u = _column(targets, j) - quantiles
        near = jnp.clip(u, -kappa, kappa)
        huber = jnp.where(kappa > 0, near * (u - near / 2), jnp.abs(u))
        return losses + jnp.where(u < 0, 1 - tau, tau) * huber

    losses = jax.lax.fori_loop(0, num_targets, add, jnp.zeros_like(quantiles), unroll=UNROLL)
    return jnp.sum(losses, axis=-1) / num_targets
