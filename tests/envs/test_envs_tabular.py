"""The environments that have a model: the model itself, the environment against it, and how grids are written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import run

from jaxrl import checks, envs
from jaxrl.envs.own import grid
from jaxrl.envs.own.tabular import TabularState, model_env
from jaxrl.types import Discrete, Model

TWO_STARTS = "S.T/S#X/.S."
DETERMINISTIC = {
    "corridor": envs.make("jaxrl/Corridor-v0"),
    "maze": envs.make("jaxrl/Maze-v0"),
    "walls": envs.make("jaxrl/Maze-v0", layout="S.X/.XT/#.."),
    "cliff": envs.make("jaxrl/Cliff-v0"),
    "windy": envs.make("jaxrl/WindyGrid-v0"),
    "walk": envs.make("jaxrl/RandomWalk-v0"),
    "walk 4": envs.make("jaxrl/RandomWalk-v0", num_states=4),
    "bias": envs.make("jaxrl/MaximizationBias-v0"),
    "lake sure": envs.make("FrozenLake-misc", is_slippery=False),
    "lake 8x8": envs.make("FrozenLake-misc", is_slippery=False, map_name="8x8"),
}
BY_CHANCE = {
    "lake": envs.make("FrozenLake-misc"),
    "lake rewards": envs.make("FrozenLake-misc", success_rate=0.7, reward_schedule=(2.0, -1.0, -0.25)),
    "starts": grid.grid_world("test/Starts-v0", TWO_STARTS, trap_ends=False, step_reward=-0.5),
}
WORLDS = DETERMINISTIC | BY_CHANCE
NUM_DRAWS = 4_000
UP, DOWN, LEFT, RIGHT = range(4)


def state_at(env, like, state):
    """The environment's state at a time 0 of an episode, in a state of its model."""
    if isinstance(like, TabularState):
        return TabularState(state, jnp.int32(0))
    return like.replace(position=state)


def every_step(env, key, draws):
    """Outcomes of `env.step` from each state and with each action, so many times: leaves `[S, A, draws]`."""
    num_states, num_actions = env.model.reward.shape
    like, _ = env.reset(key)

    def step(state, action, draw):
        key_of_it = jax.random.fold_in(key, (state * num_actions + action) * draws + draw)
        return env.step(key_of_it, state_at(env, like, state), action)[1]

    over_draws = jax.vmap(step, (None, None, 0))
    over_actions = jax.vmap(over_draws, (None, 0, None))
    over_states = jax.vmap(over_actions, (0, None, None))
    return over_states(jnp.arange(num_states), jnp.arange(num_actions), jnp.arange(draws))


@pytest.fixture(scope="module")
def steps():
    """Outcomes of every step in every world, and of 1000 resets, out of one compiled call."""

    def run(key):
        stepped = {name: every_step(env, key, 1) for name, env in DETERMINISTIC.items()}
        stepped |= {name: every_step(env, key, NUM_DRAWS) for name, env in BY_CHANCE.items()}
        keys = jax.random.split(key, 1000)
        return stepped, {name: jax.vmap(env.reset)(keys)[1] for name, env in WORLDS.items()}

    return jax.tree.map(np.asarray, jax.jit(run)(jax.random.key(3)))


@pytest.mark.parametrize("name", WORLDS)
def test_model_is_a_proper_mdp(name):
    env = WORLDS[name]
    transition, reward, terminal, start = map(np.asarray, env.model)
    num_states, num_actions = reward.shape
    assert (env.spec.obs_space, env.spec.action_space) == (Discrete(num_states), Discrete(num_actions))
    assert transition.shape == (num_states, num_actions, num_states)
    assert terminal.shape == start.shape == (num_states,)
    assert [x.dtype for x in (transition, reward, terminal, start)] == [np.float32, np.float32, bool, np.float32]
    assert (transition >= 0).all()
    np.testing.assert_allclose(transition.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(start.sum(), 1, atol=1e-6)
    assert terminal.any()
    assert not start[terminal].any()
    assert (transition[terminal] == np.eye(num_states)[terminal][:, None]).all(), "a terminal state leads to itself"
    assert (reward[terminal] == 0).all()


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_step_agrees_with_model(steps, name):
    outcome = jax.tree.map(lambda x: x[..., 0], steps[0][name])
    transition, reward, terminal, _ = DETERMINISTIC[name].model
    assert ((transition == 0) | (transition == 1)).all()
    going_on = ~np.asarray(terminal)  # gymnax goes on playing in a terminal state, which no episode does
    successor = np.argmax(transition, -1)
    assert (outcome.obs.dtype, outcome.reward.dtype) == (np.int32, np.float32)
    assert np.array_equal(outcome.obs[going_on], successor[going_on])
    assert np.array_equal(outcome.terminated[going_on], terminal[successor][going_on])
    assert not outcome.truncated.any()
    if name != "bias":  # whose rewards have noise
        np.testing.assert_allclose(outcome.reward[going_on], reward[going_on], atol=1e-6)


@pytest.mark.parametrize("name", BY_CHANCE)
def test_frequencies_agree_with_model(steps, name):
    """gymnax's own dynamics against our model of it, and a trap that leads to several starts."""
    outcome = steps[0][name]
    transition, reward, terminal, _ = BY_CHANCE[name].model
    going_on = ~np.asarray(terminal)
    found = np.mean(outcome.obs[..., None] == np.arange(len(terminal)), axis=2)[going_on]  # [S, A, S]
    expected = transition[going_on]
    assert ((found > 0) == (expected > 0)).all()
    assert (np.abs(found - expected) <= 5 * np.sqrt(expected * (1 - expected) / NUM_DRAWS)).all()
    error = np.abs(outcome.reward.mean(-1) - reward)[going_on]
    assert (error <= 5 * outcome.reward.std(-1)[going_on] / np.sqrt(NUM_DRAWS) + 1e-6).all(), error.max()
    assert np.array_equal(outcome.terminated[going_on], terminal[outcome.obs][going_on])


@pytest.mark.parametrize("name", WORLDS)
def test_resets_are_drawn_from_start(steps, name):
    obs, start = steps[1][name], np.asarray(WORLDS[name].model.start)
    assert obs.dtype == np.int32
    frequencies = np.bincount(obs, minlength=len(start)) / len(obs)
    assert (np.abs(frequencies - start) <= 5 * np.sqrt(start * (1 - start) / len(obs))).all()


def test_several_starts():
    expected = np.isin(np.arange(9), [0, 3, 7]) / 3
    np.testing.assert_allclose(BY_CHANCE["starts"].model.start, expected, atol=1e-6)
    np.testing.assert_allclose(BY_CHANCE["starts"].model.transition[1, DOWN], expected, atol=1e-6)


def test_corridor():
    env = DETERMINISTIC["corridor"]
    assert (env.spec.action_names, env.spec.layout, env.spec.max_steps) == (("left", "right"), ("S....T",), 500)
    _, obs, _, outcome, new_obs = run(env, [1] * 5 + [0, 1, 1])
    assert obs.tolist() == [0, 1, 2, 3, 4, 0, 0, 1]
    assert new_obs.tolist() == [1, 2, 3, 4, 0, 0, 1, 2]
    assert outcome.obs.tolist() == [1, 2, 3, 4, 5, 0, 1, 2]
    assert outcome.reward.tolist() == [0, 0, 0, 0, 1, 0, 0, 0]
    assert outcome.terminated.tolist() == [False] * 4 + [True] + [False] * 3
    assert not outcome.truncated.any()


def test_maze():
    env = DETERMINISTIC["maze"]
    assert env.spec.layout == ("S...", "..#.", ".#T.", "....")
    assert env.spec.action_names == ("up", "down", "left", "right")
    to_paradise, to_trap = [DOWN, DOWN, DOWN, RIGHT, RIGHT, UP], [RIGHT, RIGHT, DOWN]
    _, obs, _, outcome, new_obs = run(env, [UP, LEFT, *to_paradise, *to_trap])
    assert obs.tolist() == [0, 0, 0, 4, 8, 12, 13, 14, 0, 1, 2]
    assert new_obs.tolist() == [0, 0, 4, 8, 12, 13, 14, 0, 1, 2, 0]
    assert outcome.obs[[7, 10]].tolist() == [10, 6]
    assert outcome.reward.tolist() == [0] * 7 + [1, 0, 0, -1]
    assert np.flatnonzero(outcome.terminated).tolist() == [7, 10]


def test_cliff_sends_back_to_the_start():
    _, obs, _, outcome, new_obs = run(DETERMINISTIC["cliff"], [RIGHT, UP, RIGHT, DOWN, UP, *[RIGHT] * 11, DOWN])
    assert obs[:6].tolist() == [36, 36, 24, 25, 36, 24]
    assert outcome.obs[:5].tolist() == [36, 24, 25, 36, 24]
    assert outcome.reward.tolist() == [-100, -1, -1, -100] + [-1] * 13
    assert np.flatnonzero(outcome.terminated).tolist() == [16]
    assert (outcome.obs[16], new_obs[16]) == (47, 36)


def test_wind():
    """The book's best path: 15 steps, of which the wind does much."""
    actions = [RIGHT] * 9 + [DOWN] * 4 + [LEFT] * 2
    _, obs, _, outcome, _ = run(DETERMINISTIC["windy"], actions)
    rows, columns = np.divmod(np.append(obs, outcome.obs[-1]), 10)
    assert columns.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 9, 8, 7]
    assert rows.tolist() == [3, 3, 3, 3, 2, 1, 0, 0, 0, 0, 1, 2, 3, 4, 4, 3]
    assert outcome.reward.tolist() == [-1] * 15
    assert outcome.terminated.tolist() == [False] * 14 + [True]


def test_random_walk():
    env = DETERMINISTIC["walk"]
    assert (env.spec.obs_space, env.spec.max_steps, env.spec.action_names) == (Discrete(21), 1900, ("left", "right"))
    _, obs, _, outcome, _ = run(env, [0] * 10 + [1] * 10)
    assert obs.tolist() == [*range(9, -1, -1), *range(9, 19)]
    assert outcome.obs[[9, 19]].tolist() == [19, 20]
    assert outcome.reward[[9, 19]].tolist() == [-1, 1]
    assert np.count_nonzero(outcome.reward) == np.count_nonzero(outcome.terminated) == 2
    assert DETERMINISTIC["walk 4"].model.start.tolist() == [0, 0, 1, 0, 0, 0]


def test_maximization_bias():
    env = envs.make("jaxrl/MaximizationBias-v0", num_actions=6)
    transition, reward, terminal, _ = env.model
    assert transition[0].argmax(-1).tolist() == [2, 1, 2, 1, 2, 1]
    assert transition[1].argmax(-1).tolist() == [2] * 6
    assert (reward[0] == 0).all()
    np.testing.assert_allclose(reward[1], -0.1)
    assert terminal.tolist() == [False, False, True]
    num_draws = 20_000
    outcome = jax.tree.map(np.asarray, jax.jit(lambda key: every_step(env, key, num_draws))(jax.random.key(0)))
    assert (outcome.reward[0] == 0).all()
    noisy = outcome.reward[1].ravel()
    assert abs(noisy.mean() + 0.1) < 5 / np.sqrt(noisy.size)
    assert abs(noisy.std() - 1) < 5 / np.sqrt(2 * noisy.size)
    assert np.abs(np.corrcoef(outcome.reward[1])[~np.eye(6, dtype=bool)]).max() < 5 / np.sqrt(num_draws)


def test_truncation():
    """After `max_steps`, and not where the episode terminates in that very step; the next one gets its whole time."""
    env = grid.grid_world("test/Short-v0", "S..T", moves=("left", "right"), max_steps=3)
    _, obs, _, outcome, new_obs = run(env, [1, 1, 0, 1, 1, 1, 0, 0, 0, 1])
    assert outcome.terminated.tolist() == [False] * 5 + [True] + [False] * 4
    assert outcome.truncated.tolist() == [False, False, True] + [False] * 5 + [True, False]
    assert obs.tolist() == [0, 1, 2, 0, 1, 2, 0, 0, 0, 0]
    assert outcome.obs.tolist() == [1, 2, 1, 1, 2, 3, 0, 0, 0, 1]
    assert new_obs.tolist() == [1, 2, 0, 1, 2, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("name", ["corridor", "maze", "cliff", "windy", "walk"])
def test_time_limit_is_that_of_the_spec(name):
    env = DETERMINISTIC[name]
    like, _ = env.reset(jax.random.key(0))

    def truncated(time):
        return env.step(jax.random.key(0), like._replace(time=time), jnp.int32(0))[1].truncated

    times = jnp.array([0, env.spec.max_steps - 2, env.spec.max_steps - 1])
    assert jax.vmap(truncated)(times).tolist() == [False, False, True]


def test_rounding_leaves_some_state_to_draw():
    """Ten tenths in float32 do not sum to one, and the last state's share must be neither lost nor overstepped."""
    tenths = np.full((11, 1, 11), 0.1, np.float32)
    tenths[..., 10] = 0
    model = Model(tenths, np.zeros((11, 1), np.float32), np.arange(11) == 10, np.eye(11, dtype=np.float32)[0])
    env = model_env("test/Tenths-v0", model, max_steps=10)
    states = jax.jit(lambda key: every_step(env, key, 10_000))(jax.random.key(0)).obs
    counts = np.bincount(np.asarray(states[0, 0]), minlength=11)
    assert counts[10] == 0
    assert np.abs(counts[:10] - 1000).max() < 5 * np.sqrt(900)


def test_draw():
    layout = DETERMINISTIC["maze"].spec.layout
    assert grid.draw(layout) == "....\n..#.\n.#T.\n...."
    assert grid.draw(layout, 0) == "o...\n..#.\n.#T.\n...."
    assert grid.draw(layout, np.int32(10)) == "....\n..#.\n.#o.\n...."
    assert grid.draw(WORLDS["lake"].spec.layout, 15) == "....\n.#.#\n...#\n#..o"
    for state in (-1, 16):
        with pytest.raises(checks.JaxrlError, match=rf"state={state} is not accepted; .* 0 to 15"):
            grid.draw(layout, state)
    with pytest.raises(checks.JaxrlError, match="the environment has no layout; the grid worlds have one"):
        grid.draw(DETERMINISTIC["walk"].spec.layout)


def test_lake_has_a_layout():
    assert WORLDS["lake"].spec.layout == ("S...", ".#.#", "...#", "#..T")
    assert WORLDS["lake"].spec.action_names == ("left", "down", "right", "up")
    assert len(DETERMINISTIC["lake 8x8"].spec.layout) == 8
    assert envs.make("CartPole-v1").model is None
    assert envs.make("CartPole-v1").spec.layout == ()


@pytest.mark.parametrize("text", ["S.T/#X.", "S.T\n#X.", "\n  S.T\n  #X.\n", " S.T / #X. "])
def test_layouts_are_written_with_lines_or_slashes(text):
    env = envs.make("jaxrl/Maze-v0", layout=text)
    assert env.spec.layout == ("S.T", "#X.")
    model = env.model
    assert model.terminal.tolist() == [False, False, True, True, False, False]
    assert model.transition[0].argmax(-1).tolist() == [0, 3, 0, 1], "up, down, left, right of the start"
    assert model.transition[1].argmax(-1).tolist() == [1, 1, 0, 2], "down is a wall"
    assert model.reward[0].tolist() == [0, -1, 0, 0]
    assert model.reward[1].tolist() == [0, 0, 0, 1]


ERRORS = {
    "no start": ("..T", "layout has no start; it must have at least one S"),
    "no treasure": ("S../...", "layout has no treasure; it must have at least one T"),
    "nothing": ("", "layout has no start"),
    "unknown": (
        "S.T/.a.",
        "layout has 'a' in row 1; a cell must be one of S .start., T .treasure., # .trap., X .wall. ",
    ),
    "small": ("s.T", "layout has 's' in row 0"),
    "ragged": ("S.T/...\n..", "layout has rows of unlike lengths, 3 in row 0 and 2 in row 2; all must be equally long"),
    "a blank line": ("S.T\n\n...", "layout has rows of unlike lengths, 3 in row 0 and 0 in row 1"),
    "no text": (("S.T", "..."), "layout=.'S.T', '...'. is not accepted; it must be text"),
    "number": (3, "layout=3 is not accepted; it must be text"),
}


@pytest.mark.parametrize("fault", ERRORS)
def test_errors_of_layouts(fault):
    layout, message = ERRORS[fault]
    with pytest.raises(checks.JaxrlError, match=f"jaxrl/Maze-v0: {message}"):
        envs.make("jaxrl/Maze-v0", layout=layout)
    with pytest.raises(checks.JaxrlError, match=f"test/Grid-v0: {message}"):
        grid.parse_layout("test/Grid-v0", layout)


def test_errors_of_parameters():
    with pytest.raises(checks.JaxrlError, match="unknown parameter 'layuot'"):
        envs.make("jaxrl/Maze-v0", layuot="S.T")
    with pytest.raises(checks.JaxrlError, match=r"RandomWalk-v0: num_states=0 is not accepted; .* at least 1"):
        envs.make("jaxrl/RandomWalk-v0", num_states=0)
    with pytest.raises(checks.JaxrlError, match=r"MaximizationBias-v0: num_actions=5 .* must be an even number"):
        envs.make("jaxrl/MaximizationBias-v0", num_actions=5)
    with pytest.raises(checks.JaxrlError, match="test/Grid-v0: max_steps=0 is not accepted"):
        grid.grid_world("test/Grid-v0", "S.T", max_steps=0)
    for params, words in (
        ({"trap_reward": float("nan")}, "trap_reward=nan is not accepted"),
        ({"moves": ("left", "north")}, "moves='north' is not accepted; it must be one of up, down, left, right"),
        ({"wind": (1, 2)}, r"wind=\(1, 2\) is not accepted; it must have a whole number for each of the 3 columns"),
    ):
        with pytest.raises(checks.JaxrlError, match=f"test/Grid-v0: {words}"):
            grid.grid_world("test/Grid-v0", "S.T", **params)
    grid.grid_world("test/Grid-v0", "S.T", wind=tuple(np.zeros(3, int)))
