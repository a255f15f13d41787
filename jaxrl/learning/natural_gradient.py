"""Steps along the natural gradient: products with the Fisher matrix, conjugate gradients, and a line search.

Everything works on flat parameters, float `[P]`, as `jax.flatten_util.ravel_pytree` makes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.types import Array


class Trial(NamedTuple):
    """What some parameters are worth; float scalars.

    Attributes:
      loss: what is to become smaller.
      kl: the mean divergence of the policy that acted from theirs, in nats.
      max_kl: the largest divergence of any state.
    """

    loss: Array
    kl: Array
    max_kl: Array


class Search(NamedTuple):
    """Where a line search ended.

    Attributes:
      params: `[P]`, those that were accepted, or those that it began with.
      trial: what they are worth.
      backtracks: int32 `()`, how often the step was shortened.
      accepted: bool `()`.
    """

    params: Array
    trial: Trial
    backtracks: Array
    accepted: Array


def fisher_vector_product(
    mean_kl: Callable[[Array], Array], params: Array, damping: Array | float = 0.0
) -> Callable[[Array], Array]:
    """Products with the Fisher information matrix, which is never formed.

    ```
    F v = d/dtheta (d/dtheta mean_kl(theta) . v) + damping v,  at theta = params
    ```

    The divergence from a policy to itself is 0, its least, and its Hessian there is the Fisher matrix E[grad log pi
    grad log pi^T] (Schulman et al. 2015, appendix C.1). Differentiated forwards over backwards (Pearlmutter 1994), and
    linearised once: products share all that does not depend on the vector.

    Args:
      mean_kl: `mean_kl(theta) -> ()`, the mean over states of the divergence from the policy of `params` to that of
        `theta`, twice differentiable.
      params: `[P]`.
      damping: added to the diagonal, >= 0; makes up for what the states do not determine.

    Returns:
      `product(v [P]) -> [P]`.

    >>> quadratic = lambda theta: 1.5 * theta[0] ** 2 + theta[0] * theta[1]
    >>> product = fisher_vector_product(quadratic, jnp.zeros(2), damping=0.5)
    >>> product(jnp.array([1.0, 2.0])).tolist()
    [5.5, 2.0]
    """
    _, hessian_product = jax.linearize(jax.grad(mean_kl), params)
    return lambda v: hessian_product(v) + damping * v


def conjugate_gradient(product: Callable[[Array], Array], b: Array, iterations: int, tolerance: float = 1e-10) -> Array:
    """Solves `A x = b` for a symmetric positive definite A, known by its products, from `x = 0`.

    Hestenes and Stiefel (1952); here as algorithm 5.2 of Nocedal and Wright (2006).

    Args:
      product: `product(v [P]) -> A v [P]`.
      b: `[P]`.
      iterations: products at most; P of them would be exact but for rounding.
      tolerance: it ends early where the residual's square is at most this much of b's.

    Returns:
      `x`, `[P]`; 0 where b is.

    >>> A = jnp.array([[4.0, 1.0], [1.0, 3.0]])
    >>> x = conjugate_gradient(lambda v: A @ v, jnp.array([1.0, 2.0]), iterations=2)
    >>> [round(float(value), 4) for value in x]
    [0.0909, 0.6364]
    """

    def unfinished(carry: tuple) -> Array:
        iteration, _, _, _, square = carry
        return (iteration < iterations) & (square > enough)

    def one(carry: tuple) -> tuple:
        iteration, x, residual, direction, square = carry
        image = product(direction)
        curvature = direction @ image
        # Rounding can leave a direction that A does not see: along it there is nothing to gain.
        alpha = jnp.where(curvature > 0, square / jnp.where(curvature > 0, curvature, 1), 0)
        x, residual = x + alpha * direction, residual - alpha * image
        new_square = residual @ residual
        return iteration + 1, x, residual, residual + new_square / square * direction, new_square

    enough = tolerance * (b @ b)
    carry = (jnp.int32(0), jnp.zeros_like(b), b, b, b @ b)
    return jax.lax.while_loop(unfinished, one, carry)[1]


def step_size(direction: Array, image: Array, max_kl: Array | float) -> Array:
    """The largest step within the bound, to second order: `sqrt(2 max_kl / (s^T F s))`.

    Schulman et al. (2015), appendix C; as in Kakade (2001) the metric is the policy's and not the parameters'.

    Args:
      direction: s, `[P]`.
      image: F s, `[P]`.
      max_kl: bound on the mean divergence, > 0.

    Returns:
      a scalar, 0 where the direction is 0.

    >>> float(step_size(jnp.array([1.0, 0.0]), jnp.array([8.0, 3.0]), 0.01))
    0.05000000074505806
    """
    square = direction @ image
    return jnp.where(square > 0, jnp.sqrt(2 * max_kl / jnp.where(square > 0, square, 1)), 0)


def backtracking_search(
    evaluate: Callable[[Array], Trial],
    params: Array,
    loss: Array,
    step: Array,
    max_kl: Array | float,
    *,
    ratio: Array | float,
    backtracks: int,
) -> Search:
    """Tries `params + ratio^j step` for j = 0, 1, ... until the loss falls and the divergence keeps to its bound.

    Schulman et al. (2015), appendix C. A loss or a divergence that is not a number is not accepted.

    Args:
      evaluate: `evaluate(params [P]) -> Trial`.
      params: `[P]`, where to begin.
      loss: theirs.
      step: `[P]`, the whole of it.
      max_kl: bound on the mean divergence.
      ratio: what a step is shortened by, in (0, 1).
      backtracks: how often at most; 0 tries the whole step alone.

    Returns:
      the first parameters that pass; where none do, those it began with, whose divergence is 0.
    """

    def unfinished(carry: tuple) -> Array:
        tries, found = carry
        return (tries <= backtracks) & ~found.accepted

    def one(carry: tuple) -> tuple:
        tries, found = carry
        there = params + ratio**tries * step
        trial = evaluate(there)
        accepted = (trial.loss < loss) & (trial.kl <= max_kl)
        there, trial = jax.tree.map(lambda x, y: jnp.where(accepted, x, y), (there, trial), (params, found.trial))
        return tries + 1, Search(there, trial, tries, accepted)

    start = Search(params, Trial(loss, jnp.zeros_like(loss), jnp.zeros_like(loss)), jnp.int32(0), jnp.bool(False))
    return jax.lax.while_loop(unfinished, one, (jnp.int32(0), start))[1]


def whole_step(evaluate: Callable[[Array], Trial], params: Array, step: Array) -> Search:
    """`params + step`, whatever it is worth: no search; arguments as in `backtracking_search`."""
    there = params + step
    return Search(there, evaluate(there), jnp.int32(0), jnp.bool(True))
