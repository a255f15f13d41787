"""Every error names the argument, its value and what is accepted; tracers pass."""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import checks
from jaxrl.agents import AGENTS
from jaxrl.constructors import parameters
from jaxrl.learning import tables as td_common
from jaxrl.replay import Replay
from jaxrl.types import Agent, HostEnv


@pytest.mark.parametrize(
    "check",
    [
        lambda: checks.number("f", x=0),
        lambda: checks.number("f", 0, 1, x=0.0, y=1.0, z=0.5),
        lambda: checks.number("f", 0, open_low=True, x=1e-12),
        lambda: checks.number("f", 0, 1, x=np.float32(0.3), y=jnp.float32(0.3), z=jnp.array([0.0, 0.5, 1.0])),
        lambda: checks.integer("f", x=1, y=np.int64(7)),
        lambda: checks.integer("f", 0, x=0),
        lambda: checks.one_of("f", {"a": 1, "b": 2}, x="a"),
        lambda: checks.one_of("f", iter(["a", "b"]), x="b", y="a"),
    ],
)
def test_accepts(check):
    assert check() is None


@pytest.mark.parametrize(
    ("check", "value", "accepted"),
    [
        (lambda: checks.number("f", 0, 1, ok=0.5, bad=1.5), "1.5", "a number in [0, 1]"),
        (lambda: checks.number("f", 0, 1, bad=-0.1), "-0.1", "a number in [0, 1]"),
        (lambda: checks.number("f", 0, bad=-1), "-1", "a number in [0, inf)"),
        (lambda: checks.number("f", 0, open_low=True, bad=0), "0", "a number in (0, inf)"),
        (lambda: checks.number("f", 0, 1, open_low=True, bad=0.0), "0.0", "a number in (0, 1]"),
        (lambda: checks.number("f", bad=float("nan")), "nan", "a number in (-inf, inf)"),
        (lambda: checks.number("f", 0, bad=float("inf")), "inf", "a number in [0, inf)"),
        (lambda: checks.number("f", 0, 1, bad=np.array([0.5, 2.0])), "[0.5 2. ]", "a number in [0, 1]"),
        (lambda: checks.number("f", bad="0.5"), "0.5", "a number in (-inf, inf)"),
        (lambda: checks.number("f", bad=None), "None", "a number in (-inf, inf)"),
        (lambda: checks.integer("f", ok=1, bad=0), "0", "a whole number, at least 1"),
        (lambda: checks.integer("f", 2, bad=1), "1", "a whole number, at least 2"),
        (lambda: checks.integer("f", bad=1.0), "1.0", "a whole number, at least 1"),
        (lambda: checks.integer("f", bad=True), "True", "a whole number, at least 1"),
        (lambda: checks.integer("f", bad=None), "None", "a whole number, at least 1"),
        (lambda: checks.integer("f", bad="3"), "3", "a whole number, at least 1"),
        (lambda: checks.one_of("f", ("a", "b"), ok="a", bad="c"), "'c'", "one of a, b"),
        (lambda: checks.one_of("f", ("a", "b"), bad=None), "None", "one of a, b"),
    ],
)
def test_rejects(check, value, accepted):
    with pytest.raises(checks.JaxrlError) as error:
        check()
    assert str(error.value) == f"f: bad={value} is not accepted; it must be {accepted}"


def test_tracers_pass_and_constants_beside_them_do_not():
    def traced(x):
        checks.number("f", 0, 1, x=x)
        return x

    assert jax.jit(traced)(7.0) == 7.0
    assert jax.vmap(traced)(jnp.arange(3.0)).shape == (3,)
    with pytest.raises(checks.JaxrlError, match="y=2"):
        jax.jit(lambda x: checks.number("f", 0, 1, x=x, y=2))(7.0)


def test_unknown_names():
    names = ["CartPole-v1", "Pendulum-v1", "MountainCar-v0"]
    close = str(checks.unknown_name("environment", "cartpole", names, see="jaxrl list"))
    assert close == "unknown environment 'cartpole': did you mean CartPole-v1? (jaxrl list shows all)"
    far = str(checks.unknown_name("environment", "zzz", iter(names)))
    assert far == "unknown environment 'zzz': there are: CartPole-v1, MountainCar-v0, Pendulum-v1"


def test_is_a_value_error():
    assert issubclass(checks.JaxrlError, ValueError)


# ---------------------------------------------------------------- kinds of arguments

# What no argument of a kind accepts, whoever has it.
WRONG = {
    bool: ["False", "no", 1, 0.0, None, [True, False]],
    int: [1.5, "3", True, None, [4, 8], np.nan, 2**40, -(2**40), np.arange(2)],
    float: ["0.1", None, True, [0.1, 0.2], np.array([0.1, 0.2]), jnp.ones((2, 1)), np.nan, np.inf, -np.inf, 1j],
    int | float: ["0.1", None, True, [0.1, 0.2], np.nan, np.inf, 1j],
    str: ["no such name", 3, None, True, ["a", "b"]],
    str | Replay: ["no such name", 3, None, lambda: None],
    tuple[int, ...]: [64, [64], (1.5,), ("64",), (-1,), (True,), None, "64"],
    td_common.Features | None: [3, "f", True],
    td_common.Policy | None: [3, "f", True],
}


def init_somewhere(agent):
    """Traces `init` where the agent can act: there a torso's name is looked up."""
    errors = []
    for env_id in ("jaxrl/Probe-policy-v0", "jaxrl/Point-v0"):
        try:
            spec = jaxrl.make(env_id).spec
            jax.eval_shape(lambda key, spec=spec: agent.init(key, spec), jax.random.key(0))
        except checks.JaxrlError as error:
            errors.append(error)
    raise errors[-1] if "torso=" in str(errors[-1]) else errors[0]


@pytest.mark.parametrize("name", AGENTS)
def test_every_argument_of_every_agent_refuses_other_kinds(name):
    make_agent = AGENTS[name]
    assert inspect.get_annotations(make_agent, eval_str=True)["return"] is Agent
    kinds = {argument: p.annotation for argument, p in parameters(make_agent).items()}
    for argument, kind in kinds.items():
        for wrong in WRONG[kind]:
            with pytest.raises(checks.JaxrlError) as error:
                init_somewhere(make_agent(**{argument: wrong}))
            assert re.match(rf"{name}: {argument}(\[0\])?=", str(error.value)), (wrong, str(error.value))


@pytest.mark.parametrize("name", AGENTS)
def test_numpy_s_and_jax_s_scalars_are_accepted(name):
    """And tracers, of floats."""
    make_agent = AGENTS[name]
    for parameter in parameters(make_agent).values():
        if isinstance(parameter.default, bool):
            make_agent(**{parameter.name: np.bool_(parameter.default)})
        elif isinstance(parameter.default, int):
            make_agent(**{parameter.name: np.int64(parameter.default)})
        elif parameter.annotation in ("float", float):
            for scalar in (np.float32, np.float64, jnp.float32, np.array):
                make_agent(**{parameter.name: scalar(parameter.default)})
            jax.eval_shape(lambda x, name=parameter.name: make_agent(**{name: x}) and x, jnp.float32(1))


def test_what_a_wrong_kind_is_told():
    told = {
        "double='False' is not accepted; it must be True or False": {"double": "False"},
        "hidden_sizes=64 is not accepted; it must be a tuple of whole numbers, such as (64, 64)": {"hidden_sizes": 64},
        "replay=3 is not accepted; it must be text or a Replay": {"replay": 3},
        "gamma=[0.5, 0.9] is not accepted; it must be a number. jaxrl.sweep takes a list or an array and trains one of "
        "each value, and jax.vmap trains one of each float": {"gamma": [0.5, 0.9]},
        "num_envs=[1, 2] is not accepted; it must be a whole number. jaxrl.sweep takes a list or an array and trains "
        "one of each value": {"num_envs": [1, 2]},
    }
    for text, arguments in told.items():
        with pytest.raises(checks.JaxrlError, match=f"^{re.escape(f'dqn: {text}')}$"):
            jaxrl.dqn(**arguments)
    with pytest.raises(checks.JaxrlError, match=r"^rainbow: noisy=1 is not accepted"):
        jaxrl.rainbow(noisy=1)
    for argument in ("num_envs", "double", "replay_ratio"):
        with pytest.raises(checks.JaxrlError, match=rf"dqn: {argument}=.* and not traced"):
            jax.eval_shape(lambda x, name=argument: jaxrl.dqn(**{name: x}) and x, 1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'learning_rat'"):
        jaxrl.ppo(learning_rat=1.0)


def test_environments_of_ours_check_kinds():
    with pytest.raises(checks.JaxrlError, match="jaxrl/Probe-policy-v0: continuous='no' is not accepted"):
        jaxrl.make("jaxrl/Probe-policy-v0", continuous="no")
    with pytest.raises(checks.JaxrlError, match="make: env_id=3 is not accepted; it must be text"):
        jaxrl.make(3)


def test_a_checked_constructor_looks_as_it_is_written():
    written = inspect.unwrap(jaxrl.ppo)
    assert written is not jaxrl.ppo
    assert inspect.signature(jaxrl.ppo) == inspect.signature(written)
    assert (jaxrl.ppo.__doc__, jaxrl.ppo.__name__, jaxrl.ppo.__module__) == (
        written.__doc__,
        "ppo",
        "jaxrl.agents.policy_gradient.ppo",
    )


# ---------------------------------------------------------------- what training is called with

AGENT, ENV = jaxrl.q_learning(), jaxrl.make("jaxrl/Corridor-v0")
KEY, STATE = jax.random.key(0), jaxrl.init_train(jax.random.key(0), AGENT, ENV)
NO_KEYS = [0, 1.5, "0", None, np.arange(2), jnp.ones(()), jax.random.split(KEY), jnp.zeros((3, 2), jnp.uint32)]
NO_AGENTS = {"jaxrl.ppo()": jaxrl.ppo, "jaxrl.dqn()": "dqn", "jaxrl.td()": functools.partial(jaxrl.td), "Agent": None}
NO_ENVS = {"jaxrl.make('CartPole-v1')": "CartPole-v1", "Env": None, "an Env": ENV.spec}
NO_NUMBERS = [1.0, True, "100", None, 0, -1, np.float32(10), [10], 2**31]
CALLS = {
    "init_train": lambda key=KEY, agent=AGENT, env=ENV: jaxrl.init_train(key, agent, env),
    "train": lambda key=KEY, agent=AGENT, env=ENV, number=1: jaxrl.train(key, agent, env, number),
    "train_step": lambda state=STATE, agent=AGENT, env=ENV: jaxrl.train_step(state, agent, env),
    "train_interval": lambda state=STATE, agent=AGENT, env=ENV, number=1: jaxrl.train_interval(
        state, agent, env, number
    ),
    "evaluate": lambda key=KEY, agent=AGENT, agent_state=STATE.agent, env=ENV, number=1: jaxrl.evaluate(
        key, agent, agent_state, env, number
    ),
}
REFUSED = {
    "key": [(key, "a random key|one key") for key in NO_KEYS],
    "agent": [(agent, re.escape(text)) for text, agent in NO_AGENTS.items()],
    "env": [(env, re.escape(text)) for text, env in NO_ENVS.items()],
    "number": [(number, "a whole number|less than") for number in NO_NUMBERS],
    "state": [(state, "must be a TrainState") for state in (None, STATE.agent, KEY)],
    "agent_state": [(STATE, "must be the agent's state")],
}


@pytest.mark.parametrize("call", CALLS)
def test_training_refuses_other_kinds(call):
    for argument in inspect.signature(CALLS[call]).parameters:
        for wrong, text in REFUSED[argument]:
            with pytest.raises(checks.JaxrlError, match=f"^{call}: .*({text})"):
                CALLS[call](**{argument: wrong})


def test_environments_on_the_host_are_not_for_what_is_compiled():
    env = HostEnv(ENV.spec, lambda num_envs: None)
    for call in ("train", "train_step", "train_interval"):
        with pytest.raises(checks.JaxrlError, match=f"{call}: jaxrl/Corridor-v0 is stepped on the host"):
            CALLS[call](env=env)


def test_training_takes_old_keys_and_numbers_of_numpy():
    old = jax.random.PRNGKey(0)
    for key in (old, np.asarray(old)):
        state = jaxrl.init_train(key, AGENT, ENV)
        np.testing.assert_array_equal(jax.random.key_data(state.key), jax.random.key_data(STATE.key))
    jax.eval_shape(jax.vmap(lambda key: jaxrl.train(key, AGENT, ENV, np.int64(3))), jnp.stack([old, old]))
    jax.eval_shape(lambda updates: jaxrl.train_interval(STATE, AGENT, ENV, updates), jnp.int32(3))
    with pytest.raises(checks.JaxrlError, match="train_interval: updates="):
        jax.eval_shape(lambda updates: jaxrl.train_interval(STATE, AGENT, ENV, updates), jnp.float32(3))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"constructor": "ppo"}, "sweep: constructor='ppo' is not accepted"),
        ({"constructor": AGENT}, "sweep: constructor=.* without a call"),
        ({"env_id": ENV}, "sweep: env_id=.* must be text"),
        ({"env_params": "max_steps=3"}, "sweep: env_params='max_steps=3' is .* must be a dictionary or None"),
        ({"progress": "no"}, "sweep: progress='no' is not accepted; it must be True or False"),
        ({"num_steps": 1e5}, "num_steps=100000.0 is not accepted; it must be a whole number"),
        ({"seeds": True}, "seeds=True is not accepted; it must be a whole number"),
        ({"run_seed": "3"}, "seed=3 is not accepted; it must be a whole number"),
        ({"gamma": "high"}, "q_learning: gamma='high' is not accepted; it must be a number"),
        ({"gamma": [0.5, "high"]}, "q_learning: gamma='high' is not accepted; it must be a number"),
    ],
)
def test_a_sweep_refuses_other_kinds(arguments, text):
    given = {"constructor": jaxrl.q_learning, "env_id": "jaxrl/Corridor-v0", "num_steps": 10, "seeds": 1} | arguments
    with pytest.raises(checks.JaxrlError, match=text):
        jaxrl.sweep(given.pop("constructor"), given.pop("env_id"), **given)
