"""The studies run, at a small size, and what they find is what the book says; their own helpers, by hand."""

import importlib
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.checks import JaxrlError
from jaxrl.types import Env, Outcome

FOLDER = pathlib.Path(__file__).parent.parent / "experiments"


@pytest.fixture
def load_study(monkeypatch):
    """Imports a study by its name, as Python does that runs it: beside its siblings.

    Its programs take longer to compile than to run, so they are compiled without most optimisations.
    """
    monkeypatch.syspath_prepend(FOLDER)
    jax.config.update("jax_disable_most_optimizations", True)
    yield importlib.import_module
    jax.config.update("jax_disable_most_optimizations", False)


def test_first_and_for_good(load_study):
    known = np.array([[0, 1, 0, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]], bool)
    found = load_study("maze").when_true(known)
    np.testing.assert_array_equal(found["first"], [2, 1, 2, np.inf])
    np.testing.assert_array_equal(found["for_good"], [4, 1, np.inf, np.inf])


def test_corridor(load_study, tmp_path):
    numbers = load_study("corridor").main(seeds=32, episodes=10, out=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert numbers["optimum"] == 5
    assert numbers["median"].shape == (10,)
    assert numbers["median"][0] > 15
    assert np.all(numbers["median"][-3:] == 5)


def test_maze(load_study, tmp_path):
    numbers = load_study("maze").main(seeds=32, episodes=25, out=tmp_path / "a.png", policy_out=tmp_path / "b.png")
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png"}
    assert numbers["Q-learning"]["arrives"][:, -1].mean() > 0.9
    assert 12 <= np.median(numbers["Q-learning"]["first"]) <= 22  # 17 with many seeds
    for found in numbers.values():
        assert np.all(found["first"] <= found["for_good"])
        assert np.all(found["optimal"] <= found["arrives"])
    soonest = {name: found["first"].min() for name, found in numbers.items()}
    assert soonest["Sarsa(0.9), replacing"] < soonest["Q-learning"]


def test_cliff_walking(load_study, tmp_path):
    numbers = load_study("cliff_walking").main(seeds=24, episodes=100, steps=6_000, out=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()
    late = {name: found["returns"][:, -40:].mean() for name, found in numbers.items()}
    assert -57 < late["Q-learning"] < -43  # about -50 in the book
    assert -36 < late["Sarsa"] < -22  # about -25 in the book, and after more episodes
    assert late["Sarsa"] < late["expected Sarsa"]
    assert np.mean(numbers["Q-learning"]["path"] == 13) > 0.8
    assert np.mean(numbers["Sarsa"]["path"] >= 15) > 0.9


def test_maximization_bias(load_study, tmp_path):
    left = load_study("maximization_bias").main(seeds=500, episodes=120, out=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()
    plain, double = (left[name].mean(axis=0) for name in ("Q-learning", "double Q-learning"))
    assert abs(plain[0] - 0.5) < 0.1
    assert abs(double[0] - 0.5) < 0.1
    assert plain[20:30].mean() > 0.85
    assert double[-10:].mean() < 0.15 < plain[-10:].mean()


@pytest.mark.slow
def test_random_walk(load_study, tmp_path):
    walk = load_study("random_walk")
    sizes = {"seeds": 8, "steps": 1_800, "n": (1, 4), "lambdas": (0.0, 0.8), "step_sizes": (0.1, 0.4)}
    numbers = walk.main(**sizes, out=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()
    n_step, online, offline = numbers.values()
    np.testing.assert_allclose(n_step[1], online[0.0], rtol=1e-4)  # TD(0), both of them, on the same walks
    assert np.all(n_step[4][0] > n_step[4][1])  # too small a step size for each walk
    assert 0.22 < n_step[4][1].mean() < 0.31  # 0.26 in the book
    assert 0.22 < online[0.8][1].mean() < 0.32
    assert np.all(offline[0.8][1] > online[0.8][1])


def test_a_random_walk_of_too_few_steps(load_study, monkeypatch):
    few = types.SimpleNamespace(metrics={"episode_count": np.array([[[9.0, 1.0], [9.0, 0.0]]])})
    monkeypatch.setattr("jaxrl.sweep", lambda *_, **__: few)
    with pytest.raises(JaxrlError, match="steps=2000 is not accepted; a seed ended 9 of 10 episodes"):
        load_study("random_walk").main()


def test_overestimation(load_study, tmp_path):
    numbers = load_study("overestimation").main(seeds=3, steps=3_600, log_every=400, out=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()
    natural, double = numbers["natural"], numbers["double"]
    assert natural["max_q"].shape == (3, 9)
    np.testing.assert_allclose(natural["worth"][:, :7], double["worth"][:, :7], rtol=1e-5)  # none has learnt anything
    assert np.all(natural["max_q"][:, 8] != double["max_q"][:, 8])
    assert np.all(natural["worth"] < 0)
    assert np.all(natural["worth"] > -16.3)  # ten times the least reward, over ten


@pytest.mark.slow
def test_rare_reward(load_study, tmp_path):
    lengths = load_study("rare_reward").main(seeds=3, episodes=6, limit=200, out=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()
    for found in lengths.values():
        assert found.shape == (3, 6)
        assert np.all(found == 200)  # too few steps to get anywhere
    assert list(lengths) == ["uniform", "prioritized"]


def test_the_flag_is_rewarded(load_study):
    def step(key, state, action):
        return state, Outcome(state, jnp.float32(-1), state, ~state)

    env = load_study("rare_reward").treasured(Env(None, step, None))
    assert [float(env.step(None, jnp.bool(end), None)[1].reward) for end in (True, False)] == [10, -1]


@pytest.mark.slow
def test_many_actions(load_study, tmp_path):
    numbers = load_study("many_actions").main(
        seeds=3, steps=1_000, log_every=100, torques=(3,), out=tmp_path / "figure.png"
    )
    assert (tmp_path / "figure.png").exists()
    for sums in numbers[3].values():
        assert sums.shape == (3, 10)
        assert np.all(np.diff(sums) < 0)
        assert np.all((sums[:, -1] < -300) & (sums[:, -1] > -1_000))  # about -0.6 a step without learning


@pytest.mark.slow
def test_target_networks(load_study, tmp_path):
    sizes = {"seeds": 3, "steps": 2_000, "eval_episodes": 1, "targets": ("none", "soft")}
    numbers = load_study("target_networks").main(**sizes, out=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()
    for found in numbers.values():
        assert found["loss"].shape == (3, 100)
        assert np.all(found["loss"][:, 0] == 0)
        assert np.all(found["loss"][:, -1] > 0)
    # Without a target network values run away; a slow one lets them grow but slowly.
    assert np.all(numbers["none"]["q_mean"][:, -1] > numbers["soft"]["q_mean"][:, -1])


@pytest.mark.slow
def test_deep_q(load_study, tmp_path):
    sizes = {"seeds": 2, "scale": 0.5, "eval_episodes": 1, "problems": ("jaxrl/Maze-v0",)}
    numbers = load_study("deep_q").main(**sizes, out=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()
    assert numbers["jaxrl/Maze-v0"]["episode_return"].shape == (2, 100)
    np.testing.assert_array_equal(numbers["jaxrl/Maze-v0"]["eval_return"], 1)  # it arrives


@pytest.mark.slow
def test_rainbow_ablation(load_study, tmp_path):
    ablation = load_study("rainbow_ablation")
    sizes = {"seeds": 2, "steps": 1_200, "games": ("Breakout-MinAtar",), "variants": ("DQN",)}
    numbers = ablation.main(**sizes, out=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()
    assert numbers["Breakout-MinAtar"]["DQN"].shape == (2,)
    for variant in ablation.VARIANTS:
        assert ablation.ablated(variant=variant).name == "rainbow"


def test_policy_gradient_estimators(load_study, tmp_path):
    study, names = load_study("policy_gradient_estimators"), ("total return", "reward to go less baseline")
    numbers = study.main(seeds=2, steps=8_000, eval_episodes=1, estimators=names, out=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()
    total, to_go = (numbers[name]["episode_return"] for name in names)
    assert total.shape == (2, 4)
    assert np.all(total[:, 0] == to_go[:, 0])  # neither has learnt anything
    assert np.any(total != to_go)
    assert all(found["eval_return"].shape == (2,) for found in numbers.values())
    assert all(study.agent(weight=name).name == "reinforce" for name in study.ESTIMATORS)


@pytest.mark.slow
def test_linear_baseline(load_study, tmp_path):
    study, sizes = load_study("linear_baseline"), {"seeds": 2, "iterations": 3, "eval_episodes": 1}
    numbers = study.main(**sizes, variants=("vanilla", "linear baseline"), out=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()
    vanilla, linear = numbers["vanilla"], numbers["linear baseline"]
    assert vanilla["episode_return"].shape == (2, 3)
    assert np.all(vanilla["episode_return"][:, 0] == linear["episode_return"][:, 0])  # neither has learnt anything
    np.testing.assert_allclose(vanilla["explained_variance"], 0, atol=1e-5)
    assert np.all(linear["explained_variance"][:, 1:] > 0.3)  # the first iteration has nothing to go by
    for variant in study.VARIANTS:
        agent = study.agent(variant=variant)
        assert (agent.num_envs, agent.rollout_length) == (100, 100)


@pytest.mark.slow
def test_optimizers(load_study, tmp_path):
    numbers = load_study("optimizers").main(
        seeds=4, steps=6_000, num_rates=2, optimizers=("sgd", "adam"), out=tmp_path / "figure.png"
    )
    assert (tmp_path / "figure.png").exists()
    assert list(numbers) == ["sgd", "adam"]
    for found in numbers.values():
        assert found["score"].shape == (2, 4)
        assert found["episode_return"].shape == (2, 3)
        np.testing.assert_allclose(found["score"][found["best"], 2:], found["episode_return"].mean(axis=1), rtol=1e-5)


def test_the_best_rate_is_chosen_by_one_half_and_shown_by_the_other(load_study):
    returns = np.array([[1.0, 1, 9, 9], [2, 2, 5, 6], [8, 8, 8, 8]])[..., None] * np.ones(3)
    diverged = np.full((3, 4), np.inf)
    diverged[2] = 100  # its values are NaN from there on
    returns[2, :, 1:] = np.nan
    results = types.SimpleNamespace(values=lambda metric: returns, first_bad_step=lambda: diverged)
    found = load_study("optimizers").summarize(results, (0.1, 0.2, 0.3))
    assert found["best"] == 1
    np.testing.assert_array_equal(found["score"], [[1, 1, 9, 9], [2, 2, 5, 6], [0, 0, 0, 0]])
    np.testing.assert_array_equal(found["episode_return"], np.array([[5], [6]]) * np.ones(3))


def test_trpo(load_study, tmp_path, capsys):
    trpo = load_study("trpo")
    sizes = {"seeds": 3, "iterations": 4, "batch": 400, "problems": ("jaxrl/Point-v0",)}
    numbers = trpo.main(**sizes, out=tmp_path / "figure.png")["jaxrl/Point-v0"]
    assert (tmp_path / "figure.png").exists()
    printed = capsys.readouterr().out
    assert "TRPO on jaxrl/Point-v0, 3 seeds" in printed
    assert f"{numbers['return_mean'][:, 2].mean():.4g}" in printed
    assert numbers["eval_return"].shape == (3,)
    for name in trpo.METRICS:
        assert numbers[name].shape == (3, 4)
        assert np.all(np.isfinite(numbers[name]))
    assert np.all(numbers["kl_mean"] <= np.float32(0.01))
    assert np.all(numbers["num_trajectories"] >= 4)


def test_cross_entropy(load_study, tmp_path):
    agents = ("decreasing noise", "hill climbing")
    sizes = {"seeds": 3, "scale": 0.1, "eval_episodes": 8, "problems": ("CartPole-v1",), "agents": agents}
    numbers = load_study("cross_entropy").main(**sizes, out=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()
    assert tuple(numbers["CartPole-v1"]) == agents
    for returns in numbers["CartPole-v1"].values():
        assert returns.shape == (3, 2)
        assert returns[:, -1].mean() > 35  # at random about 20


@pytest.mark.slow
def test_arm_workers(load_study, tmp_path):
    sizes = {"seeds": 3, "steps": 6_400, "eval_episodes": 2, "envs": ("jaxrl/Arm-easy-v0",), "workers": (2,)}
    runs = load_study("arm_workers").main(**sizes, out=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()
    assert [key[1:] for key in runs] == [("A3C", 2), ("DPPO", 2)]
    for run, steps in zip(runs.values(), (64, 256), strict=True):  # at least one update an interval
        np.testing.assert_array_equal(run.steps, np.arange(21) * steps)
        assert run.seconds[0] == 0
        assert np.all(np.diff(run.seconds) > 0)
        assert run.returns.shape == (3, 21)
        assert np.all((run.returns > -480) & (run.returns < 300))  # 300 steps, none farther than 1.6 from the target
        assert np.all(run.returns[:, 0] != run.returns[:, -1])


@pytest.mark.slow
def test_pop_art(load_study, tmp_path):
    final = load_study("pop_art").main(seeds=2, steps=4_000, scales=(1.0, 10_000.0), out=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert list(final) == ["plain critic", "Pop-Art"]
    assert final["Pop-Art"][1.0].shape == (2,)
    # Without a scale of its own the critic's error is all that the clipped gradient has room for.
    assert abs(final["plain critic"][1.0] - final["plain critic"][10_000.0]).max() > 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes", "envs", "agents"),
    [
        ("ddpg_targets", {"steps": 1_200}, ["Pendulum-v1"], ["soft, 0.01", "hard, 600 and 500"]),
        ("exploration_noise", {"steps": 1_200}, ["MountainCarContinuous-v0"], ["Ornstein-Uhlenbeck", "Gaussian"]),
        ("continuous_control", {"scale": 0.04, "envs": ("Pendulum-v1",)}, ["Pendulum-v1"], ["DDPG", "TD3", "SAC"]),
        ("continuous_control", {"scale": 0.06, "envs": ("brax/reacher",)}, ["brax/reacher"], ["DDPG", "TD3", "SAC"]),
    ],
)
def test_continuous_actions(name, sizes, envs, agents, load_study, tmp_path, capsys):
    numbers = load_study(name).main(seeds=2, **sizes, out=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()
    assert list(numbers) == envs
    for env in envs:
        assert list(numbers[env]) == agents
        for agent in agents:
            assert numbers[env][agent].shape == (2,)
            assert np.isfinite(numbers[env][agent]).all()
    printed = capsys.readouterr().out
    assert all(agent in printed for agent in agents)


@pytest.mark.slow
def test_off_policy_replay(load_study, tmp_path):
    """At a small size: each replay is learnt from, and hindsight is what differs on the arm."""
    study = load_study("off_policy_replay")
    numbers = study.main(seeds=2, scale=0.06, out=tmp_path / "figure.png")
    assert {env: list(named) for env, named in numbers.items()} == {
        "Pendulum-v1": ["SAC, uniform", "SAC, prioritized"],
        "jaxrl/ArmReach-v0": ["TD3", "TD3 with hindsight"],
    }
    for named in numbers.values():
        one, other = named.values()
        assert one.shape == other.shape == (2,)
        assert (one != other).any()


@pytest.mark.slow
def test_diayn(load_study, tmp_path):
    sizes = {"seeds": 2, "steps": 2_600, "skills": 4, "shown": 1, "episodes": 2}
    numbers = load_study("diayn").main(**sizes, out=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()
    late = numbers["accuracy"][:, -5:].mean(axis=1)
    assert numbers["accuracy"].shape == (2, 20)
    assert np.all(late > numbers["accuracy"][:, 0] + 0.05)
    assert np.all(late > 0.35)  # chance is 0.25
    ways = numbers["ways"]
    assert ways.shape == (1, 4, 2, 26, 2)
    assert np.all(ways[:, :, :, 0] == ways[:, :1, :, 0])  # all skills begin in the same places
    assert np.all(np.abs(np.diff(ways, axis=3)) < 0.1001)
    assert np.all(np.ptp(ways[:, :, :, -1], axis=1) > 0)


def test_host_environments(load_study, tmp_path):
    pytest.importorskip("Box2D")
    study = load_study("host_environments")
    sizes = {"seeds": 1, "scale": 0.01, "eval_episodes": 1, "problems": ("PPO on lander",)}
    numbers = study.main(**sizes, runs=tmp_path, out=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()
    found = numbers["PPO on lander"]
    assert found["eval_return"].shape == found["solved_at"].shape == (1,)
    assert found["steps_per_second"] > 0
    again = study.main(**sizes, runs=tmp_path, out=tmp_path / "again.png")["PPO on lander"]
    assert again["steps_per_second"] == found["steps_per_second"]  # loaded, not measured anew
