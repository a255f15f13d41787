"""n steps as one: against a plain loop over what was added, and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experience import Kind, fill, history

from jaxrl import prng
from jaxrl.replay import Sample, uniform
from jaxrl.replay.n_step import aggregate
from jaxrl.types import Transition

KIND, NUM_ADDS, CAPACITY = Kind(2, 3, 8), 30, 48
LENGTHS, GAMMAS = (1, 3, 5), np.array([0.0, 0.9, 1.0], np.float32)


@pytest.fixture(scope="module")
def aggregated():
    """For each n, leaves `[gamma, add, B, ...]`, the discounts traced; and the first steps, `[add, B]`."""
    replay = uniform(capacity=CAPACITY, batch_size=16)

    def run(key, gammas):
        _, sample = fill(replay, KIND, NUM_ADDS, key, max(LENGTHS))
        first = sample.steps.action[..., 0]

        def shorter(n):
            return Sample(jax.tree.map(lambda x: x[:, :, :n], sample.steps), sample.valid[:, :, :n], (), ())

        over_adds = jax.vmap(aggregate, (0, None))
        return first, {n: jax.vmap(over_adds, (None, 0))(shorter(n), gammas) for n in LENGTHS}

    return jax.device_get(jax.jit(run)(prng.unrolled(jax.random.key(0)), GAMMAS))


@pytest.mark.parametrize("n", LENGTHS)
def test_against_a_plain_loop(aggregated, n):
    first, results = aggregated[0], aggregated[1][n]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), history(KIND, NUM_ADDS))
    why = []
    for g, gamma in enumerate(GAMMAS.astype(np.float64)):
        for turn, b in np.ndindex(first.shape):
            step, reward, discount = first[turn, b], 0.0, 1.0
            for k in range(n):
                last = step + k * KIND.num_envs
                reward += discount * flat.reward[last]
                discount *= gamma
                if flat.terminated[last] or flat.truncated[last]:
                    break
                if last + KIND.num_envs >= (turn + 1) * KIND.length * KIND.num_envs:
                    break
            got = jax.tree.map(lambda x: x[g, turn, b], results)
            np.testing.assert_array_equal(got.obs, flat.obs[step])
            assert got.action == flat.action[step]
            np.testing.assert_allclose(got.reward, reward, rtol=1e-5)
            np.testing.assert_allclose(got.discount, 0 if flat.terminated[last] else discount, rtol=1e-5)
            if not flat.terminated[last]:
                np.testing.assert_array_equal(got.next_obs, flat.next_obs[last])
            end = "terminated" if flat.terminated[last] else "truncated" if flat.truncated[last] else "newest"
            why.append((end if k < n - 1 or end != "newest" else "whole", k))
    ends, lengths = zip(*why, strict=True)
    assert set(lengths) == set(range(n))
    expected = {"terminated", "truncated", "whole"} | ({"newest"} if n > 1 else set())
    assert {end for end in expected if ends.count(end) > 20} == expected


def test_by_hand():
    """Rewards of 1, 2 and 4 at gamma = 1/2: all valid; terminated at the second; truncated there; the newest step."""
    end, no_end = [False, True, False], [False] * 3
    steps = Transition(
        obs=jnp.tile(jnp.arange(3), (4, 1)),
        action=jnp.tile(jnp.arange(10, 13), (4, 1)),
        reward=jnp.tile(jnp.array([1.0, 2.0, 4.0]), (4, 1)).at[3, 1:].set(jnp.nan),  # of other episodes: never counts
        terminated=jnp.array([no_end, end, no_end, no_end]),
        truncated=jnp.array([no_end, no_end, end, no_end]),
        next_obs=jnp.tile(jnp.arange(1, 4), (4, 1)),
        extras={},
    )
    valid = jnp.array([[True, True, True], [True, True, False], [True, True, False], [True, False, False]])
    result = jax.jit(aggregate)(Sample(steps, valid, jnp.arange(4), jnp.ones(4)), 0.5)
    np.testing.assert_array_equal(result.obs, 0)
    np.testing.assert_array_equal(result.action, 10)
    np.testing.assert_array_equal(result.reward, [3, 2, 2, 1])
    np.testing.assert_array_equal(result.discount, [0.125, 0, 0.25, 0.5])
    np.testing.assert_array_equal(result.next_obs, [3, 2, 2, 1])
