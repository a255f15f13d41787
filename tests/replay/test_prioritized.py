"""Prioritized replays: each slot has the probability that a plain version of the paper's formulas gives it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from experience import Kind, check, fill, history, spec

from jaxrl import prng
from jaxrl.checks import JaxrlError
from jaxrl.replay import NO_SLOT, importance_weights, prioritized, ranked
from jaxrl.replay.prioritized import UNSEEN

REPLAYS = {"prioritized": prioritized, "ranked": ranked}
FILLINGS = {  # replay, kind of experience, how many adds, and capacity: several turns of the ring, and one not full
    "prioritized": (prioritized, Kind(2, 3, 5), 17, 24),
    "not full": (prioritized, Kind(1, 2, 5), 20, 100),
    "ranked": (ranked, Kind(2, 3, 5), 17, 24),
    "prioritized, interrupted": (prioritized, Kind(1, 3, 5), 25, 24, (2, 3, 9, 13, 14)),
    "ranked, interrupted": (functools.partial(ranked, sort_every=12), Kind(1, 3, 5), 25, 24, (2, 3, 9, 13, 14)),
}


@pytest.fixture(scope="module")
def fillings():
    """What was sampled, for two seeds, out of one compiled call."""
    keys = jax.random.split(prng.unrolled(jax.random.key(0)), 2)

    def samples(key):
        return {
            name: fill(make(capacity=capacity, batch_size=8), kind, num_adds, key, 3, seams=tuple(*seams))[1]
            for name, (make, kind, num_adds, capacity, *seams) in FILLINGS.items()
        }

    return jax.device_get(jax.jit(jax.vmap(samples))(keys))


@pytest.mark.parametrize("name", FILLINGS)
def test_stored_is_sampled(fillings, name):
    samples = fillings[name]
    for seed in range(2):
        check(jax.tree.map(lambda x: x[seed], samples), *FILLINGS[name][1:])
    assert ((samples.weights > 0) & (samples.weights <= 1)).all()
    np.testing.assert_array_equal(samples.weights.max(axis=-1), 1)


# A life in which much goes wrong, and what it should lead to.
KIND, CAPACITY, TURNS, BATCH = Kind(1, 2, 5), 44, 40, 16  # 44: the tree has leaves that are no slots
EPSILON, BETA_STEPS, SORT_EVERY = 0.01, 50, 12
ALPHAS = np.array([0.0, 0.6, 1.0], np.float32)
BETAS = np.array([0.0, 0.4, 1.0], np.float32)
DRAWS = 2_000  # batches, after the last turn


def updates(seed):
    """The indices of each turn, of slots that are written, with some repeated and some that are no slots; the errors.

    They grow with the seed, so that each has another highest one; a few are not finite.
    """
    rng = np.random.default_rng(seed)
    seen = np.minimum(2 * (1 + np.arange(TURNS)), CAPACITY)
    indices = rng.integers(0, seen[:, None], (TURNS, BATCH), np.int32)
    errors = rng.standard_normal((TURNS, BATCH)) * 10.0 ** rng.uniform(-3, 1, (TURNS, BATCH)) * (1 + seed)
    errors[:4] *= 1e-3  # all below the highest priority of the beginning
    errors[rng.random((TURNS, BATCH)) < 0.03] = rng.choice([np.nan, np.inf, -np.inf])
    for turn in range(TURNS):  # the same slot always comes with the same error
        first = {slot: b for b, slot in reversed(list(enumerate(indices[turn])))}
        errors[turn] = errors[turn, [first[slot] for slot in indices[turn]]]
    nowhere = rng.choice([CAPACITY, CAPACITY + 1, 47, 48, 1000, NO_SLOT, -1, -4, -CAPACITY], (TURNS, BATCH))
    wrong = rng.random((TURNS, BATCH)) < 0.2
    errors = np.where(wrong, 1e4, errors).astype(np.float32)
    return np.where(wrong, nowhere, indices).astype(np.int32), errors


UPDATES = jax.tree.map(lambda *x: np.stack(x), *(updates(seed) for seed in range(2)))


@pytest.fixture(scope="module")
def lives():
    """Both replays' lives, leaves `[seed, alpha, turn, ...]`, out of one compiled call; alpha and beta are traced.

    Of each: priorities after `add` and after `update`, the highest (or nothing), and a batch's indices and weights;
    then many batches' indices after the last turn.
    """
    everything = history(KIND, TURNS)
    chunks = jax.tree.map(lambda x: jnp.asarray(x)[:, None], everything)  # [turn, T = 1, N]

    def life(make, changes, alpha, beta, key, **options):
        replay = make(capacity=CAPACITY, batch_size=BATCH, alpha=alpha, beta=beta, beta_steps=BETA_STEPS, **options)

        def turn(state, x):
            turn, chunk, key, (indices, errors) = x
            state = replay.add(state, chunk, 2 * turn)
            added = state.tree[-1].ravel()
            state = replay.update(state, indices, errors)
            sample = replay.sample(state, key, 2 * turn + 2)
            top = getattr(state, "highest", ())
            return state, (added, state.tree[-1].ravel(), top, sample.indices, sample.weights)

        state = replay.init(jax.tree.map(lambda x: x[0], chunks), spec(KIND))
        keys = jax.random.split(key, TURNS + DRAWS)
        state, rows = jax.lax.scan(turn, state, (jnp.arange(TURNS), chunks, keys[:TURNS], changes))
        drawn = jax.vmap(lambda key: replay.sample(state, key, 2 * TURNS).indices)(keys[TURNS:])
        return rows, drawn, state.tree

    def run(keys):
        def both(changes, key, alpha, beta):
            return {
                "prioritized": life(prioritized, changes, alpha, beta, key, epsilon=EPSILON),
                "ranked": life(ranked, changes, alpha, beta, key, sort_every=SORT_EVERY),
            }

        over_alphas = jax.vmap(both, (None, None, 0, 0))
        return jax.vmap(over_alphas, (0, 0, None, None))(UPDATES, keys, ALPHAS, BETAS)

    return jax.device_get(jax.jit(run)(jax.random.split(prng.unrolled(jax.random.key(1)), 2)))


def slow_prioritized(seed, alpha):
    """Priorities after each add and each update, and the highest so far: equation 1, one by one."""
    priorities, highest = np.zeros(CAPACITY), 1.0
    for turn, (indices, errors) in enumerate(zip(UPDATES[0][seed], UPDATES[1][seed], strict=True)):
        for env in range(2):
            priorities[(2 * turn + env) % CAPACITY] = highest
        added = priorities.copy()
        for slot, error in zip(indices, errors.astype(float), strict=True):
            if 0 <= slot < CAPACITY:
                priorities[slot] = (abs(error) + EPSILON) ** alpha if np.isfinite(error) else 0
                highest = max(highest, priorities[slot])
        yield added, priorities.copy(), highest


def slow_ranked(seed, alpha):
    """1 / rank^alpha after each add and each update: section 3.3, one by one."""
    priorities, errors, ordered = np.zeros(CAPACITY), {}, []
    for turn, (indices, new_errors) in enumerate(zip(UPDATES[0][seed], UPDATES[1][seed], strict=True)):
        for env in range(2):
            slot = (2 * turn + env) % CAPACITY
            errors[slot], priorities[slot] = UNSEEN, 1
        if (2 * turn + 2) % SORT_EVERY == 0:
            ordered = sorted(errors, key=lambda slot: (-errors[slot], slot))
            for position, slot in enumerate(ordered):
                priorities[slot] = 1 if errors[slot] == UNSEEN else (1.0 + position) ** -alpha
            ordered = [errors[slot] for slot in ordered]
        added = priorities.copy()
        for slot, error in zip(indices, new_errors, strict=True):
            if 0 <= slot < CAPACITY:
                errors[slot] = abs(error) if np.isfinite(error) else 0
                priorities[slot] = (1.0 + sum(other > errors[slot] for other in ordered)) ** -alpha
        yield added, priorities.copy(), None


SLOW = {"prioritized": slow_prioritized, "ranked": slow_ranked}


@pytest.mark.parametrize("replay", REPLAYS)
def test_priorities(lives, replay):
    """Those of new transitions, of errors seen, and of slots not written, with all that is wrong left out."""
    (added, updated, highest, _, _), _, _ = lives[replay]
    assert not np.concatenate([added, updated])[..., CAPACITY:].any()
    for seed, a in np.ndindex(2, 3):
        for turn, slow in enumerate(SLOW[replay](seed, float(ALPHAS[a]))):
            where = seed, a, turn
            np.testing.assert_allclose(added[where][:CAPACITY], slow[0], rtol=1e-5, err_msg=str(where))
            np.testing.assert_allclose(updated[where][:CAPACITY], slow[1], rtol=1e-5, err_msg=str(where))
            if replay == "prioritized":
                np.testing.assert_allclose(highest[where], slow[2], rtol=1e-5)
    if replay == "prioritized":
        assert highest[0, 1, 3] == 1  # smaller errors do not lower it
        assert highest[0, 1, -1] != highest[1, 1, -1]  # each seed's own
        assert highest[..., -1].max() < 1e3  # errors of no slot do not count


@pytest.mark.parametrize("replay", REPLAYS)
def test_sums_stay_finite(lives, replay):
    tree = lives[replay][2]
    assert not np.isfinite(UPDATES[1]).all()
    assert all(np.isfinite(level).all() for level in tree)
    np.testing.assert_allclose(tree[0].sum(axis=(-1, -2)), tree[-1].sum(axis=(-1, -2)), rtol=1e-6)


@pytest.mark.parametrize("replay", REPLAYS)
def test_frequencies(lives, replay):
    """Slots are drawn in proportion to their priorities; those without one never. With alpha = 0 it is uniform."""
    (_, updated, _, indices, _), drawn, _ = lives[replay]
    for seed, a in np.ndindex(2, 3):
        *_, (_, priorities, _) = SLOW[replay](seed, float(ALPHAS[a]))
        counts = np.bincount(drawn[seed, a].ravel(), minlength=CAPACITY)
        assert len(counts) == CAPACITY
        some = priorities > 0
        assert not counts[~some].any()
        expected = priorities[some] / priorities.sum() * counts.sum()
        assert scipy.stats.chisquare(counts[some], expected).pvalue > 1e-3, (seed, a)
        if a == 0:
            assert (priorities[some] == 1).all()
    assert (np.take_along_axis(updated, indices, axis=-1) > 0).all()


@pytest.mark.parametrize("replay", REPLAYS)
def test_weights(lives, replay):
    """(size * P)^-beta over the largest of the batch; beta rises to 1 with the steps, and is exactly 1 then."""
    (_, updated, _, indices, weights), _, _ = lives[replay]
    for seed, a, turn in np.ndindex(2, 3, TURNS):
        where, step = (seed, a, turn), 2 * turn + 2
        beta = BETAS[a] + (1 - BETAS[a]) * min(step / BETA_STEPS, 1)
        p = updated[where][indices[where]].astype(float) / updated[where].sum(dtype=float)
        expected = (min(step, CAPACITY) * p) ** -beta
        np.testing.assert_allclose(weights[where], expected / expected.max(), rtol=1e-4)
    assert (weights[:, 0] == 1).all()  # alpha = 0
    assert (weights[:, 1:].min(axis=-1) < 0.9).any(axis=-1).all()


def test_beta_is_one_in_the_end():
    """To the last bit, from every beta: with the same draws, the weights of one that is 1 from the beginning."""

    def weights(beta):
        replay = prioritized(capacity=8, batch_size=8, beta=beta, beta_steps=30)
        state = replay.init(history(Kind(8, 1, 5), 1), spec(Kind(8, 1, 5)))
        state = replay.update(replay.add(state, history(Kind(8, 1, 5), 1), 0), jnp.arange(8), jnp.arange(8.0))
        return jnp.stack([replay.sample(state, jax.random.key(0), step).weights for step in (8, 30, 31, 10**9)])

    result = np.asarray(jax.jit(jax.vmap(weights))(jnp.linspace(0, 1, 101)))
    np.testing.assert_array_equal(result[:, 1:], np.broadcast_to(result[-1, 0], (101, 3, 8)))
    assert (result[:100, 0] != result[-1, 0]).any(axis=-1).all()


def test_weights_by_hand():
    """Four slots; P = 1/2 and 1/8 make (4 P)^-1 = 1/2 and 2, over 2; and what an empty tree draws counts in full."""
    np.testing.assert_allclose(importance_weights(jnp.array([0.5, 0.125]), 4, 1.0), [0.25, 1])
    np.testing.assert_allclose(importance_weights(jnp.array([0.5, 0.125]), 4, 0.5), [0.5, 1])
    np.testing.assert_array_equal(importance_weights(jnp.array([0.5, 0.125]), 4, 0.0), 1)
    np.testing.assert_array_equal(importance_weights(jnp.zeros(3), 4, 1.0), 1)


@pytest.mark.parametrize("make", REPLAYS.values())
def test_not_finite_errors_without_a_trace(make):
    """They count as they do under one: nothing is raised, and other slots stay as they were."""
    kind = Kind(4, 1, 5)
    replay, new = make(capacity=4, batch_size=2), history(kind, 1)
    state = jax.jit(lambda: replay.add(replay.init(new, spec(kind)), new, 0))()
    state = replay.update(state, jnp.arange(3), jnp.array([jnp.nan, jnp.inf, -jnp.inf]))
    sample = jax.jit(replay.sample)(state, jax.random.key(0), 4)
    assert np.isfinite(sample.weights).all()
    assert state.tree[-1][0, 3] == 1
    if make is prioritized:
        assert state.tree[-1][0, :3].tolist() == [0, 0, 0]
        assert state.highest == 1
        assert sample.indices.tolist() == [3, 3]


def test_writes_stay_slices_over_seeds():
    """With the step shared; and the sorting stays behind a condition, and is not done at every step."""
    kind = Kind(2, 3, 5)

    def lowered(make, axis):
        replay, example = make(capacity=600, batch_size=2), history(kind, 1)
        states, examples = jax.tree.map(
            lambda x: jnp.stack([x] * 4), jax.device_get((replay.init(example, spec(kind)), example))
        )
        step = jnp.int32(0) if axis is None else jnp.zeros(4, jnp.int32)
        return jax.jit(jax.vmap(replay.add, (0, 0, axis))).lower(states, examples, step)

    shared = lowered(prioritized, None).compile().as_text()
    assert " dynamic-update-slice(" in shared
    assert " scatter(" not in shared
    assert '"stablehlo.case"' in lowered(ranked, None).as_text()
    assert '"stablehlo.case"' not in lowered(ranked, 0).as_text()


@pytest.mark.parametrize("replay", REPLAYS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -0.1}, "alpha=-0.1 is not accepted; it must be a number in [0, 1]"),
        ({"alpha": 1.1}, "alpha=1.1"),
        ({"beta": -1.0}, "beta=-1.0"),
        ({"beta": np.nan}, "beta=nan"),
        ({"beta_steps": 0}, "beta_steps=0 is not accepted; it must be a whole number, at least 1"),
        ({"beta_steps": 1e5}, "beta_steps=100000.0"),
        ({"capacity": 0}, "capacity=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 9}, "batch_size=9 is not accepted; it must be at most capacity=8"),
    ],
)
def test_errors(replay, options, message):
    with pytest.raises(JaxrlError) as error:
        REPLAYS[replay](**{"capacity": 8, "batch_size": 2} | options)
    owner = {"prioritized": "prioritized replay", "ranked": "rank-based replay"}[replay]
    assert str(error.value).startswith(f"{owner}: {message}")


THREES = Kind(3, 2, 5)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (lambda: prioritized(capacity=8, batch_size=2, epsilon=0.0), "epsilon=0.0 is not accepted"),
        (lambda: prioritized(capacity=8, batch_size=2, epsilon=-1.0), "epsilon=-1.0"),
        (lambda: ranked(capacity=8, batch_size=2, sort_every=0), "sort_every=0 is not accepted"),
        (lambda: ranked(capacity=8, batch_size=2, sort_every=2.5), "sort_every=2.5"),
        (lambda: prioritized(capacity=8, batch_size=2).init(history(THREES, 1), spec(THREES)), "a multiple of the 6"),
        (lambda: ranked(capacity=8, batch_size=2).init(history(THREES, 1), spec(THREES)), "a multiple of the 6"),
    ],
)
def test_more_errors(case, message):
    with pytest.raises(JaxrlError) as error:
        case()
    assert message in str(error.value)
