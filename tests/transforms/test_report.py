"""Metrics of one's own: of which state and trajectory they are, and that nothing else of the agent changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.checks import JaxrlError
from jaxrl.transforms import normalize_rewards, report, report_episode_mean
from jaxrl.types import Agent, Transition


def counting_agent(**facts):
    """An agent whose state counts its updates."""
    return Agent(
        init=lambda key, spec: jnp.float32(0),
        act=lambda state, memory, obs, key, step, explore=True: (state, memory, {}),
        update=lambda state, trajectory, key, step: (state + 1, {"old": state}),
        interrupt=lambda state, step: state + 100,
        **{"num_envs": 1, "rollout_length": 1} | facts,
    )


def one_step(terminated=False, truncated=False, reward=0.0):
    flags = (jnp.array([[flag]]) for flag in (terminated, truncated))
    return Transition(None, None, jnp.full((1, 1), reward), *flags, None, {})


def test_a_report_is_of_the_state_after_the_update_and_of_what_was_seen():
    agent = report(
        counting_agent(),
        tenfold=lambda state, _: 10 * state,
        difference=lambda state, trajectory: state - trajectory.reward.sum(),
    )
    state, metrics = agent.update(jnp.float32(2), one_step(reward=5.0), None, 0)
    assert (state, metrics) == (3, {"old": 2, "tenfold": 30, "difference": -2})


def test_reports_are_float32_and_join_those_of_an_inner_report():
    agent = report(report(counting_agent(), whole=lambda state, _: jnp.int32(7)), true=lambda *_: True)
    _, metrics = agent.update(jnp.float32(0), one_step(), None, 0)
    assert {name: (value.item(), value.dtype) for name, value in metrics.items() if name != "old"} == {
        "whole": (7, jnp.float32),
        "true": (1, jnp.float32),
    }


@pytest.mark.parametrize("transform", [report, lambda agent, **metrics: report_episode_mean(agent, 1, **metrics)])
def test_what_is_no_metric(transform):
    for name, metric, words in [
        ("old", lambda *_: 1.0, "'old' is not accepted; the agent reports one of that name"),
        ("new", lambda *_: jnp.zeros(3), r"'new' is not accepted; its shape is \(3,\), not \(\)"),
    ]:
        agent = transform(counting_agent(), **{name: metric})
        with pytest.raises(JaxrlError, match=words):
            agent.update(agent.init(None, None), one_step(), None, 0)


def test_an_agent_learns_as_without_its_report():
    """Under another transformation, too, whose state the metric does not see."""
    env, key = jaxrl.make("jaxrl/Corridor-v0"), jax.random.key(0)
    plain = normalize_rewards(jaxrl.q_learning(), gamma=0.9)
    reporting = normalize_rewards(report(jaxrl.q_learning(), best=lambda state, _: state.q.max()), gamma=0.9)
    expected, _ = jaxrl.train(key, plain, env, 60)
    state, metrics = jaxrl.train(key, reporting, env, 60)
    jax.tree.map(np.testing.assert_array_equal, state.agent, expected.agent)
    assert metrics["best"][-1] == state.agent.agent.q.max() > 0


def best(state, trajectory):
    return state.q.max()


def test_what_reports_says_how_it_was_made():
    inner = jaxrl.q_learning(gamma=0.5)
    assert repr(report(inner, best=best)) == "report(q_learning(gamma=0.5), best=best)"
    made = report_episode_mean(report(inner), 3, greatest=best)
    assert repr(made) == "report_episode_mean(report(q_learning(gamma=0.5)), num_episodes=3, greatest=best)"


def test_a_mean_is_over_the_ends_of_the_first_episodes():
    agent = report_episode_mean(counting_agent(), 2, tenfold=lambda state, _: 10 * state, one=lambda *_: 1.0)
    state, averages = agent.init(None, None), []
    for terminated, truncated in [(0, 0), (1, 0), (0, 0), (0, 1), (1, 0)]:
        state, metrics = agent.update(state, one_step(bool(terminated), bool(truncated)), None, 0)
        averages.append(float(metrics["tenfold"]))
    assert averages == [0, 20, 20, 30, 30]  # ends after updates 2 and 4; a third one does not count
    assert metrics["one"] == 1
    assert agent.act(state, (), None, None, 0)[0] == 5
    assert agent.interrupt(state, 0).agent == 105


@pytest.mark.parametrize("facts", [{"num_envs": 2}, {"rollout_length": 2}])
def test_a_mean_wants_every_end(facts):
    with pytest.raises(JaxrlError, match=r"report_episode_mean: num_envs=\d, rollout_length=\d .* both must be 1"):
        report_episode_mean(counting_agent(**facts), 2)
