"""What is said of an environment that does not keep to the contract: by `check_env`, and by whatever trains in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fake_agent import fake
from gymnasium import spaces

import jaxrl
from jaxrl import Env, JaxrlError, Outcome, Spec, check_env, evaluate, init_train, make, train
from jaxrl.envs import check, wrappers
from jaxrl.types import Discrete, HostEnv, HostOutcome, Role, box

SPEC = Spec("Mine-v0", box(-2, 2, (2,)), Discrete(3), max_steps=5)
OBS = jnp.ones(2)


def env(reset=None, step=None, spec=SPEC):
    """Observes ones, for 5 steps; with another `reset(key)` or `step(key, time, action)`."""

    def good_step(key, time, action):
        return time + 1, Outcome(OBS, jnp.float32(1), jnp.bool(False), time + 1 >= 5)

    return Env(reset or (lambda key: (jnp.int32(0), OBS)), step or good_step, spec)


def step_with(time=lambda time: time + 1, **fields):
    """A step whose outcome has these fields, values or functions of the time."""

    def step(key, old, action):
        good = {"obs": OBS, "reward": jnp.float32(1), "terminated": jnp.bool(False), "truncated": old + 1 >= 5}
        given = {name: x(old + 1) if callable(x) else x for name, x in fields.items()}
        return time(old), Outcome(**good | given)

    return step


# What is found where the functions are traced, and so also by training and evaluation.
STATIC = {
    "reset returns obs alone": (env(lambda key: OBS), r"reset returns float32 of shape \(2,\); it must be a pair"),
    "reset in gymnax's order": (
        env(lambda key: (OBS, {"time": 0})),
        r"that reset returns is a dictionary of time; ",
    ),
    "obs's shape": (
        env(lambda key: (0, jnp.ones(3))),
        r"that reset returns is float32 of shape \(3,\); its",
    ),
    "obs as a list": (
        env(lambda key: (0, [1.0, 1.0])),
        r"that reset returns is a list of 2; its space",
    ),
    "obs's dtype": (
        env(step=step_with(obs=jnp.ones(2, int))),
        r"that step returns is int32 of shape \(2,\); its space",
    ),
    "gym's step": (
        env(step=lambda key, time, action: (OBS, 1.0, False, False, {})),
        r"step returns a tuple of 5 \(.*\); it must be a pair, \(state, jaxrl.Outcome",
    ),
    "a step that resets": (
        env(step=lambda key, time, action: (time, OBS, Outcome(OBS, 1.0, False, False))),
        r"step returns a tuple of 3 .* does not reset itself",
    ),
    "reward's shape": (env(step=step_with(reward=jnp.ones(1))), r"the reward is float32 of shape \(1,\); it must be"),
    "reward's dtype": (
        env(step=step_with(reward=jnp.int32(1))),
        r"the reward is int32 of shape \(\); it must be float32",
    ),
    "terminated": (env(step=step_with(terminated=jnp.int32(0))), r"terminated is int32 of shape \(\); it must be bool"),
    "truncated": (env(step=step_with(truncated=jnp.zeros(2, bool))), r"truncated is bool of shape \(2,\); it must be"),
    "extras": (
        env(step=step_with(extras=jnp.ones(1))),
        r"Outcome.extras is float32 of shape \(1,\); it must be",
    ),
    "state's dtype": (env(step=step_with(time=lambda t: t + 0.5)), r"step changes the state, from int32 .* to float32"),
    "state's shape": (
        env(
            lambda key: ({"a": jnp.ones(2)}, OBS),
            lambda key, s, a: ({"a": jnp.ones(3)}, Outcome(OBS, 1.0, True, False)),
        ),
        r"changes the state\['a'\], from float32 of shape \(2,\) to float32 of shape \(3,\)",
    ),
    "state's structure": (env(step=step_with(time=lambda t: (t, t))), r"step changes the state's structure, from "),
    "spaces": (
        env(spec=SPEC._replace(obs_space=spaces.Dict())),
        r"observations of Dict\(\) are not",
    ),
    "no spec": (env(spec="Mine-v0"), "spec='Mine-v0' is not accepted; it must be a jaxrl.Spec"),
}


@pytest.mark.parametrize("name", STATIC)
def test_what_does_not_fit_is_said_by_all_alike(name):
    faulty, text = STATIC[name]
    agent, key = fake(num_envs=1, rollout_length=1), jax.random.key(0)
    state = agent.init(key, SPEC)
    for function in (
        lambda: check_env(faulty),
        lambda: train(key, agent, faulty, 8),
        lambda: evaluate(key, agent, state, faulty, 1),
    ):
        with pytest.raises(JaxrlError, match=text):
            function()


def draws_while_traced(key, time, action):
    return time + 1, Outcome(OBS, jnp.float32(np.random.default_rng().uniform()), jnp.bool(False), time + 1 >= 5)


def drawn_while_run():
    return jax.pure_callback(lambda: np.float32(np.random.default_rng().uniform()), jnp.float32(0))


def draws_while_run(key, time, action):
    return time + 1, Outcome(OBS, drawn_while_run(), jnp.bool(False), time + 1 >= 5)


# What shows only where it is played.
PLAYED = {
    "NaN": (env(step=step_with(obs=lambda t: OBS / (3 - t))), "the observation is not finite, first in step 3"),
    "reward": (env(step=step_with(reward=lambda t: jnp.log(3.0 - t))), "the reward is not finite, first in step 3"),
    "bounds": (env(step=step_with(obs=lambda t: OBS * t)), "out of its space's bounds, first in step 3"),
    "first obs": (env(lambda key: (jnp.int32(0), 3 * OBS)), "out of its space's bounds, first after reset"),
    "number": (env(lambda key: (0, 0), step_with(obs=lambda t: t), SPEC._replace(obs_space=Discrete(2))),
               "out of its space's bounds, first in step 2"),
    "state": (env(lambda key: (jnp.float32(0), OBS), step_with(time=lambda t: t + jnp.sqrt(2 - t))),
              "the state is NaN somewhere, first in step"),
    "both ends": (env(step=step_with(terminated=lambda t: t >= 5)), "terminated and truncated are both true"),
    "limit": (env(spec=SPEC._replace(max_steps=4)), "an episode goes on after spec.max_steps=4 steps, first in step 4"),
    "early": (env(spec=SPEC._replace(max_steps=8)), "an episode is truncated before 8 steps"),
    "never": (env(spec=SPEC._replace(max_steps=None, truncates_early=False)), "an episode is truncated before inf"),
    "draws while traced": (env(step=draws_while_traced), "step differs for the same key; what it draws must come from"),
    "draws while run": (env(step=draws_while_run), "step differs for the same key; what it draws must come from"),
    "reset draws while run": (env(lambda key: (jnp.int32(0), OBS * drawn_while_run())),
                              "reset differs for the same key; what it draws must come from"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLAYED)
def test_what_shows_where_it_is_played(name):
    faulty, text = PLAYED[name]
    with pytest.raises(JaxrlError, match=text) as error:
        check_env(faulty, num_steps=12)
    assert all(line.startswith("Mine-v0: ") for line in str(error.value).splitlines())


def test_every_fault_is_said():
    faulty = env(step=step_with(obs=lambda t: OBS * t, terminated=lambda t: t >= 5))
    with pytest.raises(JaxrlError) as error:
        check_env(faulty, num_steps=12)
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize(
    "env_id",
    [
        "CartPole-v1",
        "Pendulum-v1",
        "Breakout-MinAtar",
        "DeepSea-bsuite",
        "jaxrl/Maze-v0",
        "jaxrl/Arm-hard-v0",
        "brax/fast",
    ],
)
def test_ours_have_no_faults(env_id):
    check_env(make(env_id), num_steps=50)


def test_wrappers_have_no_faults():
    wrapped = {"time_limit": 7, "discretize_actions": 3, "scale_rewards": 0.5, "frame_stack": 2, "reset_pool": 4}
    check_env(make("Pendulum-v1", randomize={"g": (8, 12)}, observe_randomized=True, **wrapped), num_steps=30)


def test_a_state_that_an_episode_ends_with_may_be_anything():
    """The loop draws another one there."""
    step = step_with(time=lambda t: jnp.where(t + 1 >= 5, jnp.nan, t + 1))
    check_env(env(lambda key: (jnp.float32(0), OBS), step), num_steps=12)


def test_what_is_no_key():
    with pytest.raises(JaxrlError, match="check_env: key=3 is not accepted; it must be a random key"):
        check_env(env(), key=3)


def test_what_is_not_an_environment():
    with pytest.raises(JaxrlError, match=r"check_env: env='CartPole-v1' .* as jaxrl.make\('CartPole-v1'\) returns"):
        check_env("CartPole-v1")


def test_numbers_of_python_and_spaces_of_others_will_do():
    """What users write first: no `jnp.float32`, Gymnasium's spaces."""
    spec = Spec("Mine-v0", spaces.Box(-2, 2, (2,), np.float64), spaces.Discrete(3), 5)
    mine = env(
        lambda key: (0, OBS), lambda key, time, action: (time + 1, Outcome(OBS, 1.0, False, time + 1 >= 5)), spec
    )
    check_env(mine, num_steps=12)
    checked = check.checked(mine).spec
    assert (checked.obs_space, checked.action_space) == (SPEC.obs_space, SPEC.action_space)
    _, metrics = jax.jit(lambda key: train(key, jaxrl.dqn(hidden_sizes=(4,)), mine, 20))(jax.random.key(0))
    assert metrics["episode_return"][-1] == 5
    limited = wrappers.time_limit(mine, 2)
    assert train(jax.random.key(0), fake(num_envs=1, rollout_length=4), limited, 4)[1]["episode_return"] == 2


def test_wrappers_take_spaces_of_others():
    spec = Spec("Mine-v0", spaces.Box(-2, 2, (2,), np.float64), spaces.Box(-3, 3, (1,)), 5)
    mine = env(spec=spec)
    assert wrappers.rescale_actions(mine).spec.action_space == box(-1, 1, (1,))
    assert wrappers.frame_stack(mine, 2).spec.obs_space == box(-2, 2, (4,))
    assert wrappers.observe(mine, (1,)).spec.obs_space == box(-2, 2, (1,))
    numbered = env(lambda key: (0, 2), step_with(obs=2), spec._replace(obs_space=spaces.Discrete(3)))
    check_env(wrappers.flatten_observations(numbered), num_steps=2)


def test_spaces_that_cannot_be_converted():
    for space in (spaces.Discrete(3, start=1), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3), 3):
        with pytest.raises(JaxrlError, match=r"Mine-v0: actions of .* are not supported; they must be Discrete or Box"):
            check_env(env(spec=SPEC._replace(action_space=space)))


class Vector:
    def reset(self, seeds):
        self.seeds = seeds
        return np.ones((len(seeds), 2), np.float32)

    def step(self, actions):
        obs, flags = np.ones((len(actions), 2), np.float32), np.zeros(len(actions), bool)
        if not hasattr(self, "stepped"):
            self.stepped = True
            return HostOutcome(obs, np.ones(len(actions), np.float32), flags, flags, obs)
        raise jaxrl.checks.StepError(0, "the wheel came off")

    def close(self):
        self.closed = True


def test_on_the_host():
    made = []
    host = HostEnv(SPEC, lambda num_envs: made.append(Vector()) or made[-1])
    check_env(host, num_steps=100)
    with pytest.raises(JaxrlError, match="Mine-v0: the wheel came off"):
        check_env(host, num_steps=200)
    check_env(host, num_steps=100, key=jax.random.key(1))
    assert all(vector.closed for vector in made)
    assert made[0].seeds == made[1].seeds != made[2].seeds


# ---------------------------------------------------------------- roles

ROLES = (Role("wolf", 2, box(-1, 1, (3,)), Discrete(2)), Role("sheep", 1, box(-1, 1, (1,)), box(-1, 1, (2,))))


def pasture(**fields):
    """Two wolves and a sheep, for 3 steps; the wolves have 1 and 2, the sheep -6."""
    obs = {"wolf": jnp.ones((2, 3)), "sheep": jnp.ones((1, 1))}
    good = {"obs": obs, "reward": {"wolf": jnp.array([1.0, 2.0]), "sheep": jnp.array([-6.0])}, "terminated": False}

    def step(key, time, action):
        assert (action["wolf"].shape, action["sheep"].shape) == ((2,), (1, 2))
        return time + 1, Outcome(**good | {"truncated": time + 1 >= 3} | fields)

    return Env(lambda key: (0, obs), step, Spec("Pasture-v0", max_steps=3, roles=ROLES))


def herd(**fields):
    """An agent for roles that learns nothing, and notes the shapes that it is given."""

    def act(state, memory, obs, key, step, explore=True):
        n = obs["wolf"].shape[0]
        return {"wolf": jnp.zeros((n, 2), jnp.int32), "sheep": jnp.zeros((n, 1, 2))}, memory, {}

    def update(state, trajectory, key, step):
        return state, {"wolf": trajectory.reward["wolf"].mean(), "sheep": trajectory.next_obs["sheep"].mean()}

    return fake(num_envs=2, rollout_length=6)._replace(act=act, update=update, takes_roles=True, **fields)


def test_roles():
    check_env(pasture(), num_steps=7)
    _, metrics = jax.jit(lambda key: train(key, herd(), pasture(), 24))(jax.random.key(0))
    np.testing.assert_array_equal(metrics["episode_return"], [-3, -3])  # 3 steps of (1 + 2 - 6) / 3
    np.testing.assert_array_equal(metrics["episode_count"], [4, 4])
    np.testing.assert_array_equal(metrics["wolf"], [1.5, 1.5])
    returns = evaluate(jax.random.key(0), herd(), herd().init(jax.random.key(0), SPEC), pasture(), 2)
    np.testing.assert_array_equal(returns, [-3, -3])


def test_wrappers_of_roles():
    _, outcome = wrappers.scale_rewards(pasture(), 0.5).step(
        None, 0, {"wolf": jnp.zeros(2), "sheep": jnp.zeros((1, 2))}
    )
    np.testing.assert_array_equal(outcome.reward["wolf"], [0.5, 1])
    with pytest.raises(JaxrlError, match="Pasture-v0: observations of None are not supported; they must be Discrete"):
        wrappers.frame_stack(pasture(), 2)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"obs": {"wolf": jnp.ones((2, 3))}}, "is a dictionary of wolf; it must be a dictionary of wolf, sheep"),
        ({"obs": {"wolf": jnp.ones((2, 3)), "sheep": jnp.ones(1)}}, r"for sheep is float32 of shape \(1,\); its space"),
        ({"reward": jnp.float32(1)}, r"the reward for wolf is None; it must be float32 of shape \(2,\)"),
        (
            {"reward": {"wolf": jnp.ones(2), "sheep": jnp.ones(2)}},
            r"reward for sheep is float32 of shape \(2,\); it must",
        ),
    ],
)
def test_what_roles_do_not_fit(fields, text):
    with pytest.raises(JaxrlError, match=f"Pasture-v0: .*{text}"):
        check_env(pasture(**fields))
    with pytest.raises(JaxrlError, match=f"Pasture-v0: .*{text}"):
        train(jax.random.key(0), herd(), pasture(**fields), 12)


def test_an_agent_for_one_and_roles():
    with pytest.raises(JaxrlError, match=r"Pasture-v0 has roles \(2 wolf, 1 sheep\); it must be an agent for many"):
        init_train(jax.random.key(0), jaxrl.ppo(), pasture())
    with pytest.raises(JaxrlError, match="Mine-v0 is for one agent; it must be an agent for one"):
        init_train(jax.random.key(0), herd(), env())
