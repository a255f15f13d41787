"""Planning against slow NumPy versions of it, against what its theorems promise, and against known numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import checks, make, planning
from jaxrl.types import Model

CONTROL = {
    "corridor": make("jaxrl/Corridor-v0").model,
    "maze": make("jaxrl/Maze-v0").model,
    "lake": make("FrozenLake-misc").model,
    "walk": make("jaxrl/RandomWalk-v0").model,
}
LENGTHS = {
    "corridor": (CONTROL["corridor"], 5),
    "maze": (CONTROL["maze"], 6),
    "cliff": (make("jaxrl/Cliff-v0").model, 13),
    "windy": (make("jaxrl/WindyGrid-v0").model, 15),
    "lake sure": (make("FrozenLake-misc", is_slippery=False).model, 6),
}
GAMMA = 0.9
SWEEPS = 30


def random_model(seed: int = 0, num_states: int = 7, num_actions: int = 3) -> Model:
    """Any model at all: its rewards have both signs, every state leads everywhere, and the last two are terminal."""
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(num_states), (num_states, num_actions)).astype(np.float32)
    reward = rng.normal(size=(num_states, num_actions)).astype(np.float32)
    terminal = np.arange(num_states) >= num_states - 2
    transition[terminal] = np.eye(num_states)[terminal][:, None]
    reward[terminal] = 0
    return Model(transition, reward, terminal, np.eye(num_states, dtype=np.float32)[0])


MODELS = CONTROL | {"random": random_model()}


def slow_look_ahead(model, values, gamma):
    q_values = np.zeros(model.reward.shape)
    for s, a in np.ndindex(*model.reward.shape):
        q_values[s, a] = model.reward[s, a]
        for t in np.flatnonzero(model.transition[s, a]):
            if not model.terminal[t]:
                q_values[s, a] += gamma * np.float64(model.transition[s, a, t]) * values[t]
    return q_values


def slow_value_iteration(model, gamma, sweeps):
    """The values after each sweep, float64 `[sweeps, S]`."""
    values, history = np.zeros(len(model.terminal)), []
    for _ in range(sweeps):
        values = slow_look_ahead(model, values, gamma).max(-1)
        history.append(values)
    return np.array(history)


def slow_evaluation(model, policy, gamma, sweeps):
    """Iterative policy evaluation, `policy` `[S, A]`; float64 `[S]`."""
    values = np.zeros(len(model.terminal))
    for _ in range(sweeps):
        values = (policy * slow_look_ahead(model, values, gamma)).sum(-1)
    return values


@pytest.fixture(scope="module")
def solved():
    """For each model the solutions: of 1 to 30 sweeps, of both iterations to the end, and of policy iteration."""

    def solve(model):
        def after(iterate):
            # No change is this small but none at all, so it is the sweeps that end it, or a fixed point.
            run = lambda n: iterate(model, gamma=GAMMA, tolerance=1e-30, max_iterations=n)  # noqa: E731
            return jax.vmap(run)(jnp.arange(1, SWEEPS + 1))

        return {
            "values after": after(planning.value_iteration),
            "q values after": after(planning.q_value_iteration),
            "value": planning.value_iteration(model, gamma=GAMMA),
            "q value": planning.q_value_iteration(model, gamma=GAMMA),
            "policy": planning.policy_iteration(model, gamma=GAMMA),
        }

    run = jax.jit(lambda: {name: solve(model) for name, model in MODELS.items()})
    return jax.tree.map(np.asarray, run())


@pytest.fixture(scope="module")
def optimal():
    """V*, by far more sweeps than needed, and in float64."""
    return {name: slow_value_iteration(model, GAMMA, 300) for name, model in MODELS.items()}


@pytest.mark.parametrize("name", MODELS)
def test_each_sweep(solved, optimal, name):
    found = solved[name]["values after"]
    np.testing.assert_allclose(found.values, optimal[name][:SWEEPS], atol=2e-6)
    looked = [slow_look_ahead(MODELS[name], values, GAMMA) for values in optimal[name][:SWEEPS]]
    np.testing.assert_allclose(found.q_values, looked, atol=2e-6)
    # Q-value iteration keeps the table itself: after n sweeps it is the look-ahead from the values after n - 1.
    found = solved[name]["q values after"]
    first = slow_look_ahead(MODELS[name], np.zeros(len(MODELS[name].terminal)), GAMMA)
    np.testing.assert_allclose(found.q_values, [first, *looked[:-1]], atol=2e-6)
    np.testing.assert_allclose(found.values, optimal[name][:SWEEPS], atol=2e-6)


@pytest.mark.parametrize("name", MODELS)
def test_contraction(solved, optimal, name):
    """After n sweeps the error is at most gamma^n of the one at the beginning, where all values are 0."""
    best = optimal[name][-1]
    size = np.abs(best).max()
    assert size > 0.05
    powers = GAMMA ** np.arange(1, SWEEPS + 1)
    errors = np.abs(solved[name]["values after"].values - best).max(-1)
    assert (errors <= powers * size + 1e-6).all(), errors
    best_q = slow_look_ahead(MODELS[name], best, GAMMA)
    q_errors = np.abs(solved[name]["q values after"].q_values - best_q).max((-2, -1))
    assert (q_errors <= powers * np.abs(best_q).max() + 1e-6).all(), q_errors


@pytest.mark.parametrize("name", MODELS)
def test_error_bound_bounds_the_error(solved, optimal, name):
    best = optimal[name][-1]
    best_q = slow_look_ahead(MODELS[name], best, GAMMA)
    for kind in ("values after", "value", "policy"):
        found = solved[name][kind]
        assert (np.abs(found.values - best).max(-1) <= found.error_bound + 2e-6).all(), kind
    for kind in ("q values after", "q value"):
        found = solved[name][kind]
        assert (np.abs(found.q_values - best_q).max((-2, -1)) <= found.error_bound + 2e-6).all(), kind
    for kind in ("value", "q value", "policy"):
        assert solved[name][kind].error_bound < 2e-5, kind
    # It is what the contraction gives from the last change, no more.
    history = np.concatenate([np.zeros_like(optimal[name][:1]), optimal[name][:SWEEPS]])
    change = np.abs(np.diff(history, axis=0)).max(-1)
    np.testing.assert_allclose(
        solved[name]["values after"].error_bound, GAMMA / (1 - GAMMA) * change, rtol=1e-4, atol=2e-5
    )


def exact_values(model, gamma):
    """V*, by policy iteration in float64."""
    transition, reward = (np.asarray(x, np.float64) for x in (model.transition, model.reward))
    states, going_on = np.arange(len(model.terminal)), ~model.terminal
    policy, before = np.zeros(len(states), int), None
    while not np.array_equal(policy, before):
        chosen = transition[states, policy] * np.outer(going_on, going_on)
        values = np.linalg.solve(np.eye(len(states)) - gamma * chosen, reward[states, policy] * going_on)
        q_values = reward + gamma * transition @ values
        kept = q_values[states, policy]
        better = q_values.max(-1) > kept + 1e-11 * np.abs(q_values).max()
        policy, before = np.where(better, q_values.argmax(-1), policy), policy
    return values


def test_error_bounds_include_the_rounding():
    """Gamma up to 0.99999, rewards from 1e-6 to 1e6, chance and none: sweeps to their fixed point, where the last
    change is 0 and the error can be a thousandth of the values, and policies of which none improves."""
    chance = random_model(3)
    sure = chance._replace(transition=np.eye(7, dtype=np.float32)[chance.transition.argmax(-1)])
    rows = [
        (np.float32(gamma), model._replace(reward=model.reward * np.float32(scale)))
        for model in (chance, sure)
        for gamma in (0.5, 0.9, 0.999, 0.9999, 0.99999)
        for scale in (1e-6, 1.0, 1e6)
    ]

    def solve(row):
        gamma, model = row
        sweeps = {"gamma": gamma, "tolerance": 1e-30, "max_iterations": 100_000}
        return {
            "value": planning.value_iteration(model, **sweeps),
            "q value": planning.q_value_iteration(model, **sweeps),
            "policy": planning.policy_iteration(model, gamma=gamma),
        }

    stacked = jax.tree.map(lambda *x: np.stack(x), *rows)
    found = jax.device_get(jax.jit(jax.vmap(solve))(stacked))
    for i, (gamma, model) in enumerate(rows):
        best = exact_values(model, np.float64(gamma))
        size = np.abs(best).max()
        for kind, solutions in found.items():
            error, bound = np.abs(solutions.values[i] - best).max(), solutions.error_bound[i]
            assert bound > 0, (kind, i)
            assert error <= bound, (kind, i)
            if gamma < 0.95:  # and it is of use
                assert bound < 4e-5 * size, (kind, i)
        assert np.abs(found["policy"].values[i] - best).max() < 2e-3 * size, i
        assert found["policy"].iterations[i] < 10
    alone = jax.jit(lambda: planning.value_iteration(sure, gamma=0.9999, max_iterations=100_000, tolerance=1e-30))()
    best = exact_values(sure, 0.9999)  # of a number in Python, which no float32 is equal to
    assert np.abs(alone.values - best).max() <= alone.error_bound < 0.01 * np.abs(best).max()


def test_policies_improve_by_rewards_of_any_size():
    """In a corridor of rewards of 1e-6 as in one of 1e6, where the first policy is the wrong one everywhere."""
    model = CONTROL["corridor"]
    scaled = jnp.array([1e-6, 1.0, 1e6])
    run = lambda scale: planning.policy_iteration(model._replace(reward=model.reward * scale), gamma=GAMMA)  # noqa: E731
    found = jax.jit(jax.vmap(run))(scaled)
    np.testing.assert_allclose(found.values[:, :5] / scaled[:, None], [[0.9**4, 0.9**3, 0.9**2, 0.9, 1]] * 3, rtol=1e-5)
    assert (found.policy[:, :5] == 1).all()


@pytest.mark.parametrize("name", MODELS)
def test_the_three_ways_agree(solved, optimal, name):
    best = optimal[name][-1]
    best_q = slow_look_ahead(MODELS[name], best, GAMMA)
    for kind in ("value", "q value", "policy"):
        found = solved[name][kind]
        np.testing.assert_allclose(found.values, best, atol=1e-5, err_msg=kind)
        np.testing.assert_allclose(found.q_values, best_q, atol=1e-5, err_msg=kind)
        assert (found.values[MODELS[name].terminal] == 0).all()
        assert (found.policy.dtype, found.iterations.dtype) == (np.int32, np.int32)
        chosen = np.take_along_axis(best_q, found.policy[:, None], -1)[:, 0]
        np.testing.assert_allclose(chosen, best, atol=1e-5, err_msg=kind)
        assert np.array_equal(found.policy, found.q_values.argmax(-1))
    assert 1 <= solved[name]["policy"].iterations <= 25
    assert 1 < solved[name]["value"].iterations < 200


def test_sweeps_are_counted_and_end_when_nothing_changes(solved):
    """The corridor's treasure is known everywhere after 5 sweeps, and the sixth finds nothing new."""
    assert solved["corridor"]["values after"].iterations.tolist() == [1, 2, 3, 4, 5] + [6] * 25
    assert solved["corridor"]["value"].iterations == 6
    assert planning.value_iteration(CONTROL["corridor"], gamma=GAMMA, tolerance=0.7).iterations == 5
    assert planning.value_iteration(CONTROL["corridor"], gamma=0.5, tolerance=0.2).iterations == 4
    np.testing.assert_allclose(solved["corridor"]["value"].values, [0.9**4, 0.9**3, 0.9**2, 0.9, 1, 0], rtol=1e-6)
    assert solved["corridor"]["value"].policy.tolist()[:5] == [1] * 5


def test_a_terminal_state_is_worth_nothing_whatever_its_value():
    model = MODELS["random"]
    values = np.arange(1.0, 8.0)
    np.testing.assert_allclose(
        planning.look_ahead(model, values, 0.7), slow_look_ahead(model, values, 0.7), rtol=1e-5, atol=1e-6
    )


def test_known_numbers():
    def run():
        lake = planning.value_iteration(CONTROL["lake"], gamma=0.99)
        sure = [CONTROL["walk"], LENGTHS["windy"][0], LENGTHS["cliff"][0]]
        bias = planning.policy_iteration(make("jaxrl/MaximizationBias-v0").model, gamma=0.99)
        return lake, *(planning.value_iteration(model, gamma=1.0) for model in sure), bias

    lake, walk, windy, cliff, bias = jax.jit(run)()
    assert abs(lake.values[0] - 0.542) < 5e-4
    np.testing.assert_allclose(walk.values, [*[1] * 19, 0, 0], atol=1e-6)
    assert walk.error_bound == np.inf
    assert (windy.values[30], cliff.values[36]) == (-15, -13)
    np.testing.assert_allclose(bias.values, [0, -0.1, 0], atol=1e-6)
    np.testing.assert_allclose(bias.q_values[0], [0, -0.099] * 5, atol=1e-6)


def test_evaluation_of_a_hand_solved_policy():
    """Corridor: to the right from everywhere; and to the left from the second cell, which is never left then."""
    corridor = CONTROL["corridor"]
    right = planning.policy_evaluation(corridor, np.ones(6, np.int32), gamma=0.5)
    np.testing.assert_allclose(right, [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 0], rtol=1e-6)
    to_and_fro = planning.policy_evaluation(corridor, jnp.array([1, 0, 1, 1, 1, 0]), gamma=0.5)
    np.testing.assert_allclose(to_and_fro, [0, 0, 1 / 4, 1 / 2, 1, 0], atol=1e-7)
    # One cell before the treasure, a step left with probability 1/2 that is a step on the spot in a grid of two cells.
    coin = planning.policy_evaluation(
        make("jaxrl/Maze-v0", layout="ST").model, np.array([[0, 0, 0.5, 0.5]] * 2, np.float32), gamma=0.8
    )
    np.testing.assert_allclose(coin, [0.5 / (1 - 0.4), 0], rtol=1e-6)


def test_random_walk_has_the_books_values():
    coin = np.full((21, 2), 0.5, np.float32)
    values = planning.policy_evaluation(CONTROL["walk"], coin, gamma=1.0)
    np.testing.assert_allclose(values, [*(np.arange(1, 20) / 10 - 1), 0, 0], atol=1e-4)


@pytest.mark.parametrize("name", ["lake", "random", "maze"])
def test_evaluation_of_chance_against_iteration(name):
    model = MODELS[name]
    policies = np.random.default_rng(1).dirichlet(np.ones(model.reward.shape[1]), (3, len(model.terminal)))
    policies = policies.astype(np.float32)
    found = jax.jit(jax.vmap(lambda policy: planning.policy_evaluation(model, policy, gamma=0.9)))(policies)
    for policy, values in zip(policies, found, strict=True):
        np.testing.assert_allclose(values, slow_evaluation(model, policy, 0.9, 200), atol=2e-6)
    fixed = policies[0].argmax(-1)
    np.testing.assert_allclose(
        planning.policy_evaluation(model, fixed, gamma=0.9),
        slow_evaluation(model, np.eye(policies.shape[-1])[fixed], 0.9, 200),
        atol=2e-6,
    )


def test_evaluation_of_the_best_policy_is_the_optimum(solved, optimal):
    for name in ("lake", "random"):
        values = planning.policy_evaluation(MODELS[name], solved[name]["value"].policy, gamma=GAMMA)
        np.testing.assert_allclose(values, optimal[name][-1], atol=1e-5)


def test_path_lengths():
    """Also with just so many steps as it takes, and with fewer; and of policies that go round for ever."""

    def lengths(model, length):
        best = planning.value_iteration(model, gamma=GAMMA).policy
        found = [planning.path_length(model, best, max_steps) for max_steps in (50, length, length - 2)]
        return [*found, planning.path_length(model, planning.policy_iteration(model, gamma=GAMMA).policy, 50)]

    def never(name, action):
        model, _ = LENGTHS[name]
        return planning.path_length(model, jnp.full(len(model.terminal), action), 50)

    def run():
        best = {name: lengths(*known) for name, known in LENGTHS.items()}
        return best, [never("corridor", 0), never("maze", 0), never("lake sure", 3), never("cliff", 3)]

    best, lost = jax.jit(run)()
    for name, (_, length) in LENGTHS.items():
        assert [int(n) for n in best[name]] == [length, length, length - 1, length], name
    assert [int(n) for n in lost] == [51] * 4


def test_gamma_may_be_traced():
    def solve(gamma):
        return planning.value_iteration(CONTROL["corridor"], gamma=gamma).values[0]

    np.testing.assert_allclose(jax.jit(jax.vmap(solve))(jnp.array([0.5, 0.9])), [0.5**4, 0.9**4], rtol=1e-5)


def test_errors():
    model = CONTROL["corridor"]
    for solve in (planning.value_iteration, planning.q_value_iteration, planning.policy_iteration):
        name = solve.__name__
        for gamma in (-0.1, 1.1, np.nan):
            with pytest.raises(checks.JaxrlError, match=rf"{name}: gamma={gamma} is not accepted; .* in \[0, 1"):
                solve(model, gamma=gamma)
        for max_iterations in (0, 2.5):
            with pytest.raises(checks.JaxrlError, match=f"{name}: max_iterations={max_iterations} is not accepted"):
                solve(model, max_iterations=max_iterations)
    for solve in (planning.value_iteration, planning.q_value_iteration):
        for tolerance in (0, -1.0):
            message = rf"{solve.__name__}: tolerance={tolerance} is not accepted; it must be a number in \(0"
            with pytest.raises(checks.JaxrlError, match=message):
                solve(model, tolerance=tolerance)
    with pytest.raises(checks.JaxrlError, match=r"policy_iteration: gamma=1 .* in \[0, 1\).* .value_iteration takes 1"):
        planning.policy_iteration(model, gamma=1)
    with pytest.raises(checks.JaxrlError, match="policy_evaluation: gamma=2 is not accepted"):
        planning.policy_evaluation(model, np.zeros(6, np.int32), gamma=2)
