"""The cross-entropy method and hill climbing: updates against NumPy, who acts where, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import JaxrlError, cem, evaluate, hill_climbing, make, train
from jaxrl.agents.search.cem import CEMState, refit
from jaxrl.agents.search.hill_climbing import HillClimbingState
from jaxrl.learning.parameter_search import candidate_scores
from jaxrl.types import Discrete, Spec, Transition, box

DISCRETE = Spec("Fake-v0", box(-1, 1, (2,)), Discrete(3))
CONTINUOUS = DISCRETE._replace(action_space=box([-2, 0], [2, 4], (2,)))
SPECS = {"discrete": DISCRETE, "continuous": CONTINUOUS}
NUM_PARAMETERS = {"discrete": 9, "continuous": 6}  # of a linear policy of two numbers: kernel and bias


def trajectory_of(reward, terminated, truncated):
    """A trajectory of which only rewards and ends count, each `[T, N]`."""
    shape = np.shape(reward)
    obs, flags = jnp.zeros((*shape, 2)), [jnp.asarray(x, bool) for x in (terminated, truncated)]
    action = jnp.zeros(shape, jnp.int32)
    return Transition(obs, action, jnp.asarray(reward, jnp.float32), *flags, obs, {})


def rewarded(scores, length=3):
    """A trajectory of one episode in each environment, which goes on for ever, with those returns."""
    reward = np.zeros((length, len(scores)), np.float32)
    reward[1] = scores
    return trajectory_of(reward, np.zeros_like(reward), np.zeros_like(reward))


# ---------------------------------------------------------------- scores


def test_scores_are_mean_returns_of_whole_episodes():
    reward = [[1, 2, 3, 4], [1, 2, 3, 4], [10, 20, 30, 40]]
    terminated = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    truncated = [[0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    trajectory = trajectory_of(reward, terminated, truncated)
    # Environment 0 has an episode of 2 and begins another; 1 one of 2; 2 two of 3; 3 one of 48.
    np.testing.assert_allclose(candidate_scores(trajectory, 4), [2, 2, 3, 48])
    np.testing.assert_allclose(candidate_scores(trajectory, 2), [2, 25.5])


# ---------------------------------------------------------------- the cross-entropy method, against NumPy


@pytest.mark.parametrize("num_elites", [1, 3, 7])
def test_refit_against_numpy(num_elites):
    rng = np.random.default_rng(num_elites)
    population, scores = rng.normal(2.0, 3.0, (7, 5)), rng.permutation(7) * 10.0
    mean, std, score = refit(jnp.asarray(population), jnp.asarray(scores), num_elites, 0.3)
    elites = [w for _, w in sorted(zip(scores, population, strict=True), key=lambda pair: -pair[0])][:num_elites]
    expected = sum(elites) / num_elites
    variance = sum((w - expected) ** 2 for w in elites) / num_elites
    np.testing.assert_allclose(mean, expected, rtol=1e-4)
    np.testing.assert_allclose(std, np.sqrt(variance + 0.3), rtol=1e-4)
    np.testing.assert_allclose(score, 70 - 10 * np.arange(1, num_elites + 1).mean())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_candidate_without_a_finite_score_is_no_elite(bad):
    """By hand: of the scores 1, 5 and 3 the elites are the last two, at 2 and 4, whatever the one at 100 has."""
    population = jnp.array([[0.0], [2.0], [4.0], [100.0]])
    fit = jax.jit(refit, static_argnums=2)
    mean, std, score = fit(population, jnp.array([1.0, 5.0, 3.0, bad]), 2, 0.0)
    assert (float(mean[0]), float(std[0]), float(score)) == (3.0, 1.0, 4.0)
    # Fewer finite scores than elites: those that there are.
    mean, std, score = fit(population, jnp.array([bad, 5.0, bad, bad]), 2, 0.25)
    assert (float(mean[0]), float(std[0]), float(score)) == (2.0, 0.5, 5.0)
    assert np.isnan(fit(population, jnp.full(4, bad), 2, 0.0)[0]).all()


def test_a_population_that_fails():
    """One candidate that fails is counted and left out; where all do, the Gaussian stays, and a metric shows it."""
    agent = cem(num_elites=2, num_envs=4, rollout_length=3)
    before = agent.init(jax.random.key(0), DISCRETE)
    update = jax.jit(lambda trajectory: agent.update(before, trajectory, jax.random.key(1), jnp.int32(0)))
    after, metrics = update(rewarded([3.0, np.nan, 1.0, 2.0]))
    np.testing.assert_allclose(after.mean, before.population[jnp.array([0, 3])].mean(axis=0), rtol=1e-5, atol=1e-7)
    found = {name: float(metrics[name]) for name in ("return_mean", "return_max", "num_failed", "elite_return")}
    assert found == {"return_mean": 2.0, "return_max": 3.0, "num_failed": 1.0, "elite_return": 2.5}
    after, metrics = update(rewarded([np.nan] * 4))
    np.testing.assert_array_equal(after.mean, before.mean)
    np.testing.assert_array_equal(after.std, before.std)
    assert np.isfinite(after.population).all()
    assert metrics["num_failed"] == 4
    assert np.isnan(metrics["return_mean"])


UPDATES = {
    # arguments, step, and the added variance: it is that of the step at which the new population acts
    "plain": ({}, 0, 0.0),
    "constant": ({"noise": 0.5}, 4_000, 0.5),
    "decaying, first": ({"noise": 0.5, "noise_decay_steps": 120}, 0, 0.4),  # an update takes 4 * 2 * 3 = 24 steps
    "decaying, later": ({"noise": 0.5, "noise_decay_steps": 120}, 72, 0.1),
    "decaying, over": ({"noise": 0.5, "noise_decay_steps": 120}, 144, 0.0),
}


@pytest.fixture(scope="module")
def cem_updates():
    """Each case's state before and after, and its metrics, out of one compiled call."""
    scores = jnp.array([3.0, 5.0, 1.0, 1.0, 7.0, 9.0, 2.0, 4.0])  # of candidates 4, 1, 8, 3: the third and the first

    @jax.jit
    def run():
        def one(arguments, step):
            agent = cem(num_elites=2, num_envs=8, envs_per_candidate=2, rollout_length=3, **arguments)
            before = agent.init(jax.random.key(0), DISCRETE)
            return before, *agent.update(before, rewarded(scores), jax.random.key(1), jnp.int32(step))

        return {name: one(arguments, step) for name, (arguments, step, _) in UPDATES.items()}

    return jax.device_get(run())


@pytest.mark.parametrize("name", UPDATES)
def test_cem_update(cem_updates, name):
    before, after, metrics = cem_updates[name]
    noise = UPDATES[name][2]
    elites = before.population[[2, 0]]
    np.testing.assert_allclose(after.mean, elites.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after.std, np.sqrt(elites.var(axis=0) + noise), rtol=1e-4, atol=1e-6)
    expected = {"return_mean": 4, "return_max": 8, "elite_return": 6, "std": after.std.mean(), "noise": noise}
    expected["num_failed"] = 0
    assert set(metrics) == set(expected)
    for metric, value in expected.items():
        assert metrics[metric].dtype == np.float32
        np.testing.assert_allclose(metrics[metric], value, rtol=1e-5, atol=1e-7, err_msg=metric)


def test_the_next_population_is_drawn_from_the_new_gaussian(cem_updates):
    draws = {}
    for name, (before, after, _) in cem_updates.items():
        assert after.population.shape == (4, 9)
        draws[name] = (after.population - after.mean) / after.std
        assert np.abs(draws[name] - (before.population - before.mean) / before.std).min() > 1e-4  # a new draw
    np.testing.assert_allclose(draws["plain"], draws["constant"], rtol=1e-2, atol=1e-3)  # by the same key
    assert len(np.unique(draws["constant"].round(4))) == 36


def test_a_large_population_has_the_mean_and_std():
    agent = cem(num_elites=1, num_envs=4_000, rollout_length=1, init_std=3.0, noise=0.25)
    state = jax.jit(agent.init, static_argnums=1)(jax.random.key(0), DISCRETE)
    np.testing.assert_allclose(state.population.mean(axis=0), state.mean, atol=0.25)
    np.testing.assert_allclose(state.population.std(axis=0), 3.0, rtol=0.06)
    np.testing.assert_array_equal(state.std, 3.0)
    assert np.abs(state.mean).max() <= 0.0101  # the network's first parameters
    after, _ = jax.jit(agent.update)(state, rewarded(jnp.arange(4_000.0)), jax.random.key(1), jnp.int32(0))
    np.testing.assert_array_equal(after.mean, state.population[-1])
    np.testing.assert_allclose(after.population.mean(axis=0), after.mean, atol=0.05)
    np.testing.assert_allclose(after.population.std(axis=0), 0.5, rtol=0.06)


# ---------------------------------------------------------------- hill climbing, by hand


def test_hill_climbing_accepts_and_rejects():
    """Updates of the same compiled function, whose scores are given."""
    agent = hill_climbing(
        noise=0.5, noise_min=0.2, noise_max=1.2, noise_factor=2.0, num_envs=6, envs_per_candidate=2, rollout_length=3
    )
    state = agent.init(jax.random.key(0), DISCRETE)
    assert state.score == -np.inf
    update = jax.jit(agent.update)
    # candidates' returns; who is the incumbent afterwards, its score, and the noise
    turns = [
        ([-9.0, -7.0, -8.0], 1, -7.0, 0.25),  # the first always improves
        ([-7.5, -9.0, -8.0], None, -7.0, 0.5),
        ([-7.0, -9.0, -8.0], 0, -7.0, 0.25),  # as good is good enough
        ([-9.0, -9.0, 3.0], 2, 3.0, 0.2),  # 0.125 is below the least
        ([2.0, -9.0, 1.0], None, 3.0, 0.4),
        ([2.0, -9.0, 1.0], None, 3.0, 0.8),
        ([2.0, -9.0, 1.0], None, 3.0, 1.2),  # 1.6 is above the most
        ([np.nan, 4.0, 3.5], 1, 4.0, 0.6),  # who fails is left out
        ([np.nan, -9.0, np.inf], None, 4.0, 1.2),
        ([np.nan, np.nan, np.nan], None, 4.0, 1.2),
    ]
    for turn, (returns, who, score, noise) in enumerate(turns):
        trajectory = rewarded(np.array(returns).repeat(2) + np.array([1.0, -1.0] * 3))
        after, metrics = update(state, trajectory, jax.random.key(turn), jnp.int32(0))
        np.testing.assert_array_equal(after.best, state.best if who is None else state.population[who])
        found = {name: float(value) for name, value in metrics.items()}
        finite = [x for x in returns if np.isfinite(x)]
        expected = {"return_mean": np.mean(finite or [np.nan]), "return_max": max(finite, default=-np.inf)}
        expected |= {"best_return": score, "num_failed": 3 - len(finite), "improved": float(who is not None)}
        assert found == pytest.approx(expected | {"noise": noise}, nan_ok=True)
        assert (after.score, after.noise) == (score, pytest.approx(noise))
        state = after


def test_hill_climbing_has_no_incumbent_before_a_finite_score():
    agent = hill_climbing(num_envs=4, envs_per_candidate=2, rollout_length=3)
    state = agent.init(jax.random.key(0), DISCRETE)
    after, metrics = jax.jit(agent.update)(state, rewarded(np.full(4, np.nan)), jax.random.key(1), jnp.int32(0))
    np.testing.assert_array_equal(after.best, state.best)
    assert (after.score, metrics["improved"]) == (-np.inf, 0)


def test_hill_climbing_tries_around_the_incumbent():
    agent = hill_climbing(noise=0.5, num_envs=3_000, envs_per_candidate=1, rollout_length=3)
    state = jax.jit(agent.init, static_argnums=1)(jax.random.key(0), DISCRETE)
    np.testing.assert_allclose(state.population.mean(axis=0), state.best, atol=0.05)
    np.testing.assert_allclose(state.population.std(axis=0), 0.5, rtol=0.07)
    after, _ = jax.jit(agent.update)(state, rewarded(jnp.arange(3_000.0)), jax.random.key(1), jnp.int32(0))
    np.testing.assert_array_equal(after.best, state.population[-1])
    np.testing.assert_allclose(after.population.mean(axis=0), after.best, atol=0.025)
    np.testing.assert_allclose(after.population.std(axis=0), 0.25, rtol=0.07)


# ---------------------------------------------------------------- who acts where


def linear_actions(parameters, obs, spec):
    """Of one parameter vector, bias then kernel, and observations `[..., 2]`."""
    outputs = len(parameters) // 3
    output = obs @ parameters[outputs:].reshape(2, outputs) + parameters[:outputs]
    return output.argmax(-1) if spec == DISCRETE else np.clip(output, -1, 1) * 2 + np.array([0, 2])


def states_of(name, spec, population, greedy):
    if name == "cem":
        return CEMState(spec, greedy, jnp.ones_like(greedy), population)
    return HillClimbingState(spec, greedy, jnp.float32(0), jnp.float32(1), population)


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("name", ["cem", "hill_climbing"])
def test_candidates_act_in_their_environments_and_the_best_guess_in_an_evaluation(name, kind):
    constructor, spec, rng = {"cem": cem, "hill_climbing": hill_climbing}[name], SPECS[kind], np.random.default_rng(1)
    agent = constructor(num_envs=30, envs_per_candidate=2, rollout_length=2)
    population = rng.normal(0, 0.7, (15, NUM_PARAMETERS[kind]))
    greedy = rng.normal(0, 0.7, NUM_PARAMETERS[kind])
    obs = rng.uniform(-1, 1, (30, 2))
    state = states_of(name, spec, jnp.asarray(population), jnp.asarray(greedy))
    act = jax.jit(agent.act, static_argnames="explore")
    action, memory, extras = act(state, (), jnp.asarray(obs), jax.random.key(0), 0)
    assert (memory, extras) == ((), {})
    expected = np.array([linear_actions(population[i // 2], obs[i], spec) for i in range(30)])
    np.testing.assert_allclose(action, expected, atol=1e-5)
    best, _, _ = act(state, (), jnp.asarray(obs[:7]), jax.random.key(0), 0, explore=False)
    np.testing.assert_allclose(best, linear_actions(greedy, obs[:7], spec), atol=1e-5)
    assert np.abs(best - expected[:7]).max() > 0.5  # they differ
    assert action.dtype == (jnp.int32 if kind == "discrete" else jnp.float32)


def test_hidden_layers_are_searched_too():
    state = jax.eval_shape(lambda key: cem(hidden_sizes=(5,)).init(key, DISCRETE), jax.random.key(0))
    assert state.population.shape == (50, 2 * 5 + 5 + 5 * 3 + 3)


# ---------------------------------------------------------------- learning


SMALL = {"num_envs": 20, "rollout_length": 8}
AGENTS = {
    "cem": cem(num_elites=5, hidden_sizes=(4,), normalize_observations=True, **SMALL),
    "hill climbing": hill_climbing(**SMALL),
}


@pytest.mark.parametrize("name", AGENTS)
def test_a_whole_run_of_several_seeds(name):
    """On a probe whose best policy looks at its observation; all that is reported is finite."""
    env, agent = make("jaxrl/Probe-policy-v0"), AGENTS[name]

    def run(key):
        train_key, evaluation_key = jax.random.split(key)
        state, metrics = train(train_key, agent, env, 3_200)
        return metrics, evaluate(evaluation_key, agent, state.agent, env, 32).mean(), state.first_bad_step

    metrics, returns, bad = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 4))
    np.testing.assert_array_equal(returns, 1.0)
    np.testing.assert_array_equal(bad, -1)
    for metric, values in metrics.items():
        assert np.isfinite(values).all(), metric
    np.testing.assert_array_equal(metrics["episode_count"], 160)
    np.testing.assert_allclose(metrics["return_mean"], metrics["episode_return"], rtol=1e-5, atol=1e-6)


def test_a_seed_and_a_traced_hyper_parameter_beside_others_are_as_alone():
    env = make("jaxrl/Probe-policy-v0")

    def run(key, noise):
        state, _ = train(key, cem(num_elites=5, noise=noise, noise_decay_steps=640, **SMALL), env, 480)
        return state.agent

    keys, noises = jax.random.split(jax.random.key(0), 3), jnp.array([0.0, 0.3, 0.1])
    together = jax.jit(jax.vmap(run))(keys, noises)
    alone = jax.jit(run, static_argnums=1)(keys[1], 0.3)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[1], y, rtol=1e-4, atol=1e-5), together, alone)
    assert together.std[0].max() < 0.9
    assert (together.std[1] ** 2 >= 0.3 * (1 - 480 / 640) - 1e-6).all()


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("constructor", "bad"),
    [
        (cem, {"num_elites": 0}),
        (cem, {"num_elites": 51}),
        (cem, {"num_elites": 0.2}),
        (cem, {"init_std": 0.0}),
        (cem, {"noise": -0.1}),
        (cem, {"noise": float("nan")}),
        (cem, {"noise_decay_steps": -1}),
        (cem, {"num_envs": 0}),
        (cem, {"envs_per_candidate": 0}),
        (cem, {"envs_per_candidate": 3}),
        (cem, {"rollout_length": 0}),
        (cem, {"activation": "sine"}),
        (hill_climbing, {"noise_min": 0.0}),
        (hill_climbing, {"noise_min": 1.5}),
        (hill_climbing, {"noise": 2.5}),
        (hill_climbing, {"noise_factor": 0.5}),
        (hill_climbing, {"num_envs": 0}),
        (hill_climbing, {"envs_per_candidate": 3}),
        (hill_climbing, {"rollout_length": 2.5}),
        (hill_climbing, {"activation": "sine"}),
    ],
    ids=lambda x: getattr(x, "__name__", None) or "{}={}".format(*next(iter(x.items()))),
)
def test_bad_arguments(constructor, bad):
    ((name, value),) = bad.items()
    with pytest.raises(JaxrlError) as error:
        constructor(**bad)
    assert f"{constructor.__name__}: {name}={value!r} is not accepted" in str(error.value)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (lambda: cem(num_elites=4, num_envs=9, envs_per_candidate=3), ["num_elites=4", "envs_per_candidate = 3"]),
        (lambda: cem(hidden_sizes=(8, 0)), ["cem: hidden_sizes[1]=0"]),
        (lambda: cem(torso="cnn").init(jax.random.key(0), DISCRETE), ["cem: torso='cnn'", "Fake-v0", "(2,)"]),
        (
            lambda: cem().init(jax.random.key(0), DISCRETE._replace(obs_space=Discrete(4))),
            ["cem: Fake-v0", "flatten_observations"],
        ),
        (
            lambda: hill_climbing().init(jax.random.key(0), DISCRETE._replace(action_space=box(-1, 1, (2, 3)))),
            ["hill_climbing: Fake-v0", "(2, 3)"],
        ),
    ],
    ids=["elites", "hidden", "cnn", "integers", "matrices"],
)
def test_other_errors(case, words):
    with pytest.raises(JaxrlError) as error:
        case()
    assert all(word in str(error.value) for word in words), error.value
