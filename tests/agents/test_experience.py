"""What agents with a replay share: when they learn and how often, and arguments that are written once."""

import inspect

import docstring_parser
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow_off_policy as slow
from slow_off_policy import SPEC

from jaxrl import JaxrlError, ddpg, dqn, r2d2, rainbow, redq, sac, td3
from jaxrl.agents.experience import Learner, make_experience
from jaxrl.types import Agent

# ---------------------------------------------------------------- when it is learnt, and how often


class Log:
    """A gradient step that writes down what it is given, in place of learning; at most 32 of them."""

    learner = Learner(jnp.full(32, -1), jnp.zeros(32), {"used": jnp.int32(0)})

    @staticmethod
    def gradient_step(spec, learner, batch, weights, key, count, step):
        counts, draws, used = learner.params, learner.target_params, learner.opt_state["used"]
        learner = Learner(
            counts.at[used].set(count), draws.at[used].set(jax.random.uniform(key)), {"used": used + 1}
        )  # fmt: skip
        values = {"count": count.astype(jnp.float32), "step": step.astype(jnp.float32), "weight": weights.mean()}
        return learner, 10.0 * batch.reward, values


def logged(step, length=1, num_envs=1, extras=(), **arguments):
    """The agent's state and the metrics after an update at some step."""
    sizes = {"batch_size": 4, "replay_size": 24, "warmup_steps": 12, "rollout_length": length, "num_envs": num_envs}
    experience = make_experience("owner", **sizes | arguments)
    update = experience.make_update(Log.gradient_step, ("count", "step", "weight"), extras=extras)
    state = experience.init(Log.learner, SPEC, {name: jnp.float32(0) for name in extras})
    run = jax.jit(lambda step: update(state, slow.trajectory(length, num_envs), jax.random.key(0), step))
    return [run(jnp.int32(s)) for s in np.atleast_1d(step)]


@pytest.mark.parametrize(
    ("length", "num_envs", "ratio", "steps"),
    [(1, 1, 1, 1), (1, 1, 5, 5), (4, 3, 1, 12), (4, 3, 0.25, 3), (1, 4, 0.5, 2), (2, 3, 1 / 3, 2), (6, 1, 2.5, 15)],
)
def test_the_number_of_gradient_steps(length, num_envs, ratio, steps):
    """`replay_ratio` of them for each environment step, and their counts are those of all updates before, and on."""
    added = length * num_envs
    [(state, metrics)] = logged(36 // added * added, length, num_envs, replay_ratio=ratio)
    before = 36 // added * steps
    np.testing.assert_array_equal(state.params[: steps + 1], [*range(before, before + steps), -1])
    assert state.opt_state["used"] == steps
    assert len(np.unique(state.target_params[:steps])) == steps  # each has its own key
    np.testing.assert_allclose(metrics["count"], before + (steps - 1) / 2, rtol=1e-6)
    assert metrics["step"] == 36 // added * added


def test_the_count_goes_on_through_the_warm_up():
    """Nothing is learnt until the update that brings `warmup_steps`; its count is as if all before had learnt, too."""
    outcomes = logged([0, 4, 8, 12], 1, 4, replay_ratio=0.5, warmup_steps=12)
    used = [int(state.opt_state["used"]) for state, _ in outcomes]
    assert used == [0, 0, 2, 2]
    for state, metrics in outcomes[:2]:
        assert (state.params == -1).all()
        assert set(map(float, metrics.values())) == {0.0}
    np.testing.assert_array_equal([state.params[:2] for state, _ in outcomes[2:]], [[4, 5], [6, 7]])


def test_the_replay_gets_the_errors_back_and_keeps_extras():
    """Priorities are those of the slots that were drawn; a weight is an importance weight."""
    [(state, metrics)] = logged(
        0, 4, 4, extras=("kept",), replay="prioritized", priority_alpha=0.5, batch_size=8, warmup_steps=8,
        replay_size=16, replay_ratio=0.125,
    )  # fmt: skip
    tree, numbers = np.asarray(state.replay.tree[-1]).ravel()[:16], np.arange(1, 17)
    learnt = np.sqrt(10.0 * numbers + 1e-3)
    drawn = np.isclose(tree, learnt, rtol=1e-5)
    assert drawn.sum() >= 4
    np.testing.assert_allclose(tree[~drawn], 1.0)
    np.testing.assert_allclose(state.replay.ring.rest.extras["kept"], 2 * numbers)
    assert "left" not in state.replay.ring.rest.extras
    assert metrics["weight"] <= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"replay_ratio": 0}, ["replay_ratio=0 is not accepted", "(0, inf)"]),
        ({"replay_ratio": -1}, ["replay_ratio=-1 is not accepted"]),
        ({"replay_ratio": "two"}, ["replay_ratio=two is not accepted"]),
        ({"replay_ratio": 0.5}, ["replay_ratio=0.5 is not accepted", "num_envs * rollout_length = 1", "whole number"]),
        ({"replay_ratio": 1 / 3, "num_envs": 4, "batch_size": 4}, ["replay_ratio=0.333", "= 4 it must be"]),
        ({"gamma": 1.1}, ["gamma=1.1 is not accepted"]),
        ({"n_step": 0}, ["n_step=0 is not accepted"]),
        ({"n_step": True}, ["n_step=True is not accepted"]),
        ({"num_envs": "4"}, ["num_envs=4 is not accepted; it must be a whole number"]),
        ({"rollout_length": 1.5}, ["rollout_length=1.5 is not accepted"]),
        ({"replay": "newest"}, ["replay='newest' is not accepted"]),
        ({"replay_size": 1001, "num_envs": 3}, ["replay_size=1001", "a multiple of num_envs * rollout_length"]),
        ({"batch_size": 2000}, ["batch_size=2000 is not accepted", "warmup_steps=1000"]),
        ({"batch_size": 0}, ["batch_size=0 is not accepted"]),
        ({"warmup_steps": 0}, ["warmup_steps=0 is not accepted"]),
        ({"priority_alpha": 2.0}, ["priority_alpha=2.0 is not accepted"]),
        ({"priority_beta": -1.0}, ["priority_beta=-1.0 is not accepted"]),
        ({"priority_beta_steps": 0}, ["priority_beta_steps=0 is not accepted"]),
        ({"normalize_observations": "yes"}, ["normalize_observations='yes' is not accepted"]),
        ({"hindsight": "past"}, ["hindsight='past' is not accepted"]),
    ],
    ids=lambda x: "-".join(f"{name}={value}" for name, value in x.items()) if isinstance(x, dict) else "",
)
def test_errors_name_the_agent_and_the_argument(arguments, words):
    for constructor in (td3, sac, dqn):
        with pytest.raises(JaxrlError) as error:
            constructor(**arguments)
        text = str(error.value)
        assert text.startswith(f"{constructor.__name__}: ")
        assert all(word in text for word in words), text


# ---------------------------------------------------------------- arguments that are written once


@pytest.mark.parametrize(
    ("constructor", "own"),
    [
        (td3, {}),
        (ddpg, {}),
        (sac, {}),
        (redq, {"replay_ratio": 20}),
        (dqn, {"replay_size": 10_000, "batch_size": 128}),
        (
            rainbow,
            {"replay_size": 10_000, "batch_size": 128, "n_step": 3, "replay": "prioritized", "priority_alpha": 0.5},
        ),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_the_signature_and_the_docstring_have_all_arguments(constructor, own):
    parameters = inspect.signature(constructor).parameters
    shared = inspect.signature(make_experience).parameters
    assert "experience" not in parameters
    assert "owner" not in parameters
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters.values())
    for name in set(shared) - {"owner"}:
        assert parameters[name].default == own.get(name, shared[name].default)
    documented = {p.arg_name: p.description for p in docstring_parser.parse(inspect.getdoc(constructor)).params}
    assert list(documented) == list(parameters)
    assert all(len(text.split()) >= 2 for text in documented.values())
    hints = inspect.get_annotations(constructor)
    assert set(hints) == {*parameters, "return"}
    assert all(parameters[name].annotation == hints[name] for name in parameters)
    assert inspect.signature(constructor).return_annotation is hints["return"] is Agent
    assert (hints["gamma"], hints["n_step"], hints["replay_ratio"]) == (float, int, int | float)


def test_wrong_names_are_errors_that_name_them():
    for constructor in (td3, ddpg):  # one, and one that is a call of it
        name = constructor.__name__
        with pytest.raises(TypeError, match=rf"^{name}\(\) got an unexpected keyword argument 'gama'"):
            constructor(gama=0.9)
    with pytest.raises(TypeError, match="experience"):
        td3(experience=make_experience("td3"))


def test_an_argument_may_be_left_out():
    assert "hindsight" not in inspect.signature(r2d2).parameters
    assert "hindsight" not in inspect.getdoc(r2d2)
    with pytest.raises(TypeError, match=r"r2d2\(\) got an unexpected keyword argument 'hindsight'"):
        r2d2(hindsight="future")
