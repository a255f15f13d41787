"""Every argument of every agent is shown to do something, and what it does to reach the function that it is for.

The agents' functions are traced and not run. For a float, `dce` of the program says whether an output depends on it;
for a whole number, a switch, a name or a tuple, the programs with two values must differ. Metrics are no outputs here:
a schedule that is reported and not followed is ignored.
"""

import functools
import inspect
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tracing import misused_keys, trace_agent

from jaxrl import constructors, make
from jaxrl.agents import AGENTS
from jaxrl.checks import JaxrlError
from jaxrl.learning.experience import make_experience
from jaxrl.types import Discrete, Spec, box

# ---------------------------------------------------------------- where an agent acts

INF = np.inf
SPECS = {
    "table": Spec("Table-v0", Discrete(5), Discrete(3), max_steps=7),
    "discrete": Spec("Discrete-v0", box(-INF, INF, (2,)), Discrete(3), max_steps=7),
    "continuous": Spec("Continuous-v0", box(-INF, INF, (2,)), box((-1, 0), (1, 4), (2,)), max_steps=7),
    "image": Spec("Image-v0", box(0, 1, (6, 5, 2)), Discrete(3), max_steps=7),
    "image, continuous": Spec("Image-v1", box(0, 1, (6, 5, 2)), box(-1, 1, (2,)), max_steps=7),
    "goal": make("jaxrl/BitFlip-v0", num_bits=3).spec,
    "goal, continuous": make("jaxrl/PointReach-v0").spec,
}

# ---------------------------------------------------------------- small agents, and under what an argument counts

SMALL = {
    "hidden_sizes": (4,), "num_envs": 2, "rollout_length": 2, "replay_size": 16, "batch_size": 2, "warmup_steps": 4,
    "num_minibatches": 1, "num_epochs": 1, "replay_ratio": 1, "baseline_batch_size": 4, "baseline_num_steps": 1,
    "cg_iterations": 1, "num_samples": 2,
}  # fmt: skip
OWN = {
    "nfq": {"optimizer": "adam", "num_gradient_steps": 2, "num_iterations": 1},
    "r2d2": {"replay_size": 128, "burn_in": 1, "unroll": 2},
    "redq": {"num_critics": 3},
    "rainbow": {"atoms": 3},
    "qr_dqn": {"quantiles": 3},
    "dppo": {"num_workers": 2},
    "a3c": {"num_workers": 2},
    "cem": {"num_elites": 1},
    "hill_climbing": {"envs_per_candidate": 1},
}
REPLAYS = [{"replay": "prioritized"}, {"replay": "ranked"}]
NETWORK, DECAYS, PATH = {"baseline": "network"}, {"noise_decay_steps": 10}, {"line_search": True}
# What else must be set for an argument to count, as far as the agent has it; several if it counts in several ways.
UNDER = {
    "priority_alpha": REPLAYS,
    "priority_beta": REPLAYS,
    "priority_beta_steps": REPLAYS,
    "priority_eta": REPLAYS,
    "v_min": [{"atoms": 3, "quantiles": 1}],
    "v_max": [{"atoms": 3, "quantiles": 1}],
    "loss": [{"atoms": 1, "quantiles": 1}],
    "atoms": [{"quantiles": 1}],
    "quantiles": [{"atoms": 1}],
    "dueling_aggregation": [{"dueling": True}],
    "cell_size": [{"cell": "gru"}, {"cell": "lstm"}],
    "pop_art_rate": [{"pop_art": True}],
    "kl_target": [{"kl_coef": 0.1}],
    "baseline_learning_rate": [NETWORK],
    "baseline_num_steps": [NETWORK],
    "baseline_batch_size": [NETWORK],
    "gae_lambda": [NETWORK],
    "backtrack_ratio": [PATH],
    "backtrack_steps": [PATH],
    "noise_theta": [{"noise": "ornstein_uhlenbeck"}],
    "noise_final": [DECAYS, DECAYS | {"noise_schedule": "exponential"}],
    "noise_schedule": [DECAYS],
    "initial_temperature": [{"temperature": "fixed"}, {"temperature": "auto"}, {"temperature": "state"}],
    "temperature_learning_rate": [{"temperature": "auto"}, {"temperature": "state"}],
    "target_entropy": [{"temperature": "auto"}, {"temperature": "state"}],
    "target_entropy_ratio": [{"temperature": "auto"}],
    "final_temperature": [{"temperature": "fixed"}],
    "temperature_steps": [{"temperature": "fixed"}],
    "trust_region_delta": [{"trust_region": True}],
    "tau": [{"target_network": True}],
    ("nfq", "optimizer"): [{"batch_size": 0}],
    ("nfq", "learning_rate"): [{}, {"batch_size": 0, "optimizer": "rprop"}],
}
IN = {  # the environment in which it counts
    **dict.fromkeys(("log_std", "num_samples"), ("continuous",)),
    "torso": ("image", "image, continuous"),
    "hindsight": ("goal", "goal, continuous"),
}
# Which functions it must reach; `update` where nothing is said. `greedy` is `act` with `explore=False`.
ALL = ("init", "act", "greedy", "update")
ACTING = ("act", "greedy", "update")
REACHES = {
    **dict.fromkeys(("hidden_sizes", "torso", "normalize_observations", "dueling", "atoms", "quantiles"), ALL),
    **dict.fromkeys(("activation", "v_min", "v_max"), ACTING),
    **dict.fromkeys(("cell", "cell_size"), ALL),
    **dict.fromkeys(("epsilon_start", "epsilon_final", "epsilon_decay_steps", "epsilon_spread"), ("act",)),
    **dict.fromkeys(("noise_scale", "noise_final", "noise_decay_steps", "noise_schedule", "noise_theta"), ("act",)),
    **dict.fromkeys(("noise", "random_warmup"), ("act",)),
    **dict.fromkeys(("initial_value", "init_std", "log_std", "kl_coef"), ("init",)),
    "noisy": ("init", "act", "update"),
    "num_critics": ("init", "update"),
    "num_skills": ALL,
    "discriminator_observes": ("init", "update"),
    "features": ("init", "update"),
    "policy": ("act",),
    "num_envs": ("sizes",),
    "rollout_length": ("sizes",),
    "num_workers": ("update",),
}
REACHES_OF = {
    ("initial_temperature", "auto"): ("init",),
    ("cem", "noise"): ("update",),
    ("cem", "noise_decay_steps"): ("update",),
    ("hill_climbing", "noise"): ("init",),
    ("cem", "activation"): ("act", "greedy"),
    ("hill_climbing", "activation"): ("act", "greedy"),
    ("pqn", "layer_norm"): ALL,
}
# Another value where the rules below find none.
OTHER = {
    "features": lambda obs: jnp.ones(4) * obs,
    "policy": lambda key, obs: jnp.int32(0),
    "discriminator_observes": (0,),
    "replay_ratio": 2,
    "torso": "mlp",
    "actor_target_update_every": 3,
    "anneal_steps": 10,
}


def parameters(name):
    return constructors.parameters(AGENTS[name])


def is_float(name, argument):
    return parameters(name)[argument].annotation in ("float", float)


def settings(name, under=()):
    """The small agent's arguments, with some more as far as it has them."""
    chosen = SMALL | OWN.get(name, {}) | dict(under)
    return {k: v for k, v in chosen.items() if k in parameters(name)}


def cases(name, argument):
    """Each way in which an argument counts: the agent's arguments, and the functions that it must reach."""
    for under in UNDER.get((name, argument), UNDER.get(argument, [{}])):
        reaches = REACHES.get(argument, ("update",))
        for key in ((name, argument), *((argument, value) for value in under.values())):
            reaches = REACHES_OF.get(key, reaches)
        yield settings(name, under), reaches


@functools.cache
def places(name):
    """The names of the specs that an agent can act in, but for those that a single argument asks for."""

    def fits(place):
        try:
            jax.eval_shape(lambda key: AGENTS[name](**settings(name)).init(key, SPECS[place]), jax.random.key(0))
        except JaxrlError:
            return False
        return True

    return [place for place in ("table", "discrete", "continuous") if fits(place)]


def place_of(name, argument=None):
    found = places(name)
    wanted = IN.get(argument, ())
    for place in wanted:
        continuous = isinstance(SPECS[place].action_space, Discrete) is False
        if place in found or ("continuous" if continuous else "discrete") in found:
            return place
    return found[0]


def example(name, static, argument):
    """The agent with its floats as inputs, in the environment that the argument is for; each agent once."""
    return _example(name, tuple(sorted(static.items(), key=str)), place_of(name, argument))


@functools.cache
def _example(name, static, place):
    return trace_agent(AGENTS[name], dict(static), floats(name, dict(static)), SPECS[place])


def floats(name, static):
    """The values of the floats, in place of which a tracing has inputs."""
    return {k: jnp.float32(p.default) for k, p in parameters(name).items() if is_float(name, k) and k not in static}


def others(name, argument, base):
    """Other values of an argument: all the names that it accepts, or another number, or the other switch."""
    value = base.get(argument, parameters(name)[argument].default)
    if argument in OTHER:
        return [OTHER[argument]]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, str):
        with pytest.raises(JaxrlError, match="must be one of") as error:
            AGENTS[name](**base | {argument: "?"})
        names = re.search(r"must be one of (.*)", str(error.value))[1].split(", ")
        return [x for x in names if x != value]
    if isinstance(value, tuple):
        return [(*value[:-1], value[-1] + 1)]
    for other in (2 * value, value + 1, value - 1):
        try:
            AGENTS[name](**base | {argument: other})
        except JaxrlError:
            continue
        if other != value:
            return [other]
    raise AssertionError(f"{name}: no other value for {argument}={value}")


@pytest.mark.parametrize("name", AGENTS)
def test_every_float_is_used(name):
    """Where it should be: an output of the function depends on it."""
    ignored = []
    for argument in parameters(name):
        if is_float(name, argument):
            for static, reaches in cases(name, argument):
                parts, _ = example(name, static, argument)
                ignored += [(argument, part) for part in reaches if argument not in parts[part].inputs]
    assert not ignored


def alike(name, argument, most=None):
    """For so many other values of an argument, each two of them: which functions are the same for both."""
    place = place_of(name, argument)
    for static, reaches in cases(name, argument):
        programs = {"as it is": example(name, static, argument)[0]}
        for other in others(name, argument, static)[:most]:
            programs[str(other)] = trace_agent(
                AGENTS[name], static | {argument: other}, floats(name, static), SPECS[place]
            )[0]
        for a, b in itertools.combinations(programs, 2):
            yield from ((argument, a, b, part) for part in reaches if programs[a][part] == programs[b][part])


# What agents with a replay share, and what a preset hands on, is tried at each change with one agent, and with all the
# others with the slow tests.
SHARED = set(inspect.signature(make_experience).parameters)
PRESETS = [name for name, constructor in AGENTS.items() if constructors.lineage(constructor) != [constructor]]


def tried(name, whole):
    """The arguments to be tried at each change, or all of the others."""
    every = [x for x in parameters(name) if not is_float(name, x)]
    at_once = [] if name in PRESETS else [x for x in every if name == "dqn" or x not in SHARED]
    return [x for x in every if x not in at_once] if whole else at_once


@pytest.mark.parametrize("name", [name for name in AGENTS if name not in PRESETS])
def test_every_other_argument_is_used(name):
    """Other numbers, switches, names and tuples make other programs; of the many activations one other is tried."""
    assert not [x for k in tried(name, False) for x in alike(name, k, most=1 if k == "activation" else None)]


@pytest.mark.slow
@pytest.mark.parametrize("name", AGENTS)
def test_every_shared_argument_is_used(name):
    """So do those that are tried less often; and no two names of anything make the same."""
    assert not [x for argument in tried(name, True) for x in alike(name, argument)]
    assert not [x for argument in tried(name, False) for x in alike(name, argument)]


@pytest.mark.parametrize("name", ["dqn", "sac", "ppo", "sarsa"])
def test_the_same_arguments_make_the_same_program(name):
    """So that where two programs differ, it is for the argument's sake."""
    static = settings(name)
    again, _ = trace_agent(AGENTS[name], static, floats(name, static), SPECS[place_of(name)])
    assert again == example(name, static, None)[0]


@pytest.mark.parametrize("name", AGENTS)
def test_keys(name):
    """No random key is used twice, no two are alike, and none is made of nothing: it would be the same each time."""
    _, calls = example(name, settings(name), None)
    for function, arguments in calls.items():
        with jax.debug_key_reuse(True):
            jaxpr = jax.jit(function).trace(*arguments).jaxpr
        assert misused_keys(jaxpr) == [], function
