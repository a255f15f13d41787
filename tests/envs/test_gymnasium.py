"""Gymnasium's environments as jaxrl sees them: spaces, successors, wrappers, and what is said of those that fail."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("gymnasium")

import gymnasium as gym
from host_worlds import LIMIT  # importing it registers its environments

import jaxrl
from jaxrl import JaxrlError
from jaxrl.checks import StepError
from jaxrl.envs import registry
from jaxrl.envs.adapters import gymnasium as gymnasium_adapter
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


def test_several_that_end_at_once_keep_their_own_last_observations():
    """In the sixth step three of four end: two at the time limit, with 6 and 7, and one at ten."""
    vector = jaxrl.make("gymnasium/Counter-v0").make_vector(4)
    vector.reset([0, 1, 2, 3])
    actions = np.array([[0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0], [1, 0, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1]]).T
    outcome = [vector.step(action) for action in actions][-1]
    assert outcome.next_obs[:, 0].tolist() == [6, 1, 7, 10]
    assert outcome.obs[:, 0].tolist() == [0, 1, 0, 0]
    assert (outcome.truncated.tolist(), outcome.terminated.tolist()) == (
        [True, False, True, False],
        [False] * 3 + [True],
    )
    vector.close()


def test_what_was_returned_is_not_written_over():
    first, outcomes = played("Counter-v0", [0, 0, 0])
    assert first[0, 0] == 0
    assert [outcome.obs[0, 0] for outcome in outcomes] == [1, 2, 3]


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_an_environment_may_write_over_its_own_observations(vectorization):
    first, outcomes = played("Reuser-v0", [0] * 5, 2, vectorization=vectorization, frame_stack=3)
    assert first.tolist() == [[-5, -5, -5]] * 2
    assert [outcome.next_obs[1].tolist() for outcome in outcomes] == [
        [-5, -5, 1], [-5, 1, 2], [1, 2, 3], [2, 3, 4], [-5, -5, 1],
    ]  # fmt: skip
    assert [outcome.obs[0].tolist() for outcome in outcomes[2:]] == [[1, 2, 3], [-5, -5, -5], [-5, -5, 1]]


def test_what_a_wrapper_keeps_is_not_written_over(monkeypatch):
    """Wrappers that belong to an environment may keep what they observed; and what is outermost may write over it."""

    class Keeping(gym.Wrapper):
        def reset(self, **options):
            self.kept, info = self.env.reset(**options)
            shown[:] = self.kept
            return shown, info

        def step(self, action):
            before, (self.kept, *rest) = self.kept, self.env.step(action)
            shown[:] = before
            return shown, *rest

    shown, construct = np.zeros(1, np.float32), gym.make
    monkeypatch.setattr(gym, "make", lambda *args, **kwargs: Keeping(construct(*args, **kwargs)))
    first, outcomes = played("Reuser-v0", [0] * 5)
    assert first.tolist() == [[-5]]
    assert [outcome.next_obs.item() for outcome in outcomes] == [-5, 1, 2, 3, -5]


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


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("exit", "^its process ended with exit code 3$"),
        ("kill", "^its process was ended by SIGKILL; the kernel does that where memory runs out$"),
    ],
)
def test_a_process_that_ends_is_named(how, words):
    vector = jaxrl.make("gymnasium/Fragile-v0", how=how, at=2, vectorization="async").make_vector(2)
    try:
        vector.reset([0, 1])
        for process in vector.vector.processes:  # Ctrl-C reaches them all, and is not theirs to answer
            os.kill(process.pid, signal.SIGINT)
        assert vector.step(np.array([0, 0])).obs[:, 0].tolist() == [1, 1]
        with pytest.raises(StepError) as error:
            vector.step(np.array([0, 0]))
        assert error.value.index in (0, 1)
        assert re.search(words, error.value.text)
    finally:
        vector.close()
    assert not any(process.is_alive() for process in vector.vector.processes)


def test_processes_close_their_environments_but_are_not_waited_for_long(tmp_path):
    """One of three stands still, and all of them together have a second."""
    vector = jaxrl.make("gymnasium/Chooser-v0", closed=str(tmp_path / "of"), vectorization="async").make_vector(3)
    (tmp_path / f"of{os.getpid()}").unlink()  # of the one that was looked at first
    ids = [process.pid for process in vector.vector.processes]
    os.kill(ids[0], signal.SIGSTOP)
    began = time.monotonic()
    vector.close()
    assert {path.name for path in tmp_path.iterdir()} == {f"of{number}" for number in ids[1:]}
    assert time.monotonic() - began < 8 * gymnasium_adapter.GRACE
    assert not any(process.is_alive() for process in vector.vector.processes)


def test_a_script_without_a_main_guard(tmp_path):
    """Its processes import it; they end quietly, and one error says what to do."""
    script = tmp_path / "script.py"
    script.write_text(
        "import jax, jaxrl\n"
        "env, agent = jaxrl.make('gymnasium/FrozenLake-v1', vectorization='async'), jaxrl.q_learning()\n"
        "state = agent.init(jax.random.key(0), env.spec)\n"
        "jaxrl.evaluate(jax.random.key(0), agent, state, env, 1)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(jaxrl.__file__).parent.parent)}
    result = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert re.search(
        r'RunError: gymnasium/FrozenLake-v1: episode 0 of an evaluation: its process ended with exit code 1 before it '
        r'had made its environment; .*`if __name__ == "__main__":`', last,
    )  # fmt: skip
    assert "freeze_support" not in result.stderr


# ---------------------------------------------------------------- wrappers


def test_wrappers_are_applied_in_the_documented_order():
    """However they are given: two frames of flattened observations, of which then nothing is left but the entries."""
    wrappers = {"frame_stack": 2, "observe": (1, 0), "flatten_observations": True, "scale_rewards": 0.5}
    for given in (wrappers, dict(reversed(wrappers.items()))):
        env = gymnasium_adapter.gymnasium_env("Counter-v0", given)
        vector = env.make_vector(1)
        assert vector.reset([0]).tolist() == [[1, 0, 1, 0]]
        assert vector.step(np.array([1])).obs.tolist() == [[1, 0, 1, 2]]
    # The time limit is Gymnasium's own, and a pool of initial states is for what JAX steps.
    assert ["time_limit", *gymnasium_adapter.WRAPPERS, "reset_pool"] == list(registry.WRAPPERS)


def test_atari_s_wrappers_too():
    """Screens are flattened before they are stacked: the newest frame's pixels are the last."""
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    _, outcomes = played("ALE/Pong-v5", [2, 3] * 20, flatten_observations=True)
    before, after = (outcome.obs[0].reshape(4, -1) for outcome in outcomes[-2:])
    assert before.shape == (4, 84 * 84)
    assert np.array_equal(before[1:], after[:-1])
    assert not np.array_equal(before[-1], after[-1])


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


def test_wrappers_of_actions_that_are_whole_numbers():
    """Between -2 and 4 as well; Gymnasium's own rescaling would make infinities of them."""
    whole = {"dtype": np.int64}
    space = jaxrl.make("gymnasium/Chooser-v0", **whole).spec.action_space
    assert (space.dtype, space.high.tolist()) == (np.int32, [4, 4])
    assert jaxrl.make("gymnasium/Chooser-v0", rescale_actions=True, **whole).spec.action_space == box(-1, 1, (2,))
    _, [outcome] = played("Chooser-v0", [np.array([-1.0, 0.2])], rescale_actions=True, **whole)
    assert outcome.obs.tolist() == [[-2, 2]]
    _, outcomes = played("Chooser-v0", list(range(9)), discretize_actions=3, **whole)
    levels = [-2, 1, 4]
    assert [outcome.obs[0].tolist() for outcome in outcomes] == [[a, b] for a in levels for b in levels]
    with pytest.raises(JaxrlError, match=r"discretize_actions=9 is not accepted for gymnasium/Chooser-v0"):
        jaxrl.make("gymnasium/Chooser-v0", discretize_actions=9, **whole)


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [(np.int8, -100, 100), (np.int16, -20_000, 20_000), (np.uint8, 0, 200)]
)
def test_narrow_whole_numbers_are_rescaled_without_overflow(dtype, low, high):
    params = {"low": low, "high": high, "size": 1, "dtype": dtype, "rescale_actions": True}
    _, outcomes = played("Chooser-v0", [np.array([x], np.float32) for x in (-1, 0, 1)], **params)
    assert [outcome.obs[0, 0] for outcome in outcomes] == [low, (low + high) / 2, high]


def test_numpy_s_integers_are_arguments_too():
    env = jaxrl.make("gymnasium/Counter-v0", time_limit=np.int64(9), observe=tuple(np.arange(1)))
    assert (env.spec.max_steps, type(env.spec.max_steps), env.spec.obs_space.shape) == (9, int, (1,))


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
        ("Chooser-v0", {"high": np.inf, "rescale_actions": True}, "a bounded Box, with bounds of at most 1e18"),
        (
            "Chooser-v0",
            {"high": 2**31 - 1, "dtype": np.int32, "rescale_actions": True},
            r"they must be a bounded Box, with bounds of at most 2\*\*24, as it holds whole numbers",
        ),
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


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"value": 10**10}, r"an observation does not fit into int32: \[10000000000 10000000000\], of int64"),
        ({"value": 2**63, "dtype": "uint64"}, "an observation does not fit into int64: .*, of uint64"),
        ({"value": 300, "space": "uint8", "dtype": "uint16"}, "does not fit into uint8: .*300 300.*, of uint16"),
        ({"value": -1, "space": "uint8"}, r"an observation does not fit into uint8: \[-1 -1\], of int64"),
        ({"value": 1e39, "space": "float64", "dtype": "float64"}, r"does not fit into float32: \[1.e\+39 1.e\+39\]"),
        ({"value": 6, "space": "discrete"}, r"an observation is 6; its space says Discrete\(4, start=2\)"),
        ({"value": 3.5, "space": "discrete", "dtype": "float64"}, "an observation is of float64; its space says int64"),
        ({"value": 1e39, "space": "float64", "dtype": "float64", "reward": True}, r"a reward .* into float32: 1e\+39"),
    ],
)
def test_what_does_not_fit_is_refused(params, words):
    vector = jaxrl.make("gymnasium/Lossy-v0", **params).make_vector(2)
    vector.reset([0, 1])
    with pytest.raises(StepError, match=words) as error:
        vector.step(np.ones((2, 1), np.float32))
    assert error.value.index == 0


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"value": 2**31 - 1}, 2**31 - 1),
        ({"value": 255, "space": "uint8", "dtype": "uint16"}, 255),
        ({"value": 255, "space": "uint8"}, 255),
        ({"value": -3e38, "space": "float64", "dtype": "float64"}, np.float32(-3e38)),
        ({"value": 0.1, "space": "float64", "dtype": "float64"}, np.float32(0.1)),
        ({"value": 5, "space": "discrete"}, 3),
    ],
)
def test_what_fits_is_kept(params, expected):
    _, [outcome] = played("Lossy-v0", [np.ones(1)], **params)
    assert np.all(outcome.obs == expected)


def test_an_action_that_does_not_fit_is_refused():
    """It would be infinite in half precision."""
    vector = jaxrl.make("gymnasium/Lossy-v0").make_vector(2)
    vector.reset([0, 1])
    with pytest.raises(StepError, match=r"an action does not fit into float16: \[100000.\], of float32") as error:
        vector.step(np.array([[1.0], [1e5]], np.float32))
    assert error.value.index == 1


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
