"""Running statistics against NumPy, and the two agent transformations around an agent that records what it saw."""

import doctest
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import r2d2, sums, td3
from jaxrl.checks import JaxrlError
from jaxrl.learning import pop_art
from jaxrl.replay import uniform
from jaxrl.transforms import normalize as norm
from jaxrl.types import Agent, Discrete, Spec, Transition, box

T, N, D = 5, 3, 2
SPEC = Spec("test", box(0, 255, (D,), np.uint8), Discrete(2))
KEY = jax.random.key(0)
SMALL = {"normalize_observations": True, "hidden_sizes": (8,), "batch_size": 8, "warmup_steps": 32, "replay_size": 96}


class Seen(NamedTuple):
    obs: jax.Array
    next_obs: jax.Array
    reward: jax.Array
    step: jax.Array


def recorder() -> Agent:
    """Its actions are what `act` saw, its state what `update` saw, and its memory counts."""

    def init(key, spec):
        assert spec.obs_space.dtype == np.float32
        assert spec.id == "test"
        return Seen(jnp.zeros((T, N, D)), jnp.zeros((T, N, D)), jnp.zeros((T, N)), jnp.zeros((), int))

    def act(state, memory, obs, key, step, explore=True):
        return obs, memory + 1, {"explore": jnp.full(len(obs), explore), "obs": obs}

    def update(state, trajectory, key, step):
        seen = Seen(trajectory.obs, trajectory.next_obs, trajectory.reward, step)
        return seen, {"mean_reward": trajectory.reward.mean()}

    return Agent(init, act, update, N, T, init_memory=lambda num_envs: jnp.zeros(num_envs, int), name="recorder")


def random_trajectory(seed, ends=0.3):
    rng = np.random.default_rng(seed)
    ended = rng.random((T, N)) < ends
    truncated = ended & (rng.random((T, N)) < 0.5)
    obs, next_obs = (rng.normal(50, 7, (T, N, D)).astype(np.float32) for _ in range(2))
    reward = rng.normal(2, 3, (T, N)).astype(np.float32)
    return Transition(obs, np.zeros((T, N), np.int32), reward, ended & ~truncated, truncated, next_obs, {})


update_statistics = jax.jit(norm.update_statistics)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_statistics_of_chunks_are_those_of_all(shape):
    rng = np.random.default_rng(0)
    statistics, seen = norm.init_statistics(shape), []
    assert (statistics.count, statistics.mean.shape, statistics.var.shape) == (0, shape, shape)
    for leading in [(1,), (), (4, 3), (2, 1, 5), (1,)]:
        chunk = rng.normal(3, 2, (*leading, *shape)).astype(np.float32)
        seen.append(chunk.reshape(-1, *shape))
        statistics = update_statistics(statistics, chunk)
        everything = np.concatenate(seen).astype(np.float64)
        assert statistics.count == len(everything)
        np.testing.assert_allclose(statistics.mean, everything.mean(0), 1e-5)
        np.testing.assert_allclose(statistics.var, everything.var(0), 1e-5, 1e-6)
    assert [x.dtype for x in statistics] == [jnp.int32] + [jnp.float32] * 4


def test_statistics_by_hand():
    statistics = norm.update_statistics(norm.init_statistics((2,)), jnp.array([[1.0, 5.0], [3.0, 5.0]]))
    assert statistics.mean.tolist() == [2.0, 5.0]
    assert statistics.var.tolist() == [1.0, 0.0]
    out = norm.normalize(statistics, jnp.array([[4.0, 5.0], [0.0, 6.0]]), clip=3.0)
    np.testing.assert_allclose(out, [[2.0, 0.0], [-2.0, 3.0]], 1e-6)


def test_large_mean_and_small_deviation_lose_no_digits():
    """Mean 10,000, deviation 0.1: a float32 sum of squares has nothing of the variance left."""
    chunks = [np.random.default_rng(i).normal(1e4, 0.1, (5000,)).astype(np.float32) for i in range(20)]
    statistics = norm.init_statistics(())
    for chunk in chunks:
        statistics = update_statistics(statistics, chunk)
    everything = np.concatenate(chunks).astype(np.float64)
    np.testing.assert_allclose(statistics.mean, everything.mean(), rtol=2e-7)
    np.testing.assert_allclose(statistics.var, everything.var(), rtol=1e-3)
    one_chunk = update_statistics(norm.init_statistics(()), everything.astype(np.float32))
    np.testing.assert_allclose(one_chunk.var, everything.var(), rtol=1e-4)
    # What never varies is exactly its mean, so it maps to 0 and not to a rounding error over epsilon.
    constant = norm.init_statistics(())
    for size in (7, 1000, 3):
        constant = update_statistics(constant, np.full(size, 12345.678, np.float32))
    assert norm.normalize(constant, np.float32(12345.678)) == 0


def test_many_small_batches_keep_their_accuracy():
    chunks = np.random.default_rng(0).normal(-3, 0.5, (20_000, 4)).astype(np.float32)
    fold = lambda statistics, chunk: (norm.update_statistics(statistics, chunk), None)  # noqa: E731
    statistics, _ = jax.jit(lambda chunks: jax.lax.scan(fold, norm.init_statistics(()), chunks))(chunks)
    assert statistics.count == chunks.size
    np.testing.assert_allclose(statistics.mean, chunks.mean(dtype=np.float64), 1e-4)
    np.testing.assert_allclose(statistics.var, chunks.var(dtype=np.float64), 1e-3)


@pytest.mark.optimized
def test_samples_late_in_a_run_count_as_much_as_early_ones():
    """After ten million samples of mean 1 and variance 1 as many follow, one by one, of mean 3 and variance 1/4.

    Each moves the mean by 2e-7 at first, which is less than two of its last bits.
    """
    early = norm.init_statistics(())._replace(count=jnp.int32(10_000_000), mean=jnp.float32(1))
    late = jax.jit(
        lambda: jax.lax.fori_loop(
            0, 10_000_000, lambda i, s: norm.update_statistics(s, 2.5 + jnp.float32(i % 2)[None]), early
        )
    )()
    assert late.count == 20_000_000
    np.testing.assert_allclose(late.mean, 2.0, rtol=1e-5)
    np.testing.assert_allclose(late.var, (1 + 0.25) / 2 + 1, rtol=1e-5)


def test_the_count_stays_where_an_int32_ends():
    full = norm.init_statistics(())._replace(count=jnp.int32(2**31 - 3))
    for _ in range(2):
        full = update_statistics(full, jnp.full(8, 5.0))
        assert full.count == 2**31 - 1
    np.testing.assert_allclose(full.mean + full.mean_rest, 2 * 8 * 5 / 2**31, rtol=1e-5)


def test_a_batch_that_is_not_finite_is_left_out():
    statistics = update_statistics(norm.init_statistics((2,)), jnp.array([[1.0, 5.0], [3.0, 5.0]]))
    for bad in (np.nan, np.inf, 1e30):  # the square of the last is not finite
        after = update_statistics(statistics, jnp.array([[bad, 1.0], [2.0, 1.0]]))
        assert (after.mean.tolist(), after.var.tolist()) == ([2.0, 3.0], [1.0, 4.0])  # the other element goes on
        everywhere = update_statistics(statistics, jnp.full((2, 2), bad))
        jax.tree.map(np.testing.assert_array_equal, everywhere, statistics)


def test_nothing_seen_changes_nothing_but_clips():
    x = jnp.array([-20.0, -1.5, 0.0, 3.0, 20.0])
    np.testing.assert_allclose(norm.normalize(norm.init_statistics(()), x), [-10.0, -1.5, 0.0, 3.0, 10.0], 1e-6)


def test_shape_errors():
    statistics = norm.init_statistics((3,))
    for wrong in (jnp.ones((4, 2)), jnp.ones(()), jnp.ones((0, 3))):
        with pytest.raises(AssertionError):
            norm.update_statistics(statistics, wrong)
    with pytest.raises(AssertionError):
        norm.normalize(statistics, jnp.ones((4, 2)))


def test_observations_are_scaled_alike_in_act_and_update():
    """What `act` showed the agent, `update` shows it again, scaled by the raw observations of earlier updates."""
    agent = norm.normalize_observations(recorder(), clip=4.0)
    act, update = jax.jit(agent.act, static_argnames="explore"), jax.jit(agent.update)
    state = agent.init(KEY, SPEC)
    structure = jax.tree.structure(state)
    seen = np.zeros((0, D))
    for i in range(3):
        batch = random_trajectory(i)
        mean, std = (seen.mean(0), seen.std(0)) if i else (0.0, 1.0)
        expected = np.clip((batch.obs - mean) / std, -4, 4)
        acted = np.stack([act(state, jnp.zeros(N, int), obs, KEY, 0)[0] for obs in batch.obs])
        np.testing.assert_allclose(acted, expected, 1e-4, 1e-4)

        state, metrics = update(state, batch, KEY, 7)
        np.testing.assert_array_equal(state.agent.obs, acted)
        np.testing.assert_allclose(state.agent.next_obs, np.clip((batch.next_obs - mean) / std, -4, 4), 1e-4, 1e-4)
        np.testing.assert_array_equal(state.agent.reward, batch.reward)
        np.testing.assert_allclose(metrics["mean_reward"], batch.reward.mean(), 1e-6)
        assert state.agent.step == 7
        seen = np.concatenate([seen, batch.obs.reshape(-1, D)])
        np.testing.assert_allclose(state.statistics.mean, seen.mean(0), 1e-5)
        np.testing.assert_allclose(state.statistics.var, seen.var(0), 1e-4)
    assert jax.tree.structure(state) == structure


def test_a_replay_keeps_observations_and_scales_what_is_drawn():
    """All of a sample is on one scale, that of everything added, although the replay has forgotten the first of it."""
    plain = uniform(capacity=2 * T * N, batch_size=30)
    replay = norm.normalize_replay(plain, clip=2.0)
    batches = [random_trajectory(i)._replace(obs=random_trajectory(i).obs + 20 * i) for i in range(3)]
    state, other = replay.init(batches[0], SPEC), plain.init(batches[0], SPEC)
    for i, batch in enumerate(batches):
        state, other = replay.add(state, batch, T * N * i), plain.add(other, batch, T * N * i)
    jax.tree.map(np.testing.assert_array_equal, state.replay, other)
    seen = np.concatenate([batch.obs.reshape(-1, D) for batch in batches])
    scaled, raw = (r.sample(s, KEY, 3 * T * N, 2) for r, s in ((replay, state), (plain, other)))
    for name in ("obs", "next_obs"):
        expected = (getattr(raw.steps, name) - seen.mean(0)) / seen.std(0)
        assert (np.abs(expected) > 2).any()
        np.testing.assert_allclose(getattr(scaled.steps, name), np.clip(expected, -2, 2), 1e-4, 1e-4)
    np.testing.assert_array_equal(scaled.steps.reward, raw.steps.reward)
    np.testing.assert_array_equal(scaled.indices, raw.indices)
    changed = replay.update(state, scaled.indices, jnp.ones(30))
    assert jax.tree.structure(changed) == jax.tree.structure(state)


@pytest.mark.parametrize(
    ("agent", "env"),
    [
        (r2d2(burn_in=2, unroll=4, n_step=2, cell_size=8, **SMALL), "CartPole-v1"),
        (td3(replay="prioritized", **SMALL), "Pendulum-v1"),
    ],
    ids=["r2d2", "td3"],
)
def test_agents_with_a_replay_do_not_see_the_scale_of_observations(agent, env):
    """Observations times 1000 and moved by 5000 make no difference, in acting, learning or evaluation."""
    env = jaxrl.make(env)

    def scaled(scale, offset):
        def reset(key):
            state, obs = env.reset(key)
            return state, obs * scale + offset

        def step(*args):
            state, outcome = env.step(*args)
            return state, outcome._replace(obs=outcome.obs * scale + offset)

        return env._replace(reset=reset, step=step)

    def run(scale, offset):
        state, _ = jaxrl.train(KEY, agent, scaled(scale, offset), 96)
        returns = jaxrl.evaluate(KEY, agent, state.agent, scaled(scale, offset), 2, max_steps=50)
        return state.agent.params, returns

    plain, moved = jax.jit(run)(1.0, 0.0), jax.jit(run)(1000.0, 5000.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 0.02, 0.02), plain, moved)


@pytest.mark.parametrize("transform", [norm.normalize_observations, lambda agent: norm.normalize_rewards(agent, 0.9)])
def test_the_rest_of_the_agent_is_kept(transform):
    inner = recorder()
    agent = transform(inner)
    assert agent[3:8] == inner[3:8]  # num_envs, rollout_length, init_memory, name, episodic
    spec = SPEC._replace(obs_space=box(0, 1, (D,)))
    state = agent.init(KEY, spec)
    memory = agent.init_memory(N)
    for explore in (True, False):
        _, new_memory, extras = agent.act(state, memory, jnp.ones((N, D)), KEY, 0, explore=explore)
        assert extras["explore"].tolist() == [explore] * N
        assert new_memory.tolist() == [1] * N


@pytest.mark.parametrize("episodic", [False, True])
def test_rewards_are_scaled_by_the_deviation_of_the_running_return(episodic):
    """Where every trajectory begins with new episodes, their returns do, too."""
    gamma, clip = 0.8, 0.9
    agent = norm.normalize_rewards(recorder()._replace(episodic=episodic), gamma, clip)
    update = jax.jit(agent.update)
    state = agent.init(KEY, SPEC._replace(obs_space=box(0, 1, (D,))))
    carry, seen, num_clipped = np.zeros(N), [], 0
    for i in range(4):
        batch = random_trajectory(i)
        carry = np.zeros(N) if episodic else carry
        for t in range(T):
            for env in range(N):
                carry[env] = batch.reward[t, env] + gamma * carry[env]
                seen.append(carry[env])
                if batch.terminated[t, env] or batch.truncated[t, env]:
                    carry[env] = 0
        state, _ = update(state, batch, KEY, i)
        np.testing.assert_allclose(sums.value(state.returns), carry, 1e-5, 1e-6)
        np.testing.assert_allclose(state.statistics.mean, np.mean(seen), 1e-5)
        scaled = batch.reward / np.std(seen)
        num_clipped += np.sum(np.abs(scaled) > clip)
        np.testing.assert_allclose(state.agent.reward, np.clip(scaled, -clip, clip), 1e-4, 1e-6)
        np.testing.assert_array_equal(state.agent.obs, batch.obs)
    assert 0 < num_clipped < 4 * T * N


def test_the_running_return_of_a_long_episode():
    """A million rewards of 0.1; a plain sum of float32 is off by a hundredth."""
    agent = norm.normalize_rewards(recorder(), 1.0)
    one = jax.tree.map(jnp.asarray, random_trajectory(0, ends=0.0))._replace(reward=jnp.full((T, N), 0.1))
    state = agent.init(KEY, SPEC._replace(obs_space=box(0, 1, (D,))))

    def run(state, updates):
        return jax.lax.fori_loop(0, updates, lambda i, state: agent.update(state, one, KEY, i)[0], state)

    state = jax.jit(run)(jax.jit(agent.update)(state, one, KEY, 0)[0], 1_000_000 // T - 1)
    np.testing.assert_allclose(sums.value(state.returns), 0.1 * (1_000_000 // T * T), rtol=1e-6)


def test_what_the_transformations_do_where_episodes_are_interrupted():
    """The running return begins anew, and the inner agent is told."""
    inner = recorder()._replace(interrupt=lambda state, step: state._replace(step=-step), tolerates_stale_actions=True)
    agent = norm.normalize_observations(norm.normalize_rewards(inner, 0.9))
    state = agent.init(KEY, SPEC)
    state, _ = jax.jit(agent.update)(state, random_trajectory(0, ends=0.0), KEY, 15)
    assert np.all(sums.value(state.agent.returns) > 0)
    cut = agent.interrupt(state, 30)
    assert cut.agent.agent.step == -30
    assert sums.value(cut.agent.returns).tolist() == [0] * N
    kept = cut._replace(agent=state.agent)
    jax.tree.map(np.testing.assert_array_equal, kept, state)
    jax.tree.map(np.testing.assert_array_equal, cut.agent.statistics, state.agent.statistics)


def test_statistics_that_move_make_actions_stale():
    """Those that what is learned from is scaled by as well, and not those that scale what a replay gives."""
    tolerant = recorder()._replace(tolerates_stale_actions=True)
    assert norm.normalize_rewards(tolerant, 0.9).tolerates_stale_actions
    assert not norm.normalize_observations(tolerant).tolerates_stale_actions
    assert not norm.normalize_rewards(recorder(), 0.9).tolerates_stale_actions
    assert td3(**SMALL).tolerates_stale_actions


def test_gamma_and_clip_may_be_traced():
    """Constructed inside `vmap`, both transformations at once, with the state carried through a scan."""
    batches = jax.tree.map(lambda *x: jnp.stack(x), *(random_trajectory(i) for i in range(3)))

    @jax.jit
    @jax.vmap
    def run(gamma, clip):
        agent = norm.normalize_observations(norm.normalize_rewards(recorder(), gamma, clip), clip)
        state = agent.init(KEY, SPEC)
        state, _ = jax.lax.scan(lambda state, batch: agent.update(state, batch, KEY, 0), state, batches)
        return state

    many = run(jnp.array([0.0, 0.8]), jnp.array([0.5, 2.0]))
    assert np.abs(many.agent.agent.obs).max((1, 2, 3)).tolist() == [0.5, 2.0]
    # With gamma 0 the return is the reward itself.
    np.testing.assert_allclose(many.agent.statistics.var[0], np.var(batches.reward), 1e-4)
    alone = run(jnp.array([0.8]), jnp.array([2.0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b[0], 1e-5, 1e-6), many, alone)


def test_errors_name_the_argument():
    with pytest.raises(JaxrlError, match="normalize_observations: clip=0 "):
        norm.normalize_observations(recorder(), clip=0)
    with pytest.raises(JaxrlError, match="normalize_replay: clip=0 "):
        norm.normalize_replay(uniform(capacity=4, batch_size=2), clip=0)
    with pytest.raises(JaxrlError, match=r"normalize_rewards: gamma=1\.1 "):
        norm.normalize_rewards(recorder(), 1.1)
    with pytest.raises(JaxrlError, match="normalize_rewards: clip=-1 "):
        norm.normalize_rewards(recorder(), 0.9, clip=-1)
    agent = norm.normalize_observations(recorder())
    with pytest.raises(JaxrlError, match=r"test's obs_space=Discrete\(n=4\)"):
        agent.init(KEY, SPEC._replace(obs_space=Discrete(4)))
    with pytest.raises(JaxrlError, match=r"test's obs_space=Discrete\(n=4\)"):
        norm.normalize_replay(uniform(capacity=15, batch_size=2)).init(
            random_trajectory(0), SPEC._replace(obs_space=Discrete(4))
        )
    agent = norm.normalize_rewards(recorder(), 0.9)
    state = agent.init(KEY, SPEC._replace(obs_space=box(0, 1, (D,))))
    batch = random_trajectory(0)
    with pytest.raises(AssertionError):
        agent.update(state, batch._replace(reward=batch.reward[:, :1]), KEY, 0)


def test_examples():
    result = doctest.testmod(norm)
    assert result.attempted >= 4
    assert result.failed == 0


# ---------------------------------------------------------------- Pop-Art


def test_pop_art_against_numpy():
    """The averages are those of all batches, the newest weighted most, and nothing is left of what they began with."""
    rng, rate = np.random.default_rng(0), 0.2
    batches = [rng.normal(1000 * k, 10.0**k, (3, 4)).astype(np.float32) for k in range(1, 4)]
    scale = pop_art.init_pop_art()
    assert (scale.mean, scale.sigma) == (0, 1)
    for k in range(1, 4):
        scale = pop_art.pop_art_update(scale, jnp.asarray(batches[k - 1]), rate)
        weights = np.array([rate * (1 - rate) ** (k - 1 - i) for i in range(k)])
        weights /= weights.sum()
        mean = sum(w * b.astype(np.float64).mean() for w, b in zip(weights, batches, strict=False))
        square = sum(w * (b.astype(np.float64) ** 2).mean() for w, b in zip(weights, batches, strict=False))
        np.testing.assert_allclose(scale.mean, mean, rtol=1e-5)
        np.testing.assert_allclose(scale.sigma, np.sqrt(square - mean**2), rtol=1e-3)


def test_pop_art_preserves_values_and_never_divides_by_zero():
    old = pop_art.PopArt(jnp.float32(3.0), jnp.float32(4.0), jnp.float32(0.5))
    new = pop_art.PopArt(jnp.float32(-1.0), jnp.float32(25.0), jnp.float32(0.4))
    head = {"kernel": jnp.array([[1.0], [-2.0]]), "bias": jnp.array([0.5])}
    features = jnp.array([[1.0, 2.0], [0.0, -3.0]])
    outputs = lambda head: features @ head["kernel"] + head["bias"]  # noqa: E731
    moved = pop_art.preserve_outputs(head, old, new)
    np.testing.assert_allclose(pop_art.denormalize(old, outputs(head)), [[-2.0], [16.0]], rtol=1e-6)
    np.testing.assert_allclose(pop_art.denormalize(new, outputs(moved)), [[-2.0], [16.0]], rtol=1e-6)
    np.testing.assert_allclose(moved["kernel"], [[0.4], [-0.8]], rtol=1e-6)
    constant = pop_art.pop_art_update(pop_art.init_pop_art(), jnp.full(5, 7.0), 0.1)
    assert constant.sigma > 0
    assert pop_art.denormalize((), features) is features
