"""Gymnasium's environments as jaxrl sees them: spaces, successors, wrappers, and what is said of those that fail."""

import sys

import numpy as np
import pytest

pytest.importorskip("gymnasium")

import gymnasium as gym
from host_worlds import LIMIT  # importing it registers its environments

import jaxrl
from jaxrl import JaxrlError
from jaxrl.checks import StepError
from jaxrl.envs import gymnasium_adapter
from jaxrl.types import Box, Discrete, HostEnv, box


def played(env_id, actions, num_envs=1, **params):
    """What comes of the same actions in some environments: the first observations, and the outcomes."""
    env = jaxrl.make(f"gymnasium/{env_id}", **params)
    vector = env.make_vector(num_envs)
    try:
        first = vector.reset(range(num_envs))
        return first, [vector.step(np.broadcast_to(action, (num_envs, *np.shape(action)))) for action in actions]
    finally:
        vector.close()


# ---------------------------------------------------------------- spaces


def test_spaces_are_32_bits_wide_and_images_stay_bytes():
    spec = jaxrl.make("gymnasium/Counter-v0").spec
    assert spec.id == "gymnasium/Counter-v0"
    assert spec.obs_space == box(0, 12, (2,))
    assert (spec.obs_space.dtype, spec.action_space, spec.max_steps) == (np.float32, Discrete(2), LIMIT)
    assert jaxrl.make("gymnasium/Pictures-v0").spec.obs_space == box(0, 255, (40, 40, 1), np.uint8)
    assert jaxrl.make("gymnasium/Chooser-v0").spec.action_space == box(-2, 4, (2,))
    assert jaxrl.make("gymnasium/Guess-v0").spec.max_steps is None
    first, [outcome] = played("Counter-v0", [1])
    assert (first.dtype, outcome.obs.dtype, outcome.reward.dtype) == (np.float32,) * 3
    assert outcome.terminated.dtype == outcome.truncated.dtype == bool


def test_integers_begin_at_zero_here_and_elsewhere_there():
    assert jaxrl.make("gymnasium/Odd-v0", obs="discrete").spec.obs_space == Discrete(4)
    first, [outcome] = played("Odd-v0", [0], obs="discrete")
    assert (first.tolist(), outcome.next_obs.tolist(), outcome.obs.tolist()) == ([0], [3], [0])
    assert first.dtype == np.int32
    _, outcomes = played("Chooser-v0", [0, 2], size=0, start=5)
    assert [outcome.reward.tolist() for outcome in outcomes] == [[5], [7]]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"obs": "dict"}, r"observations of Dict.* must be Discrete or Box; flatten_observations=True"),
        ({"obs": "box", "actions": "many"}, r"actions of MultiDiscrete.* must be Discrete or Box$"),
        ({"obs": "box", "actions": "bits"}, r"actions of MultiBinary.* must be Discrete or Box$"),
    ],
)
def test_other_spaces_are_refused(params, words):
    with pytest.raises(JaxrlError, match=f"gymnasium/Odd-v0: {words}"):
        jaxrl.make("gymnasium/Odd-v0", **params)


def test_a_dictionary_flattened():
    first, _ = played("Odd-v0", [], flatten_observations=True)
    assert first.tolist() == [[0.5, 1, 0, 0, 1]]


# ---------------------------------------------------------------- steps


def test_successors_are_true_ones_at_both_ends():
    """By two it ends at ten, by one at the time limit; another environment does the other meanwhile."""
    env = jaxrl.make("gymnasium/Counter-v0")
    vector = env.make_vector(2)
    assert vector.reset([0, 1])[:, 0].tolist() == [0, 0]
    outcomes = [vector.step(np.array([1, 0])) for _ in range(7)]
    fields = {name: np.stack([getattr(outcome, name) for outcome in outcomes]) for name in outcomes[0]._fields}
    assert fields["next_obs"][:, :, 0].T.tolist() == [[2, 4, 6, 8, 10, 2, 4], [1, 2, 3, 4, 5, 6, 1]]
    assert fields["obs"][:, :, 0].T.tolist() == [[2, 4, 6, 8, 0, 2, 4], [1, 2, 3, 4, 5, 0, 1]]
    assert fields["terminated"].T.nonzero()[1].tolist() == [4]
    assert fields["truncated"].T.nonzero()[1].tolist() == [5]
    assert np.array_equal(fields["reward"], fields["next_obs"][:, :, 0])
    vector.close()


def test_what_was_returned_is_not_written_over():
    first, outcomes = played("Counter-v0", [0, 0, 0])
    assert first[0, 0] == 0
    assert [outcome.obs[0, 0] for outcome in outcomes] == [1, 2, 3]


def test_termination_wins_where_both_ends_are_reported():
    _, [outcome] = played("Odd-v0", [0], obs="discrete")
    assert (outcome.terminated.tolist(), outcome.truncated.tolist()) == ([True], [False])


def test_seeds_determine_all_episodes():
    env = jaxrl.make("gymnasium/CartPole-v1")
    vector = env.make_vector(3)

    def play(seeds):
        return np.stack([vector.reset(seeds), *(vector.step(np.array([t % 2] * 3)).obs for t in range(80))])

    first, again, other = play([1, 2, 1]), play([1, 2, 1]), play([1, 3, 2])
    assert np.array_equal(first, again)
    assert np.array_equal(first[:, 0], first[:, 2])
    assert np.array_equal(first[:, 1], other[:, 2])
    assert not np.any(first[0, 0] == other[0, 1])
    raw = gym.make("CartPole-v1")
    obs, _ = raw.reset(seed=2)
    assert np.array_equal(obs, first[0, 1])
    for t in range(80):  # a plain loop over the same environment, in which episodes end
        obs, _, terminated, truncated, _ = raw.step(t % 2)
        if terminated or truncated:
            obs, _ = raw.reset()
        assert np.array_equal(obs, first[t + 1, 1])
    assert len(np.unique(first[:, 0, 0])) > 20


def test_processes_do_the_same(tmp_path):
    """Each environment in a process of its own: the same numbers, and the same errors."""
    sync, async_ = (played("Counter-v0", [1, 0, 1, 1, 1, 1, 1], 2, vectorization=how) for how in ("sync", "async"))
    assert np.array_equal(sync[0], async_[0])
    for one, two in zip(sync[1], async_[1], strict=True):
        for name in one._fields:
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
    with pytest.raises(StepError) as error:
        played("Fragile-v0", [0] * 5, 1, vectorization="async")
    assert (error.value.index, error.value.text[:36]) == (0, "step raised ValueError: the wheel ca")


# ---------------------------------------------------------------- wrappers


def test_wrappers():
    first, outcomes = played("Counter-v0", [0] * 3, time_limit=2, scale_rewards=0.5, observe=(0,), frame_stack=3)
    assert first.tolist() == [[0, 0, 0]]
    assert [outcome.next_obs[0].tolist() for outcome in outcomes] == [[0, 0, 1], [0, 1, 2], [0, 0, 1]]
    assert [outcome.obs[0].tolist() for outcome in outcomes] == [[0, 0, 1], [0, 0, 0], [0, 0, 1]]
    assert [outcome.truncated[0] for outcome in outcomes] == [False, True, False]
    assert [outcome.reward[0] for outcome in outcomes] == [0.5, 1, 0.5]
    spec = jaxrl.make("gymnasium/Counter-v0", time_limit=9, frame_stack=2).spec
    assert (spec.max_steps, spec.obs_space) == (9, box(0, 12, (4,)))


def test_wrappers_of_actions():
    """Actions are between -2 and 4 there."""
    assert jaxrl.make("gymnasium/Chooser-v0", rescale_actions=True).spec.action_space == box(-1, 1, (2,))
    _, [outcome] = played("Chooser-v0", [np.array([-1.0, 0.0])], rescale_actions=True)
    np.testing.assert_allclose(outcome.obs, [[-2, 1]], rtol=1e-6)
    _, [outcome] = played("Chooser-v0", [np.array([-3.0, 9.0])], clip_actions=True)
    assert outcome.obs.tolist() == [[-2, 4]]
    assert jaxrl.make("gymnasium/Chooser-v0", discretize_actions=3).spec.action_space == Discrete(9)
    _, outcomes = played("Chooser-v0", list(range(9)), discretize_actions=3)
    levels = [-2, 1, 4]
    assert [outcome.obs[0].tolist() for outcome in outcomes] == [[a, b] for a in levels for b in levels]


def test_screens_are_stacked_as_channels():
    env = jaxrl.make("gymnasium/Pictures-v0", frame_stack=4)
    assert env.spec.obs_space == box(0, 255, (40, 40, 4), np.uint8)
    _, outcomes = played("Pictures-v0", [0] * 5, frame_stack=4)
    assert outcomes[-1].next_obs.dtype == np.uint8
    assert outcomes[-1].next_obs[0, 7, 9].tolist() == [2, 3, 4, 5]
    assert outcomes[-1].obs[0, 7, 9].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("env_id", "params", "words"),
    [
        ("Chooser-v0", {"gravity": 3}, r"cannot be made: .*unexpected keyword argument 'gravity'$"),
        (
            "Counter-v0",
            {"vectorization": "thread"},
            "vectorization='thread' is not accepted; it must be one of sync, as",
        ),
        ("Counter-v0", {"overlap": 3}, "overlap=3 is not accepted"),
        ("Counter-v0", {"clip_rewards": "yes"}, "clip_rewards='yes' is not accepted"),
        ("Counter-v0", {"rescale_actions": 1}, "rescale_actions=1 is not accepted; it must be True or False"),
        ("Counter-v0", {"randomize": {"g": (0, 1)}}, "randomize=.* is not accepted on the host"),
        ("Counter-v0", {"clip_actions": True}, r"clip_actions: .*Discrete\(2\) actions; they must be a bounded Box"),
        ("Chooser-v0", {"discretize_actions": 1}, "discretize_actions=1 is not accepted"),
        ("Chooser-v0", {"discretize_actions": 65}, "65 levels in each of 2 .* at most 4096"),
        ("Chooser-v0", {"high": np.inf, "rescale_actions": True}, "they must be a bounded Box"),
        ("Counter-v0", {"time_limit": 0}, "time_limit=0 is not accepted"),
        ("Counter-v0", {"frame_stack": 0}, "frame_stack=0 is not accepted"),
        ("Odd-v0", {"obs": "discrete", "frame_stack": 2}, "frame_stack: .* must be a Box of rank 1 or 3"),
        ("Counter-v0", {"observe": (2,)}, r"observe=\(2,\) is not accepted; gymnasium/Counter-v0 observes Box"),
        ("Counter-v0", {"observe": (0, 0)}, "observe=.* each of them once"),
        ("Counter-v0", {"scale_rewards": 0}, "scale_rewards=0 is not accepted"),
        ("Countr-v0", {}, "unknown environment 'gymnasium/Countr-v0': did you mean gymnasium/Counter-v0"),
        ("LunarLander-v2", {}, "unknown environment .* did you mean gymnasium/LunarLander-v3"),
        ("Counter", {}, "did you mean gymnasium/Counter-v0"),
        ("", {}, "unknown environment 'gymnasium/'"),
        ("no_such_module:Counter-v0", {}, "No module named 'no_such_module'"),
        ("HalfCheetah-v3", {}, "gymnasium-robotics"),
    ],
)
def test_what_is_not_accepted(env_id, params, words):
    with pytest.raises(JaxrlError, match=words):
        jaxrl.make(f"gymnasium/{env_id}", **params)


def test_a_module_that_registers_its_environments():
    assert jaxrl.make("gymnasium/host_worlds:Counter-v0").spec.id == "gymnasium/host_worlds:Counter-v0"


# ---------------------------------------------------------------- what is not installed


@pytest.mark.parametrize(
    ("module", "env_id"),
    [
        ("gymnasium", "CartPole-v1"),
        ("ale_py", "ALE/Pong-v5"),
        ("Box2D", "LunarLander-v3"),
        ("mujoco", "HalfCheetah-v5"),
    ],
)
def test_what_is_missing_is_said_with_the_way_to_install_it(module, env_id, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.mujoco")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(JaxrlError, match=rf"gymnasium/{env_id}: .*pip install 'jaxrl\[gymnasium\]'"):
        jaxrl.make(f"gymnasium/{env_id}")


def test_ids_are_listed():
    ids = gymnasium_adapter.list_ids()
    assert {"gymnasium/CartPole-v1", "gymnasium/LunarLander-v3", "gymnasium/Counter-v0"} <= set(ids)
    assert not {"gymnasium/CartPole-v0", "gymnasium/GymV21Environment-v0"} & set(ids)
    assert jaxrl.envs.list_ids()["gymnasium"] == ids


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("raise", r"step raised ValueError: the wheel came off \(.*host_worlds.py:\d+\)"),
        ("reset", r"reset raised OSError: no more levels \(.*host_worlds.py:\d+\)"),
        ("nan", r"an observation is not finite: \[nan nan nan\]"),
        ("reward", "a reward is not finite: inf"),
        ("shape", r"an observation has shape \(2,\); its space says \(3,\)"),
        ("dtype", "an observation is of complex64; its space says float32"),
        ("truncate", "an episode was cut off after 4 steps, though the time limit is 50; .*truncates_itself=True"),
    ],
)
def test_a_failure_names_the_environment_and_what_it_did(how, words):
    env = jaxrl.make("gymnasium/Fragile-v0", how=how, at=4 if how == "truncate" else 5)
    vector = env.make_vector(2)
    vector.reset([0, 1])
    vector.vector.envs[0].unwrapped.at = 1000
    for _ in range(4 if how != "truncate" else 3):
        vector.step(np.array([0, 0]))
    with pytest.raises(StepError) as error:
        vector.step(np.array([0, 0]))
    assert error.value.index == 1
    assert error.match(words)


def test_an_environment_may_cut_off_its_episodes_if_that_is_known():
    params = {"how": "truncate", "at": 4, "truncates_itself": True}
    assert jaxrl.make("gymnasium/Fragile-v0", **params).spec.truncation_gap == 1
    _, outcomes = played("Fragile-v0", [0] * 4, **params)
    assert [outcome.truncated[0] for outcome in outcomes] == [False, False, False, True]


# ---------------------------------------------------------------- others' environments


def test_lunar_lander():
    pytest.importorskip("Box2D")
    for continuous in (False, True):
        env = jaxrl.make("gymnasium/LunarLander-v3", continuous=continuous)
        assert isinstance(env, HostEnv)
        assert isinstance(env.spec.action_space, Box if continuous else Discrete)
        assert (env.spec.obs_space.shape, env.spec.max_steps) == ((8,), 1000)


def test_half_cheetah():
    pytest.importorskip("mujoco")
    pytest.importorskip("imageio")  # of Gymnasium's renderer
    env = jaxrl.make("gymnasium/HalfCheetah-v5")
    assert (env.spec.obs_space.shape, env.spec.obs_space.dtype, env.spec.max_steps) == ((17,), np.float32, 1000)
    assert env.spec.action_space == box(-1, 1, (6,))


def test_pong():
    """Its screens in grey, four of them as channels; a point is the reward, and the game is over at 21."""
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    env = jaxrl.make("gymnasium/ALE/Pong-v5", clip_rewards=True)
    assert env.spec.obs_space == box(0, 255, (84, 84, 4), np.uint8)
    assert (env.spec.action_space, env.spec.max_steps, env.clip_rewards) == (Discrete(6), 27_000, True)
    first, outcomes = played("ALE/Pong-v5", [0] * 80)
    assert np.array_equal(first[..., 0], first[..., 3])
    assert sum(outcome.reward[0] for outcome in outcomes) <= -1
    stack = outcomes[40].obs
    assert np.array_equal(stack[..., :3], outcomes[39].obs[..., 1:])
    assert not np.array_equal(stack[..., 3], stack[..., 2])
    assert jaxrl.make("gymnasium/ALE/Pong-v5", frame_stack=1, time_limit=50).spec.obs_space.shape == (84, 84, 1)
    _, outcomes = played("ALE/Pong-v5", [0] * 50, time_limit=50)
    assert [outcome.truncated[0] for outcome in outcomes].index(True) == 49
    with pytest.raises(JaxrlError, match="frameskip=4 is not accepted"):
        jaxrl.make("gymnasium/ALE/Pong-v5", frameskip=4)
    with pytest.raises(JaxrlError, match="frame_skip=0 is not accepted"):
        jaxrl.make("gymnasium/ALE/Pong-v5", frame_skip=0)
