"""Training in environments on the host: what an agent sees there, and that all else is as in the compiled loop."""

import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("gymnasium")

import host_worlds
from host_worlds import LIMIT
from rich.console import Console

import jaxrl
from jaxrl import JaxrlError, a2c, cli, dqn, n_step_sarsa, ppo, q_learning, td
from jaxrl.agents import AGENTS
from jaxrl.checks import RunError
from jaxrl.envs import registry
from jaxrl.networks import CNN, MLP, NatureCNN, make_torso, orthogonal
from jaxrl.replay.ring import window
from jaxrl.runs import host, report
from jaxrl.runs.job import Job, prepare
from jaxrl.runs.program import plan
from jaxrl.runs.run import Listener, execute
from jaxrl.runs.trained import trained
from jaxrl.types import Agent, Discrete, Spec, Transition, box


class RecorderState(NamedTuple):
    version: jax.Array
    last: Transition
    cut: jax.Array  # the steps at which episodes were interrupted, added up


def recorder(
    *,
    rate: float = 1.0,
    num_envs: int = 2,
    rollout_length: int = 4,
    episodic: bool = False,
    bad: float = -1.0,
    tolerant: bool = False,
) -> Agent:
    """An agent that keeps its last trajectory, and reports with each action how often it was updated before.

    Its memory counts an episode's steps, its actions are 0 and 1 in turn, and those of a seed whose number is less than
    `bad` are no numbers.
    """

    def act(state, memory, obs, key, step, explore=True):
        extras = {"version": jnp.full(len(obs), state.version), "memory": memory, "step": jnp.full(len(obs), step)}
        extras["drawn"] = jax.random.uniform(key, (len(obs),))
        action = (memory % 2).astype(jnp.int32)
        return action, memory + 1, extras

    def init(key, spec):
        def zeros(space, dtype=None):
            return jnp.zeros((rollout_length, num_envs, *space.shape), dtype or space.dtype)

        number = jnp.zeros((rollout_length, num_envs))
        count, flag = number.astype(jnp.int32), number.astype(bool)
        extras = {"version": count, "memory": number, "step": count, "drawn": number}
        extras |= {"episode_return": number, "episode_length": count}
        obs, action = zeros(spec.obs_space), zeros(spec.action_space)
        return RecorderState(jnp.int32(0), Transition(obs, action, number, flag, flag, obs, extras), jnp.int32(0))

    def update(state, trajectory, key, step):
        metrics = {"rate": jnp.float32(rate), "drawn": jax.random.uniform(key), "seen": jnp.float32(step)}
        return RecorderState(state.version + 1, trajectory, state.cut), metrics

    def init_memory(num_envs):
        return jnp.zeros(num_envs)

    def interrupt(state, step):
        return state._replace(cut=state.cut + step)

    return Agent(init, act, update, num_envs, rollout_length, init_memory, "recorder", episodic, tolerant, interrupt)


def compiled(env_id="gymnasium/Counter-v0", seeds=2, constructor=recorder, episodes=3, env_params=None, **hypers):
    env = jaxrl.make(env_id, **(env_params or {}))
    [group] = plan(constructor, hypers).groups
    return host.compile_host_group(
        constructor, group, env, run_key=jax.random.key(3), num_seeds=seeds, num_eval_episodes=episodes
    )


@pytest.fixture(scope="module")
def programs():
    """One program for each way to run: environments stepped beside the update, or one after the other."""
    made = {overlap: compiled(env_params={"overlap": overlap}) for overlap in (True, False)}
    yield made
    for program in made.values():
        program.close()


def trajectories(program, updates):
    """The trajectories of so many updates of a fresh state, one after the other in time: leaves `[R, T, N, ...]`."""
    state, seen = program.init(), []
    for _ in range(updates):
        state, _ = program.train(state, 1)
        seen.append(jax.tree.map(np.asarray, state.agent.last))
    program.close()
    return jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *seen)


# ---------------------------------------------------------------- what an agent sees


@pytest.mark.parametrize("overlap", [True, False])
def test_a_trajectory_is_what_a_plain_loop_sees(programs, overlap):
    seen = trajectories(programs[overlap], 6)
    assert seen.reward.shape == (2, 24, 2)
    for row in range(2):
        for place in range(2):
            world, count = host_worlds.Counter(), 0
            obs, total = world.reset()[0], 0.0
            for t in range(24):
                action = count % 2
                next_obs, reward, terminated, _, _ = world.step(action)
                count, total = count + 1, total + reward
                expected = {
                    "obs": obs, "action": action, "reward": reward, "terminated": terminated, "next_obs": next_obs,
                    "truncated": count == LIMIT and not terminated,
                }  # fmt: skip
                for name, value in expected.items():
                    assert np.array_equal(getattr(seen, name)[row, t, place], value), (name, row, t, place)
                extras = {"episode_return": total, "episode_length": count, "memory": count - 1, "step": 2 * t}
                for name, value in extras.items():
                    assert seen.extras[name][row, t, place] == value, (name, row, t, place)
                obs = next_obs
                if terminated or count == LIMIT:
                    obs, count, total = world.reset()[0], 0, 0.0
    assert seen.truncated.any()
    assert not seen.terminated.any()  # 1, 3, 4, 6, 7, 9


def test_the_first_action_after_an_update_comes_from_the_parameters_before_it(programs):
    versions = {overlap: trajectories(programs[overlap], 3).extras["version"] for overlap in (True, False)}
    assert versions[True][0, :, 0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert versions[False][1, :, 1].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]


def test_who_tolerates_it_says_so():
    """Every agent has to decide; an option of an agent may take it away."""
    tolerant = {
        "acer", "ddpg", "diayn", "discrete_sac", "double_q_learning", "dqn", "droq", "expected_sarsa", "n_step_td",
        "naf", "nfq", "q_learning", "qr_dqn", "r2d2", "rainbow", "redq", "sac", "sac_v1", "td", "td3",
    }  # fmt: skip
    not_tolerant = {
        "a2c", "a3c", "cem", "dppo", "hill_climbing", "monte_carlo", "n_step_sarsa", "npg", "one_step_actor_critic",
        "ppo", "pqn", "reinforce", "sarsa", "sarsa_lambda", "trpo",
    }  # fmt: skip
    assert AGENTS.keys() == tolerant | not_tolerant
    for name, constructor in AGENTS.items():
        assert constructor().tolerates_stale_actions == (name in tolerant), name


@pytest.mark.parametrize("tolerant", [True, False])
def test_unless_it_is_asked_for_the_agent_decides(tolerant):
    versions = trajectories(compiled(tolerant=tolerant, seeds=1), 2).extras["version"]
    assert versions[0, :, 0].tolist() == ([0, 0, 0, 0, 0, 1, 1, 1] if tolerant else [0, 0, 0, 0, 1, 1, 1, 1])


def test_an_on_policy_agent_learns_from_its_own_actions():
    """With hardly any learning rate the policy that learns is the one that acted, whatever the statistics do."""
    small = {"num_envs": 2, "rollout_length": 8, "num_minibatches": 1, "num_epochs": 1, "hidden_sizes": (8,)}
    program = compiled(seeds=1, constructor=ppo, learning_rate=1e-12, normalize_observations=True, **small)
    _, metrics = program.train(program.init(), 6)
    program.close()
    assert abs(metrics["approx_kl"][0]) < 1e-9


def test_sarsa_finds_its_way():
    """It plays in each state the action that it has drawn there, and not the one that it had drawn before."""
    results = jaxrl.sweep(
        n_step_sarsa, "gymnasium/FrozenLake-v1", num_steps=3_000, seeds=2, eval_episodes=1, eval_every=3_000,
        env_params={"is_slippery": False}, learning_rate=0.5, epsilon_decay_steps=2_000,
    )  # fmt: skip
    assert results.summary["final_return"]["per_seed"] == [1, 1]


@pytest.mark.parametrize("overlap", [True, False])
def test_what_overlaps_is_one_update_late_and_nothing_else_changes(overlap):
    """Against a plain loop, in which the first action after an update is chosen with the state before it."""
    greedy = {"epsilon_start": 0.1, "epsilon_final": 0.1, "learning_rate": 0.2, "gamma": 0.5, "initial_value": 50.0}
    program = compiled(seeds=1, constructor=q_learning, env_params={"discrete": True, "overlap": overlap}, **greedy)
    state = jax.tree.map(lambda x: x[0] if x.ndim and x.shape[0] == 1 else x, program.init())
    found, _ = program.train(program.init(), 100)
    program.close()
    agent, world, moments = q_learning(**greedy), host_worlds.Counter(discrete=True), 0
    act, update = jax.jit(agent.act), jax.jit(agent.update)
    now = before = state.agent
    obs, late = world.reset()[0], 0
    for step in range(100):
        update_key, act_key, _ = jax.random.split(jax.random.fold_in(state.key, step), 3)
        action, _, _ = act(before if overlap else now, (), jnp.array([obs]), act_key, step)
        late += int(np.argmax(before.q[obs]) != np.argmax(now.q[obs]))
        next_obs, reward, terminated, _, _ = world.step(action[0])
        moments += 1
        truncated = moments == LIMIT and not terminated
        one = Transition([obs], action, [reward], [terminated], [truncated], [next_obs], {})
        one = jax.tree.map(lambda x: jnp.asarray(x).reshape(1, 1), one, is_leaf=lambda x: isinstance(x, list))
        before, (now, _) = now, update(now, one, update_key, step)
        obs = next_obs
        if terminated or truncated:
            obs, moments = world.reset()[0], 0
    np.testing.assert_allclose(found.agent.q[0], now.q, rtol=1e-5, atol=1e-6)
    assert late > 2  # actions would have been others


def test_no_key_is_used_twice(programs):
    drawn = {overlap: trajectories(programs[overlap], 4).extras["drawn"] for overlap in (True, False)}
    assert np.array_equal(drawn[True], drawn[False])
    assert len(np.unique(drawn[True])) == drawn[True].size == 64


def test_intervals_are_cut_anywhere(programs):
    """Three updates at once are the same as one after the other, and their metrics are the means."""
    program = programs[True]
    whole, metrics = program.train(program.init(), 3)
    whole = jax.tree.map(np.asarray, whole._replace(key=()))
    assert metrics["seen"].tolist() == [8, 8]
    assert metrics["episode_count"].tolist() == [4, 4]  # 24 steps, in two environments, of episodes of 6
    assert metrics["episode_length_max"].tolist() == [6, 6]
    program.close()
    state = program.init()
    for _ in range(3):
        state, _ = program.train(state, 1)
    program.close()
    jax.tree.map(np.testing.assert_array_equal, whole, jax.tree.map(np.asarray, state._replace(key=())))


def test_episodic_agents_begin_every_trajectory_with_new_episodes():
    program = compiled(episodic=True, seeds=1)
    seen = trajectories(program, 3)
    assert seen.obs[0, :, :, 0].T.tolist() == [[0, 1, 3, 4] * 3] * 2
    assert seen.extras["memory"][0, :, 0].tolist() == [0, 1, 2, 3] * 3
    assert seen.extras["episode_length"][0, :, 1].tolist() == [1, 2, 3, 4] * 3
    assert seen.extras["version"][0, :, 0].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    state, _ = program.train(program.init(), 2)
    program.close()
    state, _ = program.train(state, 1)
    assert state.agent.cut.tolist() == [0]  # there is nothing to interrupt
    program.close()


def test_rewards_clipped_to_their_signs_and_returns_that_are_not():
    program = compiled(env_params={"clip_rewards": True}, seeds=1)
    state, _ = program.train(program.init(), 1)
    assert state.agent.last.reward[0, :, 0].tolist() == [1, 1, 1, 1]
    assert state.agent.last.extras["episode_return"][0, :, 0].tolist() == [1, 4, 8, 14]
    assert program.evaluate(state).tolist() == [[30] * 3]
    program.close()


def test_returns_are_summed_beyond_what_a_float32_can_add():
    program = compiled("gymnasium/Heavy-v0", seeds=1)
    state, metrics = program.train(program.init(), 2)
    assert metrics["episode_return"].tolist() == metrics["episode_return_max"].tolist() == [2**24 + 4]
    assert program.evaluate(state).tolist() == [[2**24 + 4] * 3]
    program.close()


def test_seeds_are_apart_and_evaluations_others_at_another_step_and_draw():
    """The observation of `Guess` is drawn; the first action of an episode is 0, which is wrong half of the time."""
    program = compiled("gymnasium/Guess-v0", seeds=3, episodes=40)
    state = program.init()
    first, again, other = (program.evaluate(state, draw) for draw in (0, 0, 1))
    assert first.shape == (3, 40)
    assert np.array_equal(first, again)
    assert set(first.ravel()) == {-1.0, 1.0}
    state, _ = program.train(state, 1)
    obs = np.asarray(state.agent.last.obs)
    later = program.evaluate(state)
    for different in (other, later, first[::-1]):
        assert not np.array_equal(first, different)
    program.close()
    state, _ = program.train(program.init(), 1)
    assert np.array_equal(obs, state.agent.last.obs)  # a program begins as it began before
    assert len(np.unique(obs.reshape(3, -1), axis=0)) == 3
    program.close()


def test_evaluate_from_python():
    env, agent = jaxrl.make("gymnasium/Counter-v0"), recorder()
    state = agent.init(jax.random.key(0), env.spec)
    assert jaxrl.evaluate(jax.random.key(1), agent, state, env, 3).tolist() == [30, 30, 30]  # 1 + 3 + 4 + 6 + 7 + 9
    assert jaxrl.evaluate(jax.random.key(1), agent, state, env, 1, max_steps=2).tolist() == [4]
    failing = jaxrl.make("gymnasium/Fragile-v0", at=3)
    state = agent.init(jax.random.key(0), failing.spec)
    with pytest.raises(RunError, match=r"gymnasium/Fragile-v0: episode 0 of an evaluation: step raised ValueError"):
        jaxrl.evaluate(jax.random.key(1), agent, state, failing, 2)


# ---------------------------------------------------------------- as in the compiled loop

SMALL = {  # constructor, arguments, the environment's on the host, and a metric that depends on the rate
    "ppo": (ppo, {"num_envs": 2, "rollout_length": 8, "num_minibatches": 1, "hidden_sizes": (8,)}, {}, "entropy"),
    "dqn": (
        dqn,
        {"replay_size": 64, "batch_size": 8, "warmup_steps": 32, "hidden_sizes": (8,), "num_envs": 2},
        {"overlap": False},
        "loss",
    ),
    "a2c": (a2c, {"num_envs": 2, "rollout_length": 1, "hidden_sizes": (8,)}, {}, "entropy"),
    "n_step_sarsa": (n_step_sarsa, {}, {"discrete": True}, "td_error"),
    "td": (td, {}, {}, "td_error"),  # its actions overlap with updates, and no update changes its policy
}


@pytest.mark.parametrize("name", SMALL)
def test_the_same_numbers_as_in_the_compiled_loop(name, monkeypatch):
    """The same environment in both worlds, a sweep of rates, and one update after the other: the same keys."""
    monkeypatch.setitem(registry.OWN, "jaxrl/Counter-v0", host_worlds.counter)
    constructor, small, env_params, telling = SMALL[name]
    options = {"num_steps": 320, "seeds": 2, "log_every": 64, "eval_every": 160, "eval_episodes": 2}
    options |= small | {"learning_rate": [1e-3, 1e-2]}
    there = {key: value for key, value in env_params.items() if key != "overlap"}
    on_device = jaxrl.sweep(constructor, "jaxrl/Counter-v0", **options, env_params=there)
    on_host = jaxrl.sweep(constructor, "gymnasium/Counter-v0", **options, env_params=env_params)
    assert on_host.metrics.keys() == on_device.metrics.keys()
    assert on_host.configs == on_device.configs
    assert on_host.summary.keys() == on_device.summary.keys()
    for metric, values in on_device.metrics.items():
        np.testing.assert_allclose(on_host.metrics[metric], values, rtol=1e-3, atol=1e-5, err_msg=metric)
    assert np.unique(on_host.metrics[telling][:, :, -1]).size == 4


def test_rows_over_devices_are_padded(monkeypatch):
    """On an accelerator rows lie on all devices; here the two of a CPU stand in for it."""
    alone = compiled(seeds=3)
    with monkeypatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "gpu")
        over_two = compiled(seeds=3)
    assert (alone.mesh.size, over_two.mesh.size) == (1, 2)
    (one, first), (two, second) = (program.train(program.init(), 2) for program in (alone, over_two))
    assert two.agent.last.reward.shape == (4, 4, 2)
    assert np.array_equal(two.agent.last.obs[3], two.agent.last.obs[0])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:3]), one.agent, two.agent)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:3]), first, second)
    assert over_two.evaluate(two).tolist() == alone.evaluate(one).tolist() == [[30] * 3] * 3
    for program in (alone, over_two):
        program.close()


# ---------------------------------------------------------------- where episodes are interrupted


def test_a_run_that_goes_on_says_so_to_the_agent(programs):
    """Once, with the steps so far; its first action is an episode's first."""
    program = programs[True]
    state, _ = program.train(program.init(), 2)
    assert state.agent.cut.tolist() == [0, 0]
    program.close()
    state, _ = program.train(state, 1)
    assert state.agent.cut.tolist() == [16, 16]
    last = state.agent.last
    assert (last.obs[0, 0, :, 0].tolist(), last.extras["memory"][0, 0].tolist()) == ([0, 0], [0, 0])
    state, _ = program.train(state, 1)
    assert state.agent.cut.tolist() == [16, 16]
    program.close()


def test_a_replay_holds_no_step_that_leads_into_another_run():
    """What follows in the replay is what the world does; interruptions lie within one block, and beside an end."""
    program = compiled(seeds=1, constructor=dqn, **SMALL["dqn"][1])
    state = program.init()
    for updates in (4, 1, 2, 5, 6, 3, 8):
        state, _ = program.train(state, updates)
        program.close()
    replay, seen = jax.tree.map(lambda x: x[0], state.agent.replay), int(state.step)
    steps, valid = jax.jit(lambda ring: window(ring, None, jnp.arange(seen), seen, 4))(replay)
    steps, valid = jax.tree.map(np.asarray, (steps, valid))
    count, following = steps.obs[..., 0], steps.next_obs[..., 0]
    good = valid & ~steps.terminated  # what follows a terminal step is never asked for
    assert np.array_equal((count + 1 + steps.action)[good], following[good])
    assert np.array_equal(count[:, 1:][valid[:, 1:]], following[:, :-1][valid[:, 1:]])
    assert 6 < np.sum(~valid[:, 0]) <= 12
    assert np.sum(steps.truncated[:, 0] & valid[:, 0]) >= 2


def test_every_agent_ends_what_it_keeps_of_an_episode():
    """A replay's newest steps are void then. Tables' traces and windows, `tests/agents/test_tabular.py` looks at."""
    vector, discrete, torques = box(-1, 1, (3,)), Discrete(2), box(-1, 1, (2,))
    actions = {
        "acer": discrete, "ddpg": torques, "diayn": torques, "discrete_sac": discrete, "dqn": discrete, "droq": torques,
        "naf": torques, "nfq": discrete, "qr_dqn": discrete, "r2d2": discrete, "rainbow": discrete, "redq": torques,
        "sac": torques, "sac_v1": torques, "td3": torques,
    }  # fmt: skip
    for name in AGENTS.keys() - actions - {"monte_carlo", "n_step_sarsa", "n_step_td", "sarsa_lambda", "td"}:
        assert AGENTS[name]().interrupt(name, 10) is name  # as it was
    agents = {name: AGENTS[name]() for name in actions}

    def interrupted():
        for name, agent in agents.items():
            spec = Spec("Env-v0", vector, actions[name], 50)
            shapes = jax.eval_shape(lambda agent=agent, spec=spec: agent.init(jax.random.key(0), spec))
            state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
            cut = agent.interrupt(state, jnp.int32(agent.num_envs * agent.rollout_length)).replay
            rest = getattr(cut, "ring", cut).rest
            yield name, rest.terminated & rest.truncated

    for name, void in jax.jit(lambda: dict(interrupted()))().items():
        first = agents[name].num_envs * (agents[name].rollout_length - 1)
        assert np.flatnonzero(void).tolist() == list(range(first, first + agents[name].num_envs)), name


# ---------------------------------------------------------------- what goes wrong


def fragile(tmp_path, **changes) -> Job:
    """A job whose environments fail in the 14th of their steps as long as a file is there: in the third interval."""
    trap = tmp_path / "trap"
    trap.touch()
    params = {"file": str(trap), "at": 14}
    return Job("recorder", "gymnasium/Fragile-v0", 80, 2, {}, params, **{"log_every": 16, "eval_every": 32} | changes)


def test_a_failure_ends_the_run_with_a_checkpoint_from_which_it_goes_on(tmp_path):
    """Updates begin at 0, 8, 16, ...; the 14th step is in the one that begins at 24, in the middle of an interval."""
    ready = prepare(fragile(tmp_path, checkpoint_every=1000), recorder)
    message = r"^gymnasium/Fragile-v0: environment 0 of seed 0, in the update that began at step 24: step raised Value"
    with pytest.raises(RunError, match=message):
        execute(ready, tmp_path / "run")
    _, state = trained(ready, tmp_path / "run", 0, 1)
    assert (state.step, state.agent.version) == (24, 3)
    with pytest.raises(RunError, match="in the update that began at step 48"):  # new environments: their 14th step
        execute(ready, tmp_path / "run")
    (tmp_path / "trap").unlink()
    heard = []
    listener = Listener(lambda ready, index, program, done: heard.append(done), lambda *event: heard.append(event[2]))
    results = execute(ready, tmp_path / "run", [listener])
    assert heard == [3, 3, 4]
    seen = results.metrics["seen"][0].tolist()
    assert seen == [4, 24, 36, 52, 68]  # means of 0 and 8; of what was left after the failure; of 32 and 40; ...
    assert np.flatnonzero(np.isfinite(results.metrics["eval_return"][0])).tolist() == [1, 3, 4]
    assert len(np.unique(results.metrics["drawn"])) == 10


@pytest.mark.parametrize("unsaved", [False, True])
def test_a_failure_in_the_first_interval(tmp_path, unsaved):
    """Who watches is told of no returns yet; where no checkpoint can be written, both errors are told."""
    job, out = fragile(tmp_path, log_every=80), tmp_path / "run"
    ready = prepare(job, recorder)

    def take_the_folder(*_):
        shutil.rmtree(out / "checkpoints")
        (out / "checkpoints").touch()

    errors = io.StringIO()
    message = "the update that began at step 24: step raised ValueError: the wheel came off"
    with (
        report.progress(Console(file=errors)) as bar,
        report.tensorboard(tmp_path / "tensorboard", ready) as files,
        pytest.raises(RunError, match=f"{message}.*; and .*group_0: the checkpoint cannot be" if unsaved else message),
    ):
        execute(ready, out, [bar, files, Listener(compiled=take_the_folder if unsaved else lambda *_: None)])
    if not unsaved:
        (tmp_path / "trap").unlink()
        with report.progress(Console(file=errors)) as bar, report.tensorboard(tmp_path / "tensorboard", ready) as files:
            results = execute(ready, out, [bar, files])
        assert results.metrics["seen"].ravel().tolist() == pytest.approx([48, 48])  # the mean of 24, 32, ..., 72


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_a_process_that_ends_leaves_a_checkpoint(tmp_path, how):
    """One of four: which environment it was, of which seed, and when; and the run goes on from there."""
    job = fragile(tmp_path, checkpoint_every=1000)
    job.env_params.update(how=how, vectorization="async")
    ready = prepare(job, recorder)
    words = {"exit": "ended with exit code 3", "kill": "was ended by SIGKILL"}[how]
    with pytest.raises(RunError, match=rf"environment \d of seed \d, in the update that .* 24: its process {words}"):
        execute(ready, tmp_path / "run")
    (tmp_path / "trap").unlink()
    assert execute(ready, tmp_path / "run").metrics["seen"][0].tolist() == [4, 24, 36, 52, 68]


def test_ctrl_c_in_all_processes_ends_in_a_checkpoint(tmp_path):
    """As a terminal sends it: the environments' processes leave the answer to the run."""
    out = tmp_path / "run"
    words = [
        *("train", "q_learning", "--env", "gymnasium/FrozenLake-v1", "--num-steps", "50000000", "--seeds", "1"),
        *("--env-params", "vectorization=async", "--log-every", "500", "--checkpoint-every", "500", "--out", str(out)),
    ]
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(jaxrl.__file__).parent.parent)}
    run = subprocess.Popen(
        [sys.executable, "-m", "jaxrl", *words], env=environment, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not list(out.glob("checkpoints/group_0/[0-9]*")) and time.monotonic() < deadline:
            assert run.poll() is None, run.stdout.read()
            time.sleep(0.1)
        os.killpg(run.pid, signal.SIGINT)
        said, _ = run.communicate(timeout=120)
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == 130, said
    assert f"jaxrl resume {out}" in " ".join(said.split())
    assert "Traceback" not in said


def test_the_same_call_goes_on_after_a_failure(tmp_path):
    job = fragile(tmp_path)

    def call():
        return jaxrl.sweep(
            recorder, job.env, num_steps=80, seeds=2, log_every=16, eval_every=32, env_params=job.env_params,
            out=tmp_path / "run",
        )  # fmt: skip

    with pytest.raises(RunError, match=r"that began at step 24: .*; the same call resumes from the newest checkpoint"):
        call()
    (tmp_path / "trap").unlink()
    assert call().metrics["seen"][0].tolist() == [4, 20, 36, 52, 68]  # from the checkpoint at 16


def test_a_failure_in_an_evaluation(tmp_path):
    """The interval is trained already, and only its evaluation is done again."""
    job = fragile(tmp_path, eval_episodes=1)
    job.env_params["at"] = 5 * 10_000
    ready = prepare(job, recorder)
    trap = pathlib.Path(job.env_params["file"])
    job.env_params["at"] = 3
    trap.unlink()
    played = []

    def listen(ready, index, interval, steps, metrics):
        played.append((interval, float(metrics["seen"][0, 0])))
        if interval == 0:
            trap.touch()

    ready = prepare(job, recorder)
    message = r"episode 0 of the evaluation of seed 0 at step 32: step raised ValueError"
    with pytest.raises(RunError, match=message):
        execute(ready, tmp_path / "run", [Listener(interval=listen)])
    trap.unlink()
    results = execute(ready, tmp_path / "run", [Listener(interval=listen)])
    assert results.metrics["seen"][0].tolist() == [4, 20, 36, 52, 68]
    assert np.flatnonzero(np.isfinite(results.metrics["eval_return"][0])).tolist() == [1, 3, 4]


def test_without_a_folder_a_failure_is_an_error_and_no_more(monkeypatch):
    """Of the ninth environment that is made: the first is made to look at its spaces, and each row has two."""
    made, construct = [], host_worlds.Fragile.__init__

    def only_the_ninth(self, **params):
        made.append(self)
        construct(self, **params | {"at": 2 if len(made) == 9 else 10**9})

    monkeypatch.setattr(host_worlds.Fragile, "__init__", only_the_ninth)
    with pytest.raises(
        RunError, match=r"environment 1 of seed 1 of configuration 1, in the update that began at step 0"
    ):
        jaxrl.sweep(recorder, "gymnasium/Fragile-v0", num_steps=16, seeds=2, rate=[0.5, 1.0])


def test_a_seed_that_diverges_does_not_end_the_others_run():
    """An action that is no number would be an error of the environment: it gets another, and the seed is marked."""
    small = {"num_envs": 2, "rollout_length": 8, "num_epochs": 1, "num_minibatches": 1, "hidden_sizes": (4,)}
    results = jaxrl.sweep(
        ppo, "gymnasium/Chooser-v0", num_steps=64, seeds=1, eval_episodes=1, learning_rate=[1e-3, 3e38],
        env_params={"time_limit": 4, "low": 1.0}, **small,
    )  # fmt: skip
    assert [record["config"] for record in results.summary["diverged_seeds"]] == [1]
    assert np.all(np.isfinite(results.metrics["policy_loss"][0]))


def test_train_says_what_trains_on_the_host():
    with pytest.raises(JaxrlError, match=r"train: gymnasium/Counter-v0 is stepped on the host.*jaxrl\.sweep"):
        jaxrl.train(jax.random.key(0), recorder(), jaxrl.make("gymnasium/Counter-v0"), 100)


def test_an_agent_that_cannot_act_is_refused_before_anything_compiles(monkeypatch):
    monkeypatch.setattr("jaxrl.runs.run.compile_host_group", None)
    with pytest.raises(JaxrlError, match="dqn: gymnasium/Chooser-v0 has continuous actions"):
        jaxrl.sweep(dqn, "gymnasium/Chooser-v0", num_steps=10_000, seeds=1)


# ---------------------------------------------------------------- screens


def test_the_network_for_screens_is_three_convolutions():
    """With other kernels of the same numbers: a patch has its pixels in blocks of the stride, row by row."""
    obs = jax.random.randint(jax.random.key(0), (2, 3, 45, 52, 4), 0, 256).astype(jnp.uint8)
    network = NatureCNN((7,))
    params = network.init(jax.random.key(1), obs)
    x, layers = obs.reshape(6, 45, 52, 4) / 255, params["params"]
    for index, (size, stride) in enumerate(((8, 4), (4, 2), (3, 1))):
        layer, width = layers[f"Dense_{index}"], size // stride
        kernel = layer["kernel"].reshape(width, width, stride, stride, x.shape[-1], -1)
        kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(size, size, x.shape[-1], -1)
        form = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, kernel, (stride, stride), "VALID", dimension_numbers=form) + layer["bias"]
        x = jnp.maximum(x, 0)
    last = layers["MLP_0"]["Dense_0"]
    expected = jnp.maximum(x.reshape(2, 3, -1) @ last["kernel"] + last["bias"], 0)
    assert x.shape == (6, 2, 3, 64)
    np.testing.assert_allclose(network.apply(params, obs), expected, rtol=1e-4, atol=1e-5)


def test_which_network_fits_which_screen():
    def chosen(shape, kind="auto"):
        return type(make_torso("dqn", Spec("Env-v0", box(0, 1, shape), Discrete(2)), kind, (8,), "relu")())

    assert (chosen((84, 84, 4)), chosen((36, 36, 1)), chosen((36, 35, 1)), chosen((10, 10, 4))) == (
        NatureCNN, NatureCNN, CNN, CNN,
    )  # fmt: skip
    assert (chosen((84, 84, 4), "cnn"), chosen((84, 84, 4), "mlp"), chosen((9,))) == (CNN, MLP, MLP)
    with pytest.raises(JaxrlError, match=r"torso='nature' is not accepted on Env-v0, .*shape \(35, 36, 1\); .*'cnn'"):
        chosen((35, 36, 1), "nature")


def test_kernels_of_many_columns_are_orthogonal():
    for shape in ((300, 128), (256, 256), (100, 130)):
        kernel = orthogonal(1.0)(jax.random.key(0), shape)
        gram = kernel.T @ kernel if shape[0] >= shape[1] else kernel @ kernel.T
        np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)


def test_an_agent_that_learns_from_screens():
    results = jaxrl.sweep(
        dqn, "gymnasium/Pictures-v0", num_steps=40, seeds=1, eval_episodes=1, env_params={"frame_stack": 2},
        replay_size=20, batch_size=2, warmup_steps=8, hidden_sizes=(8,),
    )  # fmt: skip
    assert np.all(np.isfinite(results.metrics["loss"]))
    assert results.metrics["episode_length"][0, -1] == 5


# ---------------------------------------------------------------- learning, and the command line


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo", "dqn"])
def test_agents_learn_on_the_host(name):
    constructor, hypers = {
        "ppo": (ppo, {"learning_rate": 1e-2, "num_envs": 8, "rollout_length": 16, "num_steps": 4096}),
        "dqn": (dqn, {"learning_rate": 1e-2, "replay_size": 512, "batch_size": 32, "warmup_steps": 64,
                      "epsilon_decay_steps": 300, "target_update_every": 50, "num_steps": 600}),
    }[name]  # fmt: skip
    results = jaxrl.sweep(constructor, "gymnasium/Guess-v0", seeds=3, hidden_sizes=(8,), eval_episodes=20, **hypers)
    assert results.summary["final_return"]["per_seed"] == [1, 1, 1]


def test_the_command_line(tmp_path, capsys):
    """A run stops where its environment fails, is resumed, and leaves what every run leaves."""
    trap, out = tmp_path / "trap", tmp_path / "run"
    trap.touch()
    words = [
        *("train", "dqn", "--env", "gymnasium/host_worlds:Fragile-v0", "--num-steps", "400", "--seeds", "2"),
        *("--env-params", f"file={trap}", "at=50", "--hidden-sizes", "8", "--batch-size", "8", "--warmup-steps", "50"),
        *("--replay-size", "200", "--eval-episodes", "2", "--log-every", "20", "--eval-every", "200"),
        *("--out", str(out)),
    ]
    assert cli.main(words) == 1
    error = capsys.readouterr().err
    assert "environment 0 of seed 0, in the update that began at step 49: step raised ValueError" in error
    assert f"jaxrl resume {out}" in error
    trap.unlink()
    assert cli.main(["resume", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {
        "config.json", "metrics.npz", "summary.json", "curve.png", "checkpoints",
    }  # fmt: skip
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["env"], summary["seeds"]) == ("gymnasium/host_worlds:Fragile-v0", 2)
    with np.load(out / "metrics.npz") as metrics:
        assert metrics["step"].tolist() == list(range(20, 401, 20))
        assert metrics["loss"].shape == (2, 20)
        assert np.all(metrics["episode_length"][np.isfinite(metrics["episode_length"])] == 5)
        assert metrics["eval_return"][:, [9, 19]].tolist() == [[5, 5]] * 2
    capsys.readouterr()
    assert cli.main(["evaluate", str(out), "--episodes", "3"]) == 0
    assert "5" in capsys.readouterr().out
    assert cli.main(["evaluate", str(out), "--render", str(tmp_path / "a.gif")]) == 2
    assert "gymnasium/host_worlds:Fragile-v0 cannot draw itself" in capsys.readouterr().err
