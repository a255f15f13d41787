"""Every argument of the components does something: returns, losses, exploring, statistics, replays, planning, how an
agent is evaluated, and the parameters of environments. As in `agents/test_arguments.py`, nothing is run."""

import functools
import inspect

import jax
import jax.numpy as jnp
import pytest
from fake_agent import fake
from tracing import parts_of

import jaxrl
from jaxrl import exploration, losses, planning, returns
from jaxrl.envs.registry import OWN, RANDOMIZATION, WRAPPERS, float_parameters
from jaxrl.learning import pop_art
from jaxrl.learning.experience import example_trajectory
from jaxrl.replay import hindsight, prioritized, ranked, uniform
from jaxrl.transforms import normalize
from jaxrl.types import Env

# ---------------------------------------------------------------- functions of arrays

STEPS = dict.fromkeys(
    ("rewards", "discounts", "values", "next_values", "log_rhos", "q_taken", "next_q_taken", "next_log_rhos"),
    jnp.ones((4, 2)),
)
ARRAYS = STEPS | {
    "bootstrap": jnp.ones((4, 2)), "ended": jnp.zeros((4, 2), bool), "lambda_": jnp.float32(0.5),
    "clip_rho": jnp.float32(1), "clip_c": jnp.float32(1), "actions": jnp.zeros(2, int),
    "probabilities": jnp.ones((2, 3)), "targets": jnp.ones((2, 3)), "support": jnp.arange(3.0),
    "quantiles": jnp.ones((2, 3)), "kappa": jnp.float32(1), "key": jax.random.key(0), "q_values": jnp.ones((2, 3)),
    "epsilon": jnp.float32(0.1), "action": jnp.ones((2, 3)), "scale": jnp.float32(1), "state": jnp.ones((2, 3)),
    "theta": jnp.float32(0.1), "spread": jnp.float32(1), "start": jnp.float32(1), "final": jnp.float32(0.1),
    "step": jnp.int32(3),
    "statistics": normalize.init_statistics((3,)), "batch": jnp.ones((5, 3)),
    "x": jnp.ones((5, 3)), "clip": jnp.float32(10), "rate": jnp.float32(0.1),
    "head": {"kernel": jnp.ones((3, 1)), "bias": jnp.ones(1)}, "old": pop_art.init_pop_art(),
    "new": pop_art.init_pop_art(), "gamma": jnp.float32(0.9), "tolerance": jnp.float32(1e-3), "policy": jnp.zeros(16),
}  # fmt: skip
OF = {
    ("take", "values"): jnp.ones((2, 3)),
    ("pop_art_update", "scale"): pop_art.init_pop_art(),
    ("denormalize", "scale"): pop_art.init_pop_art(),
    ("denormalize", "values"): jnp.ones((4, 2)),
    ("look_ahead", "values"): jnp.zeros(16),
    ("path_length", "policy"): jnp.zeros(16, jnp.int32),
}
WHOLE = {"n": (2, 3), "max_iterations": (10, 20), "max_steps": (10, 20), "num_envs": (2, 3), "decay_steps": (10, 20)}
# What does not count, as the docstring says: it is there for its shape.
UNUSED = {("retrace", "q_taken")}
MODEL = jaxrl.make("jaxrl/Maze-v0").model
PLANS = ("value_iteration", "q_value_iteration", "policy_evaluation", "policy_iteration", "path_length", "look_ahead")
FUNCTIONS = {
    function.__name__: function
    for module in (returns, losses, exploration)
    for _, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and not function.__name__.startswith("_")
}
FUNCTIONS |= {f.__name__: f for f in (normalize.update_statistics, normalize.normalize, pop_art.pop_art_update)}
FUNCTIONS |= {f.__name__: f for f in (pop_art.preserve_outputs, pop_art.denormalize)}
FUNCTIONS["linear_epsilon"] = lambda start, final, decay_steps, step: exploration.linear_epsilon(
    "owner", start, final, decay_steps
)(step)
FUNCTIONS |= {name: functools.partial(getattr(planning, name), MODEL) for name in PLANS}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_of_a_function_is_used(name):
    """The result depends on each array and float, and is another one for another whole number."""
    function = FUNCTIONS[name]
    wanted = list(inspect.signature(function).parameters)
    whole = {k: WHOLE[k][0] for k in wanted if k in WHOLE}
    arrays = {k: OF.get((name, k), ARRAYS.get(k)) for k in wanted if k not in WHOLE}

    def program(whole):
        return parts_of(lambda named: {"result": function(**named, **whole)}, arrays)[0]["result"]

    found = program(whole)
    assert set(arrays) - found.inputs == {k for owner, k in UNUSED if owner == name}
    for argument in whole:
        assert program(whole | {argument: WHOLE[argument][1]}) != found, argument


# ---------------------------------------------------------------- transformations and replays

GOALS = jaxrl.make("jaxrl/BitFlip-v0", num_bits=3).spec
STEP = jnp.int32(0)


def replay_parts(make_replay, floats):
    """The functions of a replay as `Part`s; floats are inputs."""
    example = example_trajectory(GOALS, (2, 2))
    key, indices = jax.random.key(0), jnp.zeros(4, jnp.int32)

    def run(values, state, trajectory, key, errors):
        replay = make_replay(**values)
        return {
            "add": replay.add(state, trajectory, STEP),
            "sample": replay.sample(state, key, STEP, 2),
            "update": replay.update(state, indices, errors),
        }

    state = jax.eval_shape(lambda values: make_replay(**values).init(example, GOALS), floats)
    return parts_of(run, floats, state, example, key, jnp.ones(4))[0]


SIZES = {"capacity": 16, "batch_size": 4}
REPLAYS = {  # the constructor, what makes another program, and which functions a float reaches
    "uniform": (uniform, {"capacity": 32, "batch_size": 2, "read": hindsight()}, {}),
    "prioritized": (
        prioritized,
        {"capacity": 32, "batch_size": 2, "beta_steps": 7, "read": hindsight()},
        {"alpha": "update", "beta": "sample", "epsilon": "update"},
    ),
    "ranked": (
        ranked,
        {"capacity": 32, "batch_size": 2, "beta_steps": 7, "sort_every": 4, "read": hindsight()},
        {"alpha": "update", "beta": "sample"},
    ),
}


@pytest.mark.parametrize("name", REPLAYS)
def test_every_argument_of_a_replay_is_used(name):
    constructor, others, floats = REPLAYS[name]
    parameters = inspect.signature(constructor).parameters
    assert set(parameters) == set(others) | set(floats)
    values = {k: jnp.float32(parameters[k].default) for k in floats}
    found = replay_parts(functools.partial(constructor, **SIZES), values)
    for argument, part in floats.items():
        assert argument in found[part].inputs, argument
    for argument, value in others.items():
        assert replay_parts(functools.partial(constructor, **SIZES | {argument: value}), values) != found, argument


def test_every_argument_of_hindsight_is_used():
    def parts(**options):
        return replay_parts(
            lambda probability: uniform(**SIZES, read=hindsight(probability=probability, **options)),
            {"probability": jnp.float32(0.5)},
        )["sample"]

    found = [parts(strategy=strategy) for strategy in ("future", "final", "episode")]
    assert all("probability" in part.inputs for part in found)
    assert len({part.program for part in found}) == 3


def test_every_argument_of_a_transformation_is_used():
    """`clip` of each, and `gamma` of the rewards' scale, reach what the agent within is given."""
    spec = jaxrl.make("CartPole-v1").spec
    agent, rows = fake(), example_trajectory(spec, (4, 2))

    def seeing(agent):
        """The agent's `act` returns what it sees, and its `update` what it is to learn from."""
        act = lambda state, memory, obs, key, step, explore=True: (obs, memory, {})  # noqa: E731
        update = lambda state, trajectory, key, step: (state, {"all": trajectory})  # noqa: E731
        return agent._replace(act=act, update=update)

    def run(named, rows, key):
        clips = normalize.normalize_observations(seeing(agent), clip=named["clip"])
        scales = normalize.normalize_rewards(seeing(agent), named["gamma"], clip=named["clip"])
        both = normalize.normalized(seeing(agent), named["gamma"], observations=True, rewards=True)
        replay = normalize.normalize_replay(uniform(**SIZES), clip=named["clip"])
        state, stored = clips.init(key, spec), replay.init(rows, spec)
        acts = normalize.act_normalized(seeing(agent), clip=named["clip"])
        inside = type("Inside", (), {"replay": stored})
        return {
            "act": clips.act(state, (), rows.obs[0], key, STEP)[0],
            "obs": clips.update(state, rows, key, STEP)[1]["all"].obs,
            "next_obs": clips.update(state, rows, key, STEP)[1]["all"].next_obs,
            "reward": scales.update(scales.init(key, spec), rows, key, STEP)[1]["all"].reward,
            "reward of both": both.update(both.init(key, spec), rows, key, STEP)[1]["all"].reward,
            "sample": replay.sample(stored, key, STEP).steps,
            "act_normalized": acts.act(inside, (), rows.obs[0], key, STEP)[0],
        }

    found, _ = parts_of(run, {"clip": jnp.float32(10), "gamma": jnp.float32(0.9)}, rows, jax.random.key(0))
    assert {name for name, part in found.items() if "clip" not in part.inputs} == {"reward of both"}
    assert {name for name, part in found.items() if "gamma" in part.inputs} == {"reward", "reward of both"}


def test_every_argument_of_evaluate_is_used():
    env, agent = jaxrl.make("jaxrl/Maze-v0"), fake()

    def program(**options):
        def run(named):
            state = agent.init(named["key"], env.spec)
            return {"returns": jaxrl.evaluate(named["key"], agent, state, env, **options)}

        return parts_of(run, {"key": jax.random.key(0)})[0]["returns"].program

    assert len({program(num_episodes=n, max_steps=m) for n, m in ((2, 5), (3, 5), (2, 6), (2, None))}) == 4


# ---------------------------------------------------------------- environments


def env_program(env, floats=()):
    """What an environment's two functions compute, or one's that is made of floats; and its spec without functions."""

    def run(named, key, state, action):
        made = env if isinstance(env, Env) else env(**named)
        return {"reset": made.reset(key), "step": made.step(key, state, action)}

    named = dict(floats)
    example = env if isinstance(env, Env) else env(**named)
    state, _ = jax.eval_shape(example.reset, jax.random.key(0))
    space = example.spec.action_space
    parts, _ = parts_of(run, named, jax.random.key(0), state, jnp.zeros(space.shape, space.dtype))
    return parts, example.spec._replace(goal=None)


ROOM = "S.\n.T"
OTHER_PARAMETERS = {  # of our own environments, another value of each parameter
    "jaxrl/Maze-v0": {"layout": ROOM},
    "jaxrl/RandomWalk-v0": {"num_states": 5},
    "jaxrl/MaximizationBias-v0": {"num_actions": 4},
    "jaxrl/BitFlip-v0": {"num_bits": 4},
    "jaxrl/Point-v0": {"max_steps": 7},
    "jaxrl/Probe-action-v0": {"continuous": True},
    "jaxrl/Probe-policy-v0": {"continuous": True},
}


def test_every_parameter_of_our_environments_is_used():
    assert {
        k: set(inspect.signature(make).parameters) for k, make in OWN.items() if inspect.signature(make).parameters
    } == {k: set(v) for k, v in OTHER_PARAMETERS.items()}
    for env_id, others in OTHER_PARAMETERS.items():
        for argument, value in others.items():
            changed = env_program(jaxrl.make(env_id, **{argument: value}))
            assert changed[0]["step"] != env_program(jaxrl.make(env_id))[0]["step"], (env_id, argument)


WRAPPED = {  # of each parameter of `make`, two values, and an environment for which it is
    "time_limit": ("Pendulum-v1", 5, 6),
    "discretize_actions": ("Pendulum-v1", 3, 4),
    "rescale_actions": ("Pendulum-v1", False, True),
    "clip_actions": ("Pendulum-v1", False, True),
    "scale_rewards": ("Pendulum-v1", 0.5, 0.25),
    "flatten_observations": ("jaxrl/Maze-v0", False, True),
    "observe": ("Pendulum-v1", (0, 1), (0, 2)),
    "frame_stack": ("Pendulum-v1", 2, 3),
    "reset_pool": ("Pendulum-v1", 2, 3),
    "randomize": ("Pendulum-v1", {"g": (9.0, 10.0)}, {"g": (9.0, 11.0)}),
    "observe_randomized": ("Pendulum-v1", False, True),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_every_wrapper_is_used(name):
    assert set(WRAPPED) == {*WRAPPERS, *RANDOMIZATION}
    env_id, one, other = WRAPPED[name]
    more = {"randomize": {"g": (9.0, 10.0)}} if name == "observe_randomized" else {}
    programs = [env_program(jaxrl.make(env_id, **more, **{name: value})) for value in (one, other)]
    assert programs[0][0] != programs[1][0]
    plain = env_program(jaxrl.make(env_id, **more))
    assert all(program[0] != plain[0] for program in programs if one is not False)


# Of gymnax's floats those that follow from others, which then do not count, and one that must be known at once.
NOT_TRACED = {"CartPole-v1": {"total_mass", "polemass_length"}, "Pendulum-v1": {"max_torque"}, "MountainCar-v0": set()}


@pytest.mark.parametrize("env_id", NOT_TRACED)
def test_every_float_parameter_is_used(env_id):
    """A step depends on each of gymnax's."""
    names = {name for name in float_parameters(env_id) if name != "scale_rewards"} - NOT_TRACED[env_id]
    parts, _ = env_program(functools.partial(jaxrl.make, env_id), dict.fromkeys(names, jnp.float32(1.0)))
    assert names - parts["step"].inputs == set()
