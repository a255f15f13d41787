"""Constructors: what is known of their arguments, how agents show how they were made, and presets of one's own."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fake_agent import fake

import jaxrl
from jaxrl import JaxrlError
from jaxrl.agents import AGENTS
from jaxrl.constructors import agent_constructor, call_of, parameters, preset
from jaxrl.replay import hindsight, uniform
from jaxrl.transforms.normalize import normalize_observations, normalize_rewards
from jaxrl.transforms.report import report


@preset(jaxrl.dqn)
def careful(*, tau: float = 0.1, num_envs: int = 2, **others: Any) -> jaxrl.Agent:
    """A preset that is defined outside the library."""
    return jaxrl.dqn(tau=tau, num_envs=num_envs, **others)


@preset(careful)
def bold(*, tau: float = 0.9, **others: Any) -> jaxrl.Agent:
    """A preset of a preset."""
    return careful(tau=tau, **others)


# ---------------------------------------------------------------- arguments


def defaults(constructor):
    return {name: p.default for name, p in parameters(constructor).items()}


def test_a_preset_has_the_arguments_of_its_base_in_that_order():
    base = defaults(jaxrl.dqn)
    assert list(defaults(bold)) == list(base) == list(inspect.signature(jaxrl.dqn).parameters)
    assert defaults(careful) == base | {"tau": 0.1, "num_envs": 2}
    assert defaults(bold) == base | {"tau": 0.9, "num_envs": 2}


def test_annotations_are_what_they_stand_for():
    kinds = {name: p.annotation for name, p in parameters(bold).items()}
    assert (kinds["tau"], kinds["double"], kinds["hidden_sizes"]) == (float, bool, tuple[int, ...])

    def known_to_type_checkers(*, rate: float = 0.5, part: Unknown = None):  # noqa: F821
        """Its other annotation is of no name that there is."""

    assert [p.annotation for p in parameters(known_to_type_checkers).values()] == [float, "Unknown"]


def test_a_partial_has_its_own_defaults():
    def make(first, second=2, *, third=3):
        """Takes positional arguments, too."""

    assert defaults(functools.partial(make, 1, third=4)) == {"second": 2, "third": 4}
    assert defaults(functools.partial(bold, gamma=0.5)) == defaults(bold) | {"gamma": 0.5}


@pytest.mark.parametrize("name", AGENTS)
def test_what_is_seen_is_what_is_written(name):
    """No signature and no docstring is made at run time."""
    constructor, written = AGENTS[name], inspect.unwrap(AGENTS[name])
    assert not any("__signature__" in vars(function) for function in (constructor, written))
    assert inspect.signature(constructor) == inspect.signature(written)
    assert (constructor.__doc__, constructor.__name__) == (written.__doc__, name)
    assert written.__doc__ in inspect.getsource(written)


# ---------------------------------------------------------------- how an agent was made


def long(obs):
    return obs


SHOWN = {
    "ppo()": lambda: jaxrl.ppo(learning_rate=3e-4),
    "ppo(learning_rate=0.001)": lambda: jaxrl.ppo(learning_rate=1e-3),
    "ppo(learning_rate=np.float32(0.5), hidden_sizes=(8,))": lambda: jaxrl.ppo(
        hidden_sizes=(8,), learning_rate=np.float32(0.5)
    ),
    "td(features=long)": lambda: jaxrl.td(features=long),
    "rainbow(gamma=0.5, n_step=2)": lambda: jaxrl.rainbow(n_step=2, atoms=51, gamma=0.5, tau=1.0),
    "bold(num_envs=1)": lambda: bold(num_envs=1),
    "dqn(replay=uniform(capacity=512, batch_size=8, read=hindsight(strategy='future', probability=0.8)))": lambda: (
        jaxrl.dqn(replay=uniform(capacity=512, batch_size=8, read=hindsight()))
    ),
    "diayn(normalize_observations=True)": lambda: jaxrl.diayn(normalize_observations=True),
    "normalize_observations(ppo())": lambda: normalize_observations(jaxrl.ppo()),
    "normalize_rewards(normalize_observations(bold(), clip=5.0), gamma=0.5)": lambda: normalize_rewards(
        normalize_observations(bold(), 5.0), 0.5
    ),
    "report(ppo(), lag=long)": lambda: report(jaxrl.ppo(), lag=long),
    "Agent(name='ppo', ...)": lambda: jaxrl.ppo()._replace(num_envs=3),
    "normalize_observations(Agent(name='fake', ...))": lambda: normalize_observations(fake()),
}  # fmt: skip


@pytest.mark.parametrize("text", SHOWN)
def test_an_agent_shows_as_the_call_that_made_it(text):
    assert repr(SHOWN[text]()) == text


def test_long_values_are_cut_short():
    text = repr(jaxrl.ppo(hidden_sizes=(1,) * 100))
    assert text.startswith("ppo(hidden_sizes=(1, 1, 1")
    assert text.endswith("...)")
    assert len(text) < 130


def test_a_tracer_is_shown_as_one():
    seen = []
    jax.vmap(lambda x: seen.append(repr(jaxrl.ppo(learning_rate=x))) or x)(jnp.ones(2))
    assert seen[0].startswith("ppo(learning_rate=VmapTracer")


def test_the_call_makes_the_agent_again():
    agent = jaxrl.rainbow(gamma=0.5)
    call = call_of(agent)
    assert call.function is jaxrl.rainbow
    assert call.arguments == defaults(jaxrl.rainbow) | {"gamma": 0.5}
    assert call_of(agent._replace(name="other")) is None
    assert call_of(fake()) is None


def test_an_agent_can_be_hashed_and_compared():
    """As a static argument of `jax.jit` is."""
    agent = jaxrl.dqn(replay=uniform(capacity=512, batch_size=8))
    assert agent in (jaxrl.dqn(), agent)
    assert agent not in (jaxrl.dqn(), agent._replace(made_by=None))
    traced = []
    run = jax.jit(lambda agent, x: traced.append(agent) or x, static_argnums=0)
    run(agent, 1.0)
    run(agent, 2.0)
    assert traced == [agent]


# ---------------------------------------------------------------- a preset


def test_a_preset_has_a_name_of_its_own():
    agent = bold()
    assert (agent.name, agent.num_envs) == ("bold", 2)
    with pytest.raises(JaxrlError, match=r"^bold: gamma=2 is not accepted"):
        bold(gamma=2)
    with pytest.raises(JaxrlError, match=r"^bold: .*jaxrl/Point-v0"):
        jax.eval_shape(lambda key: agent.init(key, jaxrl.make("jaxrl/Point-v0").spec), jax.random.key(0))
    with pytest.raises(TypeError, match=r"^bold\(\) got an unexpected keyword argument 'gama'$"):
        bold(gama=0.5)
    with pytest.raises(TypeError, match=r"bold\(\) takes 0 positional arguments"):
        bold(0.5)


def test_an_error_of_another_function_keeps_its_name():
    @preset(jaxrl.dqn)
    def failing(**others: Any) -> jaxrl.Agent:
        raise JaxrlError("elsewhere: nothing works")

    with pytest.raises(JaxrlError, match=r"^elsewhere: nothing works"):
        failing()


def test_a_constructor_checks_its_arguments_and_knows_its_name():
    @agent_constructor
    def mine(*, rate: float = 0.5) -> jaxrl.Agent:
        return fake(rate=rate)

    assert repr(mine(rate=0.25)) == "mine(rate=0.25)"
    with pytest.raises(JaxrlError, match=r"^mine: rate='fast' is not accepted; it must be a number$"):
        mine(rate="fast")
